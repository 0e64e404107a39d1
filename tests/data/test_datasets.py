"""datasets.py: boxes from a table to the form that detectors train on, or refused by name."""

import numpy as np
import pandas as pd
import pytest
import torch

from cxr_helpers.data.datasets import DetectionDataset, boxes_by_image
from cxr_helpers.data.packed import PackedImages

IMAGES = [np.full((4, 6), k, np.uint8) for k in range(3)]
BOX = {"x_min": 1, "y_min": 2, "x_max": 5, "y_max": 6}
NAMES = ["Edema", "ILD"]
TRUTH = {"boxes": np.array([[1, 2, 5, 6]], np.float32), "labels": np.array([2])}
NORMAL = {"boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, np.int64)}


def box_of(image_id="c", *, label="ILD", **corners):
    return pd.DataFrame([{"image_id": image_id, "label": label, **BOX, **corners}])


def truths(*boxes, ids=("c", "a"), class_names=NAMES):
    return boxes_by_image(pd.concat(boxes), ids, class_names)


# --- from the table -------------------------------------------------------------------------------


def test_each_image_gets_its_boxes():
    found, normal = truths(box_of(), box_of("b", label="Edema"))
    assert found["boxes"].tolist() == [[1, 2, 5, 6]] and found["boxes"].dtype == np.float32
    assert found["labels"].tolist() == [2] and found["labels"].dtype == np.int64
    assert normal["boxes"].shape == (0, 4) and normal["labels"].shape == (0,)


def test_rows_of_dictionaries_and_any_list_of_names_serve():
    for class_names in (pd.Series(NAMES), iter(NAMES)):
        found = boxes_by_image(box_of().to_dict("records"), ["c"], class_names)
        assert found[0]["labels"].tolist() == [2]
    for boxes, ids in ((box_of()[:0], ["a"]), (box_of(), [])):
        assert all(len(truth["boxes"]) == 0 for truth in boxes_by_image(boxes, ids, NAMES))


@pytest.mark.parametrize(
    ("boxes", "class_names", "message"),
    [
        (box_of().drop(columns="x_max"), NAMES, "no column x_max"),
        (box_of(), ["Edema"], "'ILD' is none of the classes Edema"),
        (box_of("b", label="x"), NAMES, "'x' is none of the classes"),
        (box_of(label=np.nan), NAMES, "label nan is none of the classes"),
        (pd.concat([box_of(), box_of(None)]), NAMES, "row 1 of the boxes has no image_id"),
        (box_of(), "ILD", "list of different names, not 'ILD'"),
        (box_of(), ["ILD", "ILD"], "list of different names"),
        (box_of(), {"ILD"}, "list of different names"),
        (box_of(), [], "list of different names"),
        (box_of("z"), NAMES, "none of 1 boxes .* such as 'z', the images are called such as 'c'"),
        (box_of(x_min=0.1, y_min=0.1, x_max=0.5, y_max=1.0), NAMES, "shares of the image; mult"),
    ],
)
def test_tables_that_do_not_fit_are_refused(boxes, class_names, message):
    with pytest.raises(ValueError, match=message):
        truths(boxes, class_names=class_names)


@pytest.mark.parametrize(
    ("corners", "message"),
    [
        ({"x_max": 1}, r"\[1.0, 2.0, 1.0, 6.0\] has no x_min < x_max"),
        ({"y_max": 0}, "has no x_min < x_max and y_min < y_max"),
        ({"x_min": np.nan}, "is not of finite numbers"),
        ({"x_max": np.inf}, "is not of finite numbers"),
        ({"y_max": "low"}, "is not of finite numbers"),
        ({"x_min": -9, "x_max": -1}, "is outside the image"),
    ],
)
def test_boxes_that_cannot_train_are_named_and_others_images_passed_over(corners, message):
    with pytest.raises(ValueError, match=f"image 'c': the box .*{message}"):
        truths(box_of(), box_of(**corners))
    assert truths(box_of(), box_of("z", **corners))[0]["boxes"].tolist() == [[1, 2, 5, 6]]


SPELLINGS = {
    "numbers": ("00000013", 13),
    "numbers with a gap": ("00000013", 13.0),
    "leading zeros": ("13", "0013"),
    "a suffix": ("00000013", "00000013.dicom"),
    "no suffix": ("00000013_000.png", "00000013_000"),
    "a folder": ("a.png", "images/a.png"),
    "a folder of Windows": ("a", "train\\a.DCM"),
    "white space": ("a", " a "),
    "capitals": ("ab", "AB"),
}


@pytest.mark.parametrize(("ours", "theirs"), SPELLINGS.values(), ids=SPELLINGS)
def test_boxes_under_another_spelling_are_not_lost(ours, theirs):
    for boxes in ([box_of(theirs)], [box_of("other"), box_of(theirs)]):
        with pytest.raises(ValueError, match="write the ids alike") as caught:
            truths(*boxes, ids=[ours, "other"])
        assert repr(ours) in str(caught.value) and repr(theirs) in str(caught.value)


def test_files_of_one_name_in_two_patients_folders_are_two_images():
    ids = ["p1/IM0001.png"]
    assert len(truths(box_of("p1/IM0001.png"), box_of("p2/IM0001.png"), ids=ids)[0]["boxes"]) == 1
    with pytest.raises(ValueError, match="write the ids alike"):
        truths(box_of("p1/im0001"), ids=ids)


@pytest.mark.parametrize("image_id", [2, 2.0])
def test_ids_that_are_numbers_on_both_sides_meet(image_id):
    assert [len(one["boxes"]) for one in truths(box_of(image_id), ids=[1, 2])] == [0, 1]


# --- to the detector ------------------------------------------------------------------------------


def test_boxes_come_in_the_form_that_torchvision_takes():
    data = DetectionDataset(IMAGES, [TRUTH, NORMAL], rows=[2, 0])
    (image, target), (_, normal) = data[0], data[1]
    assert len(data) == 2 and image.shape == (3, 4, 6) and image.dtype == torch.float32
    assert image.unique().tolist() == [pytest.approx(2 / 255)]
    assert target["boxes"].tolist() == [[1, 2, 5, 6]] and target["labels"].tolist() == [2]
    assert normal["boxes"].shape == (0, 4) and normal["labels"].dtype == torch.int64
    assert len(DetectionDataset([], [])) == 0
    empty = DetectionDataset(IMAGES[:1], [{"boxes": [], "labels": []}])[0][1]
    assert empty["boxes"].shape == (0, 4)
    with pytest.raises(ValueError, match="3 images but 1 truths"):
        DetectionDataset(IMAGES, [TRUTH])


@pytest.mark.parametrize(
    "rows, words",
    [([True, False], "rows are bool"), ([0.7, 1], "float64"), ([0, -1], "row -1 is none of 3")],
)
def test_rows_are_numbers_of_images(rows, words):
    with pytest.raises(ValueError, match=words):
        DetectionDataset(IMAGES, [TRUTH, NORMAL], rows=rows)


@pytest.mark.parametrize(
    "change, words",
    [
        *[
            ({"labels": np.array(bad)}, "1 boxes with labels")
            for bad in ([0], [1.5], [1, 2], ["1"])
        ],
        ({"boxes": np.ones((1, 5))}, r"boxes of float64 \(1, 5\)"),
        ({"boxes": np.array([["1", "2", "5", "6"]])}, "boxes of <U1"),
    ],
)
def test_truths_of_another_form_are_refused_by_name(change, words):
    with pytest.raises(ValueError, match=f"image 2: {words}"):
        DetectionDataset(IMAGES, [TRUTH | change], rows=[2])


def test_a_transform_moves_image_and_boxes_alike():
    def flip(*, image, bboxes, labels):
        right_left = image.shape[1] - bboxes[:, [2, 0]]
        bboxes = np.column_stack([right_left[:, 0], bboxes[:, 1], right_left[:, 1], bboxes[:, 3]])
        return {"image": image[:, ::-1], "bboxes": bboxes, "labels": labels}

    assert DetectionDataset(IMAGES[:1], [TRUTH], flip)[0][1]["boxes"].tolist() == [[1, 2, 5, 6]]


def test_what_a_transform_makes_is_checked_too():
    def made(**changes):
        return DetectionDataset(IMAGES[:1], [TRUTH], lambda **given: given | changes)[0][1]

    with pytest.raises(ValueError, match="image 0: the box .*nan"):
        made(bboxes=np.full((1, 4), np.nan))
    with pytest.raises(ValueError, match="image 0: .*int64"):
        made(image=np.zeros((4, 6), np.int64))
    nothing = made(bboxes=[], labels=[])
    assert nothing["boxes"].shape == (0, 4) and nothing["labels"].dtype == torch.int64


def test_a_box_beyond_the_image_is_named_before_any_pipeline():
    def never(**_):
        raise AssertionError("the pipeline was called")

    beyond = TRUTH | {"boxes": np.array([[6, 2, 8, 6]], np.float32)}  # the image is 6 pixels wide
    with pytest.raises(ValueError, match="image 0: .*is outside the image of 4 x 6 pixels"):
        DetectionDataset(IMAGES[:1], [beyond], never)[0]
    packed = PackedImages(np.zeros((2, 6, 6), np.uint8), ["a", "c"], np.full((2, 2), 6), {})
    with pytest.raises(ValueError, match="image 'c': .*is outside the image of 6 x 6 pixels"):
        DetectionDataset(packed, [beyond], rows=[1])


def test_images_are_read_by_row_and_refused_by_name():
    packed = PackedImages(np.arange(32, dtype=np.uint8).reshape(2, 4, 4), ["a", "c"], [[4, 4]], {})
    image, _ = DetectionDataset(packed, [NORMAL], rows=[1])[0]
    assert (image[0].numpy() * 255 == packed.pixels[1]).all()
    with pytest.raises(ValueError, match="image 0: a int64 image"):
        DetectionDataset([np.array([[0, 255]])], [NORMAL])[0]
