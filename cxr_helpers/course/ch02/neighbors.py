"""Which radiographs look alike to a network, and what the nearest have in common."""

import numpy as np

from cxr_helpers.evaluation import scoring
from cxr_helpers.evaluation.intervals import Interval, bias_corrected


def nearest(features: np.ndarray, *, count: int, patients: np.ndarray | None = None) -> np.ndarray:
    """The images nearest to each by cosine similarity.

    Args:
        features: (N, D); their mean is taken off first.
        count: how many for each image.
        patients: (N,) patient of each image; where given, images of the same patient are left out.

    Returns:
        (N, count) rows, the nearest first; never the image itself.

    Raises:
        ValueError: images and patients differ in number, or an image has fewer than `count` others.

    >>> x = np.array([[3.0, 0.1], [3.0, 0.0], [0.0, 3.0], [0.1, 3.0]])
    >>> nearest(x, count=1).tolist()
    [[1], [0], [3], [2]]
    >>> nearest(x, count=1, patients=[1, 2, 3, 3]).tolist()
    [[1], [0], [1], [0]]
    """
    features = np.asarray(features, float)
    groups = np.arange(len(features)) if patients is None else np.asarray(patients)
    if len(features) != len(groups):
        raise ValueError(f"{len(features)} images, but {len(groups)} patients")
    same = groups[:, None] == groups[None, :]
    fewest = int((~same).sum(axis=1).min(initial=len(groups)))
    if not 1 <= count <= fewest:
        raise ValueError(
            f"count is {count}; an image here has as few as {fewest} others to look among, so give "
            f"1 to {fewest}, or more images"
        )
    moved = features - features.mean(axis=0)
    length = np.linalg.norm(moved, axis=1, keepdims=True)
    unit = moved / np.where(length > 0, length, 1)
    similarity = np.where(same, -np.inf, unit @ unit.T)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :count]


def patient_marks(patients: np.ndarray) -> np.ndarray:
    """A column for each patient who has several images, 1 where an image is theirs.

    >>> patient_marks([7, 8, 7])
    array([[1],
           [0],
           [1]])
    """
    names, counts = np.unique(patients, return_counts=True)
    return (np.asarray(patients)[:, None] == names[counts > 1][None, :]).astype(int)


def sharing(marks: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Share of each image's neighbors that have a mark in common with it.

    Args:
        marks: (N, K) of 0 and 1: findings, a view, a patient.
        near: (N, count) rows, as `nearest` gives them.

    Returns:
        (N,) from 0 to 1; NaN for an image without a mark, which can share none.

    >>> sharing(np.array([[1, 0], [1, 1], [0, 0]]), np.array([[1, 2], [2, 2], [0, 1]]))
    array([0.5, 0. , nan])
    """
    marks, near = np.asarray(marks, bool), np.asarray(near)
    shared = (marks[:, None, :] & marks[near]).any(axis=2).mean(axis=1)
    return np.where(marks.any(axis=1), shared, np.nan)


def by_chance(marks: np.ndarray, patients: np.ndarray | None = None) -> float:
    """What `sharing` gives on average where neighbors are drawn blindly.

    Args:
        marks: (N, K) of 0 and 1.
        patients: (N,); where given, neighbors are of other patients.

    >>> by_chance(np.array([[1], [1], [0]]), np.array([1, 2, 3]))
    0.5
    """
    marks = np.asarray(marks, float)
    groups = np.arange(len(marks)) if patients is None else np.asarray(patients)
    other = groups[:, None] != groups[None, :]
    shared = (marks @ marks.T > 0) & other
    asked = marks.any(axis=1)
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
