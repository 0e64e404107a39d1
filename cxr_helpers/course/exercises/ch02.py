"""Exercises of notebook 02: the loss, a crop, the floor, neighbors, and sick runs.

How to add one: the head of engine.py says it.
"""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes

from cxr_helpers.course.exercises.engine import (
    Exercise,
    arrays,
    judge_function,
    judge_property,
    numbers,
    outputs,
)
from cxr_helpers.course.exercises.figures import (
    drawn_series,
    drawn_then,
    is_drawn,
    judge_figure,
    no_names,
)

BATCHES = (4, 8, 16, 32, 64, 128, 256, 512)


def barlow_twins_loss(z_a, z_b, weight):
    """Distance of the cross-correlation matrix of two outputs (B, D) to the identity."""
    a = (z_a - z_a.mean(0)) / z_a.std(0, unbiased=False)  # (B, D)
    b = (z_b - z_b.mean(0)) / z_b.std(0, unbiased=False)  # (B, D)
    c = a.T @ b / len(a)  # (D, D)
    diagonal = torch.diagonal(c)
    invariance = (1 - diagonal).pow(2).sum()
    redundancy = (c - torch.diag(diagonal)).pow(2).sum()
    return invariance + weight * redundancy


def _loss(z_a, z_b, weight, *, unbiased=False, divisor=None, diagonal_too=False):
    a, b = ((z - z.mean(0)) / z.std(0, unbiased=unbiased) for z in (z_a, z_b))
    c = a.T @ b / (divisor or len(a))
    squares = c.pow(2).sum() - (0 if diagonal_too else c.diagonal().pow(2).sum())
    return (1 - c.diagonal()).pow(2).sum() + weight * squares


def _loss_of_covariance(z_a, z_b, weight):
    c = (z_a - z_a.mean(0)).T @ (z_b - z_b.mean(0)) / len(z_a)
    return (1 - c.diagonal()).pow(2).sum() + weight * (c - c.diagonal().diag()).pow(2).sum()


def _batches() -> list[tuple]:
    """Outputs that are alike in both views and partly copies, so that each term counts."""
    generator = torch.Generator().manual_seed(0)
    cases = []
    for images, width, weight in [(8, 3, 0.5), (16, 5, 0.05), (5, 4, 2.0)]:
        z = torch.randn(images, width, generator=generator) * 3 + 1
        noise, other = torch.randn(2, images, width, generator=generator)
        cases.append((z + noise, z.roll(1, dims=1) + z + other, weight))
    return cases


def _to_a_thousandth(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Libraries add a small constant to the variance, so losses agree only so far."""
    return np.isclose(a, b, rtol=1e-3)


def crop_around(box, side, share, rng):
    """A random crop that holds all of the box and at least `share` of the image's area."""
    while True:
        left, top = rng.uniform(0, box[:2])
        right, bottom = rng.uniform(box[2:], side)
        if (right - left) * (bottom - top) >= share * side**2:
            return left, top, right, bottom


NO_CROP = "Return four numbers, x_min, y_min, x_max, y_max, in this order."
LEAVES = "A crop leaves the image, which goes from 0 to `side`."
CUTS = "A crop cuts the finding: it may begin at x_min of the box at the latest. So on each side."
SMALL = "A crop shows less of the image than the share that is asked for. Draw again until it fits."
ONE_CROP = "Every call gives the same crop, so the two views would be alike. Draw it from rng."
NOT_FROM_RNG = "The same generator gave two crops: draw from rng, and from nothing else."
FINDINGS = (
    (np.array([30.0, 40, 45, 52]), 100, 0.3),
    (np.array([2.0, 1, 60, 30]), 64, 0.6),
    (np.array([700.0, 900, 1000, 1010]), 1024, 0.1),
)


def _problem_of_crops(answer: Callable) -> str | None:
    """What is wrong with a function that draws crops; by properties: many ways are right."""
    for case in FINDINGS:
        crops = _crops(answer, case)
        if any(one is None or one.shape != (4,) or not np.isfinite(one).all() for one in crops):
            return NO_CROP
        if found := _problem_of_places(np.stack(crops), *case):
            return found
        if not np.array_equal(crops, _crops(answer, case)):
            return NOT_FROM_RNG
    return None


def _crops(answer: Callable, case: tuple, draws: int = 40) -> list:
    rng = np.random.default_rng(0)
    given = outputs(lambda *known: answer(*known, rng), [case] * draws)
    return [numbers(crop) for crop in given]


def _problem_of_places(crops: np.ndarray, box: np.ndarray, side: int, share: float) -> str | None:
    """Of crops (draws, 4), the corners of each."""
    low, high = crops[:, :2], crops[:, 2:]
    if (low >= high).any():
        return NO_CROP
    if (low < 0).any() or (high > side).any():
        return LEAVES
    if (low > box[:2]).any() or (high < box[2:]).any():
        return CUTS
    if ((high - low).prod(axis=1) < share * side**2 * (1 - 1e-6)).any():
        return SMALL
    return ONE_CROP if (crops == crops[0]).all() else None


def _crop_anywhere(box, side, share, rng):
    width = side * share**0.5
    left, top = rng.uniform(0, side - width, size=2)
    return left, top, left + width, top + width


def _crop_about_the_middle(box, side, share, rng):
    reach = side * (share**0.5 / 2 + 0.1 * rng.random())
    x, y = (box[:2] + box[2:]) / 2
    return x - reach, y - reach, x + reach, y + reach


def _crop_of_any_size(box, side, share, rng):
    return *rng.uniform(0, box[:2]), *rng.uniform(box[2:], side)


def batch_for_floor(floor):
    """Smallest number of images whose floor sqrt(2 / (pi N)) is not above `floor`."""
    return math.ceil(2 / (math.pi * floor**2))


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
        title="the loss",
        minutes=20,
        reference=barlow_twins_loss,
        mistakes=(
            (
                lambda a, b, w: _loss(a, b, w, diagonal_too=True),
                "The redundancy term leaves the diagonal out: those entries should be 1, not 0.",
            ),
            (
                lambda a, b, w: _loss(a, b, w, divisor=1),
                "Divide the product by the number of images, or no entry stays below 1.",
            ),
            (
                lambda a, b, w: _loss(a, b, w, unbiased=True),
                "std divides by B - 1 unless it is told not to; then even equal outputs correlate "
                "by less than 1. Take std(0, unbiased=False).",
            ),
            (
                _loss_of_covariance,
                "This is a covariance. Divide each feature by its standard deviation over the "
                "images.",
            ),
            (
                lambda a, b, w: _loss(a, b, 1.0),
                "The redundancy term counts in full here. Multiply it by the weight.",
            ),
        ),
        hints=(
            "Standardize each feature over the images: take off z.mean(0), divide by z.std(0).",
            "Then a.T @ b / len(a) is the matrix c, and torch.diagonal(c) its diagonal.",
            "(c - torch.diag(torch.diagonal(c))) is c with zeros on the diagonal.",
        ),
        why="Seven lines: two standardized outputs, one matrix, its distance to the identity.",
        judge=judge_function(_batches(), close=_to_a_thousandth),
    ),
    Exercise(
        number="2.2",
        title="a crop that keeps the finding",
        minutes=15,
        reference=crop_around,
        mistakes=(
            (_crop_anywhere, CUTS),
            (_crop_about_the_middle, LEAVES),
            (_crop_of_any_size, SMALL),
            (lambda box, side, share, rng: (0, 0, side, side), ONE_CROP),
            (lambda *known: crop_around(*known[:3], np.random.default_rng()), NOT_FROM_RNG),
        ),
        hints=(
            "The left edge may lie anywhere from 0 to x_min of the box, the right one from x_max "
            "of the box to `side`.",
            "rng.uniform(low, high) draws a number between the two.",
            "Draw all four edges in a loop, and return them once the area is large enough.",
        ),
        why="Such a crop loses no finding, but it asks for a box. Where nothing is marked, only "
        "the least share is left to choose.",
        judge=judge_property(_problem_of_crops),
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
