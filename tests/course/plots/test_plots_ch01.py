"""The figures of the data exploration: what they draw, and what they refuse."""

import io

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cxr_helpers.course.plots import ch01 as data_plots
from cxr_helpers.course.plots import style as plots


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def opened(picture):
    return Image.open(io.BytesIO(picture.png))


def test_coverage_by_hand():
    boxes = np.array([[0, 0, 0.5, 1], [0, 0, 0.5, 0.5]])
    assert data_plots.coverage_map(boxes, bins=2).tolist() == [[1, 0], [0.5, 0]]


def test_coverage_agrees_with_a_loop():
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(-0.2, 1.2, size=(50, 2, 2)), axis=1)
    boxes = corners.reshape(50, 4)
    boxes = boxes[(boxes[:, :2] < 1).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)]
    slow = np.zeros((7, 7))
    for x0, y0, x1, y1 in np.clip(boxes, 0, 1) * 7:
        slow[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] += 1 / len(boxes)
    np.testing.assert_allclose(data_plots.coverage_map(boxes, bins=7), slow, atol=1e-12)


def test_coverage_of_nothing_and_of_nonsense():
    assert data_plots.coverage_map(np.zeros((0, 4)), bins=3).tolist() == [[0] * 3] * 3
    with pytest.raises(ValueError, match=r"\(N, 4\)"):
        data_plots.coverage_map(np.zeros((2, 3)))


def test_dots_are_sorted_and_leave_the_table_as_it_was():
    table = pd.DataFrame({"x": [1.0, 3.0, 2.0], "y": [2.0, 1.0, 4.0]}, index=list("abc"))
    before = table.copy()
    axis = data_plots.plot_dots(table, xlabel="share (%)").axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["a", "c", "b"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["x", "y"]
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize("log", [False, True])
def test_every_dot_lies_inside_the_axis(log):
    table = pd.DataFrame({"x": [0.2, 17.7]}, index=["rare", "frequent"])
    axis = data_plots.plot_dots(table, xlabel="share (%)", log=log).axes[0]
    low, high = axis.get_xlim()
    assert low < 0.2 and high > 17.7
    assert axis.get_legend() is None


@pytest.mark.parametrize("table", [pd.DataFrame(), pd.DataFrame(np.ones((2, 7)))])
def test_dots_refuse_what_they_cannot_draw(table):
    with pytest.raises(ValueError, match="columns"):
        data_plots.plot_dots(table, xlabel="")


def test_heatmap_names_every_line():
    table = pd.DataFrame(np.eye(3) * np.nan, index=list("abc"), columns=list("xyz")).fillna(1)
    axis = data_plots.plot_heatmap(table, label="%", xlabel="c", ylabel="r").axes[0]
    assert [text.get_text() for text in axis.get_xticklabels()] == list("xyz")
    assert [text.get_text() for text in axis.get_yticklabels()] == list("abc")


def test_histograms_share_their_bins():
    groups = {"young": [1, 2, np.nan], "old": [88]}
    axis = data_plots.plot_histograms(groups, xlabel="age (years)", bin_width=5).axes[0]
    edges = [set(np.round(line.get_xdata(), 6) % 5) for line in axis.lines]
    assert all(part == {0.0} for part in edges)


def test_spread_orders_by_median():
    values = pd.Series([1.0, 2.0, 10.0, 20.0])
    axis = data_plots.plot_spread(values, pd.Series(list("aabb")), xlabel="mm").axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["b", "a"]


def test_places_has_a_map_for_each_label():
    corners = {"x_min": [0, 1], "y_min": [0, 1], "x_max": [5, 6], "y_max": [5, 6]}
    boxes = pd.DataFrame({"label": ["b", "a"], **corners})
    figure = data_plots.plot_places(boxes, frame_xy=(10, 20))
    titles = [axis.get_title() for axis in figure.axes if axis.images]
    assert titles == ["a\nup to 100%", "b\nup to 100%"]
    assert any("cover" in child.get_ylabel() for axis in figure.axes for child in axis.child_axes)
    with pytest.raises(ValueError, match="no box"):
        data_plots.plot_places(boxes[:0], frame_xy=(10, 20))


def test_a_reference_line_is_named():
    table = pd.DataFrame({"x": [10.0, 40.0]}, index=["a", "b"])
    axis = data_plots.plot_dots(table, xlabel="%", reference=(30, "all")).axes[0]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["all"]
    assert axis.lines[-1].get_xdata() == [30, 30]


def test_steps_and_maps():
    ramp = np.linspace(0, 100, 64).reshape(8, 8)
    units = {"stored": "number", "shown": "gray"}
    figure = data_plots.plot_steps({"stored": ramp, "shown": ramp / 100}, units=units)
    assert [a.get_xlabel() for a in figure.axes if not a.images] == ["number", "gray"]
    assert [axis.get_title() for axis in figure.axes if axis.images] == ["stored", "shown"]
    figure = data_plots.plot_maps({"bone": ramp, "picture": ramp / 100}, units={"bone": "cm"})
    bars = [axis.get_xlabel() for axis in figure.axes if axis.get_xlabel()]
    assert bars == ["cm", "gray value"]


@pytest.mark.parametrize("plot", [data_plots.plot_steps, data_plots.plot_maps])
def test_nothing_to_show(plot):
    with pytest.raises(ValueError, match="no "):
        plot({}, units={})


def test_show_keeps_grays_and_closes():
    figure = plots.show_images([np.linspace(0, 1, 400).reshape(20, 20)], width=1.5)
    picture = data_plots.show(figure)
    image = opened(picture)
    assert image.mode == "L" and image.size == picture.size
    assert picture._repr_png_() == picture.png
    assert repr(picture) == "<Picture>"
    assert not plt.fignum_exists(figure.number)


def test_show_saves_bytes_and_hardly_changes_colors():
    figure = data_plots.plot_dots(pd.DataFrame({"x": range(9), "y": 4}), xlabel="share (%)")
    full = io.BytesIO()
    figure.savefig(full, format="png", bbox_inches="tight", facecolor="white")
    picture = data_plots.show(figure)
    assert len(picture.png) < 0.6 * len(full.getvalue())
    a = np.asarray(Image.open(full).convert("RGB"), dtype=int)
    b = np.asarray(opened(picture).convert("RGB"), dtype=int)
    assert a.shape == b.shape and np.abs(a - b).mean() < 1


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ([[10, 10, 200, 300]], "divide pixels by its width and height"),
        ([[0.5, 0, 0.1, 1]], "x_min <= x_max"),
        ([[0, 0, np.nan, 1]], "not finite"),
    ],
)
def test_coverage_refuses_pixels_and_what_is_no_box(boxes, words):
    with pytest.raises(ValueError, match=words):
        data_plots.coverage_map(boxes)


def test_a_box_beyond_the_image_covers_no_cell_but_counts():
    boxes = torch.tensor([[0, 0, 0.5, 1], [1.1, 0, 1.2, 0.5]], requires_grad=True)
    assert data_plots.coverage_map(boxes, bins=2).tolist() == [[0.5, 0], [0.5, 0]]
    assert data_plots.coverage_map([], bins=1).tolist() == [[0]]


@pytest.mark.parametrize(
    ("table", "log"),
    [
        (pd.DataFrame({"x": [np.nan]}), False),
        (pd.DataFrame({"x": [np.inf, 1]}), False),
        (pd.DataFrame({"x": [0.0, 1]}), True),
    ],
)
def test_dots_without_a_place_on_the_axis_are_refused(table, log):
    with pytest.raises(ValueError, match="no place on a"):
        data_plots.plot_dots(table, xlabel="", log=log)
    assert data_plots.plot_dots(pd.Series({"a": 1.0, "b": np.nan}), xlabel="").axes


def test_text_is_no_number():
    text = pd.DataFrame({"x": ["10", "9"]})
    for call in (
        lambda: data_plots.plot_dots(text, xlabel=""),
        lambda: data_plots.plot_heatmap(text, label="", xlabel="", ylabel=""),
        lambda: data_plots.plot_places(
            pd.DataFrame({"label": ["a"], **dict.fromkeys(["x_min", "y_min", "y_max"], 1)}).assign(
                x_max="9"
            ),
            frame_xy=(10, 10),
        ),
    ):
        with pytest.raises(ValueError, match="holds the text"):
            call()
    with pytest.raises(ValueError, match="no column 'x_min'"):
        data_plots.plot_places(pd.DataFrame({"label": ["a"]}), frame_xy=(10, 10))


@pytest.mark.parametrize("table", [pd.DataFrame(), pd.DataFrame({"x": [-1.0, 2]})])
def test_colors_from_zero_show_no_negative_table(table):
    with pytest.raises(ValueError, match="none of them below 0"):
        data_plots.plot_heatmap(table, label="", xlabel="", ylabel="")


def test_no_group_and_no_negative_value_is_lost_in_histograms():
    groups = {f"group {i}": [-3.0, i] for i in range(8)} | {"empty": [np.nan]}
    axis = data_plots.plot_histograms(groups, xlabel="", bin_width=2).axes[0]
    assert len(axis.get_legend().get_texts()) == 8
    assert all(line.get_xdata().min() <= -3 for line in axis.lines)
    for wrong, width in (({}, 1), ({"a": [np.nan]}, 1), ({"a": [np.inf]}, 1), ({"a": [1]}, 0)):
        with pytest.raises(ValueError, match="give finite ones, a width"):
            data_plots.plot_histograms(wrong, xlabel="", bin_width=width)


def test_spread_joins_no_values_to_groups_of_others():
    values = pd.Series([1.0, 2.0], index=["a", "b"])
    with pytest.raises(ValueError, match=r"\['a'\] and groups of \['c'\]"):
        data_plots.plot_spread(values, pd.Series(["x", "y"], index=["c", "d"]), xlabel="")
    for wrong in (values * 0, values[:0], values * np.nan):
        with pytest.raises(ValueError, match="logarithmic axis"):
            data_plots.plot_spread(wrong, pd.Series("x", index=wrong.index), xlabel="")


def test_pictures_name_what_they_lack():
    ramp = np.linspace(0, 100, 64).reshape(8, 8)
    with pytest.raises(ValueError, match="step 'stored' has no unit"):
        data_plots.plot_steps({"stored": ramp}, units={})
    with pytest.raises(ValueError, match="'bone' has no unit, so it must be a picture"):
        data_plots.plot_maps({"bone": ramp}, units={"Bone": "cm"})
    with pytest.raises(ValueError, match=r"'bone' is float64 of shape \(64,\)"):
        data_plots.plot_maps({"bone": ramp.ravel()}, units={"bone": "cm"})
    tensor = torch.from_numpy(ramp).requires_grad_()
    assert data_plots.plot_steps({"stored": tensor}, units={"stored": "number"}).axes
    with pytest.raises(ValueError, match="1 colors"):
        data_plots.show(plt.figure(), colors=1)
