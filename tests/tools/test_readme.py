"""The README: its generated parts, its links, its commands."""

import importlib
import re
import shlex

import pytest
from torch.distributed.run import get_args_parser

from cxr_helpers.course import __main__ as cli
from cxr_helpers.course.core.settings import project_root
from tools import readme
from tools.anywhere import badges, repository_address

COST = {"seconds": 90.0, "peak_memory_mb": 2048}
ALL = dict.fromkeys(readme.QUESTIONS, COST)
TEXT = (project_root() / "README.md").read_text(encoding="utf-8")


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


def test_it_has_the_badges_and_links_only_to_files_that_exist():
    present = readme.replace_between(TEXT, badges(repository_address()), name="badges")
    assert present == TEXT, "run python -m tools.readme --no-results"
    local = [t for t in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in t]
    assert local and all((project_root() / t).is_file() for t in local)


def test_it_says_how_many_images_the_demo_has(monkeypatch):
    monkeypatch.syspath_prepend(project_root() / "data_scripts")
    script = importlib.import_module("make_demo")
    flat = " ".join(TEXT.split())
    assert f"{script.N_NIH:,} NIH-like" in flat and f"{script.N_VINDR:,} VinDr-like" in flat


def long_runs(text):
    """The commands of the course in a page's fenced shell blocks, each as its words."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [w for w in words if "cxr_helpers.course" in w]


def test_the_commands_of_a_long_run_are_those_of_notebook_06_and_can_be_given():
    source = project_root() / "notebooks" / "source" / "06_your_data_and_paper_scale.py"
    notebook = re.sub(r"^# ?", "", source.read_text(encoding="utf-8"), flags=re.MULTILINE)
    commands = long_runs(TEXT)
    assert commands == long_runs(notebook) and len(commands) == 5
    for words in commands:
        own = words[words.index("cxr_helpers.course") + 1 :]
        options = cli.parser().parse_args(own)  # leaves with status 2 where it cannot
        assert options.scale == "paper" and options.seed == 0
        assert options.accelerator == "gpu" or options.stage == "probe"
    launched = get_args_parser().parse_args(commands[-1][1:])
    assert commands[-1][0] == "torchrun" and launched.module
    assert launched.rdzv_backend == "c10d" and launched.rdzv_endpoint and launched.max_restarts > 0
