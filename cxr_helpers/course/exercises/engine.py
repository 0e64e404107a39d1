"""Exercises: what one is, and how an answer is judged. Nothing here needs a network.

An answer is a value, a function that is tried on cases, or a function that draws on an axis. To
judge never raises: an empty answer is 'not attempted yet', a usual mistake gets its own message.
"""

import copy
import reprlib
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import AxLine, Line2D
from matplotlib.patches import StepPatch

EMPTY, WRONG, RIGHT = "not attempted yet", "not yet", "right"


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


class AnswerError(Exception):
    """What a function did wrong on a case; its text becomes the verdict."""


def judge(exercise: Exercise, answer: object) -> Verdict:
    """The verdict on an answer; an error that the answer causes becomes a verdict too."""
    try:
        if is_empty(answer):
            return Verdict(EMPTY, "Not attempted yet.")
        if callable(exercise.reference) and not callable(answer):
            return Verdict(WRONG, "Give check the function itself, without calling it.")
        return exercise.judge(exercise, answer)
    except AnswerError as error:
        return Verdict(WRONG, str(error))
    except (Exception, SystemExit) as error:  # nothing that a learner's code raises may get out
        return Verdict(WRONG, f"It stopped with {named(error)}.")


def named(error: BaseException) -> str:
    """Kind and text of an error, even of one that cannot say its own text."""
    text = traceback.format_exception_only(error)[-1].strip().rstrip(".")
    return textwrap.shorten(text, 300, placeholder=" ...")


def is_empty(answer: object) -> bool:
    """Whether nothing was filled in: None, `...`, or a dict of nothing else."""
    if isinstance(answer, Mapping):
        return all(is_empty(value) for value in answer.values())
    return answer is None or answer is ...


def exact(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two arrays agree as far as float32 tells."""
    return np.isclose(a, b, rtol=1e-5, atol=1e-5, equal_nan=True)


def rounded(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where `a` is `b` to the third decimal, or is `b` rounded to two."""
    off, two_decimals = np.abs(a - b), np.abs(a - a.round(2)) < 1e-7
    return (off <= 1e-3) | two_decimals & (off <= 0.005 + 1e-7)


def same(first: object, second: object, close: Callable = exact) -> bool:
    """Whether two answers agree: words whatever their capitals and spaces, numbers by `close`.

    >>> same(0.5, np.float32(0.5)), same([1, 2], [1]), same({"a": "x"}, {"a": "y"})
    (True, False, False)
    """
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        alike = first.keys() == second.keys()
        return alike and all(same(first[k], second[k], close) for k in first)
    if isinstance(first, str) and isinstance(second, str):
        return _words(first) == _words(second)
    a, b = numbers(first), numbers(second)
    return a is not None and b is not None and a.shape == b.shape and bool(close(a, b).all())


def _words(text: str) -> list[str]:
    return text.lower().replace("-", " ").replace("_", " ").split()


def numbers(value: object) -> np.ndarray | None:
    """The value as an array of floats, whatever holds them; None if it holds anything else.

    >>> numbers((1, True)).tolist(), numbers("1"), numbers([[1], [2, 3]])
    ([1.0, 1.0], None, None)
    """
    try:
        found = np.asarray(_plain(value))
        if found.dtype.kind not in "biufO" or any(isinstance(x, str) for x in found.flat):
            return None
        return found.astype(float)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def _plain(value: object) -> object:
    """Tensors as Python's numbers, also those with a gradient or on a GPU."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.tolist() if hasattr(value, "detach") else value


def right(exercise: Exercise, figure: Figure | None = None) -> Verdict:
    """The verdict on a right answer."""
    return Verdict(RIGHT, f"Right. {exercise.why}", figure)


def judge_value(exercise: Exercise, answer: object, *, close: Callable = rounded) -> Verdict:
    """Judge a number, a text or a dict (or a Series); numbers may be rounded, or as told."""
    answer = answer.to_dict() if hasattr(answer, "to_dict") else answer
    if same(answer, exercise.reference, close):
        return right(exercise)
    for mistake in exercise.mistakes:
        if same(answer, mistake.answer, close):
            return Verdict(WRONG, mistake.message)
    if isinstance(exercise.reference, Mapping):
        return Verdict(WRONG, _wrong_entries(exercise.reference, answer, close))
    number = numbers(answer)
    if number is None or number.ndim or not np.isfinite(number):
        return Verdict(WRONG, f"A number is asked for; this is {shown([answer])}.")
    if same(number / 100, exercise.reference, close):
        return Verdict(WRONG, "Right in percent; give it as a share from 0 to 1.")
    return Verdict(WRONG, f"It is not {number:g}.")


def _wrong_entries(reference: Mapping, answer: object, close: Callable) -> str:
    if not isinstance(answer, Mapping) or answer.keys() != reference.keys():
        return f"A dict with the keys {', '.join(map(repr, reference))} is asked for."
    wrong = [k for k, v in reference.items() if not same(answer[k], v, close)]
    missing = [repr(k) for k in wrong if is_empty(answer[k])]
    if missing:
        return f"Not filled in yet: {', '.join(missing)}."
    return f"Look again at {', '.join(map(repr, wrong))}."


def judge_function(cases: Sequence[tuple]) -> Callable[[Exercise, object], Verdict]:
    """Judge a function by what it returns for each tuple of arguments."""

    def judge_cases(exercise: Exercise, answer: object) -> Verdict:
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
        return Verdict(WRONG, f"For {shown(cases[i])} it {_other(given[i], wanted[i])}")

    return judge_cases


def _other(given: object, wanted: object) -> str:
    """How an output differs from what is wanted, with so many digits that it shows."""
    if is_empty(given):
        return "returns nothing."
    pairs = [(shown([given], digits), shown([wanted], digits)) for digits in (4, 8)]
    texts = pairs[0] if pairs[0][0] != pairs[0][1] else pairs[1]
    return f"gives {texts[0]}, not {texts[1]}." + (
        " Return it without rounding." if same(given, wanted, rounded) else ""
    )


def outputs(function: Callable, cases: Sequence[tuple]) -> list:
    """What the function returns for each case, each time with a copy of the arguments.

    Raises:
        AnswerError: the function raises an error, or it changes what it was given.
    """
    found = []
    for case in cases:
        given = copy.deepcopy(case)
        try:
            found.append(function(*given))
        except Exception as error:
            raise AnswerError(f"For {shown(case)} it stops with {named(error)}.") from error
        if not all(map(same, given, case)):
            raise AnswerError(f"For {shown(case)} it changes what it was given. Work on a copy.")
    return found


def shown(values: Sequence, digits: int = 4) -> str:
    """Arguments as short text, numbers rounded."""
    return ", ".join(_short(value, digits) for value in values)


def _short(value: object, digits: int) -> str:
    if numbers(value) is None:
        return reprlib.repr(value)
    plain = np.asarray(_plain(value))
    if plain.ndim:
        return np.array2string(plain, precision=digits - 1, threshold=12)
    return f"{plain:.{digits}g}" if plain.dtype.kind == "f" else str(plain)


def judge_figure(
    problem: Callable[[Axes], str | None], arguments: Callable[[], tuple] = tuple
) -> Callable[[Exercise, object], Verdict]:
    """Judge a function that draws on an axis.

    Args:
        problem: says what is wrong with what was drawn, None if nothing is.
        arguments: makes what the function gets after the axis.
    """

    def judge_drawing(exercise: Exercise, answer: object) -> Verdict:
        figure = Figure(figsize=(5, 3.2))
        axis = figure.subplots()
        answer(axis, *copy.deepcopy(arguments()))
        if not axis.has_data():
            return Verdict(EMPTY, f"Not attempted yet. {NOTHING}")
        found = problem(axis)
        if found is None and not (axis.get_xlabel().strip() and axis.get_ylabel().strip()):
            found = "The values are right. Now name both axes, with units where there are any."
        return Verdict(WRONG, found, figure) if found else right(exercise, figure)

    return judge_drawing


NOTHING = "Nothing is on the axis that the function was given: axis.plot draws there, not plt.plot."


def drawn_then(draw: Callable, change: Callable[[Axes], object]) -> Callable:
    """A drawing to which something is done afterwards: for usual mistakes."""

    def drawn(axis: Axes, *arguments: object) -> None:
        draw(axis, *arguments)
        change(axis)

    return drawn


def no_names(axis: Axes) -> None:
    """Take the names off both axes."""
    axis.set(xlabel="", ylabel="")


def drawn_series(axis: Axes) -> list[np.ndarray]:
    """The curves, points and bars of an axis, each as (n, 2) of x and y; bars standing or lying.

    What was drawn one point or bar at a time counts as a series too.
    """
    found = [_line(line) for line in axis.lines]
    found += [np.asarray(c.get_offsets(), float) for c in axis.collections if _is_points(c)]
    found += [_bars(bars) for bars in axis.containers if hasattr(bars, "datavalues")]
    found += [_stairs(patch) for patch in axis.patches if isinstance(patch, StepPatch)]
    single = [series for series in found if len(series) == 1]
    return found + ([np.concatenate(single)] if len(single) > 1 else [])


def _line(line: Line2D) -> np.ndarray:
    if not isinstance(line, AxLine):
        return np.asarray(line.get_xydata(), float)
    (x, y), slope = line.get_xy1(), line.get_slope()
    if slope is None:
        return np.array([line.get_xy1(), line.get_xy2()], float)
    return np.array([[0, y - slope * x], [1, y - slope * x + slope]], float)


def _stairs(patch: StepPatch) -> np.ndarray:
    values, edges, _ = patch.get_data()
    return np.column_stack([(edges[:-1] + edges[1:]) / 2, values]).astype(float)


def _is_points(collection: object) -> bool:
    return isinstance(collection, PathCollection)  # the area of fill_between has an offset too


def _bars(bars: object) -> np.ndarray:
    middle = [
        [patch.get_x() + patch.get_width() / 2, patch.get_y() + patch.get_height() / 2]
        for patch in bars.patches
    ]
    side = 0 if bars.orientation == "horizontal" else 1
    found = np.array(middle, float).reshape(-1, 2)
    found[:, side] = bars.datavalues
    return found


def is_drawn(
    axis: Axes, values: Sequence[float], tolerance: float = 2e-3, *, at: Sequence | None = None
) -> bool:
    """Whether some series has these values, along y or along x, in the order of the other side.

    Args:
        axis: what was drawn on.
        values: what to look for.
        tolerance: relative.
        at: where along the other side; ticks that are named so will do as well.
    """
    wanted = np.asarray(values, float)
    for series in drawn_series(axis):
        for side in (0, 1) if len(series) == len(wanted) else ():
            sorted_ = series[np.argsort(series[:, 1 - side], kind="stable")]
            if np.allclose(sorted_[:, side], wanted, rtol=tolerance) and (
                at is None or _is_at(axis, sorted_[:, 1 - side], at)
            ):
                return True
    return False


def _is_at(axis: Axes, places: np.ndarray, at: Sequence) -> bool:
    ticks = {tick.get_text() for tick in [*axis.get_xticklabels(), *axis.get_yticklabels()]}
    return np.allclose(places, at) or {str(one) for one in at} <= ticks
