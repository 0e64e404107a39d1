"""FROC: how many findings are found at how many false alarms an image, the radiologist's measure.

Average precision on abnormal images never meets a healthy person. Here normal images belong to
the set: each false alarm in one counts, and there is nothing in it to be found. All classes share
one threshold of the score, and a detection of the wrong class is a false alarm.

Everything is computed from detections that were matched to the truth before, in descending order
of score: an object with `image` (M,) int, `score` (M,), `hit` (M,) bool and `truths` (N, K), the
number of truth boxes of each image and class. `detection_metrics.Matches` is one.

Source: Bandos et al., Area under the free-response ROC curve, Biometrics 2009.

From cxr-helpers 0.1.0 (MIT license).
Needs: numpy.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

FALSE_POSITIVES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)


class Matched(Protocol):
    """Detections by descending score, and the number of truth boxes."""

    image: np.ndarray
    score: np.ndarray
    hit: np.ndarray
    truths: np.ndarray


def sensitivity_at(
    matches: Matched,
    false_positives: Sequence[float] = FALSE_POSITIVES,
    image_weights: np.ndarray | None = None,
) -> np.ndarray:
    """Share of all truth boxes found, at given mean numbers of false positives an image.

    Args:
        matches: of N images.
        false_positives: mean numbers for each image.
        image_weights: (B, N) counts of each image, or None for every image once. A bootstrap
            resample is one row.

    Returns:
        (F,) float64 in [0, 1], or (B, F). NaN where no weighted image has a truth box.

    Raises:
        ValueError: the weights are not (B, N), or are negative; the detections are not matched
            ones, or have other lengths or images than those of the truth; the scores do not
            descend, or a hit is neither 0 nor 1.
    """
    image, score, hit, truths_of = _checked(matches)
    false_positives = np.atleast_1d(np.asarray(false_positives, dtype=float))
    if false_positives.ndim != 1 or not (false_positives >= 0).all():
        raise ValueError(f"false_positives {false_positives.tolist()}; expected numbers from 0")
    n = len(truths_of)
    weights = np.ones((1, n)) if image_weights is None else np.asarray(image_weights, dtype=float)
    if weights.ndim != 2 or weights.shape[1] != n or not (weights >= 0).all():
        raise ValueError(f"expected counts of shape (B, {n}), none negative, got {weights.shape}")
    truths = weights @ truths_of  # (B,)
    each = weights[:, image]  # (B, M)
    ends = _ends_of_equal_scores(score)
    found = np.cumsum(each * hit, axis=1)[:, ends]
    wrong = np.cumsum(each * ~hit, axis=1)[:, ends]
    allowed = np.maximum(weights.sum(axis=1), 1)[:, None] * false_positives  # (B, F)
    values = np.zeros((len(weights), len(false_positives)))
    for b, limits in enumerate(allowed):
        last = np.searchsorted(wrong[b], limits, side="right")  # how many thresholds are allowed
        values[b] = np.append(0.0, found[b])[last]
    values = np.where(truths[:, None] > 0, values / np.maximum(truths, 1)[:, None], np.nan)
    return values if image_weights is not None else values[0]


def mean_sensitivity(matches: Matched, image_weights: np.ndarray | None = None):
    """Mean of the sensitivities at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives an image.

    Returns:
        A float, or (B,) for weights (B, N).
    """
    values = sensitivity_at(matches, image_weights=image_weights).mean(axis=-1)
    return values if image_weights is not None else float(values)


def froc_curve(matches: Matched) -> tuple[np.ndarray, np.ndarray]:
    """False positives an image and sensitivity, at every score, for drawing.

    Returns:
        Two (S,) arrays, ascending, that start at 0 and 0.

    Raises:
        ValueError: no image has a truth box, or as `sensitivity_at`.
    """
    _, score, hit, truths_of = _checked(matches)
    truths = truths_of.sum()
    if not truths:
        raise ValueError("no image has a truth box, so there is no sensitivity")
    ends = _ends_of_equal_scores(score)
    wrong = np.cumsum(~hit)[ends] / len(truths_of)
    found = np.cumsum(hit)[ends] / truths
    return np.append(0.0, wrong), np.append(0.0, found)


def _checked(matches: Matched) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(M,) images, scores that descend and bool hits, and (N,) truth boxes of each image."""
    names = ("image", "score", "hit", "truths")
    absent = [name for name in names if not hasattr(matches, name)]
    if absent:
        raise ValueError(
            f"{type(matches).__name__} has no {', '.join(absent)}; match the detections to the "
            "truth first, as detection_metrics.match_detections does"
        )
    image, score, hit, truths = (_array(getattr(matches, name)) for name in names)
    if truths.ndim != 2 or not image.shape == score.shape == hit.shape == (len(score),):
        shapes = {"image": image.shape, "score": score.shape, "hit": hit.shape}
        raise ValueError(f"{shapes} and truths {truths.shape}; expected (M,) each, and (N, K)")
    outside = image[(image < 0) | (image >= len(truths))]
    if outside.size:
        raise ValueError(
            f"a detection is of image {outside[0]}, and the truth has {len(truths)} images, from 0"
        )
    odd = hit[~np.isin(hit, (0, 1))]
    if len(odd):
        raise ValueError(f"hit {odd[0]} is neither 0 nor 1; give each detection True or False")
    if np.isnan(score).any() or not (score[1:] <= score[:-1]).all():
        raise ValueError("scores do not descend; sort image, score and hit by descending score")
    return image.astype(np.int64), score, hit.astype(bool), truths.sum(axis=1)


def _array(values: object) -> np.ndarray:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def _ends_of_equal_scores(score: np.ndarray) -> np.ndarray:
    """(M,) whether a threshold can lie after this detection: equal scores are taken together."""
    return np.append(np.diff(score) != 0, True)[: len(score)]
