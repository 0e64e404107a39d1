"""A detector of a few thousand weights and an image, for the tests of heatmaps."""

import torch

from cxr_helpers.detection.detector import Anchors, DetectorSettings, build_detector


def tiny_detector(**changes):
    """ResNet-18 at 64 px, pyramid of 24 channels, two classes, random weights, eval mode."""
    settings = {
        "classes": ("mass", "nodule"),
        "arch": "resnet18",
        "image_size": 64,
        "anchors": Anchors((8, 16, 24, 32, 48)),
        "fpn_channels": 24,
        "head_width": 32,
        "roi_canonical_size": 32,
        "proposals": (50, 30),
    }
    return build_detector(DetectorSettings(**{**settings, **changes}), seed=0).eval()


def gray_image(height=64, width=64, seed=0):
    """(3, H, W) float32 in [0, 1], the three channels alike."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, height, width, generator=generator).expand(3, -1, -1)
