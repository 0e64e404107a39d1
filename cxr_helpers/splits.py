"""Splits by patient, nested label fractions, and a check for patients on both sides.

Several radiographs of one patient look alike. A split by image puts some of them in training and
others in the test set, and the score then measures memory of the patient as well. Everything here
moves whole patients.

Needs: numpy.
"""

from collections.abc import Mapping, Sequence

import numpy as np

DEFAULT_PARTS = {"train": 0.7, "val": 0.1, "test": 0.2}


class SplitError(ValueError):
    """A split cannot be made as asked, or leaks patients."""


def split_by_patient(
    patient_ids: Sequence, *, parts: Mapping[str, float] = DEFAULT_PARTS, seed: int
) -> np.ndarray:
    """Assign every image to a part so that no patient is in two parts.

    Args:
        patient_ids: (N,) the patient of each image.
        parts: share of the patients in each part, in order; they sum to 1.
        seed: of the permutation of patients.

    Returns:
        (N,) array of part names.

    Raises:
        SplitError: the shares do not sum to 1, or there are fewer patients than parts.

    >>> split_by_patient([7, 7, 8, 9], parts={"train": 0.5, "test": 0.5}, seed=0).tolist()
    ['train', 'train', 'test', 'train']
    """
    shares = np.array(list(parts.values()), dtype=float)
    if not len(parts) or (shares < 0).any() or not np.isclose(shares.sum(), 1):
        raise SplitError(f"the shares {dict(parts)} must be positive and sum to 1")
    patients, inverse = np.unique(np.asarray(patient_ids), return_inverse=True)
    if len(patients) < len(parts):
        raise SplitError(
            f"{len(patients)} patients cannot fill {len(parts)} parts; give more patients or "
            "fewer parts"
        )
    rank = np.empty(len(patients), dtype=int)
    rank[np.random.default_rng(seed).permutation(len(patients))] = np.arange(len(patients))
    ends = np.round(shares.cumsum() * len(patients)).astype(int)
    names = np.array(list(parts))
    return names[np.searchsorted(ends, rank, side="right")][inverse]


def patient_overlap(train_patients: Sequence, eval_patients: Sequence) -> float:
    """Share of the evaluation images whose patient also has a training image.

    Args:
        train_patients: (N,) the patient of each training image.
        eval_patients: (M,) the patient of each evaluation image.

    Returns:
        A share in [0, 1]; 0 means that no patient is on both sides.

    Raises:
        SplitError: there is no evaluation image.

    >>> patient_overlap([1, 1, 2], [2, 2, 3, 4])
    0.5
    """
    if len(eval_patients) == 0:
        raise SplitError("there is no evaluation image; the overlap is not defined")
    return float(np.isin(np.asarray(eval_patients), np.asarray(train_patients)).mean())


def check_no_overlap(train_patients: Sequence, eval_patients: Sequence) -> None:
    """Raise if a patient has images on both sides.

    Raises:
        SplitError: names how many patients are on both sides, and some of them.
    """
    both = np.intersect1d(np.asarray(train_patients), np.asarray(eval_patients))
    if len(both):
        raise SplitError(
            f"{len(both)} patients are on both sides, for example {both[:3].tolist()}; split by "
            "patient with split_by_patient"
        )


def nested_fractions(
    labels: np.ndarray, patient_ids: Sequence, *, fractions: Sequence[float], seed: int
) -> dict[float, np.ndarray]:
    """Draw ever larger shares of the images, patient by patient, each containing the last.

    Patients come in random order, with one exception: up to half of the smallest share goes first
    to patients who carry a label that no earlier patient carried, rarest label first. So every
    label is present as soon as there is room for it.

    Args:
        labels: (N, K) of 0 and 1.
        patient_ids: (N,) the patient of each image.
        fractions: shares of the N images in (0, 1].
        seed: of the draw.

    Returns:
        For each fraction the sorted row numbers, of whole patients, at least one; as many images
        as come nearest to the share from below, but for a single patient who exceeds it.

    Raises:
        SplitError: a fraction outside (0, 1], or labels and patients of different length.

    >>> labels = np.array([[0], [0], [1], [0]])
    >>> draw = nested_fractions(labels, [1, 2, 3, 4], fractions=[0.5, 1.0], seed=0)
    >>> len(draw[0.5]), 2 in draw[0.5], len(draw[1.0])
    (2, True, 4)
    """
    labels, patient_ids = np.asarray(labels), np.asarray(patient_ids)
    wrong = [f for f in fractions if not 0 < f <= 1]
    if wrong or not len(fractions):
        raise SplitError(f"label fractions {list(fractions)} must lie in (0, 1]")
    if labels.ndim != 2 or len(labels) != len(patient_ids):
        raise SplitError(
            f"labels of shape {labels.shape} do not fit {len(patient_ids)} patient ids; give "
            "one row of labels an image"
        )
    _, inverse, counts = np.unique(patient_ids, return_inverse=True, return_counts=True)
    room = 0.5 * min(fractions) * len(labels)
    order = _label_first_order(labels, inverse, counts, room, np.random.default_rng(seed))
    ends = counts[order].cumsum()
    draws = {}
    for fraction in fractions:
        target = round(fraction * len(labels))
        n_patients = max(1, int(np.searchsorted(ends, target, side="right")))
        draws[fraction] = np.flatnonzero(np.isin(inverse, order[:n_patients]))
    return draws


def _label_first_order(labels, inverse, counts, room, rng) -> np.ndarray:
    """Order of patients: random, but carriers of a label not yet seen first, within `room`."""
    order = rng.permutation(len(counts))
    carries = np.zeros((len(counts), labels.shape[1]), dtype=bool)
    np.logical_or.at(carries, inverse, labels.astype(bool))
    first, seen, used = [], np.zeros(labels.shape[1], dtype=bool), 0
    for label in np.argsort(labels.sum(axis=0), kind="stable"):
        carriers = order[carries[order, label]]
        if seen[label] or not len(carriers) or used + counts[carriers[0]] > room:
            continue
        first.append(carriers[0])
        seen |= carries[carriers[0]]
        used += counts[carriers[0]]
    rest = order[~np.isin(order, first)]
    return np.concatenate([np.array(first, dtype=int), rest])
