"""Every stub fails, every solution passes, every usual mistake gets its message."""

import ast
import re

import numpy as np
import pytest
from matplotlib.figure import Figure

from cxr_helpers.course import exercises as ex
from cxr_helpers.course.exercises import ch03 as nb03
from cxr_helpers.course.exercises import engine, figures, progress_file, quizzes
from tools.notebooks import NOTEBOOKS

NUMBERS = list(ex.EXERCISES)
MISTAKES = [(n, i) for n in NUMBERS for i in range(len(ex.EXERCISES[n].mistakes))]
SOURCES = sorted((NOTEBOOKS / "source").glob("0[1-6]_*.py"))


def stub(*arguments):
    """What a learner finds: a function that does nothing."""


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    path = tmp_path / "runs" / "exercises.json"
    monkeypatch.setattr(ex, "progress_path", lambda: path)
    return path


@pytest.mark.parametrize("number", NUMBERS)
def test_stub_does_not_pass_and_leaves_no_trace(number, own_progress, capsys):
    empty = [None, ...]
    if callable(ex.EXERCISES[number].reference):
        empty.append(stub)
    for answer in empty:
        assert engine.judge(ex.EXERCISES[number], answer).kind == engine.EMPTY
        ex.check(number, answer)
        assert capsys.readouterr().out.startswith(f"Exercise {number}: Not attempted yet.")
    assert not own_progress.exists()


@pytest.mark.parametrize("number", NUMBERS)
def test_solution_passes_and_is_remembered(number, capsys):
    ex.check(number, ex.EXERCISES[number].reference)
    assert capsys.readouterr().out.startswith(f"Exercise {number}: Right.")
    assert number not in " ".join(ex.progress()["still open"]).split()


@pytest.mark.parametrize(("number", "i"), MISTAKES)
def test_usual_mistake_gets_its_message(number, i, capsys):
    answer, message = ex.EXERCISES[number].mistakes[i]
    verdict = engine.judge(ex.EXERCISES[number], answer)
    assert verdict.kind == engine.WRONG and message in verdict.text
    ex.check(number, answer)
    assert f'hint("{number}")' in capsys.readouterr().out


@pytest.mark.parametrize("number", NUMBERS)
def test_hints_and_solution(number, capsys):
    count = len(ex.EXERCISES[number].hints)
    assert count >= 2
    for step in range(1, count + 1):
        ex.hint(number, step)
        assert capsys.readouterr().out.startswith(f"Hint {step} of {count}: ")
    ex.solution(number)
    assert ex.EXERCISES[number].why in " ".join(capsys.readouterr().out.split())


def test_unknown_numbers_are_answered(capsys):
    for ask in (ex.hint, ex.solution, ex.quiz, lambda n: ex.check(n, 1)):
        ask("9.9")
        assert "There is no" in capsys.readouterr().out


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_notebook_asks_for_each(source):
    text = source.read_text(encoding="utf-8")
    asked = re.findall(r'^check\("([\d.]+)"', text, re.MULTILINE)
    asked += re.findall(r'^quiz\("([\w.]+)"', text, re.MULTILINE)
    known = [n for n in [*ex.EXERCISES, *ex.QUIZZES] if n.startswith(source.stem[1] + ".")]
    assert sorted(asked) == sorted(known)
    numbers = [n for n in ex.EXERCISES if n in known]
    assert numbers == [f"{source.stem[1]}.{i + 1}" for i in range(len(numbers))]


def bound_names(source):
    """For each code cell: whether it checks an answer, the names that it binds, those it reads."""
    for cell in re.split(r"^# %%", source.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        if cell.lstrip().startswith("[markdown]"):
            continue
        tree = ast.parse(cell.partition("\n")[2])
        names = [n for n in ast.walk(tree) if isinstance(n, ast.Name)]
        bound = {n.id for n in names if isinstance(n.ctx, ast.Store)}
        bound |= {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
        read = {n.id for n in names if isinstance(n.ctx, ast.Load)}
        yield "\ncheck(" in cell, bound, read


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_no_cell_depends_on_an_answer(source):
    cells = list(bound_names(source))
    answers = set().union(*(bound for checks, bound, _ in cells if checks))
    elsewhere = [bound | read for checks, bound, read in cells if not checks]
    assert answers and not answers & set().union(*elsewhere)


def test_progress_counts_what_is_done(own_progress):
    assert ex.progress()["done"].tolist() == [0] * 6
    ex.check("1.1", 7)
    ex.check("1.2", nb03.auroc)
    ex.check("1.1", 0.5)
    ex.check("1.1", 7)
    table = ex.progress()
    assert table["still open"].str.len().max() <= 50 and "..." not in table.to_string()
    assert table.loc["01", "done"] == 1 and "1.1" not in table.loc["01", "still open"]
    assert progress_file.read_progress(own_progress) == {"1.1": "done", "1.2": "tried"}
    assert [path.name for path in own_progress.parent.iterdir()] == ["exercises.json"]


@pytest.mark.parametrize("content", ["{", "[]", '{"1.1": 3}', '{"1.1": ["done"]}', "\x00"])
def test_a_broken_progress_file_is_named_and_stops_no_check(own_progress, content, capsys):
    own_progress.parent.mkdir()
    own_progress.write_text(content)
    with pytest.raises(ValueError, match=r"exercises\.json .* move it elsewhere"):
        ex.progress()
    ex.check("1.1", 0.5)
    said = capsys.readouterr().out
    assert said.startswith("Exercise 1.1: Right.") and "Your progress was not saved" in said
    assert own_progress.read_text() == content


def test_runs_that_cannot_be_written_stop_no_check(own_progress, capsys):
    own_progress.parent.write_text("a file where the folder should be")
    ex.check("1.1", 0.5)
    assert "Your progress was not saved" in capsys.readouterr().out


@pytest.mark.parametrize("quiz", ex.QUIZZES.values(), ids=list(ex.QUIZZES))
def test_quiz_has_one_right_option_and_explains_each(quiz):
    assert quizzes.as_letter(quiz, quiz.right) == quiz.right
    assert len({why for _, why in quiz.options}) == len(quiz.options) >= 3
    static = quizzes.as_text(quiz)
    words = " ".join(static.split())
    assert all(text in words and why not in words for text, why in quiz.options)
    assert max(map(len, static.splitlines())) <= quizzes.WIDTH
    assert quizzes.as_html(quiz).count("<li>") == len(quiz.options)


def test_quiz_buttons_explain_and_record(own_progress):
    quiz = ex.QUIZZES["2.A"]
    box = quizzes.buttons(quiz, lambda: ex._record("2.A", progress_file.DONE))
    choice, said = box.children
    assert choice.value is None and said.value == ""
    choice.value = "a"
    assert said.value.startswith("(a) No. ") and not own_progress.exists()
    choice.value = "b"
    assert said.value.startswith("(b) Right. ") and progress_file.read_progress(own_progress)


class Unshowable:
    def __repr__(self):
        raise ValueError("mine")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (1.1, "Exercise 1.1: Right."),
        (" 1.1 ", "Exercise 1.1: Right."),
        ("ex 1.1", "Exercise 1.1: Right."),
        ("1,1", "Exercise 1.1: Right."),
        ("4.A", '4.A is a question: quiz("4.A")'),
        ("4.a", '4.A is a question: quiz("4.A")'),
        ("7.7", "There is no exercise '7.7'"),
        ("(1.1)", "Exercise 1.1: Right."),
        (np.float64(1.1), "Exercise 1.1: Right."),
        (["1.1"], "There is no exercise"),
        (Unshowable(), "There is no exercise"),
        (None, "There is no exercise 'None'"),
    ],
)
def test_numbers_are_understood_however_they_are_written(asked, said, capsys):
    ex.check(asked, 0.5)
    assert capsys.readouterr().out.startswith(said)


def test_quiz_hint_and_solution_understand_numbers_too(capsys):
    ex.quiz("1.1")
    assert '1.1 is an exercise: check("1.1"' in capsys.readouterr().out
    for step in (0, 9, -1, "2", 1.5, None, True, np.arange(3)):
        ex.hint(1.1, step)
        assert "Exercise 1.1 has 3 hints" in capsys.readouterr().out
    ex.hint(1.1)
    ex.solution(" 1.1")
    assert "Hint 1 of 3" in capsys.readouterr().out


def test_a_question_takes_its_letter(own_progress, capsys):
    for letter in ("c", " C) ", "(c)"):
        ex.check("4.a", letter)
        assert capsys.readouterr().out.startswith("(c) No. ")
    for none in (2, ["b"], "", "ab", "d", None, Unshowable()):
        ex.check("4.A", none)
        assert capsys.readouterr().out.startswith("4.A is a question")
        with pytest.raises(ValueError, match="question 4.A has the answers a, b, c"):
            quizzes.answer_to(ex.QUIZZES["4.A"], none)
    assert not own_progress.exists()
    ex.check("4.A", "B")
    assert capsys.readouterr().out.startswith("(b) Right. ")
    assert "4.A" not in " ".join(ex.progress()["still open"]).split()


def test_lying_bars_count_as_drawn():
    axis = Figure().subplots()
    axis.barh(["a", "b"], [3.0, 4.0])
    assert figures.is_drawn(axis, [3, 4]) and not figures.is_drawn(axis, [3, 5])
