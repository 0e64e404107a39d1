"""How well scores rank images, for each class and in the mean, with intervals over patients.

Classes that cannot be scored are named, never averaged in.

>>> labels, scores = np.array([[0], [1], [0], [1]]), np.array([[0.2], [0.9], [0.6], [0.4]])
>>> drawn = resampled_scores(labels, [scores], ["a", "b", "c", "d"], resamples=200, seed=0)
>>> print(macro_interval(drawn, seed=0))  # the mean over classes, its interval over patients
+0.750 (+0.000 to +1.000)

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy.
Goes with: checks.py, intervals.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .checks import (
    EvaluationError,
    binary_labels,
    check_class_names,
    check_finite,
    check_order,
    numbers,
)
from .intervals import Interval, bias_corrected

BLOCK = 4_000_000  # weights that are sorted at once, to bound memory
NO_PATIENT = {"", "nan", "none", "<na>", "nat"}  # how tables write that a name is missing


def auroc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the ROC curve of each class; ties count one half.

    Args:
        labels: (N, K) of 0 and 1, or (N,) for one class; array, tensor, list or data frame.
        scores: the same shape; a column of NaN was not trained.
        weights: (R, N) how often each image counts, for instance in R bootstrap resamples; once
            each by default.

    Returns:
        (K,), or (R, K) with weights, in [0, 1]; NaN where a class has only positives, only
        negatives or no scores.

    Raises:
        EvaluationError: the shapes differ, two data frames have their rows or columns in another
            order, a label is not 0 or 1, only some scores of a class are finite, or a weight is
            negative or not finite.

    >>> auroc(np.array([[0], [0], [1]]), np.array([[0.1], [0.9], [0.5]])).tolist()
    [0.5]
    """
    return _scored(labels, scores, weights, _auroc_of_counts)


def average_precision(
    labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Average precision of each class: mean precision at the positives, from the highest score on.

    Arguments, the result's shape and errors are those of `auroc`.

    Chance is near the share of positives, and above it where these are few, so values of classes
    of other prevalence do not compare.

    >>> average_precision(np.array([[1], [0], [1]]), np.array([[0.9], [0.5], [0.1]])).round(3)
    array([0.833])
    """
    return _scored(labels, scores, weights, _average_precision_of_counts)


def _scored(labels, scores, weights, metric) -> np.ndarray:
    check_order(labels, scores, ("labels", "scores"), axes=("index", "columns"))
    labels, scores = binary_labels(labels), numbers(scores, "scores").astype(float, copy=False)
    labels, scores = (a[:, None] if a.ndim == 1 else a for a in (labels, scores))
    counts = np.ones((1, len(labels))) if weights is None else numbers(weights, "weights")
    if labels.shape != scores.shape or labels.ndim != 2 or counts.shape[1:] != (len(labels),):
        raise EvaluationError(
            f"labels {labels.shape}, scores {scores.shape} and weights {counts.shape} do not fit; "
            "expected (N, K) twice and (R, N)"
        )
    if not (np.isfinite(counts) & (counts >= 0)).all():
        raise EvaluationError(
            "a weight is negative or not finite; it says how often an image counts"
        )
    trained = ~np.isnan(scores).all(axis=0)
    remedy = "leave these images out, or give NaN to the whole column of a class that is untrained"
    check_finite(scores[:, trained], "scores", remedy)
    result = np.full((len(counts), labels.shape[1]), np.nan)
    step = max(1, BLOCK // max(1, len(labels)))
    for k in np.flatnonzero(trained):
        order = np.argsort(scores[:, k], kind="stable")
        ascending = scores[order, k]
        starts = np.flatnonzero(np.r_[True, ascending[1:] > ascending[:-1]][: len(order)])
        positive = labels[order, k] > 0
        if not 0 < positive.sum() < len(positive):
            continue
        for first in range(0, len(counts), step):
            part = counts[first : first + step, order]
            positives = np.add.reduceat(part * positive, starts, axis=1)  # (R, ranks)
            negatives = np.add.reduceat(part * ~positive, starts, axis=1)
            result[first : first + step, k] = metric(negatives, positives)
    return result[0] if weights is None else result


def _auroc_of_counts(negatives: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """(R, ranks) counts at each score, lowest first, to (R,) AUROC."""
    below = negatives.cumsum(axis=1) - negatives / 2  # half of the ties
    return _divide((positives * below).sum(axis=1), positives.sum(axis=1) * negatives.sum(axis=1))


def _average_precision_of_counts(negatives: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """(R, ranks) counts at each score, lowest first, to (R,) average precision."""
    hits = positives[:, ::-1].cumsum(axis=1)
    calls = hits + negatives[:, ::-1].cumsum(axis=1)
    precision = _divide(hits, calls, otherwise=0.0)
    both = (positives.sum(axis=1) > 0) & (negatives.sum(axis=1) > 0)
    total = np.where(both, positives.sum(axis=1), 0)
    return _divide((positives[:, ::-1] * precision).sum(axis=1), total)


def _divide(a: np.ndarray, b: np.ndarray, *, otherwise: float = np.nan) -> np.ndarray:
    return np.divide(a, b, out=np.full(np.shape(b), otherwise), where=b > 0)


def nan_mean(values: np.ndarray, *, axis: int) -> np.ndarray:
    """Mean over the finite values along an axis; NaN, without a warning, where there is none.

    >>> nan_mean(np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan]]), axis=1)
    array([ 2., nan])
    """
    values = numbers(values, "values").astype(float, copy=False)
    finite = np.isfinite(values)
    return _divide(np.where(finite, values, 0).sum(axis=axis), finite.sum(axis=axis))


def one_sided(labels: np.ndarray, part: str) -> str | None:
    """Why one class cannot be trained or scored on these images; None where it can.

    Args:
        labels: (N,) of 0 and 1.
        part: what the images are, for the text.

    Raises:
        EvaluationError: a label is not 0 or 1.

    >>> one_sided(np.array([0, 0]), "training")
    'no positive among 2 training images'
    """
    labels = binary_labels(labels)
    for value, word in ((1, "positive"), (0, "negative")):
        if not (labels == value).any():
            return f"no {word} among {len(labels)} {part} images"
    return None


@dataclass(frozen=True)
class MacroScore:
    """Mean over the classes that can be scored.

    Attributes:
        value: the mean.
        per_class: (K,), NaN where left out.
        left_out: name of each class that could not be scored, and why.
    """

    value: float
    per_class: np.ndarray
    left_out: dict[str, str]


def macro_auroc(labels: np.ndarray, scores: np.ndarray, class_names: Sequence[str]) -> MacroScore:
    """Mean AUROC over classes; one that cannot be scored is named, not averaged in.

    Args:
        labels: (N, K) of 0 and 1.
        scores: (N, K); a column of NaN was not trained.
        class_names: K names, each once.

    Raises:
        EvaluationError: as `auroc`, the names do not fit the columns, or no class can be scored.

    >>> macro = macro_auroc([[0, 0], [1, 0]], [[0.1, 0.5], [0.9, 0.5]], ["Mass", "Hernia"])
    >>> macro.value, macro.left_out
    (1.0, {'Hernia': 'no positive among 2 scored images'})
    """
    class_names = check_class_names(class_names, labels, scores)
    per_class, columns = auroc(labels, scores), binary_labels(labels)
    columns = columns[:, None] if columns.ndim == 1 else columns
    scored = np.isfinite(per_class)
    left_out = {
        class_names[k]: one_sided(columns[:, k], "scored")
        or "it has no scores: its probe was not trained"
        for k in np.flatnonzero(~scored)
    }
    if not scored.any():
        raise EvaluationError(
            "no class can be scored: "
            + "; ".join(f"{name}: {why}" for name, why in left_out.items())
            + ". Use more images or a larger label fraction"
        )
    return MacroScore(float(per_class[scored].mean()), per_class, left_out)


def patient_weights(patient_ids: Sequence, *, resamples: int, seed: int) -> np.ndarray:
    """How often each image counts when whole patients are drawn with replacement.

    Args:
        patient_ids: (N,) the patient of each image.
        resamples: R.
        seed: of the draws.

    Returns:
        (R, N) counts.

    Raises:
        EvaluationError: fewer than two patients, so that nothing can vary; an image without a
            patient; or fewer than one resample.

    >>> patient_weights(["a", "a", "b", "b"], resamples=1, seed=3)
    array([[0., 0., 2., 2.]])
    """
    if resamples < 1:
        raise EvaluationError(f"resamples must be at least 1, not {resamples}")
    ids = np.asarray(patient_ids)
    unknown = np.flatnonzero([str(one).lower() in NO_PATIENT for one in ids.tolist()])
    if len(unknown):
        raise EvaluationError(
            f"{len(unknown)} of {len(ids)} images name no patient, the first in row {unknown[0]}; "
            "leave them out, or give each a patient of its own"
        )
    patients, inverse = np.unique(ids, return_inverse=True)
    n = len(patients)
    if n < 2:
        raise EvaluationError(f"{n} patients cannot be resampled; an interval needs at least 2")
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    return draws[:, inverse].astype(float)


def resampled_scores(
    labels: np.ndarray,
    scores: Sequence[np.ndarray],
    patient_ids: Sequence,
    *,
    minus: Sequence[np.ndarray] | None = None,
    metric: Callable = auroc,
    resamples: int,
    seed: int,
) -> np.ndarray:
    """A metric of each class on the images as they are and on resampled patients.

    Args:
        labels: (N, K) of 0 and 1.
        scores: for each draw of the training labels an (N, K) array of scores.
        patient_ids: (N,) the patient of each image.
        minus: scores of a second arm on the same draws; the values are then differences, NaN for
            classes that one arm did not train.
        metric: `auroc` or `average_precision`.
        resamples: R bootstrap resamples of patients.
        seed: of the resamples.

    Returns:
        (draws, 1 + R, K), the images as they are first.

    Raises:
        EvaluationError: as the metric and `patient_weights`, the second arm has another number of
            draws, there is none, or there is not one patient for each image.

    >>> labels, scores = np.array([[0], [1], [0]]), np.array([[0.1], [0.9], [0.2]])
    >>> resampled_scores(labels, [scores], ["a", "b", "c"], resamples=5, seed=0).shape
    (1, 6, 1)
    """
    if len(patient_ids) != len(labels) or not len(scores):
        raise EvaluationError(
            f"{len(patient_ids)} patients for {len(labels)} images and {len(scores)} draws; name "
            "the patient of each image, and give at least one draw"
        )
    if minus is not None and len(minus) != len(scores):
        raise EvaluationError(
            f"{len(scores)} draws cannot be paired with {len(minus)}; score both arms"
        )
    weights = patient_weights(patient_ids, resamples=resamples, seed=seed)
    weights = np.concatenate([np.ones((1, len(labels))), weights])
    values = np.stack([metric(labels, score, weights) for score in scores])
    if minus is not None:
        values = values - np.stack([metric(labels, score, weights) for score in minus])
    return values


def over_draws(values: np.ndarray, *, seed: int) -> np.ndarray:
    """Mean over draws, on the images as they are and on resamples that take other draws too.

    Each resample draws one fewer than there are, with replacement. To draw as many would be too
    sure: the means of n draws with replacement vary by a share (n - 1) / n of what they should.

    Args:
        values: (draws, 1 + R) or (draws, 1 + R, K), the images as they are first, as
            `resampled_scores` gives them; NaN where a draw has no value.
        seed: of the resampling of the draws.

    Returns:
        (1 + R,) or (1 + R, K): the mean of all draws first. With one draw the resamples are of
        other patients only. NaN where no draw has a value.

    Raises:
        EvaluationError: the values have another shape, or there is no draw.

    (np.array([[1.0, 1.0, 1.0], [3.0, 3.0, 3.0]]), seed=1)[0]
    np.float64(2.0)
    """
    values = np.asarray(values, dtype=float)
    if values.ndim not in (2, 3) or not len(values):
        raise EvaluationError(
            f"expected values (draws, 1 + R) or (draws, 1 + R, K), got {values.shape}"
        )
    draws, columns = values.shape[:2]
    size = (max(draws - 1, 1), columns - 1)
    chosen = np.random.default_rng(seed).integers(draws, size=size)
    resamples = values[chosen, np.arange(1, columns)]  # (draws - 1, R, ...)
    return np.concatenate([nan_mean(values[:, :1], axis=0), nan_mean(resamples, axis=0)])


def macro_interval(values: np.ndarray, *, seed: int) -> Interval:
    """Mean over classes and draws with its 95% interval over patients and draws.

    Args:
        values: (draws, 1 + R, K) as `resampled_scores` gives them. With one draw the
            interval covers the choice of the test patients only.
        seed: of the resampling of the draws.

    Raises:
        EvaluationError: no class can be scored.

    >>> print(macro_interval(np.array([[[0.7], [0.6], [0.8]]]), seed=0))
    +0.700 (+0.605 to +0.795)
    """
    first, *drawn = over_draws(nan_mean(values, axis=2), seed=seed)
    if np.isnan(first):
        raise EvaluationError("no class can be scored; use more images or a larger label fraction")
    return bias_corrected(first, drawn)


def class_intervals(values: np.ndarray, *, seed: int) -> list[Interval | None]:
    """As `macro_interval` for each class; None for one that cannot be scored.

    >>> class_intervals(np.full((1, 3, 1), np.nan), seed=0)
    [None]
    """
    means = over_draws(values, seed=seed).T  # (K, 1 + R)
    return [None if np.isnan(one[0]) else bias_corrected(one[0], one[1:]) for one in means]
