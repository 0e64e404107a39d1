"""Average precision and intervals: by hand, equal to COCO, equal to recomputation."""

import numpy as np
import pytest
import torch
from box_cases import NAMES, matched, prediction, random_case, truth

from cxr_helpers import coco
from cxr_helpers import detection_metrics as dm


# Nothing, too little, the wrong shape.
def test_no_detection_at_all_scores_zero():
    matches = matched([prediction()], [truth([[0, 0, 9, 9]], [1])])
    assert dm.mean_average_precision(matches) == 0


def test_no_truth_at_all_is_unknown_and_refused_where_a_number_must_come():
    matches = matched([prediction([[0, 0, 9, 9]], [1], [0.5])], [truth()])
    assert np.isnan(dm.average_precision(matches)).all()
    assert np.isnan(dm.mean_average_precision(matches))
    with pytest.raises(ValueError, match="truth box"):
        dm.bootstrap_map(matches)


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="0 images"):
        dm.bootstrap_map(matched([], []))


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


# Intervals.
def test_an_interval_holds_its_value_and_repeats_from_its_seed():
    matches = matched(*random_case(n=100))
    one = dm.bootstrap_map(matches, resamples=300, seed=1)
    assert one.low < one.value < one.high
    assert one == dm.bootstrap_map(matches, resamples=300, seed=1, chunk=7)
    assert one.value == pytest.approx(dm.mean_average_precision(matches))


def test_more_images_give_a_narrower_interval():
    widths = []
    for n in (40, 640):
        interval = dm.bootstrap_map(matched(*random_case(n=n, seed=2)), resamples=200)
        widths.append(interval.high - interval.low)
    assert widths[1] < widths[0] / 2


def test_a_detector_does_not_differ_from_itself():
    matches = matched(*random_case())
    assert dm.bootstrap_map_difference(matches, matches, resamples=50).as_dict() == {
        "value": 0, "low": 0, "high": 0,
    }  # fmt: skip


def test_pairing_narrows_the_interval_of_a_difference():
    predictions, truths = random_case(n=150, seed=4)
    worse = [{k: v[len(v) // 2 :] for k, v in p.items()} for p in predictions]
    a, b = matched(worse, truths), matched(predictions, truths)
    paired = dm.bootstrap_map_difference(a, b, resamples=300)
    one, two = (dm.bootstrap_map(m, resamples=300) for m in (a, b))
    assert paired.value == pytest.approx(two.value - one.value)
    assert paired.low > 0
    unpaired = np.hypot(one.high - one.low, two.high - two.low)
    assert paired.high - paired.low < unpaired


def test_the_same_seed_draws_the_same_images_for_every_statistic():
    sums = dm.resampled(lambda w: w.sum(axis=1), 30, resamples=7, seed=3)
    firsts = [dm.resampled(lambda w: w[:, 0], 30, resamples=7, seed=3, chunk=c) for c in (7, 2)]
    assert sums.tolist() == [30] * 7
    assert np.array_equal(*firsts)


def test_detectors_on_different_images_cannot_be_compared():
    with pytest.raises(ValueError, match="different truths"):
        dm.bootstrap_map_difference(matched(*random_case(seed=0)), matched(*random_case(seed=1)))


@pytest.mark.parametrize("options", [{"resamples": 0}, {"confidence": 1.0}])
def test_options_that_make_no_interval_are_refused(options):
    with pytest.raises(ValueError, match="resample"):
        dm.bootstrap_map(matched(*random_case(n=5)), **options)
