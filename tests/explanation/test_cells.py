"""Cells of a layer, emptied one by one: equal to brute force, and zero beside the box."""

import numpy as np
import pytest
import torch
from tiny_detector import gray_image, tiny_detector

from cxr_helpers.explanation import cells, fixed_box
from cxr_helpers.explanation.inputs import ExplanationError
from cxr_helpers.explanation.layers import LAYERS

SMALL, LARGE = [3.5, 10, 20, 31], [2, 5, 62, 60]  # pooled from two levels


@pytest.fixture(scope="module")
def detector():
    return tiny_detector()


@pytest.fixture(scope="module")
def image():
    return gray_image()


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(
    "box", [SMALL, LARGE, [-5, -3, 30, 20], [50, 1, 70, 9], [0, 60, 3, 64], [33, 20, 33.5, 60]]
)
def test_cells_equal_brute_force(detector, image, layer, box):
    (quick,) = cells.ablate_cells(detector, image, [box], [2], layer=layer)
    slow = cells.brute_force_cells(detector, image, box, 2, layer=layer)
    assert quick.score == pytest.approx(slow.score, abs=1e-5)
    np.testing.assert_allclose(quick.ablated, slow.ablated, atol=1e-5)
    assert not (slow.reach & ~quick.reach & (np.abs(slow.signed_map) > 1e-5)).any()
    assert quick.signed_map[~quick.reach].max(initial=0) == 0


def test_only_cells_near_the_box_change_the_score(detector, image):
    box = [8, 8, 24, 24]
    (level,) = cells.ablate_cells(detector, image, [box], [1], layer="pyramid")
    stride = 64 // level.ablated.shape[0]
    rows, columns = np.nonzero(level.reach)
    for places in (rows, columns):  # RoIAlign reads one cell beyond the box at most
        assert places.min() >= 8 // stride - 1 and places.max() <= 24 // stride + 1
    (stage,) = cells.ablate_cells(detector, image, [box], [1], layer="layer2")
    assert level.reach.sum() < stage.reach.sum() < 0.5 * stage.reach.size  # a 3x3 convolution more


def test_all_cells_together_are_all_that_the_layer_gives(detector, image):
    """What is linear adds up: before the first activation function the cells' parts sum to all."""
    scene, _ = fixed_box.enter(detector, image, [SMALL], [1], "layer3")
    (level,), (roi,) = scene.levels, scene.rois
    _, parts = cells._stage_cells(detector, scene.stages, 2, roi, level)
    without = [*scene.stages]
    without[2] = torch.zeros_like(without[2])
    pooled = [
        fixed_box.pool(detector, fixed_box.pyramid(detector, stages)[level], roi[None], level)
        for stages in (scene.stages, without)
    ]
    whole = (pooled[0] - pooled[1])[0].flatten(1)
    torch.testing.assert_close(parts.sum(dim=0), whole, atol=1e-5, rtol=1e-4)


def test_a_stage_below_the_pooled_level_has_no_cell_that_counts(detector, image):
    (none,) = cells.ablate_cells(detector, image, [[0, 0, 64, 64]], [1], layer="layer1")
    assert not none.reach.any() and none.heatmap.max() == 0


@pytest.mark.parametrize("layer", ["layer1", "layer3", "pyramid"])
def test_boxes_together_equal_boxes_one_by_one(detector, image, layer):
    boxes, labels = [LARGE, SMALL, [20, 20, 41, 37]], [1, 2, 1]
    together = cells.ablate_cells(detector, image, boxes, labels, layer=layer)
    for one, box, label in zip(together, boxes, labels, strict=True):
        (alone,) = cells.ablate_cells(detector, image, [box], [label], layer=layer)
        np.testing.assert_allclose(one.ablated, alone.ablated, atol=1e-5)
        assert (one.reach == alone.reach).mean() > 0.95  # where a part is zero but for rounding
    assert cells.ablate_cells(detector, image, [], [], layer=layer) == []


def test_later_stages_carry_a_cell_further(detector, image):
    held, again = (
        cells.brute_force_cells(detector, image, [8, 8, 20, 20], 1, recompute_later=later)
        for later in (False, True)
    )
    assert again.reach.sum() > held.reach.sum()
    last = [
        cells.brute_force_cells(detector, image, SMALL, 1, layer="layer4", recompute_later=later)
        for later in (False, True)
    ]
    np.testing.assert_array_equal(last[0].ablated, last[1].ablated)


def test_a_padded_image_says_what_its_map_covers(detector):
    large = gray_image(128, 96, seed=1)
    (quick,) = cells.ablate_cells(detector, large, [[6, 20, 60, 100]], [1])
    slow = cells.brute_force_cells(detector, large, [6, 20, 60, 100], 1)
    np.testing.assert_allclose(quick.ablated, slow.ablated, atol=1e-5)
    assert quick.covered == slow.covered == (1.0, 0.75)


def test_an_unknown_layer_is_refused(detector, image):
    for ask in (cells.ablate_cells, lambda d, i, b, n, layer: cells.brute_force_cells(
        d, i, b[0], n[0], layer=layer
    )):  # fmt: skip
        with pytest.raises(ExplanationError, match="'layer5' is none of layer1"):
            ask(detector, image, [SMALL], [1], layer="layer5")
