"""Exercises that check themselves, offline: `check`, `hint`, `solution`, `quiz`, progress.

Each notebook's lie in `ch01.py` to `ch06.py`, questions in `questions.py`; `engine.py` says how to
add one.

>>> check("1.1", None)
Exercise 1.1: Not attempted yet. For help: hint("1.1"), solution("1.1")
>>> hint("1.1", 9)
Exercise 1.1 has 3 hints: hint("1.1", 1) to hint("1.1", 3)
"""

import inspect
import io
import re
import textwrap

import pandas as pd
from IPython import get_ipython
from IPython.display import Image, display
from matplotlib.figure import Figure

from cxr_helpers.course.exercises import (
    ch01,
    ch02,
    ch03,
    ch04,
    ch04_scores,
    ch05,
    ch05_figure,
    ch06,
    engine,
)
from cxr_helpers.course.exercises.progress_file import (
    DONE,
    TRIED,
    progress_path,
    read_progress,
    record,
)
from cxr_helpers.course.exercises.questions import QUIZZES
from cxr_helpers.course.exercises.quizzes import answer_to, as_letter, show_quiz

CHAPTERS = (ch01, ch02, ch03, ch04, ch04_scores, ch05, ch05_figure, ch06)
EXERCISES = {e.number: e for chapter in CHAPTERS for e in chapter.EXERCISES}


def check(number: str, answer: object = None) -> None:
    """Print whether the answer is right, what is wrong with it, or that there is none yet.

    Takes the letter of an answer to a question too. Never raises. What was tried or done is
    written down in `runs/exercises.json`.
    """
    number = _spelled(number)
    if number in QUIZZES and as_letter(QUIZZES[number], answer):
        _say(answer_to(QUIZZES[number], answer, on_right=lambda: _record(number, DONE)))
        return
    exercise = _exercise(number)
    if exercise is None:
        return
    verdict = engine.judge(exercise, answer)
    more = "" if verdict.kind == engine.RIGHT else f' For help: hint("{number}")'
    more += f', solution("{number}")' if verdict.kind == engine.EMPTY else ""
    _say(f"Exercise {number}: {verdict.text}{more}")
    if verdict.figure is not None and get_ipython() is not None:
        _show(verdict.figure, f"Your figure for exercise {number}")
    if verdict.kind != engine.EMPTY:
        _record(number, DONE if verdict.kind == engine.RIGHT else TRIED)


def hint(number: str, step: int = 1) -> None:
    """Print one hint; each exercise has several, from a nudge to nearly the answer."""
    exercise = _exercise(_spelled(number))
    if exercise is None:
        return
    number, count = exercise.number, len(exercise.hints)
    if isinstance(step, bool) or not isinstance(step, int) or not 1 <= step <= count:
        print(
            f'Exercise {number} has {count} hints: hint("{number}", 1) to hint("{number}", {count})'
        )
        return
    _say(f"Hint {step} of {count}: {exercise.hints[step - 1]}")
    if step < count:
        print(f'The next: hint("{number}", {step + 1})')


def solution(number: str) -> None:
    """Print one right answer and why it is right."""
    exercise = _exercise(_spelled(number))
    if exercise is None:
        return
    known = exercise.reference
    print(inspect.getsource(known).rstrip() if callable(known) else repr(known))
    print()
    _say(exercise.why)


def quiz(number: str) -> None:
    """Show a question with its options, buttons to answer, and the explanations folded away."""
    number = _spelled(number)
    if number in QUIZZES:
        show_quiz(QUIZZES[number], on_right=lambda: _record(number, DONE))
    elif number in EXERCISES:
        print(f'{number} is an exercise: check("{number}", your_answer)')
    else:
        print(f"There is no question {number!r}; there are {', '.join(QUIZZES)}")


def progress() -> pd.DataFrame:
    """How many exercises and questions of each notebook are done.

    Returns:
        One row a notebook (index `notebook`), columns `done`, `of` and `still open`.

    Raises:
        ValueError: the file of the progress is not readable; the text names it.
    """
    known = read_progress(progress_path())
    rows = {}
    for number in sorted([*EXERCISES, *QUIZZES]):
        row = rows.setdefault(f"{int(number.split('.')[0]):02d}", {"done": 0, "of": 0, "open": []})
        row["of"] += 1
        row["done"] += known.get(number) == DONE
        row["open"] += [number] * (known.get(number) != DONE)
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("notebook")
    table["still open"] = table.pop("open").map(" ".join)  # pandas cuts after 50 characters
    return table


def _spelled(number: object) -> str:
    """The number of an exercise or a question, however it was written.

    >>> _spelled(1.1), _spelled(" exercise 3,1 "), _spelled("(4.a)"), _spelled("nine")
    ('1.1', '3.1', '4.A', 'nine')
    """
    text = number.strip() if isinstance(number, str) else engine.shown([number])
    found = re.fullmatch(r"[a-zA-Z\s(]*0*(\d+)[.,]\s*(\w+)[\s)]*", text)
    return f"{found[1]}.{found[2].upper()}" if found else text


def _exercise(number: str) -> engine.Exercise | None:
    """The exercise of this number; where there is none, say what there is."""
    if number in QUIZZES:
        print(f'{number} is a question: quiz("{number}") shows it, with buttons to answer')
    elif number not in EXERCISES:
        print(f"There is no exercise {number!r}; there are {', '.join(EXERCISES)}")
    return EXERCISES.get(number)


def _say(text: str) -> None:
    """Print as lines that fit a page."""
    print(textwrap.fill(text, width=95, break_long_words=False, break_on_hyphens=False))


def _show(figure: Figure, alt: str) -> None:
    """Show a figure as a picture, whether or not matplotlib has a notebook backend yet."""
    buffer = io.BytesIO()
    try:
        figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight")
    except Exception as error:  # a text of the learner's, such as half a formula
        _say(f"Your figure cannot be shown: {engine.named(error)}.")
        return
    display(Image(data=buffer.getvalue(), alt=alt))


def _record(number: str, state: str) -> None:
    """Write progress down; where that fails, say so and go on."""
    try:
        record(number, state, progress_path())
    except (OSError, ValueError) as error:
        print(f"Your progress was not saved: {error}")
