"""Figures for detection: names that fit, nothing dropped in silence."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from box_cases import NAMES, prediction, truth

from cxr_helpers.course.plots import ch04
from cxr_helpers.detection.anchors import Anchors

IMAGE = np.zeros((8, 8), np.uint8)


@pytest.fixture
def axis():
    return plt.figure().subplots()


def tensor(values):
    return torch.tensor(values, requires_grad=values.dtype == float)


@pytest.mark.parametrize("kind", [tensor, np.ndarray.tolist])
def test_names_stand_at_their_boxes_and_weak_detections_are_left_out(axis, kind):
    found = prediction([[0, 0, 4, 4], [1, 1, 5, 5]], [2, 1], [0.9, 0.1])
    found = {key: kind(values) for key, values in found.items()}
    drawn = {key: kind(values) for key, values in truth([[2, 2, 6, 6]], [3]).items()}
    ch04.show_detections(axis, IMAGE, drawn, found, class_names=NAMES)
    assert [(text.get_text(), text.get_va()) for text in axis.texts] == [
        ("heart", "top"),
        ("nodule 0.90", "bottom"),
    ]
    assert [patch.get_linestyle() for patch in axis.patches] == ["--", "-"]


def test_an_image_without_boxes_is_drawn(axis):
    nothing = {"boxes": [], "labels": [], "scores": []}
    ch04.show_detections(axis, IMAGE, truth(), nothing, class_names=NAMES)
    assert axis.images and not axis.patches


def test_names_of_crowded_boxes_do_not_cover_each_other():
    figure, axis = plt.subplots(figsize=(5, 5), layout="constrained")
    boxes = [[40 + k, 40 + 2 * k, 120 + k, 110 + 2 * k] for k in range(4)]
    drawn, found = truth(boxes, [1, 2, 3, 4]), prediction(boxes, [4, 3, 2, 1], [0.9] * 4)
    ch04.show_detections(axis, np.zeros((160, 160)), drawn, found, class_names=NAMES)
    figure.draw_without_rendering()
    places = [text.get_window_extent().padded(-1) for text in axis.texts]
    assert len(places) == 8
    assert not any(a.overlaps(b) for i, a in enumerate(places) for b in places[:i])
    plt.close(figure)


def test_anchors_are_drawn_over_the_boxes_under_their_names():
    (axis,) = ch04.plot_box_shapes([[0, 0, 30, 60]], {"ours": Anchors((16,), (1.0, 4.0))}).axes
    boxes, anchors = (one.get_offsets().tolist() for one in axis.collections)
    assert boxes == [[30, 60]] and anchors == [[16, 16], [8, 32]]
    assert axis.get_legend().get_texts()[1].get_text() == "ours"


BOX = [[0, 0, 4, 4]]


@pytest.mark.parametrize(
    ("drawn", "found", "words"),
    [
        (truth(BOX, [0]), prediction(), "truth has label 0; labels are whole numbers from 1"),
        (truth(BOX, [5]), prediction(), "truth has label 5; .*4 class names allow 1 to 4"),
        (truth(), {"boxes": BOX, "labels": [1.5], "scores": [0.9]}, "detections has label 1.5"),
        (truth(), {"boxes": BOX, "labels": [True], "scores": [0.9]}, "labels holds True"),
        (truth(), prediction(BOX, [1], [0.9, 0.8]), r"'scores': \(2,\)"),
        (truth(BOX, [1, 2]), prediction(), r"'labels': \(2,\)"),
    ],
)
def test_a_box_without_one_name_is_not_drawn_under_another(axis, drawn, found, words):
    with pytest.raises(ValueError, match=words):
        ch04.show_detections(axis, IMAGE, drawn, found, class_names=NAMES)


def test_scores_of_other_classes_than_the_counts_are_refused():
    counts = pd.Series({"mass": 3, "nodule": 2})
    assert ch04.plot_per_class({"random": {"mass": 0.5}, "pretrained": {}}, counts).axes
    with pytest.raises(ValueError, match="'Mass', the counts such as 'mass'"):
        ch04.plot_per_class({"random": {"Mass": 0.5}}, counts)


def test_a_curve_says_what_it_lacks():
    with pytest.raises(ValueError, match=r"'random' has shapes \(2,\) and \(1,\)"):
        ch04.plot_froc({"random": ([0.1, 1], [0.2])})


PROBED = pd.DataFrame(
    {
        "arm": ["random", "random", "pretrained", "pretrained", "pixels alone"],
        "stage": ["layer1", "layer2", "layer1", "layer2", ""],
        "class": "macro",
        "chosen": [True, False, False, True, True],
        "value": [0.8, 0.7, 0.82, 0.85, 0.75],
        "low": 0.6,
        "high": 0.9,
    }
)


def test_the_box_probe_shows_networks_by_stage_and_pixels_as_a_level(check_of_table):
    check_of_table(ch04.plot_box_probe, PROBED)
    (axis,) = ch04.plot_box_probe(PROBED, {"random": "random weights"}).axes
    assert [text.get_text() for text in axis.get_xticklabels()] == ["layer1", "layer2"]
    legend = {text.get_text() for text in axis.get_legend().get_texts()}
    assert legend == {"pixels alone", "random weights", "pretrained"}
    rings = [line for line in axis.lines if line.get_markersize() == 12]
    assert [ring.get_ydata().tolist() for ring in rings] == [[0.8], [0.85]]


def test_the_box_probe_shows_the_mean_over_classes_alone():
    of_class = PROBED.assign(**{"class": "Nodule/Mass", "value": 0.1, "low": 0.1, "high": 0.1})
    (axis,) = ch04.plot_box_probe(pd.concat([PROBED, of_class])).axes
    assert axis.get_ylim()[0] > 0.5
    with pytest.raises(ValueError, match="no rows"):
        ch04.plot_box_probe(of_class)
    with pytest.raises(ValueError, match="more than one row"):
        ch04.plot_box_probe(pd.concat([PROBED, PROBED]))
