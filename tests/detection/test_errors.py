"""The error breakdown: each kind by hand, totals that add up."""

import numpy as np
import pytest
import torch
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


@pytest.mark.parametrize("thresholds", [{"near": 0.0}, {"near": 0.6}, {"iou_threshold": 1.5}])
def test_thresholds_out_of_order_are_refused(thresholds):
    with pytest.raises(ValueError, match="near"):
        table([prediction()], [MASS], **thresholds)


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="1 predictions for 2"):
        table([prediction()], [MASS, MASS])


def test_confusion_by_hand():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]]
    found = prediction(boxes, [2, 1, 3], [0.9, 0.8, 0.7])
    both = truth([[0, 0, 10, 10], [80, 80, 90, 90]], [1, 1])
    counts = eb.confusion_matrix([found], [both], class_names=NAMES)
    expected = {("mass", "nodule"): 1, ("mass", "nothing"): 1, ("nothing", "mass"): 1}
    expected |= {("nothing", "heart"): 1}
    assert counts.stack()[lambda c: c > 0].to_dict() == expected


def test_a_detection_prefers_the_box_of_its_own_class():
    two = truth([[0, 0, 10, 10], [0, 0, 10, 9]], [1, 2])
    counts = eb.confusion_matrix(
        [prediction([[0, 0, 10, 10]], [2], [0.9])], [two], class_names=NAMES
    )
    assert counts.loc["nodule", "nodule"] == 1 and counts.loc["mass", "nothing"] == 1


def test_confusion_holds_every_box_once():
    predictions, truths = random_case(n=50, seed=5)
    counts = eb.confusion_matrix(predictions, truths, class_names=NAMES, min_score=0)
    per_class = sum(np.bincount(t["labels"], minlength=5)[1:] for t in truths)
    assert counts.sum(axis=1).to_numpy()[:-1].tolist() == per_class.tolist()


# What users bring.
def confusion(predictions, truths, **options):
    return eb.confusion_matrix(predictions, truths, class_names=NAMES, **options)


@pytest.mark.parametrize("label", [0, -1, 5, 1.5])
@pytest.mark.parametrize("ask", [table, confusion])
def test_a_label_without_a_name_is_refused_with_its_image(ask, label):
    odd = {"boxes": [[0, 0, 9, 9]], "labels": [1.0 * label], "scores": [0.9]}
    with pytest.raises(ValueError, match=f"prediction 1 has label {label:g}; 4 class names"):
        ask([prediction(), odd], [truth(), truth()])
    with pytest.raises(ValueError, match=f"truth 0 has label {label:g}; 4 class names"):
        ask([prediction()], [odd])


@pytest.mark.parametrize("label", [0, -2])
def test_one_image_s_labels_begin_at_1(label):
    with pytest.raises(ValueError, match=f"found has label {label}; classes are numbered from 1"):
        eb.judge_image(prediction([[0, 0, 9, 9]], [label], [0.9]), MASS)
    with pytest.raises(ValueError, match=f"truth has label {label}"):
        eb.judge_image(prediction(), truth([[0, 0, 9, 9]], [label]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scores": [np.nan]}, "scores holds a value that is not finite"),
        ({"boxes": [[0, 0, np.inf, 9]]}, "boxes holds a value that is not finite"),
        ({"boxes": [[9, 0, 4, 9]]}, "9.0, 0.0, 4.0, 9.0"),
        ({"boxes": [[0, 0, 9]]}, "shapes"),
        ({"scores": [0.9, 0.8]}, "shapes"),
        ({"labels": [True]}, "labels holds .*True"),
        ({"labels": ["mass"]}, "labels holds .*mass"),
        ({"boxes": [["0", "0", "9", "9"]]}, "boxes holds .*0"),
    ],
)
@pytest.mark.parametrize("ask", [table, confusion])
def test_what_cannot_be_judged_is_refused_with_its_image(ask, change, words):
    with pytest.raises(ValueError, match=f"prediction 0.*{words}"):
        ask([prediction([[0, 0, 9, 9]], [1], [0.9]) | change], [MASS])
    without = {k: v for k, v in prediction().items() if k != next(iter(change))}
    with pytest.raises(ValueError, match=f"prediction 0 lacks {next(iter(change))}"):
        ask([without], [MASS])


@pytest.mark.parametrize("ask", [table, confusion])
def test_tensors_and_lists_count_as_arrays_do(ask):
    predictions, truths = random_case(n=20, seed=4)
    predictions.append(prediction())
    truths.append(truth())
    expected = ask(predictions, truths)
    for kind in (lambda v: torch.tensor(v, requires_grad=v.dtype == float), np.ndarray.tolist):
        both = [[{k: kind(v) for k, v in one.items()} for one in x] for x in (predictions, truths)]
        assert ask(*both).equals(expected)


@pytest.mark.parametrize("names", ["mass", ["a", "a"], ["a", "nothing"]])
def test_names_are_different_ones(names):
    for ask in (eb.error_table, eb.confusion_matrix):
        with pytest.raises(ValueError, match="list of different names"):
            ask([prediction()], [truth()], class_names=names)


def test_thresholds_that_let_everything_or_nothing_through_are_refused():
    with pytest.raises(ValueError, match="iou_threshold"):
        confusion([prediction()], [MASS], iou_threshold=0.0)
    with pytest.raises(ValueError, match="min_score is NaN"):
        table([prediction()], [MASS], min_score=np.nan)
