"""Two random views of a radiograph for Barlow Twins, on lightly's transform classes.

Two recipes are named. `paper` is the recipe of the published code, the original Barlow Twins
augmentations at 224 px, but for two things: that code resizes with bicubic weights, lightly's
classes with bilinear ones, and it normalizes with ImageNet's mean and standard deviation. `demo`
keeps larger crops, so that a finding stays in view, leaves out what does nothing on gray images
(saturation, hue and grayscale), and is milder where a change of gray values would hide what a
finding changes.

In both the two views differ in kind: the first is blurred more often, the second alone is
solarized (bright values inverted).

Source: Zbontar et al. 2021, appendix A (arXiv 2103.03230), for the recipe called `paper`.

From cxr-helpers 0.2.0 (MIT license).
Needs: lightly, numpy, pillow, torch.
Goes with: pairs.py.
"""

import numpy as np
import torch
from lightly.transforms import BYOLTransform
from lightly.transforms.byol_transform import BYOLView1Transform, BYOLView2Transform
from PIL import Image

from .pairs import drawn_from

GRAY_MEAN, GRAY_STD = 0.5, 0.25

# Keyword arguments of lightly's BYOLView1Transform and BYOLView2Transform.
PRESETS: dict[str, dict] = {
    "paper": {
        "both": {
            "min_scale": 0.08,
            "hf_prob": 0.5,
            "cj_prob": 0.8,
            "cj_bright": 0.4,
            "cj_contrast": 0.4,
            "cj_sat": 0.2,
            "cj_hue": 0.1,
            "random_gray_scale": 0.2,
            "sigmas": (0.1, 2.0),
        },
        "first": {"gaussian_blur": 1.0, "solarization_prob": 0.0},
        "second": {"gaussian_blur": 0.1, "solarization_prob": 0.2},
    },
    "demo": {
        "both": {
            "min_scale": 0.8,
            "hf_prob": 0.5,
            "cj_prob": 0.8,
            "cj_bright": 0.2,
            "cj_contrast": 0.2,
            "cj_sat": 0.0,
            "cj_hue": 0.0,
            "random_gray_scale": 0.0,
            "sigmas": (0.1, 0.7),
        },
        "first": {"gaussian_blur": 0.5, "solarization_prob": 0.0},
        "second": {"gaussian_blur": 0.1, "solarization_prob": 0.05},
    },
}

# What each augmentation changes in the settings above when it acts alone.
NOTHING = {
    "min_scale": 1.0,
    "hf_prob": 0.0,
    "cj_prob": 0.0,
    "cj_bright": 0.0,
    "cj_contrast": 0.0,
    "cj_sat": 0.0,
    "cj_hue": 0.0,
    "random_gray_scale": 0.0,
    "gaussian_blur": 0.0,
    "solarization_prob": 0.0,
}
ALONE: dict[str, tuple[str, ...]] = {
    "crop": ("min_scale",),
    "flip": ("hf_prob",),
    "brightness": ("cj_prob", "cj_bright"),
    "contrast": ("cj_prob", "cj_contrast"),
    "saturation": ("cj_prob", "cj_sat"),
    "hue": ("cj_prob", "cj_hue"),
    "grayscale": ("random_gray_scale",),
    "blur": ("gaussian_blur",),
    "solarization": ("solarization_prob",),
}


def recipe(preset: str) -> tuple[dict, dict]:
    """Settings of the first and of the second view, as keyword arguments of lightly's classes.

    Args:
        preset: `demo` or `paper`.

    Raises:
        ValueError: there is no such preset.

    >>> first, second = recipe("paper")
    >>> first["gaussian_blur"], second["gaussian_blur"], second["solarization_prob"]
    (1.0, 0.1, 0.2)
    """
    if preset not in PRESETS:
        raise ValueError(f"no views preset {preset!r}; there are {sorted(PRESETS)}")
    parts = PRESETS[preset]
    return parts["both"] | parts["first"], parts["both"] | parts["second"]


class TwoViews:
    """Makes two views of a gray image with lightly's BYOLView1Transform and BYOLView2Transform.

    Args:
        preset: `demo` or `paper`; or two dicts of keyword arguments, one for each class.
        image_size: side of a view in pixels.

    Raises:
        ValueError: there is no such preset, a chance or a crop is no share, or the size is not
            positive.

    >>> view_a, view_b = TwoViews("demo", 8)(np.zeros((16, 16), np.uint8))
    >>> view_a.shape, view_b.shape
    (torch.Size([1, 8, 8]), torch.Size([1, 8, 8]))
    """

    def __init__(self, preset: str | tuple[dict, dict], image_size: int):
        first, second = recipe(preset) if isinstance(preset, str) else preset
        for settings in (first, second):
            shares = {k: v for k, v in settings.items() if k == "min_scale" or _is_chance(k)}
            if wrong := {k: v for k, v in shares.items() if not 0 <= v <= 1}:
                raise ValueError(f"the recipe of a view has {wrong}; give shares from 0 to 1")
        if image_size < 1:
            raise ValueError(f"image_size is {image_size}; give the side of a view in pixels")
        common = {
            "input_size": image_size,
            "normalize": {"mean": [GRAY_MEAN], "std": [GRAY_STD]},
        }
        self.transform = BYOLTransform(
            BYOLView1Transform(**common, **first), BYOLView2Transform(**common, **second)
        )

    def __call__(self, image: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Two views of one image.

        Args:
            image: (H, W) array or tensor, uint8, or uint16 of the full range, or float in [0, 1].

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
        image: (H, W) array or tensor, uint8, or uint16 of the full range, or float in [0, 1].

    Raises:
        ValueError: the image has another shape, type or range, or masked pixels; or is uint16 with
            its highest bit never set, so that it holds fewer bits.

    >>> to_uint8(np.array([[0.0, 1.0]])).tolist(), to_uint8(np.array([[65535]], np.uint16)).tolist()
    ([[0, 255]], [[255]])
    """
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        image = image.float() if image.is_floating_point() else image  # numpy has no bfloat16
    if np.ma.is_masked(image):
        raise ValueError("pixels of the image are masked; give them a value, image.filled(0)")
    image = np.asarray(image)
    if image.ndim != 2 or 0 in image.shape:
        raise ValueError(f"expected one gray image (height, width), got shape {image.shape}")
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind == "u" and image.dtype.itemsize == 2:  # of either byte order
        if 0 < (top := int(image.max())) < 32768:
            raise ValueError(
                f"expected uint16 of the full range, got one up to {top}, which holds "
                f"{top.bit_length()} bits; scale it to 65535, or pass floats in [0, 1]"
            )
        return (image >> 8).astype(np.uint8)
    if image.dtype.kind != "f":
        numbers = image.dtype.kind in "iu"
        span = f" from {image.min()} to {image.max()}" if numbers else ""
        raise ValueError(
            f"expected uint8, uint16 of the full range or float in [0, 1], got {image.dtype}{span}"
            "; convert it to one of these"
        )
    if not (image.min() >= 0 and image.max() <= 1):
        raise ValueError(
            f"expected floats in [0, 1], got {image.min()} to {image.max()}; scale them first"
        )
    return np.round(image * 255).astype(np.uint8)


def view_to_image(view: torch.Tensor) -> np.ndarray:
    """A view as an image to look at: (1, H, W) normalized to (H, W) float in [0, 1].

    Raises:
        ValueError: the view has another shape.

    >>> view_to_image(torch.zeros(1, 2, 2)).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    if view.ndim != 3 or len(view) != 1:
        raise ValueError(f"expected one view (1, H, W), got shape {tuple(view.shape)}")
    return (view[0] * GRAY_STD + GRAY_MEAN).clamp(0, 1).detach().cpu().numpy()


def share_in_view(boxes_xyxy: torch.Tensor, crops: torch.Tensor) -> torch.Tensor:
    """How much of each finding is still in view after each crop.

    Args:
        boxes_xyxy: (N, 4) x_min, y_min, x_max, y_max in pixels of the image.
        crops: (C, 4) top, left, height, width, as torchvision's `RandomResizedCrop.get_params`
            gives them.

    Returns:
        (C, N) float32, share of each box's area that lies inside each crop, in [0, 1].

    Raises:
        ValueError: boxes or crops of another shape, or a box that is not finite or has no area.

    >>> crop = torch.tensor([[0, 0, 10, 5]])  # the left half of an image of 10 x 10
    >>> share_in_view(torch.tensor([[4.0, 0.0, 8.0, 2.0]]), crop).tolist()
    [[0.25]]
    """
    # Areas do not fit into short types.
    boxes_xyxy, crops = (torch.as_tensor(values).double() for values in (boxes_xyxy, crops))
    if not (boxes_xyxy.ndim == crops.ndim == 2 and boxes_xyxy.shape[1] == crops.shape[1] == 4):
        raise ValueError(
            f"expected (N, 4) boxes and (C, 4) crops, got {tuple(boxes_xyxy.shape)} and "
            f"{tuple(crops.shape)}"
        )
    if not (boxes_xyxy.isfinite().all() and (boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]).all()):
        raise ValueError("a box has no area, or no end; give x_min, y_min, x_max, y_max")
    top, left, height, width = crops[:, :, None].unbind(dim=1)  # (C, 1) each
    x_min, y_min, x_max, y_max = boxes_xyxy.T  # (N,) each
    seen_w = (torch.minimum(x_max, left + width) - torch.maximum(x_min, left)).clamp_min(0)
    seen_h = (torch.minimum(y_max, top + height) - torch.maximum(y_min, top)).clamp_min(0)
    return (seen_w * seen_h / ((x_max - x_min) * (y_max - y_min))).float()


def each_augmentation(
    image: np.ndarray, preset: str, image_size: int, *, seed: int = 0
) -> dict[str, np.ndarray]:
    """One image under each augmentation of a recipe alone; the blur at its strongest.

    Args:
        image: (H, W), uint8, or uint16 of the full range, or float in [0, 1].
        preset: `demo` or `paper`.
        image_size: side of a view in pixels.
        seed: of the draws.

    Returns:
        Name to (image_size, image_size) float in [0, 1]. `none` is the image only resized. An
        augmentation that the recipe leaves out gives the same picture as `none`.

    Raises:
        ValueError: no such preset, or an image of another shape, type or range.

    >>> list(each_augmentation(np.zeros((16, 16)), "demo", 8))[:4]
    ['none', 'crop', 'flip', 'brightness']
    """
    settings, picture = recipe(preset)[1], Image.fromarray(to_uint8(image))
    pictures = {}
    for name, keys in {"none": (), **ALONE}.items():
        alone = {k: _forced(k, settings[k]) for k in keys}
        make = BYOLView2Transform(
            image_size, **NOTHING | alone, sigmas=2 * settings["sigmas"][1:], normalize=None
        )
        with drawn_from(seed):
            pictures[name] = make(picture)[0].numpy()
    return pictures


def _forced(key: str, value: float) -> float:
    """A probability that the recipe uses at all becomes 1; a strength stays as it is."""
    return float(value > 0) if _is_chance(key) else value


def _is_chance(key: str) -> bool:
    return key.endswith("_prob") or key in ("random_gray_scale", "gaussian_blur")


def no_effect_on_gray(image: np.ndarray, preset: str, image_size: int) -> list[str]:
    """Names of the augmentations of a recipe that leave this gray image as it is.

    Args:
        image: (H, W), uint8, or uint16 of the full range, or float in [0, 1].
        preset: `demo` or `paper`.
        image_size: side of a view in pixels.

    >>> gradient = np.linspace(0, 1, 64).reshape(1, -1).repeat(64, axis=0)
    >>> no_effect_on_gray(gradient, "paper", 64)
    ['saturation', 'hue', 'grayscale']
    """
    pictures = each_augmentation(image, preset, image_size)
    whole = pictures.pop("none")
    return [name for name, picture in pictures.items() if np.array_equal(picture, whole)]
