"""The hand-off: every tensor of a backbone arrives, or the detector is refused and unchanged."""

import pytest
import torch
from tiny_detector import backbone_state, tiny_detector
from torchvision.models import resnet18

from cxr_helpers.detection.backbone import DetectorError, place_backbone


@pytest.mark.parametrize("counters", [True, False])
def test_every_tensor_of_the_backbone_arrives_whether_it_counts_batches_or_not(counters):
    state = {k: v for k, v in backbone_state().items() if counters or "num_batches" not in k}
    built = tiny_detector()
    assert set(place_backbone(built, state)) == set(state)
    own = built.backbone.body.state_dict()
    assert all(torch.equal(own[name], state[name]) for name in state)


def test_the_placed_backbone_computes_what_it_computed_alone():
    net, built = resnet18(), tiny_detector()
    net.load_state_dict(backbone_state(), strict=False)
    place_backbone(built, backbone_state())
    net.eval()
    x = torch.rand(1, 3, 64, 64)
    alone = net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x)))))
    torch.testing.assert_close(built.backbone.body(x)["0"], alone)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s | {"fc.weight": torch.zeros(2)}, "without a place.*fc.weight"),
        (lambda s: {k: v for k, v in s.items() if k != "conv1.weight"}, "absent.*conv1.weight"),
        (lambda s: s | {"conv1.weight": torch.zeros(64, 1, 7, 7)}, "64, 1, 7, 7"),
        (lambda s: s | {"bn1.weight": torch.full((64,), torch.nan)}, "not finite.*bn1.weight"),
        (lambda s: {f"module.{k}": v for k, v in s.items()}, "without a place"),
        (lambda s: {"epoch": 3, "state_dict": s}, "'epoch' is no tensor"),
    ],
)
def test_a_backbone_that_does_not_fit_is_refused_and_changes_nothing(change, words):
    built = tiny_detector()
    before = built.backbone.body.conv1.weight.clone()
    with pytest.raises(DetectorError, match=words):
        place_backbone(built, change(backbone_state()))
    assert torch.equal(built.backbone.body.conv1.weight, before)
