"""consensus.py: by hand, against ensemble-boxes, and the paper's 23,934 boxes."""

import numpy as np
import pandas as pd
import pytest
import torch
from ensemble_boxes import weighted_boxes_fusion

from cxr_helpers.course.core.tables import packaged_table
from cxr_helpers.data.consensus import fuse_readings, reader_agreement, weighted_box_fusion
from cxr_helpers.data.vindr import read_readings

COLUMNS = ["image_id", "reader_id", "label", "x_min", "y_min", "x_max", "y_max"]

# Per class of the real table: F1 of two readers, share of images marked by all, fused boxes.
FACTS = {
    "Aortic enlargement": (0.74, 0.57, 3386),
    "Atelectasis": (0.21, 0.10, 230),
    "Calcification": (0.26, 0.13, 745),
    "Cardiomegaly": (0.78, 0.56, 2402),
    "Consolidation": (0.25, 0.09, 435),
    "ILD": (0.35, 0.18, 733),
    "Infiltration": (0.29, 0.15, 954),
    "Lung Opacity": (0.22, 0.13, 2017),
    "Nodule/Mass": (0.35, 0.22, 1867),
    "Other lesion": (0.20, 0.11, 1836),
    "Pleural effusion": (0.37, 0.43, 1771),
    "Pleural thickening": (0.19, 0.18, 4058),
    "Pneumothorax": (0.57, 0.47, 131),
    "Pulmonary fibrosis": (0.35, 0.39, 3369),
}


def readings(*rows) -> pd.DataFrame:
    return pd.DataFrame([list(row) for row in rows], columns=COLUMNS)


def plain_fusion(boxes: np.ndarray, threshold: float) -> list[list[int]]:
    """Fuse one list of boxes box by box; return which boxes went into each fused box."""
    clusters: list[list[int]] = []
    for i in range(len(boxes))[::-1]:
        best, best_iou = None, threshold
        for cluster in clusters:
            a, b = boxes[cluster].mean(axis=0), boxes[i]
            overlap = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
            inter = overlap.clip(0).prod()
            iou = inter / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inter)
            if iou > best_iou:
                best, best_iou = cluster, iou
        if best is None:
            clusters.append([i])
        else:
            best.append(i)
    return clusters


def random_boxes(rng: np.random.Generator, n: int) -> np.ndarray:
    corner, size = rng.uniform(0, 60, (n, 2)), rng.uniform(5, 40, (n, 2))
    return np.hstack([corner, corner + size])


# --- degenerate -----------------------------------------------------------------------------------


def test_no_box_and_one():
    fused, n_readers, n_boxes = weighted_box_fusion(np.zeros((0, 4)), [])
    assert fused.shape == (0, 4) and n_readers.shape == n_boxes.shape == (0,)
    fused, *counts = weighted_box_fusion([[1, 2, 3, 4]], ["R1"])
    assert fused.tolist() == [[1, 2, 3, 4]] and counts == [1, 1]  # one box is itself
    assert len(fuse_readings(readings())) == 0
    assert len(reader_agreement(readings())) == 0


@pytest.mark.parametrize(
    ("boxes", "readers", "threshold", "message"),
    [
        ([[1, 2, 3]], ["a"], 0.5, "shape"),
        ([[3, 2, 1, 4]], ["a"], 0.5, "box 0"),
        ([[0, 0, 1, 1], [0, 0, np.nan, 1]], ["a", "b"], 0.5, "box 1"),
        ([[0, 0, 0, 1]], ["a"], 0.5, "box 0"),
        ([[0, 0, 1, 1]], ["a", "b"], 0.5, "1 boxes but 2 readers"),
        ([[0, 0, 1, 1]], [None], 0.5, "no reader"),
        ([[0, 0, 1, 1]], ["a"], 1.5, "iou_threshold"),
        ([[0, 0, 9, 9]] * 2, [8, "8"], 0.5, "reader 8 and '8' may be one"),
    ],
)
def test_unusable_input(boxes, readers, threshold, message):
    with pytest.raises(ValueError, match=message):
        weighted_box_fusion(boxes, readers, iou_threshold=threshold)


ROW = ("a", "R8", "ILD", 0, 0, 9, 9)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("a", "r8 ", "ILD", 0, 0, 9, 9), "reader 'R8' and 'r8 ' may be one"),
        (("a", "R9", "ild", 0, 0, 9, 9), "label 'ILD' and 'ild' may be one"),
        (("A", "R9", "ILD", 0, 0, 9, 9), "image_id 'a' and 'A' may be one"),
        (("a", "R9", np.nan, 0, 0, 9, 9), "row 1: the box has no label"),
        ((None, "R9", "ILD", 0, 0, 9, 9), "row 1: the box has no image_id"),
        (("a", None, "ILD", 0, 0, 9, 9), "box 1 has no reader"),
        (("a", " ", "ILD", 0, 0, 9, 9), "a box has no reader, but empty text"),
        (("a", "R9", "ILD", 0, 0, "wide", 9), "boxes must be .N, 4. numbers .*'wide'"),
        (("a", "R9", "ILD", 0, 0, np.inf, 9), "image 'a'"),
        (("b", "R9", "ILD", 9, 0, 1, 9), r"box 1 \(image 'b'\) is \[9.0, 0.0, 1.0, 9.0\]"),
        (("a.dicom", "R9", "ILD", 0, 0, 9, 9), "image_id 'a' and 'a.dicom' may be one"),
    ],
)
def test_rows_that_would_be_counted_apart_or_cannot_be_used_are_named(row, message):
    for call in (fuse_readings, reader_agreement):
        with pytest.raises(ValueError, match=message):
            call(readings(ROW, row))


@pytest.mark.parametrize(("one", "other"), [("001", "1"), (1.0, "1"), (1, "1")])
def test_an_image_written_as_number_and_text_or_with_zeros_is_refused(one, other):
    mixed = readings((one, "R8", "ILD", 0, 0, 9, 9), (other, "R9", "ILD", 0, 0, 9, 9))
    with pytest.raises(ValueError, match="image_id .* may be one"):
        fuse_readings(mixed)
    assert len(fuse_readings(mixed.assign(image_id=1))) == 1


def test_tensors_and_pandas_give_what_arrays_give():
    boxes = random_boxes(np.random.default_rng(4), 12)
    who = np.arange(12) % 3
    wanted = weighted_box_fusion(boxes, who)
    frame = pd.DataFrame(boxes, index=range(40, 52))
    for corners, names in (
        (torch.tensor(boxes, requires_grad=True), torch.tensor(who)),
        (frame, pd.Series(who, index=range(12, 0, -1))),
        (boxes.tolist(), who.tolist()),
        (boxes.astype(str), who.astype(str)),
    ):
        found = weighted_box_fusion(corners, names)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other)


# --- by hand --------------------------------------------------------------------------------------


def test_three_readers_one_heart():
    table = readings(
        ("a", "R8", "Cardiomegaly", 0, 0, 10, 10),
        ("a", "R9", "Cardiomegaly", 1, 0, 11, 10),
        ("a", "R9", "Cardiomegaly", 2, 0, 12, 10),
        ("a", "R10", "ILD", 0, 0, 10, 10),
        ("b", "R10", "Cardiomegaly", 0, 0, 10, 10),
    )
    assert fuse_readings(table).values.tolist() == [
        ["a", "Cardiomegaly", 1, 0, 11, 10, 2, 3],
        ["a", "ILD", 0, 0, 10, 10, 1, 1],
        ["b", "Cardiomegaly", 0, 0, 10, 10, 1, 1],
    ]


def test_an_iou_at_the_threshold_does_not_join():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 5]]  # IoU is 0.5
    assert len(weighted_box_fusion(boxes, ["a", "b"])[0]) == 2
    assert len(weighted_box_fusion(boxes, ["a", "b"], iou_threshold=0.49)[0]) == 1


def test_agreement_by_hand():
    table = readings(
        ("a", "R1", "ILD", 0, 0, 10, 10),
        ("a", "R2", "ILD", 0, 0, 10, 9),
        ("a", "R3", "ILD", 50, 50, 60, 60),
        ("b", "R1", "ILD", 0, 0, 10, 10),
    )
    # Pairs on a: R1-R2 match, R1-R3 and R2-R3 do not; on b R1 against two who drew nothing.
    row = reader_agreement(table).loc["ILD"]
    assert row["f1"] == pytest.approx(2 * 1 / (2 + 2 + 2 + 1 + 1))
    assert (row["images"], row["boxes"], row["matches"], row["all_readers"]) == (2, 4, 1, 0.5)


def test_a_box_is_matched_once_per_other_reader():
    table = readings(
        ("a", "R1", "ILD", 0, 0, 10, 10),
        ("a", "R2", "ILD", 0, 0, 10, 9),
        ("a", "R2", "ILD", 0, 0, 10, 8),
        ("a", "R3", "ILD", 0, 0, 10, 10),
    )
    assert reader_agreement(table).loc["ILD", "matches"] == 3  # R1-R2, R1-R3, R2-R3


def test_perfect_agreement_is_one_and_columns_and_readers_must_be_as_said():
    table = readings(*((i, r, "ILD", 0, 0, 9, 9) for i in "ab" for r in ("R1", "R2", "R3")))
    assert reader_agreement(table).loc["ILD", ["f1", "all_readers"]].tolist() == [1, 1]
    with pytest.raises(ValueError, match="readers_per_image=3"):
        reader_agreement(table, readers_per_image=2)
    with pytest.raises(ValueError, match="lacks the columns label"):
        fuse_readings(table.drop(columns="label"))


# --- properties -----------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.8])
def test_equals_the_plain_loop(threshold):
    rng = np.random.default_rng(0)
    for n in (2, 5, 30):
        boxes, readers = random_boxes(rng, n), rng.integers(0, 3, n)
        clusters = plain_fusion(boxes, threshold)
        fused, n_readers, n_boxes = weighted_box_fusion(boxes, readers, iou_threshold=threshold)
        np.testing.assert_allclose(fused, [boxes[c].mean(axis=0) for c in clusters])
        assert n_readers.tolist() == [len(set(readers[c])) for c in clusters]
        assert n_boxes.tolist() == [len(c) for c in clusters]


def test_the_table_equals_its_groups_one_by_one():
    rng = np.random.default_rng(1)
    boxes = random_boxes(rng, 400)
    table = pd.DataFrame(boxes, columns=COLUMNS[3:])
    table["image_id"] = rng.choice(list("abcdef"), 400)
    table["label"] = rng.choice(["ILD", "Edema"], 400)
    table["reader_id"] = rng.choice(["R1", "R2", "R3"], 400)
    before = table.copy()
    fused = fuse_readings(table)
    pd.testing.assert_frame_equal(table, before)
    for (image, label), group in table.groupby(["image_id", "label"]):
        corners, *_ = weighted_box_fusion(group[COLUMNS[3:]].to_numpy(), group["reader_id"])
        here = fused[(fused["image_id"] == image) & (fused["label"] == label)]
        np.testing.assert_allclose(here[COLUMNS[3:]].to_numpy(), corners)
    assert fused["boxes"].sum() == 400


def test_scale_does_not_matter():
    boxes = random_boxes(np.random.default_rng(2), 40)
    small, *_ = weighted_box_fusion(boxes, np.arange(40))
    large, *_ = weighted_box_fusion(boxes * [7, 3, 7, 3], np.arange(40))
    np.testing.assert_allclose(large, small * [7, 3, 7, 3])


def test_parity_with_ensemble_boxes():
    rng = np.random.default_rng(3)
    for _ in range(100):
        n = int(rng.integers(1, 40))
        boxes, threshold = random_boxes(rng, n) / 100, float(rng.uniform(0.1, 0.8))
        order = np.argsort(np.ones(n))  # the package visits equal scores in this order, reversed
        theirs, _, _ = weighted_boxes_fusion(
            [boxes], [np.ones(n)], [np.zeros(n)], iou_thr=threshold
        )
        ours, *_ = weighted_box_fusion(boxes[order], np.zeros(n), iou_threshold=threshold)
        assert len(ours) == len(theirs)
        ours, theirs = (b[np.lexsort(np.round(b, 5).T)] for b in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, atol=1e-6)  # the package sums in float32


# --- the real table -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def boxes():
    return read_readings(packaged_table("vinbigdata")).boxes


def test_real_table_fuses_to_the_papers_boxes(boxes):
    fused = fuse_readings(boxes)
    assert len(boxes) == 36_096 and len(fused) == 23_934
    counts = fused["label"].value_counts().to_dict()
    assert counts == {label: row[2] for label, row in FACTS.items()}
    assert (fused["readers"] == 1).mean() == pytest.approx(0.659, abs=5e-4)


def test_real_table_agreement(boxes):
    agreement = reader_agreement(boxes)
    assert agreement["f1"].round(2).to_dict() == {k: row[0] for k, row in FACTS.items()}
    assert agreement["all_readers"].round(2).to_dict() == {k: row[1] for k, row in FACTS.items()}
