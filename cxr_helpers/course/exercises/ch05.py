"""Exercises of notebook 05: channels by hand, maps against boxes, a map against a map."""

import numpy as np
from scipy.stats import rankdata

from cxr_helpers.course.exercises.engine import (
    Exercise,
    Mistake,
    judge_function,
    judge_value,
)
from cxr_helpers.explanation import heatmaps

FOUR_SCORES = {
    "constant: energy": 0.2,
    "constant: pointing": 0.2,
    "box: energy": 0.5,
    "box: IoU": 1 / 3,
}


def map_from_channels(score, ablated, maps):
    """Ablation-CAM (h, w) from the score, the (C,) scores without a channel, the (C, h, w) maps."""
    weights = (score - ablated) / score
    return np.maximum(np.tensordot(weights, maps, axes=1), 0)


def _signed(score, ablated, maps):
    return np.tensordot((score - ablated) / score, maps, axes=1)


def _cut_weights(score, ablated, maps):
    return np.tensordot(np.maximum((score - ablated) / score, 0), maps, axes=1)


def points_into(heatmap, box):
    """Share of the map's highest pixels that lie in the box; 0 where nothing is above zero."""
    if heatmap.max() <= 0:
        return 0.0
    rows, columns = np.nonzero(heatmap == heatmap.max())
    x_min, y_min, x_max, y_max = box
    inside = (x_min <= columns) & (columns < x_max) & (y_min <= rows) & (rows < y_max)
    return inside.mean()


def _first_peak(heatmap, box):
    row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
    only = np.zeros_like(heatmap)
    only[row, column] = heatmap.max()
    return points_into(only, box)


def _any_peak(heatmap, box):
    return float(points_into(heatmap, box) > 0)


def _rows_are_x(heatmap, box):
    return points_into(heatmap.T, box)


def _edge_belongs(heatmap, box):
    return points_into(heatmap, [box[0], box[1], box[2] + 1, box[3] + 1])


def _zeros_point_too(heatmap, box):
    return points_into(heatmap - heatmap.min() + 1, box)


def energy_inside(heatmap, boxes):
    """Share of what is above zero that lies in at least one of the boxes; 0 where nothing is."""
    evidence = np.maximum(heatmap, 0)
    if evidence.sum() == 0:
        return 0.0
    inside = np.zeros(heatmap.shape, dtype=bool)
    for x_min, y_min, x_max, y_max in boxes:
        inside[y_min:y_max, x_min:x_max] = True
    return evidence[inside].sum() / evidence.sum()


def _nothing_is_nan(heatmap, boxes):
    return energy_inside(heatmap, boxes) if heatmap.max() > 0 else np.nan


def _overlap_twice(heatmap, boxes):
    return sum(energy_inside(heatmap, [box]) for box in boxes)


def _with_negative(heatmap, boxes):
    inside = heatmaps.box_mask(boxes, heatmap.shape)
    return heatmap[inside].sum() / heatmap.sum() if heatmap.max() > 0 else 0.0


def _brightness(heatmap, boxes):
    inside = heatmaps.box_mask(boxes, heatmap.shape)
    return np.maximum(heatmap, 0)[inside].mean()


def _only_the_first(heatmap, boxes):
    return energy_inside(heatmap, boxes[:1])


def rank_correlation(first, second):
    """Spearman's correlation of two maps: equal values share their mean rank."""
    ranks = [rankdata(np.ravel(values)) for values in (first, second)]
    return np.corrcoef(*ranks)[0, 1]


def _pearson(first, second):
    return np.corrcoef(np.ravel(first), np.ravel(second))[0, 1]


def _order_is_no_rank(first, second):
    return _pearson(np.argsort(np.ravel(first)), np.argsort(np.ravel(second)))


def _ties_by_position(first, second):
    ranks = [np.argsort(np.argsort(np.ravel(m), kind="stable")) for m in (first, second)]
    return _pearson(*ranks)


EXERCISES = (
    Exercise(
        "5.1",
        "a channel in the way",
        2,
        -0.125,
        (
            Mistake(
                0.125, "The sign: without the channel the score is higher, so it speaks against."
            ),
            Mistake(-0.1, "That is the difference. Divide by the score with all channels."),
            Mistake(
                -1 / 9, "You divide by the score without the channel. Divide by the full score."
            ),
            Mistake(0, "A weight may be negative. It is the map that is cut at zero."),
            Mistake(1.125, "That is what is left of the score. Asked is the share that is lost."),
        ),
        (
            "The weight is the share of the score that is lost without the channel.",
            "(s - s_c) / s",
            "(0.8 - 0.9) / 0.8",
        ),
        "A negative weight means that the channel speaks against the box: without it the detector "
        "is surer.",
        judge_value,
    ),
    Exercise(
        "5.2",
        "a map from its channels",
        15,
        map_from_channels,
        (
            Mistake(_signed, "Right, but for what is below zero: that speaks against, cut it off."),
            Mistake(
                _cut_weights,
                "You cut the weights. A channel that speaks against takes away from the others: "
                "cut the sum instead.",
            ),
            Mistake(
                lambda s, a, m: map_from_channels(s, a, m) * s,
                "Right up to a factor: the weight is a share, so divide by the score.",
            ),
            Mistake(
                lambda s, a, m: np.maximum(np.tensordot(a / s, m, axes=1), 0),
                "You weigh by what is left without the channel. Weigh by what is lost.",
            ),
            Mistake(
                lambda s, a, m: np.maximum(m, 0).sum(axis=0),
                "All channels count the same here. Weigh each by its share of the score.",
            ),
        ),
        (
            "First the weights: (score - ablated) / score, one for each channel.",
            "np.tensordot(weights, maps, axes=1) adds up the maps, each times its weight.",
            "np.maximum(..., 0) cuts off what is below zero. That comes last.",
        ),
        "Three lines, and all of Ablation-CAM. What costs time is to ask for the scores.",
        judge_function(
            [
                (
                    3.0,
                    np.array([1.0, 2.0]),
                    np.array([[[4.0, 0], [0, 0]], [[0, 0], [2, 2]]]),
                ),
                (
                    0.8,
                    np.array([0.2, 1.0, 0.8]),
                    np.array([[[1.0, 0, 2], [0, 1, 0]], [[0, 3, 1], [1, 0, 0]], [[5, 5, 5]] * 2]),
                ),
                (0.5, np.array([0.1, 0.6]), np.array([[[2.0, -1, 4]], [[-3, -2, 1]]])),
            ]
        ),
    ),
    Exercise(
        "5.3",
        "only the larger one counts",
        5,
        {"a": 1 / 3, "b": 0.0},
        (
            Mistake(
                {"a": 0.6, "b": 0.4},
                "These are the shares of the sum. The score is the larger one: remove each, look.",
            ),
            Mistake(
                {"a": 1.0, "b": 0.0},
                "So says the slope, and so says the loss before it is divided by the score. "
                "Without a, b steps in: a third of the score is lost, not all of it.",
            ),
            Mistake(
                {"a": 2 / 3, "b": 1.0},
                "That is what is left without each. Asked is the share that is lost.",
            ),
            Mistake(
                {"a": 2.0, "b": 3.0},
                "These are the scores without each. Asked is the share that is lost.",
            ),
        ),
        (
            "Set a to 0. What is the larger one of 0 and 2?",
            "The score falls from 3 to 2. And without b?",
            "(3 - 2) / 3 for a, (3 - 3) / 3 for b",
        ),
        "The weights add up to a third: two thirds of the score are held by either of them, and "
        "removing one at a time does not see that.",
        judge_value,
    ),
    Exercise(
        "5.4",
        "the pointing game",
        15,
        points_into,
        (
            Mistake(
                _first_peak,
                "argmax takes the first of several equal maxima, so a tie is decided by its place "
                "in the array. Return the share of the maxima that lie inside.",
            ),
            Mistake(
                _any_peak,
                "One maximum inside does not make a hit of all: a constant map would always win. "
                "Return the share.",
            ),
            Mistake(
                _rows_are_x,
                "x is the column, y the row: an array is asked [y, x].",
            ),
            Mistake(
                _edge_belongs,
                "x_max and y_max are edges: the last column inside is x_max - 1.",
            ),
            Mistake(
                _zeros_point_too,
                "A map of zeros has no evidence and points nowhere: return 0 for it.",
            ),
        ),
        (
            "rows, columns = np.nonzero(heatmap == heatmap.max()) are all maxima.",
            "A column is inside if x_min <= column < x_max; a row goes with y.",
            "Return the mean of inside, and 0 before all that if nothing is above zero.",
        ),
        "Maps that saturate have many equal maxima. By argmax, a corner of the array wins them.",
        judge_function(
            [
                (np.array([[0.0, 1, 0, 0], [0, 0, 3, 0], [0, 0, 0, 2]]), [2, 1, 4, 2]),
                (np.array([[5.0, 0, 0, 0], [0, 0, 5, 0], [0, 5, 5, 0]]), [1, 1, 3, 3]),
                (np.array([[1.0, 0, 0, 0], [0, 0, 0, 4], [0, 0, 4, 0]]), [0, 0, 3, 2]),
                (np.ones((4, 5)), [0, 0, 5, 1]),
                (np.zeros((4, 4)), [0, 0, 2, 4]),
                (-np.arange(6.0).reshape(2, 3), [0, 0, 2, 1]),
                (np.array([[2.0, -3, -4], [0, 1, 2]]), [0, 0, 2, 1]),
            ]
        ),
    ),
    Exercise(
        "5.5",
        "energy in the boxes",
        10,
        energy_inside,
        (
            Mistake(
                _overlap_twice,
                "Where two boxes overlap, the energy counts twice; it could exceed 1. Mark the "
                "pixels that are in any box, then sum once.",
            ),
            Mistake(
                _with_negative,
                "What is below zero is no evidence: cut it off before you sum, inside and outside.",
            ),
            Mistake(
                _brightness,
                "That is the mean brightness inside. Asked is the share of the whole map's sum.",
            ),
            Mistake(_only_the_first, "Only the first box is counted. There may be several."),
            Mistake(
                _nothing_is_nan,
                "Right but for a map without anything above zero: 0 / 0 is NaN. Return 0 for it.",
            ),
        ),
        (
            "Begin with np.maximum(heatmap, 0).",
            "inside = np.zeros(heatmap.shape, bool); inside[y_min:y_max, x_min:x_max] = True",
            "evidence[inside].sum() / evidence.sum(), and 0 where that would be 0 / 0",
        ),
        "Two readers' boxes of one finding overlap nearly always, so the double count is common.",
        judge_function(
            [
                (np.array([[1.0, 2, 1, 0], [0, 4, 0, 2]]), [[1, 0, 3, 1]]),
                (np.array([[1.0, 2, 1, 0], [0, 4, 0, 2]]), [[0, 0, 2, 2], [1, 0, 3, 2]]),
                (np.array([[3.0, -2, 1], [-1, 2, 2], [0, -4, 0]]), [[0, 0, 2, 2], [2, 2, 3, 3]]),
                (np.array([[0.0, -1], [0, 0]]), [[0, 0, 1, 1]]),
            ]
        ),
    ),
    Exercise(
        "5.6",
        "two maps that explain nothing",
        5,
        FOUR_SCORES,
        (
            Mistake(
                FOUR_SCORES | {"constant: pointing": 1},
                "Every pixel of a constant map is a maximum, and a fifth of them lies inside.",
            ),
            Mistake(
                FOUR_SCORES | {"constant: pointing": 0},
                "A constant map above zero points everywhere: a fifth of its maxima lies inside.",
            ),
            Mistake(
                FOUR_SCORES | {"constant: energy": 1},
                "The sum of a constant map lies all over the image, a fifth of it inside.",
            ),
            Mistake(
                FOUR_SCORES | {"box: IoU": 0.5},
                "Half of each box is shared. IoU divides by what both cover: one and a half boxes.",
            ),
            Mistake(
                FOUR_SCORES | {"box: energy": 1},
                "All energy lies in the detected box. Which half of that is in the readers' one?",
            ),
        ),
        (
            "A constant map is spread over the image as evenly as area is.",
            "So both of its scores are the box's share of the image.",
            "Half of the detected box lies inside: energy 1/2, IoU 0.5 / (1 + 1 - 0.5).",
        ),
        "A map of nothing scores what chance gives, and more for a large box. And a detector's box "
        "scores well without explaining anything. Such lines belong beside every score.",
        judge_value,
    ),
    Exercise(
        "5.7",
        "rank correlation of two maps",
        15,
        rank_correlation,
        (
            Mistake(
                _pearson,
                "That is Pearson's correlation, of the values. One bright pixel can make it. Take "
                "the ranks first.",
            ),
            Mistake(
                _order_is_no_rank,
                "argsort says which pixel comes first, not which rank a pixel has.",
            ),
            Mistake(
                _ties_by_position,
                "Equal values got different ranks, by their place in the array. Maps that are cut "
                "at 0 are full of ties, and would look alike. scipy.stats.rankdata shares ranks.",
            ),
        ),
        (
            "Make both maps flat: np.ravel.",
            "scipy.stats.rankdata gives ranks; equal values share their mean rank.",
            "np.corrcoef(ranks_of_first, ranks_of_second)[0, 1]",
        ),
        "Two maps that are zero nearly everywhere have no order there, and must get no credit.",
        judge_function(
            [
                (np.array([[1.0, 2, 3], [4, 50, 6]]), np.array([[10.0, 20, 40], [30, 60, 900]])),
                (np.array([[0.0, 0, 0], [0, 5, 3]]), np.array([[0.0, 0, 0], [4, 0, 9]])),
                (np.array([[0.0, 0, 2], [0, 0, 1]]), np.array([[1.0, 3, 0], [0, 0, 0]])),
            ]
        ),
    ),
)
