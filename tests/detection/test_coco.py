"""COCO's average precision and files: equal to pycocotools, refusing what does not fit."""

import contextlib
import io
import json

import numpy as np
import pandas as pd
import pytest
import torch
from box_cases import NAMES, prediction, random_case, truth
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cxr_helpers.detection import coco


def as_truth(truths, size=400):
    ids = tuple(f"image{i:03d}" for i in range(len(truths)))
    return coco.CocoTruth(ids, np.full((len(truths), 2), size), truths, NAMES)


def moved_inside(boxes):
    """The same boxes with corners in whole hundredths, none outside the image."""
    return [one | {"boxes": np.clip(one["boxes"], 0, 400).round(2)} for one in boxes]


def pycocotools_scores(truth_file, results_file, thresholds):
    with contextlib.redirect_stdout(io.StringIO()):
        own = COCO(str(truth_file))
        found = COCOeval(own, own.loadRes(str(results_file)), "bbox")
        found.params.iouThrs = np.asarray(thresholds)
        found.evaluate()
        found.accumulate()
    precision = found.eval["precision"][..., -1]  # (threshold, recall, class, area)
    return np.where(precision > -1, precision, np.nan).mean(axis=1)


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_those_of_pycocotools_on_the_written_files(tmp_path, seed):
    predictions, truths = (moved_inside(x) for x in random_case(seed=seed))
    truth_file = coco.write_coco(tmp_path / "truth.json", as_truth(truths))
    results = coco.write_coco_results(tmp_path / "r.json", as_truth(truths).image_ids, predictions)
    theirs = pycocotools_scores(truth_file, results, coco.THRESHOLDS)
    ours = coco.coco_scores(predictions, truths, class_names=NAMES)
    for k, name in enumerate(NAMES[:3]):
        expected = [theirs[1, k, 0], theirs[0, k, 0], theirs[1:, k, 0].mean(), *theirs[1, k, 1:]]
        np.testing.assert_allclose(list(ours.per_class[name].values()), expected, atol=1e-6)
    assert ours.absent == ("hernia",)


def test_scale_moves_boxes_between_sizes_and_changes_nothing_else():
    box = truth([[0, 0, 20, 20]], [1])
    found = [prediction([[0, 0, 20, 20]], [1], [0.9])]
    small = coco.coco_scores(found, [box], class_names=NAMES).per_class["mass"]
    large = coco.coco_scores(found, [box], class_names=NAMES, scale=10).per_class["mass"]
    assert small["ap50_small"] == large["ap50_large"] == pytest.approx(1)
    assert np.isnan(small["ap50_large"]) and np.isnan(large["ap50_small"])
    assert small["ap50"] == large["ap50"]


def test_a_mean_over_no_class_is_unknown():
    found = [prediction([[0, 0, 9, 9]], [1], [0.9])]
    scores = coco.coco_scores(found, [truth([[0, 0, 9, 9]], [1])], class_names=NAMES)
    assert np.isnan(scores.mean("ap50_large")) and scores.mean() == pytest.approx(1)


@pytest.mark.parametrize(
    ("predictions", "truths", "words"),
    [
        ([prediction()], [truth()], "truth box"),
        ([prediction()], [truth([[0, 0, 9, 9]], [1])] * 2, "1 predictions for 2"),
        ([truth()], [truth([[0, 0, 9, 9]], [1])], "lacks scores"),
        ([prediction([[0, 0, 9, 9]], [1, 2], [0.5])], [truth()], "shapes"),
        ([prediction([[0, 0, 9, 9]], [5], [0.5])], [truth()], "labels .5.; expected 1 to 4"),
        ([prediction([[9, 0, 4, 9]], [1], [0.5])], [truth()], "x_min, y_min"),
        ([prediction([[0, 0, 9, np.inf]], [1], [0.5])], [truth()], "finite"),
    ],
)
def test_what_cannot_be_scored_is_refused(predictions, truths, words):
    with pytest.raises(coco.CocoError, match=words):
        coco.coco_scores(predictions, truths, class_names=NAMES)


@pytest.mark.parametrize("scale", [0, -1, np.nan, np.inf])
def test_a_scale_that_is_no_factor_is_refused(scale):
    case = [prediction([[0, 0, 9, 9]], [1], [0.9])], [truth([[0, 0, 9, 9]], [1])]
    with pytest.raises(coco.CocoError, match=f"scale is {scale}"):
        coco.coco_scores(*case, class_names=NAMES, scale=scale)


# Files.
def test_files_come_back_as_they_went(tmp_path):
    predictions, truths = (moved_inside(x) for x in random_case(n=20))
    truths.append(truth())  # a normal image
    predictions.append(prediction())
    path = coco.write_coco(tmp_path / "new" / "truth.json", as_truth(truths), suffix=".png")
    back = coco.read_coco(path, class_names=NAMES)
    assert back.image_ids == as_truth(truths).image_ids and len(back.boxes) == 21
    results = coco.write_coco_results(tmp_path / "r.json", back.image_ids, predictions)
    found = coco.read_coco_results(results, n_images=21)
    for written, read in zip(truths + predictions, back.boxes + found, strict=True):
        for key, value in written.items():
            np.testing.assert_allclose(read[key], value)
    assert [p.name for p in path.parent.iterdir()] == ["truth.json"]


def test_classes_are_matched_by_name_and_not_by_number(tmp_path):
    path = coco.write_coco(tmp_path / "truth.json", as_truth([truth([[0, 0, 9, 9]], [2])]))
    other = (NAMES[1], NAMES[0], *NAMES[2:])
    assert coco.read_coco(path, class_names=other).boxes[0]["labels"].tolist() == [1]


@pytest.mark.parametrize("names", [("mass", "Nodule", "heart", "hernia"), NAMES[:3], (*NAMES, "x")])
def test_a_class_that_differs_by_a_letter_or_is_absent_is_named(tmp_path, names):
    path = coco.write_coco(tmp_path / "truth.json", as_truth([truth([[0, 0, 9, 9]], [2])]))
    with pytest.raises(coco.CocoError, match="truth.json has other classes"):
        coco.read_coco(path, class_names=names)


@pytest.mark.parametrize("box", [[0, 0, 500, 9], [5, 5, 5, 9], [-3, 0, 9, 9], [9, 9, 4, 4]])
def test_a_box_that_is_empty_or_outside_is_not_written(tmp_path, box):
    with pytest.raises(coco.CocoError, match="image000"):
        coco.write_coco(tmp_path / "truth.json", as_truth([truth([box], [1])]))
    assert not (tmp_path / "truth.json").exists()


def test_an_image_that_occurs_twice_is_not_written(tmp_path):
    twice = coco.CocoTruth(("a", "a"), np.full((2, 2), 9), [truth(), truth()], NAMES)
    with pytest.raises(coco.CocoError, match="twice"):
        coco.write_coco(tmp_path / "truth.json", twice)


def test_names_with_dots_stay_whole_and_paths_may_be_text(tmp_path):
    ids = ("1.2.840.113619.2.1", "1.2.840.113619.2.2")
    written = coco.CocoTruth(ids, np.full((2, 2), 9), [truth(), truth()], NAMES)
    for suffix in ("", ".png", ".dcm"):
        path = coco.write_coco(str(tmp_path / "truth.json"), written, suffix=suffix)
        assert coco.read_coco(str(path), class_names=NAMES).image_ids == ids
    results = coco.write_coco_results(str(tmp_path / "r.json"), ids, [prediction()] * 2)
    assert len(coco.read_coco_results(str(results), n_images=2)) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [({"file_name": "b/image000.png"}, "the name image000,"), ({"id": 1}, "the id 1,")],
)
def test_images_that_share_a_name_or_an_id_are_not_read(tmp_path, change, words):
    path = coco.write_coco(tmp_path / "truth.json", as_truth([truth(), truth()]))
    content = json.loads(path.read_text())
    content["images"][1] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(coco.CocoError, match=f"2 images have {words}"):
        coco.read_coco(path, class_names=NAMES)


def test_a_foreign_file_written_again_can_be_scored_by_pycocotools(tmp_path):
    """The file counts from 0: only against one that write_coco wrote do the numbers fit."""
    predictions, truths = (moved_inside(x) for x in random_case())
    path = coco.write_coco(tmp_path / "foreign.json", as_truth(truths))
    content = json.loads(path.read_text())
    for entry in content["images"] + content["categories"]:
        entry["id"] -= 1
    for entry in content["annotations"]:
        entry["image_id"] -= 1
        entry["category_id"] -= 1
    path.write_text(json.dumps(content))
    read = coco.read_coco(path, class_names=NAMES)
    ours = coco.coco_scores(predictions, read.boxes, class_names=NAMES)
    again = coco.write_coco(tmp_path / "again.json", read)
    results = coco.write_coco_results(tmp_path / "r.json", read.image_ids, predictions)
    theirs = pycocotools_scores(again, results, [0.5])
    assert np.nanmean(theirs[0, :, 0]) == pytest.approx(ours.mean())


def change(content, key, **values):
    content[key][0] |= values


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: c.pop("categories"), "no COCO annotation file"),
        (lambda c: change(c, "annotations", iscrowd=1), "crowd"),
        (lambda c: change(c, "annotations", category_id=77), "names no image or class"),
        (lambda c: change(c, "annotations", image_id=77), "names no image or class"),
        (lambda c: change(c, "annotations", bbox=[390, 0, 20, 5]), "image000.*outside"),
        (lambda c: change(c, "annotations", bbox=[390, 0, 20]), "annotation 1 has bbox"),
        (lambda c: c["annotations"][0].pop("bbox"), "annotation 1 lacks bbox"),
        (lambda c: c["annotations"][0].pop("image_id"), "annotation 1 lacks image_id"),
        (lambda c: c["annotations"].append({"iscrowd": 1}), "at place 1 lacks bbox, cat"),
    ],
)
def test_a_damaged_annotation_file_is_named(tmp_path, damage, words):
    path = coco.write_coco(tmp_path / "truth.json", as_truth([truth([[0, 0, 9, 9]], [2])]))
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(coco.CocoError, match=words):
        coco.read_coco(path, class_names=NAMES)


def test_a_list_is_no_annotation_file(tmp_path):
    path = tmp_path / "truth.json"
    path.write_text("[]")
    with pytest.raises(coco.CocoError, match="truth.json.*needs images, annotations and cat"):
        coco.read_coco(path, class_names=NAMES)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_id": 0}, "has image 0; there are 1 to 3"),
        ({"category_id": 0}, "image 1 has labels .0."),
        ({"bbox": [0, 0, -5, 9]}, "image 1 has box"),
    ],
)
def test_results_that_count_from_0_or_have_turned_boxes_are_not_read(tmp_path, change, words):
    row = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}
    (tmp_path / "r.json").write_text(json.dumps([row | change]))
    with pytest.raises(coco.CocoError, match=f"r.json.*{words}"):
        coco.read_coco_results(tmp_path / "r.json", n_images=3)


def test_results_with_a_turned_box_are_not_written(tmp_path):
    turned = prediction([[9, 0, 4, 9]], [1], [0.5])
    with pytest.raises(coco.CocoError, match="image 'a' has box"):
        coco.write_coco_results(tmp_path / "r.json", ["a"], [turned])


@pytest.mark.parametrize("text", ["", "{", '{"a": 1}', '[{"image_id": 9}]'])
def test_what_is_no_results_file_is_named(tmp_path, text):
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(coco.CocoError, match="r.json"):
        coco.read_coco_results(path, n_images=3)


# What users bring.
def as_tensors(one):
    return {
        key: torch.tensor(value, requires_grad=value.dtype == float) for key, value in one.items()
    }


def test_tensors_score_and_are_written_as_arrays_are(tmp_path):
    predictions, truths = (moved_inside(x) for x in random_case(n=12))
    predictions.append(prediction())
    truths.append(truth())
    ours = coco.coco_scores(predictions, truths, class_names=NAMES)
    tensors = [list(map(as_tensors, x)) for x in (predictions, truths)]
    theirs = coco.coco_scores(*tensors, class_names=np.array(NAMES))
    pd.testing.assert_frame_equal(pd.DataFrame(theirs.per_class), pd.DataFrame(ours.per_class))
    ids = as_truth(truths).image_ids
    for kind, found, true in [("a", predictions, truths), ("t", *tensors)]:
        coco.write_coco_results(tmp_path / f"r_{kind}.json", ids, found)
        coco.write_coco(tmp_path / f"{kind}.json", as_truth(true))
    for name in ("{}.json", "r_{}.json"):
        one, other = (json.loads((tmp_path / name.format(k)).read_text()) for k in "at")
        assert one == other


@pytest.mark.parametrize("none", [[], np.zeros(0), np.zeros((0, 4)), torch.zeros((0, 4))])
def test_no_box_has_many_shapes(none):
    empty = {"boxes": none, "labels": [], "scores": torch.zeros(0)}
    true = [truth([[0, 0, 9, 9]], [1])]
    assert coco.coco_scores([empty], true, class_names=NAMES).mean() == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": np.array([True])}, "image 0: labels holds .*True"),
        ({"labels": [1.5]}, "labels .1.5.; expected 1 to 4"),
        ({"labels": ["mass"]}, "labels holds .*mass"),
        ({"boxes": [["0", "0", "9", "9"]]}, "boxes holds .*0"),
        ({"scores": [np.nan]}, "finite"),
        ({"scores": [0.9, 0.8]}, "shapes"),
        ({"labels": [], "boxes": []}, "shapes"),
    ],
)
def test_text_flags_and_halves_are_no_labels(change, words):
    one = prediction([[0, 0, 9, 9]], [1], [0.9]) | change
    with pytest.raises(coco.CocoError, match=words):
        coco.coco_scores([one], [truth([[0, 0, 9, 9]], [1])], class_names=NAMES)


@pytest.mark.parametrize("names", ["mass", ["mass", "mass"]])
def test_names_of_classes_are_different_ones(tmp_path, names):
    one = [prediction([[0, 0, 9, 9]], [1], [0.9])]
    path = coco.write_coco(tmp_path / "t.json", as_truth([truth()]))
    twice = coco.CocoTruth(("a",), [(9, 9)], [truth()], names)
    for call in (
        lambda: coco.coco_scores(one, one, class_names=names),
        lambda: coco.read_coco(path, class_names=names),
        lambda: coco.write_coco(tmp_path / "new.json", twice),
    ):
        with pytest.raises(coco.CocoError, match="list of different names"):
            call()


@pytest.mark.parametrize("suffix", ["", ".png", ".PNG"])
def test_every_id_comes_back_as_it_went_in(tmp_path, suffix):
    ids = ("00000013_000.png", "1.2.840.dcm", "p1/s1", "scan", 13, np.int64(14), np.str_("x.PNG"))
    many = coco.CocoTruth(ids, np.full((7, 2), 9), [truth()] * 7, NAMES)
    path = coco.write_coco(tmp_path / "truth.json", many, suffix=suffix)
    assert coco.read_coco(path).image_ids == ids
    files = [entry["file_name"] for entry in json.loads(path.read_text())["images"]]
    assert files[0] == "00000013_000.png" and files[3] == f"scan{suffix}"


def test_files_of_one_name_and_suffixes_without_a_dot_are_not_written(tmp_path):
    two = coco.CocoTruth(("a", "a.png"), np.full((2, 2), 9), [truth()] * 2, NAMES)
    with pytest.raises(coco.CocoError, match="2 images have the file_name a.png"):
        coco.write_coco(tmp_path / "truth.json", two, suffix=".png")
    with pytest.raises(coco.CocoError, match="write .png"):
        coco.write_coco(tmp_path / "truth.json", two, suffix="png")
    assert not (tmp_path / "truth.json").exists()


@pytest.mark.parametrize("ids", ["ab", (1.5, "b"), (None, "b"), (True, "b")])
def test_ids_are_text_or_whole_numbers(tmp_path, ids):
    two = coco.CocoTruth(ids, np.full((2, 2), 9), [truth()] * 2, NAMES)
    with pytest.raises(coco.CocoError, match="image.id"):
        coco.write_coco(tmp_path / "truth.json", two)


def test_as_many_sizes_boxes_and_predictions_as_images(tmp_path):
    short = coco.CocoTruth(("a", "b"), np.full((1, 2), 9), [truth()] * 2, NAMES)
    with pytest.raises(coco.CocoError, match="2 image_ids, 1 image_hw, 2 boxes"):
        coco.write_coco(tmp_path / "truth.json", short)
    with pytest.raises(coco.CocoError, match="1 image_ids, 2 predictions"):
        coco.write_coco_results(tmp_path / "r.json", ["a"], [prediction()] * 2)


def test_without_names_the_classes_are_those_of_the_file_by_number(tmp_path):
    path = coco.write_coco(tmp_path / "truth.json", as_truth([truth([[0, 0, 9, 9]], [2])]))
    content = json.loads(path.read_text())
    content["categories"].reverse()
    path.write_text("\ufeff" + json.dumps(content), encoding="utf-8")  # some tools' first mark
    read = coco.read_coco(path)
    assert read.class_names == NAMES and read.boxes[0]["labels"].tolist() == [2]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: change(c, "annotations", bbox=None), "annotation 1 has bbox None"),
        (lambda c: change(c, "annotations", bbox=[1, 2, None, 4]), r"bbox \[1, 2, None, 4\]"),
        (lambda c: change(c, "annotations", bbox=["1", "2", "3", "4"]), r"bbox \['1', '2'"),
        (lambda c: change(c, "annotations", bbox={"x": 1}), "bbox {'x': 1}"),
        (lambda c: change(c, "annotations", bbox=[1, 2, 3, float("nan")]), "bbox .*nan"),
        (lambda c: change(c, "annotations", iscrowd="0"), "iscrowd '0'"),
        (lambda c: change(c, "annotations", image_id=[1]), r"annotation 1 has image_id \[1\]"),
        (lambda c: change(c, "images", height=None), "image000' has a height or width of None"),
        (lambda c: change(c, "images", width="400"), "width of '400'"),
        (lambda c: change(c, "images", width=0), "width of 0"),
        (lambda c: change(c, "categories", name="nodule"), "2 classes have the name nodule"),
        (lambda c: change(c, "categories", id=2), "2 classes have the id 2"),
        (lambda c: c.update(annotations={"1": {}}), "annotations and categories, each a list"),
        (lambda c: c["images"].append("b.png"), "image at place 1 lacks id"),
    ],
)
def test_what_tools_export_wrongly_is_named_with_file_and_value(tmp_path, damage, words):
    path = coco.write_coco(tmp_path / "truth.json", as_truth([truth([[0, 0, 9, 9]], [2])]))
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(coco.CocoError, match=f"truth.json.*{words}"):
        coco.read_coco(path, class_names=NAMES)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bbox": [1, 2, 3]}, r"place 0 has bbox \[1, 2, 3\]"),
        ({"bbox": ["10", "20", "30", "40"]}, "place 0 has bbox .'10'"),
        ({"score": "0.9"}, "score '0.9'"),
        ({"score": None}, "score None"),
        ({"category_id": "1"}, "category_id '1'"),
        ({"image_id": "1"}, "has image '1'"),
        ({"image_id": 1.5}, "result at place 0 has image_id 1.5"),
    ],
)
def test_results_with_text_for_numbers_are_not_read(tmp_path, change, words):
    row = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}
    (tmp_path / "r.json").write_text(json.dumps([row | change]))
    with pytest.raises(coco.CocoError, match=f"r.json.*{words}"):
        coco.read_coco_results(tmp_path / "r.json", n_images=3)


def test_a_file_stands_until_the_new_one_does(tmp_path):
    path = coco.write_coco(tmp_path / "truth.json", as_truth([truth([[0, 0, 9, 9]], [2])]))
    before = path.read_text()
    with pytest.raises(coco.CocoError):
        coco.write_coco(path, as_truth([truth([[9, 0, 4, 9]], [1])]))
    assert path.read_text() == before and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(IsADirectoryError):
        coco.write_coco(tmp_path, as_truth([truth()]))
    assert path.read_text() == before
