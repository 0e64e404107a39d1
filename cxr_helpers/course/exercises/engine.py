"""Exercises: what one is, and how an answer is judged. Nothing here needs a network.

An answer is a value, a function that is tried on cases, or a function that draws on an axis. To
judge never raises: an empty answer is 'not attempted yet', a usual mistake gets its own message.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

EMPTY, WRONG, RIGHT = "not attempted yet", "not yet", "right"
ROUNDED = 2e-3  # how far a number may lie off that a learner rounded


@dataclass(frozen=True)
class Mistake:
    """A usual wrong answer and what is said to it."""

    answer: object
    message: str


@dataclass(frozen=True)
class Verdict:
    """What came of an answer: `EMPTY`, `WRONG` or `RIGHT`, with a text, and the figure if any."""

    kind: str
    text: str
    figure: Figure | None = None


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Attributes:
        number: for example "3.1"; the part before the point is the notebook.
        title: a few words.
        minutes: about how long it takes; a guess of the authors, not a measurement.
        reference: an answer that is right.
        mistakes: usual wrong answers.
        hints: from a nudge to nearly the answer.
        why: what the solution shows.
        judge: gives the verdict on an answer.
    """

    number: str
    title: str
    minutes: int
    reference: object
    mistakes: tuple[Mistake, ...]
    hints: tuple[str, ...]
    why: str
    judge: Callable[["Exercise", object], Verdict]


def judge(exercise: Exercise, answer: object) -> Verdict:
    """The verdict on an answer; an error that the answer causes becomes a verdict too."""
    try:
        if is_empty(answer):
            return Verdict(EMPTY, "Not attempted yet.")
        return exercise.judge(exercise, answer)
    except Exception as error:  # whatever a learner's code raises must not stop the notebook
        return Verdict(WRONG, f"It stopped with {type(error).__name__}: {error}.")


def is_empty(answer: object) -> bool:
    """Whether nothing was filled in: None, `...`, or a dict of nothing else."""
    if isinstance(answer, Mapping):
        return all(is_empty(value) for value in answer.values())
    return answer is None or answer is ...


def same(first: object, second: object, tolerance: float = 1e-6) -> bool:
    """Whether two answers agree: text exactly, numbers and arrays to the tolerance.

    >>> same(0.5, np.float32(0.5)), same([1, 2], [1]), same({"a": "x"}, {"a": "y"})
    (True, False, False)
    """
    if isinstance(first, Mapping) or isinstance(second, Mapping):
        both = isinstance(first, Mapping) and isinstance(second, Mapping)
        return (
            both
            and first.keys() == second.keys()
            and all(same(first[k], second[k], tolerance) for k in first)
        )
    if isinstance(first, str) or isinstance(second, str):
        return first == second
    try:
        a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    except (TypeError, ValueError, RuntimeError):
        return False
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=tolerance, atol=tolerance))


def right(exercise: Exercise, figure: Figure | None = None) -> Verdict:
    """The verdict on a right answer."""
    return Verdict(RIGHT, f"Right. {exercise.why}", figure)


def judge_value(exercise: Exercise, answer: object, *, tolerance: float = ROUNDED) -> Verdict:
    """Judge a number, a text or a dict; numbers may be rounded to three digits, or as told."""
    if same(answer, exercise.reference, tolerance):
        return right(exercise)
    for mistake in exercise.mistakes:
        if same(answer, mistake.answer, tolerance):
            return Verdict(WRONG, mistake.message)
    if isinstance(exercise.reference, Mapping):
        return Verdict(WRONG, _wrong_entries(exercise.reference, answer, tolerance))
    if not isinstance(answer, int | float | np.number) or not math.isfinite(answer):
        return Verdict(WRONG, f"A number is asked for; this is {answer!r}.")
    return Verdict(WRONG, f"It is not {answer:g}.")


def _wrong_entries(reference: Mapping, answer: object, tolerance: float) -> str:
    if not isinstance(answer, Mapping) or answer.keys() != reference.keys():
        return f"A dict with the keys {', '.join(map(repr, reference))} is asked for."
    wrong = [repr(k) for k, v in reference.items() if not same(answer[k], v, tolerance)]
    return f"Look again at {', '.join(wrong)}."


def judge_function(cases: Sequence[tuple]) -> Callable[[Exercise, object], Verdict]:
    """Judge a function by what it returns for each tuple of arguments."""

    def judge_cases(exercise: Exercise, answer: object) -> Verdict:
        if not callable(answer):
            return Verdict(WRONG, "Give check the function itself, without calling it.")
        given = outputs(answer, cases)
        if all(is_empty(value) for value in given):
            return Verdict(EMPTY, "Not attempted yet.")
        wanted = outputs(exercise.reference, cases)
        wrong = [i for i, pair in enumerate(zip(given, wanted, strict=True)) if not same(*pair)]
        if not wrong:
            return right(exercise)
        for mistake in exercise.mistakes:
            if all(map(same, given, outputs(mistake.answer, cases))):
                return Verdict(WRONG, mistake.message)
        i = wrong[0]
        if is_empty(given[i]):
            return Verdict(WRONG, f"For {shown(cases[i])} it returns nothing.")
        return Verdict(
            WRONG,
            f"For {shown(cases[i])} it gives {shown([given[i]])}, not {shown([wanted[i]])}.",
        )

    return judge_cases


def outputs(function: Callable, cases: Sequence[tuple]) -> list:
    """What the function returns for each case, each time with a copy of the arguments."""
    return [function(*copy.deepcopy(case)) for case in cases]


def shown(values: Sequence) -> str:
    """Arguments as short text, numbers rounded."""
    texts = []
    for value in values:
        if isinstance(value, float | np.floating):
            texts.append(f"{value:.4g}")
        elif hasattr(value, "tolist") or isinstance(value, list | tuple):
            texts.append(np.array2string(np.asarray(value), precision=3, threshold=12))
        else:
            texts.append(repr(value))
    return ", ".join(texts)


def judge_figure(
    problem: Callable[[Axes], str | None], arguments: Callable[[], tuple] = tuple
) -> Callable[[Exercise, object], Verdict]:
    """Judge a function that draws on an axis.

    Args:
        problem: says what is wrong with what was drawn, None if nothing is.
        arguments: makes what the function gets after the axis.
    """

    def judge_drawing(exercise: Exercise, answer: object) -> Verdict:
        if not callable(answer):
            return Verdict(WRONG, "Give check a function that draws on the axis it is given.")
        figure = Figure(figsize=(5, 3.2))
        axis = figure.subplots()
        answer(axis, *arguments())
        if not axis.has_data():
            return Verdict(EMPTY, "Not attempted yet.")
        found = problem(axis)
        if found is None and not (axis.get_xlabel() and axis.get_ylabel()):
            found = "The values are right. Now name both axes, with units where there are any."
        return Verdict(WRONG, found, figure) if found else right(exercise, figure)

    return judge_drawing


def drawn_series(axis: Axes) -> list[np.ndarray]:
    """The curves, points and bars of an axis, each as (n, 2) of x and y; bars standing or lying."""
    found = [np.column_stack(line.get_data()).astype(float) for line in axis.lines]
    found += [np.asarray(c.get_offsets(), float) for c in axis.collections]
    for bars in axis.containers:
        values = getattr(bars, "datavalues", None)
        if values is not None:
            values = np.asarray(values, float)
            found.append(np.column_stack([np.arange(len(values)), values]))
    return found


def is_drawn(axis: Axes, values: Sequence[float], tolerance: float = 1e-3) -> bool:
    """Whether some series of the axis has these values, along y or along x."""
    wanted = np.asarray(values, float)
    return any(
        len(series) == len(wanted) and np.allclose(series[:, side], wanted, rtol=tolerance)
        for series in drawn_series(axis)
        for side in (0, 1)
    )
