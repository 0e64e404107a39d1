"""pytorch-grad-cam on the detector: equal to the library used plainly, odd input refused."""

import copy

import numpy as np
import pytest
import torch
from pytorch_grad_cam import AblationCAM
from pytorch_grad_cam.ablation_layer import AblationLayer
from pytorch_grad_cam.utils.model_targets import FasterRCNNBoxScoreTarget
from tiny_detector import gray_image, tiny_detector
from torch import nn

from cxr_helpers import cam

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
        ({"image": torch.rand(64, 64)}, "shape"),
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
