"""Exercises of notebook 05: channels by hand, maps against boxes, a map against a map.

How to add one: the head of engine.py says it.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from cxr_helpers.course.exercises.engine import Exercise, arrays, judge_function
from cxr_helpers.explanation import heatmaps

TWO_MAPS = np.array([[[4.0, 0], [0, 0]], [[0, 0], [2, 2]]])


@dataclass(frozen=True)
class Head:
    """The second part of a network: maps (C, h, w) to a score, which may be cut at `most`."""

    weights: tuple[float, ...]
    most: float = np.inf

    def __call__(self, maps):
        """Weighted sum of the channels' means."""
        return min(self.most, float(np.dot(self.weights, np.mean(maps, axis=(1, 2)))))


FOUR_SCORES = {
    "constant: energy": 0.2,
    "constant: pointing": 0.2,
    "box: energy": 0.5,
    "box: IoU": 1 / 3,
}


def loss_without(head, maps, channel):
    """What the score `head(maps)` loses when one channel of the maps (C, h, w) is zero."""
    ablated = maps.copy()
    ablated[channel] = 0
    return head(maps) - head(ablated)


def _without(maps, channel):
    return np.where(np.arange(len(maps))[:, None, None] == channel, 0, maps)


def map_from_channels(score, ablated, maps):
    """Ablation-CAM (h, w) from the score, the (C,) scores without a channel, the (C, h, w) maps."""
    weights = (score - ablated) / score
    return np.maximum(np.tensordot(weights, maps, axes=1), 0)


def signed(score, ablated, maps):
    """The same sum of maps, not cut at zero: a usual mistake."""
    return np.tensordot((score - ablated) / score, maps, axes=1)


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


def energy_inside(heatmap, boxes):
    """Share of what is above zero that lies in at least one of the boxes; 0 where nothing is."""
    evidence = np.maximum(heatmap, 0)
    if evidence.sum() == 0:
        return 0.0
    inside = np.zeros(heatmap.shape, dtype=bool)
    for x_min, y_min, x_max, y_max in boxes:
        inside[y_min:y_max, x_min:x_max] = True
    return evidence[inside].sum() / evidence.sum()


def _with_negative(heatmap, boxes):
    inside = heatmaps.box_mask(boxes, heatmap.shape)
    return heatmap[inside].sum() / heatmap.sum() if heatmap.max() > 0 else 0.0


def rank_correlation(first, second):
    """Spearman's correlation of two maps: equal values share their mean rank."""
    ranks = [rankdata(np.ravel(values)) for values in (first, second)]
    return np.corrcoef(*ranks)[0, 1]


def _pearson(first, second):
    return np.corrcoef(np.ravel(first), np.ravel(second))[0, 1]


def _ties_by_position(first, second):
    ranks = [np.argsort(np.argsort(np.ravel(m), kind="stable")) for m in (first, second)]
    return _pearson(*ranks)


EXERCISES = (
    Exercise(
        number="5.1",
        title="the ablation of one channel",
        minutes=10,
        reference=loss_without,
        mistakes=(
            (
                lambda head, maps, c: head(_without(maps, c)) - head(maps),
                "The sign: what is lost is the score before minus the score after.",
            ),
            (
                lambda head, maps, c: head(_without(maps, c)),
                "That is the score that is left. Asked is what was lost.",
            ),
            (
                lambda head, maps, c: 1 - head(_without(maps, c)) / head(maps),
                "That is a share of the score. Asked is the loss itself.",
            ),
            (
                lambda head, maps, c: head(maps - _without(maps, c)),
                "You keep the channel and remove all others. What one channel holds alone is "
                "another question than what is lost without it.",
            ),
        ),
        hints=(
            "Work on a copy: ablated = maps.copy().",
            "ablated[channel] = 0 empties the channel; ask head(ablated).",
            "Return head(maps) - head(ablated).",
        ),
        why="No gradient, no look inside the head: it is only asked again. A score that is cut "
        "loses nothing as long as what is left suffices.",
        judge=judge_function(
            [
                (Head((2.0, 1.0)), TWO_MAPS, 0),
                (Head((2.0, 1.0)), TWO_MAPS, 1),
                (Head((2.0, 1.0), most=1.5), TWO_MAPS, 0),
                (Head((2.0, 1.0), most=1.5), TWO_MAPS, 1),
                (Head((1.0, -3.0)), TWO_MAPS, 1),
            ]
        ),
    ),
    Exercise(
        number="5.2",
        title="a map from its channels",
        minutes=15,
        reference=map_from_channels,
        mistakes=(
            (signed, "Right, but for what is below zero: that speaks against, cut it off."),
            (
                lambda s, a, m: np.tensordot(np.maximum((s - a) / s, 0), m, axes=1),
                "You cut the weights. A channel that speaks against takes away from the others: "
                "cut the sum instead.",
            ),
            (
                lambda s, a, m: map_from_channels(s, a, m) * s,
                "Right up to a factor: the weight is a share, so divide by the score.",
            ),
            (
                lambda s, a, m: np.maximum(np.tensordot(a / s, m, axes=1), 0),
                "You weigh by what is left without the channel. Weigh by what is lost.",
            ),
            (
                lambda s, a, m: np.maximum(m, 0).sum(axis=0),
                "All channels count the same here. Weigh each by its share of the score.",
            ),
        ),
        hints=(
            "First the weights: (score - ablated) / score, one for each channel.",
            "np.tensordot(weights, maps, axes=1) adds up the maps, each times its weight.",
            "np.maximum(..., 0) cuts off what is below zero. That comes last.",
        ),
        why="Three lines, and all of Ablation-CAM. What costs time is to ask for the scores.",
        judge=judge_function(
            [
                (3.0, *arrays([1.0, 2.0], [[[4.0, 0], [0, 0]], [[0, 0], [2, 2]]])),
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
        number="5.3",
        title="only the larger one counts",
        minutes=5,
        reference={"a": 1 / 3, "b": 0.0},
        mistakes=(
            (
                {"a": 0.6, "b": 0.4},
                "These are the shares of the sum. The score is the larger one: remove each, look.",
            ),
            (
                {"a": 1.0, "b": 0.0},
                "So says the slope, and so says the loss before it is divided by the score. "
                "Without a, b steps in: a third of the score is lost, not all of it.",
            ),
            (
                {"a": 2 / 3, "b": 1.0},
                "That is what is left without each. Asked is the share that is lost.",
            ),
            (
                {"a": 2.0, "b": 3.0},
                "These are the scores without each. Asked is the share that is lost.",
            ),
        ),
        hints=(
            "Set a to 0. What is the larger one of 0 and 2?",
            "The score falls from 3 to 2. And without b?",
            "(3 - 2) / 3 for a, (3 - 3) / 3 for b",
        ),
        why="The weights add up to a third: two thirds of the score are held by either of them, "
        "and removing one at a time does not see that.",
    ),
    Exercise(
        number="5.4",
        title="the pointing game",
        minutes=15,
        reference=points_into,
        mistakes=(
            (
                _first_peak,
                "argmax takes the first of several equal maxima, so a tie is decided by its place "
                "in the array. Return the share of the maxima that lie inside.",
            ),
            (
                lambda h, box: float(points_into(h, box) > 0),
                "One maximum inside does not make a hit of all: a constant map would always win. "
                "Return the share.",
            ),
            (
                lambda h, box: points_into(h.T, box),
                "x is the column, y the row: an array is asked [y, x].",
            ),
            (
                lambda h, box: points_into(h, [*box[:2], box[2] + 1, box[3] + 1]),
                "x_max and y_max are edges: the last column inside is x_max - 1.",
            ),
            (
                lambda h, box: points_into(h - h.min() + 1, box),
                "A map of zeros has no evidence and points nowhere: return 0 for it.",
            ),
        ),
        hints=(
            "rows, columns = np.nonzero(heatmap == heatmap.max()) are all maxima.",
            "A column is inside if x_min <= column < x_max; a row goes with y.",
            "Return the mean of inside, and 0 before all that if nothing is above zero.",
        ),
        why="Maps that saturate have many equal maxima. By argmax, a corner of the array wins "
        "them.",
        judge=judge_function(
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
        number="5.5",
        title="energy in the boxes",
        minutes=10,
        reference=energy_inside,
        mistakes=(
            (
                lambda h, boxes: sum(energy_inside(h, [box]) for box in boxes),
                "Where two boxes overlap, the energy counts twice; it could exceed 1. Mark the "
                "pixels that are in any box, then sum once.",
            ),
            (
                _with_negative,
                "What is below zero is no evidence: cut it off before you sum, inside and outside.",
            ),
            (
                lambda h, boxes: np.maximum(h, 0)[heatmaps.box_mask(boxes, h.shape)].mean(),
                "That is the mean brightness inside. Asked is the share of the whole map's sum.",
            ),
            (
                lambda h, boxes: energy_inside(h, boxes[:1]),
                "Only the first box is counted. There may be several.",
            ),
            (
                lambda h, boxes: energy_inside(h, boxes) if h.max() > 0 else np.nan,
                "Right but for a map without anything above zero: 0 / 0 is NaN. Return 0 for it.",
            ),
        ),
        hints=(
            "Begin with np.maximum(heatmap, 0).",
            "inside = np.zeros(heatmap.shape, bool); inside[y_min:y_max, x_min:x_max] = True",
            "evidence[inside].sum() / evidence.sum(), and 0 where that would be 0 / 0",
        ),
        why="Two readers' boxes of one finding overlap nearly always, so the double count is "
        "common.",
        judge=judge_function(
            [
                (np.array([[1.0, 2, 1, 0], [0, 4, 0, 2]]), [[1, 0, 3, 1]]),
                (np.array([[1.0, 2, 1, 0], [0, 4, 0, 2]]), [[0, 0, 2, 2], [1, 0, 3, 2]]),
                (np.array([[3.0, -2, 1], [-1, 2, 2], [0, -4, 0]]), [[0, 0, 2, 2], [2, 2, 3, 3]]),
                (np.array([[0.0, -1], [0, 0]]), [[0, 0, 1, 1]]),
            ]
        ),
    ),
    Exercise(
        number="5.6",
        title="two maps that explain nothing",
        minutes=5,
        reference=FOUR_SCORES,
        mistakes=(
            (
                FOUR_SCORES | {"constant: pointing": 1},
                "Every pixel of a constant map is a maximum, and a fifth of them lies inside.",
            ),
            (
                FOUR_SCORES | {"constant: pointing": 0},
                "A constant map above zero points everywhere: a fifth of its maxima lies inside.",
            ),
            (
                FOUR_SCORES | {"constant: energy": 1},
                "The sum of a constant map lies all over the image, a fifth of it inside.",
            ),
            (
                FOUR_SCORES | {"box: IoU": 0.5},
                "Half of each box is shared. IoU divides by what both cover: one and a half boxes.",
            ),
            (
                FOUR_SCORES | {"box: energy": 1},
                "All energy lies in the detected box. Which half of that is in the readers' one?",
            ),
        ),
        hints=(
            "A constant map is spread over the image as evenly as area is.",
            "So both of its scores are the box's share of the image.",
            "Half of the detected box lies inside: energy 1/2, IoU 0.5 / (1 + 1 - 0.5).",
        ),
        why="A map of nothing scores what chance gives, and more for a large box. And a "
        "detector's box scores well without explaining anything. Such lines belong beside every "
        "score.",
    ),
    Exercise(
        number="5.7",
        title="rank correlation of two maps",
        minutes=15,
        reference=rank_correlation,
        mistakes=(
            (
                _pearson,
                "That is Pearson's correlation, of the values. One bright pixel can make it. Take "
                "the ranks first.",
            ),
            (
                lambda a, b: _pearson(np.argsort(np.ravel(a)), np.argsort(np.ravel(b))),
                "argsort says which pixel comes first, not which rank a pixel has.",
            ),
            (
                _ties_by_position,
                "Equal values got different ranks, by their place in the array. Maps that are cut "
                "at 0 are full of ties, and would look alike. scipy.stats.rankdata shares ranks.",
            ),
        ),
        hints=(
            "Make both maps flat: np.ravel.",
            "scipy.stats.rankdata gives ranks; equal values share their mean rank.",
            "np.corrcoef(ranks_of_first, ranks_of_second)[0, 1]",
        ),
        why="Two maps that are zero nearly everywhere have no order there, and must get no credit.",
        judge=judge_function(
            [
                arrays([[1.0, 2, 3], [4, 50, 6]], [[10.0, 20, 40], [30, 60, 900]]),
                arrays([[0.0, 0, 0], [0, 5, 3]], [[0.0, 0, 0], [4, 0, 9]]),
                arrays([[0.0, 0, 2], [0, 0, 1]], [[1.0, 3, 0], [0, 0, 0]]),
            ]
        ),
    ),
)
