"""FROC: by hand, on resamples, with and without normal images."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from box_cases import matched, prediction, random_case, truth

from cxr_helpers.detection import froc


def test_no_detection_finds_nothing_and_no_truth_is_unknown():
    assert froc.sensitivity_at(matched([prediction()], [truth([[0, 0, 9, 9]], [1])])).max() == 0
    without = matched([prediction([[0, 0, 9, 9]], [1], [0.5])], [truth()])
    assert np.isnan(froc.sensitivity_at(without)).all()
    with pytest.raises(ValueError, match="truth box"):
        froc.froc_curve(without)


def test_weights_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"\(B, 1\)"):
        froc.sensitivity_at(matched([prediction()], [truth()]), [1.0], np.ones((2, 3)))


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


def test_hits_may_be_numbers_but_only_0_and_1():
    matches = matched(*random_case())
    as_numbers = replace(matches, hit=matches.hit.astype(int))
    np.testing.assert_array_equal(froc.sensitivity_at(as_numbers), froc.sensitivity_at(matches))
    np.testing.assert_array_equal(froc.froc_curve(as_numbers), froc.froc_curve(matches))
    for ask in (froc.sensitivity_at, froc.froc_curve):
        with pytest.raises(ValueError, match="neither 0 nor 1"):
            ask(replace(matches, hit=matches.hit - 1.0))


@pytest.mark.parametrize("ask", [froc.sensitivity_at, froc.froc_curve])
def test_scores_that_do_not_descend_are_refused(ask):
    matches = matched(*random_case())
    for score in (matches.score[::-1], np.append(matches.score[:-1], np.nan)):
        with pytest.raises(ValueError, match="sort image, score and hit"):
            ask(replace(matches, score=score))


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


ASK = (froc.sensitivity_at, froc.mean_sensitivity, froc.froc_curve)


@pytest.mark.parametrize("ask", ASK)
def test_detections_that_were_not_matched_are_refused(ask):
    with pytest.raises(ValueError, match="list has no image, score, hit, truths; match the det"):
        ask([prediction()])


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": np.array([0, 7])}, "image 7, and the truth has 2 images"),
        ({"image": np.array([0, -1])}, "image -1"),
        ({"hit": np.array([True])}, r"\(1,\)"),
        ({"truths": np.array([1, 0])}, r"truths \(2,\)"),
        ({"score": np.array([np.nan, 0.1])}, "do not descend"),
    ],
)
def test_what_does_not_meet_the_truth_is_refused(ask, change, words):
    box = [[0, 0, 9, 9]]
    both = matched(
        [prediction(box, [1], [0.9]), prediction(box, [1], [0.8])], [truth(box, [1])] * 2
    )
    with pytest.raises(ValueError, match=words):
        ask(replace(both, **change))


def test_tensors_and_one_number_are_taken():
    matches = matched(*random_case())
    names = ("image", "score", "hit", "truths")
    tensors = replace(matches, **{k: torch.tensor(getattr(matches, k)) for k in names})
    np.testing.assert_array_equal(froc.sensitivity_at(tensors), froc.sensitivity_at(matches))
    assert froc.sensitivity_at(matches, 1.0) == froc.sensitivity_at(matches, [1.0])
    for wrong in ([-1.0], [np.nan]):
        with pytest.raises(ValueError, match="false_positives"):
            froc.sensitivity_at(matches, wrong)


def test_weights_that_are_no_numbers_are_refused():
    matches = matched(*random_case())
    with pytest.raises(ValueError, match="none negative"):
        froc.sensitivity_at(matches, image_weights=np.full((1, 60), np.nan))
