"""Label curves of few images: each is scored by probes of other patients, in turn.

A few hundred real radiographs are too few for a test part of their own. So patients are dealt to
five folds. Each fold is tested once; the next chooses the regularization, the other three teach.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from cxr_helpers.data import nih, splits
from cxr_helpers.evaluation import probe

FOLDS = 5
ABNORMAL = "any finding"


def targets(entries: pd.DataFrame, *, minimum: int = 20) -> tuple[np.ndarray, list[str]]:
    """Labels that a few hundred images can tell of: any finding, and each with enough images.

    Args:
        entries: the table, as `nih.read_entries` gives it.
        minimum: images with a finding, and as many without.

    Returns:
        (N, K) of 0 and 1, and the K names.

    Raises:
        ValueError: no label has so many.

    >>> table = pd.DataFrame({"findings": ["Mass", "Mass|Edema", "No Finding", "No Finding"]})
    >>> targets(table.assign(image_id=list("abcd")), minimum=2)[1]
    ['any finding', 'Mass']
    """
    found = nih.label_matrix(entries)
    found.insert(0, ABNORMAL, found.max(axis=1))
    enough = [k for k in found if minimum <= found[k].sum() <= len(found) - minimum]
    if not enough:
        raise ValueError(
            f"none of the {len(found)} images' labels has {minimum} with and {minimum} without it; "
            "give more images, or a smaller minimum"
        )
    return found[enough].to_numpy(), enough


def crossed_scores(
    values: np.ndarray,
    labels: np.ndarray,
    patients: Sequence,
    *,
    fractions: Sequence[float],
    draws: int,
    seed: int,
) -> dict[float, list[np.ndarray]]:
    """Score every image with probes of other patients, for shares of the training labels.

    Log-odds of several probes do not compare, so within each fold they become ranks.

    Args:
        values: (N, D) frozen features.
        labels: (N, K) of 0 and 1.
        patients: (N,) the patient of each image.
        fractions: shares of the training folds whose labels are used.
        draws: how often folds and labels are drawn; draws of the same seed are the same.
        seed: of the draws.

    Returns:
        For each fraction and draw (N, K) ranks in (0, 1], NaN for a label that a fold could not
        train.

    Raises:
        splits.SplitError: fewer patients than folds, or a fraction outside (0, 1].
        EvaluationError: a fold has no label to train or to choose on.
    """
    patients = np.asarray(patients)
    scores: dict[float, list[np.ndarray]] = {fraction: [] for fraction in fractions}
    parts = {f"fold {i}": 1 / FOLDS for i in range(FOLDS)}
    for draw in range(draws):
        own = 1000 * seed + draw
        fold = splits.split_by_patient(patients, parts=parts, seed=own)
        said = {fraction: np.full(labels.shape, np.nan) for fraction in fractions}
        for i in range(FOLDS):
            test, val = fold == f"fold {i}", fold == f"fold {(i + 1) % FOLDS}"
            train = np.flatnonzero(~test & ~val)
            drawn = splits.nested_fractions(
                labels[train], patients[train], fractions=list(fractions), seed=own
            )
            for fraction, rows in drawn.items():
                known = values[train[rows]], labels[train[rows]], values[val], labels[val]
                said[fraction][test] = _ranks(probe.fit_probe(*known).scores(values[test]))
        for fraction, ranks in said.items():
            untrained = np.isnan(ranks).any(axis=0)
            scores[fraction].append(np.where(untrained, np.nan, ranks))
    return scores


def _ranks(scores: np.ndarray) -> np.ndarray:
    """(M, K) scores to their ranks divided by M, NaN where a column is NaN."""
    return np.where(np.isnan(scores), np.nan, rankdata(scores, axis=0) / len(scores))


def described(patients: Sequence, names: Sequence[str]) -> Mapping[str, object]:
    """What the record of a stored curve says of the images, none of which is stored."""
    return {
        "images": len(patients),
        "patients": len(set(np.asarray(patients).tolist())),
        "labels": list(names),
        "folds": FOLDS,
    }
