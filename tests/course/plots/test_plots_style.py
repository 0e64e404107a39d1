"""What all figures share: images from black to white, boxes, dots, and intervals of every kind."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from cxr_helpers.course.plots import style

GRAY = np.arange(100, dtype=np.uint8).reshape(10, 10)
BOX = pd.DataFrame([["Mass", 1, 1, 3, 3]], columns=["label", "x_min", "y_min", "x_max", "y_max"])
TABLE = pd.DataFrame({"name": ["a"], "value": [0.6], "low": [0.5], "high": [0.8]})
SCORES = pd.DataFrame(
    [["pointing", "ablation", 0.5, 0.4, 0.6], ["energy", "bell", 0.2, 0.3, np.nan]],
    columns=["measure", "map", "value", "low", "high"],
)
SITES = pd.DataFrame(
    [(label, site, 0.7, 0.6, 0.9) for site in ("here", "there") for label in ("Mass", "Edema")],
    columns=["label", "site", "value", "low", "high"],
)


def ticks(axis):
    return [text.get_text() for text in axis.get_yticklabels()]


def legend(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def test_an_arm_looks_the_same_everywhere_and_others_differ_by_place():
    assert style.look("random") == style.look("random", 3)
    looks = [style.look("unknown", place) for place in range(5)]
    for part in ("color", "marker", "linestyle"):
        assert len({one[part] for one in looks}) == 5


@pytest.mark.parametrize(
    ("image", "white"),
    [
        (GRAY, 255),
        (torch.from_numpy(GRAY), 255),
        (GRAY.astype(np.uint16) * 600, 65535),
        (torch.full((4, 4), 65535, dtype=torch.uint16), 65535),
        (torch.from_numpy(GRAY / 255).requires_grad_(), 1),
        ((GRAY / 255).tolist(), 1),
        ((GRAY / 255).astype(np.float16), 1),
    ],
    ids=["uint8", "tensor", "uint16", "uint16 tensor", "with gradient", "list", "float16"],
)
def test_images_of_each_kind_are_drawn_from_black_to_white(image, white):
    shown = style.show_images([image]).axes[0].images[0]
    assert shown.get_clim() == (0, white) and np.max(shown.get_array()) > 0.3 * white


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (GRAY.astype(int), "image 1 is int64; give uint8"),
        (GRAY > 1, "image 1 is bool"),
        (GRAY.astype(float), r"image 1 has values from 0.0 to 99.0; floats must lie in \[0, 1\]"),
        (np.full((2, 2), np.nan), "values from nan"),
        (GRAY.astype(np.uint16), "uint16 up to 99, so it holds 7 bits only"),
        (np.zeros((4, 4, 3)), r"expected gray \(H, W\)"),
        (np.zeros((0, 4)), r"expected gray \(H, W\)"),
    ],
)
def test_what_is_no_gray_image_is_not_drawn(image, words):
    with pytest.raises(ValueError, match=words):
        style.show_images([GRAY, image])
    with pytest.raises(ValueError, match=words.replace("image 1", "image 'seen'")):
        style.show_image(plt.figure().subplots(), image, "seen")


def test_titles_and_boxes_are_as_many_as_images():
    for more in ({"titles": ["a", "b"]}, {"boxes": []}):
        with pytest.raises(ValueError, match="1 images and . (titles|boxes)"):
            style.show_images([GRAY], **more)
    with pytest.raises(ValueError, match="no image"):
        style.show_images([])
    with pytest.raises(ValueError, match="show nothing"):
        style.panels(0, 2)


@pytest.mark.parametrize(
    ("boxes", "count"),
    [
        (BOX, 1),
        (BOX[:0], 0),
        ([], 0),
        (np.array([1, 1, 4, 4]), 1),
        ([torch.tensor([1.0, 1, 4, 4], requires_grad=True)] * 2, 2),
    ],
)
def test_boxes_of_a_table_an_array_or_tensors(boxes, count):
    axis = style.show_images([GRAY], boxes=[boxes]).axes[0]
    assert len(axis.patches) == count
    assert [text.get_text() for text in axis.texts] == ["Mass"] * (boxes is BOX)


def test_boxes_side_by_side_share_a_name_and_colors_follow_the_alphabet():
    boxes = [[10, 9, 40, 40], [11, 9, 40, 40], [70, 1, 80, 20], [10, 60, 40, 80]]
    axis = style.show_images([np.zeros((90, 90))]).axes[0]
    style.draw_boxes(axis, boxes, ["b", "b", "a", "b"])
    assert [(text.get_text(), text.get_ha()) for text in axis.texts] == [
        ("a", "right"),
        ("b", "left"),
        ("b", "left"),
    ]
    assert [plt.matplotlib.colors.to_hex(p.get_edgecolor()).upper() for p in axis.patches] == [
        style.COLORS[place] for place in (0, 1, 1, 1)
    ]


def test_a_name_goes_to_the_other_side_where_another_stands():
    axis = style.show_images([np.zeros((90, 90))]).axes[0]
    style.draw_boxes(axis, [[10, 20, 40, 40], [12, 21, 40, 50], [12, 60, 40, 70]], ["a", "b", "c"])
    assert [text.get_position()[1] for text in axis.texts] == [20, 50, 60]


@pytest.mark.parametrize(
    ("boxes", "names", "words"),
    [
        (BOX.drop(columns="y_max"), [], "no column 'y_max'"),
        (BOX.drop(columns="label"), [], "no column 'label'"),
        (BOX.assign(x_max=0), [], "expected x_min, y_min"),
        (BOX.assign(x_max=np.nan), [], "finite"),
        (BOX.assign(x_max="9"), [], "text '9'"),
        ([[0, 0, np.nan, 4]], [], "finite"),
        (np.zeros((2, 3)), [], r"expected \(n, 4\)"),
        (np.zeros((2, 4)), ["mass"], "1 names for 2 boxes"),
    ],
)
def test_what_is_no_box_or_has_no_name_is_not_drawn(boxes, names, words):
    with pytest.raises(ValueError, match=words):
        style.draw_boxes(plt.figure().subplots(), boxes, names)


def test_dots_are_sorted_and_leave_the_table_as_it_was():
    table = pd.DataFrame({"x": [1.0, 3.0, 2.0], "y": [2.0, 1.0, 4.0]}, index=list("abc"))
    before = table.copy()
    axis = style.plot_dots(table, xlabel="share (%)").axes[0]
    assert ticks(axis) == ["a", "c", "b"] and legend(axis) == ["x", "y"]
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize("log", [False, True])
def test_every_dot_lies_inside_the_axis(log):
    table = pd.Series([0.2, 17.7], index=["rare", "frequent"])
    axis = style.plot_dots(table, xlabel="share (%)", log=log).axes[0]
    low, high = axis.get_xlim()
    assert low < 0.2 and high > 17.7
    assert axis.get_legend() is None


def test_a_reference_line_is_named():
    table = pd.DataFrame({"x": [10.0, np.nan]}, index=["a", "b"])
    axis = style.plot_dots(table, xlabel="%", reference=(30, "all")).axes[0]
    assert legend(axis) == ["all"] and axis.lines[-1].get_xdata() == [30, 30]


@pytest.mark.parametrize(
    ("table", "log", "words"),
    [
        (pd.DataFrame(), False, "columns"),
        (pd.DataFrame(np.ones((2, 8))), False, "columns"),
        (pd.DataFrame({"x": [np.nan]}), False, "no place on an axis"),
        (pd.DataFrame({"x": [np.inf, 1]}), False, "no place on an axis"),
        (pd.DataFrame({"x": [0.0, 1]}), True, "no place on a log"),
        (pd.DataFrame({"x": ["10", "9"]}), False, "holds the text '10'"),
    ],
)
def test_dots_refuse_what_they_cannot_draw(table, log, words):
    with pytest.raises(ValueError, match=words):
        style.plot_dots(table, xlabel="", log=log)


@pytest.mark.parametrize(
    ("table", "options"),
    [
        (TABLE, {}),
        (SITES, {"rows": "label", "groups": "site"}),
        (SCORES, {"rows": "map", "groups": "map", "panels": "measure"}),
    ],
)
def test_estimates_name_what_their_table_lacks_or_holds_twice(table, options, check_of_table):
    check_of_table(lambda t: style.plot_estimates(t, **options), table)
    with pytest.raises(ValueError, match="more than one row"):
        style.plot_estimates(pd.concat([table, table]), **options)


def test_an_interval_that_does_not_hold_its_value_is_drawn():
    axis = style.plot_estimates(TABLE.assign(low=0.7), xlabel="AUROC", zero=None).axes[0]
    ends = axis.collections[0].get_segments()[0][:, 0]
    assert ends == pytest.approx([0.6, 0.8])
    assert not [line for line in axis.lines if line.get_linestyle() == "-"]  # no line of no effect


def test_groups_stand_side_by_side_in_the_order_given():
    axis = style.plot_estimates(SITES, rows="label", groups="site", xlabel="AUROC").axes[0]
    assert ticks(axis) == ["Edema", "Mass"] and legend(axis) == ["here", "there"]
    here, there = (c[0].get_ydata() for c in axis.containers)
    assert (here > there).all() and (np.abs(here - there) < 0.5).all()


def test_what_was_not_measured_leaves_its_place_empty():
    figure = style.plot_estimates(SCORES, rows="map", groups="map", panels="measure")
    drawn = [[c for c in axis.containers if len(c[0].get_xdata())] for axis in figure.axes]
    assert [len(containers) for containers in drawn] == [1, 1]
    assert [axis.get_xlabel() for axis in figure.axes] == ["pointing", "energy"]
    assert ticks(figure.axes[0]) == ["bell", "ablation"]
