"""Intervals: of one run from resamples of its images, and of a mean over several seeds.

What is resampled is whole images, or whole patients: one row of counts says how often each counts.
Any statistic that takes such counts can have an interval.

Sources: Efron, Better bootstrap confidence intervals, JASA 1987, section 2, for the bias-corrected
percentiles. Satterthwaite, An approximate distribution of estimates of variance components,
Biometrics Bulletin 1946, for the degrees of freedom of a sum of variances.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, scipy.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

CHUNK = 100  # resamples computed at once, to bound memory


@dataclass(frozen=True)
class Interval:
    """A value with its interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """The three numbers by name, as a results file holds them."""
        return {"value": self.value, "low": self.low, "high": self.high}

    def __str__(self) -> str:
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray],
    n_images: int,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int,
) -> Interval:
    """A statistic with its interval under resampling of whole images.

    Args:
        statistic: (B, N) counts of each image -> (B,) values. A difference of two models on the
            same counts gives a paired interval.
        n_images: N.
        resamples: number of resamples, each of N images drawn with replacement.
        confidence: of the interval, 0 to 1.
        seed: of the draws.

    Raises:
        ValueError: there is nothing to resample, or the statistic is undefined on the images.

    >>> ages = np.array([20, 30, 40, 50, 60])
    >>> bootstrap(lambda counts: counts @ ages / counts.sum(axis=1), len(ages), seed=0).value
    40.0
    """
    drawn = resampled(statistic, n_images, resamples=resamples, seed=seed)
    return bias_corrected(statistic(np.ones((1, n_images)))[0], drawn, confidence=confidence)


def resampled(
    statistic: Callable[[np.ndarray], np.ndarray],
    n_images: int,
    *,
    resamples: int = 1000,
    seed: int,
) -> np.ndarray:
    """The statistic on each resample of the images, (resamples, ...); arguments as in `bootstrap`.

    The same seed draws the same images, whatever the statistic is.

    Raises:
        ValueError: there is nothing to resample, or the statistic gives another number of values.

    >>> resampled(lambda counts: counts.sum(axis=1), 5, resamples=3, seed=0)
    array([5., 5., 5.])
    """
    if n_images < 1 or resamples < 1:
        raise ValueError(
            f"cannot resample {n_images} images {resamples} times; both must be at least 1"
        )
    rng = np.random.default_rng(seed)
    share = np.full(n_images, 1 / n_images)
    sizes = [min(CHUNK, resamples - start) for start in range(0, resamples, CHUNK)]
    counts = (rng.multinomial(n_images, share, n).astype(float) for n in sizes)
    drawn = [np.asarray(statistic(rows)) for rows in counts]
    if any(part.shape[:1] != (n,) for part, n in zip(drawn, sizes, strict=True)):
        raise ValueError(
            f"for {sizes[0]} rows of counts the statistic gave {drawn[0].shape}; expected one "
            "value a row"
        )
    return np.concatenate(drawn)


def bias_corrected(value: float, drawn: np.ndarray, *, confidence: float = 0.95) -> Interval:
    """Bias-corrected percentile interval of a value from its resamples.

    Average precision is higher in most resamples than in the images themselves, since an image
    drawn twice brings its hits twice. Plain percentiles would then lie too high, and could even
    leave the value out; the correction shifts them by the share of resamples below the value, at
    most so far that the value stays inside. A value beyond all resamples is an end itself.

    Args:
        value: the statistic on the images themselves.
        drawn: (R,) the statistic on the resamples; NaN where it is undefined, which is left out.
        confidence: of the interval, 0 to 1.

    Source: Efron 1987, section 2 (BC).

    Raises:
        ValueError: the value or all resamples are undefined, something is infinite, the shape is
            another, or the confidence is outside 0 to 1.

    >>> print(bias_corrected(0.5, np.linspace(0, 1, 101)))
    +0.500 (+0.025 to +0.975)
    """
    _check_confidence(confidence)
    drawn = np.asarray(drawn, dtype=float)
    if drawn.ndim != 1 or np.ndim(value):
        raise ValueError(
            f"expected one value and resamples of shape (R,), got {np.shape(value)}, {drawn.shape}"
        )
    value, drawn = float(value), drawn[~np.isnan(drawn)]
    if np.isnan(value) or not len(drawn):
        raise ValueError(
            "the statistic is undefined on these images or on all of their resamples; is there "
            "anything that it can be computed on, such as a truth box or a positive label?"
        )
    if not np.isfinite([value, *drawn]).all():
        raise ValueError("the statistic is infinite; an interval needs finite values")
    tail = norm.ppf((1 + confidence) / 2)
    below = ((drawn < value).sum() + 0.5 * (drawn == value).sum()) / len(drawn)
    shift = np.clip(norm.ppf(below), -tail, tail)
    low, high = np.quantile(drawn, norm.cdf(2 * shift + np.array([-tail, tail])))
    return Interval(value, min(float(low), value), max(float(high), value))


def over_seeds(values: np.ndarray, *, confidence: float = 0.95) -> Interval:
    """Mean over seeds with Student's interval, on the test images as they are.

    Args:
        values: (S,) one for each seed.
        confidence: of the interval, 0 to 1.

    Raises:
        ValueError: fewer than two seeds, a value that is not finite, or the confidence is outside
            0 to 1.

    >>> print(over_seeds([1.0, 2.0, 3.0]))
    +2.000 (-0.484 to +4.484)
    """
    _check_confidence(confidence)
    values = _finite(values)
    if values.ndim != 1:
        raise ValueError(f"expected values of shape (S,), got {values.shape}")
    return _student(values.mean(), *_of_mean(values, 0), confidence)


def over_seeds_and_images(
    values: np.ndarray, drawn: np.ndarray, *, n_images: int, confidence: float = 0.95
) -> Interval:
    """Mean over seeds, with an interval that covers other seeds and other images together.

    To draw among a handful of seeds with replacement is too narrow: three seeds show two degrees
    of freedom and a third less spread than there is. So the variances add up: that of the seeds
    divided by their number, and that of the mean over resampled images. Seeds differ on the same
    images partly because an image helps one and harms another. Resampling shows this part too, so
    it is taken out of the images' variance and not counted twice.

    Args:
        values: (S,) each seed's value on the images themselves; or (S, D) where each seed was run
            on the same D draws, of training labels for instance, which are then covered as well.
        drawn: (S, R) or (S, D, R) the same on R resamples, one after the other the same resamples
            for all. Resamples with NaN are left out.
        n_images: how many images were resampled, or patients where these were.
        confidence: of the interval, 0 to 1.

    Source: Satterthwaite 1946 for the degrees of freedom.

    Raises:
        ValueError: a single seed, draw or image, which shows no spread; shapes that do not fit;
            values that are not finite; or the confidence is outside 0 to 1.

    >>> print(over_seeds_and_images([1.0, 2.0], [[0.9, 1.1], [1.9, 2.1]], n_images=50))
    +1.500 (-3.221 to +6.221)
    """
    _check_confidence(confidence)
    values, drawn = _finite(values), np.asarray(drawn, dtype=float)
    if values.ndim not in (1, 2) or drawn.shape[:-1] != values.shape or not n_images >= 2:
        raise ValueError(
            f"values {values.shape} and resamples {drawn.shape} of {n_images} images; expected "
            "(S,) and (S, R), or (S, D) and (S, D, R), of at least 2 images"
        )
    drawn = drawn[..., ~np.isnan(drawn).any(axis=tuple(range(values.ndim)))]
    if drawn.shape[-1] < 2 or np.isinf(drawn).any():
        raise ValueError(
            "fewer than two resamples without NaN, or some are infinite; draw more, or use more "
            "images"
        )
    parts = []
    of_images = _resampling_variance(drawn.reshape(-1, drawn.shape[-1]).mean(axis=0), n_images)
    for axis in range(values.ndim):
        own, means = ((v if values.ndim == 1 else v.mean(axis=1 - axis)) for v in (values, drawn))
        parts.append(_of_mean(own, axis))  # of (S,) or (D,); `means` is (S or D, R)
        apart = _resampling_variance(means - means.mean(axis=0), n_images)
        of_images -= apart.sum() / (len(means) - 1) / len(means)
    parts.append((max(float(of_images), 0.0), n_images - 1))
    variance = sum(part for part, _ in parts)
    squares = sum(part**2 / df for part, df in parts)
    df = variance**2 / squares if squares > 0 else n_images - 1
    return _student(values.mean(), variance, df, confidence)


def _of_mean(values: np.ndarray, axis: int) -> tuple[float, int]:
    """Variance of the mean of (n,) values, and its degrees of freedom; `axis` is for the text."""
    n = len(values)
    if n < 2:
        raise ValueError(
            f"{n} value along axis {axis} shows no spread; give at least 2, or leave the axis out "
            "and say that the interval holds for this one alone"
        )
    return float(values.var(ddof=1)) / n, n - 1


def _resampling_variance(drawn: np.ndarray, n_images: int) -> np.ndarray:
    """Variance over resamples (last axis); they vary by (n - 1) / n of what other images would."""
    return drawn.var(axis=-1, ddof=1) * n_images / (n_images - 1)


def _student(mean: float, variance: float, df: float, confidence: float) -> Interval:
    half = float(student.ppf((1 + confidence) / 2, df) * variance**0.5)
    return Interval(float(mean), float(mean) - half, float(mean) + half)


def _finite(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"expected finite values, one or more, got {values}")
    return values


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence!r}")
