"""How good are frozen features? Linear and k-NN probes, their scores, intervals over patients.

A probe is a small classifier on features that stay as they are. It shows what the features hold,
not what a network could still learn. Classes that cannot be scored are named, never averaged in.

Needs: numpy, scikit-learn, scipy, threadpoolctl, torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits
from torch import nn

REGULARIZATION = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
BLOCK = 4_000_000  # weights that are sorted at once, to bound memory


class ProbeError(ValueError):
    """Features or labels that a probe cannot use."""


@torch.inference_mode()
def extract_features(
    backbone: nn.Module,
    pixels: np.ndarray,
    *,
    image_size: int,
    batch_size: int = 128,
    device: str | torch.device = "cpu",
    mean: float | Sequence[float] = 0.5,
    std: float | Sequence[float] = 0.25,
) -> np.ndarray:
    """Features of gray images from a backbone that takes three channels.

    Args:
        backbone: (B, 3, H, W) to (B, D); its mode (train or eval) is restored afterwards.
        pixels: (N, H, W) uint8.
        image_size: side in pixels to which images are scaled.
        batch_size: images at once.
        device: where the backbone is.
        mean: subtracted after scaling to [0, 1]; one value, or one for each channel.
        std: divided by.

    Returns:
        (N, D) float32.

    Raises:
        ProbeError: the pixels have another shape or type.
    """
    if pixels.ndim != 3 or pixels.dtype != np.uint8:
        raise ProbeError(f"expected pixels (N, H, W) uint8, got {pixels.shape} {pixels.dtype}")
    center = torch.tensor(mean, dtype=torch.float32, device=device).reshape(1, -1, 1, 1)
    spread = torch.tensor(std, dtype=torch.float32, device=device).reshape(1, -1, 1, 1)
    was_training = backbone.training
    backbone.eval()
    features = []
    for start in range(0, len(pixels), batch_size):
        gray = torch.from_numpy(np.array(pixels[start : start + batch_size])).to(device)
        images = gray[:, None].float() / 255  # (B, 1, H, W)
        images = nn.functional.interpolate(images, size=image_size, mode="bilinear", antialias=True)
        images = ((images - center) / spread).expand(-1, 3, -1, -1)
        features.append(backbone(images.contiguous(memory_format=torch.channels_last)).cpu())
    backbone.train(was_training)
    return torch.cat(features).float().numpy() if features else np.zeros((0, 0), np.float32)


def auroc(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each class; ties count one half.

    Args:
        labels: (N, K) of 0 and 1.
        scores: (N, K); a column of NaN was not trained.

    Returns:
        (K,) in [0, 1]; NaN where a class has only positives, only negatives or no scores.

    Raises:
        ProbeError: the shapes differ, a label is not 0 or 1, or only some scores of a class are
            finite.

    >>> auroc(np.array([[0], [0], [1]]), np.array([[0.1], [0.9], [0.5]])).tolist()
    [0.5]
    """
    return weighted_auroc(labels, scores, np.ones((1, len(labels))))[0]


def average_precision(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Average precision of each class: mean precision at the positives, from the highest score on.

    Args:
        labels: (N, K) of 0 and 1.
        scores: (N, K); a column of NaN was not trained.

    Returns:
        (K,) in (0, 1]; NaN where a class has only positives, only negatives or no scores. Chance
        is the share of positives, so values of classes of other prevalence do not compare.

    Raises:
        ProbeError: the shapes differ, a label is not 0 or 1, or only some scores of a class are
            finite.

    >>> average_precision(np.array([[1], [0], [1]]), np.array([[0.9], [0.5], [0.1]])).round(3)
    array([0.833])
    """
    return weighted_average_precision(labels, scores, np.ones((1, len(labels))))[0]


def weighted_auroc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC of each class for many weightings of the same images.

    Args:
        labels: (N, K) of 0 and 1.
        scores: (N, K); a column of NaN was not trained.
        weights: (R, N) how often each image counts, for instance in R bootstrap resamples.

    Returns:
        (R, K); NaN where a class has only positives, only negatives or no scores.

    Raises:
        ProbeError: the shapes differ, a label is not 0 or 1, or only some scores of a class are
            finite.
    """
    return _weighted(labels, scores, weights, _auroc_of_counts)


def weighted_average_precision(
    labels: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Average precision of each class for many weightings of the same images.

    Arguments, result and errors are those of `weighted_auroc`.
    """
    return _weighted(labels, scores, weights, _average_precision_of_counts)


def _weighted(labels, scores, weights, metric) -> np.ndarray:
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=float)
    if labels.shape != scores.shape or labels.ndim != 2 or weights.shape[1] != len(labels):
        raise ProbeError(
            f"labels {labels.shape}, scores {scores.shape} and weights {weights.shape} do not fit"
        )
    _check_labels(labels)
    trained = ~np.isnan(scores).all(axis=0)
    bad = np.flatnonzero(~np.isfinite(scores[:, trained]).all(axis=1))
    if len(bad):
        raise ProbeError(
            f"some scores of {len(bad)} images are not finite, in rows {bad[:5].tolist()}; leave "
            "these images out, or give NaN to the whole column of a class that was not trained"
        )
    result = np.full((len(weights), labels.shape[1]), np.nan)
    step = max(1, BLOCK // max(1, len(labels)))
    for k in np.flatnonzero(trained):
        order = np.argsort(scores[:, k], kind="stable")
        ascending = scores[order, k]
        starts = np.flatnonzero(np.r_[True, ascending[1:] > ascending[:-1]][: len(order)])
        positive = labels[order, k] > 0
        if not 0 < positive.sum() < len(positive):
            continue
        for first in range(0, len(weights), step):
            part = weights[first : first + step, order]
            positives = np.add.reduceat(part * positive, starts, axis=1)  # (R, ranks)
            negatives = np.add.reduceat(part * ~positive, starts, axis=1)
            result[first : first + step, k] = metric(negatives, positives)
    return result


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


def macro_auroc(labels: np.ndarray, scores: np.ndarray, names: Sequence[str]) -> MacroScore:
    """Mean AUROC over classes; one that cannot be scored is named, not averaged in.

    Args:
        labels: (N, K) of 0 and 1.
        scores: (N, K); a column of NaN was not trained.
        names: K class names.

    Raises:
        ProbeError: as `auroc`, or no class can be scored.
    """
    return _macro(labels, scores, names, auroc(labels, scores))


def macro_average_precision(
    labels: np.ndarray, scores: np.ndarray, names: Sequence[str]
) -> MacroScore:
    """Mean average precision over classes; arguments and errors are those of `macro_auroc`."""
    return _macro(labels, scores, names, average_precision(labels, scores))


def _macro(labels, scores, names, per_class) -> MacroScore:
    labels, scored = np.asarray(labels), np.isfinite(per_class)
    left_out = {
        names[k]: one_sided(labels[:, k], "scored") or "it has no scores: its probe was not trained"
        for k in np.flatnonzero(~scored)
    }
    if not scored.any():
        raise ProbeError(
            "no class can be scored: "
            + "; ".join(f"{name}: {why}" for name, why in left_out.items())
            + ". Use more images or a larger label fraction"
        )
    return MacroScore(float(per_class[scored].mean()), per_class, left_out)


def one_sided(labels: np.ndarray, part: str) -> str | None:
    """Why one class cannot be trained or scored on these images; None where it can.

    Args:
        labels: (N,) of 0 and 1.
        part: what the images are, for the text.

    >>> one_sided(np.array([0, 0]), "training")
    'no positive among 2 training images'
    """
    for value, word in ((1, "positive"), (0, "negative")):
        if not (np.asarray(labels) == value).any():
            return f"no {word} among {len(labels)} {part} images"
    return None


def knn_scores(
    train_features: np.ndarray, train_labels: np.ndarray, features: np.ndarray, *, neighbors: int
) -> np.ndarray:
    """Share of each label among the nearest training images by cosine similarity.

    The mean training image is subtracted from all features first, so that directions differ; other
    libraries leave it in and may find other neighbors.

    Args:
        train_features: (N, D).
        train_labels: (N, K) of 0 and 1.
        features: (M, D) to score.
        neighbors: how many training images vote; at most N are used.

    Returns:
        (M, K) in [0, 1], each vote weighted by exp(similarity / 0.1).

    Raises:
        ProbeError: features that are not finite, or of another width; or labels that do not fit
            them or are not 0 or 1.

    Source: Wu et al. 2018, 'Unsupervised feature learning via non-parametric instance
    discrimination', section 3.4, for the form of the weights; it does not center.
    """
    check_features(train_features, train_labels)
    check_features(features, width=train_features.shape[1])
    search = NearestNeighbors(n_neighbors=min(neighbors, len(train_features)), metric="cosine")
    center = train_features.mean(axis=0)
    distance, index = search.fit(train_features - center).kneighbors(features - center)
    weight = np.exp((1 - distance) / 0.1)  # (M, neighbors)
    weight /= weight.sum(axis=1, keepdims=True)
    return np.einsum("mn,mnk->mk", weight, np.asarray(train_labels, dtype=float)[index])


def fit_probe(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    val_features: np.ndarray,
    val_labels: np.ndarray,
    *,
    strengths: Sequence[float] = REGULARIZATION,
    names: Sequence[str] | None = None,
) -> "LinearProbe":
    """Multi-label logistic regression; the regularization is chosen on validation images.

    Args:
        train_features: (N, D) float32 or float64.
        train_labels: (N, K) of 0 and 1, an array or a data frame.
        val_features: (V, D), of other patients.
        val_labels: (V, K) of 0 and 1.
        strengths: scikit-learn's C, from strong to weak regularization; one for all classes, the
            one with the best mean AUROC on validation, the strongest of equals. With a single
            one, nothing is chosen.
        names: K class names, for the messages.

    Returns:
        The probe of the chosen strength; classes with one kind of label only are not trained.

    Raises:
        ProbeError: features that are not finite or do not fit the labels; labels other than 0 and
            1; no class with both a positive and a negative in training; or none of these with both
            in validation.
    """
    train_labels, val_labels = np.asarray(train_labels), np.asarray(val_labels)
    check_features(train_features, train_labels)
    check_features(val_features, val_labels, width=train_features.shape[1])
    if names is None:
        names = [f"class {k}" for k in range(train_labels.shape[1])]
    untrained = {n: one_sided(c, "training") for n, c in zip(names, train_labels.T, strict=True)}
    untrained = {name: why for name, why in untrained.items() if why}
    columns = np.flatnonzero([name not in untrained for name in names])
    if not len(columns):
        raise ProbeError(
            "no class can be trained: "
            + "; ".join(f"{name}: {why}" for name, why in untrained.items())
            + ". Use a larger label fraction or leave the class out"
        )
    fitted = fit_path(train_features, train_labels[:, columns], strengths)
    best = fitted[0] if len(fitted) == 1 else _best_on(fitted, val_features, val_labels, columns)
    return best.spread(columns, untrained, len(names))


def _best_on(fitted, features, labels, columns) -> "LinearProbe":
    values = np.array([auroc(labels[:, columns], one.scores(features)) for one in fitted])
    can = np.isfinite(values[0])
    if not can.any():
        raise ProbeError(
            f"the regularization cannot be chosen: none of the {len(columns)} trained classes has "
            f"a positive and a negative among {len(labels)} validation images; use more "
            "validation images, or give a single strength"
        )
    return fitted[int(values[:, can].mean(axis=1).argmax())]


@dataclass(frozen=True)
class LinearProbe:
    """Logistic regressions on the same features, one a class.

    Attributes:
        weights: (K, D) of the features as they come; NaN where a class was not trained.
        bias: (K,).
        strength: scikit-learn's C that all were fitted with.
        untrained: name of each class without a probe, and why.
    """

    weights: np.ndarray
    bias: np.ndarray
    strength: float
    untrained: dict[str, str]

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(M, D) features to (M, K) log-odds; NaN in the columns of untrained classes.

        Raises:
            ProbeError: features that are not finite, or of another width.
        """
        check_features(features, width=self.weights.shape[1])
        with threadpool_limits(1):
            return features @ self.weights.T + self.bias

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """(M, D) features to (M, K) probabilities; NaN in the columns of untrained classes."""
        return expit(self.scores(features))

    def spread(self, columns: np.ndarray, untrained: dict[str, str], n: int) -> "LinearProbe":
        """This probe's classes in `columns` of `n`, the others not trained."""
        weights = np.full((n, self.weights.shape[1]), np.nan, self.weights.dtype)
        bias = np.full(n, np.nan)
        weights[columns], bias[columns] = self.weights, self.bias
        return LinearProbe(weights, bias, self.strength, untrained)


def fit_path(
    features: np.ndarray, labels: np.ndarray, strengths: Sequence[float]
) -> list[LinearProbe]:
    """Fit all classes at once for each strength, each fit starting from the one before.

    The features are standardized. All classes share the two matrix products of a step, so that a
    large matrix is read twice a step and not twice a class. With fewer images than features the
    fit runs in the space that the images span, which changes nothing: the best weights lie there.

    Args:
        features: (N, D) float32 or float64; the products are computed in this type.
        labels: (N, K) of 0 and 1, each class with both.
        strengths: scikit-learn's C: the loss is the sum over images of the logistic loss, plus
            half of the squared weights divided by C. The bias is free.

    Returns:
        A probe for each strength.
    """
    mean = features.mean(axis=0, dtype=np.float64).astype(features.dtype)
    x = features - mean  # (N, D), the only copy
    std = np.sqrt(np.einsum("nd,nd->d", x, x, dtype=np.float64) / len(x)).astype(features.dtype)
    std[std <= 1e-6 * np.abs(mean)] = 1  # a feature that is constant but for rounding
    x /= std
    with threadpool_limits(1):  # the products are small; waiting for threads would cost more
        if len(x) < x.shape[1]:
            u, s, back = np.linalg.svd(x, full_matrices=False)
            x = u * s  # (N, N)
        else:
            back = None
        share = labels.mean(axis=0)
        start = np.zeros((labels.shape[1], x.shape[1] + 1))
        start[:, -1] = np.log(share / (1 - share))
        probes = []
        for strength in strengths:
            start = _minimize(x, labels.astype(x.dtype), strength, start)
            weights = start[:, :-1] if back is None else start[:, :-1] @ back
            weights = (weights / std).astype(features.dtype)
            bias = start[:, -1] - weights @ mean.astype(np.float64)
            probes.append(LinearProbe(weights, bias, strength, {}))
    return probes


def _minimize(x: np.ndarray, y: np.ndarray, strength: float, start: np.ndarray) -> np.ndarray:
    """(K, D + 1) weights and biases of the least loss, by L-BFGS; sums are divided by N."""
    decay = 1 / (strength * len(x))

    def loss(flat):
        w = flat.reshape(start.shape)
        z = x @ w[:, :-1].T.astype(x.dtype) + w[:, -1].astype(x.dtype)  # (N, K)
        value = (np.logaddexp(0, z) - y * z).sum(dtype=np.float64) / len(x)
        error = (expit(z) - y) / len(x)
        gradient = np.empty_like(w)
        gradient[:, :-1] = (x.T @ error).T + decay * w[:, :-1]
        gradient[:, -1] = error.sum(axis=0, dtype=np.float64)
        return value + decay / 2 * (w[:, :-1] ** 2).sum(), gradient.ravel()

    options = {"maxiter": 300, "gtol": 1e-5, "ftol": 1e-9}
    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    return found.x.reshape(start.shape)


def check_features(
    features: np.ndarray, labels: np.ndarray | None = None, *, width: int | None = None
) -> None:
    """Refuse features that no probe can use.

    Args:
        features: (N, D).
        labels: (N, K) of 0 and 1, where there are any.
        width: D as it must be, where that is known.

    Raises:
        ProbeError: says which rows or shapes are wrong.
    """
    if features.ndim != 2 or not len(features):
        raise ProbeError(f"expected features (N, D) with N > 0, got shape {features.shape}")
    if width is not None and features.shape[1] != width:
        raise ProbeError(
            f"these images have {features.shape[1]} features and the others {width}; extract both "
            "with the same backbone"
        )
    if not np.isfinite(features.sum(axis=0, dtype=np.float64)).all():
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        raise ProbeError(
            f"the features of {len(bad)} images are not finite, in rows {bad[:5].tolist()}; did "
            "pretraining diverge?"
        )
    if labels is None:
        return
    if labels.ndim != 2 or len(labels) != len(features):
        raise ProbeError(
            f"labels {labels.shape} do not fit features {features.shape}; give one row an image"
        )
    _check_labels(np.asarray(labels))


def _check_labels(labels: np.ndarray) -> None:
    wrong = labels[~np.isin(labels, (0, 1))]
    if wrong.size:
        raise ProbeError(
            f"labels must be 0 or 1, not {wrong[0]}; leave out images of which a label is not known"
        )


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """The three numbers by name, as a results file holds them."""
        return {"value": self.value, "low": self.low, "high": self.high}

    def __str__(self) -> str:
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def patient_weights(patient_ids: Sequence, *, resamples: int, seed: int) -> np.ndarray:
    """How often each image counts when whole patients are drawn with replacement.

    Args:
        patient_ids: (N,) the patient of each image.
        resamples: R.
        seed: of the draws.

    Returns:
        (R, N) counts.

    Raises:
        ProbeError: fewer than two patients, so that nothing can vary.
    """
    patients, inverse = np.unique(np.asarray(patient_ids), return_inverse=True)
    n = len(patients)
    if n < 2:
        raise ProbeError(f"{n} patients cannot be resampled; an interval needs at least 2")
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    return draws[:, inverse].astype(float)


def resampled_scores(
    labels: np.ndarray,
    scores: Sequence[np.ndarray],
    patient_ids: Sequence,
    *,
    minus: Sequence[np.ndarray] | None = None,
    metric: Callable = weighted_auroc,
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
        metric: `weighted_auroc` or `weighted_average_precision`.
        resamples: R bootstrap resamples of patients.
        seed: of the resamples.

    Returns:
        (draws, 1 + R, K), the images as they are first.

    Raises:
        ProbeError: as the metric, the second arm has another number of draws, or there are fewer
            than two patients.
    """
    if minus is not None and len(minus) != len(scores):
        raise ProbeError(f"{len(scores)} draws cannot be paired with {len(minus)}; score both arms")
    weights = patient_weights(patient_ids, resamples=resamples, seed=seed)
    weights = np.concatenate([np.ones((1, len(labels))), weights])
    values = np.stack([metric(labels, score, weights) for score in scores])
    if minus is not None:
        values = values - np.stack([metric(labels, score, weights) for score in minus])
    return values


def macro_interval(values: np.ndarray, *, seed: int) -> Estimate:
    """Mean over classes and draws with its interval over patients and draws.

    Args:
        values: (draws, 1 + R, K) as `resampled_scores` gives them.
        seed: of the resampling of the draws.

    Returns:
        The mean on the images as they are, with the 2.5th and 97.5th percentile over resamples,
        each of which takes other patients and other draws. With one draw the interval covers the
        choice of the test patients only.

    Raises:
        ProbeError: no class can be scored.
    """
    return _percentiles(nan_mean(values, axis=2), seed)


def class_intervals(values: np.ndarray, *, seed: int) -> list[Estimate | None]:
    """An interval for each class, over patients and draws; None where it cannot be scored.

    Args:
        values: (draws, 1 + R, K) as `resampled_scores` gives them.
        seed: of the resampling of the draws.
    """
    scored = np.isfinite(values[:, 0]).any(axis=0)
    return [_percentiles(values[:, :, k], seed) if ok else None for k, ok in enumerate(scored)]


def _percentiles(values: np.ndarray, seed: int) -> Estimate:
    """(draws, 1 + R) to a mean and its interval."""
    draws, columns = values.shape
    base = nan_mean(values[:, :1], axis=0)[0]
    if not np.isfinite(base):
        raise ProbeError("no class can be scored; use more images or a larger label fraction")
    chosen = np.random.default_rng(seed).integers(draws, size=(draws, columns - 1))
    means = nan_mean(np.take_along_axis(values[:, 1:], chosen, axis=0), axis=0)
    low, high = np.nanpercentile(means, [2.5, 97.5])
    return Estimate(float(base), float(low), float(high))


def nan_mean(values: np.ndarray, *, axis: int) -> np.ndarray:
    """Mean over the finite values along an axis; NaN, without a warning, where there is none.

    >>> nan_mean(np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan]]), axis=1)
    array([ 2., nan])
    """
    finite = np.isfinite(values)
    return _divide(np.where(finite, values, 0).sum(axis=axis), finite.sum(axis=axis))


def macro_auroc_interval(
    labels: np.ndarray,
    scores: Sequence[np.ndarray],
    patient_ids: Sequence,
    *,
    minus: Sequence[np.ndarray] | None = None,
    resamples: int,
    seed: int,
) -> Estimate:
    """Macro AUROC, averaged over draws, with an interval over patients and draws.

    Arguments are those of `resampled_scores`; with `minus`, the estimate is the paired difference
    over classes that both arms trained.

    Raises:
        ProbeError: as `resampled_scores`, or no class can be scored.
    """
    values = resampled_scores(
        labels, scores, patient_ids, minus=minus, resamples=resamples, seed=seed
    )
    return macro_interval(values, seed=seed)
