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


def test_a_shortcut_is_shown_with_its_maps_and_the_fall_of_the_auroc():
    auroc = pd.DataFrame({"in training": [1.0, 0.9], "moved": [0.0, 0.8]}, index=["a", "control"])
    maps = {"a": MAP, "control": MAP / 2}
    figure = ch05.plot_shortcut(IMAGE, maps, auroc, title="it falls", boxes=BOX)
    assert [len(axis.images) for axis in figure.axes] == [1, 2, 2, 0]
    fall, steady = figure.axes[-1].lines[:2]
    assert fall.get_ydata().tolist() == [1, 0] and steady.get_ydata().tolist() == [0.9, 0.8]
    assert {t.get_text() for t in figure.axes[-1].texts} == {"1.00", "0.90", "0.00", "0.80"}
    for table, words in ((auroc[:0], "no rows"), (auroc.astype(str), "holds the text")):
        with pytest.raises(ValueError, match=words):
            ch05.plot_shortcut(IMAGE, maps, table, title="")


@pytest.mark.parametrize(
    ("call", "words"),
    [
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
