"""Scores of heatmaps: by hand, and defined where there is nothing to divide by."""

import numpy as np
import pytest
import torch

from cxr_helpers.explanation import heatmaps as h

SCORES = (h.pointing_game, h.energy_in_box, h.iou_at, lambda m, b: h.best_iou(m, b)[0])
HALF = [[0, 0, 4, 8]]  # the left half of an 8 x 8 map


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("boxes", [HALF, np.zeros((0, 4)), []])
def test_a_map_of_zeros_scores_zero(score, boxes):
    assert score(np.zeros((8, 8)), boxes) == 0.0


@pytest.mark.parametrize("score", SCORES)
def test_a_constant_map_scores_the_share_of_the_area(score):
    assert score(np.full((8, 8), 3.0), HALF) == pytest.approx(0.5)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("boxes", [[], np.zeros((0, 4)), torch.zeros(0, 4)])
def test_without_a_box_nothing_is_inside(score, boxes):
    assert score(np.random.default_rng(0).random((8, 8)), boxes) == 0.0


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(
    "boxes",
    [[[-9, -9, -1, -1]], [[8, 0, 12, 8]], [[20, 20, 30, 30]], [[2, 2, 9.5, 6]], [[2, 2, 6, 64]]],
)
def test_a_box_beyond_the_map_shows_that_the_map_is_not_the_image(score, boxes):
    """A map of 8 x 8 of an image of 64 x 64 would be scored in the wrong pixels."""
    with pytest.raises(ValueError, match=r"boxes must lie in the map.*8 x 8.*resize"):
        score(np.random.default_rng(0).random((8, 8)), boxes)


def test_a_box_is_cut_off_at_the_edge_up_to_a_pixel():
    mask = h.box_mask([[-2, -3, 1, 1], [3, 3, 5, 5]], (4, 4))
    assert np.argwhere(mask).tolist() == [[0, 0], [3, 3]]


@pytest.mark.parametrize(
    "score", [h.pointing_game, h.energy_in_box, h.iou_at, h.iou_at_levels, h.best_iou]
)
def test_a_small_map_is_refused_and_resized_it_is_scored(score):
    """The box alone does not tell: it fits into the small map too."""
    small, box = np.zeros((8, 8)), [[1, 1, 4, 4]]
    small[0, 0] = 1
    with pytest.raises(
        ValueError, match=r"map of shape \(8, 8\) for an image of \(64, 64\).*resize"
    ):
        score(small, box, image_hw=(64, 64))
    full = h.resize_map(small, (64, 64))
    assert np.array_equal(score(full, box, image_hw=torch.Size([64, 64])), score(full, box))


@pytest.mark.parametrize("score", SCORES)
def test_tensors_lists_and_other_types_score_the_same(score):
    heatmap, boxes = np.random.default_rng(6).integers(-3, 4, (8, 8)), [[1, 2, 4, 7]]
    expected = score(heatmap.astype(float), np.array(boxes, float))
    tensor = torch.from_numpy(heatmap).float().requires_grad_()
    for one in (heatmap, heatmap.tolist(), heatmap.astype(np.float16), tensor, tensor.bfloat16()):
        several = [torch.tensor(boxes[0]).float().requires_grad_()]
        for box in (boxes, torch.tensor(boxes), np.array(boxes, np.float16), several):
            assert score(one, box) == pytest.approx(expected)


@pytest.mark.parametrize("score", SCORES)
def test_a_perfect_map_scores_one(score):
    assert score(h.box_mask(HALF, (8, 8)).astype(float), HALF) == 1.0


@pytest.mark.parametrize("score", SCORES)
def test_scores_ignore_scale_and_the_negative_part(score):
    signed = np.random.default_rng(1).normal(size=(8, 8))
    assert score(signed, HALF) == pytest.approx(score(np.clip(signed, 0, None) * 7, HALF))


@pytest.mark.parametrize("score", SCORES)
def test_scores_flip_with_map_and_boxes(score):
    heatmap = np.random.default_rng(2).random((8, 8))
    assert score(heatmap, [[1, 2, 4, 7]]) == pytest.approx(score(heatmap[:, ::-1], [[4, 2, 7, 7]]))


def test_where_a_map_is_not_finite_is_said():
    with pytest.raises(ValueError, match="1 of 4 values.*row 1, column 0"):
        h.normalize_map([[0, 1], [np.inf, 2]])


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros(4),
        np.zeros((0, 4)),
        np.full((2, 2), np.nan),
        [["a"]],
        [[1], [1, 2]],
        [["0.5"]],
        np.ones((2, 2)) * 1j,
        np.ma.masked_array(np.ones((2, 2)), mask=np.eye(2)),
    ],
)
def test_what_is_no_map_is_refused(bad):
    with pytest.raises(ValueError, match="map"):
        h.energy_in_box(bad, HALF)


@pytest.mark.parametrize(
    "bad",
    [[[1, 2, 3]], [1, 2, 3, 4], [[4, 0, 0, 8]], [[0, 0, np.inf, 8]], [[2, 2, 2, 5]], [["a"] * 4]],
)
def test_what_is_no_box_is_refused(bad):
    with pytest.raises(ValueError, match="boxes"):
        h.energy_in_box(np.ones((8, 8)), bad)


def test_values_by_hand():
    heatmap = np.array([[0.0, 1, 4, 1], [0, 2, 2, 0]])  # sums to 10
    box = [[2, 0, 4, 2]]  # holds 4, 1, 2, 0
    assert h.pointing_game(heatmap, box) == 1
    assert h.energy_in_box(heatmap, box) == pytest.approx(0.7)
    # Half of 4 is reached by 4, 2 and 2; two of them lie in the box of four pixels.
    assert h.iou_at(heatmap, box, level=0.5) == pytest.approx(2 / 5)


def test_the_best_iou_is_at_least_that_at_any_level():
    heatmap = np.random.default_rng(3).random((8, 8))
    value, level = h.best_iou(heatmap, HALF)
    assert value == h.iou_at(heatmap, HALF, level=level)
    assert value >= h.iou_at(heatmap, HALF, level=0.5)


def test_boxes_that_overlap_count_once():
    assert h.energy_in_box(np.ones((4, 4)), [[0, 0, 2, 4], [1, 0, 3, 4]]) == pytest.approx(0.75)


def test_a_box_smaller_than_a_pixel_marks_the_pixel_that_holds_it():
    mask = h.box_mask([[2.1, 1.6, 2.3, 1.8]], (4, 4))
    assert np.argwhere(mask).tolist() == [[1, 2]]


@pytest.mark.parametrize("shape", [(17, 23), (5, 5), (2, 3)])
def test_resizing_equals_torch(shape):
    heatmap = np.random.default_rng(4).normal(size=(5, 7))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(heatmap)[None, None], size=shape, mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(h.resize_map(heatmap, shape), expected[0, 0].numpy(), atol=1e-9)


def test_the_part_of_a_map_over_padding_is_not_shown():
    heatmap = np.zeros((4, 4))
    heatmap[:, 3] = 1  # over the padding of an image that fills three columns of four
    assert h.resize_map(heatmap, (8, 6), covered=(1.0, 0.75))[:, :4].max() == 0
    whole = h.resize_map(heatmap, (8, 8))
    np.testing.assert_allclose(
        h.resize_map(heatmap, (8, 6), covered=(1.0, 0.75)), whole[:, :6], atol=1e-12
    )
    with pytest.raises(ValueError, match="covered"):
        h.resize_map(heatmap, (8, 6), covered=(1.0, 0.0))


@pytest.mark.parametrize("boxes", [HALF, [], [[2, 2, 5, 6], [4, 4, 9, 9]], [[-9, 7, 1, 8]]])
def test_all_levels_at_once_equal_one_by_one(boxes):
    for heatmap in (
        np.random.default_rng(5).normal(size=(8, 8)),
        np.zeros((8, 8)),
        np.ones((8, 8)),
    ):
        one_by_one = [h.iou_at(heatmap, boxes, level=level) for level in h.LEVELS]
        np.testing.assert_allclose(h.iou_at_levels(heatmap, boxes), one_by_one, atol=1e-12)


def test_a_threshold_needs_a_level_above_zero():
    with pytest.raises(ValueError, match="level 0"):
        h.threshold_map(np.ones((2, 2)), 0)
    for level in (np.nan, "0.5", [0.5]):
        with pytest.raises(ValueError, match="no share|is not a share"):
            h.iou_at(np.ones((2, 2)), [], level=level)
    with pytest.raises(ValueError, match="levels holds no plain table"):
        h.iou_at_levels(np.ones((2, 2)), [], levels=["a"])
    with pytest.raises(ValueError, match="level 1.5"):
        h.iou_at_levels(np.ones((2, 2)), HALF, levels=(0.5, 1.5))


def test_regions_become_boxes_the_largest_first():
    heatmap = np.zeros((6, 8))
    heatmap[0, 0], heatmap[2:5, 3:7] = 1, 1
    assert h.map_to_boxes(heatmap, 0.5).tolist() == [[3, 2, 7, 5], [0, 0, 1, 1]]
    assert h.map_to_boxes(np.zeros((3, 3)), 0.5).shape == (0, 4)


def test_the_gaussian_is_centered_and_symmetric():
    bell = h.centered_gaussian((9, 5))
    assert np.unravel_index(bell.argmax(), bell.shape) == (4, 2)
    np.testing.assert_allclose(bell, bell[::-1, ::-1])
    for sigma in (0, np.nan, np.inf):
        with pytest.raises(ValueError, match="sigma"):
            h.centered_gaussian((9, 5), sigma=sigma)


@pytest.mark.parametrize("shape", [(0, 5), (2.5, 3), (3, 4, 3), (4,)])
def test_what_is_no_shape_is_refused(shape):
    for call in (
        lambda: h.resize_map(np.ones((2, 2)), shape),
        lambda: h.box_mask([], shape),
        lambda: h.centered_gaussian(shape),
        lambda: h.box_prior([], shape),
        lambda: h.pointing_game(np.ones((2, 2)), [], image_hw=shape),
    ):
        with pytest.raises(ValueError, match=r"no \(height, width\)"):
            call()


def test_there_must_be_a_level_to_choose():
    with pytest.raises(ValueError, match="no level"):
        h.best_iou(np.ones((2, 2)), HALF[:0], levels=())


def test_the_prior_counts_images_not_boxes():
    prior = h.box_prior([[[0, 0, 2, 2], [1, 0, 2, 2]], np.zeros((0, 4))], (2, 4))
    assert prior.tolist() == [[0.5, 0.5, 0, 0]] * 2
    assert h.box_prior([], (2, 2)).sum() == 0


def test_arguments_are_left_alone():
    heatmap, boxes = np.array([[-1.0, 2.0]]), np.array([[0.0, 0, 1, 1]])
    h.best_iou(heatmap, boxes)
    h.resize_map(heatmap, (3, 3))
    assert heatmap.tolist() == [[-1.0, 2.0]] and boxes.tolist() == [[0.0, 0, 1, 1]]
