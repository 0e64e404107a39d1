"""Reliability and its repair."""

import numpy as np
import pytest
from scipy.special import expit

from cxr_helpers import calibration

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


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([], [], "N > 0"),
        ([1, 0], [0.5], "must be"),
        ([1, 0], [0.5, 1.5], r"in \[0, 1\]"),
        ([1, 0], [0.5, np.nan], "1 of 2 probabilities are NaN; leave out"),
        ([1, np.nan], [0.5, 0.1], "0 or 1, not nan"),
        ([1, -1], [0.5, 0.1], "0 or 1, not -1"),
        ([0.5, 0.1], [1, 0], "0 or 1, not 0.5; give labels first and probabilities second"),
    ],
)
def test_what_cannot_be_measured_is_refused(labels, probabilities, message):
    with pytest.raises(calibration.CalibrationError, match=message):
        calibration.reliability(np.array(labels), np.array(probabilities))


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 0, 0], [0.1, 0.2, 0.3], r"values \[0\] cannot calibrate; give validation images"),
        ([0, 1, 0], [0.1, 0.2], r"labels \(3,\) and scores \(2,\)"),
        ([0, 1, 2], [0.1, 0.2, 0.3], "0 or 1, not 2"),
        ([0, 1, 0], [0.1, np.inf, np.nan], r"2 of 3 scores are not finite, in rows \[1, 2\]"),
    ],
)
def test_what_cannot_calibrate_is_refused(labels, scores, message):
    with pytest.raises(calibration.CalibrationError, match=message):
        calibration.fit_platt(np.array(labels), np.array(scores))
