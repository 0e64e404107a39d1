"""COCO's average precision: equal to pycocotools on the written files. Bad boxes: test_boxes."""

import contextlib
import io
import json

import numpy as np
import pytest
from box_cases import NAMES, as_coco_truth, inside, prediction, random_case, truth
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cxr_helpers.detection import coco
from cxr_helpers.detection.coco_files import read_coco, write_coco, write_coco_results


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
    predictions, truths = (inside(x) for x in random_case(seed=seed))
    truth_file = write_coco(tmp_path / "truth.json", as_coco_truth(truths))
    ids = as_coco_truth(truths).image_ids
    results = write_coco_results(tmp_path / "r.json", ids, predictions)
    theirs = pycocotools_scores(truth_file, results, coco.THRESHOLDS)
    ours = coco.coco_scores(predictions, truths, class_names=NAMES)
    for k, name in enumerate(NAMES[:3]):
        expected = [theirs[1, k, 0], theirs[0, k, 0], theirs[1:, k, 0].mean(), *theirs[1, k, 1:]]
        np.testing.assert_allclose(list(ours.per_class[name].values()), expected, atol=1e-6)
    assert ours.absent == ("hernia",)


def test_a_foreign_file_written_again_can_be_scored_by_pycocotools(tmp_path):
    """The file counts from 0: only against one that write_coco wrote do the numbers fit."""
    predictions, truths = (inside(x) for x in random_case())
    path = write_coco(tmp_path / "foreign.json", as_coco_truth(truths))
    content = json.loads(path.read_text())
    for entry in content["images"] + content["categories"]:
        entry["id"] -= 1
    for entry in content["annotations"]:
        entry["image_id"] -= 1
        entry["category_id"] -= 1
    path.write_text(json.dumps(content))
    read = read_coco(path, class_names=NAMES)
    ours = coco.coco_scores(predictions, read.boxes, class_names=NAMES)
    again = write_coco(tmp_path / "again.json", read)
    results = write_coco_results(tmp_path / "r.json", read.image_ids, predictions)
    theirs = pycocotools_scores(again, results, [0.5])
    assert np.nanmean(theirs[0, :, 0]) == pytest.approx(ours.mean())


def test_scale_moves_boxes_between_sizes_and_changes_nothing_else():
    box = truth([[0, 0, 20, 20]], [1])
    found = [prediction([[0, 0, 20, 20]], [1], [0.9])]
    small = coco.coco_scores(found, [box], class_names=NAMES).per_class["mass"]
    large = coco.coco_scores(found, [box], class_names=NAMES, scale=10).per_class["mass"]
    assert small["ap50_small"] == large["ap50_large"] == pytest.approx(1)
    assert np.isnan(small["ap50_large"]) and np.isnan(large["ap50_small"])
    assert small["ap50"] == large["ap50"]
    for scale in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"scale is {scale}"):
            coco.coco_scores(found, [box], class_names=NAMES, scale=scale)


def test_a_mean_over_no_class_is_unknown_and_no_truth_is_refused():
    found = [prediction([[0, 0, 9, 9]], [1], [0.9])]
    scores = coco.coco_scores(found, [truth([[0, 0, 9, 9]], [1])], class_names=NAMES)
    assert np.isnan(scores.mean("ap50_large")) and scores.mean() == pytest.approx(1)
    for predictions, truths in ((found, [truth()]), ([], [])):
        with pytest.raises(ValueError, match="no image has a truth box"):
            coco.coco_scores(predictions, truths, class_names=NAMES)
