"""The fast ablation of a fixed box: equal to brute force, exact by hand, odd input refused."""

import copy

import numpy as np
import pytest
import torch
from tiny_detector import gray_image, tiny_detector
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import (
    fasterrcnn_mobilenet_v3_large_fpn,
    retinanet_resnet50_fpn,
)
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead

from cxr_helpers.explanation import ablation_fast as fast

SMALL, LARGE = [3.5, 10, 20, 31], [2, 5, 62, 60]  # pooled from two levels
ASKERS = {
    "ablate_box": fast.ablate_box,
    "brute_force_ablation": fast.brute_force_ablation,
    "box_gradient": fast.box_gradient,
}


@pytest.fixture(scope="module")
def detector():
    return tiny_detector()


@pytest.fixture(scope="module")
def image():
    return gray_image()


# What cannot be explained is refused by name.
@pytest.mark.parametrize("ask", ASKERS.values(), ids=ASKERS)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"box_xyxy": [5, 5, 5, 20]}, "area"),
        ({"box_xyxy": [20, 5, 5, 20]}, "area"),
        ({"box_xyxy": [5, 5, np.nan, 20]}, "area"),
        ({"box_xyxy": [5, 5, 20]}, r"\(1, 3\)"),
        ({"box_xyxy": [64, 5, 70, 20]}, "outside the image of 64 x 64"),
        ({"label": 0}, "label 0"),
        ({"label": 3}, "label 3"),
        ({"layer": "layer5"}, "layer5"),
        ({"label": 1.5}, "label 1.5"),
        ({"label": np.nan}, "label nan"),
        ({"label": "mass"}, "labels are no numbers.*mass"),
        ({"box_xyxy": list("abcd")}, "boxes are no numbers"),
        ({"image": torch.rand(2, 64, 64)}, "shape"),
        ({"image": torch.rand(1, 3, 64, 64)}, "shape"),
        ({"image": np.zeros((0, 64))}, "shape"),
        ({"image": [[0.0], [0.0, 1.0]]}, "no one array"),
        ({"image": torch.rand(3, 64, 64, device="meta")}, "meta"),
        ({"image": torch.zeros(3, 64, 64, dtype=torch.int64)}, "int64; give uint8, uint16"),
        ({"image": np.zeros((64, 64), bool)}, "image is bool"),
        ({"image": np.full((64, 64), 4095, np.uint16)}, "up to 4095, so it holds 12 bits only"),
        ({"image": torch.full((3, 64, 64), 255.0)}, "from 255 to 255; expected .0, 1"),
        ({"image": torch.full((3, 64, 64), torch.nan)}, "from nan to nan"),
    ],
)
def test_bad_input_is_refused(detector, image, ask, change, words):
    arguments = {"image": image, "box_xyxy": SMALL, "label": 1, **change}
    with pytest.raises(fast.AblationError, match=words):
        ask(detector, **arguments)


def test_a_detector_on_another_device_is_refused(detector, image):
    with pytest.raises(fast.AblationError, match="cpu.*meta"):
        fast.ablate_box(copy.deepcopy(detector).to("meta"), image, SMALL, 1)


def test_a_detector_that_trains_is_refused(detector, image):
    with pytest.raises(fast.AblationError, match="eval"):
        fast.ablate_box(copy.deepcopy(detector).train(), image, SMALL, 1)


def test_another_network_is_refused(image):
    for other in (
        resnet18(weights=None),
        retinanet_resnet50_fpn(weights=None, weights_backbone=None),
    ):
        with pytest.raises(fast.AblationError, match=f"the network is a {type(other).__name__}"):
            fast.ablate_box(other.eval(), image, SMALL, 1)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(24 * 49, 32)), "Sequential"),
        (FastRCNNConvFCHead((24, 7, 7), [8], [32]), "FastRCNNConvFCHead"),
    ],
)
def test_another_box_head_is_refused(detector, image, part, name):
    other = copy.deepcopy(detector)
    other.roi_heads.box_head = part
    with pytest.raises(fast.AblationError, match=f"box head is a {name}"):
        fast.ablate_box(other, image, SMALL, 1)


def test_another_predictor_and_a_pyramid_with_norms_are_refused(detector, image):
    other = copy.deepcopy(detector)
    other.roi_heads.box_predictor = nn.Linear(32, 3)
    with pytest.raises(fast.AblationError, match="box predictor is a Linear"):
        fast.ablate_box(other, image, SMALL, 1)
    other = copy.deepcopy(detector)
    other.backbone.fpn.inner_blocks[1].append(nn.BatchNorm2d(24))
    with pytest.raises(fast.AblationError, match="norm"):
        fast.ablate_box(other, image, SMALL, 1)


KINDS = {
    "uint8 tensor": lambda g: g.byte(),
    "uint8": lambda g: g.byte().numpy(),
    "uint16": lambda g: g.numpy().astype(np.uint16) * 257,
    "uint16 tensor": lambda g: torch.from_numpy(g.numpy().astype(np.uint16) * 257),
    "float64": lambda g: (g / 255).numpy().astype(np.float64),
    "(1, H, W) with gradient": lambda g: (g / 255)[None].requires_grad_(),
    "list": lambda g: (g / 255).tolist(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_image_has_the_same_ablation(detector, image, kind):
    gray = (image[0] * 255).round()
    expected = fast.ablate_box(detector, (gray / 255).expand(3, -1, -1), SMALL, 1)
    made = KINDS[kind](gray)
    box, label = torch.tensor(SMALL, requires_grad=True), torch.tensor(1)
    for ask in (fast.ablate_box, fast.box_gradient):
        assert ask(detector, made, box, label).score == pytest.approx(expected.score, abs=1e-6)
    np.testing.assert_allclose(
        fast.ablate_boxes(detector, made, box[None], label[None])[0].ablated,
        expected.ablated,
        atol=1e-6,
    )
    batch = made[None] if kind.startswith("(1") else np.asarray(made)[None, None]
    assert fast.score_box(detector, batch, SMALL, 1) == pytest.approx(expected.score, abs=1e-6)


def test_a_detector_whose_weights_are_nan_is_named(detector, image):
    broken = copy.deepcopy(detector)
    with torch.no_grad():
        broken.roi_heads.box_predictor.cls_score.weight.fill_(torch.nan)
    for ask in ASKERS.values():
        with pytest.raises(fast.AblationError, match="scores this box NaN"):
            ask(broken, image, SMALL, 1)


def test_a_backbone_of_other_stages_is_refused(image):
    mobile = fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None).eval()
    with pytest.raises(
        fast.AblationError, match="no ResNet with a pyramid on all of layer1.*has 0"
    ):
        fast.ablate_box(mobile, image, SMALL, 1)


def test_no_box_gives_no_ablation(detector, image):
    assert fast.ablate_boxes(detector, image, [], []) == []
    assert fast.ablate_boxes(detector, image, np.zeros((0, 4)), np.zeros(0, int)) == []


def test_boxes_and_labels_must_be_as_many(detector, image):
    with pytest.raises(fast.AblationError, match="2 labels"):
        fast.ablate_boxes(detector, image, [SMALL], [1, 2])


def test_no_box_to_sum_is_refused():
    with pytest.raises(fast.AblationError, match="no box"):
        fast.sum_ablations([])


# Equal to brute force.
@pytest.mark.parametrize("layer", fast.LAYERS)
@pytest.mark.parametrize(
    "box", [SMALL, LARGE, [-5, -3, 30, 20], [50, 1, 70, 9], [0, 60, 3, 64], [33, 20, 33.5, 60]]
)
def test_the_fast_path_equals_brute_force(detector, image, layer, box):
    quick = fast.ablate_box(detector, image, box, 2, layer=layer)
    slow = fast.brute_force_ablation(detector, image, box, 2, layer=layer)
    assert quick.score == pytest.approx(slow.score, abs=1e-6)
    np.testing.assert_allclose(quick.ablated, slow.ablated, atol=1e-6)
    np.testing.assert_allclose(quick.heatmap, slow.heatmap, atol=1e-4)


@pytest.mark.parametrize("layer", ["layer2", "layer4", "pyramid"])
def test_it_is_equal_where_scores_react_strongly(detector, image, layer):
    """Random heads hardly react; with steep logits around zero, channels move the score a lot."""
    steep = copy.deepcopy(detector)
    classes, logits = steep.roi_heads.box_predictor.cls_score, []
    handle = classes.register_forward_hook(lambda *hooked: logits.append(hooked[2][0]))
    fast.ablate_box(steep, image, SMALL, 1, layer=layer)
    handle.remove()
    with torch.no_grad():
        classes.bias -= logits[0]
        classes.weight *= 30
        classes.bias *= 30
    quick = fast.ablate_box(steep, image, SMALL, 1, layer=layer)
    slow = fast.brute_force_ablation(steep, image, SMALL, 1, layer=layer)
    assert quick.score == pytest.approx(1 / 3, abs=1e-3) and np.ptp(quick.ablated) > 0.02
    np.testing.assert_allclose(quick.ablated, slow.ablated, atol=1e-4)


@pytest.mark.parametrize("layer", ["layer1", "layer3", "pyramid"])
def test_boxes_together_equal_boxes_one_by_one(detector, image, layer):
    boxes, labels = [LARGE, SMALL, [20, 20, 41, 37]], [1, 2, 1]
    together = fast.ablate_boxes(detector, image, boxes, labels, layer=layer)
    for one, box, label in zip(together, boxes, labels, strict=True):
        alone = fast.ablate_box(detector, image, box, label, layer=layer)
        np.testing.assert_allclose(one.ablated, alone.ablated, atol=1e-6)


def test_later_stages_matter_except_for_the_last(detector, image):
    held = fast.brute_force_ablation(detector, image, SMALL, 1, layer="layer4")
    again = fast.brute_force_ablation(
        detector, image, SMALL, 1, layer="layer4", recompute_later=True
    )
    np.testing.assert_array_equal(held.ablated, again.ablated)
    held = fast.brute_force_ablation(detector, image, SMALL, 1)
    again = fast.brute_force_ablation(detector, image, SMALL, 1, recompute_later=True)
    assert np.abs(held.ablated - again.ablated).max() > 1e-6


def test_the_comparison_is_not_between_constants(detector, image):
    ablation = fast.ablate_box(detector, image, SMALL, 2)
    assert ablation.ablated.std() > 1e-4
    assert ablation.weights.shape == (256,) and ablation.heatmap.shape == (4, 4)


# Sizes.
def test_an_image_of_another_size_is_scaled_and_padded_as_the_detector_does(detector):
    large = gray_image(128, 96, seed=1)
    quick = fast.ablate_box(detector, large, [6, 20, 60, 100], 1)
    slow = fast.brute_force_ablation(detector, large, [6, 20, 60, 100], 1)
    np.testing.assert_allclose(quick.ablated, slow.ablated, atol=1e-6)
    slope = fast.box_gradient(detector, large, [6, 20, 60, 100], 1)
    assert quick.covered == slow.covered == slope.covered == (1.0, 0.75)  # 64 x 48 in 64 x 64


def test_a_stage_below_the_pooled_level_does_not_reach_the_box(detector, image):
    ablation = fast.ablate_box(detector, image, [0, 0, 64, 64], 1, layer="layer1")
    assert np.abs(ablation.weights).max() < 1e-6
    assert ablation.heatmap.max() == pytest.approx(0, abs=1e-5)
    assert fast.box_gradient(detector, image, [0, 0, 64, 64], 1, layer="layer1").heatmap.max() == 0


# The score.
def test_the_score_is_the_detectors_own(detector, image):
    with torch.no_grad():
        images, _ = detector.transform([image])
        features = detector.backbone(images.tensors)
        box = torch.tensor([[8.0, 8, 40, 44]])
        pooled = detector.roi_heads.box_roi_pool(features, [box], images.image_sizes)
        logits, _ = detector.roi_heads.box_predictor(detector.roi_heads.box_head(pooled))
    expected = float(logits.softmax(1)[0, 2])
    box = box[0].tolist()
    assert fast.ablate_box(detector, image, box, 2).score == pytest.approx(expected)
    several = torch.stack([image, gray_image(seed=5)])
    scores = fast.score_box(detector, several, box, 2)
    assert scores.shape == (2,) and scores[0] == pytest.approx(expected)
    assert scores[1] == pytest.approx(fast.score_box(detector, several[1:], box, 2)[0], abs=1e-6)


def test_images_to_score_must_be_a_batch(detector, image):
    with pytest.raises(fast.AblationError, match=r"\(B, 3, H, W\)"):
        fast.score_box(detector, image, SMALL, 1)
    for other in (image.long(), image * 255, image * torch.nan):
        with pytest.raises(fast.AblationError, match=r"\[0, 1\]"):
            fast.score_box(detector, torch.stack([image.to(other.dtype), other]), SMALL, 1)


def test_a_score_of_zero_has_no_weights():
    ablation = fast.BoxAblation(0.0, np.zeros(2, np.float32), np.ones((2, 3, 3), np.float32))
    assert ablation.weights.tolist() == [0, 0] and ablation.heatmap.max() == 0


def test_weights_and_map_by_hand():
    activations = np.array([[[4.0, 0]], [[0, 2]], [[1, 1]]], dtype=np.float32)
    ablation = fast.BoxAblation(0.8, np.array([0.2, 0.8, 1.0], np.float32), activations)
    np.testing.assert_allclose(ablation.weights, [0.75, 0, -0.25], atol=1e-6)
    np.testing.assert_allclose(ablation.signed_map, [[2.75, -0.25]], atol=1e-6)
    np.testing.assert_allclose(ablation.heatmap, [[2.75, 0]], atol=1e-6)


def test_the_sum_of_two_boxes_is_weighed_by_the_sum_of_their_scores(detector, image):
    ablations = fast.ablate_boxes(detector, image, [SMALL, LARGE], [1, 1])
    both = fast.sum_ablations(ablations)
    shares = np.array([a.score for a in ablations]) / both.score
    expected = shares[0] * ablations[0].weights + shares[1] * ablations[1].weights
    np.testing.assert_allclose(both.weights, expected, atol=1e-6)
    other = fast.ablate_box(detector, image, SMALL, 1, layer="layer2")
    with pytest.raises(fast.AblationError, match="share one layer"):
        fast.sum_ablations([ablations[0], other])


# Gradients.
def test_the_gradient_is_the_limit_of_small_ablations(detector, image):
    slope = fast.box_gradient(detector, image, SMALL, 1)
    quick = fast.ablate_box(detector, image, SMALL, 1)
    assert slope.score == pytest.approx(quick.score, abs=1e-6)
    # A random head is nearly linear: what the line predicts is what ablation finds.
    moved, line = quick.ablated - quick.score, slope.predicted - slope.score
    assert np.corrcoef(moved, line)[0, 1] > 0.99


def test_the_pyramid_has_no_grad_cam(detector, image):
    with pytest.raises(fast.AblationError, match="pyramid"):
        fast.box_gradient(detector, image, SMALL, 1, layer="pyramid")
