"""Average precision: by hand, equal to COCO, equal to recomputation."""

import numpy as np
import pytest
import torch
from box_cases import NAMES, matched, prediction, random_case, truth

from cxr_helpers.detection import coco
from cxr_helpers.detection import metrics as dm
from cxr_helpers.evaluation import intervals


# Nothing, too little, the wrong shape.
def test_no_detection_at_all_scores_zero():
    matches = matched([prediction()], [truth([[0, 0, 9, 9]], [1])])
    assert dm.mean_average_precision(matches) == 0


def test_no_truth_at_all_is_unknown_and_refused_where_a_number_must_come():
    matches = matched([prediction([[0, 0, 9, 9]], [1], [0.5])], [truth()])
    assert np.isnan(dm.average_precision(matches)).all()
    assert np.isnan(dm.mean_average_precision(matches))
    assert np.isnan(dm.map_difference(matches, matches))
    with pytest.raises(ValueError, match="truth box"):
        intervals.bootstrap(lambda w: dm.mean_average_precision(matches, w), 1)


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="0 images"):
        intervals.bootstrap(lambda w: dm.mean_average_precision(matched([], []), w), 0)


@pytest.mark.parametrize(
    ("predictions", "truths", "words"),
    [
        ([prediction()], [], "1 predictions for 0 truths"),
        ([truth()], [truth()], "lacks scores"),
        ([prediction([[0, 0, 1, 1]], [1, 2], [0.5])], [truth()], "shapes"),
        ([prediction([[0, 0, 1, 1]], [1], [[0.5]])], [truth()], r"'scores': \(1, 1\)"),
        ([prediction([[0, 0, 1, 1]], [[1]], [0.5])], [truth()], r"'labels': \(1, 1\)"),
        ([prediction([[0, 0, 1, 1]], [5], [0.5])], [truth()], "label 5"),
        ([prediction([[0, 0, 1, 1]], [0], [0.5])], [truth()], "label 0"),
        ([prediction([[0, 0, 1, np.nan]], [1], [0.5])], [truth()], "finite"),
        ([prediction()], [truth([[0, 9, 4, 3]], [1])], "x_min, y_min"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(predictions, truths, words):
    with pytest.raises(ValueError, match=words):
        matched(predictions, truths)


@pytest.mark.parametrize("threshold", [np.nan, -0.1, 50])
def test_a_threshold_that_is_no_iou_is_refused(threshold):
    with pytest.raises(ValueError, match="iou_threshold must lie between 0 and 1"):
        matched([prediction()], [truth()], iou_threshold=threshold)


@pytest.mark.parametrize("shape", [(4,), (4, 6), (2, 6), (1, 1, 4)])
def test_boxes_of_another_shape_have_no_iou(shape):
    with pytest.raises(ValueError, match="expected .n, 4"):
        dm.box_iou(np.ones(shape), np.zeros((0, 4)))


def test_weights_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"\(B, 1\)"):
        dm.average_precision(matched([prediction()], [truth()]), np.ones((2, 3)))


# By hand.
def test_iou_by_hand_and_without_area():
    assert dm.box_iou([[0, 0, 2, 2]], [[1, 0, 3, 2]])[0, 0] == pytest.approx(1 / 3)
    assert dm.box_iou([[1, 1, 1, 1]], [[1, 1, 1, 1]])[0, 0] == 0
    assert dm.box_iou(np.zeros((0, 4)), [[0, 0, 1, 1]]).shape == (0, 1)
    assert dm.box_iou([[0, 0, 1, 1]], []).shape == (1, 0)
    odd = [[0, 0, np.nan, 9], [9, 0, 0, 9], [9, 9, 0, 0]]
    assert not dm.box_iou(odd, [[0, 0, 9, 9], *odd]).any()


def test_average_precision_by_hand():
    # Two truths. Hit at 0.9, false at 0.8, hit at 0.7: precision 1 up to recall 0.5, then 2/3.
    truths = [truth([[0, 0, 10, 10], [50, 50, 60, 60]], [1, 1])]
    boxes = [[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]]
    matches = matched([prediction(boxes, [1, 1, 1], [0.9, 0.8, 0.7])], truths)
    assert matches.hit.tolist() == [True, False, True]
    expected = (51 * 1 + 50 * 2 / 3) / 101  # recall points 0 to 0.50, and 0.51 to 1
    assert dm.mean_average_precision(matches) == pytest.approx(expected)


def test_a_truth_box_is_found_once():
    matches = matched(
        [prediction([[0, 0, 10, 10], [0, 0, 10, 9]], [1, 1], [0.4, 0.8])],
        [truth([[0, 0, 10, 10]], [1])],
    )
    assert matches.hit.tolist() == [True, False] and matches.score.tolist() == [0.8, 0.4]


def test_the_right_place_under_the_wrong_name_is_a_miss():
    matches = matched([prediction([[0, 0, 9, 9]], [2], [0.9])], [truth([[0, 0, 9, 9]], [1])])
    assert not matches.hit.any()


def test_absent_classes_are_named_and_not_averaged_in():
    case = [prediction([[0, 0, 9, 9]] * 2, [1, 2], [0.9, 0.8])], [truth([[0, 0, 9, 9]], [1])]
    matches = matched(*case)
    assert matches.absent == ("nodule", "heart", "hernia")
    assert dm.mean_average_precision(matches) == pytest.approx(1.0)


def test_a_box_without_area_counts_and_is_never_found():
    matches = matched(
        [prediction([[5, 5, 5, 9]], [1], [0.9])],
        [truth([[5, 5, 5, 9], [0, 0, 3, 3]], [1, 1])],
    )
    assert matches.truths.sum() == 2 and not matches.hit.any()


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


def test_tensors_and_arrays_give_the_same():
    predictions, truths = random_case(n=10)
    as_tensors = [
        [{k: torch.as_tensor(v) for k, v in one.items()} for one in boxes]
        for boxes in (predictions, truths)
    ]
    a, b = matched(predictions, truths), matched(*as_tensors)
    assert np.array_equal(a.hit, b.hit) and np.array_equal(a.truths, b.truths)


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
def test_only_the_order_of_scores_matters():
    predictions, truths = random_case()
    stretched = [{**p, "scores": p["scores"] ** 3 / 7} for p in predictions]
    a, b = matched(predictions, truths), matched(stretched, truths)
    np.testing.assert_array_equal(dm.average_precision(a), dm.average_precision(b))


def test_the_order_of_images_does_not_matter():
    predictions, truths = random_case()
    a = matched(predictions, truths)
    b = matched(predictions[::-1], truths[::-1])
    np.testing.assert_allclose(dm.average_precision(a), dm.average_precision(b))


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


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1.7], "label 1.7; labels are whole numbers"),
        (["mass"], "labels are <U4; give numbers"),
    ],
)
def test_labels_that_are_no_numbers_of_a_class_are_refused(labels, message):
    boxes = {"boxes": [[0, 0, 9, 9]], "labels": labels, "scores": [0.5]}
    with pytest.raises(ValueError, match=message):
        matched([boxes], [truth([[0, 0, 9, 9]], [1])])


def test_lists_and_whole_floats_are_labels_too():
    boxes = {"boxes": [[0, 0, 9, 9]], "labels": [1.0], "scores": [0.5]}
    assert dm.mean_average_precision(matched([boxes], [truth([[0, 0, 9, 9]], [1])])) == 1


@pytest.mark.parametrize("weight", [np.nan, -1.0])
def test_counts_that_are_none_are_refused(weight):
    with pytest.raises(ValueError, match="none negative"):
        dm.mean_average_precision(matched(*random_case(n=5)), np.full((1, 5), weight))


# What users bring.
def test_tensors_that_need_gradients_count_as_arrays_do():
    one = prediction([[0, 0, 9, 9]], [1], [0.9])
    tensors = {k: torch.tensor(v, requires_grad=v.dtype == float) for k, v in one.items()}
    assert dm.mean_average_precision(matched([tensors], [tensors])) == pytest.approx(1)
    assert dm.box_iou(tensors["boxes"], one["boxes"]).tolist() == [[1]]


@pytest.mark.parametrize("names", ["mass", ["mass", "mass"]])
def test_names_of_classes_are_different_ones(names):
    with pytest.raises(ValueError, match="list of different names"):
        dm.match_detections([prediction()], [truth()], class_names=names)


def test_flags_are_no_labels_and_text_is_no_box():
    with pytest.raises(ValueError, match="prediction 0: labels are bool"):
        matched([prediction([[0, 0, 9, 9]], [1], [0.9]) | {"labels": [True]}], [truth()])
    with pytest.raises(ValueError, match="boxes of <U1"):
        dm.box_iou([["0", "0", "9", "9"]], [[0, 0, 9, 9]])


def test_what_was_not_matched_and_weights_without_end_are_refused():
    with pytest.raises(ValueError, match="list given; match the detections first"):
        dm.average_precision([prediction()])
    with pytest.raises(ValueError, match="finite and none negative"):
        dm.average_precision(matched([prediction()], [truth()]), np.full((1, 1), np.inf))
    with pytest.raises(ValueError, match="max_detections is 0"):
        matched([prediction()], [truth()], max_detections=0)
