"""Neighbors: found, asked what they share, and compared with chance."""

import numpy as np
import pytest

from cxr_helpers.course.ch02 import neighbors


def crowd(n_patients=60, seed=0):
    """Two images a patient, one finding for every third patient, features that know it."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), 2)
    labels = (patients % 3 == 0).astype(int)[:, None]
    blind = rng.normal(size=(len(patients), 8))
    return patients, labels, blind, blind + 6 * labels


@pytest.mark.parametrize("apart", [True, False])
def test_a_brute_force_search_finds_the_same_neighbors(apart):
    patients, _, blind, _ = crowd()
    groups = patients if apart else np.arange(len(patients))
    near = neighbors.nearest(blind, count=3, patients=patients if apart else None)
    moved = blind - blind.mean(axis=0)
    for row in (0, 17, 119):
        angle = [
            -np.inf if groups[i] == groups[row] else
            moved[row] @ moved[i] / np.linalg.norm(moved[row]) / np.linalg.norm(moved[i])
            for i in range(len(patients))
        ]  # fmt: skip
        assert near[row].tolist() == np.argsort(angle)[::-1][:3].tolist()
    scaled = neighbors.nearest(5 * blind, count=3, patients=patients if apart else None)
    assert (near == scaled).all()


def test_features_that_know_the_finding_share_it_and_blind_ones_by_chance():
    patients, labels, blind, knowing = crowd()
    shares = [
        neighbors.sharing(labels, neighbors.nearest(f, count=5, patients=patients))
        for f in (blind, knowing)
    ]
    assert np.isnan(shares[0]).sum() == (labels == 0).sum()
    chance = neighbors.by_chance(labels, patients)
    assert chance == pytest.approx(38 / 118)
    assert abs(np.nanmean(shares[0]) - chance) < 0.15 and np.nanmean(shares[1]) > 0.95
    interval = neighbors.gain(shares[1], shares[0], patients, resamples=200, seed=0)
    assert 0 < interval.low < interval.value < interval.high
    assert interval.value == pytest.approx(np.nanmean(shares[1]) - np.nanmean(shares[0]))
    same = neighbors.gain(shares[0], shares[0], patients, resamples=20, seed=0)
    assert same.low == same.high == 0


def test_features_that_know_the_patient_find_the_other_image():
    patients, _, blind, _ = crowd()
    patients[-1] = 999  # now two patients have a single image
    marks = neighbors.patient_marks(patients)
    assert marks.shape == (120, 59) and marks.sum(axis=1).tolist() == [1] * 118 + [0, 0]
    place = np.random.default_rng(1).normal(size=(1000, 8))
    knowing = neighbors.sharing(marks, neighbors.nearest(blind + 20 * place[patients], count=1))
    assert np.nanmin(knowing) == 1 and np.isnan(knowing).sum() == 2
    assert np.nanmean(neighbors.sharing(marks, neighbors.nearest(blind, count=1))) < 0.2
    assert neighbors.by_chance(marks) == pytest.approx(1 / 119)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: neighbors.nearest(np.eye(3), count=1, patients=[1, 2]), "3 images, but 2"),
        (lambda: neighbors.nearest(np.eye(2), count=1, patients=[1, 1]), "as few as 0"),
        (lambda: neighbors.nearest(np.eye(3), count=3), "give 1 to 2"),
        (lambda: neighbors.gain([0.5], [0.5, 1], [1], resamples=2, seed=0), "1 shares, 2 to"),
        (
            lambda: neighbors.gain([np.nan] * 2, [1, 1], [1, 2], resamples=2, seed=0),
            "none of the 2 images has a share",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
