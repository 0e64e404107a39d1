"""Exercises of notebook 06: shares of a batch, statistics of all, rates and hours, scaling.

How to add one: the head of engine.py says it.
"""

import numpy as np
from matplotlib.axes import Axes

from cxr_helpers.course.exercises.engine import (
    Exercise,
    arrays,
    is_empty,
    judge_function,
    judge_property,
    numbers,
    outputs,
    shown,
)
from cxr_helpers.course.exercises.figures import (
    drawn_series,
    drawn_then,
    is_drawn,
    judge_figure,
    no_names,
)


def hours(images, epochs, batch_size, seconds_a_step):
    """Hours of training; images that do not fill a batch are left for the next epoch's shuffle."""
    return epochs * (images // batch_size) * seconds_a_step / 3600


def share(rows, rank, world):
    """Rows that process number `rank` of `world` works on: every row once, shares nearly equal."""
    return rows[rank::world]


TWICE = (
    "Some rows come twice. A training sampler may do that, to make the shares equal. In a score "
    "those images would count twice."
)
EVERYTHING = "Every process gets everything: each image would count `world` times."
LEFT_OUT = (
    "Some rows belong to nobody. Look at those that are left over when the number of rows cannot "
    "be divided by the number of processes."
)
UNEVEN = (
    "Each row is there once, but the shares are not as equal as can be: the process with the "
    "largest share keeps the others waiting."
)
DIVISIONS = ((3 * np.arange(10, 20), 3), (np.array([1, 8, 9]), 5), (7 * np.arange(11, 19), 4))


def _problem_of_division(rows, shares) -> str | None:
    """What is wrong with a division of `rows`, whatever its order."""
    arrays = [numbers([] if is_empty(share) else share) for share in shares]
    flat = all(a is not None and a.ndim == 1 for a in arrays)
    if not flat or any(np.asarray(share).dtype == bool for share in shares):
        return "Return an array or a list of rows for each process."
    if all(sorted(share) == rows.tolist() for share in arrays):
        return EVERYTHING
    dealt = np.concatenate(arrays).tolist()
    if set(dealt) - set(rows.tolist()):
        return f"For the rows {shown([rows])} it gives numbers that are none of these rows."
    if len(dealt) > len(set(dealt)):
        return TWICE
    if len(dealt) < len(rows):
        return LEFT_OUT
    sizes = [len(share) for share in arrays]
    return UNEVEN if max(sizes) - min(sizes) > 1 else None


def _problem_of_shares(answer) -> str | None:
    """What is wrong with a way to deal out rows; any fair one is right."""
    given = ((rows, outputs(answer, [(rows, k, n) for k in range(n)])) for rows, n in DIVISIONS)
    return next(filter(None, (_problem_of_division(*one) for one in given)), None)


def _padded(rows, rank, world):
    short = -len(rows) % world
    return np.concatenate([rows, rows[:short]])[rank::world]


def whole_batch(counts, sums, squares):
    """Mean and variance of all values, from each process's count, sum and sum of squares."""
    n = np.sum(counts)
    mean = np.sum(sums) / n
    return np.array([mean, np.sum(squares) / n - mean**2])


def _mean_of_means(counts, sums, squares):
    means = sums / counts
    return np.array([means.mean(), (squares / counts - means**2).mean()])


def _one_less(counts, sums, squares):
    mean, variance = whole_batch(counts, sums, squares)
    return np.array([mean, variance * counts.sum() / (counts.sum() - 1)])


def _weighted_variances(counts, sums, squares):
    within = squares / counts - (sums / counts) ** 2
    return np.array([sums.sum() / counts.sum(), (counts * within).sum() / counts.sum()])


def practice_scaling():
    """Workers, and invented images a second with so many: a twentieth of the work is not shared."""
    workers = np.array([1, 2, 4, 8, 16])
    return workers, (100 / (0.05 + 0.95 / workers)).round()


def scaling_figure(axis, workers, rates):
    """How many times faster than one worker, and the line that nobody reaches."""
    axis.plot(workers, rates / rates[0], "o-", label="measured")
    axis.plot(workers, workers, "--", color="gray", label="ideal")
    axis.set(xlabel="workers", ylabel="times faster than one worker")


def _rates_as_they_are(axis, workers, rates):
    axis.plot(workers, rates, "o-")
    axis.set(xlabel="workers", ylabel="images a second")


def _efficiency(axis, workers, rates):
    axis.plot(workers, rates / rates[0] / workers, "o-")
    axis.plot(workers, np.ones(len(workers)), "--")
    axis.set(xlabel="workers", ylabel="efficiency")


def _by_place(axis, workers, rates):
    axis.plot(rates / rates[0])
    axis.plot(workers, workers)


RAW = "These are images a second. Divide by what one worker does: 'times faster' has no unit."
SHARES = "That is the efficiency, a good second figure. Here draw how many times faster it is."
NO_CURVE = "No line shows how many times faster than one worker each number of workers is."
NOT_AT = "The heights are right. Draw them at the numbers of workers: axis.plot(workers, ...)."
NO_IDEAL = "Add the ideal, n times faster with n workers: without it nobody sees how much is lost."


def _problem(axis: Axes) -> str | None:
    workers, rates = practice_scaling()
    faster = rates / rates[0]
    if not is_drawn(axis, faster):
        if is_drawn(axis, rates):
            return RAW
        return SHARES if is_drawn(axis, faster / workers) else NO_CURVE
    if not is_drawn(axis, faster, at=workers):
        return NOT_AT
    straight = [s for s in drawn_series(axis) if len(s) >= 2 and np.allclose(s[:, 0], s[:, 1])]
    return None if straight or is_drawn(axis, workers, at=workers) else NO_IDEAL


EXERCISES = (
    Exercise(
        number="6.1",
        title="each image once",
        minutes=10,
        reference=share,
        mistakes=(
            (_padded, TWICE),
            (lambda rows, k, n: rows[: len(rows) - len(rows) % n][k::n], LEFT_OUT),
            (lambda rows, rank, world: rows, EVERYTHING),
            (lambda rows, k, n: rows[k * (len(rows) // n) : (k + 1) * (len(rows) // n)], LEFT_OUT),
            (lambda rows, rank, world: rows if rank == 0 else rows[:0], UNEVEN),
        ),
        hints=(
            "Ten rows, three processes: shares of 4, 3 and 3.",
            "Deal the rows out like cards; or cut them with np.array_split.",
            "rows[rank::world]",
        ),
        why="Dealt like cards: nobody gets two of the same, and the shares differ by one at most. "
        "np.array_split(rows, world)[rank] is as good.",
        judge=judge_property(_problem_of_shares),
    ),
    Exercise(
        number="6.2",
        title="statistics of the whole batch",
        minutes=15,
        reference=whole_batch,
        mistakes=(
            (
                _mean_of_means,
                "A mean of means counts a share of two images as much as one of eight, and the "
                "mean of the variances forgets that the shares have different means.",
            ),
            (
                _weighted_variances,
                "The mean is right. The variance inside the shares is not all: their means differ.",
            ),
            (
                lambda n, s, q: whole_batch(n, s, q) ** [1, 0.5],
                "That is the standard deviation. Return the variance.",
            ),
            (
                _one_less,
                "That variance divides by one less than the number of values. Batch norm divides "
                "by the number itself.",
            ),
            (
                lambda n, s, q: np.array([s.sum() / n.sum(), q.sum() / n.sum()]),
                "The mean of the squares is not the variance yet: subtract the squared mean.",
            ),
        ),
        hints=(
            "Add up first, divide last: n = counts.sum().",
            "The mean is sums.sum() / n.",
            "The variance is the mean of the squares minus the square of the mean.",
        ),
        why="Three numbers a feature travel between the processes, and batch norm is that of the "
        "whole batch. In float32 the difference of two large numbers loses digits; so the course "
        "sends the mean first, and then the squared distances from it.",
        judge=judge_function(
            [
                arrays([4.0, 4], [10.0, 50], [30.0, 630]),
                arrays([2.0, 8, 5], [1.0, 24, -5], [3.0, 90, 25]),
            ]
        ),
    ),
    Exercise(
        number="6.3",
        title="the learning rate of another batch",
        minutes=2,
        reference=0.4,
        mistakes=(
            (0.2, "0.2 is the base, for 256 images. This batch has twice as many."),
            (0.1, "The rate grows with the batch: multiply by 512 / 256."),
            (0.0096, "That is the rate of biases and norms. Asked is that of the weights."),
            (0.6, "That is the rate for 768 images."),
        ),
        hints=(
            "The base rate belongs to 256 images.",
            "How many times as large is a batch of 512?",
            "0.2 * 512 / 256",
        ),
        why="Twice the images make a less noisy gradient, and the step may be twice as long.",
    ),
    Exercise(
        number="6.4",
        title="hours of a run",
        minutes=10,
        reference=hours,
        mistakes=(
            (
                lambda n, e, b, s: e * np.ceil(n / b) * s / 3600,
                "An image more than full batches does not make a step here: the last, smaller "
                "batch is left out, since its correlation would be over fewer images.",
            ),
            (
                lambda n, e, b, s: e * n * s / 3600,
                "That is a step for each image. A step takes a whole batch.",
            ),
            (lambda n, e, b, s: e * (n // b) * s / 60, "These are minutes."),
            (lambda n, e, b, s: e * (n // b) * s, "These are seconds."),
        ),
        hints=(
            "How many full batches does an epoch have? n // b",
            "Steps of the run: epochs times that.",
            "epochs * (images // batch_size) * seconds_a_step / 3600",
        ),
        why="800 epochs of 145 steps at 1.31 seconds are the published log's 42 hours.",
        judge=judge_function(
            [(112_120, 800, 768, 1.3066), (1000, 10, 300, 6.0), (86_524, 100, 512, 0.5)]
        ),
    ),
    Exercise(
        number="6.5",
        title="your figure: a scaling curve",
        minutes=30,
        reference=scaling_figure,
        mistakes=(
            (_rates_as_they_are, RAW),
            (_efficiency, SHARES),
            (lambda axis, workers, rates: axis.plot(workers, rates**0.5, "o"), NO_CURVE),
            (drawn_then(scaling_figure, lambda axis: axis.lines[1].remove()), NO_IDEAL),
            (_by_place, NOT_AT),
            (drawn_then(scaling_figure, no_names), "name both axes"),
        ),
        hints=(
            "Times faster: rates / rates[0].",
            "The ideal line goes through (1, 1), (2, 2), (4, 4).",
            'axis.plot(workers, workers, "--")',
        ),
        why="A twentieth of the work is not shared, and sixteen workers are nine times as fast, "
        "not sixteen. No number of workers would make it more than twenty.",
        judge=judge_figure(_problem, practice_scaling),
    ),
)
