"""Every stub fails, every solution passes, every usual mistake gets its message."""

import re

import numpy as np
import pytest
from matplotlib.figure import Figure

from cxr_helpers.course import exercises as ex
from cxr_helpers.course.exercises import engine, nb02, nb03, progress_file, quizzes
from cxr_helpers.course.notebooks import NOTEBOOKS

NUMBERS = list(ex.EXERCISES)
MISTAKES = [(n, i) for n in NUMBERS for i in range(len(ex.EXERCISES[n].mistakes))]
SOURCES = sorted((NOTEBOOKS / "source").glob("0[123]_*.py"))


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
    assert number not in ", ".join(ex.progress()["still open"]).split(", ")


@pytest.mark.parametrize(("number", "i"), MISTAKES)
def test_usual_mistake_gets_its_message(number, i, capsys):
    mistake = ex.EXERCISES[number].mistakes[i]
    verdict = engine.judge(ex.EXERCISES[number], mistake.answer)
    assert verdict.kind == engine.WRONG and mistake.message in verdict.text
    ex.check(number, mistake.answer)
    assert f'hint("{number}")' in capsys.readouterr().out


@pytest.mark.parametrize("number", NUMBERS)
def test_check_survives_nonsense(number):
    def raises(*arguments):
        raise KeyError("mine")

    for answer in ("a string", np.nan, [], {}, object(), raises, lambda: 1, lambda *a: "text", int):
        assert engine.judge(ex.EXERCISES[number], answer).kind != engine.RIGHT


def test_an_error_in_an_answer_is_named():
    said = engine.judge(ex.EXERCISES["1.4"], lambda a, b: 1 / 0).text
    assert said == "It stopped with ZeroDivisionError: division by zero."


def test_an_unusual_mistake_is_shown_on_a_case():
    said = engine.judge(ex.EXERCISES["3.4"], lambda train, test: 7.0).text
    assert said == "For [1 2 3 3], [3 3 3 4 5] it gives 7, not 0.6."


def test_an_answer_cannot_change_the_cases():
    def spoils(train, test):
        test[:] = 0
        return 0.6

    engine.judge(ex.EXERCISES["3.4"], spoils)
    assert engine.judge(ex.EXERCISES["3.4"], nb03.overlap).kind == engine.RIGHT


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


@pytest.mark.parametrize("notebook", ["1", "2", "3"])
def test_each_notebook_has_enough(notebook):
    own = [e for e in ex.EXERCISES.values() if e.number.startswith(notebook)]
    assert len(own) >= 5
    assert min(e.minutes for e in own) <= 2 and max(e.minutes for e in own) >= 30
    assert sum(n.startswith(notebook) for n in ex.QUIZZES) >= 2


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_notebook_asks_for_each(source):
    text = source.read_text(encoding="utf-8")
    asked = re.findall(r'^check\("([\d.]+)"', text, re.MULTILINE)
    asked += re.findall(r'^quiz\("([\w.]+)"', text, re.MULTILINE)
    known = [n for n in [*ex.EXERCISES, *ex.QUIZZES] if n.startswith(source.stem[1] + ".")]
    assert sorted(asked) == sorted(known)


def test_progress_counts_what_is_done(own_progress):
    assert ex.progress()["done"].tolist() == [0, 0, 0]
    ex.check("1.1", 7)
    ex.check("1.2", nb03.overlap)
    ex.check("1.1", 0.5)
    ex.check("1.1", 7)
    table = ex.progress()
    assert table.loc["01", "done"] == 1 and "1.1" not in table.loc["01", "still open"]
    assert progress_file.read_progress(own_progress) == {"1.1": "done", "1.2": "tried"}
    assert [path.name for path in own_progress.parent.iterdir()] == ["exercises.json"]


@pytest.mark.parametrize("content", ["{", "[]", '{"1.1": 3}', '{"1.1": ["done"]}', "\x00"])
def test_a_broken_progress_file_is_named_and_stops_no_check(own_progress, content, capsys):
    own_progress.parent.mkdir()
    own_progress.write_text(content)
    with pytest.raises(ValueError, match=r"exercises\.json .* delete it"):
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
    assert sum(right for _, right, _ in quiz.options) == 1
    assert len({why for _, _, why in quiz.options}) == len(quiz.options) >= 3
    static = quizzes.as_text(quiz)
    assert all(text in static and why not in static for text, _, why in quiz.options)
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


def test_right_answers_by_an_independent_way():
    """The references themselves, against scikit-learn, torchvision and a hand count."""
    import torch
    from sklearn.metrics import roc_auc_score
    from torchvision.ops import box_iou

    ill, scores = nb03.practice_scores()
    assert nb03.auroc(ill, scores) == pytest.approx(roc_auc_score(ill, scores))
    assert nb03.auroc(ill, scores.round()) == pytest.approx(roc_auc_score(ill, scores.round()))
    first, second = [0.0, 0, 10, 10], [3.0, 4, 12, 9]
    theirs = box_iou(torch.tensor([first]), torch.tensor([second])).item()
    assert ex.EXERCISES["1.4"].reference(first, second) == pytest.approx(theirs)
    assert nb03.at_other_prevalence(0.5, 0.5, 0.1) == pytest.approx(0.1)
    assert nb02.batch_for_floor(0.05) == 255


def test_mystery_runs_show_the_three_faults():
    runs = nb02.mystery_runs()
    floor = np.sqrt(2 / np.pi / runs["images in a batch"])
    assert runs["diagonal"].idxmin() == "run 2" and runs["diagonal"].drop("run 2").min() > 0.6
    assert (runs["off-diagonal"] / floor > 3).tolist() == [True, False, False, False]


def test_lying_bars_count_as_drawn():
    axis = Figure().subplots()
    axis.barh(["a", "b"], [3.0, 4.0])
    assert engine.is_drawn(axis, [3, 4]) and not engine.is_drawn(axis, [3, 5])
