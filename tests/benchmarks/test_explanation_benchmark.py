"""The benchmark of explanations: which findings it asks about, and its clock."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_helpers.course.ch05.explained import Finding

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "explanation.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("explanation", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def finding(label, score):
    return Finding(0, label, score, np.array([0, 0, 4, 4.0]), np.zeros((0, 4)), "a class")


def test_the_surest_of_each_class_comes_first_then_the_rest(benchmark):
    scored = [(1, 0.9), (1, 0.8), (2, 0.3), (1, 0.85), (3, 0.5)]
    bench = {"found": {"evening": {"test": [finding(*pair) for pair in scored]}}, "main": "evening"}
    for count in (2, 3, 4, 5, 9):
        chosen = [(f.label, f.score) for f in benchmark.chosen_findings(bench, count)]
        order = [(1, 0.9), (3, 0.5), (2, 0.3), (1, 0.85), (1, 0.8)]
        assert chosen == order[:count]


def test_a_map_beats_place_only_above_both_baselines_by_the_readers(benchmark):
    rows = [
        ("readers", "cell ablation", "centered bell", 0.1),
        ("readers", "cell ablation", "class prior", -0.01),
        ("readers", "cell ablation", "detected box", -0.5),
        ("exact", "cell ablation", "class prior", 0.3),
        ("readers", "linear probe", "centered bell", 0.01),
        ("readers", "linear probe", "class prior", 0.2),
    ]
    gains = pd.DataFrame(rows, columns=["truth", "map", "minus", "low"])
    assert not benchmark.beats_place(gains, "cell ablation")
    assert benchmark.beats_place(gains, "linear probe")


def test_the_first_call_is_not_counted(benchmark):
    calls = []
    seconds = benchmark.seconds_of(lambda: calls.append(None), 4)
    assert len(calls) == 5 and 0 <= seconds < 1
