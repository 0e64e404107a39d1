"""Figures for detection: names that fit, nothing dropped in silence."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from box_cases import NAMES, prediction, truth

from cxr_helpers.course.plots import ch04

IMAGE = np.zeros((8, 8), np.uint8)
LOG = pd.DataFrame({"epoch": [0, 1], "loss": [2.0, 1.0]})


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
    ch04.show_detections(axis, IMAGE, drawn, found, NAMES)
    assert [(text.get_text(), text.get_va()) for text in axis.texts] == [
        ("heart", "top"),
        ("nodule 0.90", "bottom"),
    ]
    assert [patch.get_linestyle() for patch in axis.patches] == ["--", "-"]


def test_an_image_without_boxes_is_drawn(axis):
    ch04.show_detections(axis, IMAGE, truth(), {"boxes": [], "labels": [], "scores": []}, NAMES)
    assert axis.images and not axis.patches


@pytest.mark.parametrize("label", [0, -1, 5, 1.5, True])
def test_a_label_without_a_name_is_not_drawn_as_the_last_class(axis, label):
    odd = {"boxes": [[0, 0, 4, 4]], "labels": [label], "scores": [0.9]}
    for true, found in ((odd, prediction()), (truth(), odd)):
        with pytest.raises(ValueError, match=f"label {label} has no name; expected 1 to 4"):
            ch04.show_detections(axis, IMAGE, true, found, NAMES)


def test_as_many_boxes_as_labels_and_scores(axis):
    box = [[0, 0, 4, 4]]
    with pytest.raises(ValueError, match="1 boxes, 1 labels and 2 scores"):
        ch04.show_detections(axis, IMAGE, truth(), prediction(box, [1], [0.9, 0.8]), NAMES)
    with pytest.raises(ValueError, match="2 names for 1 boxes"):
        ch04.show_detections(axis, IMAGE, truth(box, [1, 2]), prediction(), NAMES)


def test_scores_of_other_classes_than_the_counts_are_refused():
    counts = pd.Series({"mass": 3, "nodule": 2})
    assert ch04.plot_per_class({"random": {"mass": 0.5}, "pretrained": {}}, counts).axes
    with pytest.raises(ValueError, match="'Mass', the counts such as 'mass'"):
        ch04.plot_per_class({"random": {"Mass": 0.5}}, counts)


def test_losses_and_curves_name_what_they_lack(check_of_table):
    check_of_table(lambda log: ch04.plot_losses({"random": log}), LOG)
    with pytest.raises(ValueError, match=r"'random' has shapes \(2,\) and \(1,\)"):
        ch04.plot_froc({"random": ([0.1, 1], [0.2])})
