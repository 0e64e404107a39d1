"""The ledger agrees with presets, code, results and files."""

import inspect
import json
import re

import pytest

from cxr_helpers.course import __main__ as cli
from cxr_helpers.course.ch03 import linear
from cxr_helpers.course.ch06 import ledger as led
from cxr_helpers.course.core import data
from cxr_helpers.course.core.settings import PRESETS, project_root
from cxr_helpers.detection import augmentation as detection_pipelines
from cxr_helpers.detection import detector, training
from cxr_helpers.evaluation import finetune
from cxr_helpers.pretraining import views

ROOT = project_root()
LEDGER = led.read_ledger(ROOT / led.SOURCE)
ROWS, CLAIMS = LEDGER["row"], LEDGER["claim"]


def name(row):
    return f"{row.get('part', 'claim')}: {row['what']}"


def is_setting(row):
    return row["ours"].keys() <= {"preset", "product"}


@pytest.mark.parametrize("row", [r for r in ROWS if is_setting(r) and "code" in r], ids=name)
def test_a_setting_that_differs_from_the_code_says_why_and_no_other(row):
    own, theirs = led.own_value(row["ours"]), row["code"]
    same = own == theirs or str(own) in str(theirs).replace(",", " ").split()
    assert same == ("why" not in row), f"ours is {own!r}, the code's {theirs!r}"


@pytest.mark.parametrize("row", [r for r in ROWS if "text" in r["ours"]], ids=name)
def test_words_that_differ_from_the_code_say_why_and_no_other(row):
    text, code = row["ours"]["text"], str(row["code"])
    agrees = text.startswith(("the same", code))
    assert agrees != ("why" in row), text


def ours_of(what, part):
    (row,) = (r for r in ROWS if (r["part"], r["what"]) == (part, what))
    return led.ledger_table({"row": [row]})["ours"].iloc[0]


def test_words_say_what_the_code_does():
    def default(call, argument):
        return inspect.signature(call).parameters[argument].default

    gray = f"mean {views.GRAY_MEAN:g} and standard deviation {views.GRAY_STD:g}"
    assert ours_of("Normalization of the input", "Pretraining").startswith(gray)
    assert default(detector.DetectorSettings, "image_mean") == (views.GRAY_MEAN,) * 3
    assert ours_of("Normalization of the input", "Detection").startswith(gray)
    norm = default(training.DetectorModule, "max_norm")
    assert ours_of("Clipping of the gradient", "Detection") == f"to a norm of {norm:g}"
    share = default(training.DetectorModule, "final_share")
    assert f"to {share:g} of" in ours_of("Schedule", "Detection")
    assert share * PRESETS["paper"]["detect"].learning_rate == pytest.approx(1e-4)
    small = detector.DetectorSettings(("a",), arch="resnet18", fpn_channels=8, head_width=8)
    built = detector.build_detector(small, seed=0)
    score = str(built.roi_heads.score_thresh)
    assert ours_of("Least score of a detection that is kept", "Detection") == score
    module = training.DetectorModule(built, optimizer="sgd", learning_rate=0.1)
    module.trainer = type("T", (), {"estimated_stepping_batches": 9})()
    momentum = module.configure_optimizers()["optimizer"].defaults["momentum"]
    assert ours_of("Momentum", "Detection") == str(momentum)
    parts = [f"{100 * share:g}%" for share in data.VINDR_PARTS.values()]
    assert re.findall(r"\d+%", ours_of("Training images", "Detection")) == parts
    assert f"{linear.MIN_POSITIVES} positives" in ours_of("Outputs", "Linear evaluation")
    crop = default(finetune.Recipe, "crop_scale")[0]
    assert f"crops of {crop:.0%}" in ours_of("End to end", "Linear evaluation")


def test_the_views_of_the_paper_scale_are_what_the_ledger_says():
    first, second = views.recipe(PRESETS["paper"]["pretrain"].views)
    both = {"min_scale": 0.08, "hf_prob": 0.5, "cj_prob": 0.8, "cj_bright": 0.4, "cj_contrast": 0.4}
    both |= {"sigmas": (0.1, 2.0)}  # Zbontar et al. 2021, appendix A
    own = [{"gaussian_blur": 1.0, "solarization_prob": 0.0}]
    own += [{"gaussian_blur": 0.1, "solarization_prob": 0.2}]
    for view, rest in zip((first, second), own, strict=True):
        idle = {"cj_sat", "cj_hue", "random_gray_scale"}  # on gray images
        assert {k: v for k, v in view.items() if k not in idle} == both | rest
    (flip,) = detection_pipelines.detection_pipeline("paper", seed=0).transforms
    assert (type(flip).__name__, flip.p) == ("HorizontalFlip", 0.5)


def test_the_claims_are_those_of_the_abstract_and_none_is_left_open():
    table = led.claims_table(LEDGER)
    assert table.columns.tolist() == ["what", "paper", "here"] and not table.isna().any().any()
    assert led.NOT_KNOWN not in set(table["paper"]) and len(table) >= 10
    paper = " ".join(table["paper"])
    for words in ("112,120", "18,000", "ResNet-50", "ImageNet", "Ablation-CAM", "AUC", "3%"):
        assert words in paper, words


def test_the_largest_deviations_have_rows_and_few_values_are_not_known():
    named = {row["what"] for row in ROWS if row.get("why")}
    must = {"Images", "Side of the prepared images in pixels", "How a crop is resized"}
    must |= {"Schedule after warm-up", "Training of the layer", "The random arm", "Anchors"}
    must |= {"Clipping of the gradient", "Least score of a detection that is kept"}
    assert must | {"The score that is explained"} <= named
    shown = {r["ours"].get("preset") for r in ROWS}
    shown |= {n for r in ROWS for n in r["ours"].get("product", ())}
    fields = [f"pretrain.{n}" for n in ("batch_size", "epochs", "projector", "learning_rate")]
    fields += [f"detect.{n}" for n in ("batch_size", "epochs", "learning_rate", "frozen_stages")]
    assert set(fields) <= shown
    table = led.ledger_table(LEDGER)
    assert not table.isna().any().any() and (table["code"] == led.NOT_KNOWN).mean() < 0.1


@pytest.mark.parametrize("row", [r for r in CLAIMS + ROWS if "result" in r["ours"]], ids=name)
def test_a_measured_row_names_a_result_that_a_notebook_saves(row):
    file, *keys = row["ours"]["result"]
    source = (ROOT / "notebooks" / "source" / f"{file}.py").read_text(encoding="utf-8")
    assert f'Results("{file}"' in source
    assert re.search(rf"\b{keys[0]}=", source), f"{file} saves no {keys[0]}"


def test_the_thirteen_points_are_there_and_their_links_lead_somewhere():
    assert [p["number"] for p in LEDGER["point"]] == list(range(1, 14))
    for point in LEDGER["point"]:
        path = ROOT / point["link"]
        if path.suffix == ".ipynb":
            path = ROOT / "notebooks" / "source" / f"{path.stem}.py"
            headings = re.findall(r"^# #+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert point["at"] in headings, f"point {point['number']}"
        else:
            assert point["at"] in path.read_text(encoding="utf-8"), f"point {point['number']}"
    shown = led.points_table(LEDGER, base=None)["shown in"].tolist()  # words, no link
    assert shown[0] == "03_linear_evaluation: Trap 1: split by image"
    assert shown[4].startswith("the code, weights.py: search for 'ResNet50_Weights")
    assert not [text for text in shown if ".ipynb" in text]


def test_the_stored_table_is_the_present_one():
    stored = (ROOT / led.RENDERED).read_text(encoding="utf-8")
    assert stored == led.render(LEDGER), "run  python -m cxr_helpers.course.ch06.ledger --write"
    for target in re.findall(r"\]\(\.\./([^)#]+)", stored):
        assert (ROOT / target).is_file()


def test_every_command_is_one_that_exists():
    targets = (ROOT / "Makefile").read_text()
    for command in {row["command"] for row in ROWS}:
        words = command.split()
        if words[:3] == ["python", "-m", "cxr_helpers.course"]:
            options = cli.parser().parse_args(words[3:])  # leaves with status 2 where it cannot
            assert options.scale == "paper", command
        elif words[0] == "python":
            assert (ROOT / words[1]).is_file(), command
        else:
            assert words[0] == "make" and f"\n{words[1]}:" in targets, command


def test_what_is_measured_follows_the_results():
    rows = [r["ours"]["result"] for r in ROWS if "result" in r["ours"]]
    file, *keys = rows[0]
    told = {"metrics": {keys[0]: 114.99}, "settings": {"data": "demo", "scale": "demo"}}
    before, after = (led.ledger_table(LEDGER, {file: told | m}) for m in ({}, {"metrics": {}}))
    assert (before["ours"] == "115; data demo, scale demo").sum() == 1
    assert (after["ours"] == "not measured here yet").sum() == len(rows)


ROW = {"part": "P", "what": "W", "command": "c"}


def test_presets_in_words_are_read_and_one_that_is_gone_is_named():
    row = ROW | {"ours": {"text": "{pretrain.epochs} epochs"}}
    table = led.ledger_table({"row": [row]})
    assert table[["code", "ours"]].values.tolist() == [[led.NOT_KNOWN, "600 epochs"]]
    with pytest.raises(led.LedgerError, match="no 'pretrain.color'"):
        led.ledger_table({"row": [ROW | {"ours": {"text": "{pretrain.color}"}}]})


@pytest.mark.parametrize(
    "text, message",
    [
        ('[[row]]\npart="P"\nwhat="W"\ncommand="c"\n', r"row 'W' lacks \['ours'\]"),
        ('[[row]]\npart="P"\nwhat="W"\ncommand="c"\nours={x=1}\n', "`ours` is one of"),
        ("[[row]]\npart='P'\nwhat='W'\ncommand='c'\nours={text='t'}\nx=1\n", r"has \['x'\]"),
        ("row=[]\n[[point]]\nnumber=3\n", "point 3 lacks"),
        ("[[claim]]\nwhat='W'\npaper='p'\nours='o'\n", "claim 'W': `ours` is one of"),
        ("[[row", "ledger.toml is no TOML"),
    ],
)
def test_a_broken_file_names_the_row(tmp_path, text, message):
    path = tmp_path / "ledger.toml"
    path.write_text(text)
    with pytest.raises(led.LedgerError, match=message):
        led.read_ledger(str(path))


def test_a_result_that_is_several_figures_is_refused():
    told = {"metrics": {"gain": {"0.1": 1, "1.0": 2}}, "settings": {"data": "x", "scale": "demo"}}
    with pytest.raises(led.LedgerError, match=r"03_x / gain is no figure, but \['0.1', '1.0'\]"):
        led.measured({"03_x": told}, ["03_x", "gain"])


def test_it_can_be_shown_with_results(capsys, monkeypatch, tmp_path):
    settings = {"data": "x", "scale": "demo"}
    content = dict.fromkeys(("seconds", "peak_memory_mb"), 1) | {"settings": settings}
    content |= {"metrics": {"loss_start": 7.0}, "versions": {}}
    folder = tmp_path / "runs" / "demo" / "results"
    folder.mkdir(parents=True)
    (folder / "02_barlow_twins_pretraining.json").write_text(json.dumps(content))
    monkeypatch.setattr(led, "load_settings", lambda: type("S", (), {"results": folder}))
    assert led.main([]) == 0
    assert "| 7; data x, scale demo |" in capsys.readouterr().out
    (folder / "broken.json").write_text("{")
    assert led.main([]) == 1 and "broken.json" in capsys.readouterr().err
