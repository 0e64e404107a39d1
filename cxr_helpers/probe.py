"""How good are frozen features? Linear and k-NN probes, AUROC, intervals over patients.

A probe is a small classifier on features that stay as they are. It shows what the features hold,
not what a network could still learn.

Needs: numpy, scikit-learn, scipy, threadpoolctl, torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import nn

REGULARIZATION = (1e-4, 1e-3, 1e-2, 1e-1)


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
        scores: (N, K); a column with NaN was not trained.

    Returns:
        (K,) in [0, 1]; NaN where a class has only positives, only negatives or no scores.

    Raises:
        ProbeError: the shapes differ.

    >>> auroc(np.array([[0], [0], [1]]), np.array([[0.1], [0.9], [0.5]])).tolist()
    [0.5]
    """
    return weighted_auroc(labels, scores, np.ones((1, len(labels))))[0]


def weighted_auroc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC of each class for many weightings of the same images.

    Args:
        labels: (N, K) of 0 and 1.
        scores: (N, K); a column with NaN was not trained.
        weights: (R, N) how often each image counts, for instance in R bootstrap resamples.

    Returns:
        (R, K); NaN where a class has only positives, only negatives or no scores.

    Raises:
        ProbeError: the shapes differ.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=float)
    if labels.shape != scores.shape or labels.ndim != 2 or weights.shape[1] != len(labels):
        raise ProbeError(
            f"labels {labels.shape}, scores {scores.shape} and weights {weights.shape} do not fit"
        )
    result = np.full((len(weights), labels.shape[1]), np.nan)
    for k in range(labels.shape[1]):
        if np.isfinite(scores[:, k]).all():
            result[:, k] = _weighted_auroc_one(labels[:, k] > 0, scores[:, k], weights)
    return result


def _weighted_auroc_one(positive: np.ndarray, score: np.ndarray, weights: np.ndarray):
    rank = rankdata(score, method="dense") - 1  # ties share a rank
    n_ranks = rank.max() + 1
    at_rank = np.zeros((2, len(weights), n_ranks))
    for side, mask in enumerate((~positive, positive)):
        np.add.at(at_rank[side].T, rank[mask], weights[:, mask].T)
    negatives, positives = at_rank
    below = negatives.cumsum(axis=1) - negatives / 2  # half of the ties
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    wins = (positives * below).sum(axis=1)
    return np.divide(wins, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


@dataclass(frozen=True)
class MacroAuroc:
    """Mean AUROC over the classes that can be scored.

    Attributes:
        value: the mean.
        per_class: (K,) AUROC, NaN where left out.
        left_out: names of the classes that could not be scored.
    """

    value: float
    per_class: np.ndarray
    left_out: list[str]


def macro_auroc(labels: np.ndarray, scores: np.ndarray, names: Sequence[str]) -> MacroAuroc:
    """Mean AUROC over classes; one that cannot be scored is named, not averaged in.

    Args:
        labels: (N, K) of 0 and 1.
        scores: (N, K); NaN columns were not trained.
        names: K class names.

    Raises:
        ProbeError: the shapes differ, or no class can be scored.
    """
    per_class = auroc(labels, scores)
    scored = np.isfinite(per_class)
    if not scored.any():
        raise ProbeError(
            "no class can be scored: each lacks positives, negatives or a trained probe; use more "
            "images or a larger label fraction"
        )
    left_out = [name for name, ok in zip(names, scored, strict=True) if not ok]
    return MacroAuroc(float(per_class[scored].mean()), per_class, left_out)


def knn_scores(
    train_features: np.ndarray, train_labels: np.ndarray, features: np.ndarray, *, neighbors: int
) -> np.ndarray:
    """Share of each label among the nearest training images by cosine similarity.

    Args:
        train_features: (N, D).
        train_labels: (N, K) of 0 and 1.
        features: (M, D) to score.
        neighbors: how many training images vote; at most N are used.

    Returns:
        (M, K) in [0, 1], votes weighted by similarity.

    Raises:
        ProbeError: features that are not finite, or of another width.
    """
    _check(train_features, train_labels)
    _check(features, None)
    search = NearestNeighbors(n_neighbors=min(neighbors, len(train_features)), metric="cosine")
    center = train_features.mean(axis=0)
    distance, index = search.fit(train_features - center).kneighbors(features - center)
    weight = np.exp((1 - distance) / 0.1)  # (M, neighbors), temperature of Wu et al. 2018
    weight /= weight.sum(axis=1, keepdims=True)
    return np.einsum("mn,mnk->mk", weight, np.asarray(train_labels, dtype=float)[index])


def fit_probe(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    val_features: np.ndarray,
    val_labels: np.ndarray,
    *,
    strengths: Sequence[float] = REGULARIZATION,
) -> "LinearProbe":
    """Multi-label logistic regression; the regularization is chosen on validation images.

    Args:
        train_features: (N, D).
        train_labels: (N, K) of 0 and 1.
        val_features: (V, D), of other patients.
        val_labels: (V, K).
        strengths: scikit-learn's C, from strong to weak regularization; one for all classes, the
            one with the best mean AUROC on validation (the strongest where none can be scored).

    Raises:
        ProbeError: features that are not finite or do not fit the labels, or no class with both
            a positive and a negative in training.
    """
    _check(train_features, train_labels)
    _check(val_features, val_labels)
    trainable = np.flatnonzero((train_labels.min(axis=0) == 0) & (train_labels.max(axis=0) == 1))
    if not len(trainable):
        raise ProbeError(
            f"none of {train_labels.shape[1]} classes has both a positive and a negative among "
            f"{len(train_labels)} training images; use a larger label fraction"
        )
    best, best_value = None, -np.inf
    for strength in strengths:
        probe = LinearProbe.fit(train_features, train_labels, trainable, strength)
        per_class = auroc(val_labels, probe.scores(val_features))
        value = np.nanmean(per_class) if np.isfinite(per_class).any() else 0.0
        if value > best_value:
            best, best_value = probe, value
    return best


@dataclass(frozen=True)
class LinearProbe:
    """A fitted logistic regression for each class that had both labels in training."""

    scaler: StandardScaler
    models: dict[int, LogisticRegression]
    n_classes: int
    strength: float

    @classmethod
    def fit(cls, features, labels, trainable, strength) -> "LinearProbe":
        """Fit the trainable classes with one strength (scikit-learn's C)."""
        scaler = StandardScaler().fit(features)
        scaled = scaler.transform(features)
        models = {}
        with threadpool_limits(1):  # the products are small; waiting for threads would cost more
            for k in trainable:
                model = LogisticRegression(C=strength, max_iter=300, tol=1e-3)
                models[int(k)] = model.fit(scaled, labels[:, k])
        return cls(scaler, models, labels.shape[1], strength)

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(M, D) features to (M, K) log-odds; NaN in the columns of untrained classes."""
        scores = np.full((len(features), self.n_classes), np.nan)
        scaled = self.scaler.transform(features)
        with threadpool_limits(1):
            for k, model in self.models.items():
                scores[:, k] = model.decision_function(scaled)
        return scores


def _check(features: np.ndarray, labels: np.ndarray | None) -> None:
    if features.ndim != 2 or not len(features):
        raise ProbeError(f"expected features (N, D) with N > 0, got shape {features.shape}")
    if not np.isfinite(features).all():
        bad = int((~np.isfinite(features)).any(axis=1).sum())
        raise ProbeError(f"the features of {bad} images are not finite; did pretraining diverge?")
    if labels is not None and (labels.ndim != 2 or len(labels) != len(features)):
        raise ProbeError(f"labels {labels.shape} do not fit features {features.shape}")


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """The three numbers by name, as a results file holds them."""
        return {"value": self.value, "low": self.low, "high": self.high}


def patient_weights(patient_ids: Sequence, *, resamples: int, seed: int) -> np.ndarray:
    """How often each image counts when whole patients are drawn with replacement.

    Args:
        patient_ids: (N,) the patient of each image.
        resamples: R.
        seed: of the draws.

    Returns:
        (R, N) counts.
    """
    patients, inverse = np.unique(np.asarray(patient_ids), return_inverse=True)
    n = len(patients)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    return draws[:, inverse].astype(float)


def macro_auroc_interval(
    labels: np.ndarray,
    scores: Sequence[np.ndarray],
    patient_ids: Sequence,
    *,
    minus: Sequence[np.ndarray] | None = None,
    resamples: int,
    seed: int,
) -> Estimate:
    """Macro AUROC, averaged over draws, with a bootstrap interval over patients.

    Args:
        labels: (N, K) of 0 and 1.
        scores: for each draw of the training labels an (N, K) array of scores.
        patient_ids: (N,) the patient of each image.
        minus: scores of a second arm on the same draws; the estimate is then the difference,
            over classes that both arms trained.
        resamples: bootstrap resamples of patients.
        seed: of the resamples.

    Returns:
        Mean over draws, with the 2.5th and 97.5th percentile over resamples. The interval covers
        the choice of test patients; not the choice of training images beyond these draws.

    Raises:
        ProbeError: shapes differ, or no class can be scored.
    """
    weights = patient_weights(patient_ids, resamples=resamples, seed=seed)
    weights = np.concatenate([np.ones((1, len(labels))), weights])
    values = []
    for i, score in enumerate(scores):
        per_class = weighted_auroc(labels, score, weights)  # (1 + R, K)
        if minus is not None:
            per_class = per_class - weighted_auroc(labels, minus[i], weights)
        values.append(_nan_mean(per_class))
    mean = np.nanmean(values, axis=0)
    if not np.isfinite(mean[0]):
        raise ProbeError("no class can be scored; use more images or a larger label fraction")
    low, high = np.nanpercentile(mean[1:], [2.5, 97.5])
    return Estimate(float(mean[0]), float(low), float(high))


def _nan_mean(per_class: np.ndarray) -> np.ndarray:
    """(R, K) to (R,): mean over the classes with a value; NaN where there is none."""
    finite = np.isfinite(per_class)
    total = np.where(finite, per_class, 0).sum(axis=1)
    return np.divide(
        total, finite.sum(axis=1), out=np.full(len(per_class), np.nan), where=finite.any(axis=1)
    )


def mean_interval(values: Sequence[float], *, resamples: int, seed: int) -> Estimate:
    """Mean of repeated measurements with a bootstrap interval over the repeats.

    Raises:
        ProbeError: fewer than two values.
    """
    values = np.asarray(values, dtype=float)
    if len(values) < 2 or not np.isfinite(values).all():
        raise ProbeError(f"an interval needs at least two finite values, got {values.tolist()}")
    rng = np.random.default_rng(seed)
    means = rng.choice(values, size=(resamples, len(values))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(values.mean()), float(low), float(high))
