"""The benchmark of the notebooks' minutes: each has an aim, and so have all together."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("course")


def test_each_notebook_and_all_together_are_held_to_their_minutes(script):
    minutes = {"00": 0.1, "01": 0.4, "02": 4.9, "03": 4.2, "04": 3.0, "05": 1.0, "06": 1.0}
    lines = script.verdicts(minutes)
    assert ["NOT KEPT" in line for line in lines] == [False, True, False, False, False]
    assert "NOT KEPT" in script.verdicts(minutes | {"06": 3.0})[-1]


def test_a_notebook_that_did_not_run_keeps_nothing(script):
    lines = script.verdicts({"02": 1.0, "03": 1.0, "04": 1.0})
    assert ["NOT KEPT" in line for line in lines] == [False, False, False, True, True]
