"""What this folder takes for arrays, gray images, boxes and labels, and how it refuses the rest.

Arrays, lists and tensors of any device and type are taken alike.

- An image is gray: uint8, uint16 of the full range, or float in [0, 1].
- Boxes are xyxy in pixels, each with an area.
- Labels are whole numbers from 1 on; 0 is a detector's background.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy.
"""

import numpy as np

TOLERANCE = 1e-3  # of values that resizing or a short float type moves out of [0, 1]


class ExplanationError(ValueError):
    """A detector, a layer, an image, a map, a box or a label that cannot be explained or scored."""


def array(values, name: str) -> np.ndarray:
    """An array of a list, a data frame, or tensors; what is masked becomes NaN.

    >>> array([[1, 2]], "table").shape
    (1, 2)
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if "bfloat16" in str(values.dtype) else values
    elif isinstance(values, (list, tuple)):
        values = [
            array(one, name) if hasattr(one, "detach") or isinstance(one, (list, tuple)) else one
            for one in values
        ]
    elif isinstance(values, np.ma.MaskedArray):
        values = values.astype(float).filled(np.nan)
    try:
        return np.asarray(values)
    except ValueError as error:  # lists of several lengths
        raise ExplanationError(f"the {name} is no one array: {error}") from None


def numbers(values, name: str) -> np.ndarray:
    """float64 of what holds plain numbers: no text, nothing complex.

    >>> numbers([True, 2], "list").tolist()
    [1.0, 2.0]
    """
    found = array(values, name)
    try:
        if found.dtype.kind not in "buifO":
            raise TypeError(found.ravel()[:1].tolist())
        if found.dtype == object:  # whose text float() might read as a number
            text = [value for value in found.flat if isinstance(value, str)]
            if text:
                raise TypeError(text[:1])
        return found.astype(float)
    except (TypeError, ValueError) as error:
        raise ExplanationError(f"the {name} holds no plain numbers: {error}") from None


def gray_values(image) -> np.ndarray:
    """float32 in [0, 1], but for rounding, of an image of any shape.

    >>> gray_values(np.array([[0, 255]], np.uint8)).tolist()
    [[0.0, 1.0]]
    """
    values = array(image, "image")
    kind = values.dtype.name
    if kind not in ("uint8", "uint16") and values.dtype.kind != "f":
        raise ExplanationError(
            f"the image is {kind}; give uint8, uint16 of the full range, or float in [0, 1]"
        )
    found = values.astype(np.float32)
    if kind == "uint8" or not found.size:
        return found / 255
    low, top = found.min(), found.max()
    if kind == "uint16":
        if 0 < top < 32768:
            raise ExplanationError(
                f"the image is uint16 up to {top:g}, so it holds {int(top).bit_length()} bits "
                "only; scale it to 65535, or give floats in [0, 1]"
            )
        return found / 65535
    if not (low >= -TOLERANCE and top <= 1 + TOLERANCE):
        raise ExplanationError(
            f"the image has values from {low:g} to {top:g}; expected [0, 1], so give 8 bits as "
            "uint8, or divide them by 255"
        )
    return found


def images_for(device, images, *, several: bool = False) -> np.ndarray:
    """Gray values (B, 1 or 3, H, W) of one image or a batch for a detector on this device.

    Args:
        device: the detector's.
        images: (H, W), (1, H, W) or (3, H, W); or (B, 1, H, W) or (B, 3, H, W).
        several: whether a batch is expected.

    >>> images_for("cpu", np.zeros((4, 6), np.uint8)).shape
    (1, 1, 4, 6)
    """
    if hasattr(images, "detach") and images.device != device:
        raise ExplanationError(
            f"the image is on {images.device}, the detector on {device}; move one"
        )
    found = gray_values(images)
    shape, expected = found.shape, "(H, W), (1, H, W) or (3, H, W)"
    if several:
        expected = "(B, 3, H, W) or (B, 1, H, W)"
    else:
        found = found[None, None] if found.ndim == 2 else found[None]
    if found.ndim != 4 or found.shape[1] not in (1, 3) or 0 in found.shape:
        raise ExplanationError(f"image of shape {shape}; expected {expected}, and no side of 0")
    return found


def check_boxes(boxes_xyxy) -> np.ndarray:
    """Boxes (n, 4) float64, finite, each with an area; n may be 0.

    >>> check_boxes([]).shape
    (0, 4)
    """
    boxes = numbers(boxes_xyxy, "table of boxes")
    boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ExplanationError(f"boxes of shape {boxes.shape}; expected (n, 4)")
    for box in boxes:
        if not np.isfinite(box).all() or (box[2:] <= box[:2]).any():
            raise ExplanationError(
                f"box {box.tolist()} is no (x_min, y_min, x_max, y_max), finite and with an area"
            )
    return boxes


def check_labeled_boxes(
    boxes_xyxy, labels, *, image_hw: tuple[int, int], class_count: int
) -> tuple[np.ndarray, list[int]]:
    """Boxes (n, 4) that touch the image, and a class of each, none of them background.

    >>> check_labeled_boxes([[0, 0, 4, 4]], [2.0], image_hw=(8, 8), class_count=3)
    (array([[0., 0., 4., 4.]]), [2])
    """
    boxes, values = check_boxes(boxes_xyxy), numbers(labels, "list of labels")
    if values.shape != (len(boxes),):
        raise ExplanationError(
            f"boxes of shape {boxes.shape} and labels of shape {values.shape}; expected (n, 4) and "
            "(n,), a label for each box"
        )
    for label in values:
        if not (1 <= label < class_count and label == int(label)):
            raise ExplanationError(
                f"label {label:g} is no class of this detector; 0 is background, the last is "
                f"{class_count - 1}"
            )
    height, width = image_hw
    for box in boxes:
        if (box[2:] <= 0).any() or box[0] >= width or box[1] >= height:
            raise ExplanationError(
                f"box {box.tolist()} lies outside the image of {width} x {height}"
            )
    return boxes, [int(label) for label in values]
