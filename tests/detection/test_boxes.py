"""The room's IoU and its check of truths and detections; who asks, asks this check."""

import numpy as np
import pandas as pd
import pytest
import torch
from box_cases import NAMES, matched, prediction, random_case, truth

from cxr_helpers.detection import coco, coco_files, errors, metrics
from cxr_helpers.detection.boxes import box_iou, checked_image, checked_pairs


def table(predictions, truths):
    return errors.error_table(predictions, truths, class_names=NAMES, min_score=0).to_dict()


def average_precision(predictions, truths):
    return metrics.average_precision(matched(predictions, truths))


def coco_table(predictions, truths):
    return coco.coco_scores(predictions, truths, class_names=NAMES).per_class


ASK = (table, average_precision, coco_table)
MASS = truth([[0, 0, 10, 10]], [1])
FOUND = prediction([[0, 0, 9, 9]], [1], [0.9])


@pytest.mark.parametrize("none", [[], np.zeros(0), np.zeros((0, 4)), torch.zeros((0, 4))])
def test_no_box_has_many_shapes(none):
    empty = {"boxes": none, "labels": [], "scores": torch.zeros(0)}
    assert checked_image(empty, "truth 0")["boxes"].shape == (0, 4)
    assert box_iou(none, [[0, 0, 1, 1]]).shape == (0, 1) and box_iou([], none).shape == (0, 0)


def test_iou_by_hand_and_without_area():
    assert box_iou([[0, 0, 2, 2]], [[1, 0, 3, 2]])[0, 0] == pytest.approx(1 / 3)
    assert box_iou([[1, 1, 1, 1]], [[1, 1, 1, 1]])[0, 0] == 0


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        *[(np.ones(shape), "expected .n, 4") for shape in ((4,), (4, 6), (2, 6), (1, 1, 4))],
        ([[0, 0, np.nan, 9]], "not finite"),
        ([[9, 0, 0, 9]], r"\[9.0, 0.0, 0.0, 9.0\]; expected x_min"),
        ([["0", "0", "9", "9"]], "holds '0'; expected numbers"),
        (np.ma.masked_array([[0, 0, 9, 9]], [[0, 0, 1, 0]]), "not finite"),
        (pd.DataFrame([[0, 0, 9, pd.NA]], dtype="Int64"), "holds <NA>; expected numbers"),
        (np.array([[0, 0, 9, "9"]], object), "holds '9'; expected numbers"),
        (np.array([[0, 0, 9, True]], object), "holds True; expected numbers"),
    ],
)
def test_what_is_no_box_has_no_iou(boxes, words):
    with pytest.raises(ValueError, match=words):
        box_iou(boxes, np.zeros((0, 4)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scores": [np.nan]}, "scores holds a value that is not finite"),
        ({"scores": [0.9, 0.8]}, "shapes"),
        ({"scores": [[0.9]]}, r"'scores': \(1, 1\)"),
        ({"boxes": [[0, 0, np.inf, 9]]}, "boxes holds a value that is not finite"),
        ({"boxes": [[9, 0, 4, 9]]}, r"\[9.0, 0.0, 4.0, 9.0\]; expected x_min, y_min"),
        ({"boxes": [[0, 0, 9]]}, r"shape \(1, 3\)"),
        ({"boxes": [["0", "0", "9", "9"]]}, "boxes holds '0'"),
        ({"labels": [], "boxes": []}, "shapes"),
        ({"labels": [[1]]}, r"'labels': \(1, 1\)"),
        ({"labels": [True]}, "labels holds True; expected numbers"),
        ({"labels": ["mass"]}, "labels holds 'mass'"),
        ({"labels": torch.tensor([True])}, "labels holds True"),
        *[({"labels": [k]}, f"label {k}; .*4 class names allow 1 to 4") for k in (0, -1, 5, 1.5)],
    ],
)
def test_what_users_bring_wrongly_is_refused_with_its_image(change, words):
    with pytest.raises(ValueError, match=f"prediction 1.*{words}"):
        checked_pairs([FOUND, FOUND | change], [MASS, MASS], NAMES)
    without = {k: v for k, v in FOUND.items() if k != next(iter(change))}
    with pytest.raises(ValueError, match=f"prediction 0 lacks {next(iter(change))}"):
        checked_pairs([without], [MASS], NAMES)


def test_one_image_s_labels_begin_at_1_and_have_no_end():
    assert checked_image(truth([[0, 0, 9, 9]], [99]), "found")["labels"] == [99]
    for label in (0, -2, 1.5):
        with pytest.raises(ValueError, match=f"found has label {label}; labels are whole numbers"):
            checked_image({"boxes": [[0, 0, 9, 9]], "labels": [label]}, "found")


@pytest.mark.parametrize("ask", ASK)
def test_everyone_asks_this_check(ask):
    with pytest.raises(ValueError, match="1 predictions for 2 truths"):
        ask([FOUND], [MASS, MASS])
    with pytest.raises(ValueError, match="prediction 0 has label 5"):
        ask([FOUND | {"labels": [5]}], [MASS])
    with pytest.raises(ValueError, match="truth 0: boxes has .4.0, 0.0, 1.0, 9.0."):
        ask([FOUND], [truth([[4, 0, 1, 9]], [1])])


@pytest.mark.parametrize("names", ["mass", ["mass", "mass"], {"mass", "nodule"}])
def test_names_of_classes_are_different_ones(tmp_path, names):
    file = coco_files.CocoTruth(("a",), [(19, 19)], [MASS], names)
    for ask in (coco.coco_scores, metrics.match_detections, errors.error_table):
        with pytest.raises(ValueError, match="list of different names"):
            ask([FOUND], [MASS], class_names=names)
    with pytest.raises(ValueError, match="list of different names"):
        coco_files.write_coco(tmp_path / "new.json", file)
    path = coco_files.write_coco(
        tmp_path / "t.json", coco_files.CocoTruth(*[*vars(file).values()][:3], NAMES)
    )
    with pytest.raises(ValueError, match="list of different names"):
        coco_files.read_coco(path, class_names=names)


@pytest.mark.parametrize(
    "boxes",
    [
        torch.tensor([[0, 0, 8, 8]], dtype=torch.bfloat16),
        [torch.tensor([0.0, 0, 8, 8], requires_grad=True)],
        np.array([[0, 0.0, np.float32(8), 8]], object),
        pd.DataFrame([[0, 0, 8, 8]], dtype="Int64"),
    ],
)
def test_boxes_of_short_floats_of_single_tensors_and_of_mixed_columns_are_read(boxes):
    scores = torch.tensor([0.5], dtype=torch.bfloat16)
    found = checked_image({"boxes": boxes, "labels": [1], "scores": scores}, "found", scores=True)
    assert found["boxes"].tolist() == [[0, 0, 8, 8]] and found["scores"] == [0.5]


@pytest.mark.parametrize("ask", ASK)
def test_tensors_and_lists_count_as_arrays_do(ask):
    predictions, truths = random_case(n=20, seed=4)
    predictions.append(prediction())
    truths.append(truth())
    expected = ask(predictions, truths)
    for kind in (lambda v: torch.tensor(v, requires_grad=v.dtype == float), np.ndarray.tolist):
        both = [[{k: kind(v) for k, v in one.items()} for one in x] for x in (predictions, truths)]
        np.testing.assert_equal(ask(*both), expected)
    assert average_precision([FOUND | {"labels": [1.0]}], [MASS])[0] == 1
