"""Which radiographs look alike to a network: the nearest images of other patients."""

import numpy as np

from cxr_helpers.evaluation import scoring
from cxr_helpers.evaluation.intervals import Interval, bias_corrected


def of_other_patients(features: np.ndarray, patients: np.ndarray, *, count: int) -> np.ndarray:
    """The images nearest to each by cosine similarity, among those of other patients.

    Args:
        features: (N, D); their mean is taken off first.
        patients: (N,) patient of each image.
        count: how many for each image.

    Returns:
        (N, count) rows, the nearest first.

    Raises:
        ValueError: images and patients differ in number, or an image has fewer than `count` of
            other patients.

    >>> x = np.array([[3.0, 0.1], [3.0, 0.0], [0.0, 3.0], [0.1, 3.0]])
    >>> of_other_patients(x, [1, 2, 3, 3], count=1).tolist()
    [[1], [0], [1], [0]]
    """
    similarity, same = _similarity(features, patients)
    fewest = int((~same).sum(axis=1).min(initial=len(patients)))
    if not 1 <= count <= fewest:
        raise ValueError(
            f"count is {count}; an image here has as few as {fewest} images of other patients, so "
            f"give 1 to {fewest}, or more patients"
        )
    similarity = np.where(same, -np.inf, similarity)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :count]


def same_patient_closer(features: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """How often an image lies closer to another one of its patient than to one of somebody else.

    Args:
        features: (N, D); closeness is cosine similarity once their mean is taken off.
        patients: (N,) patient of each image.

    Returns:
        (N,) share of the pairs of such images, 0 to 1, half for a tie; chance is 0.5. NaN for the
        only image of a patient.

    Raises:
        ValueError: images and patients differ in number.

    >>> x = np.array([[3.0, 0.1], [3.0, 0.0], [0.0, 3.0], [0.1, 3.0]])
    >>> same_patient_closer(x, [1, 1, 2, 3])
    array([ 1.,  1., nan, nan])
    """
    similarity, same = _similarity(features, patients)
    shares = np.full(len(same), np.nan)
    siblings = same & ~np.eye(len(same), dtype=bool)
    for row in np.flatnonzero(siblings.any(axis=1) & ~same.all(axis=1)):
        others = np.sort(similarity[row][~same[row]])
        own = similarity[row][siblings[row]]
        below = np.searchsorted(others, own, "left") + np.searchsorted(others, own, "right")
        shares[row] = below.mean() / 2 / len(others)
    return shares


def _similarity(features: np.ndarray, patients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine similarity of all pairs (N, N), and whether both are of one patient."""
    features, patients = np.asarray(features, float), np.asarray(patients)
    if len(features) != len(patients):
        raise ValueError(f"{len(features)} images, but {len(patients)} patients")
    moved = features - features.mean(axis=0)
    length = np.linalg.norm(moved, axis=1, keepdims=True)
    unit = moved / np.where(length > 0, length, 1)
    return unit @ unit.T, patients[:, None] == patients[None, :]


def sharing_a_finding(labels: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Share of each image's neighbors that have a finding in common with it.

    Args:
        labels: (N, K) of 0 and 1.
        near: (N, count) rows, as `of_other_patients` gives them.

    Returns:
        (N,) from 0 to 1; NaN for an image without a finding, which can share none.

    >>> sharing_a_finding(np.array([[1, 0], [1, 1], [0, 0]]), np.array([[1, 2], [2, 2], [0, 1]]))
    array([0.5, 0. , nan])
    """
    labels, near = np.asarray(labels), np.asarray(near)
    shared = (labels[:, None, :] * labels[near]).any(axis=2).mean(axis=1)
    return np.where(labels.any(axis=1), shared, np.nan)


def by_chance(labels: np.ndarray, patients: np.ndarray) -> float:
    """What `sharing_a_finding` gives on average where neighbors are drawn blindly.

    >>> by_chance(np.array([[1], [1], [0]]), np.array([1, 2, 3]))
    0.5
    """
    labels, patients = np.asarray(labels, float), np.asarray(patients)
    other = patients[:, None] != patients[None, :]
    shared = (labels @ labels.T > 0) & other
    asked = labels.any(axis=1)
    return float((shared[asked].sum(axis=1) / other[asked].sum(axis=1)).mean())


def gain(
    shares: np.ndarray, minus: np.ndarray, patients: np.ndarray, *, resamples: int, seed: int
) -> Interval:
    """Mean of paired differences with its interval over patients.

    Args:
        shares: (N,) of one network, NaN where there is none.
        minus: (N,) of another on the same images.
        patients: (N,) patient of each image.
        resamples: of the patients.
        seed: of the resamples.

    Raises:
        ValueError: the three differ in number, or no image has a share.
    """
    if not len(shares) == len(minus) == len(patients):
        raise ValueError(
            f"{len(shares)} shares, {len(minus)} to take off, {len(patients)} patients: give one "
            "of each for every image"
        )
    difference = np.asarray(shares) - np.asarray(minus)
    known = ~np.isnan(difference)
    if not known.any():
        raise ValueError(f"none of the {len(difference)} images has a share in both")
    difference, patients = difference[known], np.asarray(patients)[known]
    counts = scoring.patient_weights(patients, resamples=resamples, seed=seed)
    drawn = counts @ difference / counts.sum(axis=1)
    return bias_corrected(float(difference.mean()), drawn)
