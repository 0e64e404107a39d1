"""Average precision: by hand, equal to COCO, equal to recomputation. Bad boxes: test_boxes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from box_cases import NAMES, matched, prediction, random_case, truth

from cxr_helpers.detection import coco
from cxr_helpers.detection import metrics as dm
from cxr_helpers.evaluation import intervals


# Nothing, too little, the wrong kind.
def test_no_detection_at_all_scores_zero():
    matches = matched([prediction()], [truth([[0, 0, 9, 9]], [1])])
    assert dm.mean_average_precision(matches) == 0


def test_no_truth_at_all_is_unknown_and_refused_where_a_number_must_come():
    matches = matched([prediction([[0, 0, 9, 9]], [1], [0.5])], [truth()])
    assert np.isnan(dm.average_precision(matches)).all()
    assert np.isnan(dm.mean_average_precision(matches))
    assert np.isnan(dm.map_difference(matches, matches))
    for images, words in ((1, "truth box"), (0, "0 images")):
        with pytest.raises(ValueError, match=words):
            intervals.bootstrap(lambda w: dm.mean_average_precision(matches, w), images, seed=0)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        *[({"iou_threshold": t}, "iou_threshold must lie between 0") for t in (np.nan, -0.1, 50)],
        ({"max_detections": 0}, "max_detections is 0"),
    ],
)
def test_options_out_of_range_are_refused(option, words):
    with pytest.raises(ValueError, match=words):
        matched([prediction()], [truth()], **option)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (np.ones((2, 3)), r"\(B, 5\)"),
        *[(np.full((1, 5), w), "finite and none negative") for w in (np.nan, -1, np.inf)],
    ],
)
def test_counts_that_are_none_are_refused(weights, words):
    with pytest.raises(ValueError, match=words):
        dm.average_precision(matched(*random_case(n=5)), weights)


def test_what_was_not_matched_is_refused():
    with pytest.raises(ValueError, match="list given; match the detections first"):
        dm.average_precision([prediction()])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": [0, 7]}, "image 7, and the truth has 2 images"),
        ({"image": [0, -1]}, "image -1"),
        ({"image": [0, np.nan]}, "image nan"),
        ({"label": [1, 0]}, r"labels \[0\] beside 4 class names"),
        ({"class_names": ("mass", "nodule")}, "truths of 4 classes .* beside 2 class names"),
        ({"hit": [True]}, r"\(1,\)"),
        ({"hit": [0.0, -1.0]}, "hit -1.0 is neither 0 nor 1"),
        ({"truths": [1, 0]}, r"truths \(2,\)"),
        ({"score": [np.nan, 0.1]}, "do not descend"),
        ({"score": [0.8, 0.9]}, "sort image, label, score, hit"),
    ],
)
def test_matches_of_one_s_own_are_checked(change, words):
    box = [[0, 0, 9, 9]]
    found = [prediction(box, [1], [score]) for score in (0.9, 0.8)]
    with pytest.raises(ValueError, match=words):
        replace(matched(found, [truth(box, [1])] * 2), **change)


def test_matches_of_one_s_own_may_be_tensors_and_hits_numbers():
    matches = matched(*random_case())
    names = ("image", "label", "score", "hit", "truths")
    own = replace(matches, **{k: torch.tensor(getattr(matches, k) * 1) for k in names})
    assert own.hit.dtype == bool and dm.map_difference(own, matches) == 0


# By hand.
def test_average_precision_by_hand():
    # Two truths. Hit at 0.9, false at 0.8, hit at 0.7: precision 1 up to recall 0.5, then 2/3.
    truths = [truth([[0, 0, 10, 10], [50, 50, 60, 60]], [1, 1])]
    boxes = [[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]]
    matches = matched([prediction(boxes, [1, 1, 1], [0.9, 0.8, 0.7])], truths)
    assert matches.hit.tolist() == [True, False, True]
    expected = (51 * 1 + 50 * 2 / 3) / 101  # recall points 0 to 0.50, and 0.51 to 1
    assert dm.mean_average_precision(matches) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("boxes", "labels", "scores", "hits"),
    [
        ([[0, 0, 10, 10], [0, 0, 10, 9]], [1, 1], [0.4, 0.8], [True, False]),  # found once
        ([[0, 0, 10, 10]], [2], [0.9], [False]),  # the right place under the wrong name
        ([[5, 5, 5, 9]], [1], [0.9], [False]),  # without area
    ],
)
def test_hits_by_hand(boxes, labels, scores, hits):
    both = truth([[0, 0, 10, 10], [5, 5, 5, 9]], [1, 1])
    matches = matched([prediction(boxes, labels, scores)], [both])
    assert matches.hit.tolist() == hits and matches.score.tolist() == sorted(scores)[::-1]
    assert matches.truths.sum() == 2


def test_absent_classes_are_named_and_not_averaged_in():
    case = [prediction([[0, 0, 9, 9]] * 2, [1, 2], [0.9, 0.8])], [truth([[0, 0, 9, 9]], [1])]
    matches = matched(*case)
    assert matches.absent == ("nodule", "heart", "hernia")
    assert dm.mean_average_precision(matches) == pytest.approx(1.0)


# Equal to the reference.
@pytest.mark.parametrize("iou", [0.4, 0.5])
def test_average_precision_equals_coco(iou):
    predictions, truths = random_case(seed=int(iou * 100))
    scores = coco.coco_scores(predictions, truths, class_names=NAMES)
    matches = matched(predictions, truths, iou_threshold=iou)
    own = dict(zip(NAMES, dm.average_precision(matches), strict=True))
    column = f"ap{100 * iou:.0f}"
    assert np.isnan(own.pop("hernia")) and scores.absent == ("hernia",)
    assert own == pytest.approx({n: s[column] for n, s in scores.per_class.items()}, abs=1e-6)
    assert dm.mean_average_precision(matches) == pytest.approx(scores.mean(column), abs=1e-6)


def test_only_the_best_hundred_detections_of_an_image_count_as_in_coco():
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0, 40, (130, 2))
    predictions = [prediction(np.hstack([boxes, boxes + 12]), np.ones(130), rng.random(130))]
    truths = [truth(np.hstack([boxes, boxes + 12])[:9], np.ones(9))]
    scores = coco.coco_scores(predictions, truths, class_names=NAMES)
    assert dm.mean_average_precision(matched(predictions, truths)) == pytest.approx(scores.mean())


@pytest.mark.parametrize("seed", range(3))
def test_a_weighting_equals_recomputation_on_the_resample(seed):
    predictions, truths = random_case(seed=seed)
    counts = np.random.default_rng(seed).multinomial(60, np.full(60, 1 / 60))
    rows = np.repeat(np.arange(60), counts)
    resample = [predictions[i] for i in rows], [truths[i] for i in rows]
    matches = matched(predictions, truths)
    weighted = dm.mean_average_precision(matches, counts[None].astype(float))[0]
    expected = coco.coco_scores(*resample, class_names=NAMES).mean()
    assert weighted == pytest.approx(expected, abs=1e-6)


def test_a_class_that_a_resample_lacks_is_left_out_of_its_mean():
    truths = [truth([[0, 0, 9, 9]], [1]), truth([[0, 0, 9, 9]], [2])]
    predictions = [prediction([[0, 0, 9, 9]], [1], [0.9]), prediction()]
    values = dm.mean_average_precision(matched(predictions, truths), np.array([[2, 0], [1, 1]]))
    assert values == pytest.approx([1.0, 0.5])


# Invariances.
def test_only_the_order_of_scores_matters_and_not_that_of_images():
    predictions, truths = random_case()
    expected = dm.average_precision(matched(predictions, truths))
    stretched = [{**p, "scores": p["scores"] ** 3 / 7} for p in predictions]
    np.testing.assert_array_equal(dm.average_precision(matched(stretched, truths)), expected)
    turned = matched(predictions[::-1], truths[::-1])
    np.testing.assert_allclose(dm.average_precision(turned), expected)


# Differences.
def test_a_detector_does_not_differ_from_itself():
    matches = matched(*random_case())
    counts = np.random.default_rng(0).multinomial(60, np.full(60, 1 / 60), 20)
    assert dm.map_difference(matches, matches) == 0
    assert (dm.map_difference(matches, matches, counts) == 0).all()


def test_pairing_narrows_the_spread_of_a_difference():
    predictions, truths = random_case(n=150, seed=4)
    worse = [{k: v[len(v) // 2 :] for k, v in p.items()} for p in predictions]
    a, b = matched(worse, truths), matched(predictions, truths)
    counts = np.random.default_rng(0).multinomial(150, np.full(150, 1 / 150), 300)
    one, two = (dm.mean_average_precision(m, counts) for m in (a, b))
    paired = dm.map_difference(a, b, counts)
    assert paired == pytest.approx(two - one) and np.quantile(paired, 0.025) > 0
    assert paired.std() < np.hypot(one.std(), two.std())


def test_detectors_on_different_images_or_thresholds_cannot_be_compared():
    predictions, truths = random_case(seed=0)
    first = matched(predictions, truths)
    with pytest.raises(ValueError, match="different truths"):
        dm.map_difference(first, matched(*random_case(seed=1)))
    with pytest.raises(ValueError, match="IoU of 0.5, the other at 0.4"):
        dm.map_difference(first, matched(predictions, truths, iou_threshold=0.4))


def test_the_mean_of_some_classes_is_the_mean_of_their_own_precision():
    matches = matched(*random_case(n=60))
    values, names = dm.average_precision(matches), matches.class_names
    some = dm.mean_average_precision(matches, classes=names[1:])
    assert some == pytest.approx(np.nanmean(values[1:]))
    assert some != pytest.approx(dm.mean_average_precision(matches))
    weights = np.random.default_rng(0).integers(0, 3, (5, 60))
    drawn = dm.mean_average_precision(matches, weights, classes=names[:1])
    np.testing.assert_allclose(drawn, dm.average_precision(matches, weights)[:, 0])
    assert dm.map_difference(matches, matches, classes=names[:1]) == 0


@pytest.mark.parametrize("classes", [[], ["no such"]])
def test_a_mean_over_no_class_is_refused(classes):
    matches = matched(*random_case(n=5))
    with pytest.raises(ValueError, match="must be one or more of"):
        dm.mean_average_precision(matches, classes=classes)
    with pytest.raises(ValueError, match=r"values \(2,\) for 1 class names"):
        dm.mean_over_classes([0.1, 0.2], ["mass"])
