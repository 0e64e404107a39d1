"""Reliability and its repair."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit

from cxr_helpers.evaluation import calibration
from cxr_helpers.evaluation.checks import EvaluationError

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(-1, 1.5, size=20_000)
LABELS = (RNG.random(20_000) < expit(LOGITS)).astype(int)


def error(probabilities):
    table = calibration.reliability(LABELS, probabilities)
    return calibration.expected_calibration_error(table)


def test_true_probabilities_are_calibrated_and_others_are_not():
    assert error(expit(LOGITS)) < 0.02
    assert error(expit(3 * LOGITS)) > 0.08  # overconfident
    assert error(np.full(20_000, LABELS.mean())) < 1e-9  # calibrated, and of no use


def test_every_prediction_is_in_one_bin():
    table = calibration.reliability(LABELS, expit(LOGITS), bins=8)
    assert len(table) == 8 and table["count"].sum() == 20_000
    assert table["predicted"].is_monotonic_increasing
    assert np.average(table["observed"], weights=table["count"]) == pytest.approx(LABELS.mean())


def test_platt_finds_slope_and_offset_and_keeps_the_order():
    distorted = 3 * LOGITS + 2
    model = calibration.fit_platt(LABELS[:10_000], distorted[:10_000])
    assert model.coef_[0, 0] == pytest.approx(1 / 3, abs=0.02)
    assert model.intercept_[0] == pytest.approx(-2 / 3, abs=0.1)
    repaired = calibration.apply_platt(model, distorted)
    assert error(repaired) < 0.02
    assert (np.argsort(repaired, kind="stable") == np.argsort(distorted, kind="stable")).all()
    grid = distorted[:6].reshape(2, 3)
    assert np.allclose(calibration.apply_platt(model, grid), repaired[:6].reshape(2, 3))


SERIES = pd.Series([0, 1], index=["a.png", "b.png"])


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([], [], "N > 0"),
        ([1, 0], [0.5], "must be"),
        ([1, 0], [0.5, 1.5], r"in \[0, 1\]"),
        ([1, 0], [0.5, np.nan], r"probabilities of 1 images are not finite, in rows \[1\]; leave"),
        ([1, np.nan], [0.5, 0.1], "0 or 1, not nan"),
        ([1, 0], ["high", "low"], "the probabilities are <U4, no numbers"),
        ([[1], [0]], [[0.5], [0.1]], r"must be \(N,\)"),
        ([0.5, 0.1], [1, 0], "0 or 1, not 0.5; give labels and scores in their order"),
        (SERIES, SERIES.iloc[::-1] / 2, "'a.png' stands where.*'b.png'"),
    ],
)
def test_what_cannot_be_measured_is_refused(labels, probabilities, message):
    with pytest.raises(EvaluationError, match=message):
        calibration.reliability(labels, probabilities)


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 0, 0], [0.1, 0.2, 0.3], r"values \[0\] cannot calibrate; give validation images"),
        ([0, 1, 0], [0.1, 0.2], r"labels \(3,\) and scores \(2,\)"),
        ([0, 1, 2], [0.1, 0.2, 0.3], "0 or 1, not 2"),
        ([0, 1, 0], [0.1, np.inf, np.nan], r"scores of 2 images are not finite, in rows \[1, 2\]"),
    ],
)
def test_what_cannot_calibrate_is_refused(labels, scores, message):
    with pytest.raises(EvaluationError, match=message):
        calibration.fit_platt(labels, scores)


@pytest.mark.parametrize("kind", [np.ndarray.tolist, pd.Series, torch.from_numpy])
def test_every_kind_of_numbers_gives_the_same_table_and_repair(kind):
    labels, scores = np.array([0, 1, 0, 1]), np.array([-1.0, 0.5, 0.25, 2.0])
    chances = np.array([0.125, 0.5, 0.25, 0.75])
    expected = calibration.reliability(labels, chances, bins=2)
    found = calibration.reliability(kind(labels.astype(float)), kind(chances), bins=np.int64(2))
    pd.testing.assert_frame_equal(found, expected)
    model = calibration.fit_platt(labels, scores)
    assert calibration.fit_platt(labels > 0, kind(scores)).coef_ == model.coef_
    repaired = calibration.apply_platt(model, kind(scores))
    assert np.array_equal(repaired, calibration.apply_platt(model, scores))


def test_scores_that_cannot_be_repaired_are_refused_and_none_are_none():
    model = calibration.fit_platt([0, 1, 0, 1], [-1.0, 0.5, 0.25, 2.0])
    assert calibration.apply_platt(model, np.zeros((0, 3))).shape == (0, 3)
    with pytest.raises(EvaluationError, match=r"scores of 1 images.*rows \[1\].*off 0 and 1"):
        calibration.apply_platt(model, [0.5, np.nan])
    with pytest.raises(EvaluationError, match="the scores are <U1, no numbers"):
        calibration.apply_platt(model, ["a"])


@pytest.mark.parametrize("bins", [0, -1, 2.5])
def test_bins_are_counted_from_one(bins):
    with pytest.raises(EvaluationError, match="whole number from 1"):
        calibration.reliability([0, 1], [0.1, 0.9], bins=bins)


def test_a_table_of_another_kind_has_no_error():
    table = calibration.reliability([0, 1], [0.1, 0.9])
    for wrong in (table.iloc[:0], table.drop(columns="count")):
        with pytest.raises(EvaluationError, match="what `reliability` gives"):
            calibration.expected_calibration_error(wrong)
