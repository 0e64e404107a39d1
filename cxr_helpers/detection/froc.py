"""FROC: how many findings are found at how many false alarms an image, the radiologist's measure.

Average precision on abnormal images never meets a healthy person. Here normal images belong to
the set: each false alarm in one counts, and there is nothing in it to be found. All classes share
one threshold of the score, and a detection of the wrong class is a false alarm.

Everything is computed from detections that `metrics.match_detections` matched to the truth. Who
matches in another way makes `metrics.Matches` of it.

Source: Bandos et al., Area under the free-response ROC curve, Biometrics 2009.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy.
Goes with: boxes.py, metrics.py.
"""

from collections.abc import Sequence

import numpy as np

from .metrics import Matches, image_counts

FALSE_POSITIVES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)


def sensitivity_at(
    matches: Matches,
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
        ValueError: as `metrics.image_counts`, or a number of false positives is below 0.

    An image with one of two findings found at 0.9, and a normal image with a false alarm at 0.8:

    >>> hits = {"image": [0, 1], "label": [1, 1], "score": [0.9, 0.8], "hit": [True, False]}
    >>> matches = Matches(**hits, truths=[[2], [0]], class_names=("mass",), iou_threshold=0.5)
    >>> sensitivity_at(matches, [0.25, 1])
    array([0.5, 0.5])
    """
    weights = image_counts(matches, image_weights)
    false_positives = np.atleast_1d(np.asarray(false_positives, dtype=float))
    if false_positives.ndim != 1 or not (false_positives >= 0).all():
        raise ValueError(f"false_positives {false_positives.tolist()}; expected numbers from 0")
    truths = weights @ matches.truths.sum(axis=1)  # (B,)
    each = weights[:, matches.image]  # (B, M)
    ends = _ends_of_equal_scores(matches.score)
    found = np.cumsum(each * matches.hit, axis=1)[:, ends]
    wrong = np.cumsum(each * ~matches.hit, axis=1)[:, ends]
    allowed = np.maximum(weights.sum(axis=1), 1)[:, None] * false_positives  # (B, F)
    values = np.zeros((len(weights), len(false_positives)))
    for b, limits in enumerate(allowed):
        last = np.searchsorted(wrong[b], limits, side="right")  # how many thresholds are allowed
        values[b] = np.append(0.0, found[b])[last]
    values = np.where(truths[:, None] > 0, values / np.maximum(truths, 1)[:, None], np.nan)
    return values if image_weights is not None else values[0]


def mean_sensitivity(matches: Matches, image_weights: np.ndarray | None = None):
    """Mean of the sensitivities at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives an image.

    Returns:
        A float, or (B,) for weights (B, N).

    >>> hits = {"image": [0, 1], "label": [1, 1], "score": [0.9, 0.8], "hit": [True, False]}
    >>> matches = Matches(**hits, truths=[[2], [0]], class_names=("mass",), iou_threshold=0.5)
    >>> mean_sensitivity(matches), mean_sensitivity(matches, [[1, 0], [0, 1]])
    (0.5, array([0.5, nan]))
    """
    values = sensitivity_at(matches, image_weights=image_weights).mean(axis=-1)
    return values if image_weights is not None else float(values)


def froc_curve(matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    """False positives an image and sensitivity, at every score, for drawing.

    Returns:
        Two (S,) arrays, ascending, that start at 0 and 0.

    Raises:
        ValueError: no image has a truth box, or as `sensitivity_at`.

    >>> hits = {"image": [0, 1], "label": [1, 1], "score": [0.9, 0.8], "hit": [True, False]}
    >>> matches = Matches(**hits, truths=[[2], [0]], class_names=("mass",), iou_threshold=0.5)
    >>> froc_curve(matches)
    (array([0. , 0. , 0.5]), array([0. , 0.5, 0.5]))
    """
    n_images, truths = image_counts(matches, None).shape[1], matches.truths.sum()
    if not truths:
        raise ValueError("no image has a truth box, so there is no sensitivity")
    ends = _ends_of_equal_scores(matches.score)
    wrong = np.cumsum(~matches.hit)[ends] / n_images
    found = np.cumsum(matches.hit)[ends] / truths
    return np.append(0.0, wrong), np.append(0.0, found)


def _ends_of_equal_scores(score: np.ndarray) -> np.ndarray:
    """(M,) whether a threshold can lie after this detection: equal scores are taken together."""
    return np.append(np.diff(score) != 0, True)[: len(score)]
