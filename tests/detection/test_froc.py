"""FROC: by hand, on resamples, with and without normal images."""

import numpy as np
import pytest
from box_cases import matched, prediction, random_case, truth

from cxr_helpers.detection import froc


def test_no_detection_finds_nothing_and_no_truth_is_unknown():
    assert froc.sensitivity_at(matched([prediction()], [truth([[0, 0, 9, 9]], [1])])).max() == 0
    without = matched([prediction([[0, 0, 9, 9]], [1], [0.5])], [truth()])
    assert np.isnan(froc.sensitivity_at(without)).all()
    with pytest.raises(ValueError, match="truth box"):
        froc.froc_curve(without)


@pytest.mark.parametrize("ask", [froc.sensitivity_at, froc.mean_sensitivity, froc.froc_curve])
def test_detections_that_were_not_matched_are_refused(ask):
    with pytest.raises(ValueError, match="list given; match the detections first"):
        ask([prediction()])


def test_weights_and_numbers_that_are_none_are_refused():
    matches = matched(*random_case())
    for weights in (np.ones((2, 3)), np.full((1, 60), np.nan)):
        with pytest.raises(ValueError, match=r"\(B, 60\), finite and none negative"):
            froc.sensitivity_at(matches, [1.0], weights)
    for wrong in ([-1.0], [np.nan]):
        with pytest.raises(ValueError, match="false_positives"):
            froc.sensitivity_at(matches, wrong)
    assert froc.sensitivity_at(matches, 1.0) == froc.sensitivity_at(matches, [1.0])


def test_sensitivity_by_hand_counts_images_without_findings():
    # Scores 0.9 hit, 0.8 false (on the normal image), 0.7 hit, 0.6 false: two images.
    truths = [truth([[0, 0, 10, 10], [50, 50, 60, 60]], [1, 1]), truth()]
    predictions = [
        prediction([[0, 0, 10, 10], [50, 50, 60, 60], [80, 0, 90, 9]], [1, 1, 1], [0.9, 0.7, 0.6]),
        prediction([[0, 0, 9, 9]], [1], [0.8]),
    ]
    matches = matched(predictions, truths)
    assert froc.sensitivity_at(matches, [0.25, 0.5, 1, 8]).tolist() == [0.5, 1, 1, 1]
    x, y = froc.froc_curve(matches)
    assert x.tolist() == [0, 0, 0.5, 0.5, 1] and y.tolist() == [0, 0.5, 0.5, 1, 1]


def test_equal_scores_are_taken_together():
    # One threshold lets in both, so the hit cannot be had without the false positive.
    predictions = [prediction([[0, 0, 9, 9], [50, 50, 60, 60]], [1, 1], [0.5, 0.5])]
    matches = matched(predictions, [truth([[0, 0, 9, 9]], [1])])
    assert froc.sensitivity_at(matches, [0.5, 1.0]).tolist() == [0, 1]


def test_a_resample_equals_recomputation_on_it():
    predictions, truths = random_case(seed=1)
    counts = np.random.default_rng(1).multinomial(60, np.full(60, 1 / 60))
    rows = np.repeat(np.arange(60), counts)
    drawn = matched([predictions[i] for i in rows], [truths[i] for i in rows])
    weighted = froc.sensitivity_at(matched(predictions, truths), image_weights=counts[None])
    assert weighted[0] == pytest.approx(froc.sensitivity_at(drawn))
    mean = froc.mean_sensitivity(matched(predictions, truths), counts[None])
    assert mean[0] == pytest.approx(froc.mean_sensitivity(drawn))


def test_a_normal_image_without_detections_allows_more_false_alarms():
    predictions, truths = random_case(seed=2)
    alone = matched(predictions, truths)
    joined = matched(predictions + [prediction()] * 60, truths + [truth()] * 60)
    assert froc.sensitivity_at(joined, [1.0]) == froc.sensitivity_at(alone, [2.0])
