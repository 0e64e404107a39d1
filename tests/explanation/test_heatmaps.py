"""Scores of heatmaps: by hand, and defined where there is nothing to divide by."""

import numpy as np
import pytest
import torch

from cxr_helpers.explanation import heatmaps as h

RANDOM = np.random.default_rng(0).normal(size=(8, 8))
HALF = [[0, 0, 4, 8]]  # the left half of an 8 x 8 map
every_score = pytest.mark.parametrize(
    "score",
    [h.pointing_game, h.energy_in_box, h.iou_at, lambda *a, **k: h.iou_at_levels(*a, **k).max()],
    ids=["pointing", "energy", "iou", "iou at levels"],
)


@every_score
def test_scores_at_their_limits(score):
    for nothing in ([], np.zeros((0, 4)), torch.zeros(0, 4)):
        assert score(RANDOM, nothing) == score(np.zeros((8, 8)), nothing) == 0.0
    assert score(np.zeros((8, 8)), HALF) == 0.0
    assert score(np.full((8, 8), 3.0), HALF) == pytest.approx(0.5)  # the share of the area
    assert score(h.box_mask(HALF, (8, 8)).astype(float), HALF) == 1.0


@every_score
def test_scores_ignore_scale_and_the_negative_part_and_flip_with_the_boxes(score):
    value = score(RANDOM, [[1, 2, 4, 7]])
    assert score(np.clip(RANDOM, 0, None) * 7, [[1, 2, 4, 7]]) == pytest.approx(value)
    assert score(RANDOM[:, ::-1], [[4, 2, 7, 7]]) == pytest.approx(value)


@every_score
def test_tensors_lists_and_other_types_score_the_same(score):
    heatmap, boxes = np.random.default_rng(6).integers(-3, 4, (8, 8)), [[1, 2, 4, 7]]
    expected = score(heatmap.astype(float), np.array(boxes, float))
    tensor = torch.from_numpy(heatmap).float().requires_grad_()
    for one in (heatmap, heatmap.tolist(), heatmap.astype(np.float16), tensor.bfloat16()):
        for box in (boxes, torch.tensor(boxes), [torch.tensor(boxes[0]).float().requires_grad_()]):
            assert score(one, box) == pytest.approx(expected)


@every_score
def test_a_map_that_is_not_the_images_is_refused(score):
    """A map of 8 x 8 of an image of 64 x 64 would be scored in the wrong pixels."""
    for box in ([-9, -9, -1, -1], [8, 0, 12, 8], [20, 20, 30, 30], [2, 2, 9.5, 6], [2, 2, 6, 64]):
        with pytest.raises(ValueError, match=r"boxes must lie in the map.*8 x 8.*resize"):
            score(RANDOM, [box])
    box = [[1, 1, 4, 4]]  # fits into the small map too, so it does not tell
    with pytest.raises(ValueError, match=r"map of shape \(8, 8\) for an image of \(64, 64\).*resi"):
        score(RANDOM, box, image_hw=(64, 64))
    full = h.resize_map(RANDOM, (64, 64))
    assert score(full, box, image_hw=torch.Size([64, 64])) == score(full, box)


def test_values_by_hand():
    heatmap = np.array([[0.0, 1, 4, 1], [0, 2, 2, 0]])  # sums to 10
    box = [[2, 0, 4, 2]]  # holds 4, 1, 2, 0
    assert h.pointing_game(heatmap, box) == 1
    assert h.energy_in_box(heatmap, box) == pytest.approx(0.7)
    # Half of 4 is reached by 4, 2 and 2; two of them lie in the box of four pixels.
    assert h.iou_at(heatmap, box, level=0.5) == pytest.approx(2 / 5)
    # Boxes that overlap count once.
    assert h.energy_in_box(np.ones((4, 4)), [[0, 0, 2, 4], [1, 0, 3, 4]]) == pytest.approx(0.75)


@pytest.mark.parametrize("boxes", [HALF, [], [[2, 2, 5, 6], [4, 4, 9, 9]], [[-9, 7, 1, 8]]])
def test_iou_at_each_level_is_that_of_the_pixels(boxes):
    for heatmap in (RANDOM, np.zeros((8, 8)), np.ones((8, 8))):
        scaled, inside = h.normalize_map(heatmap), h.box_mask(boxes, (8, 8))
        regions = [(scaled >= level) & (scaled > 0) for level in h.LEVELS]
        expected = [(r & inside).sum() / max(1, (r | inside).sum()) for r in regions]
        np.testing.assert_allclose(h.iou_at_levels(heatmap, boxes), expected, atol=1e-12)
        assert h.iou_at(heatmap, boxes, level=h.LEVELS[3]) == pytest.approx(expected[3])


@pytest.mark.parametrize("level", [0, 1.5, np.nan, "0.5", [0.5]])
def test_a_level_is_a_share_above_zero(level):
    with pytest.raises(ValueError, match="level"):
        h.iou_at(RANDOM, HALF, level=level)


# Masks, sizes, baselines.
def test_a_box_is_cut_off_at_the_edge_and_a_small_one_marks_its_pixel():
    mask = h.box_mask([[-2, -3, 1, 1], [3, 3, 5, 5]], (4, 4))
    assert np.argwhere(mask).tolist() == [[0, 0], [3, 3]]
    mask = h.box_mask([[2.1, 1.6, 2.3, 1.8]], (4, 4))
    assert np.argwhere(mask).tolist() == [[1, 2]]


def test_where_a_map_is_not_finite_is_said():
    with pytest.raises(ValueError, match="1 of 4 values.*row 1, column 0"):
        h.normalize_map([[0, 1], [np.inf, 2]])


@pytest.mark.parametrize("shape", [(17, 23), (5, 5), (2, 3)])
def test_resizing_equals_torch(shape):
    before = RANDOM.copy()
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(RANDOM)[None, None], size=shape, mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(h.resize_map(RANDOM, shape), expected[0, 0].numpy(), atol=1e-9)
    assert np.array_equal(RANDOM, before)


def test_the_part_of_a_map_over_padding_is_not_shown():
    heatmap = np.zeros((4, 4))
    heatmap[:, 3] = 1  # over the padding of an image that fills three columns of four
    cut = h.resize_map(heatmap, (8, 6), covered=(1.0, 0.75))
    assert cut[:, :4].max() == 0
    np.testing.assert_allclose(cut, h.resize_map(heatmap, (8, 8))[:, :6], atol=1e-12)
    with pytest.raises(ValueError, match="covered"):
        h.resize_map(heatmap, (8, 6), covered=(1.0, 0.0))


def test_a_bell_is_centered_on_the_image_or_the_box():
    bell = h.centered_gaussian((9, 5))
    assert np.unravel_index(bell.argmax(), bell.shape) == (4, 2)
    np.testing.assert_allclose(bell, bell[::-1, ::-1])
    box = [10, 20, 30, 26]
    bell = h.centered_gaussian((64, 64), box_xyxy=box)
    assert np.unravel_index(bell.argmax(), bell.shape) in {(22, 19), (22, 20), (23, 19), (23, 20)}
    assert h.energy_in_box(bell, [box]) > 0.85
    assert np.isfinite(h.centered_gaussian((9, 9), box_xyxy=[5, 5, 5.01, 5.01])).all()


def test_the_prior_counts_images_not_boxes():
    prior = h.box_prior([[[0, 0, 2, 2], [1, 0, 2, 2]], np.zeros((0, 4))], (2, 4))
    assert prior.tolist() == [[0.5, 0.5, 0, 0]] * 2
    assert h.box_prior([], (2, 2)).sum() == 0


@pytest.mark.parametrize("shape", [(0, 5), (2.5, 3), (3, 4, 3), (4,)])
def test_what_is_no_shape_is_refused(shape):
    for call in (
        lambda: h.resize_map(RANDOM, shape),
        lambda: h.box_mask([], shape),
        lambda: h.centered_gaussian(shape),
        lambda: h.box_prior([], shape),
        lambda: h.pointing_game(RANDOM, [], image_hw=shape),
    ):
        with pytest.raises(ValueError, match=r"no \(height, width\)"):
            call()
