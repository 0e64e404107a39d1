"""The benchmark on other demos judges by the aims of the two scripts that it borrows from."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("other_demos")


def test_each_aim_of_the_evening_is_told(script):
    labels = pd.DataFrame(
        [
            ("evening", minus, share, value, low, 0.2)
            for minus in ("random", "pixels")
            for share, value, low in ((0.01, 0.09, -0.01), (0.1, 0.07, 0.02), (1.0, 0.1, 0.05))
        ],
        columns=["arm", "minus", "fraction", "value", "low", "high"],
    )
    boxes = pd.DataFrame(
        [
            ("evening", "random", 0.06, 0.05, 0.07),
            ("evening", script.box_probe.PIXELS, -0.1, -0.2, 0),
        ],
        columns=["arm", "minus", "value", "low", "high"],
    )
    lines = script.verdicts(labels, boxes, of="demo 2")
    kept = ["NOT" not in line for line in lines]
    # At 1% both intervals hold zero; at 10% the gain over random weights is below 0.08.
    assert kept == [False, False, True, False, True, True, True, False]
    assert all("demo 2" in line for line in lines) and "boxes" in lines[-1]


def test_no_weights_is_an_error_that_says_how_to_make_them(script, monkeypatch):
    told = "evening.safetensors is not there; `python -m tools.evening` makes it in an hour."
    monkeypatch.setattr(script.pretraining, "arm_backbone", lambda *a, **k: (None, told))
    with pytest.raises(SystemExit, match=r"tools\.evening"):
        script.arms_of(None, 0, fixed=True)


def test_detectors_on_all_boxes_are_told_against_random_weights(script, monkeypatch):
    detection, asked = script.detection, {}
    data = SimpleNamespace(class_names=["mass", "node"], rows=lambda *a, **k: range(60))

    def measured(settings, data, **how):
        asked.update(how)
        scored = {}
        for arm, value in {"random": 0.2, "evening": 0.4}.items():
            own = {truth: np.array([value, 0.0]) for truth in detection.TRUTHS}
            drawn = {truth: np.tile(values, (50, 1)) for truth, values in own.items()}
            scored[arm, 1.0, 0] = detection.Scored(own, drawn, None, None)
        return scored, []

    monkeypatch.setattr(script, "load_vindr", lambda settings: data)
    monkeypatch.setattr(detection, "measure_seeds", measured)
    monkeypatch.setattr(detection, "found_classes", lambda scored: ("mass",))
    lines = detection.verdicts(None, script.detector_gains(None, [0]))
    assert asked == {"arms": ("random", "evening"), "seeds": [0], "fractions": (1.0,)}
    assert any("evening minus random at 100%" in line and "kept" in line for line in lines)
