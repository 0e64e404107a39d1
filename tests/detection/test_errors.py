"""The error breakdown: each kind by hand, totals that add up. Bad boxes: test_boxes."""

import numpy as np
import pytest
from box_cases import NAMES, matched, prediction, random_case, truth

from cxr_helpers.detection import errors as eb

MASS = truth([[0, 0, 10, 10]], [1])


def table(predictions, truths, **options):
    return eb.error_table(predictions, truths, class_names=NAMES, **options)


def test_nothing_found_is_missed_and_nothing_there_is_background():
    counts = table([prediction(), prediction([[0, 0, 9, 9]], [2], [0.5])], [MASS, truth()])
    assert counts.loc["mass"].to_dict() | {} == {"truth": 1, "missed": 1} | dict.fromkeys(
        eb.VERDICTS, 0
    )
    assert counts.loc["nodule", eb.BACKGROUND] == 1 and counts["truth"].sum() == 1


@pytest.mark.parametrize(
    ("box", "label", "verdict"),
    [
        ([0, 0, 10, 9], 1, eb.HIT),
        ([0, 0, 10, 9], 2, eb.WRONG_CLASS),
        ([0, 5, 10, 15], 1, eb.BADLY_PLACED),  # IoU 1/3
        ([0, 5, 10, 15], 2, eb.BACKGROUND),
        ([0, 9, 10, 19], 1, eb.BACKGROUND),  # IoU 1/19
    ],
)
def test_each_verdict(box, label, verdict):
    found = prediction([box], [label], [0.9])
    assert eb.judge_image(found, MASS)[0] == [verdict]


def test_the_better_of_two_is_the_hit_whatever_their_order():
    found = prediction([[0, 0, 10, 9], [0, 0, 10, 10]], [1, 1], [0.4, 0.8])
    verdicts, taken = eb.judge_image(found, MASS)
    assert verdicts == [eb.DUPLICATE, eb.HIT] and taken.tolist() == [True]


def test_hits_are_those_of_average_precision_and_totals_add_up():
    predictions, truths = random_case(n=80, seed=3)
    counts = table(predictions, truths, min_score=0.0)
    matches = matched(predictions, truths)
    assert counts["hit"].to_list() == [
        int(matches.hit[matches.label == k + 1].sum()) for k in range(len(NAMES))
    ]
    assert (counts["hit"] + counts["missed"] == counts["truth"]).all()
    assert counts[list(eb.VERDICTS)].to_numpy().sum() == len(matches.score)


def test_weak_detections_are_not_judged():
    found = prediction([[0, 0, 10, 10]], [1], [0.29])
    assert table([found], [MASS]).loc["mass", ["missed", "hit"]].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("ask", "option", "words"),
    [
        (eb.error_table, {"near": 0.0}, "near"),
        (eb.error_table, {"near": 0.6}, "near"),
        (eb.error_table, {"iou_threshold": 1.5}, "near"),
        (eb.error_table, {"min_score": np.nan}, "min_score is NaN"),
    ],
)
def test_what_lets_everything_or_nothing_through_is_refused(ask, option, words):
    with pytest.raises(ValueError, match=words):
        ask([prediction()], [MASS], **{"class_names": NAMES, **option})
