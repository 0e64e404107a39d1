"""The ledger agrees with presets, results and files."""

import json
import re
from pathlib import Path

import pytest

from cxr_helpers.course import __main__ as cli
from cxr_helpers.course import explaining
from cxr_helpers.course import ledger as led
from cxr_helpers.course.settings import PRESETS, project_root

ROOT = project_root()
LEDGER = led.read_ledger(ROOT / led.SOURCE)
ROWS = LEDGER["row"]


def name(row):
    return f"{row['part']}: {row['what']}"


def is_setting(row):
    return row["ours"].keys() <= {"preset", "product"}


@pytest.mark.parametrize("row", [r for r in ROWS if is_setting(r) and "code" in r], ids=name)
def test_a_setting_that_differs_from_the_code_says_why_and_no_other(row):
    own, theirs = led.own_value(row["ours"]), row["code"]
    same = own == theirs or str(own) in str(theirs).replace(",", " ").split()
    assert same == ("why" not in row), f"ours is {own!r}, the code's {theirs!r}"


@pytest.mark.parametrize("row", [r for r in ROWS if "text" in r["ours"]], ids=name)
def test_words_that_differ_from_the_code_say_why(row):
    text, code = row["ours"]["text"], row.get("code")
    agrees = text.startswith(("the same", str(code)))
    known = code is not None or "paper" in row
    assert not known or agrees or row.get("why") or row["what"] in ("Method",)


def test_every_difference_of_the_presets_is_in_the_ledger():
    shown = {r["ours"].get("preset") for r in ROWS}
    shown |= {n for r in ROWS for n in r["ours"].get("product", ())}
    must = [f"pretrain.{n}" for n in ("batch_size", "epochs", "projector", "learning_rate")]
    must += [f"detect.{n}" for n in ("batch_size", "epochs", "learning_rate", "frozen_stages")]
    assert set(must) <= shown


@pytest.mark.parametrize("row", [r for r in ROWS if "result" in r["ours"]], ids=name)
def test_a_measured_row_names_a_result_that_a_notebook_saves(row):
    file, *keys = row["ours"]["result"]
    source = (ROOT / "notebooks" / "source" / f"{file}.py").read_text(encoding="utf-8")
    assert f'Results("{file}"' in source
    assert re.search(rf"\b{keys[0]}=", source), f"{file} saves no {keys[0]}"


def test_the_eleven_points_are_there_and_their_links_lead_somewhere():
    assert [p["number"] for p in LEDGER["point"]] == list(range(1, 12))
    for point in LEDGER["point"]:
        path = ROOT / point["link"]
        if path.suffix == ".ipynb":
            path = ROOT / "notebooks" / "source" / f"{path.stem}.py"
            headings = re.findall(r"^# #+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert point["at"] in headings, f"point {point['number']}"
        else:
            assert point["at"] in path.read_text(encoding="utf-8"), f"point {point['number']}"


def test_a_point_is_shown_in_words_where_no_link_can_lead():
    shown = led.points_table(LEDGER, base=None)["shown in"].tolist()
    assert shown[0] == "03_linear_evaluation: Trap 1: split by image"
    assert shown[4].startswith("the code, barlow.py: search for 'ResNet50_Weights")
    assert not [text for text in shown if ".ipynb" in text]


def test_the_stored_table_is_the_present_one():
    stored = (ROOT / led.RENDERED).read_text(encoding="utf-8")
    assert stored == led.render(LEDGER), "run  python -m cxr_helpers.course.ledger --write"
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


def test_what_is_not_known_is_said():
    table = led.ledger_table(LEDGER)
    assert (table["paper"] == led.NOT_KNOWN).sum() > 30
    assert not table.isna().any().any()


@pytest.mark.parametrize(
    "text, message",
    [
        ('[[row]]\npart="P"\nwhat="W"\ncommand="c"\n', "row 'W' lacks a key"),
        ('[[row]]\npart="P"\nwhat="W"\ncommand="c"\nours={x=1}\n', "`ours` is one of"),
        ("[[row]]\npart='P'\nwhat='W'\ncommand='c'\nours={text='t'}\nx=1\n", r"has \['x'\]"),
        ("row=[]\n[[point]]\nnumber=3\n", "point 3 needs"),
    ],
)
def test_a_broken_file_names_the_row(tmp_path, text, message):
    path = tmp_path / "ledger.toml"
    path.write_text(text + ("" if "point" in text else "[[point]]\n"))
    with pytest.raises(led.LedgerError, match=message):
        led.read_ledger(path)


def test_a_preset_that_is_gone_is_named():
    with pytest.raises(led.LedgerError, match="no 'pretrain.color'"):
        led.preset_value("pretrain.color")


def test_it_can_be_shown_with_results(capsys, monkeypatch, tmp_path):
    settings = {"data": "x", "scale": "demo"}
    content = dict.fromkeys(("seconds", "peak_memory_mb"), 1) | {"settings": settings}
    content |= {"metrics": {"loss_start": 7.0}, "versions": {}}
    folder = tmp_path / "runs" / "demo" / "results"
    folder.mkdir(parents=True)
    (folder / "02_barlow_twins_pretraining.json").write_text(json.dumps(content))
    monkeypatch.setattr(led, "load_settings", lambda: type("S", (), {"runs": folder.parent}))
    assert led.main([]) == 0
    assert "| 7; data x, scale demo |" in capsys.readouterr().out
    (folder / "broken.json").write_text("{")
    assert led.main([]) == 1 and "broken.json" in capsys.readouterr().err
    assert Path(led.RENDERED).suffix == ".md"


def saved_by(stem):
    """What a notebook's source adds to its results."""
    source = (ROOT / "notebooks" / "source" / f"{stem}.py").read_text(encoding="utf-8")
    return "\n".join(re.findall(r"results\.add\((.*?)^\s*\)$", source, re.M | re.DOTALL))


def test_the_figures_that_notebook_00_shows_are_saved_by_their_notebook():
    figures = {
        "no_finding_with_finding_percent": "01_data_exploration",
        "knn_difference / findings": "02_barlow_twins_pretraining",
        "difference / 0.1": "03_linear_evaluation",
        "difference": "04_faster_rcnn_finetuning",
        f"difference / {explaining.ENERGY}": "05_ablation_cam",
        "paper_step_seconds": "06_your_data_and_paper_scale",
    }
    start = (ROOT / "notebooks" / "source" / "00_start_here.py").read_text(encoding="utf-8")
    shown = start.split("main = {")[1].split("}")[0]
    assert re.findall(r'^    "(.+?)": ', shown, re.MULTILINE) == list(figures)
    for name, stem in figures.items():
        assert re.search(rf"^\s+{name.split(' / ')[0]}=", saved_by(stem), re.MULTILINE), name
    assert 0.1 in PRESETS["demo"]["probe"].fractions
