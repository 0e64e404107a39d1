"""Exercises: what one is, and how an answer is judged. Nothing here needs a network.

A new exercise takes three steps, here for notebook 03:

1. In `ch03.py`, beside this file: the right answer (a value, or a function made to be read),
   and `Exercise(number="3.7", title=..., minutes=..., reference=..., mistakes=..., hints=...,
   why=...)` at the end of `EXERCISES`. A number or a dict needs no more. A function needs
   `judge=judge_function([...])` with the arguments to try it on; a drawing `judge_figure` of
   `figures.py`; what has many right answers `judge_property`.
2. In `notebooks/source/03_linear_evaluation.py`: the question, and a cell with an empty answer that
   ends in `check("3.7", answer)`.
3. In `tests/course/exercises/test_judges.py`: two right answers of another style under `RIGHT`, and
   under `WRONG` what looks right and is not.

To judge never raises: an empty answer is 'not attempted yet', a usual mistake gets its own message.
"""

import copy
import reprlib
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure

EMPTY, WRONG, RIGHT = "not attempted yet", "not yet", "right"


@dataclass(frozen=True)
class Verdict:
    """What came of an answer: `EMPTY`, `WRONG` or `RIGHT`, with a text, and the figure if any."""

    kind: str
    text: str
    figure: Figure | None = None


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One exercise.

    Attributes:
        number: for example "3.1"; the part before the point is the notebook.
        title: a few words.
        minutes: about how long it takes; a guess of the authors, not a measurement.
        reference: an answer that is right.
        mistakes: usual wrong answers, each with what is said to it.
        hints: from a nudge to nearly the answer.
        why: what the solution shows.
        judge: gives the verdict on an answer; None compares it with the reference (`judge_value`).
    """

    number: str
    title: str
    minutes: int
    reference: object
    mistakes: tuple[tuple[object, str], ...]
    hints: tuple[str, ...]
    why: str
    judge: Callable[["Exercise", object], Verdict] | None = None


class AnswerError(Exception):
    """What a function did wrong on a case; its text becomes the verdict."""


class UnansweredError(Exception):
    """A function does nothing yet; its text says what to do if that is a surprise."""


def judge(exercise: Exercise, answer: object) -> Verdict:
    """The verdict on an answer; an error that the answer causes becomes a verdict too."""
    try:
        if is_empty(answer):
            raise UnansweredError
        if callable(exercise.reference) and not callable(answer):
            return Verdict(WRONG, "Give check the function itself, without calling it.")
        return (exercise.judge or judge_value)(exercise, answer)
    except UnansweredError as error:
        return Verdict(EMPTY, f"Not attempted yet. {error}".strip())
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

    Functions, which an answer may be given, agree where they are equal.

    >>> same(0.5, np.float32(0.5)), same([1, 2], [1]), same({"a": "x"}, {"a": "y"})
    (True, False, False)
    """
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        alike = first.keys() == second.keys()
        return alike and all(same(first[k], second[k], close) for k in first)
    if isinstance(first, str) and isinstance(second, str):
        return _words(first) == _words(second)
    if callable(first) and callable(second):
        return first == second
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


def verdict(exercise: Exercise, problem: str | None, figure: Figure | None = None) -> Verdict:
    """Wrong for the reason that is given, right if there is none."""
    if problem:
        return Verdict(WRONG, problem, figure)
    return Verdict(RIGHT, f"Right. {exercise.why}", figure)


def judge_value(exercise: Exercise, answer: object, *, close: Callable = rounded) -> Verdict:
    """Judge a number, a text or a dict (or a Series); numbers may be rounded, or as told."""
    answer = answer.to_dict() if hasattr(answer, "to_dict") else answer
    if same(answer, exercise.reference, close):
        return verdict(exercise, None)
    said = [text for mistake, text in exercise.mistakes if same(answer, mistake, close)]
    return verdict(exercise, said[0] if said else _wrong_value(exercise.reference, answer, close))


def _wrong_value(reference: object, answer: object, close: Callable) -> str:
    if isinstance(reference, Mapping):
        return _wrong_entries(reference, answer, close)
    number = numbers(answer)
    if number is None or number.ndim or not np.isfinite(number):
        return f"A number is asked for; this is {shown([answer])}."
    if same(number / 100, reference, close):
        return "Right in percent; give it as a share from 0 to 1."
    return f"It is not {number:g}."


def _wrong_entries(reference: Mapping, answer: object, close: Callable) -> str:
    if not isinstance(answer, Mapping) or answer.keys() != reference.keys():
        return f"A dict with the keys {', '.join(map(repr, reference))} is asked for."
    wrong = [k for k, v in reference.items() if not same(answer[k], v, close)]
    missing = [repr(k) for k in wrong if is_empty(answer[k])]
    if missing:
        return f"Not filled in yet: {', '.join(missing)}."
    return f"Look again at {', '.join(map(repr, wrong))}."


def judge_function(
    cases: Sequence[tuple], *, close: Callable = exact
) -> Callable[[Exercise, object], Verdict]:
    """Judge a function by what it returns for each tuple of arguments; numbers agree by `close`."""

    def problem(exercise: Exercise, answer: object) -> str | None:
        given, wanted = outputs(answer, cases), outputs(exercise.reference, cases)
        agree = partial(same, close=close)
        wrong = [i for i, pair in enumerate(zip(given, wanted, strict=True)) if not agree(*pair)]
        if not wrong:
            return None
        for mistake, text in exercise.mistakes:
            if all(map(agree, given, outputs(mistake, cases))):
                return text
        i = wrong[0]
        return f"For {shown(cases[i])} it {_other(given[i], wanted[i])}"

    return lambda exercise, answer: verdict(exercise, problem(exercise, answer))


def judge_property(
    problem: Callable[[Callable], str | None],
) -> Callable[[Exercise, object], Verdict]:
    """Judge a function that may be right in many ways.

    Args:
        problem: says what is wrong with the function, None if nothing is.
    """
    return lambda exercise, answer: verdict(exercise, problem(answer))


def arrays(*arguments: Sequence) -> tuple[np.ndarray, ...]:
    """Arguments of one case, each as an array: for answers by index and by whole array."""
    return tuple(map(np.array, arguments))


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
        UnansweredError: it returns nothing for any case.
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
    if all(map(is_empty, found)):
        raise UnansweredError
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
