"""The benchmarks over several seeds: their intervals, on made-up differences."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pretraining():
    return load("pretraining")


def differences(each, *, images=0.1, resamples=500):
    """(S,) and (S, R): each seed's difference, moved by resampling as the images move all."""
    each = np.array(each, float)
    shared = np.random.default_rng(0).normal(0, images, resamples)
    return each, each[:, None] + shared


def test_gains_of_pretraining_cover_seeds_and_patients(pretraining):
    each, drawn = differences([0.0, 0.1, 0.3])
    found = pretraining.intervals_of(np.c_[each, drawn], n_patients=60)
    seeds, both = found["over seeds"], found["seeds and patients"]
    assert seeds["value"] == both["value"] == pytest.approx(0.4 / 3)
    expected = (seeds["high"] - seeds["value"]) / 4.302653  # standard error of three seeds
    error = (expected**2 + drawn[0].var() * 60 / 59) ** 0.5
    half = both["high"] - both["value"]
    assert 1.96 * error < half < 4.31 * error
    alone = pretraining.intervals_of(np.c_[each, drawn][:1], n_patients=60)
    assert alone["over seeds"]["low"] is None and alone["seeds and patients"]["high"] is None
