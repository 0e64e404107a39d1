"""The backbone of the detector: a ResNet with a feature pyramid, and the hand-off of weights.

Another backbone for the detector is built here (for pretraining in `pretraining/barlow.py`):
`build_backbone` gives the feature maps that everything else works on, and `place_backbone` puts the
weights in that another stage has trained.

Paper: Lin et al., Feature Pyramid Networks, https://arxiv.org/abs/1612.03144.

From cxr-helpers 0.2.0 (MIT license).
Needs: torch, torchvision.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models.detection.backbone_utils import BackboneWithFPN

STEM = ("conv1", "bn1")
STAGES = ("layer1", "layer2", "layer3", "layer4")
ARCHITECTURES = {"resnet18": (64, 128, 256, 512), "resnet50": (256, 512, 1024, 2048)}


class DetectorError(ValueError):
    """A setting, a backbone or a file does not fit the detector."""


def build_backbone(arch: str, *, fpn_channels: int) -> BackboneWithFPN:
    """A ResNet of random weights whose four stages feed a pyramid of five maps.

    Args:
        arch: one of `ARCHITECTURES`, which says how many channels each stage has.
        fpn_channels: channels of each map.

    >>> maps = build_backbone("resnet18", fpn_channels=8)(torch.zeros(1, 3, 64, 64))
    >>> [tuple(one.shape[1:]) for one in maps.values()]
    [(8, 16, 16), (8, 8, 8), (8, 4, 4), (8, 2, 2), (8, 1, 1)]
    """
    body = getattr(resnet, arch)(weights=None)
    maps = {stage: str(i) for i, stage in enumerate(STAGES)}
    return BackboneWithFPN(body, maps, list(ARCHITECTURES[arch]), fpn_channels)


def place_backbone(detector: nn.Module, state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Copy every tensor of a backbone into the detector, and prove that it arrived.

    `load_state_dict(strict=False)` would skip what does not fit without a word, and the detector
    would then train from random weights under the name of pretrained ones.

    Args:
        detector: a `Detector`, changed in place.
        state: torchvision names without `fc.`, such as `layer1.0.conv1.weight`. Batch norm's
            counters (`num_batches_tracked`) may be absent: nothing is computed from them.

    Returns:
        The names that were placed, in the detector's order.

    Raises:
        DetectorError: a tensor has no place, a place has no tensor, a shape differs, or a value
            is not finite; the text names them. The detector is then unchanged.

    >>> backbone = nn.Linear(2, 1)  # a detector keeps its own in `backbone.body`
    >>> detector = nn.ModuleDict({"backbone": nn.ModuleDict({"body": nn.Linear(2, 1)})})
    >>> place_backbone(detector, backbone.state_dict())
    ('weight', 'bias')
    """
    odd = [name for name, value in state.items() if not torch.is_tensor(value)]
    if odd:
        raise DetectorError(
            f"this backbone is no state dict: {odd[0]!r} is no tensor. Give the part of the "
            "checkpoint that holds the tensors, often under 'state_dict'"
        )
    body = detector.backbone.body
    own = body.state_dict()
    needed = {name for name in own if not name.endswith("num_batches_tracked")}
    problems = {
        "without a place": sorted(state.keys() - own.keys()),
        "absent": sorted(needed - state.keys()),
        "of another shape": sorted(
            f"{k} {tuple(state[k].shape)} for {tuple(own[k].shape)}"
            for k in state.keys() & own.keys()
            if state[k].shape != own[k].shape
        ),
        "not finite": sorted(k for k, v in state.items() if not torch.isfinite(v).all()),
    }
    found = [f"{len(v)} {k} ({', '.join(v[:4])})" for k, v in problems.items() if v]
    if found:
        raise DetectorError(
            f"this backbone does not fit a {detector.settings.arch}: {'; '.join(found)}. Give a "
            "torchvision ResNet's state dict of the same architecture, without fc."
        )
    body.load_state_dict(dict(state), strict=False)
    placed = body.state_dict()
    return tuple(k for k in own if k in state and torch.equal(placed[k], state[k].to(placed[k])))
