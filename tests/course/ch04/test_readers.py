"""Readers as the truth: each choice of their boxes, and one reader against the others."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from box_cases import prediction
from tiny_detection import vindr_data

from cxr_helpers.course.ch04 import readers
from cxr_helpers.course.core.data import BoxData
from cxr_helpers.data import vindr
from cxr_helpers.data.packed import PackedImages


@pytest.fixture(scope="module")
def data():
    return vindr_data()


@pytest.mark.parametrize(
    ("choice", "labels"),
    [("fused", [4, 9]), ("two readers", [4]), ("one reader", [9]), ("any reader", [4, 9, 4])],
)
def test_each_choice_of_the_truth_gives_its_boxes_in_packed_pixels(data, choice, labels):
    truth, normal = readers.truths_by(choice, data, np.array([0, 39]))
    assert truth["labels"].tolist() == labels and normal["boxes"].shape == (0, 4)
    expected = {4: [2, 4, 12, 14], 9: [1, 1, 4, 4]}
    assert truth["boxes"].tolist() == [expected[label] for label in labels]


def test_an_unknown_truth_is_refused(data):
    with pytest.raises(ValueError, match="majority"):
        readers.truths_by("majority", data, np.array([0]))


def test_the_truth_moves_the_number(data):
    rows = np.arange(6)
    two = readers.truths_by("two readers", data, rows)
    found = [one | {"scores": np.ones(len(one["labels"]))} for one in two]
    table = readers.truth_table({"heart only": found}, data, rows)
    assert table["heart only"].round(6).to_dict() == {
        "fused": 0.5, "two readers": 1, "one reader": 0,
        "any reader": pytest.approx(0.252475, abs=1e-5),
    }  # fmt: skip
    assert table["boxes"].tolist() == [12, 6, 6, 18]


def test_exact_boxes_are_one_more_truth_where_they_are_known(data):
    rows = np.arange(6)
    assert readers.exact_detections(data, rows) is None
    with pytest.raises(ValueError, match="nobody knows the exact boxes"):
        readers.truths_by("exact", data, rows)
    hearts = data.fused[data.fused["label"] == "Cardiomegaly"]
    phantoms = replace(data, exact=hearts)
    perfect = readers.exact_detections(phantoms, rows)
    assert all(one["scores"].tolist() == [1] and one["labels"].tolist() == [4] for one in perfect)
    table = readers.truth_table({"perfect": perfect}, phantoms, rows)
    assert table.loc["exact"].tolist() == [6, 1] and table.loc["fused", "perfect"] == 0.5
    assert "exact" not in readers.truth_table({"perfect": perfect}, data, rows).index


def test_a_truth_without_boxes_has_no_row(data):
    alone = replace(data, fused=data.fused.assign(readers=1))
    table = readers.truth_table({"none": [prediction()]}, alone, np.arange(1))
    assert "two readers" not in table.index and "fused" in table.index


# One reader against the others.
def readings_of(boxes, seen):
    drawn = pd.DataFrame(
        [(i, r, "Cardiomegaly", x, 0.0, x + 10.0, 10.0) for i, r, x in boxes],
        columns=["image_id", "reader_id", "label", "x_min", "y_min", "x_max", "y_max"],
    )
    verdicts = pd.DataFrame(seen, columns=["image_id", "reader_id"]).assign(normal=False)
    return vindr.Readings(drawn, verdicts, pd.DataFrame())


def test_a_reader_against_the_others_by_hand():
    # Two draw the heart at the same place, the third elsewhere: each of the two finds one of the
    # others' two boxes and draws one; the third finds none of the fused one.
    three = readings_of(
        [("a", "R1", 0.0), ("a", "R2", 0.0), ("a", "R3", 50.0)],
        [("a", "R1"), ("a", "R2"), ("a", "R3")],
    )
    value = readers.score_readers(three, vindr.CLASSES)
    assert value["Cardiomegaly"] == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert value.drop("Cardiomegaly").isna().all()


def test_a_reader_who_drew_nothing_has_found_nothing():
    two = readings_of([("a", "R1", 0.0)], [("a", "R1"), ("a", "R2")])
    turns = list(readers.leave_out_readers(two))
    assert [(len(own), len(others)) for _, own, others in turns] == [(1, 0), (0, 1)]
    assert readers.score_readers(two, vindr.CLASSES)["Cardiomegaly"] == 0


@pytest.mark.parametrize("seen", [[("a", "R1")], []])
def test_a_single_reader_has_nobody_to_be_compared_with(seen):
    alone = readings_of([(image, reader, 0.0) for image, reader in seen], seen)
    assert not list(readers.leave_out_readers(alone))
    assert readers.score_readers(alone, vindr.CLASSES).isna().all()


@pytest.mark.parametrize("readers_of_b", [1, 2])
def test_readers_who_agree_score_one_however_many_an_image_has(readers_of_b):
    seen = [("a", f"R{i}") for i in range(3)] + [("b", f"R{i}") for i in range(readers_of_b)]
    agreed = readings_of([(image, reader, 0.0) for image, reader in seen], seen)
    assert readers.score_readers(agreed, vindr.CLASSES)["Cardiomegaly"] == 1


def test_detectors_meet_the_truth_that_readers_meet():
    images = PackedImages(np.zeros((2, 64, 64), np.uint8), ["a", "b"], np.full((2, 2), 128), {})
    both = readings_of(
        [(name, reader, 20.0) for name in "ab" for reader in ("R1", "R2")],
        [(name, reader) for name in "ab" for reader in ("R1", "R2")],
    )
    data = BoxData(both, pd.DataFrame(), images, np.array(["test", "test"]))
    heart = vindr.CLASSES.index("Cardiomegaly") + 1
    right = {"boxes": np.array([[10.0, 0, 15, 5]]), "labels": np.array([heart])}
    right["scores"] = np.ones(1)
    empty = {k: v[:0] for k, v in right.items()}
    table = readers.against_other_readers({"half": [right, empty]}, data, np.arange(2))
    assert table.index.tolist() == ["Cardiomegaly"]
    assert table.loc["Cardiomegaly", "one reader"] == 1
    assert table.loc["Cardiomegaly", "half"] == pytest.approx(51 / 101)
