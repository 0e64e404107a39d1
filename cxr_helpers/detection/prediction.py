"""Detect on gray images and in files, with a detector that knows its image size.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, torch.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


@torch.no_grad()
def predict(
    detector: nn.Module,
    images: np.ndarray | Sequence[np.ndarray],
    *,
    batch_size: int = 16,
    precision: torch.dtype = torch.float32,
) -> list[dict[str, np.ndarray]]:
    """Detect on gray images of any size; the detector is left in the mode it was in.

    An image larger or smaller than the detector's size is scaled with an antialiasing filter into
    the corner of a black square of that size, as the images it was trained on.

    Args:
        detector: a `Detector`, on any device.
        images: N arrays or tensors (H, W), uint8, uint16 of the full range, or float in [0, 1].
        batch_size: images at once.
        precision: `torch.bfloat16` computes the convolutions in bfloat16.

    Returns:
        For each image `boxes` (n, 4) float32 xyxy in pixels of the image given, `scores` (n,)
        float32 in [0, 1], highest first, and `labels` (n,) int64 from 1.

    Raises:
        ValueError: an image is of another shape, type or range, or `detector` has no settings.
    """
    size = getattr(getattr(detector, "settings", None), "image_size", None)
    if size is None:
        raise ValueError(
            f"{type(detector).__name__} has no settings that say its image size; give a detector "
            "of build_detector or load_detector. torchvision's own are called with images"
        )
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; give 1 or more")
    device, was_training = next(detector.parameters()).device, detector.training
    detector.eval()
    found = []
    try:
        for start in range(0, len(images), batch_size):
            given = images[start : start + batch_size]
            squares = [_square(i, size, f"image {k}") for k, i in enumerate(given, start)]
            half = precision != torch.float32
            with torch.autocast(device.type, dtype=precision, enabled=half):
                outputs = detector([image.to(device) for image, _ in squares])
            for one, (_, new_hw), image in zip(outputs, squares, given, strict=True):
                one["boxes"] = _to_image(one["boxes"], new_hw, np.shape(image))
                found.append({k: v.float().cpu().numpy() for k, v in one.items()})
    finally:
        detector.train(was_training)
    for one in found:
        one["labels"] = one["labels"].astype(np.int64)
    return found


def predict_files(
    detector: nn.Module,
    paths: Sequence[str | os.PathLike[str]],
    read: Callable[[Path], np.ndarray],
    **options,
) -> list[dict[str, np.ndarray]]:
    """Detect in files; boxes are in pixels of what `read` returns, the file's own for most.

    Args:
        detector: a `Detector`.
        paths: files of any size each.
        read: path to a gray (H, W) array as `predict` takes it, such as a DICOM reader.
        options: as for `predict`.

    Raises:
        FileNotFoundError: there is no such file; and whatever else `read` raises.
        ValueError: what `read` returned is no gray image in range; the text names the file.
    """
    if isinstance(paths, (str, os.PathLike)):
        raise ValueError(f"paths must be a list of files, not the path {str(paths)!r}")
    found = []
    for path in paths:
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such image")
        try:
            image = gray_to_tensor(read(Path(path)))[0]
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        found += predict(detector, [image], **options)
    return found


def _square(image: np.ndarray, size: int, where: str) -> tuple[Tensor, tuple[int, int]]:
    """An image scaled into the upper left corner of a black square, and its size there (h, w)."""
    try:
        tensor = gray_to_tensor(image)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    height, width = tensor.shape[1:]
    scale = size / max(height, width)
    new_hw = max(1, round(height * scale)), max(1, round(width * scale))
    if new_hw != (height, width):
        small = nn.functional.interpolate(
            tensor[None, :1], size=new_hw, mode="bilinear", antialias=True
        )
        tensor = small[0].clamp(0, 1).expand(3, -1, -1)
    return nn.functional.pad(tensor, (0, size - new_hw[1], 0, size - new_hw[0])), new_hw


def _to_image(boxes_xyxy: Tensor, new_hw: tuple[int, int], hw: tuple[int, int]) -> Tensor:
    """Boxes in a square of `_square` as boxes in the image, clipped to it."""
    factor = torch.tensor([hw[1] / new_hw[1], hw[0] / new_hw[0]] * 2).to(boxes_xyxy)
    most = torch.tensor([hw[1], hw[0]] * 2).to(boxes_xyxy)
    return torch.minimum(boxes_xyxy * factor, most)


def gray_to_tensor(image: np.ndarray | Tensor) -> Tensor:
    """A gray image as the (3, H, W) float32 in [0, 1] that the detector takes.

    Args:
        image: (H, W), array or tensor, uint8, uint16 of the full range, or float in [0, 1].

    Raises:
        ValueError: another shape, type or range.

    >>> gray_to_tensor(np.full((2, 4), 255, np.uint8)).shape
    torch.Size([3, 2, 4])
    """
    pixels = image.detach().cpu().numpy() if torch.is_tensor(image) else np.asarray(image)
    if pixels.ndim != 2 or 0 in pixels.shape:
        raise ValueError(
            f"expected a gray image (height, width), got shape {pixels.shape}; take one channel"
        )
    whole = pixels.dtype in (np.uint8, np.uint16)
    if not whole and not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(f"{pixels.dtype} image: make it uint8, or float in [0, 1]")
    low, high = pixels.min(), pixels.max()
    told = f"{pixels.dtype} image with values from {low} to {high}"
    if pixels.dtype == np.uint16 and 0 < high < 2**15:
        raise ValueError(
            f"{told} holds {int(high).bit_length()} bits, not 16: scale it to 65535, or to float "
            "in [0, 1]"
        )
    if not whole and not (low >= 0 and high <= 1):
        raise ValueError(f"{told}; scale floats to [0, 1]")
    pixels = pixels.astype(np.float32) / (np.iinfo(pixels.dtype).max if whole else 1)
    return torch.from_numpy(pixels).expand(3, -1, -1)
