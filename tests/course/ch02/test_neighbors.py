"""Neighbors of other patients: found, counted, and compared with chance."""

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


def test_no_neighbor_is_of_the_same_patient_and_a_brute_force_search_agrees():
    patients, _, blind, _ = crowd()
    near = neighbors.of_other_patients(blind, patients, count=3)
    assert (patients[near] != patients[:, None]).all()
    moved = blind - blind.mean(axis=0)
    for row in (0, 17, 119):
        angle = [
            -np.inf if patients[i] == patients[row] else
            moved[row] @ moved[i] / np.linalg.norm(moved[row]) / np.linalg.norm(moved[i])
            for i in range(len(patients))
        ]  # fmt: skip
        assert near[row].tolist() == np.argsort(angle)[::-1][:3].tolist()
    scaled = neighbors.of_other_patients(5 * blind, patients, count=3)
    assert (near == scaled).all()


def test_features_that_know_the_finding_share_it_and_blind_ones_by_chance():
    patients, labels, blind, knowing = crowd()
    shares = [
        neighbors.sharing_a_finding(labels, neighbors.of_other_patients(f, patients, count=5))
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


def test_siblings_are_closer_as_a_loop_over_all_pairs_counts_it():
    rng = np.random.default_rng(1)
    patients = np.array([1, 1, 1, 2, 2, 3, 4, 4])
    features = rng.normal(size=(8, 3))
    unit = features - features.mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    expected = []
    for i in range(8):
        pairs = [
            unit[i] @ unit[own] > unit[i] @ unit[other]
            for own in range(8)
            for other in range(8)
            if own != i and patients[own] == patients[i] != patients[other]
        ]
        expected.append(np.mean(pairs) if pairs else np.nan)
    np.testing.assert_allclose(neighbors.same_patient_closer(features, patients), expected)
    assert np.isnan(neighbors.same_patient_closer(features[:3], patients[:3])).all()  # no others
    blind = neighbors.same_patient_closer(np.ones((8, 3)), patients)
    assert np.nanmin(blind) == np.nanmax(blind) == 0.5  # ties


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: neighbors.of_other_patients(np.eye(3), [1, 2], count=1), "3 images, but 2"),
        (lambda: neighbors.of_other_patients(np.eye(2), [1, 1], count=1), "as few as 0"),
        (lambda: neighbors.of_other_patients(np.eye(3), [1, 2, 3], count=3), "give 1 to 2"),
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
