"""The README: its generated parts, its links, its commands."""

import importlib
import json
import re
import shlex
from dataclasses import replace

import pandas as pd
import pytest
from torch.distributed.run import get_args_parser

from cxr_helpers.course import __main__ as cli
from cxr_helpers.course.core.settings import load_settings, project_root
from cxr_helpers.course.core.stored import RECORD
from cxr_helpers.course.exercises import EXERCISES
from tools import findings, readme
from tools.anywhere import badges, repository_address

COST = {"seconds": 90.0, "peak_memory_mb": 2048}
ALL = dict.fromkeys(readme.QUESTIONS, COST)
ROOT = project_root()
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def page(name):
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def test_the_table_has_a_row_a_notebook_with_its_cost():
    table = readme.measured_table(ALL, machine="2 cores", day="2026-01-02")
    assert table.count("| 1.5 | 2.0 |") == len(ALL)
    assert "on 2 cores, 2026-01-02" in table


def test_what_is_missing_is_named(tmp_path):
    results = {k: v for k, v in ALL.items() if k != "05_ablation_cam"}
    with pytest.raises(readme.ReadmeError, match="no results of 05_ablation_cam: run `make"):
        readme.measured_table(results, machine="", day="")
    with pytest.raises(readme.ReadmeError, match="lacks <!-- y: begin -->"):
        readme.replace_between("<!-- x: begin -->", "new", name="y")
    with pytest.raises(readme.ReadmeError, match="make notebooks"):
        readme.tagged_picture(tmp_path)


def test_only_what_is_between_the_markers_changes():
    text = "above\n<!-- x: begin -->\nold\n<!-- x: end -->\nbelow\n"
    assert readme.replace_between(text, "new", name="x") == text.replace("old", "new")


def test_what_needs_no_run_is_up_to_date_and_links_lead_to_files():
    present = readme.replace_between(TEXT, badges(repository_address()), name="badges")
    found = findings.findings_text(load_settings({}))
    present = readme.replace_between(present, found, name="found")
    assert present == TEXT, "run python -m tools.readme --no-results"
    table = readme.exercise_table()
    exercises = (ROOT / readme.EXERCISE_PAGE).read_text(encoding="utf-8")
    assert readme.replace_between(exercises, table, name="exercises") == exercises, "the same"
    assert all(f"| {number} | {EXERCISES[number].title} | " in table for number in EXERCISES)
    local = [t for t in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in t]
    assert local and all((ROOT / t).is_file() for t in local)


def test_the_caption_tells_the_fall_of_the_auroc():
    auroc = {"as in training": 0.953, "in no image": 0.7, "swapped": 0.31}
    saved = {readme.SHORTCUT: {"metrics": {"shortcut": {"marker": auroc}}}}
    text = readme.picture_text(saved)
    assert text.startswith("![Radiographs") and "is 0.95 while" in text and "0.31 when" in text
    with pytest.raises(readme.ReadmeError, match="05_ablation_cam has saved no 'shortcut'"):
        readme.picture_text({readme.SHORTCUT: {"metrics": {}}})


COLUMNS = ["arm", "minus", "fraction", "value", "low", "high"]


def stored(folder, name, rows, **columns):
    """A stored table of these differences, each between 0.6 and what lies so far above it."""
    lines = []
    for arm, minus, fraction, low, high in rows:
        gain = (low + high) / 2
        lines += [[arm, "", fraction, 0.6 + gain, 0.5, 0.7], [minus, "", fraction, 0.6, 0.5, 0.7]]
        lines += [[arm, minus, fraction, gain, low, high]]
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(lines, columns=COLUMNS).drop_duplicates(COLUMNS[:3]).assign(**columns)
    table.to_csv(folder / f"{name}.csv", index=False)
    (folder / f"{name}.json").write_text(json.dumps(dict.fromkeys(RECORD, "")), encoding="utf-8")


def test_findings_come_from_the_stored_figures_the_clear_ones_and_all_open(tmp_path):
    settings, folder = replace(load_settings({}), project=tmp_path), tmp_path / "notebooks/stored"
    assert findings.findings_text(settings) == ""
    few = [("evening", "random", 0.1, 0.05, 0.11), ("evening", "from scratch", 0.1, 0.01, 0.03)]
    stored(folder, "label_curves", few)
    own = [("evening", "random", 0.3, -0.01, 0.03)]
    stored(folder, "detectors", own, **findings.DETECTORS)
    real = [("evening", "random", 1.0, -0.08, -0.02), ("evening", "pixels", 1.0, -0.04, 0.02)]
    stored(folder, "label_curves_real", real)
    text = findings.findings_text(settings)
    lines = text.split("\n\n")[0].splitlines()
    assert [line[4:7] for line in lines[:4]] == ["Few", "Rea", "Wit", "Ope"]
    assert ") of 0.680 on features" in lines[0] and "+0.080 (0.050 to 0.110)." in lines[0]
    assert "-0.050 (-0.080 to -0.020)." in lines[1]  # a loss that is clear is told too
    assert lines[4].startswith("  - With three tenths") and "+0.010 (-0.010 to 0.030)." in lines[4]
    assert lines[5].endswith("thumbnail: -0.010 (-0.040 to 0.020).") and len(lines) == 6
    assert text.count("](notebooks/stored/") == 3


def test_it_says_how_many_images_the_demo_has(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "data_scripts")
    script = importlib.import_module("make_demo")
    flat = " ".join(page("demo_data").split())
    assert f"{script.N_NIH:,} NIH-like" in flat and f"{script.N_VINDR:,} VinDr-like" in flat


def long_runs(text):
    """The commands of the course in a page's fenced shell blocks, each as its words."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [w for w in words if "cxr_helpers.course" in w]


def test_the_commands_of_a_long_run_can_be_given():
    commands = long_runs(page("paper_scale"))
    assert len(commands) == 5
    for words in commands:
        own = words[words.index("cxr_helpers.course") + 1 :]
        options = cli.parser().parse_args(own)  # leaves with status 2 where it cannot
        assert options.scale == "paper" and options.seed == 0
        assert options.accelerator == "gpu" or options.stage == "probe"
    launched = get_args_parser().parse_args(commands[-1][1:])
    assert commands[-1][0] == "torchrun" and launched.module
    assert launched.rdzv_backend == "c10d" and launched.rdzv_endpoint and launched.max_restarts > 0
