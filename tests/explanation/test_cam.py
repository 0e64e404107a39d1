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

METHODS = {"ablation_cam": cam.ablation_cam, "grad_cam": cam.grad_cam}


@pytest.fixture(scope="module")
def detector():
    return tiny_detector()


@pytest.fixture(scope="module")
def image():
    return gray_image()


@pytest.fixture(scope="module")
def found(detector, image):
    with torch.no_grad():
        (one,) = detector([image])
    return one["boxes"][:2].numpy(), one["labels"][:2].tolist()


# Refused by name.
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"boxes_xyxy": [[5, 5, 5, 20]], "labels": [1]}, "area"),
        ({"boxes_xyxy": [[5, 5, np.inf, 20]], "labels": [1]}, "area"),
        ({"boxes_xyxy": [5, 5, 9, 20], "labels": [1]}, "expected"),
        ({"boxes_xyxy": np.zeros((0, 4)), "labels": []}, "no box"),
        ({"boxes_xyxy": [[0, 0, 2, 2]], "labels": [1]}, "finds no box"),
        ({"labels": [0, 1]}, "label 0"),
        ({"labels": [1, 3]}, "label 3"),
        ({"layer": "layer5"}, "layer5"),
        ({"layer": "roi_heads.box_head"}, "one map"),
        ({"layer": "rpn.head.conv"}, "one map"),
        ({"labels": [1, 1.5]}, "label 1.5"),
        ({"labels": [1, np.nan]}, "label nan"),
        ({"labels": ["mass", "mass"]}, "labels are no numbers.*mass"),
        ({"labels": 1}, r"labels of shape \(\)"),
        ({"boxes_xyxy": [["a"] * 4]}, "boxes are no numbers"),
        ({"boxes_xyxy": [[20, 5, 5, 20]], "labels": [1]}, "area"),
        ({"image": torch.rand(2, 64, 64)}, r"\(2, 64, 64\); expected \(H, W\)"),
        ({"image": torch.rand(1, 3, 64, 64)}, "shape"),
        ({"image": np.zeros((0, 64))}, "shape"),
        ({"image": torch.zeros(64, 64, dtype=torch.int64)}, "int64; give uint8, uint16"),
        ({"image": np.zeros((64, 64), bool)}, "image is bool"),
        ({"image": np.full((64, 64), 4095, np.uint16)}, "uint16 up to 4095, so it holds 12 bits"),
        ({"image": torch.full((3, 64, 64), 255.0)}, r"from 255 to 255; expected \[0, 1\]"),
        ({"image": torch.full((3, 64, 64), torch.nan)}, "from nan to nan"),
        ({"image": torch.rand(3, 64, 64, device="meta")}, "meta"),
    ],
)
def test_bad_input_is_refused(detector, image, found, method, change, words):
    arguments = {"image": image, "boxes_xyxy": found[0], "labels": found[1], **change}
    with pytest.raises(cam.CamError, match=words):
        method(detector, **arguments)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_detector_that_trains_and_what_is_no_detector_are_refused(detector, image, found, method):
    with pytest.raises(cam.CamError, match="eval"):
        method(copy.deepcopy(detector).train(), image, *found)
    with pytest.raises(cam.CamError, match="Linear has no"):
        method(nn.Linear(2, 2), image, *found)


@pytest.mark.parametrize("more", [{"ratio": 0}, {"ratio": 1.5}, {"batch_size": 0}])
def test_a_share_or_a_batch_of_nothing_is_refused(detector, image, found, more):
    with pytest.raises(cam.CamError, match=next(iter(more))):
        cam.ablation_cam(detector, image, *found, **more)


@pytest.mark.parametrize(
    "kind",
    [
        lambda g: g.byte(),
        lambda g: g.byte().numpy(),
        lambda g: g.numpy().astype(np.uint16) * 257,
        lambda g: (g / 255).numpy().astype(np.float64),
        lambda g: (g / 255)[None].requires_grad_(),
        lambda g: (g / 255).expand(3, -1, -1),
    ],
    ids=["uint8 tensor", "uint8", "uint16", "float64", "(1, H, W) with gradient", "(3, H, W)"],
)
def test_each_kind_of_image_has_the_same_map(detector, image, kind):
    gray = (image[0] * 255).round()
    with torch.no_grad():
        (one,) = detector([(gray / 255).expand(3, -1, -1)])
    boxes, labels = one["boxes"][:1], one["labels"][:1]  # tensors, as torchvision returns them
    expected = cam.grad_cam(detector, (gray / 255).expand(3, -1, -1), boxes.numpy(), [int(labels)])
    made = cam.grad_cam(detector, kind(gray), boxes.requires_grad_(), labels)
    np.testing.assert_allclose(made.heatmap, expected.heatmap, atol=1e-3)


def test_only_layers_that_are_there_are_named():
    body = create_feature_extractor(densenet121(weights=None).features, {"denseblock4": "0"})
    backbone = nn.Sequential(OrderedDict(body=body, last=LastOf()))
    backbone.out_channels = 1024
    anchors = AnchorGenerator(((32,),), ((1.0,),))
    sides = {"min_size": 64, "max_size": 64}
    dense = FasterRCNN(backbone, 3, rpn_anchor_generator=anchors, **sides).eval()
    with pytest.raises(cam.CamError, match="no layer 'layer4'; name one of pyramid, or") as caught:
        cam.grad_cam(dense, torch.rand(64, 64), [[0, 0, 9, 9]], [1], layer="layer4")
    assert "backbone.body.denseblock4" in str(caught.value)
    with pytest.raises(cam.CamError, match="gives no feature pyramid"):
        cam.ablation_cam(dense, torch.rand(64, 64), [[0, 0, 9, 9]], [1], layer="pyramid")


class LastOf(nn.Module):
    def forward(self, maps):
        return maps["0"]


def test_the_library_has_no_gradients_of_the_pyramid(detector, image, found):
    with pytest.raises(cam.CamError, match="pyramid"):
        cam.grad_cam(detector, image, *found, layer="pyramid")


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


def test_a_channel_that_nothing_reads_has_no_weight(detector, image, found):
    deaf = copy.deepcopy(detector)
    with torch.no_grad():
        deaf.backbone.fpn.inner_blocks[3][0].weight[:, 7] = 0
        boxes = deaf([image])[0]
    made = cam.ablation_cam(
        deaf, image, boxes["boxes"][:1], boxes["labels"][:1].tolist(), layer="layer4", batch_size=64
    )
    assert made.weights[7] == pytest.approx(0, abs=1e-6) and np.abs(made.weights).max() > 1e-4


@pytest.mark.parametrize("layer", ["layer3", "pyramid", "backbone.body.layer4.1.conv1"])
def test_any_layer_gives_a_map_and_leaves_the_detector_as_it_was(
    detector, image, found, layer, capfd
):
    before = {name: id(module) for name, module in detector.named_modules()}
    plain = detector([image])[0]["boxes"]
    made = cam.ablation_cam(detector, image, *found, layer=layer, batch_size=64)
    assert made.heatmap.shape == (64, 64)
    assert 0 <= made.heatmap.min() <= made.heatmap.max() <= 1.001
    assert {name: id(module) for name, module in detector.named_modules()} == before
    assert torch.equal(plain, detector([image])[0]["boxes"])
    assert capfd.readouterr().err == ""


def test_the_detector_is_whole_after_an_interruption(detector, image, found, monkeypatch):
    before = {name: id(module) for name, module in detector.named_modules()}

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(AblationLayer, "set_next_batch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cam.ablation_cam(detector, image, *found)
    assert {name: id(module) for name, module in detector.named_modules()} == before


def test_grad_cam_leaves_no_gradient(detector, image, found):
    made = cam.grad_cam(detector, image, *found)
    assert made.heatmap.shape == (64, 64) and made.weights.shape == (256,)
    assert np.abs(made.weights).max() > 0
    assert all(parameter.grad is None for parameter in detector.parameters())


def test_padding_is_cut_off(detector):
    """64 x 48 pixels are padded to 64 x 64; the map covers them, not the padding."""
    image = gray_image(64, 48, seed=3)
    with torch.no_grad():
        (one,) = detector([image])
    made = cam.ablation_cam(
        detector, image, one["boxes"][:1], one["labels"][:1].tolist(), batch_size=64
    )
    assert made.heatmap.shape == (64, 48)


def test_the_pyramid_layer_addresses_channels_of_a_narrow_pyramid():
    layer = cam.PyramidAblationLayer(4)
    pyramid = {name: torch.ones(1, 4, 2, 2) for name in ("0", "1", "2", "3", "pool")}
    layer.indices = np.array([5, 19])
    layer.set_next_batch(0, pyramid, 2)
    changed = layer(torch.zeros(1))
    assert (changed["1"][0, 1] == -1000).all() and (changed["pool"][1, 3] == -1000).all()
    assert sum(int((x == -1000).sum()) for x in changed.values()) == 8
