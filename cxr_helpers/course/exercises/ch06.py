"""Exercises of notebook 06: rates and hours, shares of a batch, statistics of all, scaling."""

from functools import partial

import numpy as np
from matplotlib.axes import Axes

from cxr_helpers.course.exercises.engine import (
    EMPTY,
    WRONG,
    Exercise,
    Mistake,
    Verdict,
    drawn_series,
    drawn_then,
    is_drawn,
    is_empty,
    judge_figure,
    judge_function,
    judge_value,
    no_names,
    numbers,
    outputs,
    right,
    shown,
)


def about(a, b):
    """Where `a` is `b` to three percent, for questions that say 'about'."""
    return np.abs(a - b) <= 0.03 * np.abs(b)


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


def _problem_of_shares(rows, shares) -> str | None:
    """What is wrong with a division of `rows`, whatever its order."""
    if all(sorted(share) == rows.tolist() for share in shares):
        return EVERYTHING
    dealt = [row for share in shares for row in share]
    if set(dealt) - set(rows.tolist()):
        return f"For the rows {shown([rows])} it gives numbers that are none of these rows."
    if len(dealt) > len(set(dealt)):
        return TWICE
    if len(dealt) < len(rows):
        return LEFT_OUT
    sizes = [len(share) for share in shares]
    return UNEVEN if max(sizes) - min(sizes) > 1 else None


def _judge_shares(exercise: Exercise, answer: object) -> Verdict:
    """Judge any fair division: each row once, sizes within one."""
    for rows, world in DIVISIONS:
        given = outputs(answer, [(rows, rank, world) for rank in range(world)])
        if all(is_empty(share) for share in given):
            return Verdict(EMPTY, "Not attempted yet.")
        arrays = [numbers([] if is_empty(share) else share) for share in given]
        flat = all(a is not None and a.ndim == 1 for a in arrays)
        if not flat or any(np.asarray(share).dtype == bool for share in given):
            return Verdict(WRONG, "Return an array or a list of rows for each process.")
        problem = _problem_of_shares(rows, [a.tolist() for a in arrays])
        if problem:
            return Verdict(WRONG, problem)
    return right(exercise)


def _padded(rows, rank, world):
    short = -len(rows) % world
    return np.concatenate([rows, rows[:short]])[rank::world]


def _without_the_rest(rows, rank, world):
    return rows[: len(rows) - len(rows) % world][rank::world]


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


def _deviation(counts, sums, squares):
    mean, variance = whole_batch(counts, sums, squares)
    return np.array([mean, np.sqrt(variance)])


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
        "6.1",
        "the learning rate of another batch",
        2,
        0.4,
        (
            Mistake(0.2, "0.2 is the base, for 256 images. This batch has twice as many."),
            Mistake(0.1, "The rate grows with the batch: multiply by 512 / 256."),
            Mistake(0.0096, "That is the rate of biases and norms. Asked is that of the weights."),
            Mistake(0.6, "That is the rate for 768 images."),
        ),
        (
            "The base rate belongs to 256 images.",
            "How many times as large is a batch of 512?",
            "0.2 * 512 / 256",
        ),
        "Twice the images make a less noisy gradient, and the step may be twice as long.",
        judge_value,
    ),
    Exercise(
        "6.2",
        "the first term of the loss, before learning",
        5,
        {"D = 2048": 2048, "D = 128": 128},
        (
            Mistake(
                {"D = 2048": 2048**2, "D = 128": 128**2},
                "That is the number of all entries. Those off the diagonal begin near zero, where "
                "they should be; only the D on the diagonal are far from their aim.",
            ),
            Mistake(
                {"D = 2048": 1, "D = 128": 1},
                "Each entry of the diagonal costs 1. The term is their sum, not their mean.",
            ),
            Mistake(
                {"D = 2048": 0, "D = 128": 0},
                "The aim of the diagonal is 1. At the start it is near 0, so each entry costs 1.",
            ),
            Mistake(
                {"D = 2048": 2076, "D = 128": 143},
                "That is the whole loss, redundancy included. Asked is the first term alone.",
            ),
        ),
        (
            "What is an entry of the diagonal, before anything is learned?",
            "It costs (1 - 0) squared. How many are there?",
            "D of them: the term begins near D.",
        ),
        "A first check of any log: an invariance term that begins far from D means that the "
        "outputs are tied already, or that another loss is computed.",
        partial(judge_value, close=about),
    ),
    Exercise(
        "6.3",
        "each image once",
        10,
        share,
        (
            Mistake(_padded, TWICE),
            Mistake(_without_the_rest, LEFT_OUT),
            Mistake(lambda rows, rank, world: rows, EVERYTHING),
            Mistake(
                lambda rows, rank, world: rows[
                    rank * (len(rows) // world) : (rank + 1) * (len(rows) // world)
                ],
                LEFT_OUT,
            ),
            Mistake(lambda rows, rank, world: rows if rank == 0 else rows[:0], UNEVEN),
        ),
        (
            "Ten rows, three processes: shares of 4, 3 and 3.",
            "Deal the rows out like cards; or cut them with np.array_split.",
            "rows[rank::world]",
        ),
        "Dealt like cards: nobody gets two of the same, and the shares differ by one at most. "
        "np.array_split(rows, world)[rank] is as good.",
        _judge_shares,
    ),
    Exercise(
        "6.4",
        "statistics of the whole batch",
        15,
        whole_batch,
        (
            Mistake(
                _mean_of_means,
                "A mean of means counts a share of two images as much as one of eight, and the "
                "mean of the variances forgets that the shares have different means.",
            ),
            Mistake(
                _weighted_variances,
                "The mean is right. The variance inside the shares is not all: their means differ.",
            ),
            Mistake(_deviation, "That is the standard deviation. Return the variance."),
            Mistake(
                _one_less,
                "That variance divides by one less than the number of values. Batch norm divides "
                "by the number itself.",
            ),
            Mistake(
                lambda n, s, q: np.array([s.sum() / n.sum(), q.sum() / n.sum()]),
                "The mean of the squares is not the variance yet: subtract the squared mean.",
            ),
        ),
        (
            "Add up first, divide last: n = counts.sum().",
            "The mean is sums.sum() / n.",
            "The variance is the mean of the squares minus the square of the mean.",
        ),
        "Three numbers a feature travel between the processes, and batch norm is that of the "
        "whole batch. In float32 the difference of two large numbers loses digits; so the course "
        "sends the mean first, and then the squared distances from it.",
        judge_function(
            [
                (np.array([4.0, 4]), np.array([10.0, 50]), np.array([30.0, 630])),
                (np.array([2.0, 8, 5]), np.array([1.0, 24, -5]), np.array([3.0, 90, 25])),
            ]
        ),
    ),
    Exercise(
        "6.5",
        "hours of a run",
        10,
        hours,
        (
            Mistake(
                lambda n, e, b, s: e * np.ceil(n / b) * s / 3600,
                "An image more than full batches does not make a step here: the last, smaller "
                "batch is left out, since its correlation would be over fewer images.",
            ),
            Mistake(
                lambda n, e, b, s: e * n * s / 3600,
                "That is a step for each image. A step takes a whole batch.",
            ),
            Mistake(lambda n, e, b, s: e * (n // b) * s / 60, "These are minutes."),
            Mistake(lambda n, e, b, s: e * (n // b) * s, "These are seconds."),
        ),
        (
            "How many full batches does an epoch have? n // b",
            "Steps of the run: epochs times that.",
            "epochs * (images // batch_size) * seconds_a_step / 3600",
        ),
        "800 epochs of 145 steps at 1.31 seconds are the published log's 42 hours.",
        judge_function(
            [(112_120, 800, 768, 1.3066), (1000, 10, 300, 6.0), (86_524, 100, 512, 0.5)]
        ),
    ),
    Exercise(
        "6.6",
        "will it fit?",
        10,
        {"images on each": 192, "GB on each": 19.4},
        (
            Mistake(
                {"images on each": 768, "GB on each": 62.6},
                "Each of the four takes a quarter of the batch.",
            ),
            Mistake(
                {"images on each": 192, "GB on each": 14.4},
                "The images' part is right. Each GPU holds the weights and matrices besides.",
            ),
            Mistake(
                {"images on each": 192, "GB on each": 14.4 + 1.25},
                "The 5 GB are not shared among the GPUs: each holds all weights.",
            ),
        ),
        (
            "768 images on four GPUs: how many on each?",
            "Each image takes 0.075 GB, and each GPU 5 GB besides.",
            "5 + 192 * 0.075",
        ),
        "More devices share the images, not the weights. A plan needs both parts, which is why the "
        "trial has two sizes.",
        judge_value,
    ),
    Exercise(
        "6.7",
        "your figure: a scaling curve",
        30,
        scaling_figure,
        (
            Mistake(_rates_as_they_are, RAW),
            Mistake(_efficiency, SHARES),
            Mistake(lambda axis, workers, rates: axis.plot(workers, rates**0.5, "o"), NO_CURVE),
            Mistake(drawn_then(scaling_figure, lambda axis: axis.lines[1].remove()), NO_IDEAL),
            Mistake(_by_place, NOT_AT),
            Mistake(drawn_then(scaling_figure, no_names), "name both axes"),
        ),
        (
            "Times faster: rates / rates[0].",
            "The ideal line goes through (1, 1), (2, 2), (4, 4).",
            'axis.plot(workers, workers, "--")',
        ),
        "A twentieth of the work is not shared, and sixteen workers are nine times as fast, not "
        "sixteen. No number of workers would make it more than twenty.",
        judge_figure(_problem, practice_scaling),
    ),
)
