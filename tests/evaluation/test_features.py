"""Gray images on their way into a network, and features out of it."""

import numpy as np
import pytest
import torch
from torch import nn

from cxr_helpers.evaluation.checks import EvaluationError
from cxr_helpers.evaluation.features import GrayInput, extract_features

GRAY = np.arange(100, dtype=np.uint8).reshape(1, 10, 10)


class Mean(nn.Module):
    """A 'backbone' that gives the mean of each channel."""

    def forward(self, x):
        return x.mean(dim=(2, 3))


def convolution(channels):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_features_are_normalized_gray_and_the_mode_is_restored():
    pixels = np.stack([np.full((10, 10), v, np.uint8) for v in (0, 255, 51)])
    backbone = Mean().train()
    found = extract_features(backbone, pixels, image_size=5, batch_size=2)
    assert np.allclose(found, np.repeat([[-2.0], [2.0], [-1.2]], 3, axis=1), atol=1e-6)
    assert backbone.training
    norm = {"mean": (0, 0.5, 1), "std": (1, 1, 1)}
    by_channel = extract_features(Mean(), pixels, image_size=5, **norm)
    assert np.allclose(by_channel[1], [1, 0.5, 0], atol=1e-6)


KINDS = {
    "uint8 tensor": torch.from_numpy(GRAY),
    "uint16 of the full range": GRAY.astype(np.uint16) * 600,  # 0 to 59400 of 65535
    "float64": GRAY / 255,
    "float16": (GRAY / 255).astype(np.float16),
    "tensor with gradient": torch.from_numpy(GRAY / 255).requires_grad_(),
    "list": (GRAY / 255).tolist(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_image_is_the_same_image(kind):
    gray = 600 * GRAY.mean() / 65535 if kind.startswith("uint16") else GRAY.mean() / 255
    found = extract_features(Mean(), KINDS[kind], image_size=10)
    assert found.shape == (1, 3) and np.allclose(found, (gray - 0.5) / 0.25, atol=2e-3)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (GRAY.astype(np.int64), "images are int64; give uint8"),
        (GRAY > 5, "images are bool"),
        (GRAY.astype(object), "images are object"),
        (GRAY.astype(float), "image 0 is float64 with values from 0 to 99; .*8 bits come as uint8"),
        (GRAY.astype(np.uint16), "uint16 up to 99, so they hold 7 bits only"),
        (np.full((1, 4, 4), np.nan), "image 0 is float64 with values from nan"),
        (torch.full((1, 4, 4), 2.0), "image 0 is float32 with values from 2 to 2"),
        (np.r_[np.zeros((129, 4, 4)), np.ones((1, 4, 4)) * 3], "image 129 is float64"),
        (GRAY[0], r"shape \(10, 10\); expected gray \(N, H, W\)"),
        (np.zeros((2, 0, 4), np.uint8), r"gray \(N, H, W\)"),
        ([np.zeros((2, 2)), np.zeros((3, 3))], r"no one array \(N, H, W\)"),
    ],
)
def test_what_is_no_gray_image_is_refused(pixels, words):
    with pytest.raises(EvaluationError, match=words):
        extract_features(Mean(), pixels, image_size=5)


def test_a_backbone_gets_as_many_channels_as_its_first_convolution_takes():
    three, one = convolution(3), convolution(1)
    with torch.no_grad():
        one[0].weight.copy_(three[0].weight.sum(dim=1, keepdim=True))
        one[0].bias.copy_(three[0].bias)
    found = [extract_features(b, GRAY, image_size=10) for b in (three, one)]
    assert np.allclose(*found, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "norm", "words"),
    [
        (4, {}, "takes 4 channels"),
        (1, {"mean": (0.4, 0.5, 0.6)}, "mean has 3 values, and the backbone takes 1"),
        (1, {"std": 0}, "std 0 cannot normalize"),
        (3, {"mean": np.nan}, "mean nan cannot normalize"),
    ],
)
def test_what_cannot_be_normalized_for_a_backbone_is_refused(channels, norm, words):
    with pytest.raises(EvaluationError, match=words):
        GrayInput(convolution(channels), **norm)


def test_what_is_no_backbone_here_is_refused_and_its_mode_is_restored():
    flat = nn.Sequential(nn.Conv2d(3, 4, 3)).train()
    with pytest.raises(EvaluationError, match=r"gives \(1, 4, 8, 8\) for a batch"):
        extract_features(flat, GRAY, image_size=10)
    assert flat.training
    with pytest.raises(EvaluationError, match="on meta, not on cpu"):
        extract_features(convolution(3).to("meta"), GRAY, image_size=10)
    with pytest.raises(EvaluationError, match="batch_size 0"):
        extract_features(Mean(), GRAY, image_size=5, batch_size=0)


def test_a_backbone_in_bfloat16_gives_float32():
    half = extract_features(convolution(3).bfloat16(), GRAY, image_size=10)
    whole = extract_features(convolution(3), GRAY, image_size=10)
    assert half.dtype == np.float32 and np.allclose(half, whole, atol=0.02)
