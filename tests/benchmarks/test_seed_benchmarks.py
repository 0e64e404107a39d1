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
def detection():
    return load("detection")


@pytest.fixture(scope="module")
def pretraining():
    return load("pretraining")


def differences(each, *, images=0.1, resamples=500):
    """(S,) and (S, R): each seed's difference, moved by resampling as the images move all."""
    each = np.array(each, float)
    shared = np.random.default_rng(0).normal(0, images, resamples)
    return each, each[:, None] + shared


def test_the_gain_over_seeds_by_hand(detection):
    each = np.array([0.1, 0.2, 0.3])
    found = detection.gain(each, np.tile(each[:, None], (1, 500)), 60)
    half = 4.302653 * 0.1 / 3**0.5
    assert found["value"] == found["low"] == found["high"] == pytest.approx(0.2)
    assert found["t_high"] - 0.2 == pytest.approx(half)
    assert found["high_both"] - 0.2 == pytest.approx(half)  # no image moves anything


def test_images_and_seeds_together_are_wider_than_images_alone(detection):
    found = detection.gain(*differences([0.0, 0.1, 0.3]), 60)
    assert found["value"] == pytest.approx(0.4 / 3)
    assert found["high_both"] - found["low_both"] > found["high"] - found["low"] > 0.3


def test_a_single_seed_has_an_interval_over_images_alone(detection):
    found = detection.gain(*differences([0.1]), 60)
    assert found["low"] < 0.1 < found["high"]
    assert [found[k] for k in ("low_both", "high_both", "t_low", "t_high")] == [None] * 4


def test_the_verdict_is_on_images_and_seeds_together(detection):
    each, drawn = differences([0.05, 0.1, 0.15], images=0.001)
    one = detection.gain(each, drawn, 60)
    assert one["low"] > 0.09 and one["low_both"] < 0
    lines = detection.verdicts(None, [], {1.0: one})
    assert any("lower end of the gain" in line and "NOT KEPT" in line for line in lines)
    alone = detection.gain(*differences([0.1]), 60)
    assert not any("lower end" in line for line in detection.verdicts(None, [], {1.0: alone}))


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
