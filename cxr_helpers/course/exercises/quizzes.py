"""Questions with an explanation for each option.

A question is shown as text that any page can carry, as buttons where there is a kernel, and as
explanations folded away, which need neither.
"""

import html
import reprlib
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import ipywidgets as widgets
from IPython.display import HTML, display

LETTERS = "abcdef"
WIDTH = 88  # columns of the text form


@dataclass(frozen=True, kw_only=True)
class Quiz:
    """A question; each option is (text, explanation), and `right` is the letter of one."""

    number: str
    question: str
    right: str
    options: tuple[tuple[str, str], ...]


def as_text(quiz: Quiz) -> str:
    """The question and its lettered options, without the answers."""
    lines = textwrap.wrap(f"Question {quiz.number}: {quiz.question}", WIDTH)
    for letter, (text, _) in zip(LETTERS, quiz.options, strict=False):
        lines += textwrap.wrap(f"({letter}) {text}", WIDTH, subsequent_indent="    ")
    return "\n".join(lines)


def as_letter(quiz: Quiz, answer: object) -> str | None:
    """The letter that was chosen, written as "b", "B)" or "(b)"; None if it is none of them."""
    letter = answer.strip(" ().").lower() if isinstance(answer, str) else None
    return letter if letter in list(LETTERS[: len(quiz.options)]) else None


def answer_to(quiz: Quiz, answer: str, on_right: Callable[[], None] = lambda: None) -> str:
    """Whether an option is right, and why.

    Raises:
        ValueError: the answer is no letter of this question.
    """
    letter = as_letter(quiz, answer)
    if letter is None:
        letters = ", ".join(LETTERS[: len(quiz.options)])
        raise ValueError(
            f"{reprlib.repr(answer)}: question {quiz.number} has the answers {letters}"
        )
    why = quiz.options[LETTERS.index(letter)][1]
    if letter == quiz.right:
        on_right()
    return f"({letter}) {'Right' if letter == quiz.right else 'No'}. {why}"


def as_html(quiz: Quiz) -> str:
    """The explanations of all options, folded away; the keyboard opens them."""
    letters = LETTERS[: len(quiz.options)]
    items = "".join(f"<li>{html.escape(answer_to(quiz, letter))}</li>" for letter in letters)
    return (
        f"<details><summary>Answers to {quiz.number}, and why</summary><ul>{items}</ul></details>"
    )


def buttons(quiz: Quiz, on_right: Callable[[], None]) -> widgets.Widget:
    """One button for each option; a choice shows its explanation."""
    letters = list(LETTERS[: len(quiz.options)])
    choice = widgets.ToggleButtons(
        options=letters, value=None, tooltips=[text for text, _ in quiz.options]
    )
    choice.style.button_width = "3em"
    said = widgets.HTML()

    def show(change: dict) -> None:
        if change["new"] is not None:
            said.value = html.escape(answer_to(quiz, change["new"], on_right))

    choice.observe(show, "value")
    return widgets.VBox([choice, said])


def show_quiz(quiz: Quiz, on_right: Callable[[], None]) -> None:
    """Show the text, the buttons, and the folded explanations, in this order."""
    print(as_text(quiz))
    display(buttons(quiz, on_right))
    display(HTML(as_html(quiz)))
