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
        ([prediction([[0, 0, 9, 9]], [5], [0.5])], [truth()], "labels .5."),
        ([prediction([[0, 0, 9, np.inf]], [1], [0.5])], [truth()], "finite"),
    ],
)
def test_what_cannot_be_scored_is_refused(predictions, truths, words):
    with pytest.raises(coco.CocoError, match=words):
        coco.coco_scores(predictions, truths, class_names=NAMES)


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
    ],
)
def test_a_damaged_annotation_file_is_named(tmp_path, damage, words):
    path = coco.write_coco(tmp_path / "truth.json", as_truth([truth([[0, 0, 9, 9]], [2])]))
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(coco.CocoError, match=words):
        coco.read_coco(path, class_names=NAMES)


@pytest.mark.parametrize("text", ["", "{", '{"a": 1}', '[{"image_id": 9}]'])
def test_what_is_no_results_file_is_named(tmp_path, text):
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(coco.CocoError, match="r.json"):
        coco.read_coco_results(path, n_images=3)
