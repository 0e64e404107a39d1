"""The check against the newest releases, piece by piece: the whole of it takes long."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools import freshness

ROOT = Path(__file__).resolve().parents[2]
PINS = {"numpy": "2.4.6", "tqdm": "4.70.1"}
INSTALLED = [{"name": "NumPy", "version": "2.5.0"}, {"name": "tqdm", "version": "4.70.1"}]


def step(name, code, **options):
    return freshness.Step(name, (sys.executable, "-c", code), Path.cwd(), **options)


def listing():
    code = f"print({json.dumps(json.dumps(INSTALLED))})"
    return freshness.Step("list", (sys.executable, "-c", code, "--format=json"), Path.cwd())


def test_the_plan_takes_the_newest_releases_and_leaves_the_checkout_alone(tmp_path):
    steps = freshness.plan(ROOT, tmp_path)
    install = next(s for s in steps if "install" in s.command)
    assert "-c" not in install.command and "constraints.txt" not in " ".join(install.command)
    assert install.command[-2:] == ("-e", ".[dev]")
    inside = [s for s in steps if s.folder.is_relative_to(tmp_path)]
    assert {s.folder for s in inside} == {tmp_path / "course"}
    assert [s.name for s in steps if s not in inside] == [s.name for s in steps[:2]]
    assert all(s.command[0].startswith(str(tmp_path / "env")) for s in inside)
    both = " ".join(word for s in steps for word in s.command)
    assert "--nbval notebooks" in both and "--doctest-modules cxr_helpers tests" in both


def test_the_first_two_steps_work(tmp_path):
    if subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True).returncode:
        pytest.skip("this is not a git checkout, so there is nothing to clone")
    (outcome,) = freshness.run(freshness.plan(ROOT, tmp_path)[:1])
    assert outcome.status == 0, outcome.output
    assert (tmp_path / "course" / "pyproject.toml").is_file()


def test_a_dry_run_shows_each_command_and_does_nothing(capsys, monkeypatch):
    monkeypatch.setattr(freshness, "run", None)
    assert freshness.main(["--dry-run"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 2 * len(freshness.plan(ROOT, ROOT / "build" / "freshness"))
    assert any("pip install" in line for line in shown)


def test_a_needed_step_that_fails_ends_the_run():
    steps = [step("a", "raise SystemExit(3)"), step("b", "1 / 0", needed=True), step("c", "")]
    outcomes = freshness.run(steps)
    assert [outcome.status for outcome in outcomes] == [3, 1]
    assert "ZeroDivisionError" in outcomes[1].output


def test_the_report_names_tests_that_failed_and_versions_that_differ(tmp_path):
    (tmp_path / "test_x.py").write_text(
        "def test_good(): pass\ndef test_bad(): assert 1 == 2, 'no longer'\n"
    )
    results = tmp_path / "units.xml"
    command = (sys.executable, "-m", "pytest", "-q", "-c", "none.ini", f"--junitxml={results}")
    (tmp_path / "none.ini").write_text("[pytest]\n")
    outcomes = freshness.run(
        [freshness.Step("unit tests", command, tmp_path, tests=results), listing()]
    )
    page = freshness.report(outcomes, PINS, day="2026-01-02")
    assert "1 of 2 steps failed." in page and "| unit tests | failed with 1 |" in page
    assert "- `test_x::test_bad`: AssertionError: no longer" in page and "test_good" not in page
    assert "| numpy | 2.4.6 | 2.5.0 |" in page and "tqdm" not in page


def test_the_report_shows_the_last_lines_of_a_step_that_could_not_run():
    page = freshness.report(freshness.run([step("install", "1 / 0")]), PINS, day="")
    assert "## What broke: install" in page and "ZeroDivisionError" in page
    assert "could not be listed" in page


def test_the_report_of_a_good_run_says_so():
    page = freshness.report(freshness.run([step("a", "")]), PINS, day="")
    assert "Nothing broke." in page and "What broke" not in page


def test_the_pins_are_read():
    pins = freshness.read_pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert len(pins) > 150 and freshness.changes(pins, pins) == []
