"""Splits by patient, nested fractions and the overlap check."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cxr_helpers.data import splits

PATIENTS = np.repeat(np.arange(60), np.arange(60) % 5 + 1)
LABELS = np.random.default_rng(0).random((len(PATIENTS), 4)) < [0.5, 0.2, 0.05, 0.01]
LABELS = LABELS.astype(np.uint8)


def test_no_patient_is_in_two_parts_and_shares_are_met():
    assert "val" not in splits.split_by_patient(range(4), seed=0)  # of few it can stay empty
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
        ([1, 2], {"train": np.nan, "test": 1.0}, "sum to 1"),
        ([1, 2], {}, "sum to 1"),
        ([1, 2], [0.5, 0.5], "must map names to shares"),
    ],
)
def test_impossible_splits_are_refused(patients, parts, message):
    with pytest.raises(splits.SplitError, match=message):
        splits.split_by_patient(patients, parts=parts, seed=0)


def test_overlap_counts_images_and_a_leak_is_named():
    assert splits.patient_overlap([1, 2], [3, 4]) == 0
    assert splits.patient_overlap([1, 2], [2, 2, 2, 4]) == 0.75
    with pytest.raises(splits.SplitError, match="no evaluation image"):
        splits.patient_overlap([1], [])


ODD_IDS = {
    "numbers and text": ([1, 2, 3], ["1", "2", "3"], "others text such as '1'.*leading zeros"),
    "floats and text": ([1.0, 2.0], ["1", "2"], "leading zeros"),
    "leading zeros": (np.array([1, 2]), np.array(["001", "002"]), "leading zeros"),
    "tables": (pd.Series([1, 2]), pd.Series(["1", "2"]), "leading zeros"),
    "not a number": ([1, np.nan], [2, np.nan], "2 patient ids are neither .* such as nan"),
    "none": (["a", None], ["b"], "such as None"),
    "missing text": (pd.Series(["a", None]), ["b"], "such as (nan|None)"),
    "missing whole numbers": (pd.Series([1, None], dtype="Int64"), [2], "such as <NA>"),
    "missing made text": (["1", str(np.nan)], ["2"], "or missing, such as 'nan'"),
    "empty text": (["a", " "], ["b"], "1 patient ids are neither .* such as ' '"),
    "zeros on one side": (["001", "2"], ["1"], "patients '(001|1)' and '(001|1)' may be one"),
    "text of a float": (["1.0"], ["1"], "may be one"),
    "numbers that a float does not hold": ([2.0**53, 1.0], [2.0], "Read them as text"),
    "large numbers beside floats": ([2**60, 2**60 + 1], [1.5], "two patients may have become one"),
    "capitals and white space": (["p1"], ["P1 "], "may be one"),
    "a column": (np.ones((2, 1)), [2], r"shape \(2, 1\)"),
}


@pytest.mark.parametrize(("first", "second", "message"), ODD_IDS.values(), ids=ODD_IDS)
def test_ids_that_cannot_be_compared_are_refused(first, second, message):
    both = [*first, *second] if np.ndim(first) == 1 else first
    calls = [
        lambda: splits.patient_overlap(first, second),
        lambda: splits.check_split(["train"] * len(both), both),
        lambda: splits.split_by_patient(both, parts={"train": 1.0}, seed=0),
        lambda: splits.nested_fractions(np.ones((len(both), 1)), both, fractions=[1], seed=0),
    ]
    for call in calls:
        with pytest.raises(splits.SplitError, match=message):
            call()


def test_ids_of_any_number_type_compare_and_so_do_those_of_any_text_type():
    assert splits.patient_overlap([1.0, 2.0], np.array([2, 3], dtype=np.uint8)) == 0.5
    assert splits.patient_overlap(pd.Series(["a", "b"]), np.array(["b", "ccc"])) == 0.5


def test_ids_of_tensors_and_of_pandas_are_taken():
    ids = [3, 3, 5, 8]
    wanted = splits.split_by_patient(ids, parts={"a": 0.5, "b": 0.5}, seed=0).tolist()
    for column in (
        torch.tensor(ids),
        pd.Series(ids, index=list("wxyz")),
        pd.Series(ids).astype("Int64"),
    ):
        found = splits.split_by_patient(column, parts={"a": 0.5, "b": 0.5}, seed=np.int64(0))
        assert found.tolist() == wanted
    text = pd.Series(["p3", "p3", "p5", "p8"], dtype="category")
    assert splits.split_by_patient(text, parts={"a": 0.5, "b": 0.5}, seed=0).tolist() == wanted
    labels = pd.DataFrame({"Mass": [1, 0, 1, 0]})
    drawn = splits.nested_fractions(labels, ids, fractions=np.array([0.5, 1.0]), seed=0)
    same = splits.nested_fractions(
        torch.tensor(labels.to_numpy()), ids, fractions=[0.5, 1.0], seed=0
    )
    assert drawn[0.5].tolist() == same[0.5].tolist()


@pytest.mark.parametrize("seed", [None, -1, 0.5, "0"])
def test_a_seed_that_would_not_come_again_is_refused(seed):
    for call in (
        lambda: splits.split_by_patient([1, 2], parts={"a": 0.5, "b": 0.5}, seed=seed),
        lambda: splits.split_by_image([1, 2], parts={"a": 0.5, "b": 0.5}, seed=seed),
        lambda: splits.nested_fractions([[1], [0]], [1, 2], fractions=[0.5], seed=seed),
    ):
        with pytest.raises(splits.SplitError, match="seed must be a whole number"):
            call()


LEAKS = {
    "split_by_image": lambda **more: splits.split_by_image([5] * 9 + [6], seed=0, **more),
    "split_by_lists": lambda **more: splits.split_by_lists(
        ["a", "b", "c"], [5, 6, 5], {"train": ["a", "b"], "test": ["c"]}, **more
    ),
}


@pytest.mark.parametrize("make", LEAKS.values(), ids=LEAKS)
def test_a_split_that_leaks_raises_unless_asked_for_by_name(make):
    with pytest.raises(splits.SplitError, match=r"1 of 2 patients .*\[5\].*leak=True"):
        make()
    assert make(leak=True)[0] != make(leak=True)[2]  # both of patient 5


def test_one_image_a_patient_may_be_split_by_image():
    patients = np.arange(30)
    split = splits.split_by_image(patients, seed=1)
    assert (split == splits.split_by_patient(patients, seed=1)).all()
    with pytest.raises(splits.SplitError, match="2 parts but 1 patient ids"):
        splits.check_split(["train", "test"], [1])


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": ["a"], "test": []}, "1 images are in none of the lists.*'b'"),
        ({"train": ["a.png", "b.png"]}, "such as 'a'; the lists name 2, such as 'a.png'"),
        ({"train": []}, "the lists name 0"),
        ({"train": "train_val_list.txt"}, "give the ids, not a file's name"),
        ({"train": Path("train.txt")}, "not a file's name"),
        ({"train": ["a", "b"], "test": ["b"]}, "'b' is in the lists 'train' and 'test'"),
        ([["a", "b"]], "must map parts to ids, not be a list"),
    ],
)
def test_lists_that_do_not_divide_the_images_are_refused(lists, message):
    with pytest.raises(splits.SplitError, match=message):
        splits.split_by_lists(["a", "b"], [1, 2], lists)
    with pytest.raises(splits.SplitError, match="2 images but 1 patient ids"):
        splits.split_by_lists(["a", "b"], [1], {"train": ["a", "b"]}, leak=True)


def test_lists_may_name_images_that_are_not_at_hand():
    lists = {"train": ["c", "a"], "val": ["d"], "test": ["b", "e"]}
    assert splits.split_by_lists(["a", "b"], [1, 2], lists).tolist() == ["train", "test"]


def test_fractions_are_nested_patient_wise_and_near_their_share():
    fractions = [0.05, 0.2, 0.5, 1.0]
    drawn = splits.nested_fractions(LABELS, PATIENTS, fractions=fractions, seed=0)
    sets = [set(drawn[f]) for f in fractions]
    assert all(small <= large for small, large in zip(sets, sets[1:], strict=False))
    for fraction, rows in drawn.items():
        inside = set(PATIENTS[rows])
        assert {i for i, p in enumerate(PATIENTS) if p in inside} == set(rows)
        assert 0 <= round(fraction * len(PATIENTS)) - len(rows) <= 4
    assert len(drawn[1.0]) == len(PATIENTS)


@pytest.mark.parametrize("fraction", [0.08, 0.2])
def test_every_label_with_room_for_it_is_drawn(fraction):
    for seed in range(20):
        drawn = splits.nested_fractions(LABELS, PATIENTS, fractions=[fraction, 1.0], seed=seed)
        assert (LABELS[drawn[fraction]].sum(axis=0) > 0).all()


def test_every_share_holds_its_part_of_every_label():
    rng = np.random.default_rng(5)
    patients = np.repeat(np.arange(2000), rng.integers(1, 6, 2000))
    labels = (rng.random((len(patients), 5)) < [0.3, 0.1, 0.05, 0.02, 0.004]).astype(np.uint8)
    fractions = [0.02, 0.1, 0.5]
    far = []
    for seed in range(5):
        drawn = splits.nested_fractions(labels, patients, fractions=fractions, seed=seed)
        for fraction, rows in drawn.items():
            part, whole = labels[rows].sum(axis=0), fraction * labels.sum(axis=0)
            far.append(np.abs(part - np.maximum(whole, 1)))
            assert (part >= 1).all()
    # By chance alone the counts would be off by their square roots: up to 20 images here.
    assert np.max(far) <= 3


def test_a_patient_too_large_for_the_share_is_left_to_a_larger_one():
    patients, labels = [1] * 9 + [2], np.array([[1]] * 9 + [[0]])
    drawn = splits.nested_fractions(labels, patients, fractions=[0.2, 1.0], seed=0)
    assert drawn[0.2].tolist() == [9] and len(drawn[1.0]) == 10
    alone = splits.nested_fractions(labels[:9], patients[:9], fractions=[0.2], seed=0)
    assert len(alone[0.2]) == 9  # a share is never empty


def test_without_labels_the_shares_are_filled():
    drawn = splits.nested_fractions(np.zeros((50, 3)), range(50), fractions=[0.1, 0.5], seed=0)
    assert [len(rows) for rows in drawn.values()] == [5, 25]


def test_shares_of_a_table_as_large_as_the_nihs_are_met():
    rng = np.random.default_rng(0)
    patients = rng.integers(0, 25_000, 86_524)
    labels = rng.random((len(patients), 14)) < np.geomspace(0.002, 0.18, 14)
    drawn = splits.nested_fractions(labels, patients, fractions=[0.01, 0.1, 1.0], seed=0)
    sizes = np.array([len(rows) for rows in drawn.values()])
    assert (np.abs(sizes - [865, 8652, 86_524]) <= 3).all()


def test_draws_differ_by_seed_and_repeat_by_seed():
    draws = [
        splits.nested_fractions(LABELS, PATIENTS, fractions=[0.1], seed=s)[0.1] for s in (0, 0, 1)
    ]
    assert draws[0].tolist() == draws[1].tolist() != draws[2].tolist()


@pytest.mark.parametrize(
    ("labels", "fractions", "message"),
    [([[1], [0], [0]], [f], "must lie in") for f in (0, -0.1, 2, float("nan"))]
    + [([[0], [1], [v]], [0.5], f"labels must be 0 or 1, not {v}") for v in (np.nan, -1, 0.6)]
    + [([[1], [0], [0]], 0.5, "in a list"), ([[1], [0]], [0.5], "do not fit")],
)
def test_labels_and_fractions_that_are_none_are_refused(labels, fractions, message):
    with pytest.raises(splits.SplitError, match=message):
        splits.nested_fractions(np.array(labels), [1, 2, 3], fractions=fractions, seed=0)
    with pytest.raises(splits.SplitError, match="no image"):
        splits.nested_fractions(np.zeros((0, 1)), [], fractions=[0.5], seed=0)


@pytest.mark.parametrize("part", [pd.NA, "", None, np.nan])
def test_an_image_in_no_part_is_named(part):
    with pytest.raises(splits.SplitError, match="in no part"):
        splits.check_split(pd.Series(["train", part], dtype=object), [1, 2])


def test_patients_numbered_beyond_int64_stay_apart():
    assert splits.patient_overlap([2**63 + 1, 5], [2**63 - 1, 5]) == 0.5
    splits.check_split(["train", "test"], [2**63 + 1, 2**63 - 1])
