"""pytorch-grad-cam on the detector: equal to the library used plainly, odd input refused."""

import copy
from collections import OrderedDict

import numpy as np
import pytest
import torch
from pytorch_grad_cam import AblationCAM
from pytorch_grad_cam.ablation_layer import AblationLayer
from pytorch_grad_cam.utils.model_targets import FasterRCNNBoxScoreTarget
from tiny_detector import gray_image, tiny_detector
from torch import nn
from torchvision.models import densenet121
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.feature_extraction import create_feature_extractor

from cxr_helpers.explanation import cam
from cxr_helpers.explanation.inputs import ExplanationError


@pytest.fixture(scope="module")
def detector():
    return tiny_detector()


@pytest.fixture(scope="module")
def image():
    return gray_image()


def detections(detector, image):
    with torch.no_grad():
        (one,) = detector([image])
    return one["boxes"].numpy(), one["labels"].tolist()


@pytest.fixture(scope="module")
def found(detector, image):
    return tuple(values[:2] for values in detections(detector, image))


# Refused by name.
@pytest.mark.parametrize("method", [cam.ablation_cam, cam.grad_cam])
def test_what_cannot_be_explained_is_refused(detector, image, found, method):
    for layer, words in {
        "layer5": "no layer 'layer5'",
        "roi_heads.box_head": "one map",
        "rpn.head.conv": "one map",
    }.items():
        with pytest.raises(ExplanationError, match=words):
            method(detector, image, *found, layer=layer)
    with pytest.raises(ExplanationError, match="no box to explain"):
        method(detector, image, np.zeros((0, 4)), [])
    with pytest.raises(ExplanationError, match="finds no box of class 1"):
        method(detector, image, [[0, 0, 2, 2]], [1])
    with pytest.raises(ExplanationError, match="eval"):
        method(copy.deepcopy(detector).train(), image, *found)
    with pytest.raises(ExplanationError, match="Linear has no"):
        method(nn.Linear(2, 2), image, *found)


def test_the_librarys_limits_are_said(detector, image, found):
    with pytest.raises(ExplanationError, match="no gradients of a whole pyramid"):
        cam.grad_cam(detector, image, *found, layer="pyramid")
    for more in ({"ratio": 0}, {"ratio": 1.5}, {"batch_size": 0}):
        with pytest.raises(ExplanationError, match=next(iter(more))):
            cam.ablation_cam(detector, image, *found, **more)


class LastOf(nn.Module):
    def forward(self, maps):
        return maps["0"]


def test_only_layers_that_are_there_are_named():
    body = create_feature_extractor(densenet121(weights=None).features, {"denseblock4": "0"})
    backbone = nn.Sequential(OrderedDict(body=body, last=LastOf()))
    backbone.out_channels = 1024
    anchors = AnchorGenerator(((32,),), ((1.0,),))
    sides = {"min_size": 64, "max_size": 64}
    dense = FasterRCNN(backbone, 3, rpn_anchor_generator=anchors, **sides).eval()
    asked = dense, torch.rand(64, 64), [[0, 0, 9, 9]], [1]
    with pytest.raises(ExplanationError, match="no layer 'layer4'; name one of pyramid, or") as one:
        cam.grad_cam(*asked, layer="layer4")
    assert "backbone.body.denseblock4" in str(one.value)
    with pytest.raises(ExplanationError, match="gives no feature pyramid"):
        cam.ablation_cam(*asked, layer="pyramid")


# Equal to the library.
def test_it_is_the_library_used_plainly(detector, image, found):
    boxes, labels = found[0][:1], found[1][:1]
    made = cam.ablation_cam(detector, image, boxes, labels, layer="layer4", batch_size=64)
    target = FasterRCNNBoxScoreTarget(labels=labels, bounding_boxes=list(boxes))
    plain = copy.deepcopy(detector)
    method = AblationCAM(
        plain, [plain.backbone.body["layer4"]], ablation_layer=AblationLayer(), batch_size=64
    )
    np.testing.assert_allclose(made.heatmap, method(image[None], [target])[0], atol=1e-5)
    assert made.weights.shape == (512,)


def test_a_channel_that_nothing_reads_has_no_weight(detector, image):
    deaf = copy.deepcopy(detector)
    with torch.no_grad():
        deaf.backbone.fpn.inner_blocks[3][0].weight[:, 7] = 0
    boxes, labels = detections(deaf, image)
    made = cam.ablation_cam(deaf, image, boxes[:1], labels[:1], layer="layer4", batch_size=64)
    assert made.weights[7] == pytest.approx(0, abs=1e-6) and np.abs(made.weights).max() > 1e-4


def modules(detector):
    return {name: id(module) for name, module in detector.named_modules()}


@pytest.mark.parametrize("layer", ["layer3", "pyramid", "backbone.body.layer4.1.conv1"])
def test_any_layer_gives_a_map_and_leaves_the_detector_as_it_was(
    detector, image, found, layer, capfd
):
    before, plain = modules(detector), detections(detector, image)[0]
    made = cam.ablation_cam(detector, image, *found, layer=layer, batch_size=64)
    assert made.heatmap.shape == (64, 64)
    assert 0 <= made.heatmap.min() <= made.heatmap.max() <= 1.001
    assert modules(detector) == before
    assert np.array_equal(plain, detections(detector, image)[0])
    assert capfd.readouterr().err == ""


def test_the_detector_is_whole_after_an_interruption(detector, image, found, monkeypatch):
    before = modules(detector)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(AblationLayer, "set_next_batch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cam.ablation_cam(detector, image, *found)
    assert modules(detector) == before


def test_grad_cam_leaves_no_gradient(detector, image, found):
    made = cam.grad_cam(detector, image, *found)
    assert made.heatmap.shape == (64, 64) and made.weights.shape == (256,)
    assert np.abs(made.weights).max() > 0
    assert all(parameter.grad is None for parameter in detector.parameters())


def test_padding_is_cut_off(detector):
    """64 x 48 pixels are padded to 64 x 64; the map covers them, not the padding."""
    image = gray_image(64, 48, seed=3)
    boxes, labels = detections(detector, image)
    made = cam.ablation_cam(detector, image, boxes[:1], labels[:1], batch_size=64)
    assert made.heatmap.shape == (64, 48)


def test_the_pyramid_layer_addresses_channels_of_a_narrow_pyramid():
    layer = cam.PyramidAblationLayer(4)
    pyramid = {name: torch.ones(1, 4, 2, 2) for name in ("0", "1", "2", "3", "pool")}
    layer.indices = np.array([5, 19])
    layer.set_next_batch(0, pyramid, 2)
    changed = layer(torch.zeros(1))
    assert (changed["1"][0, 1] == -1000).all() and (changed["pool"][1, 3] == -1000).all()
    assert sum(int((x == -1000).sum()) for x in changed.values()) == 8
