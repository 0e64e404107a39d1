"""The fast ablation of a fixed box: equal to brute force, exact by hand, odd detectors refused."""

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
from cxr_helpers.explanation import fixed_box
from cxr_helpers.explanation.inputs import ExplanationError
from cxr_helpers.explanation.layers import LAYERS

SMALL, LARGE = [3.5, 10, 20, 31], [2, 5, 62, 60]  # pooled from two levels


@pytest.fixture(scope="module")
def detector():
    return tiny_detector()


@pytest.fixture(scope="module")
def image():
    return gray_image()


# What cannot be explained is refused by name.
def changed(detector, path, part):
    """A copy of the detector with another part at this path."""
    other = copy.deepcopy(detector)
    parent, _, name = path.rpartition(".")
    setattr(other.get_submodule(parent), name, part)
    return other


def with_norm(detector):
    other = copy.deepcopy(detector)
    other.backbone.fpn.inner_blocks[1].append(nn.BatchNorm2d(24))
    return other


ODD = {
    "in training": (lambda d: copy.deepcopy(d).train(), "eval"),
    "on meta": (lambda d: copy.deepcopy(d).to("meta"), "on cpu, the detector on meta"),
    "a classifier": (lambda d: resnet18().eval(), "the network is a ResNet"),
    "RetinaNet": (
        lambda d: retinanet_resnet50_fpn(weights=None, weights_backbone=None).eval(),
        "the network is a RetinaNet",
    ),
    "MobileNet": (
        lambda d: fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None).eval(),
        "no ResNet with a pyramid on all of layer1.*has 0",
    ),
    "plain head": (
        lambda d: changed(d, "roi_heads.box_head", nn.Sequential(nn.Linear(24 * 49, 32))),
        "box head is a Sequential",
    ),
    "head of convolutions": (
        lambda d: changed(d, "roi_heads.box_head", FastRCNNConvFCHead((24, 7, 7), [8], [32])),
        "box head is a FastRCNNConvFCHead",
    ),
    "predictor": (
        lambda d: changed(d, "roi_heads.box_predictor", nn.Linear(32, 3)),
        "box predictor is a Linear",
    ),
    "norm in the pyramid": (with_norm, "norm"),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_the_derivation_does_not_cover_is_refused(detector, image, kind):
    make, words = ODD[kind]
    with pytest.raises(ExplanationError, match=words):
        fast.ablate_box(make(detector), image, SMALL, 1)


def test_an_unknown_layer_nan_weights_and_the_pyramids_slope_are_refused(detector, image):
    broken = copy.deepcopy(detector)
    with torch.no_grad():
        broken.roi_heads.box_predictor.cls_score.weight.fill_(torch.nan)
    for ask in (fast.ablate_box, fast.brute_force_ablation, fast.box_gradient):
        with pytest.raises(ExplanationError, match="'layer5' is none of layer1"):
            ask(detector, image, SMALL, 1, layer="layer5")
        with pytest.raises(ExplanationError, match="scores this box NaN"):
            ask(broken, image, SMALL, 1)
    with pytest.raises(ExplanationError, match="not for the pyramid"):
        fast.box_gradient(detector, image, SMALL, 1, layer="pyramid")


def steep_detector(detector, image, sure):
    """A copy whose three logits for SMALL are 0, `sure` and 0, and react 30 times as strongly."""
    steep = copy.deepcopy(detector)
    classes, logits = steep.roi_heads.box_predictor.cls_score, []
    handle = classes.register_forward_hook(lambda *hooked: logits.append(hooked[2][0]))
    fast.ablate_box(steep, image, SMALL, 1)
    handle.remove()
    with torch.no_grad():
        classes.bias -= logits[0]
        classes.weight *= 30
        classes.bias *= 30
        classes.bias[1] += sure
    return steep


# Equal to brute force.
@pytest.mark.parametrize("layer", LAYERS)
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
@pytest.mark.parametrize("sure", [0.0, 30.0])
def test_it_is_equal_where_scores_react_strongly(detector, image, layer, sure):
    """Random heads hardly react; with steep logits, channels move the score a lot.

    Also where the probability is so near 1 that it would hardly move.
    """
    steep = steep_detector(detector, image, sure)
    quick = fast.ablate_box(steep, image, SMALL, 1, layer=layer)
    slow = fast.brute_force_ablation(steep, image, SMALL, 1, layer=layer)
    assert quick.score == pytest.approx(np.log(0.5) + sure, abs=1e-2)
    assert np.ptp(quick.ablated) > 0.1
    if sure:
        assert np.ptp(fixed_box.probability(slow.ablated)) < 1e-3
    np.testing.assert_allclose(quick.ablated, slow.ablated, atol=1e-3)


def test_an_image_of_another_size_is_scaled_and_padded_as_the_detector_does(detector):
    large = gray_image(128, 96, seed=1)
    quick = fast.ablate_box(detector, large, [6, 20, 60, 100], 1)
    slow = fast.brute_force_ablation(detector, large, [6, 20, 60, 100], 1)
    np.testing.assert_allclose(quick.ablated, slow.ablated, atol=1e-6)
    slope = fast.box_gradient(detector, large, [6, 20, 60, 100], 1)
    assert quick.covered == slow.covered == slope.covered == (1.0, 0.75)  # 64 x 48 in 64 x 64


@pytest.mark.parametrize("layer", ["layer1", "layer3", "pyramid"])
def test_boxes_together_equal_boxes_one_by_one(detector, image, layer):
    boxes, labels = [LARGE, SMALL, [20, 20, 41, 37]], [1, 2, 1]
    together = fast.ablate_boxes(detector, image, boxes, labels, layer=layer)
    for one, box, label in zip(together, boxes, labels, strict=True):
        alone = fast.ablate_box(detector, image, box, label, layer=layer)
        np.testing.assert_allclose(one.ablated, alone.ablated, atol=1e-6)
    for nothing in ([], []), (np.zeros((0, 4)), np.zeros(0, int)):
        assert fast.ablate_boxes(detector, image, *nothing, layer=layer) == []


def test_later_stages_matter_except_for_the_last(detector, image):
    def difference(layer):
        held, again = (
            fast.brute_force_ablation(detector, image, SMALL, 1, layer=layer, recompute_later=later)
            for later in (False, True)
        )
        return np.abs(held.ablated - again.ablated).max()

    assert difference("layer4") == 0 and difference("layer3") > 1e-6


def test_a_stage_below_the_pooled_level_does_not_reach_the_box(detector, image):
    ablation = fast.ablate_box(detector, image, [0, 0, 64, 64], 1, layer="layer1")
    assert np.abs(ablation.weights).max() < 1e-6
    assert ablation.heatmap.max() == pytest.approx(0, abs=1e-5)
    assert fast.box_gradient(detector, image, [0, 0, 64, 64], 1, layer="layer1").heatmap.max() == 0


# Scores, weights, gradients.
def test_weights_and_map_by_hand():
    activations = np.array([[[4.0, 0]], [[0, 2]], [[1, 1]]], dtype=np.float32)
    ablation = fast.BoxAblation(-0.5, np.array([-1.25, -0.5, -0.25], np.float32), activations)
    np.testing.assert_allclose(ablation.weights, [0.75, 0, -0.25], atol=1e-6)
    np.testing.assert_allclose(ablation.signed_map, [[2.75, -0.25]], atol=1e-6)
    np.testing.assert_allclose(ablation.heatmap, [[2.75, 0]], atol=1e-6)
    nothing = fast.BoxAblation(0.25, np.full(3, 0.25, np.float32), activations)
    assert nothing.weights.tolist() == [0, 0, 0] and nothing.heatmap.max() == 0


def test_the_gradient_is_the_limit_of_small_ablations(detector, image):
    slope = fast.box_gradient(detector, image, SMALL, 1)
    quick = fast.ablate_box(detector, image, SMALL, 1)
    assert quick.ablated.std() > 1e-4  # the comparison is not between constants
    assert slope.score == pytest.approx(quick.score, abs=1e-6)
    # A random head is nearly linear: what the line predicts is what ablation finds.
    moved, line = quick.ablated - quick.score, slope.predicted - slope.score
    assert np.corrcoef(moved, line)[0, 1] > 0.99
