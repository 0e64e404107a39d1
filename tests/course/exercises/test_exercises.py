"""Every stub fails, every solution passes, every usual mistake gets its message."""

import ast
import re

import numpy as np
import pytest
import torch
import torchvision
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torchvision.ops.poolers import LevelMapper

from cxr_helpers.course import exercises as ex
from cxr_helpers.course.cli import planning
from cxr_helpers.course.core.settings import PRESETS
from cxr_helpers.course.exercises import ch02 as nb02
from cxr_helpers.course.exercises import ch03 as nb03
from cxr_helpers.course.exercises import ch04 as nb04
from cxr_helpers.course.exercises import ch04_scores as nb04_scores
from cxr_helpers.course.exercises import ch05 as nb05
from cxr_helpers.course.exercises import ch05_figure as nb05_figure
from cxr_helpers.course.exercises import ch06 as nb06
from cxr_helpers.course.exercises import engine, figures, progress_file, quizzes
from cxr_helpers.course.plots import ch05
from cxr_helpers.detection import froc
from cxr_helpers.detection import metrics as dm
from cxr_helpers.explanation import ablation_fast, heatmaps, sanity
from cxr_helpers.pretraining import barlow
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
def test_check_survives_nonsense(number):
    def raises(*arguments):
        raise KeyError("mine")

    for answer in ("a string", np.nan, [], {}, object(), raises, lambda: 1, lambda *a: "text", int):
        assert engine.judge(ex.EXERCISES[number], answer).kind != engine.RIGHT


def test_an_error_in_an_answer_is_named():
    said = engine.judge(ex.EXERCISES["1.4"], lambda a, b: 1 / 0).text
    assert said.endswith("it stops with ZeroDivisionError: division by zero.")
    assert said.startswith("For [ 0  0 10 10]")


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


@pytest.mark.parametrize("notebook", ["1", "2", "3", "4", "5"])
def test_each_notebook_has_enough(notebook):
    own = [e for e in ex.EXERCISES.values() if e.number.startswith(notebook)]
    assert len(own) >= 6 and any(e.title.startswith("your figure") for e in own)
    assert [e.number for e in own] == [f"{notebook}.{i + 1}" for i in range(len(own))]
    assert min(e.minutes for e in own) <= 2 and max(e.minutes for e in own) >= 30
    assert sum(n.startswith(notebook) for n in ex.QUIZZES) >= 2


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_notebook_asks_for_each(source):
    text = source.read_text(encoding="utf-8")
    asked = re.findall(r'^check\("([\d.]+)"', text, re.MULTILINE)
    asked += re.findall(r'^quiz\("([\w.]+)"', text, re.MULTILINE)
    known = [n for n in [*ex.EXERCISES, *ex.QUIZZES] if n.startswith(source.stem[1] + ".")]
    assert sorted(asked) == sorted(known)


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
    ex.check("1.2", nb03.overlap)
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
    assert sum(right for _, right, _ in quiz.options) == 1
    assert len({why for _, _, why in quiz.options}) == len(quiz.options) >= 3
    static = quizzes.as_text(quiz)
    words = " ".join(static.split())
    assert all(text in words and why not in words for text, _, why in quiz.options)
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


def test_right_answers_by_an_independent_way():
    """The references themselves, against scikit-learn, torchvision and a hand count."""
    from sklearn.metrics import roc_auc_score

    ill, scores = nb03.practice_scores()
    assert nb03.auroc(ill, scores) == pytest.approx(roc_auc_score(ill, scores))
    assert nb03.auroc(ill, scores.round()) == pytest.approx(roc_auc_score(ill, scores.round()))
    first, second = [0.0, 0, 10, 10], [3.0, 4, 12, 9]
    theirs = torchvision.ops.box_iou(torch.tensor([first]), torch.tensor([second])).item()
    assert ex.EXERCISES["1.4"].reference(first, second) == pytest.approx(theirs)
    assert nb03.at_other_prevalence(0.5, 0.5, 0.1) == pytest.approx(0.1)
    assert nb02.batch_for_floor(0.05) == 255


def test_mystery_runs_show_the_three_faults():
    runs = nb02.mystery_runs()
    floor = np.sqrt(2 / np.pi / runs["images in a batch"])
    assert runs["diagonal"].idxmin() == "run 2" and runs["diagonal"].drop("run 2").min() > 0.6
    assert (runs["off-diagonal"] / floor > 3).tolist() == [True, False, False, False]


def random_boxes(rng, n):
    corners = rng.uniform(0, 60, size=(n, 2))
    return np.hstack([corners, corners + rng.uniform(2, 40, size=(n, 2))])


def test_box_exercises_agree_with_torchvision():
    rng = np.random.default_rng(0)
    for _ in range(20):
        boxes, labels = random_boxes(rng, 30), rng.integers(1, 4, size=30)
        scores = rng.permutation(30) / 30
        theirs = torchvision.ops.box_iou(torch.tensor(boxes), torch.tensor(boxes[:7])).numpy()
        assert nb04.iou_of_all(boxes, boxes[:7]) == pytest.approx(theirs)
        kept = torchvision.ops.batched_nms(*map(torch.tensor, (boxes, scores, labels)), 0.4)
        assert nb04.suppress_per_class(boxes, labels, scores, 0.4) == kept.tolist()
        levels = LevelMapper(2, 5, 64, 4)([torch.tensor(boxes)]).numpy() + 2
        sides = boxes[:, 2:] - boxes[:, :2]
        assert [nb04.pooled_from(w, h, 64) for w, h in sides] == levels.tolist()


def test_average_precision_by_hand_agrees_with_the_helper():
    place = np.array([[x, 0, x + 10, 10] for x in (0, 20, 40, 60, 80, 100)])
    truth = [{"boxes": place[:4], "labels": np.ones(4)}]
    six = place[[0, 0, 1, 4, 2, 5]]
    found = [{"boxes": six, "labels": np.ones(6), "scores": np.arange(6, 0, -1) / 10}]
    ap = dm.average_precision(dm.match_detections(found, truth, class_names=["mass"]))
    assert ex.EXERCISES["4.2"].reference == pytest.approx(ap[0])
    truth = [{"boxes": place[:2], "labels": np.ones(2)}]
    timid = np.concatenate([place[[0, 4, 1]], np.repeat(place[[5]], 10, axis=0)])
    scores = np.linspace(0.9, 0.1, 13)
    found = [{"boxes": timid, "labels": np.ones(13), "scores": scores}]
    ap = dm.average_precision(dm.match_detections(found, truth, class_names=["mass"]))
    assert ex.EXERCISES["4.1"].reference == pytest.approx(ap[0])


def test_a_lost_class_agrees_with_the_helper():
    """Three classes on one row of boxes; ten boxes each, of which 6, 1 and 5 are found, first."""
    place = np.array([[x, 0, x + 10, 10] for x in range(0, 600, 20)])
    labels = np.repeat([1, 2, 3], 10)
    kept = np.concatenate([np.arange(6), [10], np.arange(20, 25)])
    found = [{"boxes": place[kept], "labels": labels[kept], "scores": np.ones(len(kept))}]

    def score(labels, keep):
        truth = [{"boxes": place[keep], "labels": labels[keep]}]
        matches = dm.match_detections(found, truth, class_names=["heart", "nodule", "effusion"])
        return dm.mean_average_precision(matches)

    said, rest = ex.EXERCISES["4.8"].reference, labels != 2
    assert score(labels, rest) == pytest.approx(said["dropped"], abs=0.01)
    assert score(np.minimum(labels, 2), rest) == pytest.approx(said["shifted too"], abs=0.01)


def matches_of(hit, image, truths):
    ones = np.ones(len(hit), dtype=int)
    return dm.Matches(image, ones, -np.arange(len(hit), dtype=float), hit, truths, ("mass",), 0.5)


def test_score_exercises_agree_with_the_helpers():
    rng = np.random.default_rng(0)
    for _ in range(20):
        image, boxes = np.sort(rng.integers(0, 8, size=40)), rng.integers(5, 9, size=8)
        hits = [rng.random(40) < share for share in (0.3, 0.5)]
        arms = [matches_of(hit, image, boxes[:, None]) for hit in hits]
        for allowed in (0.125, 0.5, 1.0, 8.0):
            ours = nb04_scores.share_found(hits[0], boxes.sum(), 8, allowed)
            assert ours == pytest.approx(froc.sensitivity_at(arms[0], [allowed])[0])
        draws = rng.integers(0, 8, size=(5, 8))
        counts = np.stack([np.bincount(row, minlength=8) for row in draws])
        a, b = (froc.sensitivity_at(m, [99.0], counts)[:, 0] for m in arms)
        found = [np.bincount(image[hit], minlength=8) for hit in hits]
        ours = nb04_scores.paired_differences(*found, boxes, draws)
        assert ours == pytest.approx(b - a)


def test_map_exercises_agree_with_the_helpers():
    rng = np.random.default_rng(0)
    for _ in range(20):
        maps, ablated = rng.normal(size=(5, 6, 7)), rng.random(5)
        ours = nb05.map_from_channels(0.7, ablated, maps)
        assert ours == pytest.approx(ablation_fast.BoxAblation(0.7, ablated, maps).heatmap)
        tied = maps[0].round()
        boxes = [[1, 0, 4, 3], [2, 2, 7, 6]]
        assert nb05.energy_inside(tied, boxes) == pytest.approx(heatmaps.energy_in_box(tied, boxes))
        assert nb05.points_into(tied, boxes[0]) == heatmaps.pointing_game(tied, boxes[:1])
        ranks = sanity.rank_correlation(tied, maps[1].round())
        assert nb05.rank_correlation(tied, maps[1].round()) == pytest.approx(ranks)


def test_exercises_of_scale_agree_with_the_course():
    preset, at_demo = PRESETS["paper"]["pretrain"], PRESETS["demo"]["pretrain"]
    assert ex.EXERCISES["6.1"].reference == pytest.approx(preset.learning_rate * 512 / 256)
    z_a, z_b = torch.randn(
        2, 512, at_demo.projector[-1], generator=torch.Generator().manual_seed(0)
    )
    invariance, _ = barlow.loss_terms(barlow.cross_correlation(z_a, z_b))
    said = ex.EXERCISES["6.2"].reference[f"D = {at_demo.projector[-1]}"]
    assert invariance.item() == pytest.approx(said, rel=0.1)
    assert nb06.hours(112_120, 800, 768, 42.1 * 3600 / (800 * 145)) == pytest.approx(42.1, rel=0.01)
    shares = [nb06.share(np.arange(11), rank, 3).tolist() for rank in range(3)]
    assert sorted(sum(shares, [])) == list(range(11))
    values = np.random.default_rng(0).normal(size=30)
    parts = np.split(values, [4, 15])
    sums = [np.array([f(part) for part in parts]) for f in (len, np.sum, lambda x: (x**2).sum())]
    assert nb06.whole_batch(*sums) == pytest.approx([values.mean(), values.var()])
    fits = planning.Cost(1.0, 1.0, 5.0, 0.075).step_bytes(192)
    assert ex.EXERCISES["6.6"].reference["GB on each"] == pytest.approx(fits)
    workers, rates = nb06.practice_scaling()
    assert rates[-1] / rates[0] == pytest.approx(1 / (0.05 + 0.95 / workers[-1]), rel=0.01)


def test_any_fair_division_of_the_rows_is_right():
    fair = [
        lambda rows, rank, world: np.array_split(rows, world)[rank],
        lambda rows, rank, world: rows[::-1][rank::world],
        lambda rows, rank, world: [int(row) for row in rows][rank::world],
        lambda rows, rank, world: np.random.default_rng(0).permutation(rows)[rank::world],
    ]
    for answer in fair:
        assert engine.judge(ex.EXERCISES["6.3"], answer).kind == engine.RIGHT
    foreign = engine.judge(ex.EXERCISES["6.3"], lambda rows, rank, world: [rank])
    assert "none of these rows" in foreign.text
    mask = engine.judge(ex.EXERCISES["6.3"], lambda rows, rank, world: rows % world == rank)
    assert mask.kind == engine.WRONG and "a list of rows" in mask.text


@pytest.mark.parametrize(("off", "kind"), [(1.02, engine.RIGHT), (1.06, engine.WRONG)])
def test_a_term_that_is_asked_for_about_may_be_a_little_off(off, kind):
    answer = {key: off * value for key, value in ex.EXERCISES["6.2"].reference.items()}
    assert engine.judge(ex.EXERCISES["6.2"], answer).kind == kind


def test_maps_that_explain_nothing_score_as_said():
    shape, readers, found = (10, 20), [[4, 2, 12, 7]], [[8, 2, 16, 7]]
    constant, filled = np.ones(shape), heatmaps.box_mask(found, shape).astype(float)
    said = {
        "constant: energy": heatmaps.energy_in_box(constant, readers),
        "constant: pointing": heatmaps.pointing_game(constant, readers),
        "box: energy": heatmaps.energy_in_box(filled, readers),
        "box: IoU": heatmaps.iou_at(filled, readers),
    }
    assert engine.same(said, ex.EXERCISES["5.6"].reference)


def curve_from_zero_and_best_at_101_points(axis, right, scores, boxes):
    found = np.cumsum(right[np.argsort(-scores)])
    recall, precision = found / boxes, found / np.arange(1, 61)
    axis.plot([0, *recall], [1, *precision])
    best = [max(precision[recall >= point], default=0) for point in dm.RECALL_POINTS]
    axis.scatter(dm.RECALL_POINTS, best)
    axis.set(xlabel="recall", ylabel="precision")


def curve_backwards_and_best_down_to_zero(axis, right, scores, boxes):
    found = np.cumsum(right[np.argsort(-scores)])
    recall, precision = found / boxes, found / np.arange(1, 61)
    axis.plot(recall[::-1], precision[::-1])
    best = np.maximum.accumulate(precision[::-1])[::-1]
    axis.step([*recall, recall[-1], 1], [*best, 0, 0], where="pre")
    axis.set(xlabel="recall", ylabel="precision")


def picture_under_a_rectangle(axis, score, ablated, maps, box):
    heatmap = nb05.map_from_channels(score, ablated, maps)
    axis.imshow(np.zeros((64, 64)), cmap="gray")
    axis.imshow(heatmaps.normalize_map(heatmaps.resize_map(heatmap, (64, 64))), alpha=0.5)
    axis.add_patch(Rectangle(box[:2], *(box[2:] - box[:2]), fill=False))
    axis.set(xlabel="x (pixels)", ylabel="y (pixels)")


def the_courses_own_picture(axis, score, ablated, maps, box):
    heatmap = nb05.map_from_channels(score, ablated, maps)
    large = heatmaps.normalize_map(np.kron(heatmap, np.ones((8, 8))))
    ch05.show_heatmap(axis, np.zeros((64, 64)), large, found_boxes=[box])
    axis.set(xlabel="x (pixels)", ylabel="y (pixels)")


@pytest.mark.parametrize(
    ("number", "answer"),
    [
        ("4.9", curve_from_zero_and_best_at_101_points),
        ("4.9", curve_backwards_and_best_down_to_zero),
        ("5.8", picture_under_a_rectangle),
        ("5.8", the_courses_own_picture),
    ],
)
def test_other_right_figures_pass(number, answer):
    verdict = engine.judge(ex.EXERCISES[number], answer)
    assert verdict.kind == engine.RIGHT, verdict.text


def test_practice_data_are_what_the_text_says():
    right, scores, boxes = nb04_scores.practice_detections()
    assert len(np.unique(scores)) == 60 and 0 < right.sum() < boxes
    heatmap = nb05.map_from_channels(*nb05_figure.practice_box()[:3])
    assert 0.5 < heatmaps.energy_in_box(heatmap, [[4, 2, 7, 5]]) < 0.8


@pytest.mark.parametrize("value", [0.333, 0.3333, 1 / 3])
def test_numbers_in_a_dict_may_be_rounded(value):
    exercise = ex.EXERCISES["5.3"]
    assert engine.judge(exercise, {"a": value, "b": 0}).kind == engine.RIGHT
    said = engine.judge(exercise, {"a": value, "b": 0.1}).text
    assert said == "Look again at 'b'."


def test_lying_bars_count_as_drawn():
    axis = Figure().subplots()
    axis.barh(["a", "b"], [3.0, 4.0])
    assert figures.is_drawn(axis, [3, 4]) and not figures.is_drawn(axis, [3, 5])
