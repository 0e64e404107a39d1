"""Exercises of notebook 02: the loss, its floor, the views, neighbors, and sick runs.

How to add one: the head of engine.py says it.
"""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cxr_helpers.course.exercises.engine import (
    Exercise,
    arrays,
    judge_function,
)
from cxr_helpers.course.exercises.figures import (
    drawn_series,
    drawn_then,
    is_drawn,
    judge_figure,
    no_names,
)

BATCHES = (4, 8, 16, 32, 64, 128, 256, 512)


def batch_for_floor(floor):
    """Smallest number of images whose floor sqrt(2 / (pi N)) is not above `floor`."""
    return math.ceil(2 / (math.pi * floor**2))


def share_in_both(box, crop_a, crop_b):
    """Share of the finding's box that lies in both crops; all are (x_min, y_min, x_max, y_max)."""
    left, top = (max(b[i] for b in (box, crop_a, crop_b)) for i in (0, 1))
    right, bottom = (min(b[i] for b in (box, crop_a, crop_b)) for i in (2, 3))
    shared = max(0, right - left) * max(0, bottom - top)
    return shared / ((box[2] - box[0]) * (box[3] - box[1]))


def _share_in(box, crop):
    return share_in_both(box, crop, crop)


def _shared_of_crop(box, crop_a, crop_b):
    area = (crop_a[2] - crop_a[0]) * (crop_a[3] - crop_a[1])
    return share_in_both(box, crop_a, crop_b) * (box[2] - box[0]) * (box[3] - box[1]) / area


def knn_vote(features, labels, query, k):
    """Mean label of the k training images with the highest cosine similarity to the query."""
    lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(query)
    similarity = features @ query / lengths
    return labels[np.argsort(-similarity)[:k]].mean()


def _vote_by(score):
    def vote(features, labels, query, k):
        return labels[np.argsort(score(features, query))[:k]].mean()

    return vote


def mystery_runs() -> pd.DataFrame:
    """Four runs, seen only through their final outputs: the figures that a log would show.

    The outputs are made from random numbers, as each fault leaves them; nothing is trained.

    Returns:
        Index `run 1` to `run 4`; columns `diagonal` (mean) and `off-diagonal` (mean size), on
        augmented images, and `images in a batch`.
    """
    rng = np.random.default_rng(0)
    rows = {}
    for name, images, noise, copies in [
        ("run 1", 256, 0.3, True),
        ("run 2", 256, 4.0, False),
        ("run 3", 4, 0.3, False),
        ("run 4", 256, 0.3, False),
    ]:
        signal = rng.normal(size=(images, 1 if copies else 32)) + np.zeros((1, 32))
        both = [signal + noise * rng.normal(size=signal.shape) for _ in range(2)]
        c = np.corrcoef(*both, rowvar=False)[:32, 32:]
        off = np.abs(c[~np.eye(32, dtype=bool)]).mean()
        rows[name] = [np.diag(c).mean(), off, images]
    columns = ["diagonal", "off-diagonal", "images in a batch"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).round(2)
    return table.astype({"images in a batch": int})


def _runs(*diagnoses):
    return {f"run {i}": one for i, one in enumerate(diagnoses, start=1)}


def floor_figure(axis):
    """The floor of the off-diagonal mean, measured and by the formula, for each batch size."""
    rng = np.random.default_rng(0)
    measured = []
    for n in BATCHES:
        z_a, z_b = rng.normal(size=(2, n, 64))
        c = np.corrcoef(z_a, z_b, rowvar=False)[:64, 64:]
        measured.append(np.abs(c[~np.eye(64, dtype=bool)]).mean())
    axis.loglog(BATCHES, np.sqrt(2 / (np.pi * np.array(BATCHES))), label="formula")
    axis.loglog(BATCHES, measured, "o", label="independent outputs")
    axis.set(xlabel="images in a batch", ylabel="mean |off the diagonal|")
    axis.legend()


FLOOR = np.sqrt(2 / (np.pi * np.array(BATCHES)))
LOGARITHMS = (np.log2(BATCHES), np.log10(BATCHES))
NO_FORMULA = "One curve should be the formula, sqrt(2 / (pi N)), at the eight batch sizes."
NOT_AT = "The heights are those of the formula. Draw them at the batch sizes: 4, 8, 16 and so on."
NO_MEASURE = "The formula is there. Now measure: a second series, from random independent outputs."
NOT_CORRELATED = (
    "The measured points do not lie near the formula. Are both outputs standardized over the "
    "images, and only entries off the diagonal taken?"
)


def _only_formula(axis):
    axis.plot(BATCHES, FLOOR)


def _covariance_sum(axis):
    _only_formula(axis)
    axis.plot(BATCHES, FLOOR * np.array(BATCHES), "o")


def _problem(axis: Axes) -> str | None:
    at_batches = any(is_drawn(axis, FLOOR, at=at) for at in (BATCHES, *LOGARITHMS))
    if not at_batches and not any(map(_is_smooth_formula, drawn_series(axis))):
        return NOT_AT if is_drawn(axis, FLOOR) else NO_FORMULA
    others = [s[np.argsort(s[:, 0])] for s in drawn_series(axis) if len(s) == len(BATCHES)]
    others = [s for s in others if not np.allclose(s[:, 1], FLOOR, rtol=1e-3)]
    if not others:
        return NO_MEASURE
    near = [np.allclose(s[1:, 1], FLOOR[1:], rtol=0.15) for s in others]
    return None if any(near) else NOT_CORRELATED


def _is_smooth_formula(series: np.ndarray) -> bool:
    """Whether a series is the formula at many batch sizes, from the smallest to the largest."""
    n, height = series.T
    if len(n) <= len(BATCHES) or not 0 < n.min() <= BATCHES[0] < BATCHES[-1] <= n.max():
        return False
    return np.allclose(height, np.sqrt(2 / (np.pi * n)), rtol=2e-3)


EXERCISES = (
    Exercise(
        number="2.1",
        title="the opposite view",
        minutes=2,
        reference=512,
        mistakes=(
            (0, "That is the term for equal outputs. Here each correlation is -1."),
            (128, "That is the term for unrelated outputs, with correlations of 0."),
            (256, "Each entry is off by 2. The term squares that."),
        ),
        hints=(
            "Which correlation has a feature with its own negative?",
            "Each of the 128 entries costs (1 - c)^2 with c = -1.",
            "128 * 2^2",
        ),
        why="A correlation of -1 costs 4, four times as much as no correlation at all.",
    ),
    Exercise(
        number="2.2",
        title="share of a finding in both views",
        minutes=15,
        reference=share_in_both,
        mistakes=(
            (
                lambda b, p, q: _share_in(b, p) * _share_in(b, q),
                "The product of the shares assumes that chance decides. Intersect the boxes.",
            ),
            (
                lambda b, p, q: min(_share_in(b, p), _share_in(b, q)),
                "Each view may hold another half of the finding: the minimum does not see that.",
            ),
            (_shared_of_crop, "Divide by the area of the finding, not by that of the crop."),
        ),
        hints=(
            "What is in both crops and in the box is an intersection of three boxes.",
            "It begins at the largest of three x_min and ends at the smallest of three x_max.",
            "Cut width and height at 0, multiply, and divide by the area of the finding's box.",
        ),
        why="Two crops may each show half of a finding, and have none of it in common.",
        judge=judge_function(
            [
                arrays([0, 0, 10, 10], [0, 0, 5, 10], [5, 0, 10, 10]),
                arrays([0, 0, 10, 10], [-5, -5, 20, 20], [0, 0, 10, 5]),
                arrays([2, 2, 6, 8], [0, 0, 5, 20], [3, 0, 20, 7]),
                arrays([0, 0, 2, 2], [5, 5, 9, 9], [6, 6, 8, 8]),
                arrays([0, 0, 10, 10], [0, 0, 4, 10], [6, 0, 10, 10]),
                arrays([0, 0, 10, 8], [0, 1, 10, 3], [0, 6, 10, 8]),
            ]
        ),
    ),
    Exercise(
        number="2.3",
        title="the batch for a floor",
        minutes=5,
        reference=batch_for_floor,
        mistakes=(
            (
                lambda f: math.ceil(2 / (math.pi * f)),
                "The floor is a square root: square it before you solve for N.",
            ),
            (
                lambda f: math.floor(2 / (math.pi * f**2)),
                "One image too few: rounded down, the floor is still a little too high.",
            ),
            (
                lambda f: 2 / (math.pi * f**2),
                "Solved. A batch has a whole number of images: round up.",
            ),
        ),
        hints=(
            "Set floor = sqrt(2 / (pi N)) and square both sides.",
            "N = 2 / (pi floor^2)",
            "math.ceil rounds up.",
        ),
        why="Half the floor costs four times the batch.",
        judge=judge_function([(0.4,), (0.05,), (0.1,), (0.013,)]),
    ),
    Exercise(
        number="2.4",
        title="a vote of neighbors",
        minutes=15,
        reference=knn_vote,
        mistakes=(
            (
                _vote_by(lambda f, q: np.linalg.norm(f - q, axis=1)),
                "These are the neighbors by distance. The cosine leaves the length out.",
            ),
            (
                _vote_by(lambda f, q: -(f @ q)),
                "Without dividing by the lengths, long features win whatever their direction.",
            ),
            (
                _vote_by(lambda f, q: f @ q / np.linalg.norm(f, axis=1)),
                "These are the least similar images: argsort begins with the smallest.",
            ),
        ),
        hints=(
            "The cosine similarity is the dot product divided by both lengths.",
            "np.argsort(-similarity)[:k] are the rows of the k most similar.",
            "Return the mean of their labels.",
        ),
        why="k-NN trains nothing, so it shows what the features hold already.",
        judge=judge_function(
            [
                (
                    *arrays([[10.0, 8], [1, 0.1], [0.2, 1], [-1, 0], [0.3, 0.01]]),
                    *arrays([0.0, 1, 0, 0, 1], [1.0, 0]),
                    2,
                ),
                (
                    *arrays([[1.0, 1], [5, 4], [0, 8], [3, 0.2], [-2, 1]]),
                    *arrays([1.0, 1, 0, 0, 0], [2.0, 2]),
                    2,
                ),
                (
                    *arrays([[1.0, 1, 0], [0, 0, 2], [3, 2, 1], [1, -1, 5], [-4, -4, 0]]),
                    *arrays([1.0, 0, 0, 1, 1], [2.0, 2, 1]),
                    3,
                ),
            ]
        ),
    ),
    Exercise(
        number="2.5",
        title="four runs, four diagnoses",
        minutes=5,
        reference=_runs("copies", "unsteady", "small batch", "healthy"),
        mistakes=(
            (
                _runs("healthy", "unsteady", "small batch", "copies"),
                "Copies show off the diagonal: the correlation of different outputs is high.",
            ),
            (
                _runs("small batch", "unsteady", "copies", "healthy"),
                "A small batch and copies both lift the off-diagonal. Compare it with the floor.",
            ),
            (
                _runs("copies", "healthy", "small batch", "unsteady"),
                "Unsteady outputs change from view to view: their diagonal is low.",
            ),
        ),
        hints=(
            "Which run has a low diagonal?",
            "Two runs have a high off-diagonal. For which of them is that just the floor?",
            "At a batch of 4 the floor is 0.4 by the formula, and 0.5 in truth: it is for large N.",
        ),
        why="Diagonal, off-diagonal and its floor tell the three faults apart; the loss would not.",
    ),
    Exercise(
        number="2.6",
        title="your figure: the floor",
        minutes=30,
        reference=floor_figure,
        mistakes=(
            (lambda axis: axis.plot(BATCHES, 1 / FLOOR), NO_FORMULA),
            (lambda axis: axis.plot(FLOOR), NOT_AT),
            (_only_formula, NO_MEASURE),
            (_covariance_sum, NOT_CORRELATED),
            (drawn_then(floor_figure, no_names), "name both axes"),
        ),
        hints=(
            "Draw the formula first, at the eight batch sizes.",
            "For each N: z_a, z_b = np.random.default_rng(0).normal(size=(2, N, 64))",
            "np.corrcoef(z_a, z_b, rowvar=False)[:64, 64:] is their cross-correlation matrix.",
        ),
        why="Independent outputs lie on the formula, and at the smallest batches a little above: "
        "it is made for large N. A log cannot show less at its batch size.",
        judge=judge_figure(_problem),
    ),
)
