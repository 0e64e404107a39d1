"""Exercises of notebook 04 about scores: a paired difference, FROC, a curve.

How to add one: the head of engine.py says it.
"""

import numpy as np
from matplotlib.axes import Axes

from cxr_helpers.course.exercises.engine import Exercise, arrays, judge_function
from cxr_helpers.course.exercises.figures import drawn_series, drawn_then, judge_figure, no_names
from cxr_helpers.detection import metrics as dm


def paired_differences(hits_a, hits_b, boxes, draws):
    """Share of the boxes that B finds minus that of A, for each row of drawn image numbers."""
    found_more = (hits_b - hits_a)[draws].sum(axis=1)
    return found_more / boxes[draws].sum(axis=1)


def share_found(hit, boxes, images, allowed):
    """Share of the boxes found with at most `allowed` false alarms an image.

    `hit` says of each detection, by falling score, whether it is right; `boxes` and `images` are
    how many there are.
    """
    false_alarms = np.cumsum(~hit)
    return hit[false_alarms <= allowed * images].sum() / boxes


def _up_to_the_last_allowed(hit, boxes, images, allowed):
    false_rows = np.flatnonzero(~hit)
    last = int(allowed * images)
    stop = false_rows[last - 1] if 0 < last <= len(false_rows) else len(hit) * (last > 0)
    return hit[:stop].sum() / boxes


def practice_detections() -> tuple[np.ndarray, np.ndarray, int]:
    """60 invented detections, in no order: right or not, score; and the number of boxes.

    Not all of the boxes were found. No two scores are equal.
    """
    rng = np.random.default_rng(4)
    scores = rng.random(60)
    right = rng.random(60) < 0.9 * scores
    return right, scores, int(right.sum()) + 10


def precision_recall_figure(axis, right, scores, boxes):
    """Precision at each recall, and the best precision from there on."""
    found = np.cumsum(right[np.argsort(-scores)])
    recall, precision = found / boxes, found / np.arange(1, len(found) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    axis.plot(recall, precision, label="after each detection")
    axis.plot(recall, best, "--", label="the best from there on")
    axis.set(xlabel="recall (share of the boxes)", ylabel="precision (share of the detections)")
    axis.legend()


def _turn(axis):
    for line in axis.lines:
        line.set_data(*line.get_data()[::-1])


def _to_best_so_far(axis):
    axis.lines[1].set_ydata(np.maximum.accumulate(axis.lines[0].get_ydata()))


NO_CURVE = "No series has the precision (y) at the recall (x) after each of the 60 detections."
NOT_SORTED = "Go down from the highest score: sort the detections by falling score first."
OF_FOUND = "Recall is a share of all boxes, found or not: divide by the number of boxes."
SWAPPED = "The axes are swapped: recall belongs on the x axis, precision on the y axis."
NO_BEST = "The curve is there. Now add the best precision from each recall on, as a second series."
SO_FAR = "That is the best precision up to there. Asked is the best one from there on."


def _points(order, right, boxes) -> tuple[np.ndarray, np.ndarray]:
    found = np.cumsum(right[order])
    return found / boxes, found / np.arange(1, len(found) + 1)


def _is_drawn(axis: Axes, x: np.ndarray, y: np.ndarray) -> bool:
    """Whether a series goes through these points, forth or back, others before or after them."""
    wanted = np.column_stack([x, y])
    return any(_holds(s, wanted) or _holds(s[::-1], wanted) for s in drawn_series(axis))


def _holds(series: np.ndarray, wanted: np.ndarray) -> bool:
    starts = range(len(series) - len(wanted) + 1)
    return any(np.allclose(series[i : i + len(wanted)], wanted, atol=1e-3) for i in starts)


def _problem(axis: Axes) -> str | None:
    right, scores, boxes = practice_detections()
    order = np.argsort(-scores)
    recall, precision = _points(order, right, boxes)
    if not _is_drawn(axis, recall, precision):
        return _why_no_curve(axis, order, right, boxes)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, dm.RECALL_POINTS)
    at_points = np.append(best, 0.0)[at]
    if _is_drawn(axis, recall, best) or _is_drawn(axis, dm.RECALL_POINTS, at_points):
        return None
    return SO_FAR if _is_drawn(axis, recall, np.maximum.accumulate(precision)) else NO_BEST


def _why_no_curve(axis: Axes, order: np.ndarray, right: np.ndarray, boxes: int) -> str:
    recall, precision = _points(order, right, boxes)
    if _is_drawn(axis, precision, recall):
        return SWAPPED
    if _is_drawn(axis, *_points(order, right, right.sum())):
        return OF_FOUND
    other_orders = (np.arange(len(right)), order[::-1])
    unsorted = any(_is_drawn(axis, *_points(one, right, boxes)) for one in other_orders)
    return NOT_SORTED if unsorted else NO_CURVE


def _bools(text: str) -> np.ndarray:
    return np.array([letter == "1" for letter in text])


EXERCISES = (
    Exercise(
        number="4.5",
        title="the same draws for both",
        minutes=15,
        reference=paired_differences,
        mistakes=(
            (
                lambda a, b, n, draws: paired_differences(b, a, n, draws),
                "Turned around: asked is how much more B finds than A.",
            ),
            (
                lambda a, b, n, draws: ((b - a) / n)[draws].mean(axis=1),
                "That is a mean over images: one with a single box counts as much as one with six. "
                "Add up the hits and the boxes of a draw, then divide.",
            ),
            (
                lambda a, b, n, draws: (b - a)[draws].sum(axis=1) / n.sum(),
                "You divide by all boxes. A draw has boxes of its own: boxes[draws].sum(axis=1).",
            ),
            (
                lambda a, b, n, draws: np.full(len(draws), (b - a).sum() / n.sum()),
                "Each draw gives the same: use its images, hits_a[draws] and hits_b[draws].",
            ),
            (
                lambda a, b, n, draws: paired_differences(a, b, n, draws).mean(),
                "One number for each draw is asked for: their spread is the interval.",
            ),
        ),
        hints=(
            "hits_a[draws] has a row for each draw and a column for each drawn image.",
            "Its sum along axis 1, divided by that of boxes[draws], is what A finds in each draw.",
            "The same for B, with the same draws; then subtract.",
        ),
        why="An image that is hard for both drops out of the difference. With draws of their own "
        "for each detector it would not.",
        judge=judge_function(
            [
                arrays(
                    *([1, 0, 2, 3], [1, 1, 2, 5], [1, 2, 3, 6]),
                    [[0, 1, 2, 3], [0, 0, 1, 2], [3, 3, 3, 1], [1, 1, 0, 2]],
                ),
                arrays([2, 2, 0], [0, 1, 1], [2, 4, 1], [[2, 2, 1], [0, 1, 0]]),
            ]
        ),
    ),
    Exercise(
        number="4.6",
        title="what is found at so many false alarms",
        minutes=10,
        reference=share_found,
        mistakes=(
            (
                lambda hit, boxes, images, allowed: share_found(hit, boxes, 1, allowed),
                "So many false alarms are allowed in each image: multiply by the images.",
            ),
            (
                lambda hit, boxes, images, allowed: share_found(hit, hit.sum(), images, allowed),
                "Divided by all hits, the best threshold would always find 100%. Divide by boxes.",
            ),
            (
                _up_to_the_last_allowed,
                "You stop at the last allowed false alarm. Hits that come after it, and before "
                "the next one, cost nothing.",
            ),
            (
                lambda hit, boxes, images, allowed: hit[: int(allowed * images)].sum() / boxes,
                "You allow so many detections. Only the false ones count.",
            ),
        ),
        hints=(
            "np.cumsum(~hit) counts the false alarms on the way down the list.",
            "Go on as long as that count is at most allowed * images.",
            "hit[count <= allowed * images].sum() / boxes",
        ),
        why="Normal images bring false alarms of their own and no boxes. A set without them never "
        "counts those.",
        judge=judge_function(
            [
                (_bools("110101001"), 6, 4, 0.5),
                (_bools("01101"), 4, 2, 0.25),
                (_bools("101011"), 5, 10, 0.2),
                (_bools("1010101"), 6, 2, 1.0),
                (_bools("0110101"), 5, 3, 0.5),
                (_bools("110011"), 5, 4, 0.0),
            ]
        ),
    ),
    Exercise(
        number="4.7",
        title="your figure: precision and recall",
        minutes=30,
        reference=precision_recall_figure,
        mistakes=(
            (lambda axis, r, s, n: precision_recall_figure(axis, r, -np.arange(60), n), NOT_SORTED),
            (lambda axis, r, s, n: precision_recall_figure(axis, r, s, r.sum()), OF_FOUND),
            (drawn_then(precision_recall_figure, _turn), SWAPPED),
            (drawn_then(precision_recall_figure, lambda axis: axis.lines[1].remove()), NO_BEST),
            (drawn_then(precision_recall_figure, _to_best_so_far), SO_FAR),
            (lambda axis, *_: axis.plot([0, 1], [1, 0]), NO_CURVE),
            (drawn_then(precision_recall_figure, no_names), "name both axes"),
        ),
        hints=(
            "found = np.cumsum(right[np.argsort(-scores)])",
            "Recall is found / boxes, precision is found / np.arange(1, 61).",
            "Best from there on: np.maximum.accumulate(precision[::-1])[::-1]",
        ),
        why="The mean height of the upper series over 101 recall points is the average "
        "precision. It is 0 where recall never comes.",
        judge=judge_figure(_problem, practice_detections),
    ),
)
