"""FROC: how many findings are found at how many false alarms an image, the radiologist's measure.

Average precision on abnormal images never meets a healthy person. Here normal images belong to
the set: each false alarm in one counts, and there is nothing in it to be found. All classes share
one threshold of the score, and a detection of the wrong class is a false alarm.

Everything is computed from detections that were matched to the truth before, in descending order
of score: an object with `image` (M,) int, `score` (M,), `hit` (M,) bool and `truths` (N, K), the
number of truth boxes of each image and class. `detection_metrics.Matches` is one.

Source: Bandos et al., Area under the free-response ROC curve, Biometrics 2009.

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
        ValueError: the weights are not (B, N), or are negative; the scores do not descend, or a
            hit is neither 0 nor 1.
    """
    score, hit = _checked(matches)
    n = len(matches.truths)
    weights = np.ones((1, n)) if image_weights is None else np.asarray(image_weights, dtype=float)
    if weights.ndim != 2 or weights.shape[1] != n or (weights < 0).any():
        raise ValueError(f"expected counts of shape (B, {n}), none negative, got {weights.shape}")
    truths = weights @ matches.truths.sum(axis=1)  # (B,)
    each = weights[:, matches.image]  # (B, M)
    ends = _ends_of_equal_scores(score)
    found = np.cumsum(each * hit, axis=1)[:, ends]
    wrong = np.cumsum(each * ~hit, axis=1)[:, ends]
    allowed = np.maximum(weights.sum(axis=1), 1)[:, None] * np.asarray(false_positives)  # (B, F)
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
        ValueError: no image has a truth box; the scores do not descend, or a hit is neither 0 nor
            1.
    """
    score, hit = _checked(matches)
    truths = matches.truths.sum()
    if not truths:
        raise ValueError("no image has a truth box, so there is no sensitivity")
    ends = _ends_of_equal_scores(score)
    wrong = np.cumsum(~hit)[ends] / len(matches.truths)
    found = np.cumsum(hit)[ends] / truths
    return np.append(0.0, wrong), np.append(0.0, found)


def _checked(matches: Matched) -> tuple[np.ndarray, np.ndarray]:
    """(M,) scores that descend, and (M,) bool hits."""
    score, hit = np.asarray(matches.score), np.asarray(matches.hit)
    odd = hit[~np.isin(hit, (0, 1))]
    if len(odd):
        raise ValueError(f"hit {odd[0]} is neither 0 nor 1; give each detection True or False")
    if not (score[1:] <= score[:-1]).all():
        raise ValueError("scores do not descend; sort image, score and hit by descending score")
    return score, hit.astype(bool)


def _ends_of_equal_scores(score: np.ndarray) -> np.ndarray:
    """(M,) whether a threshold can lie after this detection: equal scores are taken together."""
    return np.append(np.diff(score) != 0, True)[: len(score)]
