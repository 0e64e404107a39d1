"""Two random views of a radiograph for Barlow Twins, on lightly's transform classes.

Two recipes are named. `paper` is the recipe of the published code, the original Barlow Twins
augmentations at 224 px. `demo` keeps larger crops, so that a finding stays in view, drops what
does nothing on gray images (saturation, hue and grayscale) and blurs less, since the images are
small.

Source: Zbontar et al. 2021, appendix A (arXiv 2103.03230), for the recipe called `paper`.

Needs: lightly, numpy, pillow, torch.
"""

import numpy as np
import torch
from lightly.transforms import BYOLTransform
from lightly.transforms.byol_transform import BYOLView1Transform, BYOLView2Transform
from PIL import Image

GRAY_MEAN, GRAY_STD = 0.5, 0.25

# Keyword arguments of lightly's BYOLView1Transform and BYOLView2Transform.
PRESETS: dict[str, dict] = {
    "paper": {
        "both": {"min_scale": 0.08, "cj_prob": 0.8, "random_gray_scale": 0.2},
        "first": {"gaussian_blur": 1.0, "solarization_prob": 0.0},
        "second": {"gaussian_blur": 0.1, "solarization_prob": 0.2},
    },
    "demo": {
        "both": {
            "min_scale": 0.5,
            "cj_prob": 0.8,
            "cj_sat": 0.0,
            "cj_hue": 0.0,
            "random_gray_scale": 0.0,
            "sigmas": (0.1, 0.7),
        },
        "first": {"gaussian_blur": 0.5, "solarization_prob": 0.0},
        "second": {"gaussian_blur": 0.1, "solarization_prob": 0.1},
    },
}


class TwoViews:
    """Makes two views of a gray image.

    Args:
        preset: `demo` or `paper`.
        image_size: side of a view in pixels.

    Raises:
        ValueError: there is no such preset, or the size is not positive.
    """

    def __init__(self, preset: str, image_size: int):
        if preset not in PRESETS:
            raise ValueError(f"no views preset {preset!r}; there are {sorted(PRESETS)}")
        if image_size < 1:
            raise ValueError(f"image_size is {image_size}; give the side of a view in pixels")
        recipe = PRESETS[preset]
        both = {
            "input_size": image_size,
            "normalize": {"mean": [GRAY_MEAN], "std": [GRAY_STD]},
            **recipe["both"],
        }
        self.transform = BYOLTransform(
            BYOLView1Transform(**both, **recipe["first"]),
            BYOLView2Transform(**both, **recipe["second"]),
        )

    def __call__(self, image: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Two views of one image.

        Args:
            image: (H, W), uint8, or uint16 of the full range, or float in [0, 1].

        Returns:
            Two float32 tensors (1, image_size, image_size), about zero mean and unit variance.

        Raises:
            ValueError: the image has another shape, type or range.
        """
        first, second = self.transform(Image.fromarray(to_uint8(image)))
        return first, second


def to_uint8(image: np.ndarray) -> np.ndarray:
    """A gray image as bytes, the form that Pillow's transforms take.

    Args:
        image: (H, W), uint8, or uint16 of the full range, or float in [0, 1].

    Raises:
        ValueError: the image has another shape, type or range.

    >>> to_uint8(np.array([[0.0, 1.0]])).tolist(), to_uint8(np.array([[65535]], np.uint16)).tolist()
    ([[0, 255]], [[255]])
    """
    if image.ndim != 2:
        raise ValueError(f"expected one gray image (height, width), got shape {image.shape}")
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return (image >> 8).astype(np.uint8)
    if image.dtype.kind != "f" or not (image.min() >= 0 and image.max() <= 1):
        raise ValueError(f"expected uint8, uint16 or float in [0, 1], got {image.dtype}")
    return np.round(image * 255).astype(np.uint8)


def view_to_image(view: torch.Tensor) -> np.ndarray:
    """A view as an image to look at: (1, H, W) normalized to (H, W) float in [0, 1]."""
    return (view[0] * GRAY_STD + GRAY_MEAN).clamp(0, 1).numpy()
