"""Features of gray images from a frozen backbone, and what every network here does to an image.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, torch.
Goes with: checks.py.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .checks import EvaluationError


class GrayInput(nn.Module):
    """Gray images as a backbone takes them: normalized, and repeated for three channels.

    Args:
        backbone: takes as many channels as its first convolution, 1 or 3, and 3 where it has none.
        mean: subtracted from gray values in [0, 1]; one value, or one for each channel.
        std: divided by.

    Raises:
        EvaluationError: another number of channels, or values that cannot normalize them.

    >>> GrayInput(nn.Conv2d(3, 8, 3))(torch.ones(2, 1, 5, 5)).shape
    torch.Size([2, 3, 5, 5])
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        mean: float | Sequence[float] = 0.5,
        std: float | Sequence[float] = 0.25,
    ):
        super().__init__()
        first = next((m for m in backbone.modules() if isinstance(m, nn.Conv2d)), None)
        self.channels = 3 if first is None else first.in_channels
        if self.channels not in (1, 3):
            raise EvaluationError(
                f"the backbone's first convolution takes {self.channels} channels; a gray image "
                "can be given as 1 or 3"
            )
        for name, value in {"mean": mean, "std": std}.items():
            one = torch.as_tensor(value, dtype=torch.float32).reshape(1, -1, 1, 1)
            if one.shape[1] not in (1, self.channels):
                raise EvaluationError(
                    f"{name} has {one.shape[1]} values, and the backbone takes {self.channels} "
                    "channels; give one value, or one for each channel"
                )
            if not one.isfinite().all() or (name == "std" and not (one > 0).all()):
                raise EvaluationError(
                    f"{name} {value} cannot normalize; give finite values, std above 0"
                )
            self.register_buffer(name, one, persistent=False)

    def forward(self, gray: Tensor) -> Tensor:
        """(B, 1, H, W) in [0, 1] to (B, 1 or 3, H, W)."""
        images = ((gray - self.mean) / self.std).expand(-1, self.channels, -1, -1)
        return images.contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def extract_features(
    backbone: nn.Module,
    pixels: np.ndarray,
    *,
    image_size: int,
    batch_size: int = 128,
    device: str | torch.device = "cpu",
    mean: float | Sequence[float] = 0.5,
    std: float | Sequence[float] = 0.25,
) -> np.ndarray:
    """Features of gray images from a backbone that takes one channel or three.

    Args:
        backbone: (B, C, H, W) to (B, D), with C as in `GrayInput`. Its mode (train or eval) is
            restored afterwards.
        pixels: (N, H, W) array or tensor: uint8, uint16 of the full range, or float in [0, 1].
        image_size: side in pixels to which images are scaled.
        batch_size: images at once.
        device: where the backbone is.
        mean: as in `GrayInput`.
        std: as in `GrayInput`.

    Returns:
        (N, D) float32.

    Raises:
        EvaluationError: the pixels have another shape, type or range; the backbone is elsewhere,
            takes another number of channels than 1 or 3, or gives no (B, D).

    >>> backbone = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> extract_features(backbone, np.full((1, 8, 8), 255, np.uint8), image_size=4)
    array([[2., 2., 2.]], dtype=float32)
    """
    pixels = check_gray(pixels)
    if image_size < 1 or batch_size < 1:
        raise EvaluationError(
            f"image_size {image_size} and batch_size {batch_size} must be 1 or more"
        )
    weight = next(backbone.parameters(), torch.zeros(0, device=device))
    if weight.device.type != torch.device(device).type:
        raise EvaluationError(
            f"the backbone is on {weight.device}, not on {device}; give that device"
        )
    prepare = GrayInput(backbone, mean=mean, std=std).to(device)
    size = {"size": image_size, "mode": "bilinear", "antialias": True}
    was_training = backbone.training
    backbone.eval()
    features = []
    try:
        for start in range(0, len(pixels), batch_size):
            gray = to_unit(pixels[start : start + batch_size], first=start, device=device)
            scaled = nn.functional.interpolate(gray[:, None], **size)  # (B, 1, H, W)
            found = backbone(prepare(scaled).to(weight.dtype))
            if not isinstance(found, Tensor) or found.ndim != 2:
                what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise EvaluationError(f"the backbone gives {what} for a batch; expected one (B, D)")
            features.append(found.float().cpu())
    finally:
        backbone.train(was_training)
    return torch.cat(features).numpy() if features else np.zeros((0, 0), np.float32)


def check_gray(pixels, name: str = "image") -> np.ndarray | Tensor:
    """Images as one array or tensor (N, H, W) of a known type; floats are checked by `to_unit`.

    Raises:
        EvaluationError: another shape or type; `name` is what the images are, for the text.

    >>> check_gray([[[0.5, 0.1]]]).shape
    (1, 1, 2)
    """
    try:
        pixels = pixels.detach() if isinstance(pixels, Tensor) else np.asarray(pixels)
    except ValueError as error:
        raise EvaluationError(f"the {name}s are no one array (N, H, W): {error}") from None
    if pixels.ndim != 3 or 0 in pixels.shape[1:]:
        raise EvaluationError(f"{name}s of shape {tuple(pixels.shape)}; expected gray (N, H, W)")
    kind = _kind(pixels)
    if kind not in ("uint8", "uint16") and "float" not in kind:
        raise EvaluationError(
            f"{name}s are {kind}; give uint8, uint16 of the full range, or float in [0, 1]"
        )
    if kind == "uint16" and len(pixels):
        top = int(pixels.float().max() if isinstance(pixels, Tensor) else pixels.max())
        if 0 < top < 32768:
            raise EvaluationError(
                f"{name}s are uint16 up to {top}, so they hold {top.bit_length()} bits only; scale "
                "them to 65535, or give floats in [0, 1]"
            )
    return pixels


def to_unit(
    pixels: np.ndarray | Tensor,
    *,
    name: str = "image",
    first: int = 0,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Images (N, H, W) that `check_gray` let pass, as float32 in [0, 1].

    Args:
        pixels: uint8, uint16 or float.
        name: what they are, for the text.
        first: row of the first of them, for the text.
        device: where the result is.

    Raises:
        EvaluationError: a float outside [0, 1]; 8 bits as floats are not guessed.

    >>> to_unit(np.full((1, 1, 2), 51, np.uint8))
    tensor([[[0.2000, 0.2000]]])
    """
    kind = _kind(pixels)
    if not isinstance(pixels, Tensor):
        pixels = torch.from_numpy(np.array(pixels, np.uint8 if kind == "uint8" else np.float32))
    values = pixels.to(device).float()
    if kind in ("uint8", "uint16"):
        return values / (255 if kind == "uint8" else 65535)
    low, high = values.amin(dim=(1, 2)), values.amax(dim=(1, 2))
    for row in (~((low >= -1e-6) & (high <= 1 + 1e-6))).nonzero().flatten().tolist()[:1]:
        raise EvaluationError(
            f"{name} {first + row} is {kind} with values from {low[row]:g} to {high[row]:g}; "
            "floats must lie in [0, 1], 8 bits come as uint8"
        )
    return values


def _kind(pixels: np.ndarray | Tensor) -> str:
    return str(getattr(pixels.dtype, "name", pixels.dtype)).removeprefix("torch.")
