"""The tables of notebook 04, on made-up boxes and a tiny detector."""

import numpy as np
import pytest
from box_cases import matched, prediction, random_case, truth
from tiny_detector import tiny_detector

from cxr_helpers.course.ch04 import tables
from cxr_helpers.detection import metrics as dm


def test_an_interval_holds_its_value_and_repeats_from_its_seed():
    matches = matched(*random_case(n=100))
    one = tables.bootstrap_map(matches, resamples=300, seed=1)
    assert one.low < one.value < one.high
    assert one == tables.bootstrap_map(matches, resamples=300, seed=1)
    assert one.value == pytest.approx(dm.mean_average_precision(matches))


def test_an_interval_of_a_difference_is_paired():
    predictions, truths = random_case(n=150, seed=4)
    worse = [{k: v[len(v) // 2 :] for k, v in p.items()} for p in predictions]
    a, b = matched(worse, truths), matched(predictions, truths)
    paired = tables.bootstrap_map_difference(a, b, resamples=300, seed=0)
    one, two = (tables.bootstrap_map(m, resamples=300, seed=0) for m in (a, b))
    assert paired.value == pytest.approx(two.value - one.value) and paired.low > 0
    assert paired.high - paired.low < np.hypot(one.high - one.low, two.high - two.low)


def test_what_any_arm_finds_counts_and_its_mean_is_over_these_alone():
    box, far = [[0, 0, 9, 9]], [[50, 50, 59, 59]]
    truths = [truth([*box, *far], [1, 2])]
    one = matched([prediction(box, [1], [0.9])], truths)
    nothing = matched([prediction()], truths)
    assert tables.findable({"a": nothing, "b": one}) == (one.class_names[0],)
    options = {"resamples": 5, "seed": 0}
    assert tables.bootstrap_map(one, **options).value == 0.5
    assert tables.bootstrap_map(one, classes=one.class_names[:1], **options).value == 1
    less = tables.bootstrap_map_difference(one, nothing, classes=one.class_names[:1], **options)
    assert less.value == -1
    with pytest.raises(ValueError, match="no arm of a finds any class"):
        tables.findable({"a": nothing})


def test_stages_shrink():
    detector = tiny_detector()
    step = tables.stages(detector, np.full((64, 64), 90, np.uint8))
    assert step.anchors > len(step.proposals) > 0
    assert step.proposals.shape[1] == 4 and set(step.found) == {"boxes", "labels", "scores"}


def test_the_gallery_by_hand():
    box = [[0, 0, 9, 9]]
    truths = [truth(box, [1]), truth([*box, [50, 50, 60, 60]], [1, 2]), truth(), truth(box, [2])]
    found = [prediction(box, [1], [0.9]), prediction(), prediction(box, [3], [0.8])]
    found.append(prediction(box, [1], [0.7]))
    assert tables.gallery_rows(matched(found, truths)) == {
        "most found": 0,
        "most missed": 1,
        "surest mistake": 3,
        "surest alarm on a normal image": 2,
    }


def test_a_gallery_shows_images_that_one_can_read():
    crowd = [[10 * k, 0, 10 * k + 9, 9] for k in range(7)]
    truths = [truth(crowd, [1] * 7), truth(crowd[:2], [1, 1])]
    found = [prediction(crowd[:3], [1] * 3, [0.9] * 3), prediction(crowd[:1], [1], [0.9])]
    shown = tables.gallery_rows(matched(found, truths))
    assert shown == {"most found": 1, "most missed": 1}
    assert tables.gallery_rows(matched(found[:1], truths[:1])) == {
        "most found": 0,
        "most missed": 0,
    }


def test_a_gallery_without_mistakes_shows_none():
    perfect = matched([prediction([[0, 0, 9, 9]], [1], [0.9])], [truth([[0, 0, 9, 9]], [1])])
    assert list(tables.gallery_rows(perfect)) == ["most found", "most missed"]
