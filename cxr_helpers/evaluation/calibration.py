"""Do predicted probabilities mean what they say? Reliability, its error, and a repair.

Of all images that a classifier calls '20% likely', a fifth should have the finding. A classifier
can rank images well and still be far off here.

From cxr-helpers 0.1.0 (MIT license).
Needs: numpy, pandas, scikit-learn.
"""

from numbers import Number

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression


class CalibrationError(ValueError):
    """Labels or probabilities that calibration cannot be measured on."""


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
        CalibrationError: the shapes differ, nothing is given, two series have another index, a
            label is not 0 or 1, a probability is NaN or lies outside [0, 1], or there is no bin.

    >>> reliability(np.array([0, 0, 1, 1]), np.array([0.1, 0.1, 0.6, 0.6]), bins=2)
       predicted  observed  count
    0        0.1       0.0      2
    1        0.6       1.0      2
    """
    labels, probabilities = _checked(labels, probabilities, "probabilities")
    if np.isnan(probabilities).any():
        raise CalibrationError(
            f"{np.isnan(probabilities).sum()} of {len(probabilities)} probabilities are NaN; leave "
            "out classes that were not trained"
        )
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise CalibrationError("probabilities must lie in [0, 1]; pass log-odds through a sigmoid")
    if bins < 1 or bins != int(bins):
        raise CalibrationError(f"{bins} bins; give a whole number from 1 on")
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
        CalibrationError: the table has no rows, or lacks a column.

    Source: Naeini, Cooper and Hauskrecht 2015, 'Obtaining well calibrated probabilities using
    Bayesian binning'.

    >>> table = reliability(np.array([0, 0, 1, 1]), np.array([0.1, 0.1, 0.6, 0.6]), bins=2)
    >>> round(expected_calibration_error(table), 2)
    0.25
    """
    missing = {"predicted", "observed", "count"} - set(table)
    if missing or not len(table):
        raise CalibrationError(
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
        CalibrationError: the shapes differ, two series have another index, a label is not 0 or 1,
            all are the same, or a score is not finite.

    Source: Platt 1999, 'Probabilistic outputs for support vector machines'.
    """
    labels, scores = _checked(labels, scores, "scores")
    _check_finite(scores)
    if len(np.unique(labels)) != 2:
        raise CalibrationError(
            f"{len(labels)} labels with the values {np.unique(labels).tolist()} cannot calibrate; "
            "give validation images with and without the finding"
        )
    return LogisticRegression(C=1e6).fit(scores[:, None], labels)


def _checked(labels: np.ndarray, values: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels and values as arrays of one length; `name` is what the values are."""
    known = [getattr(v, "index", None) for v in (labels, values) if hasattr(v, "iloc")]
    if len(known) == 2 and len(known[0]) == len(known[1]) and not known[0].equals(known[1]):
        x, y = next(((x, y) for x, y in zip(*known, strict=True) if x != y), (None, None))
        raise CalibrationError(
            f"labels and {name} have another index: {x!r} stands where the other has {y!r}; bring "
            "both into one order"
        )
    labels, values = _array(labels), _numbers(values, name)
    if labels.shape != values.shape or labels.ndim != 1 or not len(labels):
        raise CalibrationError(
            f"labels {labels.shape} and {name} {values.shape} must be (N,), N > 0"
        )
    if labels.dtype.kind in "buif":
        wrong = labels[~np.isin(labels, (0, 1))].tolist()
    else:  # text and missing values are told by their own type
        plain = (Number, np.bool_)
        wrong = [v for v in labels.tolist() if not isinstance(v, plain) or v not in (0, 1)]
    if wrong:
        raise CalibrationError(
            f"labels must be 0 or 1, not {wrong[0]!r}; give labels first and {name} second, and "
            "leave out images of which the label is not known"
        )
    return labels.astype(int), values


def _array(values) -> np.ndarray:
    """An array of a list, a series, or a tensor of any device and type."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if "bfloat16" in str(values.dtype) else values
    if isinstance(values, np.ma.MaskedArray):  # what is masked is not known
        values = values.astype(float).filled(np.nan)
    return np.asarray(values)


def _numbers(values, name: str) -> np.ndarray:
    try:
        array = _array(values)
        if array.dtype.kind not in "buifO":
            raise TypeError(f"they are {array.dtype}")
        return array.astype(float)
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"{name} must be numbers: {error}") from None


def _check_finite(scores: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise CalibrationError(
            f"{len(bad)} of {scores.size} scores are not finite, in rows {bad[:5].tolist()}; leave "
            "out classes that were not trained, and keep probabilities off 0 and 1 before their "
            "log-odds are taken"
        )


def apply_platt(model: LogisticRegression, scores: np.ndarray) -> np.ndarray:
    """Log-odds of any shape, also none, to probabilities of the same shape.

    Raises:
        CalibrationError: a score is no number, or not finite.
    """
    scores = _numbers(scores, "scores")
    _check_finite(scores)
    if not scores.size:
        return np.zeros(scores.shape)
    return model.predict_proba(scores.reshape(-1, 1))[:, 1].reshape(scores.shape)
