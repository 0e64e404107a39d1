"""The benchmark of the box probe: its intervals and verdicts, on made-up scores."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from tiny_detection import small_settings

from cxr_helpers.course.ch04 import box_probe
from cxr_helpers.course.ch04.box_probe import GEOMETRY, PIXELS, Judged, ProbePlaces
from cxr_helpers.detection.box_probe import Places

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "box_probe.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_box_probe", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def judged(arm, stage, value, *, validation=None, noise=None):
    """One class; resamples scatter around the value, in the same way for all."""
    noise = np.random.default_rng(0).normal(0, 0.01, 200) if noise is None else noise
    chosen_by = value if validation is None else validation
    return Judged(arm, stage, chosen_by, 1.0, np.array([value]), (value + noise)[:, None])


def one_seed(gain, *, seed=0, geometry=0.5):
    own = np.random.default_rng(seed).normal(0, 0.01, 200)
    return [
        judged(PIXELS, "", 0.7),
        judged(GEOMETRY, "", geometry),
        judged("random", "layer1", 0.75),
        judged("random", "layer2", 0.7),
        judged("pretrained", "layer1", 0.7),
        judged("pretrained", "layer2", 0.75 + gain, noise=own),
    ]


def test_the_gain_is_between_the_stages_that_validation_chose(benchmark):
    by_seed = {seed: one_seed(0.05 + 0.01 * seed, seed=seed) for seed in range(3)}
    table = benchmark.gains(by_seed, 60).set_index(["arm", "minus", "stage"])
    assert table.loc[("pretrained", "random", "chosen"), "value"] == pytest.approx(0.06)
    assert table.loc[("pretrained", "random", "layer2"), "value"] == pytest.approx(0.11)
    assert table.loc[("pretrained", PIXELS, "chosen"), "value"] == pytest.approx(0.11)
    assert table.loc[("random", PIXELS, "layer1"), "value"] == pytest.approx(0.05)
    assert GEOMETRY not in table.index.get_level_values("arm")


def test_several_seeds_widen_the_interval_and_a_single_one_has_its_images(benchmark):
    rng = np.random.default_rng(0)
    each, shared = np.array([0.0, 0.1, 0.3]), rng.normal(0, 0.01, 200)
    both = benchmark.gain(each, each[:, None] + shared, 60)
    assert both["value"] == pytest.approx(0.4 / 3) and both["high"] - both["low"] > 0.4
    alone = benchmark.gain(each[1:2], 0.1 + shared[None], 60)
    assert 0.06 < alone["low"] < 0.1 < alone["high"] < 0.14


@pytest.mark.parametrize(
    ("gain", "geometry", "missed"),
    [
        (0.08, 0.5, []),
        (0.02, 0.5, ["pretrained minus random"]),
        (-0.01, 0.5, ["pretrained minus random", "lower end of pretrained minus random"]),
        (0.08, 0.6, [GEOMETRY]),
    ],
)
def test_aims_are_kept_or_not(benchmark, gain, geometry, missed):
    by_seed = {seed: one_seed(gain, seed=seed, geometry=geometry) for seed in range(3)}
    lines = benchmark.verdicts(benchmark.gains(by_seed, 60), benchmark.scores(by_seed))
    assert len(lines) == 5 and all(line.startswith("aim ") for line in lines)
    found = [line for line in lines if "NOT KEPT" in line]
    assert len(found) == len(missed)
    for line, words in zip(found, missed, strict=True):
        assert words in line


def test_scores_name_stages_seeds_and_who_chose_them(benchmark):
    found = benchmark.scores({s: one_seed(0.05, seed=s) for s in (3, 4)})
    line = found.set_index(["arm", "stage"]).loc[("pretrained", "layer2")]
    assert line["seed 3"] == line["seed 4"] == line["mean"] == pytest.approx(0.8)
    assert line["chosen"] == 2 and found["chosen"].sum() == 2 * 4


def test_each_network_is_judged_once_a_seed_and_the_evening_once(
    benchmark, tmp_path, monkeypatch, capsys
):
    asked = []

    def network(settings, data, places, arm, *, seed):
        asked.append((arm, seed))
        if arm == "imagenet":
            return [], "Not in the cache."
        value = {"random": 0.75, "pretrained": 0.78, "evening": 0.85}[arm]
        own = np.random.default_rng(seed).normal(0, 0.005, 200)
        return [judged(arm, "layer1", value + 0.001 * seed, noise=own)], "here"

    one = Places(np.zeros(2, int), np.ones((2, 4)), np.ones(2, int), np.array([True, False]))
    parts = dict.fromkeys(("train", "val", "test"), one)
    places = ProbePlaces(parts, np.arange(60), (1,), ("Mass",), "the exact boxes")
    monkeypatch.setattr(benchmark, "load_settings", lambda _: small_settings(tmp_path))
    monkeypatch.setattr(benchmark, "ensure_demo", lambda _: None)
    monkeypatch.setattr(benchmark, "load_vindr", lambda _: None)
    monkeypatch.setattr(box_probe, "draw_places", lambda *_: places)
    monkeypatch.setattr(box_probe, "judge_baselines", lambda *_: one_seed(0)[:2])
    monkeypatch.setattr(box_probe, "judge_network", network)
    assert benchmark.main(["--seeds", "1", "2"]) == 1  # pretrained here gains 0.03
    told = capsys.readouterr().out
    assert "aim evening minus random" in told and told.count("NOT KEPT") == 1
    assert sorted(asked) == [
        ("evening", 1), ("imagenet", 1),
        ("pretrained", 1), ("pretrained", 2), ("random", 1), ("random", 2),
    ]  # fmt: skip
    (path,) = (tmp_path / "runs" / "benchmarks").glob("*.json")
    saved = json.loads(path.read_text(encoding="utf-8"))["metrics"]
    assert saved["left_out"] == ["imagenet: Not in the cache."] and saved["seeds"] == [1, 2]
