"""Linear evaluation, on made-up features."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from course_data import person_features
from sklearn.metrics import average_precision_score, roc_auc_score

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.course.ch03 import linear
from cxr_helpers.data import nih, splits
from cxr_helpers.evaluation import probe, scoring
from cxr_helpers.evaluation.checks import EvaluationError
from cxr_helpers.evaluation.feature_cache import FrozenFeatures
from cxr_helpers.pretraining import barlow, weights


def test_rare_labels_are_not_scored(data):
    assert linear.label_names(linear.scorable_labels(data)) == list(nih.LABELS[:2])


def test_draws_are_nested_training_patients_and_full_is_drawn_once(settings, data):
    draws = linear.draw_labels(settings, data, [0, 1])
    assert [len(rows) for rows in draws.rows.values()] == [2, 1] and draws.left_out == []
    train = set(data.rows("train"))
    for rows in draws.rows[0.2]:
        assert set(rows) < train
        outside = sorted(train - set(rows))
        assert splits.patient_overlap(data.patients[rows], data.patients[outside]) == 0
    assert draws.rows[0.2][0].tolist() != draws.rows[0.2][1].tolist()
    table = draws.table(data, [0, 1])
    assert table.loc["100%", "images"] == len(train)
    assert table.loc["20%", "patients"] == pytest.approx(table.loc["20%", "images"] / 3, abs=0.1)


def test_two_seeds_share_no_draw(settings, data):
    drawn = [
        {tuple(rows) for rows in linear.draw_labels(own, data, [0, 1]).rows[0.2]}
        for own in (replace(settings, seed=seed) for seed in (0, 1))
    ]
    assert len(drawn[0] | drawn[1]) == 4


def test_draws_without_any_positive_are_named_or_refused(settings, data):
    hernia = [nih.LABELS.index("Hernia")]
    with pytest.raises(EvaluationError, match="no draw can be used: 20%, draw 0.*larger"):
        linear.draw_labels(settings, data, hernia)
    tiny = replace(settings, probe=replace(settings.probe, fractions=(0.001, 1.0)))
    draws = linear.draw_labels(tiny, data, [0, 1])
    assert list(draws.rows) in ([1.0], [0.001, 1.0])
    assert len(draws.left_out) + sum(map(len, draws.rows.values())) == 3


@pytest.mark.parametrize("fraction", [0, 2, -1])
def test_impossible_fractions_are_refused(settings, data, fraction):
    wrong = replace(settings, probe=replace(settings.probe, fractions=(fraction,)))
    with pytest.raises(splits.SplitError, match=r"must lie in \(0, 1\]"):
        linear.draw_labels(wrong, data, [0, 1])


@pytest.mark.parametrize(
    ("metric", "reference"),
    [(scoring.auroc, roc_auc_score), (scoring.average_precision, average_precision_score)],
)
def test_informative_features_win_and_the_difference_says_so(settings, data, metric, reference):
    test, names = data.rows("test"), ["a", "b"]
    draws, ids = linear.draw_labels(settings, data, [0, 1]), np.array(data.images.image_ids)
    scores = {}
    for arm, knows in {"pretrained": True, "random": False}.items():
        features = person_features(data, informative=knows)
        probes = linear.fit_probes(data, features, data.labels[:, :2], names, draws)
        scores[arm] = linear.probe_scores(probes, features, ids[test])
    truth = data.labels[test][:, :2], data.patients[test]
    curve = linear.curves(settings, *truth, scores, names, metric=metric)
    assert len(curve) == 2 * 2 * 3 and (curve["low"] <= curve["value"]).all()
    macro = linear.macro_of(curve).set_index(["arm", "fraction"])["value"]
    expected = np.mean([reference(truth[0], s, average="macro") for s in scores["random"][0.2]])
    assert len(macro) == 4 and macro["random", 0.2] == pytest.approx(expected)
    options = {"minus": scores["random"], "metric": metric}
    gains = linear.curves(settings, *truth, {"gain": scores["pretrained"]}, names, **options)
    few, every = (row for _, row in linear.macro_of(gains).iterrows())
    assert few["value"] > 0.1  # a handful of patients: the sign is plain, the interval is wide
    assert every["low"] > 0.2 and linear.verdict(every) == "better"


def test_arms_with_fewer_shares_and_draws_are_paired_where_both_are(settings, data):
    test, rng = data.rows("test"), np.random.default_rng(0)
    labels, patients = data.labels[test][:, :2], data.patients[test]
    said = [labels * s + rng.normal(size=labels.shape) for s in (0, 0.5, 1, 1.5)]
    scores = {"many": {0.1: said[:3], 1.0: said[3:]}, "few": {0.1: said[1:2]}}
    drawn = linear.resampled_arms(settings, labels, patients, scores)
    assert drawn["many"][0.1].shape == (3, 1 + settings.probe.resamples, 2)
    apart = linear.macro_of(linear.curve_table(settings, drawn, "ab", minus=drawn["few"]))
    assert apart[["arm", "fraction"]].values.tolist() == [["many", 0.1], ["few", 0.1]]
    expected = np.mean(scoring.auroc(labels, said[0]) - scoring.auroc(labels, said[1]))
    assert apart["value"].tolist() == [pytest.approx(expected), 0]
    alone = linear.curves(settings, labels, patients, scores, "ab")
    pd.testing.assert_frame_equal(alone, linear.curve_table(settings, drawn, "ab"))


def test_an_arm_is_worth_the_share_at_which_it_does_what_random_weights_do_with_all():
    columns = ["arm", "fraction", "value"]
    rows = [
        ("random", 0.1, 0.5),
        ("random", 1.0, 0.6),
        ("evening", 0.1, 0.6),
        ("evening", 1.0, 0.7),
    ]
    said = linear.worth(pd.DataFrame(rows, columns=columns), "evening")
    assert said.endswith("with 10% of the labels as good as random weights with 100%")
    lucky = pd.DataFrame([("evening", 0.01, 0.9), *rows[:2], ("evening", 0.1, 0.5), rows[3]])
    said = linear.worth(lucky.set_axis(columns, axis=1), "evening")
    assert "with 100% of the labels as good" in said  # a single point at 1% does not count
    rows[2:] = [("evening", 0.1, 0.5), ("evening", 1.0, 0.59)]
    said = linear.worth(pd.DataFrame(rows, columns=columns), "evening")
    assert said == (
        "pretrained for an evening: 0.500 at 10%, 0.590 at 100%; at no share as good as random "
        "weights with 100%"
    )


def test_neighbors_score_the_same_draws(settings, data):
    draws = linear.draw_labels(settings, data, [0, 1])
    features = person_features(data, informative=True)
    found = linear.knn_scores(settings, data, features, [0, 1], draws)
    labels = data.labels[data.rows("test")][:, :2]
    assert [len(s) for s in found.values()] == [2, 1]
    assert scoring.auroc(labels, found[1.0][0]).min() > 0.75
    other = FrozenFeatures(features.values, [f"x{i}" for i in features.image_ids])
    with pytest.raises(
        EvaluationError, match="360 of 360 images have no features.*00000000_000.png"
    ):
        linear.knn_scores(settings, data, other, [0, 1], draws)


def test_chance_of_average_precision_is_simulated_on_the_same_labels():
    few = np.zeros((60, 1), int)
    few[:2] = 1  # two of 60 images: a list in random order does better than their share
    own = {0.1: [np.zeros((60, 1))] * 3, 1.0: [np.full((60, 1), np.nan)]}
    noise = linear.noise_scores(own, draws=400, seed=0)
    assert len(noise[0.1]) >= 400 and np.isnan(noise[1.0]).all()
    by_draw = [scoring.average_precision(few, one)[0] for one in noise[0.1]]
    # Positives at ranks i < j of n in random order: the mean of (1 / i + 2 / j) / 2 over all pairs.
    pairs = [(i, j) for j in range(2, 61) for i in range(1, j)]
    expected = np.mean([(1 / i + 2 / j) / 2 for i, j in pairs])
    assert np.mean(by_draw) == pytest.approx(expected, rel=0.15) and expected > 2 * 2 / 60
    with pytest.raises(ValueError, match="no draw at the fraction 0.5: leave it out"):
        linear.noise_scores(own | {0.5: []}, seed=0)


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.01, 0.1, "better"),
        (-0.2, -0.1, "worse"),
        (-0.1, 0.1, "open"),
        (np.nan, 0.1, None),
        (0.1, np.nan, None),
        (0.2, 0.1, None),
    ],
)
def test_a_verdict_looks_at_the_interval_and_needs_both_ends(low, high, word):
    estimate = {"low": low, "high": high}
    if word is None:
        with pytest.raises(ValueError, match="needs two ends"):
            linear.verdict(estimate)
    else:
        assert linear.verdict(estimate) == word


def test_arms_are_frozen_features_cached_by_content(settings, data, monkeypatch):
    asked = []

    def means(backbone, pixels, *, image_size, device, **norm):
        asked.append((image_size, norm.get("mean")))
        return pixels.mean((1, 2))[:, None].astype(np.float32)

    monkeypatch.setattr(linear, "extract_features", means)
    for seed, imagenet_input in ((0, False), (0, False), (1, False), (0, True)):
        arm = linear.Arm(barlow.build_backbone("resnet18", seed=seed), imagenet_input, "")
        linear.frozen_features(settings, arm, data.images)
    assert asked == [(16, None), (16, None), (16, pretraining.IMAGENET_MEAN)]


def test_pixels_are_the_gray_values_of_the_image_and_are_probed_like_any_arm(settings, data):
    arm = linear.Arm(linear.Thumbnail(4), False, "")
    found = linear.frozen_features(settings, arm, data.images)
    blocks = data.images.pixels.reshape(-1, 4, 4, 4, 4).mean((2, 4)) / 255  # of 16 x 16 images
    expected = (blocks.reshape(-1, 16) - 0.5) / 0.25
    assert np.allclose(found.values, expected, atol=1e-5)
    draws = linear.draw_labels(settings, data, [0, 1])
    probes = linear.fit_probes(data, found, data.labels[:, :2], ["a", "b"], draws)
    assert probes[1.0][0].weights.shape == (2, 16)
    other = linear.frozen_features(
        settings, linear.Arm(linear.Thumbnail(2), False, ""), data.images
    )
    assert other.values.shape[1] == 4  # and not those of the larger one, from the cache


def test_arms_come_with_checkpoints_and_say_what_is_left_out(settings, monkeypatch, tmp_path):
    def arm_backbone(settings, name, *, seed, data):
        if name in ("evening", "imagenet"):
            return None, "not to be had"
        return barlow.build_backbone("resnet18", seed=seed), name

    monkeypatch.setattr(pretraining, "arm_backbone", arm_backbone)
    backbone = barlow.build_backbone("resnet18", seed=7)
    weights.save_weights(backbone.state_dict(), tmp_path / "ours.safetensors", settings={"seed": 7})
    torch.save(backbone.state_dict(), tmp_path / "theirs.pth")
    files = {"ours": tmp_path / "ours.safetensors", "theirs": tmp_path / "theirs.pth"}
    arms, left_out = linear.load_arms(settings, None, checkpoints=files)
    assert list(arms) == ["random", "pretrained", "pixels", "ours", "theirs"]
    assert left_out == ["evening: not to be had", "imagenet: not to be had"]
    assert not arms["ours"].imagenet_input and arms["theirs"].imagenet_input
    assert torch.equal(arms["theirs"].backbone.conv1.weight, backbone.conv1.weight)
    for taken in ("random", "pixels"):
        with pytest.raises(ValueError, match=f"another name than '{taken}'"):
            linear.load_arms(settings, None, checkpoints={taken: files["ours"]})
    with pytest.raises(weights.WeightsError, match="absent.pth"):
        linear.load_arms(settings, None, checkpoints={"x": tmp_path / "absent.pth"})


def test_pooled_predictions_leave_out_what_was_not_trained(data):
    features = person_features(data, informative=True)
    values, labels = features.values, data.labels[:, :2].copy()
    labels[:, 1] = 0
    fitted = probe.fit_probe(values, labels, values, labels)
    truth, log_odds = linear.pooled([fitted, fitted], values[:7], labels[:7])
    assert truth.shape == log_odds.shape == (14,) and np.isfinite(log_odds).all()
    assert np.allclose(log_odds[:7], fitted.scores(values[:7])[:, 0])
    assert truth[:7].tolist() == labels[:7, 0].tolist()
