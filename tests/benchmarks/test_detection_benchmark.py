"""The benchmark of detection: intervals, tables and aims, on made-up precision; what is stored."""

import argparse
import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from box_cases import matched, prediction, truth
from tiny_detection import small_settings, vindr_data

from cxr_helpers.course.ch04 import experiment
from cxr_helpers.course.core.settings import load_settings
from cxr_helpers.course.core.stored import read_stored

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def detection():
    path = ROOT / "benchmarks" / "detection.py"
    spec = importlib.util.spec_from_file_location("benchmark_detection", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


def made_up(detection, precision, *, spread=0.001):
    """Scored detectors of two classes: arm -> precision of the first; the second is never found."""
    rng = np.random.default_rng(0)
    nothing = matched([prediction()], [truth([[0, 0, 9, 9]], [1])])
    scored = {}
    for (arm, fraction), values in precision.items():
        for seed, value in enumerate(values):
            own = {t: np.array([value, 0.0]) for t in detection.TRUTHS}
            drawn = {t: v + rng.normal(0, spread, (200, 2)) for t, v in own.items()}
            scored[arm, fraction, seed] = detection.Scored(own, drawn, nothing, None)
    return scored


@pytest.fixture
def table(detection):
    precision = {
        ("random", 0.3): [0.2, 0.3], ("random", 1.0): [0.4, 0.5],
        ("evening", 0.3): [0.4, 0.5], ("evening", 1.0): [0.5, 0.5],
    }  # fmt: skip
    scored = made_up(detection, precision)
    return detection.seeds_table(scored, ["mass", "node"], ["mass"], n_images=60)


def one_row(table, **wanted):
    found = table[(table[list(wanted)] == pd.Series(wanted)).all(axis=1)]
    assert len(found) == 1
    return found.iloc[0]


def test_the_table_by_hand(detection, table):
    assert list(table.columns) == detection.COLUMNS
    whole = {"truth": "exact", "classes": "all", "fraction": 1.0, "minus": ""}
    assert one_row(table, arm="evening", seed="all", **whole)["value"] == pytest.approx(0.25)
    assert one_row(table, arm="random", seed="1", **whole)["value"] == pytest.approx(0.25)
    found = whole | {"classes": "found on validation"}
    assert one_row(table, arm="evening", seed="all", **found)["value"] == pytest.approx(0.5)
    gain = one_row(table, arm="evening", seed="all", **(found | {"minus": "random"}))
    assert gain["value"] == pytest.approx(0.05)
    assert gain["low"] < 0 < gain["high"]  # 0.1 and 0.0: two seeds do not settle it


def test_the_aims_are_of_the_readers_truth_on_all_classes(detection, table):
    table.loc[table["truth"] == "exact", ["value", "low"]] = 0.9
    lines = detection.verdicts(None, table)
    kept = {re.split(r"  +", line)[0]: "NOT" not in line for line in lines}
    assert kept == {
        "mAP50 at all boxes, evening": True,
        "evening minus random at 30%": True,
        "evening minus random at 30%, lower end": True,
        "evening minus random at 100%": False,
        "evening minus random at 100%, lower end": False,
    }


def test_one_seed_has_intervals_over_images_alone(detection):
    precision = {("random", 1.0): [0.4], ("evening", 1.0): [0.5]}
    scored = made_up(detection, precision, spread=0.1)
    table = detection.seeds_table(scored, ["mass", "node"], ["mass"], n_images=60)
    both = table[(table["arm"] == "evening") & (table["minus"] == "random")]
    both = both[(both["truth"] == "readers") & (both["classes"] == "all")].set_index("seed")
    assert both.loc["all", "low"] == both.loc["0", "low"] < both.loc["all", "value"]


def test_one_arm_alone_is_told_without_a_difference(detection):
    scored = made_up(detection, {("evening", 1.0): [0.4, 0.5]})
    table = detection.seeds_table(scored, ["mass", "node"], ["mass"], n_images=60)
    assert set(table["arm"]) == {"evening"} and set(table["minus"]) == {""}


def test_recipes_are_chosen_on_validation_for_each_arm_alike(detection, monkeypatch):
    class Detector:
        def __init__(self, arm, settings, fraction):
            preset = settings.detect
            slow = preset.backbone_rate == 0.1
            self.value = 0.3 + (slow == (arm == "evening")) / 10 + preset.learning_rate + fraction

    def trained(settings, data, arm, *, seed, fraction):
        return None if arm == "imagenet" else (Detector(arm, settings, fraction), "path", 1.0)

    monkeypatch.setattr(detection, "trained", trained)
    monkeypatch.setattr(detection, "on_validation", lambda data, made, path: made.value)
    monkeypatch.setattr(detection.dm, "mean_average_precision", lambda value: value)
    table = detection.measure_recipes(
        load_settings({}), None, arms=["random", "evening", "imagenet"], seeds=[0],
        fractions=[0.0, 0.2], rates=[1e-3, 2e-3], backbone_rates=[0.0, 0.1, 1.0],
    )  # fmt: skip
    assert table.groupby("arm").size().to_dict() == {"evening": 6, "random": 6}
    chosen = table[table["chosen"]].set_index("arm")
    assert chosen.loc["evening", "backbone_rate"] == 0.1 != chosen.loc["random", "backbone_rate"]
    assert set(chosen["learning_rate"]) == {2e-3}
    assert chosen.loc["evening", "value"] == pytest.approx(0.3 + 0.1 + 2e-3 + 0.1)
    assert "\"evening\": {'learning_rate': 0.002, 'backbone_rate': 0.1}" in (
        detection.recipes_text(table)
    )


def test_seeds_are_measured_from_training_to_table(detection, tmp_path, monkeypatch):
    data = vindr_data()
    data = replace(data, exact=data.fused)
    settings = small_settings(tmp_path, resamples=20)
    real = experiment.pretraining.arm_state
    monkeypatch.setattr(
        experiment.pretraining, "arm_state",
        lambda s, arm, *, seed: (None, "no") if arm == "imagenet" else real(s, "random", seed=seed),
    )  # fmt: skip
    scored, absent = detection.measure_seeds(
        settings, data, arms=["random", "evening", "imagenet"], seeds=[0], fractions=[1.0]
    )
    assert absent == ["imagenet"] and len(scored) == 2
    one = scored["evening", 1.0, 0]
    assert one.drawn["exact"].shape == (20, len(data.class_names)) and one.minutes > 0
    assert len(one.validation.truths) == len(data.rows("val", abnormal_only=True))


# What comes with the course, where it is there.
def stored(name):
    settings = load_settings({})
    found = read_stored(name, settings)
    if found is None:
        pytest.skip(f"{name} is not stored")
    script = (ROOT / "data_scripts" / "make_demo.py").read_text(encoding="utf-8")
    version = re.search(r'^VERSION = "(\w+)"', script, re.MULTILINE)[1]
    assert found.record["demo"]["version"] == version
    return found, settings


@pytest.mark.parametrize("name", ["detectors", "detectors_long"])
def test_the_stored_detectors_have_all_columns_and_shares(detection, name):
    found, settings = stored(name)
    assert list(found.table.columns) == detection.COLUMNS
    assert {1.0} <= set(found.table["fraction"]) <= set(settings.detect.fractions)
    assert {"random", "evening"} <= set(found.table["arm"])
    assert set(found.table["truth"]) == set(detection.TRUTHS) and found.record["found"]
    assert found.record["recipes"].items() <= settings.detect.recipes.items()


def run_with_stored(detection, monkeypatch, tmp_path, *, seeds, epochs=None):
    """`run_seeds --store-shares` at three tenths, beside a stored table of all images."""
    data = replace(vindr_data(), exact=None)
    settings = replace(small_settings(tmp_path, resamples=20), project=tmp_path)
    (tmp_path / "data/demo").mkdir(parents=True)
    demo = {"seed": 0, "version": "x", "n_nih": 1, "n_vindr": 1}
    (tmp_path / "data/demo/demo.json").write_text(json.dumps(demo), encoding="utf-8")
    monkeypatch.setattr(detection, "load_vindr", lambda settings: data)
    asked = []

    def measured(settings, data, *, fractions, **how):
        asked.append(fractions)
        return made_up(detection, {("random", fractions[0]): [0.2, 0.3]}), []

    monkeypatch.setattr(detection, "measure_seeds", measured)
    monkeypatch.setattr(detection, "found_classes", lambda scored: ("mass",))
    names = {"arms": ["random"], "seeds": [0, 1], "store": True, "store_shares": False}
    names["epochs"] = epochs
    one = argparse.Namespace(fractions=[1.0], **names)
    monkeypatch.setattr(detection.dm, "mean_over_classes", lambda drawn, *a, **k: drawn[:, 0])
    detection.run_seeds(settings, one, "first --store")
    monkeypatch.setattr(detection, "found_classes", lambda scored: pytest.fail("asked anew"))
    names |= {"store": False, "store_shares": True, "seeds": seeds}
    detection.run_seeds(settings, argparse.Namespace(fractions=[0.3], **names), "then")
    return read_stored("detectors_long" if epochs else "detectors", settings), asked


@pytest.mark.parametrize("epochs", [None, 12])
def test_a_share_is_stored_beside_the_others(detection, monkeypatch, tmp_path, epochs):
    found, asked = run_with_stored(detection, monkeypatch, tmp_path, seeds=[0, 1], epochs=epochs)
    usual = read_stored("detectors", replace(load_settings({}), project=tmp_path))
    assert (usual is None) == bool(epochs)  # a longer training has a table of its own
    assert asked == [[1.0], [0.3]]  # nothing is trained again
    assert found.table.groupby("fraction").size().to_dict() == {0.3: 12, 1.0: 12}
    assert found.record["command"] == "first --store && then"
    assert found.record["found"] == ["mass"]


def test_a_share_of_other_seeds_is_refused_before_it_is_trained(detection, monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="another seeds"):
        run_with_stored(detection, monkeypatch, tmp_path, seeds=[0])


def test_no_epochs_are_refused(detection, capsys):
    with pytest.raises(SystemExit):
        detection.main(["--epochs", "0"])
    assert "--epochs must be at least 1, not 0" in capsys.readouterr().err


def test_a_share_beside_nothing_is_refused(detection):
    with pytest.raises(SystemExit, match="use --store"):
        detection.same_but_for_shares(None, {})


def test_the_stored_recipes_are_those_of_the_settings(detection):
    found, settings = stored("detector_recipes")
    chosen = found.table[found.table["chosen"].astype(str) == "True"].set_index("arm")
    for arm, row in chosen.iterrows():
        assert row[list(detection.RATES)].to_dict() == settings.detect.recipes[arm]
    assert found.record["demo"]["seed"] != 0  # the demo that notebooks show chooses nothing
