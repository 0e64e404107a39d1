"""Do predicted probabilities mean what they say? Reliability, its error, and a repair.

Of all images that a classifier calls '20% likely', a fifth should have the finding. A classifier
can rank images well and still be far off here.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, pandas, scikit-learn.
Goes with: checks.py.
"""

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from .checks import EvaluationError, binary_labels, check_finite, check_order, numbers

NOT_FINITE = (
    "leave out classes that were not trained, and keep probabilities off 0 and 1 before their "
    "log-odds are taken"
)


def reliability(labels: np.ndarray, probabilities: np.ndarray, *, bins: int = 8) -> pd.DataFrame:
    """Predicted against observed, in bins of about equally many predictions.

    Args:
        labels: (N,) of 0 and 1; an array, a list, a tensor or a series, as all others here.
        probabilities: (N,) in [0, 1].
        bins: how many; equal predictions stay together, so there may be fewer. Where so many are
            the smallest that they would fill the first bin alone, it also takes those up to the
            next border; scikit-learn's `calibration_curve(strategy="quantile")` makes these a bin
            of their own.

    Returns:
        Columns `predicted` (mean probability), `observed` (share of positives), `count`.

    Raises:
        EvaluationError: the shapes differ, nothing is given, two series have another index, a
            label is not 0 or 1, a probability is NaN or lies outside [0, 1], or there is no bin.

    >>> reliability(np.array([0, 0, 1, 1]), np.array([0.1, 0.1, 0.6, 0.6]), bins=2)
       predicted  observed  count
    0        0.1       0.0      2
    1        0.6       1.0      2
    """
    labels, probabilities = _checked(labels, probabilities, "probabilities")
    check_finite(probabilities, "probabilities", "leave out classes that were not trained")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise EvaluationError("probabilities must lie in [0, 1]; pass log-odds through a sigmoid")
    if bins < 1 or bins != int(bins):
        raise EvaluationError(f"{bins} bins; give a whole number from 1 on")
    group = pd.qcut(probabilities, min(int(bins), len(labels)), labels=False, duplicates="drop")
    frame = pd.DataFrame({"predicted": probabilities, "observed": labels.astype(float)})
    grouped = frame.groupby(np.nan_to_num(group))
    return grouped.mean().assign(count=grouped.size()).reset_index(drop=True)


def expected_calibration_error(table: pd.DataFrame) -> float:
    """Mean distance of predicted from observed, each bin weighted by its count.

    The bins of `reliability` hold about equally many predictions. Most papers, and torchmetrics'
    `CalibrationError`, take bins of equal width: name the kind and the number with the figure.

    Args:
        table: as `reliability` gives it.

    Raises:
        EvaluationError: the table has no rows, or lacks a column.

    Source: Naeini, Cooper and Hauskrecht 2015, 'Obtaining well calibrated probabilities using
    Bayesian binning'.

    >>> table = reliability(np.array([0, 0, 1, 1]), np.array([0.1, 0.1, 0.6, 0.6]), bins=2)
    >>> round(expected_calibration_error(table), 2)
    0.25
    """
    missing = {"predicted", "observed", "count"} - set(table)
    if missing or not len(table):
        raise EvaluationError(
            f"a table of {len(table)} rows without {sorted(missing)}; give what `reliability` gives"
        )
    distance = (table["predicted"] - table["observed"]).abs()
    return float((distance * table["count"]).sum() / table["count"].sum())


def fit_platt(labels: np.ndarray, scores: np.ndarray) -> LogisticRegression:
    """Slope and offset that turn log-odds into better probabilities, learned on validation images.

    The targets are the labels themselves. Platt, and scikit-learn's `CalibratedClassifierCV`, draw
    them a little towards one half; with a few dozen images that makes the slope flatter.

    Args:
        labels: (N,) of 0 and 1 of validation images, which trained nothing.
        scores: (N,) log-odds, finite.

    Returns:
        A model for `apply_platt`. It keeps the order of the scores where its slope is positive.

    Raises:
        EvaluationError: the shapes differ, two series have another index, a label is not 0 or 1,
            all are the same, or a score is not finite.

    Source: Platt 1999, 'Probabilistic outputs for support vector machines'.

    >>> model = fit_platt([0, 1, 0, 1], [-2.0, -1.0, 1.0, 2.0])
    >>> bool(model.coef_[0, 0] < 1)
    True
    """
    labels, scores = _checked(labels, scores, "scores")
    check_finite(scores, "scores", NOT_FINITE)
    if len(np.unique(labels)) != 2:
        raise EvaluationError(
            f"{len(labels)} labels with the values {np.unique(labels).tolist()} cannot calibrate; "
            "give validation images with and without the finding"
        )
    return LogisticRegression(C=1e6).fit(scores[:, None], labels)


def _checked(labels: np.ndarray, values: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels and values as arrays of one length; `name` is what the values are."""
    check_order(labels, values, ("labels", name), axes=("index",))
    labels, values = binary_labels(labels).astype(int), numbers(values, name).astype(float)
    if labels.shape != values.shape or labels.ndim != 1 or not len(labels):
        raise EvaluationError(
            f"labels {labels.shape} and {name} {values.shape} must be (N,), N > 0"
        )
    return labels, values


def apply_platt(model: LogisticRegression, scores: np.ndarray) -> np.ndarray:
    """Log-odds of any shape, also none, to probabilities of the same shape.

    Raises:
        EvaluationError: a score is no number, or not finite.

    >>> apply_platt(fit_platt([0, 1, 0, 1], [-2.0, -1.0, 1.0, 2.0]), [[0.0, 0.0]]).round(2)
    array([[0.5, 0.5]])
    """
    scores = numbers(scores, "scores").astype(float)
    check_finite(scores, "scores", NOT_FINITE)
    if not scores.size:
        return np.zeros(scores.shape)
    return model.predict_proba(scores.reshape(-1, 1))[:, 1].reshape(scores.shape)
