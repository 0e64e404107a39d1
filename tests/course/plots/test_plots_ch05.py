"""Figures about heatmaps: a map lies over its own image, or it is not drawn."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from cxr_helpers.course.plots import ch05

IMAGE = np.arange(48, dtype=np.uint8).reshape(6, 8)
MAP = np.linspace(0, 1, 48).reshape(6, 8)
BOX = [[1, 1, 4, 4]]
CLASSES = pd.DataFrame(
    [["pointing", "Mass", 3, "random", 0.5, 0.4, 0.6], ["pointing", "Mass", 7, "b", 0.2, 0.3, 0.4]],
    columns=["measure", "class", "n", "arm", "value", "low", "high"],
)


def show(image=IMAGE, heatmap=MAP, **more):
    axis = plt.figure().subplots()
    ch05.show_heatmap(axis, image, heatmap, **more)
    return axis


def test_the_map_lies_over_the_image_and_the_cross_on_its_maximum():
    axis = show(truth_boxes=BOX, found_boxes=[torch.tensor(BOX[0])], level=0.5)
    below, above = axis.images
    assert below.get_extent() == above.get_extent() and below.get_clim() == (0, 255)
    assert axis.lines[0].get_xydata().tolist() == [[7, 5]]
    assert [patch.get_linestyle() for patch in axis.patches] == ["--", "-"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"heatmap": np.ones((3, 4))}, r"map of shape \(3, 4\) over an image of \(6, 8\); resize"),
        ({"heatmap": MAP * 3}, r"from 0 to 3; expected \[0, 1\]"),
        ({"heatmap": MAP - 0.5}, "from -0.5"),
        ({"heatmap": MAP * np.nan}, "from nan"),
        ({"image": IMAGE.astype(int)}, "image is int64; give uint8"),
        ({"truth_boxes": [[4, 1, 1, 4]]}, "expected x_min, y_min"),
        ({"found_boxes": np.zeros((2, 2))}, r"expected \(n, 4\)"),
        ({"level": 0}, "level 0"),
    ],
)
def test_what_cannot_be_laid_over_an_image_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        show(**change)


def test_tensors_no_map_and_an_empty_map_are_drawn():
    axis = show(torch.from_numpy(IMAGE), torch.from_numpy(MAP).requires_grad_())
    assert len(axis.images) == 2
    assert len(show(heatmap=None).images) == 1
    assert not show(heatmap=MAP * 0, level=0.5).lines  # nothing is brightest


def test_class_scores_count_each_arm_and_keep_their_size(check_of_table):
    check_of_table(ch05.plot_class_scores, CLASSES)
    more = pd.concat([CLASSES.assign(**{"class": name}) for name in "abcdefgh"])
    few, many = ch05.plot_class_scores(CLASSES), ch05.plot_class_scores(more)
    assert few.axes[0].get_yticklabels()[0].get_text() == "Mass (3 / 7)"
    assert few.get_size_inches().tolist() == many.get_size_inches().tolist()
    with pytest.raises(ValueError, match="more than one row"):
        ch05.plot_class_scores(pd.concat([CLASSES, CLASSES]))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ch05.plot_predicted([1, 2], [1]), r"shapes \(2,\) and \(1,\)"),
        (lambda: ch05.plot_predicted([], []), "not empty"),
        (lambda: ch05.plot_randomization({"b": pd.DataFrame({"a": []})}, ylabel=""), "no rows"),
        (lambda: ch05.plot_randomization({}, ylabel=""), "no table of a randomization"),
        (lambda: ch05.plot_curves({}), "no curve"),
        (lambda: ch05.plot_curves({"deletion": {"a": ([0, 1], [1])}}), "'a' has shapes"),
    ],
)
def test_what_shows_nothing_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_numbers_of_every_kind_are_drawn():
    assert ch05.plot_predicted(torch.rand(3, requires_grad=True), [0.1, np.nan, 0.3]).axes
    curve = {"deletion": {"ablation": (torch.linspace(0, 1, 3), [1, 0.5, 0.0])}}
    assert ch05.plot_curves(curve).axes[0].lines
    alike = pd.DataFrame({"a": [1.0, np.nan]})
    assert len(ch05.plot_randomization({"b": alike, "c": alike}, ylabel="").axes) == 2


def test_a_veil_lies_where_it_is_told():
    veiled = MAP > 0.5
    axis = show(veiled=veiled)
    assert (axis.images[-1].get_alpha() > 0).tolist() == veiled.tolist()
    with pytest.raises(ValueError, match="another|resize"):
        show(veiled=veiled[:3])
