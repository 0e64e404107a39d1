"""The benchmark of linear evaluation: its table over seeds, on made-up scores."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from course_data import made_up_nih

from cxr_helpers.course.core.settings import load_settings

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "linear_evaluation.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("linear_evaluation", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data():
    return made_up_nih()


def scored(data, *, signal, seed, draws=3):
    """Scores of the test images: the labels times `signal` in noise."""
    rng = np.random.default_rng(seed)
    labels = data.labels[data.rows("test")][:, :2]
    return [signal * labels + rng.normal(size=labels.shape) for _ in range(draws)]


def table(benchmark, data, signals):
    by_seed = [
        {
            "random": {0.1: scored(data, signal=0, seed=10 * i)},
            "pretrained": {0.1: scored(data, signal=s, seed=10 * i)},
        }
        for i, s in enumerate(signals)
    ]
    settings = replace(load_settings({}), seed=0)
    return benchmark.seeds_table(settings, data, [0, 1], by_seed)


def test_a_clear_difference_is_above_zero_for_every_seed(benchmark, data):
    rows, per_seed = table(benchmark, data, [1.5, 2, 2.5])
    row = rows.loc["10%"]
    assert row["low"] > 0 and row["t low"] > 0 and row["seeds above 0"] == "3 of 3"
    assert row["difference"] == pytest.approx(row["pretrained"] - row["random"])
    assert row["difference"] == pytest.approx(np.mean(per_seed["10%"]), abs=1e-3)
    assert per_seed["10%"] == sorted(per_seed["10%"])


def test_without_a_difference_the_interval_is_a_point(benchmark, data):
    row = table(benchmark, data, [0, 0])[0].loc["10%"]
    assert row["low"] == row["high"] == row["difference"] == row["t low"] == 0


def test_seeds_that_disagree_widen_the_interval(benchmark, data):
    agree = table(benchmark, data, [1, 1, 1, 1])[0].loc["10%"]
    disagree = table(benchmark, data, [0, 0, 2, 2])[0].loc["10%"]
    assert disagree["high"] - disagree["low"] > 1.3 * (agree["high"] - agree["low"])


def test_one_seed_has_no_interval_over_seeds(benchmark, data):
    row = table(benchmark, data, [1])[0].loc["10%"]
    assert np.isnan(row["t low"]) and row["low"] < row["high"]


def test_the_fit_at_size_runs_and_learns(benchmark):
    found = benchmark.fit_real_size(3000, 20)
    assert found["auroc_validation"] > 0.7 and found["peak_gb"] > 0
