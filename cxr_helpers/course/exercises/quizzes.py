"""Questions with an explanation for each option.

A question is shown as text that any page can carry, as buttons where there is a kernel, and as
explanations folded away, which need neither.
"""

import html
from collections.abc import Callable
from dataclasses import dataclass

import ipywidgets as widgets
from IPython.display import HTML, display

LETTERS = "abcdef"


@dataclass(frozen=True)
class Quiz:
    """A question; each option is (text, whether it is right, explanation)."""

    number: str
    question: str
    options: tuple[tuple[str, bool, str], ...]


def as_text(quiz: Quiz) -> str:
    """The question and its lettered options, without the answers."""
    lines = [
        f"({letter}) {option[0]}" for letter, option in zip(LETTERS, quiz.options, strict=False)
    ]
    return "\n".join([f"Question {quiz.number}: {quiz.question}", *lines])


def answer(quiz: Quiz, letter: str) -> str:
    """Whether an option is right, and why."""
    _, right, why = quiz.options[LETTERS.index(letter)]
    return f"({letter}) {'Right' if right else 'No'}. {why}"


def as_html(quiz: Quiz) -> str:
    """The explanations of all options, folded away; the keyboard opens them."""
    letters = LETTERS[: len(quiz.options)]
    items = "".join(f"<li>{html.escape(answer(quiz, letter))}</li>" for letter in letters)
    return (
        f"<details><summary>Answers to {quiz.number}, and why</summary><ul>{items}</ul></details>"
    )


def buttons(quiz: Quiz, on_right: Callable[[], None]) -> widgets.Widget:
    """One button for each option; a choice shows its explanation."""
    letters = list(LETTERS[: len(quiz.options)])
    choice = widgets.ToggleButtons(
        options=letters, value=None, tooltips=[text for text, _, _ in quiz.options]
    )
    choice.style.button_width = "3em"
    said = widgets.HTML()

    def show(change: dict) -> None:
        if change["new"] is None:
            return
        said.value = html.escape(answer(quiz, change["new"]))
        if quiz.options[letters.index(change["new"])][1]:
            on_right()

    choice.observe(show, "value")
    return widgets.VBox([choice, said])


def show_quiz(quiz: Quiz, on_right: Callable[[], None]) -> None:
    """Show the text, the buttons, and the folded explanations, in this order."""
    print(as_text(quiz))
    display(buttons(quiz, on_right))
    display(HTML(as_html(quiz)))


_ALL = (
    Quiz(
        "1.A",
        "A model agrees perfectly with the NIH labels of Pneumothorax on new images. "
        "What do you know?",
        (
            (
                "It finds every pneumothorax.",
                False,
                "Fewer than half of those that radiologists saw were labeled.",
            ),
            (
                "It imitates the labels perfectly, and they are often wrong.",
                True,
                "A score against noisy labels says how well the noise is imitated too.",
            ),
            (
                "It must have been trained on the test images.",
                False,
                "That is one way to get there, but the score alone does not tell.",
            ),
        ),
    ),
    Quiz(
        "1.B",
        "A colleague adds the reader's name to the inputs of a VinDr model, and its AUROC for "
        "'abnormal' jumps. Why?",
        (
            (
                "Some readers see more, so the model learns from the best.",
                False,
                "The name says nothing about what is in this image.",
            ),
            (
                "More inputs always help.",
                False,
                "An input that is not there, or means something else, at another hospital harms.",
            ),
            (
                "Some readers were mostly given abnormal images, and the name gives that away.",
                True,
                "Three readers drew nearly all boxes. The name is a shortcut, not a finding.",
            ),
        ),
    ),
    Quiz(
        "2.A",
        "After ten epochs the loss is 0.97 D. What do you conclude?",
        (
            (
                "It is nearly 1, so training is nearly done.",
                False,
                "The loss starts near D: uncorrelated outputs cost about 1 for each feature.",
            ),
            (
                "Next to nothing was learned yet; look at learning rate, views and diagonal.",
                True,
                "0.97 D is what random outputs give. The diagonal will be near 0.",
            ),
            (
                "The network has collapsed.",
                False,
                "A collapse to copies shows in the off-diagonal, mostly at a low invariance term.",
            ),
        ),
    ),
    Quiz(
        "2.B",
        "The run without augmentation has a diagonal of 1 from its first step. "
        "Why is it not the best run?",
        (
            (
                "Both views are one image, so being alike asks for nothing.",
                True,
                "The task was solved before training; what remains is to remove copies.",
            ),
            (
                "A diagonal of 1 is always a collapse.",
                False,
                "The aim is a diagonal of 1, but for two views that really differ.",
            ),
            (
                "Its batch was too small.",
                False,
                "The batch is that of the healthy run; only the augmentation is missing.",
            ),
        ),
    ),
    Quiz(
        "3.A",
        "The 95% intervals of two arms overlap, scored on the same patients. What follows?",
        (
            (
                "Nothing yet: look at the interval of the paired difference.",
                True,
                "Hard patients are hard for both arms. The difference cancels that part.",
            ),
            (
                "There is no difference.",
                False,
                "Overlap of two intervals is no test, and 'not shown' is not 'not there'.",
            ),
            (
                "The arm with the higher score is better.",
                False,
                "It may be the luck of these patients; that is what the interval is for.",
            ),
        ),
    ),
    Quiz(
        "3.B",
        "Platt scaling makes the probabilities of a probe far better calibrated. "
        "What happens to its AUROC?",
        (
            (
                "It rises, since the probabilities are better.",
                False,
                "AUROC asks only for the order of the images.",
            ),
            (
                "It stays the same.",
                True,
                "A rising curve moves the scores and keeps their order (if its slope is positive).",
            ),
            (
                "It falls, since two numbers were fitted.",
                False,
                "They were fitted on validation patients, and they change no order.",
            ),
        ),
    ),
)
QUIZZES = {quiz.number: quiz for quiz in _ALL}
