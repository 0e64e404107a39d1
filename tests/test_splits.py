"""Splits by patient, nested fractions and the overlap check."""

import numpy as np
import pytest

from cxr_helpers import splits

PATIENTS = np.repeat(np.arange(60), np.arange(60) % 5 + 1)
LABELS = np.random.default_rng(0).random((len(PATIENTS), 4)) < [0.5, 0.2, 0.05, 0.01]
LABELS = LABELS.astype(np.uint8)


def test_no_patient_is_in_two_parts_and_shares_are_met():
    parts = splits.split_by_patient(PATIENTS, seed=3)
    of_patient = {p: set(parts[p == PATIENTS]) for p in range(60)}
    assert all(len(found) == 1 for found in of_patient.values())
    assert [sum(f == {n} for f in of_patient.values()) for n in ("train", "val", "test")] == [
        42,
        6,
        12,
    ]


def test_the_order_of_images_does_not_matter():
    shuffle = np.random.default_rng(1).permutation(len(PATIENTS))
    parts = splits.split_by_patient(PATIENTS, seed=3)
    assert (splits.split_by_patient(PATIENTS[shuffle], seed=3) == parts[shuffle]).all()


@pytest.mark.parametrize(
    ("patients", "parts", "message"),
    [
        ([], {"train": 0.5, "test": 0.5}, "0 patients"),
        ([1, 1, 1], {"train": 0.5, "test": 0.5}, "1 patients"),
        ([1, 2], {"train": 0.5, "test": 0.6}, "sum to 1"),
        ([1, 2], {"train": 1.5, "test": -0.5}, "sum to 1"),
        ([1, 2], {}, "sum to 1"),
    ],
)
def test_impossible_splits_are_refused(patients, parts, message):
    with pytest.raises(splits.SplitError, match=message):
        splits.split_by_patient(patients, parts=parts, seed=0)


def test_overlap_counts_images_and_a_leak_is_named():
    assert splits.patient_overlap([1, 2], [3, 4]) == 0
    assert splits.patient_overlap([1, 2], [2, 2, 2, 4]) == 0.75
    splits.check_no_overlap([1, 2], [3])
    with pytest.raises(splits.SplitError, match=r"1 patients are on both sides.*\[2\]"):
        splits.check_no_overlap([1, 2], [2, 3])
    with pytest.raises(splits.SplitError, match="no evaluation image"):
        splits.patient_overlap([1], [])


def test_fractions_are_nested_patient_wise_and_near_their_share():
    fractions = [0.05, 0.2, 0.5, 1.0]
    drawn = splits.nested_fractions(LABELS, PATIENTS, fractions=fractions, seed=0)
    sets = [set(drawn[f]) for f in fractions]
    assert all(small <= large for small, large in zip(sets, sets[1:], strict=False))
    for fraction, rows in drawn.items():
        inside = set(PATIENTS[rows])
        assert {i for i, p in enumerate(PATIENTS) if p in inside} == set(rows)
        assert abs(len(rows) - fraction * len(PATIENTS)) <= 5
    assert len(drawn[1.0]) == len(PATIENTS)


def test_every_label_with_room_for_it_is_drawn():
    for seed in range(20):
        drawn = splits.nested_fractions(LABELS, PATIENTS, fractions=[0.2, 1.0], seed=seed)
        assert (LABELS[drawn[0.2]].sum(axis=0) > 0).all()


def test_draws_differ_by_seed_and_repeat_by_seed():
    draws = [
        splits.nested_fractions(LABELS, PATIENTS, fractions=[0.1], seed=s)[0.1] for s in (0, 0, 1)
    ]
    assert draws[0].tolist() == draws[1].tolist() != draws[2].tolist()


@pytest.mark.parametrize("fraction", [0, -0.1, 2, float("nan")])
def test_a_fraction_outside_its_range_is_refused(fraction):
    with pytest.raises(splits.SplitError, match="must lie in"):
        splits.nested_fractions(LABELS, PATIENTS, fractions=[fraction], seed=0)


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(splits.SplitError, match="do not fit"):
        splits.nested_fractions(LABELS[:-1], PATIENTS, fractions=[0.5], seed=0)
