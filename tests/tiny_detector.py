"""A detector of a few thousand weights, a backbone, an image: for tests of detectors and maps."""

import torch
from torchvision.models import resnet18

from cxr_helpers.detection.anchors import Anchors
from cxr_helpers.detection.detector import DetectorSettings, build_detector

TINY = {
    "class_names": ("mass", "nodule"),
    "arch": "resnet18",
    "image_size": 64,
    "anchors": Anchors((8, 16, 24, 32, 48)),
    "fpn_channels": 24,
    "head_width": 32,
    "canonical_scale": 32,
    "proposals": (50, 30),
}


def tiny_detector(**changes):
    """ResNet-18 at 64 px, pyramid of 24 channels, two classes, random weights, eval mode."""
    return build_detector(DetectorSettings(**{**TINY, **changes}), seed=0).eval()


def backbone_state(seed=0):
    """The weights of a ResNet-18 as pretraining hands them over, without its last layer."""
    torch.manual_seed(seed)
    state = resnet18().state_dict()
    return {name: value for name, value in state.items() if not name.startswith("fc.")}


def gray_image(height=64, width=64, seed=0):
    """(3, H, W) float32 in [0, 1], the three channels alike."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, height, width, generator=generator).expand(3, -1, -1)
