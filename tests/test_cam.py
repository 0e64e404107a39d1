"""Ablation-CAM: the fast path equals brute force, the library agrees, odd input is refused."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from cxr_helpers import cam
from cxr_helpers.detector import Anchors, DetectorSettings, build_detector, predict

LAYERS = (*cam.STAGES, cam.PYRAMID)


@pytest.fixture(scope="module")
def detector():
    settings = DetectorSettings(
        classes=("mass", "nodule"),
        arch="resnet18",
        image_size=64,
        anchors=Anchors((8, 16, 24, 32, 48)),
        fpn_channels=24,
        head_width=32,
        roi_canonical_size=32,
        proposals=(50, 30),
    )
    return build_detector(settings, seed=0).eval()


@pytest.fixture(scope="module")
def image():
    return torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))


# What cannot be explained is refused by name.
@pytest.mark.parametrize("function", [cam.ablate_box, cam.brute_force_ablation])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"box_xyxy": [5, 5, 5, 20]}, "area"),
        ({"box_xyxy": [20, 5, 5, 20]}, "area"),
        ({"box_xyxy": [5, 5, 20]}, "area"),
        ({"box_xyxy": [5, 5, np.nan, 20]}, "area"),
        ({"label": 0}, "label 0"),
        ({"label": 3}, "label 3"),
        ({"layer": "layer5"}, "layer5"),
        ({"image": torch.rand(64, 64)}, "shape"),
        ({"image": torch.rand(3, 64, 64, device="meta")}, "meta"),
    ],
)
def test_bad_input_is_refused(detector, image, function, change, words):
    arguments = {"image": image, "box_xyxy": [5, 5, 40, 40], "label": 1, **change}
    with pytest.raises(cam.AblationError, match=words):
        function(detector, **arguments)


def test_a_detector_that_trains_is_refused(detector, image):
    training = copy.deepcopy(detector).train()
    with pytest.raises(cam.AblationError, match="eval"):
        cam.ablate_box(training, image, [5, 5, 40, 40], 1)


def test_another_head_is_refused(detector, image):
    other = copy.deepcopy(detector)
    other.roi_heads.box_head = nn.Sequential(nn.Flatten(), nn.Linear(24 * 49, 32))
    with pytest.raises(cam.AblationError, match="Sequential"):
        cam.ablate_box(other, image, [5, 5, 40, 40], 1)


# Equal to brute force.
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("box", [[3.5, 10, 20, 31], [2, 5, 62, 60]])
def test_the_fast_path_equals_brute_force(detector, image, layer, box):
    fast = cam.ablate_box(detector, image, box, 2, layer=layer)
    slow = cam.brute_force_ablation(detector, image, box, 2, layer=layer)
    assert fast.score == pytest.approx(slow.score, abs=1e-6)
    np.testing.assert_allclose(fast.ablated, slow.ablated, atol=1e-6)
    np.testing.assert_allclose(fast.heatmap, slow.heatmap, atol=1e-4)


def test_the_comparison_is_not_between_constants(detector, image):
    ablation = cam.ablate_box(detector, image, [3.5, 10, 20, 31], 2)
    assert ablation.ablated.std() > 1e-4
    assert ablation.weights.shape == (256,) and ablation.heatmap.shape == (4, 4)


def test_an_image_of_another_size_is_scaled_as_the_detector_scales_it(detector):
    large = torch.rand(3, 128, 96, generator=torch.Generator().manual_seed(1))
    fast = cam.ablate_box(detector, large, [6, 20, 60, 100], 1)
    slow = cam.brute_force_ablation(detector, large, [6, 20, 60, 100], 1)
    np.testing.assert_allclose(fast.ablated, slow.ablated, atol=1e-6)


def test_a_stage_below_the_pooled_level_does_not_reach_the_box(detector, image):
    ablation = cam.ablate_box(detector, image, [0, 0, 64, 64], 1, layer="layer1")
    assert np.abs(ablation.weights).max() < 1e-6
    assert ablation.heatmap.max() == pytest.approx(0, abs=1e-5)


def test_a_channel_of_zeros_has_no_weight(detector, image):
    changed = copy.deepcopy(detector)
    last = changed.backbone.body["layer3"][-1]
    for module in last.children():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.weight)
    last.downsample = nn.Sequential(nn.Conv2d(256, 256, 1, bias=False))
    nn.init.dirac_(last.downsample[0].weight)
    with torch.no_grad():
        last.downsample[0].weight[7] = 0
    ablation = cam.ablate_box(changed, image, [3.5, 10, 20, 31], 1)
    assert ablation.activations[7].max() == 0 and ablation.weights[7] == pytest.approx(0, abs=1e-6)


def test_the_score_is_the_detectors_own(detector, image):
    """Scored again at the detected box: the box moved by regression, so it is near, not equal."""
    with torch.no_grad():
        images, _ = detector.transform([image])
        features = detector.backbone(images.tensors)
        box = torch.tensor([[8.0, 8, 40, 44]])
        pooled = detector.roi_heads.box_roi_pool(features, [box], images.image_sizes)
        logits, _ = detector.roi_heads.box_predictor(detector.roi_heads.box_head(pooled))
    expected = float(logits.softmax(1)[0, 2])
    assert cam.ablate_box(detector, image, box[0].tolist(), 2).score == pytest.approx(expected)


# The library.
def test_the_library_map_is_scaled_and_leaves_the_detector_as_it_was(detector, image, capfd):
    (found,) = predict(detector, [image[0].numpy()])
    before = {name: id(module) for name, module in detector.named_modules()}
    box, label = found["boxes"][0], int(found["labels"][0])
    plain = detector([image[0].expand(3, -1, -1)])[0]["boxes"]
    for layer in ("layer3", "pyramid"):
        heatmap = cam.library_ablation_cam(
            detector, image[0].expand(3, -1, -1), box, label, layer=layer, batch_size=32
        )
        assert heatmap.shape == (64, 64) and 0 <= heatmap.min() <= heatmap.max() <= 1.001
    assert {name: id(module) for name, module in detector.named_modules()} == before
    assert torch.equal(plain, detector([image[0].expand(3, -1, -1)])[0]["boxes"])
    assert capfd.readouterr().err == ""


def test_a_box_that_was_not_detected_is_refused(detector, image):
    with pytest.raises(cam.AblationError, match="finds no box"):
        cam.library_ablation_cam(detector, image, [0, 0, 2, 2], 1)


def test_the_pyramid_layer_addresses_channels_of_a_narrow_pyramid():
    layer = cam.PyramidAblationLayer(4)
    pyramid = {name: torch.ones(1, 4, 2, 2) for name in ("0", "1", "2", "3", "pool")}
    layer.indices = np.array([5, 19])
    layer.set_next_batch(0, pyramid, 2)
    changed = layer(torch.zeros(1))
    assert (changed["1"][0, 1] == -1000).all() and (changed["pool"][1, 3] == -1000).all()
    assert sum(int((x == -1000).sum()) for x in changed.values()) == 8


# Sanity checks.
def test_randomizing_changes_the_named_parts_only(detector):
    changed = cam.randomized_copy(detector, ("head", "layer4"), seed=0)
    moved = {
        k for k, v in changed.state_dict().items() if not torch.equal(v, detector.state_dict()[k])
    }
    assert moved and all(k.startswith(("roi_heads", "backbone.body.layer4")) for k in moved)
    again = cam.randomized_copy(detector, ("head", "layer4"), seed=0)
    assert all(map(torch.equal, changed.state_dict().values(), again.state_dict().values()))


def test_an_unknown_part_is_refused(detector):
    with pytest.raises(cam.AblationError, match="neck"):
        cam.randomized_copy(detector, ("neck",), seed=0)
