"""Do predicted probabilities mean what they say? Reliability, its error, and a repair.

Of all images that a classifier calls '20% likely', a fifth should have the finding. A classifier
can rank images well and still be far off here.

Needs: numpy, pandas, scikit-learn.
"""

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression


class CalibrationError(ValueError):
    """Labels or probabilities that calibration cannot be measured on."""


def reliability(labels: np.ndarray, probabilities: np.ndarray, *, bins: int = 8) -> pd.DataFrame:
    """Predicted against observed, in bins of about equally many predictions.

    Args:
        labels: (N,) of 0 and 1.
        probabilities: (N,) in [0, 1].
        bins: how many; equal predictions stay together, so there may be fewer.

    Returns:
        Columns `predicted` (mean probability), `observed` (share of positives), `count`.

    Raises:
        CalibrationError: the shapes differ, nothing is given, or a value lies outside [0, 1].

    >>> reliability(np.array([0, 0, 1, 1]), np.array([0.1, 0.1, 0.6, 0.6]), bins=2)
       predicted  observed  count
    0        0.1       0.0      2
    1        0.6       1.0      2
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=float)
    if labels.shape != probabilities.shape or labels.ndim != 1 or not len(labels):
        raise CalibrationError(
            f"labels {labels.shape} and probabilities {probabilities.shape} must be (N,), N > 0"
        )
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise CalibrationError("probabilities must lie in [0, 1]; pass log-odds through a sigmoid")
    group = pd.qcut(probabilities, min(bins, len(labels)), labels=False, duplicates="drop")
    frame = pd.DataFrame({"predicted": probabilities, "observed": labels.astype(float)})
    grouped = frame.groupby(np.nan_to_num(group))
    return grouped.mean().assign(count=grouped.size()).reset_index(drop=True)


def expected_calibration_error(table: pd.DataFrame) -> float:
    """Mean distance of predicted from observed, each bin weighted by its count.

    Args:
        table: as `reliability` gives it.

    Source: Naeini, Cooper and Hauskrecht 2015, 'Obtaining well calibrated probabilities using
    Bayesian binning'.

    >>> table = reliability(np.array([0, 0, 1, 1]), np.array([0.1, 0.1, 0.6, 0.6]), bins=2)
    >>> round(expected_calibration_error(table), 2)
    0.25
    """
    distance = (table["predicted"] - table["observed"]).abs()
    return float((distance * table["count"]).sum() / table["count"].sum())


def fit_platt(labels: np.ndarray, scores: np.ndarray) -> LogisticRegression:
    """Slope and offset that turn log-odds into better probabilities, learned on validation images.

    Args:
        labels: (N,) of 0 and 1 of validation images, which trained nothing.
        scores: (N,) log-odds.

    Returns:
        A model for `apply_platt`. It keeps the order of the scores where its slope is positive.

    Raises:
        CalibrationError: the shapes differ, or the labels are all the same.

    Source: Platt 1999, 'Probabilistic outputs for support vector machines'.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=float)
    if labels.shape != scores.shape or labels.ndim != 1 or len(np.unique(labels)) != 2:
        raise CalibrationError(
            f"{len(labels)} labels with the values {np.unique(labels).tolist()} cannot calibrate "
            f"scores of shape {scores.shape}; give validation images with and without the finding"
        )
    return LogisticRegression(C=1e6).fit(scores[:, None], labels)


def apply_platt(model: LogisticRegression, scores: np.ndarray) -> np.ndarray:
    """Log-odds of any shape to probabilities of the same shape."""
    return model.predict_proba(np.reshape(scores, (-1, 1)))[:, 1].reshape(np.shape(scores))
