"""How good are frozen features? Linear and k-NN probes on them.

A probe is a small classifier on features that stay as they are. It shows what the features hold,
not what a network could still learn. Classes that cannot be trained are named.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, scikit-learn, scipy, threadpoolctl.
Goes with: checks.py, intervals.py, scoring.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from .checks import (
    EvaluationError,
    binary_labels,
    check_class_names,
    check_finite,
    check_order,
    numbers,
)
from .scoring import auroc, one_sided

REGULARIZATION = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


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
        EvaluationError: features that are not finite, or of another width; labels that do not fit
            them or are not 0 or 1; or no neighbor is asked.

    Source: Wu et al. 2018, 'Unsupervised feature learning via non-parametric instance
    discrimination', section 3.4, for the form of the weights; it does not center.

    >>> knn_scores([[0.0, 1.0], [1.0, 0.0]], [[1], [0]], [[0.1, 2.0]], neighbors=1)
    array([[1.]])
    """
    train_features, train_labels = _checked(train_features, train_labels)
    features, _ = _checked(features, width=train_features.shape[1])
    if neighbors != int(neighbors) or neighbors < 1:
        raise EvaluationError(f"{neighbors} neighbors cannot vote; give a whole number from 1 on")
    search = NearestNeighbors(n_neighbors=min(int(neighbors), len(train_features)), metric="cosine")
    center = train_features.mean(axis=0)
    distance, index = search.fit(train_features - center).kneighbors(features - center)
    weight = np.exp((1 - distance) / 0.1)  # (M, neighbors)
    weight /= weight.sum(axis=1, keepdims=True)
    return np.einsum("mn,mnk->mk", weight, train_labels.astype(float)[index])


def fit_probe(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    val_features: np.ndarray,
    val_labels: np.ndarray,
    *,
    strengths: Sequence[float] = REGULARIZATION,
    class_names: Sequence[str] | None = None,
) -> "LinearProbe":
    """Multi-label logistic regression; the regularization is chosen on validation images.

    Args:
        train_features: (N, D) numbers; an array, a tensor or a data frame, as the others.
        train_labels: (N, K) of 0 and 1.
        val_features: (V, D), of other patients.
        val_labels: (V, K) of 0 and 1.
        strengths: scikit-learn's C, from strong to weak regularization; one for all classes, the
            one with the best mean AUROC on validation, the strongest of equals. With a single
            one, nothing is chosen.
        class_names: K names, each once, for the messages.

    Returns:
        The probe of the chosen strength; classes with one kind of label only are not trained.

    Raises:
        EvaluationError: features that are not finite or do not fit the labels; labels other than
            0 and 1; training and validation of other classes, or names that do not fit them; no
            class with both a positive and a negative in training; or none of these with both in
            validation.

    >>> x, y = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([[0], [0], [1], [1]])
    >>> fit_probe(x, y, x, y, class_names=["Mass"]).scores([[3.0]]) > 0
    array([[ True]])
    """
    if class_names is not None:
        class_names = check_class_names(class_names, train_labels, val_labels)
    both = ("training labels", "validation labels")
    check_order(train_labels, val_labels, both, axes=("columns",))
    train_features, train_labels = _checked(train_features, train_labels)
    val_features, val_labels = _checked(val_features, val_labels, width=train_features.shape[1])
    n_classes = train_labels.shape[1]
    if n_classes != val_labels.shape[1]:
        raise EvaluationError(
            f"{n_classes} classes in training and {val_labels.shape[1]} in validation; give the "
            "same ones"
        )
    class_names = class_names or [f"class {k}" for k in range(n_classes)]
    reasons = [one_sided(column, "training") for column in train_labels.T]
    untrained = {name: why for name, why in zip(class_names, reasons, strict=True) if why}
    columns = np.flatnonzero([why is None for why in reasons])
    if not len(columns):
        raise EvaluationError(
            "no class can be trained: "
            + "; ".join(f"{name}: {why}" for name, why in untrained.items())
            + ". Use a larger label fraction or leave the class out"
        )
    fitted = fit_path(train_features, train_labels[:, columns], strengths)
    best = fitted[0] if len(fitted) == 1 else _best_on(fitted, val_features, val_labels, columns)
    weights = np.full((n_classes, best.weights.shape[1]), np.nan, best.weights.dtype)
    bias = np.full(n_classes, np.nan)
    weights[columns], bias[columns] = best.weights, best.bias
    return LinearProbe(weights, bias, best.strength, untrained)


def _best_on(fitted, features, labels, columns) -> "LinearProbe":
    values = np.array([auroc(labels[:, columns], one.scores(features)) for one in fitted])
    can = np.isfinite(values[0])
    if not can.any():
        raise EvaluationError(
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
            EvaluationError: features that are not finite, or of another width.
        """
        features, _ = _checked(features, width=self.weights.shape[1])
        with threadpool_limits(1):
            return features @ self.weights.T + self.bias


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

    Raises:
        EvaluationError: features or labels as in `fit_probe`, a class of one kind only, or no
            strength above 0.

    >>> x, y = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([[0], [0], [1], [1]])
    >>> [one.strength for one in fit_path(x, y, [0.01, 1.0])]
    [0.01, 1.0]
    """
    features, labels = _checked(features, labels)
    strengths = list(strengths)
    if not strengths or not all(np.isfinite(c) and c > 0 for c in strengths):
        raise EvaluationError(f"strengths {strengths}: give one or more finite numbers above 0")
    share = labels.mean(axis=0)
    if not ((share > 0) & (share < 1)).all():
        k = int(np.flatnonzero((share <= 0) | (share >= 1))[0])
        raise EvaluationError(f"column {k} of the labels: {one_sided(labels[:, k], 'training')}")
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


def _checked(features, labels=None, *, width: int | None = None):
    """Features as float32 or float64 and labels as an array, after everything that is refused.

    `width` is D as it must be, where that is known.
    """
    check_order(features, labels, ("features", "labels"), axes=("index",))
    features = numbers(features, "features")
    if features.dtype not in (np.float32, np.float64):
        features = features.astype(np.float32 if features.dtype == np.float16 else np.float64)
    if features.ndim != 2 or not len(features):
        raise EvaluationError(f"expected features (N, D) with N > 0, got shape {features.shape}")
    if width is not None and features.shape[1] != width:
        raise EvaluationError(
            f"these images have {features.shape[1]} features and the others {width}; extract both "
            "with the same backbone"
        )
    check_finite(features, "features", "leave these images out, or look at the backbone's weights")
    if labels is None:
        return features, None
    labels = binary_labels(labels)
    if labels.ndim != 2 or len(labels) != len(features):
        raise EvaluationError(
            f"labels {labels.shape} do not fit features {features.shape}; give one row an image "
            "and one column a class"
        )
    return features, labels
