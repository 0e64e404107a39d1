"""The tables of notebook 04, on made-up boxes and a tiny detector."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from box_cases import matched, prediction, random_case, truth
from tiny_detection import vindr_data
from tiny_detector import tiny_detector

from cxr_helpers.course.ch04 import experiment, tables
from cxr_helpers.course.core.data import BoxData
from cxr_helpers.course.core.settings import load_settings
from cxr_helpers.data import vindr
from cxr_helpers.data.packed import PackedImages
from cxr_helpers.detection import metrics as dm


def test_an_interval_holds_its_value_and_repeats_from_its_seed():
    matches = matched(*random_case(n=100))
    one = tables.bootstrap_map(matches, resamples=300, seed=1)
    assert one.low < one.value < one.high
    assert one == tables.bootstrap_map(matches, resamples=300, seed=1)
    assert one.value == pytest.approx(dm.mean_average_precision(matches))


def test_more_images_give_a_narrower_interval():
    widths = []
    for n in (40, 640):
        matches = matched(*random_case(n=n, seed=2))
        interval = tables.bootstrap_map(matches, resamples=200, seed=0)
        widths.append(interval.high - interval.low)
    assert widths[1] < widths[0] / 2


def test_an_interval_of_a_difference_is_paired():
    predictions, truths = random_case(n=150, seed=4)
    worse = [{k: v[len(v) // 2 :] for k, v in p.items()} for p in predictions]
    a, b = matched(worse, truths), matched(predictions, truths)
    paired = tables.bootstrap_map_difference(a, b, resamples=300, seed=0)
    one, two = (tables.bootstrap_map(m, resamples=300, seed=0) for m in (a, b))
    assert paired.value == pytest.approx(two.value - one.value) and paired.low > 0
    assert paired.high - paired.low < np.hypot(one.high - one.low, two.high - two.low)


@pytest.fixture(scope="module")
def data():
    return vindr_data()


@pytest.fixture(scope="module")
def settings():
    return load_settings({})


def test_sizes_are_ordered_and_scaled(settings, data):
    # Packed at 16 px: the heart's short side is 10, the nodule's 3.
    table = tables.size_table(data, data.rows("train", abnormal_only=True), settings)
    assert table.index.tolist() == ["Nodule/Mass", "Cardiomegaly"]
    assert table["short side at 16"].tolist() == [3, 10]
    assert table["short side at 640"].tolist() == [120, 400]
    assert table["under 8 at 224"].tolist() == [0, 0]


def test_a_box_of_the_canonical_size_is_pooled_from_stride_16(settings):
    side = settings.detect.canonical_scale
    boxes = np.array([[0, 0, k * side, k * side] for k in (0.1, 0.5, 1, 2)], np.float32)
    assert tables.pooled_level(boxes, settings).tolist() == [2, 3, 4, 5]


def test_stages_shrink():
    detector = tiny_detector()
    step = tables.stages(detector, np.full((64, 64), 90, np.uint8))
    assert step.anchors > len(step.proposals) > 0
    assert step.proposals.shape[1] == 4 and set(step.found) == {"boxes", "labels", "scores"}


def test_means_are_coco_s_and_sizes_are_those_at_640(data):
    truths = experiment.truths(data, np.arange(4))
    found = [one | {"scores": np.ones(len(one["labels"]))} for one in truths]
    means, scores = tables.score_table({"all": found}, truths, data)
    assert means.loc["all", "ap50"] == pytest.approx(1)
    assert np.isnan(scores["all"].per_class["Nodule/Mass"]["ap50_small"])  # 120 px at 640


def test_the_truth_moves_the_number(data):
    rows = np.arange(6)
    two = experiment.truths(data, rows, choice="two readers")
    found = [one | {"scores": np.ones(len(one["labels"]))} for one in two]
    table = tables.truth_table({"heart only": found}, data, rows)
    assert table["heart only"].round(6).to_dict() == {
        "fused": 0.5, "two readers": 1, "one reader": 0,
        "any reader": pytest.approx(0.252475, abs=1e-5),
    }  # fmt: skip
    assert table["boxes"].tolist() == [12, 6, 6, 18]


def test_a_truth_without_boxes_has_no_row(data):
    alone = replace(data, fused=data.fused.assign(readers=1))
    assert (
        "two readers" not in tables.truth_table({"none": [prediction()]}, alone, np.arange(1)).index
    )


def test_the_gallery_by_hand():
    box = [[0, 0, 9, 9]]
    truths = [truth(box, [1]), truth([*box, [50, 50, 60, 60]], [1, 2]), truth()]
    found = [prediction(box, [1], [0.9]), prediction(), prediction(box, [3], [0.8])]
    assert list(tables.gallery_rows(matched(found, truths)).values()) == [0, 1, 2]


def test_a_gallery_without_mistakes_still_has_three_images():
    perfect = matched([prediction([[0, 0, 9, 9]], [1], [0.9])], [truth([[0, 0, 9, 9]], [1])])
    assert len(tables.gallery_rows(perfect)) == 3


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
    value = tables.score_readers(three, vindr.CLASSES)
    assert value["Cardiomegaly"] == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert value.drop("Cardiomegaly").isna().all()


def test_a_reader_who_drew_nothing_has_found_nothing():
    two = readings_of([("a", "R1", 0.0)], [("a", "R1"), ("a", "R2")])
    turns = list(tables.leave_out_readers(two))
    assert [(len(own), len(others)) for _, own, others in turns] == [(1, 0), (0, 1)]
    assert tables.score_readers(two, vindr.CLASSES)["Cardiomegaly"] == 0


@pytest.mark.parametrize("seen", [[("a", "R1")], []])
def test_a_single_reader_has_nobody_to_be_compared_with(seen):
    alone = readings_of([(image, reader, 0.0) for image, reader in seen], seen)
    assert not list(tables.leave_out_readers(alone))
    assert tables.score_readers(alone, vindr.CLASSES).isna().all()


@pytest.mark.parametrize("readers_of_b", [1, 2])
def test_readers_who_agree_score_one_however_many_an_image_has(readers_of_b):
    seen = [("a", f"R{i}") for i in range(3)] + [("b", f"R{i}") for i in range(readers_of_b)]
    agreed = readings_of([(image, reader, 0.0) for image, reader in seen], seen)
    assert tables.score_readers(agreed, vindr.CLASSES)["Cardiomegaly"] == 1


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
    table = tables.against_other_readers({"half": [right, empty]}, data, np.arange(2))
    assert table.index.tolist() == ["Cardiomegaly"]
    assert table.loc["Cardiomegaly", "one reader"] == 1
    assert table.loc["Cardiomegaly", "half"] == pytest.approx(51 / 101)
