"""What counts as one gray image, and how it fits into a square.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, pillow.
"""

import numpy as np
from PIL import Image


def fit_square(image: np.ndarray, size: int) -> np.ndarray:
    """Scale an image so that its longer side is `size`, and fill up with black.

    Args:
        image: (H, W) array or tensor, uint8, uint16 of the full range, or float in [0, 1].
        size: side of the square in pixels.

    Returns:
        (size, size) uint8.

    Raises:
        ValueError: the image is not (H, W), is empty, or is of another type or range.

    >>> fit_square(np.full((2, 4), 255, np.uint8), 4).tolist()[1:3]
    [[255, 255, 255, 255], [0, 0, 0, 0]]
    """
    image = gray_image(image)
    if size < 1:
        raise ValueError(f"the side of the square must be 1 pixel or more, not {size}")
    if image.dtype != np.uint8:
        image = image * 255
    height, width = image.shape
    scale = size / max(height, width)
    new_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(Image.fromarray(image).resize(new_wh, Image.Resampling.BILINEAR))
    square = np.zeros((size, size), np.uint8)
    square[: new_wh[1], : new_wh[0]] = np.round(small).clip(0, 255)
    return square


def gray_image(image: object) -> np.ndarray:
    """Check that this is one gray image.

    Args:
        image: as for `fit_square`, or an object with such `.pixels`, as `dicom.read_dicom` returns.

    Returns:
        (H, W) uint8, or float32 in [0, 1].

    Raises:
        ValueError: the image is not (H, W), is empty, is of another type or range, or has masked
            pixels.

    >>> gray_image(np.array([[0, 65535]], np.uint16)).tolist()
    [[0.0, 1.0]]
    """
    image = getattr(image, "pixels", image)
    if hasattr(image, "detach"):  # a tensor
        image = image.detach().cpu()
        image = image.float() if image.is_floating_point() else image
    if np.ma.is_masked(image):
        raise ValueError("pixels of the image are masked; give them a value, image.filled(0)")
    image = np.asarray(image)
    if image.ndim != 2 or 0 in image.shape:
        raise ValueError(f"expected one gray image (height, width), got shape {image.shape}")
    kind, wanted = image.dtype.kind, "pass uint8, uint16 of the full range, or float in [0, 1]"
    if kind not in "fiub":
        raise ValueError(f"a {image.dtype} image; {wanted}")
    low, high = image.min(), image.max()
    if image.dtype == np.uint8:
        return image
    if kind == "u" and image.dtype.itemsize == 2:
        bits = int(high).bit_length()
        if 0 < bits < 16:
            raise ValueError(
                f"a uint16 image up to {high} holds {bits} bits; scale it to 65535, or pass "
                f"floats in [0, 1], such as image / {2**bits - 1}"
            )
        return image.astype(np.float32) / 65535
    if kind != "f":
        raise ValueError(f"a {image.dtype} image, {low} to {high}; {wanted}")
    if not (low >= 0 and high <= 1):
        raise ValueError(f"a {image.dtype} image, {low} to {high}; floats must be in [0, 1]")
    return image.astype(np.float32)
