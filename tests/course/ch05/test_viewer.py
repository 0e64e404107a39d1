"""The viewer of notebook 05: a new choice draws a new picture, and what there is, is listed."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from cxr_helpers.course.ch05 import explained, viewer
from cxr_helpers.course.plots import ch05
from cxr_helpers.data import vindr

matplotlib.use("Agg")
HEART, AORTA = (vindr.CLASSES.index(n) + 1 for n in ("Cardiomegaly", "Aortic enlargement"))


@pytest.fixture
def arms(detector, found_in):
    items = found_in("test")
    return {"random": (detector, items), "pretrained": (detector, items[:1])}


def test_the_viewer_draws_anew_and_lists_what_there_is(data, arms):
    view = viewer.viewer(arms, data)
    (arm, image, box, way, layer, threshold), picture = view.children[0].children, view.children[1]
    assert [label for label, _ in image.options] == ["image6", "image7"]
    assert bytes(picture.value).startswith(b"\x89PNG")
    choices = [(layer, "layer2"), (way, explained.CHANNELS), (threshold, 0.9), (image, 7)]
    for control, value in (*choices, (box, AORTA)):
        before, control.value = bytes(picture.value), value
        assert bytes(picture.value) != before
    assert len(box.options) == 2
    arm.value = "pretrained"
    assert [label for label, _ in image.options] == ["image6"] and box.value == HEART
    assert plt.get_fignums() == []


def test_a_viewer_without_findings_says_so(data, detector):
    with pytest.raises(ValueError, match="no arm"):
        viewer.viewer({"random": (detector, [])}, data)


def test_a_box_beyond_the_picture_does_not_widen_the_panel():
    figure, axis = plt.subplots()
    ch05.show_heatmap(axis, np.zeros((64, 48)), np.ones((64, 48)), found_boxes=[[20, 20, 70, 64]])
    figure.canvas.draw()
    assert axis.get_xlim() == (-0.5, 47.5) and axis.get_ylim() == (63.5, -0.5)
    plt.close(figure)
