"""COCO's average precision and files: equal to pycocotools, refusing what does not fit."""

import contextlib
import io
import json

import numpy as np
import pytest
from box_cases import NAMES, prediction, random_case, truth
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cxr_helpers import coco


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
