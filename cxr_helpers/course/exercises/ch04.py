"""Exercises of notebook 04 about boxes: average precision by hand, IoU, suppression, levels.

How to add one: the head of engine.py says it.
"""

import math

import numpy as np

from cxr_helpers.course.exercises.engine import Exercise, arrays, judge_function
from cxr_helpers.detection.boxes import box_iou


def iou_of_all(first, second):
    """IoU of each of N boxes with each of M, all (x_min, y_min, x_max, y_max): (N, M)."""
    a, b = first[:, None], second[None]  # (N, 1, 4), (1, M, 4)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.clip(sides, 0, None).prod(axis=-1)
    area_a, area_b = ((box[..., 2:] - box[..., :2]).prod(axis=-1) for box in (a, b))
    return shared / (area_a + area_b - shared)


def _iou_of_all(first, second, *, clip=0, wider=0, twice=False):
    a, b = first[:, None], second[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + wider
    shared = np.clip(sides, clip, None).prod(axis=-1)
    areas = sum((box[..., 2:] - box[..., :2] + wider).prod(axis=-1) for box in (a, b))
    return shared / (areas if twice else areas - shared)


def suppress_per_class(boxes, labels, scores, threshold):
    """Rows that non-maximum suppression keeps, by falling score; classes do not meet."""
    order, kept = np.argsort(-scores), []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        overlap = box_iou(boxes[[best]], boxes[rest])[0]
        order = rest[(overlap <= threshold) | (labels[rest] != labels[best])]
    return kept


def _dropped_boxes_drop_others(boxes, labels, scores, threshold):
    order = np.argsort(-scores)
    overlap = box_iou(boxes, boxes) > threshold
    overlap &= labels[:, None] == labels
    return [int(r) for i, r in enumerate(order) if not overlap[r, order[:i]].any()]


def pooled_from(width, height, canonical):
    """Pyramid level of a box: 4 for the area canonical**2, one less for half the side, 2 to 5."""
    level = math.floor(4 + math.log2(math.sqrt(width * height) / canonical))
    return min(5, max(2, level))


def _pooled_from(side, canonical, *, turn=math.floor, lowest=2, highest=5):
    return min(highest, max(lowest, turn(4 + math.log2(side / canonical))))


def _boxes(*rows) -> np.ndarray:
    return np.array(rows, dtype=float)


EXERCISES = (
    Exercise(
        number="4.1",
        title="ten timid boxes",
        minutes=2,
        reference=(51 + 50 * 2 / 3) / 101,
        mistakes=(
            (
                (51 + 50 * 2 / 13) / 101,
                "That is the precision after all of them. At each recall the best one counts.",
            ),
            (
                2 / 13,
                "That is the share of right detections. Average precision goes down the list, and "
                "asks at each recall for the best precision from there on.",
            ),
            (0, "Three detections are as right as they were before."),
        ),
        hints=(
            "After which detection has all of the truth been found?",
            "All ten come after that. Which recall point could they change?",
            "None: it stays at (51 + 50 * 2 / 3) / 101.",
        ),
        why="What comes after the last hit costs nothing: a detector may add false alarms there "
        "without end and lose no mAP.",
    ),
    Exercise(
        number="4.2",
        title="average precision of six detections",
        minutes=10,
        reference=(26 + 25 * 2 / 3 + 25 * 3 / 5) / 101,
        mistakes=(
            (
                (34 + 33 * 2 / 3 + 34 * 3 / 5) / 101,
                "The fourth box was never found, and still is part of the truth: recall ends at "
                "3/4, and from there on precision counts as 0.",
            ),
            (
                (76 + 25 * 4 / 5) / 101,
                "Box A was counted twice. A box can be found once: the second detection of it is "
                "a false alarm.",
            ),
            (
                (26 + 25 * 2 / 3 + 25 * 3 / 5 + 25 / 2) / 101,
                "After the last hit recall rises no more: beyond 3/4 precision counts as 0.",
            ),
            (
                (1 + 2 / 3 + 3 / 5) / 4,
                "Nearly: that is the exact area under the steps. COCO takes 101 recall points, "
                "and 26 of them lie at 0.25 or below.",
            ),
        ),
        hints=(
            "Which detections are hits? The second one finds a box that is taken.",
            "Hits are the first, third and fifth. The precision there is 1, 2/3 and 3/5.",
            "Recall reaches 1/4, 2/4 and 3/4: 26, 25 and 25 points. The last 25 count 0.",
        ),
        why="Duplicates are false alarms and missed boxes cost recall: that is all of the "
        "matching.",
    ),
    Exercise(
        number="4.3",
        title="IoU of all pairs",
        minutes=15,
        reference=iou_of_all,
        mistakes=(
            (
                lambda a, b: iou_of_all(b, a),
                "Turned: rows are the first boxes, columns the second ones.",
            ),
            (
                lambda a, b: _iou_of_all(a, b, clip=-np.inf),
                "Boxes that lie apart both ways have two negative sides, and their product is an "
                "overlap that is none: cut each side at 0 first.",
            ),
            (
                lambda a, b: _iou_of_all(a, b, wider=1),
                "You add 1 to each side, as for numbers of pixels. Here x_max is an edge.",
            ),
            (
                lambda a, b: _iou_of_all(a, b, twice=True),
                "The shared area counts twice in the sum of both areas: take it off once.",
            ),
        ),
        hints=(
            "first[:, None] is (N, 1, 4), second[None] is (1, M, 4): numpy pairs them all.",
            "Sides: np.minimum of the two ends, minus np.maximum of the two beginnings.",
            "np.clip(sides, 0, None).prod(axis=-1) is the shared area, (N, M).",
        ),
        why="These are the course's box_iou and torchvision's values. Without a loop numpy pairs "
        "all boxes at once, which is what makes thousands of proposals affordable.",
        judge=judge_function(
            [
                (
                    _boxes([0, 0, 10, 10], [20, 20, 30, 40]),
                    _boxes([5, 0, 15, 10], [2, 2, 6, 6], [40, 50, 60, 70], [22, 2, 28, 9]),
                ),
                (_boxes([0, 0, 4, 2]), _boxes([0, 0, 4, 2], [4, 0, 8, 2])),
                (_boxes([0, 0, 5, 5], [9, 9, 12, 10], [1, 1, 4, 3]), _boxes([3, 2, 10, 10])),
            ]
        ),
    ),
    Exercise(
        number="4.4",
        title="suppression, class by class",
        minutes=20,
        reference=suppress_per_class,
        mistakes=(
            (
                lambda b, y, s, t: suppress_per_class(b, np.zeros_like(y), s, t),
                "A box of another class was dropped. An effusion may lie on a mass: compare "
                "labels before you drop.",
            ),
            (
                lambda b, y, s, t: suppress_per_class(b, y, -s, t),
                "You begin with the lowest score. The surest box comes first.",
            ),
            (
                lambda b, y, s, t: suppress_per_class(b, y, -np.arange(len(s)), t),
                "You take the boxes as they are listed. Sort by falling score first.",
            ),
            (
                lambda b, y, s, t: sorted(
                    suppress_per_class(b, y, s, t), key=lambda row: (y[row], -s[row])
                ),
                "The right rows, class after class. Return them by falling score.",
            ),
            (
                lambda b, y, s, t: sorted(suppress_per_class(b, y, s, t)),
                "The right rows, by their number. Return them by falling score.",
            ),
            (
                _dropped_boxes_drop_others,
                "A box that was itself dropped drops another one. Only kept boxes may do that.",
            ),
            (
                lambda b, y, s, t: suppress_per_class(b, y, s, t - 1e-6),
                "At an IoU of just the threshold a box stays: only one above it is dropped.",
            ),
        ),
        hints=(
            "Start from the notebook's suppress. What has to change where boxes are dropped?",
            "Of the rest, keep what overlaps little or has another label than the best box.",
            "order = rest[(overlap <= threshold) | (labels[rest] != labels[best])]",
        ),
        why="So does torchvision's batched_nms, and so a place may have two names, each once.",
        judge=judge_function(
            [
                (
                    _boxes([0, 0, 10, 10], [1, 1, 11, 11], [1, 0, 11, 10], [40, 40, 50, 50]),
                    *arrays([1, 1, 2, 1], [0.6, 0.9, 0.7, 0.95]),
                    0.5,
                ),
                (
                    _boxes([0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10], [0, 0, 10, 9]),
                    *arrays([3, 3, 3, 1], [0.9, 0.8, 0.7, 0.75]),
                    0.5,
                ),
                (
                    _boxes([0, 0, 8, 8], [0, 0, 8, 7], [20, 20, 28, 28], [0, 0, 8, 6]),
                    *arrays([2, 2, 1, 2], [0.2, 0.4, 0.3, 0.9]),
                    0.8,
                ),
                (
                    _boxes([0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 6]),
                    *arrays([1, 1, 1], [0.9, 0.8, 0.7]),
                    0.5,
                ),
                (np.zeros((0, 4)), np.zeros(0, dtype=int), np.zeros(0), 0.5),
            ]
        ),
    ),
    Exercise(
        number="4.5",
        title="which level?",
        minutes=5,
        reference=pooled_from,
        mistakes=(
            (
                lambda w, h, c: _pooled_from(math.sqrt(w * h), c, turn=round),
                "Between two levels the lower one is taken: round down.",
            ),
            (
                lambda w, h, c: _pooled_from(max(w, h), c),
                "The longer side alone sends a long thin box too high. Use the root of the area.",
            ),
            (
                lambda w, h, c: _pooled_from(w * h, c**2),
                "Half the side is a quarter of the area: you go down two levels. Take the root.",
            ),
            (
                lambda w, h, c: _pooled_from(math.sqrt(w * h), c, lowest=-99, highest=99),
                "Right in between. There is no level below 2 and none above 5.",
            ),
        ),
        hints=(
            "The side of a square with the same area is math.sqrt(width * height).",
            "math.log2(side / canonical) is how many times it is twice as large.",
            "math.floor(4 + that), and then min(5, max(2, ...)).",
        ),
        why="Level 2 takes all that is smaller, however small it is: there is no finer one.",
        judge=judge_function(
            [
                (64, 64, 64),
                (32, 32, 64),
                (100, 30, 64),
                (20, 80, 64),
                (5, 4, 64),
                (900, 700, 224),
                (800, 500, 64),
            ]
        ),
    ),
)
