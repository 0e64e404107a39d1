"""Figures for detection: the whole range of gray, names that fit, nothing dropped in silence."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from box_cases import NAMES, prediction, truth

from cxr_helpers.course.plots import ch04 as dp

IMAGE = np.zeros((8, 8), np.uint8)


@pytest.fixture
def axis():
    figure, axis = plt.subplots()
    yield axis
    plt.close(figure)


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535), (float, 1)])
def test_the_range_of_gray_is_that_of_the_type(axis, kind, dtype, top):
    dp.show_image(axis, kind(np.array([[0, top]], dtype)))
    assert axis.images[0].get_clim() == (0, top)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.full((8, 8), 4000, np.uint16), "uint16 image from 4000 to 4000"),
        (np.full((8, 8), 200), "int64 image"),
        (np.full((8, 8), 200.0), "float64 image from 200"),
        (np.full((8, 8), np.nan), "nan"),
        (IMAGE > 0, "bool"),
        (IMAGE[None], r"\(1, 8, 8\)"),
    ],
)
def test_an_image_that_would_be_shown_wrongly_is_refused(axis, image, words):
    with pytest.raises(ValueError, match=words):
        dp.show_image(axis, image)


def test_names_stand_at_their_boxes_and_weak_detections_are_left_out(axis):
    found = prediction([[0, 0, 4, 4], [1, 1, 5, 5]], [2, 1], [0.9, 0.1])
    for kind in (lambda v: torch.tensor(v, requires_grad=v.dtype == float), np.ndarray.tolist):
        axis.clear()
        dp.show_detections(
            axis,
            IMAGE,
            {k: kind(v) for k, v in truth([[2, 2, 6, 6]], [3]).items()},
            {k: kind(v) for k, v in found.items()},
            NAMES,
        )
        assert [text.get_text() for text in axis.texts] == ["heart", "nodule 0.90"]
        assert len(axis.patches) == 2
    axis.clear()
    dp.show_detections(axis, IMAGE, truth(), {"boxes": [], "labels": [], "scores": []}, NAMES)
    assert not axis.patches


@pytest.mark.parametrize("label", [0, -1, 5, 1.5, True])
def test_a_label_without_a_name_is_not_drawn_as_the_last_class(axis, label):
    odd = {"boxes": [[0, 0, 4, 4]], "labels": [label], "scores": [0.9]}
    for true, found in ((odd, prediction()), (truth(), odd)):
        with pytest.raises(ValueError, match=f"label {label} has no name; expected 1 to 4"):
            dp.show_detections(axis, IMAGE, true, found, NAMES)


def test_boxes_that_do_not_fit_their_names_are_refused(axis):
    with pytest.raises(ValueError, match="1 names for 2 boxes"):
        dp.draw_boxes(axis, np.zeros((2, 4)), ["mass"])
    for boxes in (np.zeros((2, 3)), [[0, 0, np.nan, 4]]):
        with pytest.raises(ValueError, match=r"expected \(n, 4\) finite"):
            dp.draw_boxes(axis, boxes)
    with pytest.raises(ValueError, match="1 boxes, 1 labels and 2 scores"):
        dp.show_detections(axis, IMAGE, truth(), prediction([[0, 0, 4, 4]], [1], [0.9, 0.8]), NAMES)


@pytest.mark.parametrize("counts", [(2, 1, 2, 2), (2, 2, 2, 1), (0, 0, 0, 0)])
def test_a_gallery_has_one_of_each_for_each_image(counts):
    images, truths, found, titles = (
        [x] * n for x, n in zip((IMAGE, truth(), prediction(), "t"), counts, strict=True)
    )
    with pytest.raises(ValueError, match=f"{counts[0]} images, {counts[1]} truths"):
        dp.gallery(images, truths, found, NAMES, titles)


def test_scores_of_other_classes_than_the_counts_are_refused():
    counts = pd.Series({"mass": 3, "nodule": 2})
    figure = dp.plot_per_class({"random": {"mass": 0.5}, "pretrained": {}}, counts)
    plt.close(figure)
    with pytest.raises(ValueError, match="'Mass', the counts such as 'mass'"):
        dp.plot_per_class({"random": {"Mass": 0.5}}, counts)
