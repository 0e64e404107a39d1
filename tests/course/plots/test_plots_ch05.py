"""Figures about heatmaps: a map lies over its own image, or it is not drawn."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from cxr_helpers.course.plots import ch05 as cam_plots

IMAGE = np.arange(48, dtype=np.uint8).reshape(6, 8)
MAP = np.linspace(0, 1, 48).reshape(6, 8)
BOX = [[1, 1, 4, 4]]
SCORES = pd.DataFrame(
    [["pointing", "ablation", 0.5, 0.4, 0.6], ["energy", "bell", 0.2, 0.3, np.nan]],
    columns=["measure", "map", "value", "low", "high"],
)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def show(image=IMAGE, heatmap=MAP, **more):
    _, axes = cam_plots.panels(1, 1)
    cam_plots.show_heatmap(axes[0, 0], image, heatmap, **more)
    return axes[0, 0]


def test_the_map_lies_over_the_image_and_the_cross_on_its_maximum():
    axis = show(truth_boxes=BOX, found_boxes=[torch.tensor(BOX[0], requires_grad=False)], level=0.5)
    below, above = axis.images
    assert below.get_extent() == above.get_extent() and below.get_clim() == (0, 255)
    assert axis.lines[0].get_xydata().tolist() == [[7, 5]]
    assert len(axis.patches) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"heatmap": np.ones((3, 4))}, r"map of shape \(3, 4\) over an image of \(6, 8\); resize"),
        ({"heatmap": MAP * 3}, r"from 0 to 3; expected \[0, 1\]"),
        ({"heatmap": MAP - 0.5}, "from -0.5"),
        ({"heatmap": MAP * np.nan}, "from nan"),
        ({"image": IMAGE.astype(int)}, "image is int64; give uint8"),
        ({"image": IMAGE.astype(float)}, "from 0.0 to 47.0; floats must"),
        ({"image": IMAGE.astype(np.uint16)}, "holds 6 bits only"),
        ({"truth_boxes": [[4, 1, 1, 4]]}, r"expected finite \(n, 4\)"),
        ({"found_boxes": [[4, 1, np.nan, 4]]}, r"expected finite \(n, 4\)"),
        ({"found_boxes": np.zeros((2, 2))}, r"expected finite \(n, 4\)"),
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


def test_a_map_that_was_not_measured_leaves_its_place_empty():
    figure = cam_plots.plot_scores(SCORES)
    assert [len(axis.containers) for axis in figure.axes] == [1, 1]
    assert {tick.get_text() for tick in figure.axes[0].get_yticklabels()} == {"ablation", "bell"}


CLASSES = SCORES.rename(columns={"map": "arm"}).assign(n=3, **{"class": ["Mass", "Edema"]})
TABLES = {
    "plot_scores": (cam_plots.plot_scores, SCORES),
    "plot_class_scores": (cam_plots.plot_class_scores, CLASSES),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_left_alone_and_what_it_lacks_is_named(name):
    plot, table = TABLES[name]
    before, settings = table.copy(), dict(plt.rcParams)
    assert plot(table).axes
    pd.testing.assert_frame_equal(table, before)
    assert dict(plt.rcParams) == settings
    for column in table:
        with pytest.raises(ValueError, match=f"no column '{column}'"):
            plot(table.drop(columns=column))
    with pytest.raises(ValueError, match="no rows"):
        plot(table[:0])
    with pytest.raises(ValueError, match="more than one row"):
        plot(pd.concat([table, table]))
    with pytest.raises(ValueError, match="column 'value' holds the text '0.5'"):
        plot(table.astype({"value": str}))


def test_pictures_and_their_maps_are_as_many():
    given = {"truth_boxes": [BOX], "found_boxes": [[]]}
    assert cam_plots.mosaic([IMAGE], [MAP], ["one"], **given).axes
    for change, words in (
        ({"maps": []}, "0 maps"),
        ({"titles": ["a", "b"]}, "2 titles"),
        ({"truth_boxes": []}, "0 truth_boxes"),
    ):
        arguments = {"images": [IMAGE], "maps": [MAP], "titles": ["one"], **given, **change}
        with pytest.raises(ValueError, match=f"1 images and {words}"):
            cam_plots.mosaic(**arguments)
    with pytest.raises(ValueError, match="no image"):
        cam_plots.mosaic([], [], [], truth_boxes=[])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: cam_plots.plot_predicted([1, 2], [1]), r"shapes \(2,\) and \(1,\)"),
        (lambda: cam_plots.plot_predicted([], []), r"expected \(C,\)"),
        (lambda: cam_plots.plot_steps(pd.DataFrame({"a": []}), ylabel=""), "no rows"),
        (lambda: cam_plots.plot_curves({}), "no curve"),
        (lambda: cam_plots.panels(0, 2), "show nothing"),
    ],
)
def test_what_shows_nothing_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_numbers_of_every_kind_are_drawn():
    assert cam_plots.plot_predicted(torch.rand(3, requires_grad=True), [0.1, np.nan, 0.3]).axes
    curve = {"deletion": {"ablation": (torch.linspace(0, 1, 3), [1, 0.5, 0.0])}}
    assert cam_plots.plot_curves(curve).axes[0].lines
    assert cam_plots.plot_steps(pd.DataFrame({"a": [1.0, np.nan]}), ylabel="").axes
