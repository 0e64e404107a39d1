"""The figures of the data exploration: what they draw, and what they refuse."""

import numpy as np
import pandas as pd
import pytest
import torch

from cxr_helpers.course.plots import ch01

GRAY = np.arange(100, dtype=np.uint8).reshape(1, 10, 10)
CORNERS = {"x_min": [0, 1], "y_min": [0, 1], "x_max": [5, 6], "y_max": [5, 6]}
BOXES = pd.DataFrame({"label": ["b", "a"], **CORNERS})


def texts(items):
    return [text.get_text() for text in items]


def test_coverage_agrees_with_a_loop():
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(-0.2, 1.2, size=(50, 2, 2)), axis=1)
    boxes = corners.reshape(50, 4)
    boxes = boxes[(boxes[:, :2] < 1).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)]
    slow = np.zeros((7, 7))
    for x0, y0, x1, y1 in np.clip(boxes, 0, 1) * 7:
        slow[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] += 1 / len(boxes)
    np.testing.assert_allclose(ch01.coverage_map(boxes, bins=7), slow, atol=1e-12)


def test_a_box_beyond_the_image_covers_no_cell_but_counts():
    boxes = torch.tensor([[0, 0, 0.5, 1], [1.1, 0, 1.2, 0.5]], requires_grad=True)
    assert ch01.coverage_map(boxes, bins=2).tolist() == [[0.5, 0], [0.5, 0]]
    assert ch01.coverage_map([], bins=1).tolist() == [[0]]
    assert ch01.coverage_map(np.zeros((0, 4)), bins=2).tolist() == [[0, 0]] * 2


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        (np.zeros((2, 3)), r"\(n, 4\)"),
        ([[10, 10, 200, 300]], "divide pixels by its width and height"),
        ([[0.5, 0, 0.1, 1]], "expected x_min, y_min"),
        ([[0, 0, np.nan, 1]], "finite"),
    ],
)
def test_coverage_refuses_pixels_and_what_is_no_box(boxes, words):
    with pytest.raises(ValueError, match=words):
        ch01.coverage_map(boxes)


def test_places_has_a_map_for_each_label():
    figure = ch01.plot_places(BOXES, frame_xy=(10, 20))
    titles = [axis.get_title() for axis in figure.axes if axis.images]
    assert titles == ["a\nup to 100%", "b\nup to 100%"]
    assert any("cover" in child.get_ylabel() for axis in figure.axes for child in axis.child_axes)


def test_heatmap_names_every_line():
    table = pd.DataFrame(np.ones((3, 3)), index=list("abc"), columns=list("xyz"))
    axis = ch01.plot_heatmap(table, label="%", xlabel="c", ylabel="r").axes[0]
    assert texts(axis.get_xticklabels()) == list("xyz")
    assert texts(axis.get_yticklabels()) == list("abc")
    assert not axis.texts
    table.loc["a", "x"] = np.nan
    axis = ch01.plot_heatmap(41.6 * table, label="%", xlabel="c", ylabel="r", numbers=True).axes[0]
    assert texts(axis.texts) == ["42"] * 8


def test_spread_orders_by_median_and_joins_no_values_to_groups_of_others():
    values = pd.Series([1.0, 2.0, 10.0, 20.0])
    axis = ch01.plot_spread(values, pd.Series(list("aabb")), xlabel="mm").axes[0]
    assert texts(axis.get_yticklabels()) == ["b", "a"]
    spread = {"xlabel": "mm", "reference": (3.0, "limit")}
    axis = ch01.plot_spread(values, pd.Series(list("aabb")), **spread).axes[0]
    assert texts(axis.get_legend().get_texts()) == ["limit"]
    with pytest.raises(ValueError, match=r"\[0\] and groups of \[7\]"):
        ch01.plot_spread(values, pd.Series(list("aabb"), index=[7, 8, 9, 10]), xlabel="")
    for wrong in (values * 0, values[:0], values * np.nan):
        with pytest.raises(ValueError, match="logarithmic axis"):
            ch01.plot_spread(wrong, pd.Series("x", index=wrong.index), xlabel="")


def test_each_site_has_its_line_however_many_there_are():
    sites = {f"site {i}": torch.from_numpy(GRAY) for i in range(8)}
    axis = ch01.plot_gray_values(sites).axes[0]
    assert texts(axis.get_legend().get_texts()) == list(sites)


def heatmap(table):
    return ch01.plot_heatmap(table, label="", xlabel="", ylabel="")


def places(table):
    return ch01.plot_places(table, frame_xy=(10, 10))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: heatmap(pd.DataFrame()), "none of them below 0"),
        (lambda: heatmap(pd.DataFrame({"x": [-1.0, 2]})), "none of them below 0"),
        (lambda: heatmap(pd.DataFrame({"x": ["10", "9"]})), "holds the text"),
        (lambda: places(BOXES[:0]), "no box"),
        (lambda: places(BOXES.assign(x_max="9")), "holds the text"),
        (lambda: places(BOXES[["label"]]), "no column 'x_min'"),
        (lambda: places(BOXES.assign(x_max=900)), "divide pixels"),
        (lambda: ch01.plot_gray_values({}), "no site"),
        (lambda: ch01.plot_gray_values({"here": GRAY / 255}), "here: pixels .* float64; expected"),
    ],
)
def test_what_shows_nothing_or_shows_it_wrongly_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
