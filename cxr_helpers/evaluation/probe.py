"""How good are frozen features? Linear and k-NN probes, their scores, intervals over patients.

A probe is a small classifier on features that stay as they are. It shows what the features hold,
not what a network could still learn. Classes that cannot be scored are named, never averaged in.

From cxr-helpers 0.1.0 (MIT license).
Needs: numpy, scikit-learn, scipy, threadpoolctl, torch.
Goes with: intervals.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Number

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from .intervals import Interval, bias_corrected

REGULARIZATION = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
BLOCK = 4_000_000  # weights that are sorted at once, to bound memory
NO_PATIENT = {"", "nan", "none", "<na>", "nat"}  # how tables write that a name is missing


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
    """Features of gray images from a backbone that takes one channel or three.

    Args:
        backbone: (B, C, H, W) to (B, D). C is what its first convolution takes, 1 or 3, and 3
            where it has none; with 3 the gray image is repeated. Its mode (train or eval) is
            restored afterwards.
        pixels: (N, H, W) array or tensor: uint8, uint16 of the full range, or float in [0, 1].
        image_size: side in pixels to which images are scaled.
        batch_size: images at once.
        device: where the backbone is.
        mean: subtracted after scaling to [0, 1]; one value, or one for each channel.
        std: divided by.

    Returns:
        (N, D) float32.

    Raises:
        ProbeError: the pixels have another shape, type or range; the backbone is elsewhere, takes
            another number of channels than 1 or 3, or gives no (B, D).
    """
    pixels = _stack(pixels)
    if image_size < 1 or batch_size < 1:
        raise ProbeError(f"image_size {image_size} and batch_size {batch_size} must be 1 or more")
    weight = next(backbone.parameters(), torch.zeros(0, device=device))
    if weight.device.type != torch.device(device).type:
        raise ProbeError(f"the backbone is on {weight.device}, not on {device}; give that device")
    channels = _input_channels(backbone)
    center, spread = _for_channels(channels, mean=mean, std=std, device=device)
    was_training = backbone.training
    backbone.eval()
    features = []
    try:
        for start in range(0, len(pixels), batch_size):
            images = _unit(pixels[start : start + batch_size], start, device)[:, None]
            size = {"size": image_size, "mode": "bilinear", "antialias": True}
            images = nn.functional.interpolate(images, **size)  # (B, 1, H, W)
            images = ((images - center) / spread).expand(-1, channels, -1, -1).to(weight.dtype)
            found = backbone(images.contiguous(memory_format=torch.channels_last))
            if not isinstance(found, Tensor) or found.ndim != 2:
                what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise ProbeError(f"the backbone gives {what} for a batch; expected one (B, D)")
            features.append(found.float().cpu())
    finally:
        backbone.train(was_training)
    return torch.cat(features).numpy() if features else np.zeros((0, 0), np.float32)


def _stack(pixels) -> np.ndarray | Tensor:
    """Images as they come, one array or tensor (N, H, W) of a type that is known."""
    try:
        pixels = pixels if isinstance(pixels, Tensor) else np.asarray(pixels)
    except ValueError as error:
        raise ProbeError(f"the images are no one array (N, H, W): {error}") from None
    if pixels.ndim != 3 or 0 in pixels.shape[1:]:
        raise ProbeError(f"expected pixels (N, H, W) of gray images, got {tuple(pixels.shape)}")
    kind = _kind(pixels)
    if kind not in ("uint8", "uint16") and "float" not in kind:
        raise ProbeError(
            f"pixels are {kind}; give uint8, uint16 of the full range, or float in [0, 1]"
        )
    if kind == "uint16" and len(pixels):
        top = int(pixels.float().max() if isinstance(pixels, Tensor) else pixels.max())
        if 0 < top < 32768:
            raise ProbeError(
                f"pixels are uint16 up to {top}, so they hold {top.bit_length()} bits only; scale "
                "them to 65535, or give floats in [0, 1]"
            )
    return pixels


def _kind(pixels: np.ndarray | Tensor) -> str:
    return str(getattr(pixels.dtype, "name", pixels.dtype)).removeprefix("torch.")


def _unit(images: np.ndarray | Tensor, first: int, device: str | torch.device) -> Tensor:
    """(B, H, W) as float32 in [0, 1]; `first` is the row of the first of them."""
    kind = _kind(images)
    if not isinstance(images, Tensor):
        images = torch.from_numpy(np.array(images, np.uint8 if kind == "uint8" else np.float32))
    values = images.detach().to(device).float()
    if kind in ("uint8", "uint16"):
        return values / (255 if kind == "uint8" else 65535)
    low, high = values.amin(dim=(1, 2)), values.amax(dim=(1, 2))
    bad = (~((low >= -1e-6) & (high <= 1 + 1e-6))).nonzero().flatten().tolist()
    if bad:
        raise ProbeError(
            f"image {first + bad[0]} is {kind} with values from {low[bad[0]]:g} to "
            f"{high[bad[0]]:g}; floats must lie in [0, 1], 8 bits come as uint8"
        )
    return values


def _input_channels(backbone: nn.Module) -> int:
    """Channels that the first convolution takes; 3 where there is none."""
    first = next((m for m in backbone.modules() if isinstance(m, nn.Conv2d)), None)
    channels = 3 if first is None else first.in_channels
    if channels not in (1, 3):
        raise ProbeError(
            f"the backbone's first convolution takes {channels} channels; a gray image can be "
            "given as 1 or 3"
        )
    return channels


def _for_channels(channels: int, *, device, **norm) -> list[Tensor]:
    """Mean and standard deviation as (1, 1 or C, 1, 1)."""
    shaped = []
    for name, value in norm.items():
        one = torch.as_tensor(value, dtype=torch.float32, device=device).reshape(1, -1, 1, 1)
        if one.shape[1] not in (1, channels):
            raise ProbeError(
                f"{name} has {one.shape[1]} values, and the backbone takes {channels} channels; "
                "give one value, or one for each channel"
            )
        if not one.isfinite().all() or (name == "std" and not (one > 0).all()):
            raise ProbeError(f"{name} {value} cannot normalize; give finite values, std above 0")
        shaped.append(one)
    return shaped


def auroc(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each class; ties count one half.

    Args:
        labels: (N, K) of 0 and 1, or (N,) for one class; array, tensor, list or data frame.
        scores: the same shape; a column of NaN was not trained.

    Returns:
        (K,) in [0, 1]; NaN where a class has only positives, only negatives or no scores.

    Raises:
        ProbeError: the shapes differ, two data frames have their rows or columns in another order,
            a label is not 0 or 1, or only some scores of a class are finite.

    >>> auroc(np.array([[0], [0], [1]]), np.array([[0.1], [0.9], [0.5]])).tolist()
    [0.5]
    """
    return weighted_auroc(labels, scores, np.ones((1, len(scores))))[0]


def average_precision(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Average precision of each class: mean precision at the positives, from the highest score on.

    Args:
        labels: (N, K) of 0 and 1, or (N,) for one class; array, tensor, list or data frame.
        scores: the same shape; a column of NaN was not trained.

    Returns:
        (K,) in (0, 1]; NaN where a class has only positives, only negatives or no scores. Chance
        is near the share of positives, and above it where these are few, so values of classes of
        other prevalence do not compare.

    Raises:
        ProbeError: the shapes differ, two data frames have their rows or columns in another order,
            a label is not 0 or 1, or only some scores of a class are finite.

    >>> average_precision(np.array([[1], [0], [1]]), np.array([[0.9], [0.5], [0.1]])).round(3)
    array([0.833])
    """
    return weighted_average_precision(labels, scores, np.ones((1, len(scores))))[0]


def weighted_auroc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC of each class for many weightings of the same images.

    Args:
        labels: (N, K) of 0 and 1.
        scores: (N, K); a column of NaN was not trained.
        weights: (R, N) how often each image counts, for instance in R bootstrap resamples.

    Returns:
        (R, K); NaN where a class has only positives, only negatives or no scores.

    Raises:
        ProbeError: the shapes differ, two data frames have their rows or columns in another order,
            a label is not 0 or 1, or only some scores of a class are finite.
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
    _check_order(labels, scores, "labels", "scores")
    labels, scores = _labels(labels), _numbers(scores, "scores").astype(float, copy=False)
    weights = _numbers(weights, "weights")
    labels, scores = (a[:, None] if a.ndim == 1 else a for a in (labels, scores))
    if labels.shape != scores.shape or labels.ndim != 2 or weights.shape[1:] != (len(labels),):
        raise ProbeError(
            f"labels {labels.shape}, scores {scores.shape} and weights {weights.shape} do not fit; "
            "expected (N, K) twice and (R, N)"
        )
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ProbeError("a weight is negative or not finite; it says how often an image counts")
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
        names: K class names, each once.

    Raises:
        ProbeError: as `auroc`, the names do not fit the columns, or no class can be scored.
    """
    names = _class_names(names, labels, scores)
    return _macro(labels, names, auroc(labels, scores))


def macro_average_precision(
    labels: np.ndarray, scores: np.ndarray, names: Sequence[str]
) -> MacroScore:
    """Mean average precision over classes; arguments and errors are those of `macro_auroc`."""
    names = _class_names(names, labels, scores)
    return _macro(labels, names, average_precision(labels, scores))


def _macro(labels, names, per_class) -> MacroScore:
    labels, scored = _labels(labels), np.isfinite(per_class)
    labels = labels[:, None] if labels.ndim == 1 else labels
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

    Raises:
        ProbeError: a label is not 0 or 1.

    >>> one_sided(np.array([0, 0]), "training")
    'no positive among 2 training images'
    """
    labels = _labels(labels)
    for value, word in ((1, "positive"), (0, "negative")):
        if not (labels == value).any():
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
        ProbeError: features that are not finite, or of another width; labels that do not fit them
            or are not 0 or 1; or no neighbor is asked.

    Source: Wu et al. 2018, 'Unsupervised feature learning via non-parametric instance
    discrimination', section 3.4, for the form of the weights; it does not center.
    """
    train_features, train_labels = _checked(train_features, train_labels)
    features, _ = _checked(features, width=train_features.shape[1])
    if neighbors != int(neighbors) or neighbors < 1:
        raise ProbeError(f"{neighbors} neighbors cannot vote; give a whole number from 1 on")
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
    names: Sequence[str] | None = None,
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
        names: K class names, each once, for the messages.

    Returns:
        The probe of the chosen strength; classes with one kind of label only are not trained.

    Raises:
        ProbeError: features that are not finite or do not fit the labels; labels other than 0 and
            1; training and validation of other classes, or names that do not fit them; no class
            with both a positive and a negative in training; or none of these with both in
            validation.
    """
    if names is not None:
        names = _class_names(names, train_labels, val_labels)
    _check_order(train_labels, val_labels, "training labels", "validation labels", rows=False)
    train_features, train_labels = _checked(train_features, train_labels)
    val_features, val_labels = _checked(val_features, val_labels, width=train_features.shape[1])
    if train_labels.shape[1] != val_labels.shape[1]:
        raise ProbeError(
            f"{train_labels.shape[1]} classes in training and {val_labels.shape[1]} in validation; "
            "give the same ones"
        )
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
        features, _ = _checked(features, width=self.weights.shape[1])
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

    Raises:
        ProbeError: features or labels as in `check_features`, a class of one kind only, or no
            strength above 0.
    """
    features, labels = _checked(features, labels)
    strengths = list(strengths)
    if not strengths or not all(np.isfinite(c) and c > 0 for c in strengths):
        raise ProbeError(f"strengths {strengths}: give one or more finite numbers above 0")
    share = labels.mean(axis=0)
    if not ((share > 0) & (share < 1)).all():
        k = int(np.flatnonzero((share <= 0) | (share >= 1))[0])
        raise ProbeError(f"column {k} of the labels: {one_sided(labels[:, k], 'training')}")
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


def check_features(
    features: np.ndarray, labels: np.ndarray | None = None, *, width: int | None = None
) -> None:
    """Refuse features that no probe can use.

    Args:
        features: (N, D) numbers; an array, a tensor or a data frame.
        labels: (N, K) of 0 and 1, where there are any.
        width: D as it must be, where that is known.

    Raises:
        ProbeError: says which rows or shapes are wrong.
    """
    _checked(features, labels, width=width)


def _checked(features, labels=None, *, width: int | None = None):
    """Features as float32 or float64 and labels as an array, after everything that is refused."""
    if labels is not None:
        _check_order(features, labels, "features", "labels", columns=False)
    features = _numbers(features, "features")
    if features.dtype not in (np.float32, np.float64):
        features = features.astype(np.float32 if features.dtype == np.float16 else np.float64)
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
            f"the features of {len(bad)} images are not finite, in rows {bad[:5].tolist()}; leave "
            "these images out, or look at the backbone's weights"
        )
    if labels is None:
        return features, None
    labels = _labels(labels)
    if labels.ndim != 2 or len(labels) != len(features):
        raise ProbeError(
            f"labels {labels.shape} do not fit features {features.shape}; give one row an image "
            "and one column a class"
        )
    return features, labels


def _array(values) -> np.ndarray:
    """What users bring as an array: a list, a data frame, a tensor of any device and type."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values
    if isinstance(values, np.ma.MaskedArray):  # what is masked is not known
        values = values.astype(float).filled(np.nan)
    return np.asarray(values)


def _numbers(values, name: str) -> np.ndarray:
    try:
        array = _array(values)
        array = array.astype(float) if array.dtype == object else array
    except (TypeError, ValueError) as error:
        raise ProbeError(f"the {name} are no table of numbers: {error}") from None
    if array.dtype.kind not in "buif":
        raise ProbeError(f"the {name} are {array.dtype}, no numbers")
    return array


def _labels(values) -> np.ndarray:
    """Labels of 0 and 1 of any type of number or of bool."""
    try:
        labels = _array(values)
    except (TypeError, ValueError) as error:
        raise ProbeError(f"the labels are no table (N, K): {error}") from None
    if labels.dtype.kind in "buif":
        wrong = labels[~np.isin(labels, (0, 1))].tolist()
    else:  # text and missing values are told by their own type
        plain = (Number, np.bool_)
        wrong = [v for v in labels.ravel().tolist() if not isinstance(v, plain) or v not in (0, 1)]
    if wrong:
        raise ProbeError(
            f"labels must be 0 or 1, not {wrong[0]!r}; leave out images of which a label is not "
            "known"
        )
    return labels.astype(float) if labels.dtype.kind not in "buif" else labels


def _check_order(first, second, a: str, b: str, *, rows: bool = True, columns: bool = True) -> None:
    """Refuse two data frames whose ids or classes stand in another order.

    Rows and columns that were only numbered by pandas say nothing and are taken in their order.
    """
    if not (hasattr(first, "iloc") and hasattr(second, "iloc")):
        return
    for axis, asked in (("index", rows), ("columns", columns)):
        one, two = getattr(first, axis, None), getattr(second, axis, None)
        known = [k is not None and type(k).__name__ != "RangeIndex" for k in (one, two)]
        if not asked or not all(known) or len(one) != len(two) or one.equals(two):
            continue
        x, y = next(((x, y) for x, y in zip(one, two, strict=True) if x != y), (None, None))
        raise ProbeError(
            f"the {axis} of {a} and {b} differ: {x!r} stands where the other has {y!r}; bring both "
            f"into one order, as by {b.split()[-1]}.reindex({axis}=...)"
        )


def _class_names(names: Sequence[str], *tables) -> list[str]:
    """K different names that fit the columns of tables (N, K) or (N,)."""
    names = [names] if isinstance(names, str) else [str(name) for name in names]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ProbeError(f"class {twice[0]!r} is named {names.count(twice[0])} times; name it once")
    for table in tables:
        shape = np.shape(table)
        if len(shape) in (1, 2) and (*shape, 1)[1] != len(names):
            raise ProbeError(f"{len(names)} class names for {(*shape, 1)[1]} columns: {names}")
        columns = [str(c) for c in getattr(table, "columns", [])]
        if columns != names and set(columns) & set(names):
            x, y = next((x, y) for x, y in zip(names, columns, strict=True) if x != y)
            raise ProbeError(
                f"class {x!r} is named where the table's column is {y!r}; give the names in the "
                "table's order"
            )
    return names


def patient_weights(patient_ids: Sequence, *, resamples: int, seed: int) -> np.ndarray:
    """How often each image counts when whole patients are drawn with replacement.

    Args:
        patient_ids: (N,) the patient of each image.
        resamples: R.
        seed: of the draws.

    Returns:
        (R, N) counts.

    Raises:
        ProbeError: fewer than two patients, so that nothing can vary; an image without a patient;
            or fewer than one resample.
    """
    if resamples < 1:
        raise ProbeError(f"resamples must be at least 1, not {resamples}")
    ids = np.asarray(patient_ids)
    unknown = np.flatnonzero([str(one).lower() in NO_PATIENT for one in ids.tolist()])
    if len(unknown):
        raise ProbeError(
            f"{len(unknown)} of {len(ids)} images name no patient, the first in row {unknown[0]}; "
            "leave them out, or give each a patient of its own"
        )
    patients, inverse = np.unique(ids, return_inverse=True)
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
        ProbeError: as the metric and `patient_weights`, the second arm has another number of
            draws, there is none, or there is not one patient for each image.
    """
    if len(patient_ids) != len(labels) or not len(scores):
        raise ProbeError(
            f"{len(patient_ids)} patients for {len(labels)} images and {len(scores)} draws; name "
            "the patient of each image, and give at least one draw"
        )
    if minus is not None and len(minus) != len(scores):
        raise ProbeError(f"{len(scores)} draws cannot be paired with {len(minus)}; score both arms")
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
        ProbeError: the values have another shape, or there is no draw.

    >>> over_draws(np.array([[1.0, 1.0, 1.0], [3.0, 3.0, 3.0]]), seed=1)[0]
    np.float64(2.0)
    """
    values = np.asarray(values, dtype=float)
    if values.ndim not in (2, 3) or not len(values):
        raise ProbeError(f"expected values (draws, 1 + R) or (draws, 1 + R, K), got {values.shape}")
    draws, columns = values.shape[:2]
    size = (max(draws - 1, 1), columns - 1)
    chosen = np.random.default_rng(seed).integers(draws, size=size)
    resamples = values[chosen, np.arange(1, columns)]  # (draws - 1, R, ...)
    return np.concatenate([nan_mean(values[:, :1], axis=0), nan_mean(resamples, axis=0)])


def nan_mean(values: np.ndarray, *, axis: int) -> np.ndarray:
    """Mean over the finite values along an axis; NaN, without a warning, where there is none.

    >>> nan_mean(np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan]]), axis=1)
    array([ 2., nan])
    """
    values = _numbers(values, "values").astype(float, copy=False)
    finite = np.isfinite(values)
    return _divide(np.where(finite, values, 0).sum(axis=axis), finite.sum(axis=axis))


def macro_interval(values: np.ndarray, *, seed: int) -> Interval:
    """Mean over labels and draws with its 95% interval over patients and draws.

    Args:
        values: (draws, 1 + R, K) as `resampled_scores` gives them. With one draw the
            interval covers the choice of the test patients only.
        seed: of the resampling of the draws.

    Raises:
        ProbeError: no label can be scored.
    """
    first, *drawn = over_draws(nan_mean(values, axis=2), seed=seed)
    if np.isnan(first):
        raise ProbeError("no class can be scored; use more images or a larger label fraction")
    return bias_corrected(first, drawn)


def class_intervals(values: np.ndarray, *, seed: int) -> list[Interval | None]:
    """As `macro_interval` for each label; None for one that cannot be scored."""
    means = over_draws(values, seed=seed).T  # (K, 1 + R)
    return [None if np.isnan(one[0]) else bias_corrected(one[0], one[1:]) for one in means]


def macro_auroc_interval(
    labels: np.ndarray, scores: Sequence[np.ndarray], patients: Sequence, *, seed: int, **options
) -> Interval:
    """Macro AUROC, averaged over draws, with its 95% interval over patients and draws.

    Arguments are those of `resampled_scores`; with `minus`, it is the paired difference over
    labels that both arms trained.

    Raises:
        ProbeError: as `resampled_scores`, or no label can be scored.
    """
    values = resampled_scores(labels, scores, patients, seed=seed, **options)
    return macro_interval(values, seed=seed)
