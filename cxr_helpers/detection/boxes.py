"""Boxes as every file of this room takes them: their IoU, and the one check of what users bring.

A box is x_min, y_min, x_max, y_max in pixels. What lies on an image is a dict: `boxes` (n, 4) and
`labels` (n,), whole numbers from 1; in detections also `scores` (n,). Arrays, lists or tensors on
any device, and n may be 0. Truths and predictions are lists of such dicts, one for each image.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy.
"""

from collections.abc import Mapping, Sequence
from numbers import Real

import numpy as np

Boxes = Sequence[Mapping[str, object]]


def as_array(values: object) -> np.ndarray:
    """An array, a list or tensors of any device and type as an array; what is masked becomes NaN.

    >>> as_array([1, 2])
    array([1, 2])
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if "bfloat16" in str(values.dtype) else values
    elif isinstance(values, list | tuple) and any(hasattr(one, "detach") for one in values):
        values = [as_array(one) for one in values]
    elif isinstance(values, np.ma.MaskedArray):
        values = values.astype(float).filled(np.nan)
    return np.asarray(values)


def as_numbers(values: object, where: str) -> np.ndarray:
    """Values as finite float64; `where` begins the message of what is refused.

    Raises:
        ValueError: text, flags, or a value that is not finite.

    >>> as_numbers([0.5, "x"], "image 3: scores")
    Traceback (most recent call last):
    ValueError: image 3: scores holds '0.5'; expected numbers
    """
    array = as_array(values)
    if not array.size:
        return np.zeros(array.shape)
    if array.dtype == object:  # as of a table with columns of several types
        odd = [v for v in array.ravel() if isinstance(v, bool) or not isinstance(v, Real)]
        array = array if odd else array.astype(float)
    else:
        odd = array.ravel()[:1].tolist() if array.dtype.kind not in "uif" else []
    if odd:
        raise ValueError(f"{where} holds {odd[0]!r}; expected numbers")
    if not np.isfinite(array).all():
        raise ValueError(f"{where} holds a value that is not finite")
    return array.astype(np.float64)


def as_boxes(boxes_xyxy: object, where: str = "boxes") -> np.ndarray:
    """Boxes as (n, 4) float64.

    Raises:
        ValueError: another shape, no finite numbers, or a box that ends before it begins.

    >>> as_boxes([[0, 0, 9, 9]]).tolist(), as_boxes([]).shape
    ([[0.0, 0.0, 9.0, 9.0]], (0, 4))
    """
    boxes = as_numbers(boxes_xyxy, where)
    boxes = boxes if boxes.size else boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{where} of shape {boxes.shape}; expected (n, 4)")
    turned = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    if turned.any():
        raise ValueError(
            f"{where} has {boxes[turned][0].tolist()}; expected x_min, y_min, x_max, y_max"
        )
    return boxes


def box_iou(a_xyxy: object, b_xyxy: object) -> np.ndarray:
    """IoU of each box of one set with each of the other; 0 where both have no area.

    Args:
        a_xyxy: (N, 4), or empty.
        b_xyxy: (M, 4), or empty.

    Returns:
        (N, M) float64.

    Raises:
        ValueError: as `as_boxes`.

    >>> box_iou([[0, 0, 10, 10]], [[0, 0, 10, 5], [5, 5, 15, 15]]).round(3).tolist()
    [[0.5, 0.143]]
    """
    a, b = as_boxes(a_xyxy)[:, None], as_boxes(b_xyxy)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    overlap = np.clip(sides, 0, None).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def different_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """The names of the classes 1, 2, ...

    Raises:
        ValueError: one text or a set, which has no order, instead of a list, or a name that occurs
            twice.

    >>> different_names(["mass", "nodule"])
    ('mass', 'nodule')
    """
    unordered = isinstance(class_names, str | set | frozenset)
    names = () if unordered else tuple(class_names)
    if unordered or len(set(names)) < len(names):
        raise ValueError(f"class_names must be a list of different names, not {class_names!r}")
    return names


def checked_image(
    one: Mapping[str, object], where: str, *, n_classes: float = np.inf, scores: bool = False
) -> dict[str, np.ndarray]:
    """What lies on one image: `boxes` (n, 4) float64, `labels` (n,) int64, `scores` float64.

    Args:
        one: as the module says.
        where: what the messages call it, such as `truth 3`.
        n_classes: how many classes have a name.
        scores: whether it needs scores.

    Raises:
        ValueError: a key is absent, shapes do not fit, something is no finite number, a box ends
            before it begins, or a label is no whole number from 1 to `n_classes`.

    >>> checked_image({"boxes": [[0, 0, 9, 9]], "labels": [1]}, "truth 0")["labels"]
    array([1])
    """
    keys = ("boxes", "labels", "scores") if scores else ("boxes", "labels")
    if absent := [key for key in keys if key not in one]:
        raise ValueError(f"{where} lacks {', '.join(absent)}; it has {', '.join(map(str, one))}")
    arrays = {key: as_numbers(one[key], f"{where}: {key}") for key in keys[1:]}
    arrays = {"boxes": as_boxes(one["boxes"], f"{where}: boxes")} | arrays
    shapes, n = {key: array.shape for key, array in arrays.items()}, len(arrays["boxes"])
    if shapes != {key: (n, 4) if key == "boxes" else (n,) for key in keys}:
        raise ValueError(f"{where} has shapes {shapes}; boxes must be (n, 4), the rest (n,)")
    labels = arrays["labels"]
    odd = labels[(labels < 1) | (labels > n_classes) | (labels % 1 != 0)]
    if odd.size:
        most = f"; {n_classes} class names allow 1 to {n_classes}" if n_classes < np.inf else ""
        raise ValueError(f"{where} has label {odd[0]:g}; labels are whole numbers from 1{most}")
    return arrays | {"labels": labels.astype(np.int64)}


def checked_pairs(
    predictions: Boxes, truths: Boxes, class_names: Sequence[str]
) -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """What was found and what is there, image by image, as `checked_image` gives them.

    Args:
        predictions: one dict for each image, with scores.
        truths: one dict for each image, in the same order.
        class_names: names of the classes 1, 2, ...

    Raises:
        ValueError: lengths differ, two classes have one name, or as `checked_image`.

    >>> mass = {"boxes": [[0, 0, 9, 9]], "labels": [1]}
    >>> ((found, truth),) = checked_pairs([mass | {"scores": [0.5]}], [mass], ["mass"])
    >>> found["scores"], truth["labels"]
    (array([0.5]), array([1]))
    """
    n = len(different_names(class_names))
    if len(predictions) != len(truths):
        raise ValueError(
            f"{len(predictions)} predictions for {len(truths)} truths; give one for each"
        )
    return [
        (
            checked_image(found, f"prediction {i}", n_classes=n, scores=True),
            checked_image(truth, f"truth {i}", n_classes=n),
        )
        for i, (found, truth) in enumerate(zip(predictions, truths, strict=True))
    ]
