"""The workflows, templates and the guide for contributors name what there is."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from cxr_helpers.course.core.settings import PRESETS

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(MAKEFILE.split(".PHONY: ")[1].splitlines()[0].split())
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def jobs(path):
    """The jobs of a workflow by name."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_what_it_needs_and_calls_what_there_is(path):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "permissions", "jobs"} <= content.keys()
    assert content[True], "YAML 1.1 reads the key 'on' as True"
    for name, job in content["jobs"].items():
        assert {"runs-on", "timeout-minutes", "steps"} <= job.keys(), name
        matrix = job.get("strategy", {}).get("matrix", {})
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step), name
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/x@v1"))
            for made in re.findall(r"^make (\S+|\$\{\{ matrix\.target \}\})", step.get("run", "")):
                assert {*matrix.get("target", [made])} <= TARGETS, name
    assert [path.stem for path in WORKFLOWS] == ["tests", "weekly"]


def test_every_python_that_is_promised_is_tested_and_all_of_it_on_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    tail = [line.rsplit(" ", 1)[1] for line in project["classifiers"] if " :: 3." in line]
    tests = jobs(ROOT / ".github" / "workflows" / "tests.yml")
    named = {step["with"]["python-version"] for job in tests.values() for step in job["steps"][1:2]}
    matrix = tests["linux"]["strategy"]["matrix"]["python"]
    assert sorted(named - {"${{ matrix.python }}"} | {*matrix}) == tail
    assert tests["everything"]["steps"][-1] == {"run": ".ci/run"}
    command = " ".join(tests["windows"]["steps"][-1]["run"].split())
    assert command == (
        'python -m pytest -q -n 2 --dist loadfile -m "not real and not slow" '
        "--doctest-modules cxr_helpers tools tests"
    )
    unit = re.search(r"^UNIT := (.*)$", MAKEFILE, re.MULTILINE)[1].replace("$(WORKERS)", "2")
    daily = re.search(r'-m \$\(UNIT\) --durations=5 (-m ".*?") (.*)$', MAKEFILE, re.MULTILINE)
    assert {*unit.split(), *daily[1].split(), *daily[2].split()} <= {*command.split()}


def test_the_guide_names_files_targets_and_presets_that_there_are():
    assert len(GUIDE.splitlines()) <= 120
    for target in re.findall(r"\bmake ([a-z-]+)", GUIDE):
        assert target in TARGETS, target
    for path in set(
        re.findall(r"`((?:tests|tools|docs|data_scripts|cxr_helpers)/[\w/]+\.\w+)`", GUIDE)
    ):
        assert (ROOT / path).is_file(), path
    for name in set(re.findall(r"`((?:core|ch\d\d|plots)/\w+\.py|course/[\w/]+\.py)`", GUIDE)):
        folder = ROOT / "cxr_helpers" / ("" if name.startswith("course") else "course")
        assert "NN" in name or (folder / name).is_file(), name
    assert "quick" in PRESETS


def test_issues_and_pull_requests_begin_with_questions():
    for path in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.md")):
        head = yaml.safe_load(path.read_text(encoding="utf-8").split("---")[1])
        assert {"name", "about"} <= head.keys(), path.name
    assert "make check" in (ROOT / ".github" / "pull_request_template.md").read_text()
