"""The benchmark of linear evaluation: curves over seeds on made-up scores, and what is stored."""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from course_data import made_up_nih

from cxr_helpers.course.core.settings import load_settings
from cxr_helpers.course.core.stored import read_stored

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "benchmarks" / "linear_evaluation.py"


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


def macros_of(benchmark, data, signals, *, pixels=None):
    by_seed = [
        {
            "random": {0.1: scored(data, signal=0, seed=10 * i)},
            "pretrained": {0.1: scored(data, signal=s, seed=10 * i)},
        }
        for i, s in enumerate(signals)
    ]
    if pixels is not None:
        by_seed[0]["pixels"] = {0.1: scored(data, signal=pixels, seed=99, draws=2)}
    test = data.rows("test")
    labels, patients = data.labels[test][:, :2], data.patients[test]
    return benchmark.resampled_macros(labels, patients, by_seed, seed=0)


def gain(benchmark, data, signals):
    table = benchmark.curves(macros_of(benchmark, data, signals), n_patients=24, seed=0)
    return table.set_index(["arm", "minus"]).loc[("pretrained", "random")]


def test_a_clear_difference_is_above_zero_for_every_seed(benchmark, data):
    macros = macros_of(benchmark, data, [1.5, 2, 2.5])
    assert macros["random"][0.1].shape == (3, 3, 1 + benchmark.RESAMPLES)
    table = benchmark.curves(macros, n_patients=24, seed=0)
    at = table.set_index(["arm", "minus"])
    row = at.loc[("pretrained", "random")]
    assert row["low"] > 0 and row["seeds_above"] == row["seeds"] == 3
    apart = at.loc[("pretrained", ""), "value"] - at.loc[("random", ""), "value"]
    assert row["value"] == pytest.approx(apart)


def test_without_a_difference_the_interval_is_a_point(benchmark, data):
    row = gain(benchmark, data, [0, 0])
    assert row["low"] == row["high"] == row["value"] == 0 and row["seeds_above"] == 0


def test_seeds_that_disagree_widen_the_interval(benchmark, data):
    agree, disagree = (gain(benchmark, data, s) for s in ([1, 1, 1, 1], [0, 0, 2, 2]))
    assert disagree["high"] - disagree["low"] > 1.3 * (agree["high"] - agree["low"])


def test_an_arm_without_a_seed_is_paired_with_each_seed_on_the_same_draws(benchmark, data):
    macros = macros_of(benchmark, data, [1, 2], pixels=1.5)
    table = benchmark.curves(macros, n_patients=24, seed=0)
    at = table.set_index(["arm", "minus"])
    assert at.loc[("pixels", ""), "seeds"] == 1
    row = at.loc[("pretrained", "pixels")]
    assert row["seeds"] == 2 and row["low"] < row["value"]
    first_two = macros["pretrained"][0.1][:, :2, 0].mean() - macros["pixels"][0.1][0, :, 0].mean()
    assert row["value"] == pytest.approx(first_two)


def test_an_aim_needs_the_difference_and_an_interval_above_zero(benchmark):
    columns = ["arm", "minus", "fraction", "value", "low", "high"]
    rows = [
        ("evening", "random", 0.01, 0.09, 0.02, 0.16),
        ("evening", "random", 0.1, 0.09, -0.01, 0.19),
        ("evening", "random", 1.0, 0.07, 0.05, 0.09),
    ]
    aims = [("evening", "random", (0.01, 0.1, 1.0), 0.08), ("evening", "pixels", (0.1,), 0.0)]
    lines = list(benchmark.verdicts(pd.DataFrame(rows, columns=columns), aims, of="2 seeds"))
    assert ["NOT KEPT" in line for line in lines] == [False, True, True, True]
    assert "1% of the labels" in lines[0] and "+0.090 (+0.020 to +0.160)" in lines[0]
    assert lines[3].endswith("NOT KEPT: not measured")
    table = pd.DataFrame(rows, columns=columns)
    lines = list(benchmark.verdicts(table, aims[:1], of="real", above_zero=False))
    assert ["NOT KEPT" in line for line in lines] == [False, False, True]


def test_real_radiographs_get_caches_of_their_own(benchmark, tmp_path):
    settings = load_settings({})
    (tmp_path / "reals").mkdir()
    found = benchmark.real_settings(settings, tmp_path / "reals")
    assert found.runs != settings.runs and found.pretrain == settings.pretrain
    with pytest.raises(ValueError, match="folder named demo"):
        benchmark.real_settings(settings, tmp_path / "demo")


def test_the_fit_at_size_runs_and_learns(benchmark):
    found = benchmark.fit_real_size(3000, 20)
    assert found["auroc_validation"] > 0.7 and found["peak_gb"] > 0


@pytest.mark.parametrize("name", ["label_curves", "label_curves_real"])
def test_what_is_stored_is_of_the_demo_that_the_course_makes(name):
    found = read_stored(name, replace(load_settings({}), project=ROOT))
    if found is None:
        pytest.skip(f"notebooks/stored has no {name}.csv: python benchmarks/linear_evaluation.py")
    table, record = found.table, found.record
    columns = ["arm", "minus", "fraction", "value", "low", "high", "seeds", "seeds_above"]
    assert table.columns.tolist() == columns
    arms = {"random", "pretrained", "evening", "pixels"}
    arms |= {"from scratch"} if name == "label_curves" else set()
    assert arms <= set(table["arm"]) and table["value"].between(-1, 1).all()
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    script = (ROOT / "data_scripts" / "make_demo.py").read_text(encoding="utf-8")
    version = re.search(r'^VERSION = "(\w+)"', script, re.MULTILINE)[1]
    assert record["demo"]["version"] == version and record["demo"]["seed"] == 0
    assert record["command"].startswith("python benchmarks/linear_evaluation.py --parts")
