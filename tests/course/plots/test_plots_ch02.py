"""Figures of pretraining: what is drawn, and that axes are named."""

import numpy as np
import pandas as pd
import pytest
import torch

from cxr_helpers.course.plots import ch02

LOG = pd.DataFrame({"epoch": [0, 1, 2], "loss": [np.nan, 3.0, 2.0], "rank": [1.0, np.nan, 4.0]})
STEP = pd.DataFrame({"step": [4, 8], "loss": [3.0, 2.0], "diagonal": [0.1, 0.2]})
MOVED = pd.DataFrame(
    {
        "epoch": [0, 1, 5],
        "moved_conv1": [0.0, np.nan, 0.1],
        "moved_layer4": [0.0, np.nan, 0.2],
        "knn_findings": [0.5, np.nan, 0.6],
    }
)
IMAGE = np.zeros((4, 4), np.uint8)


def test_matrices_share_one_scale_and_are_cut_to_what_is_shown():
    matrix = torch.eye(8, requires_grad=True)
    figure = ch02.plot_correlations({"a": matrix, "b": -np.eye(8)}, shown=4)
    images = [axis.images[0] for axis in figure.axes[:2]]
    assert np.array_equal(images[0].get_array(), np.eye(4))
    assert [i.get_array().shape for i in images] == [(4, 4)] * 2
    assert {i.get_clim() for i in images} == {(-1.0, 1.0)}


def test_small_matrices_carry_their_values_and_large_ones_none():
    small = ch02.plot_correlations({"a": np.array([[1.0, -0.25], [0.0, 0.5]])})
    assert [text.get_text() for text in small.axes[0].texts] == ["1.00", "-0.25", "0.00", "0.50"]
    assert [label.get_text() for label in small.axes[0].get_yticklabels()] == ["A1", "A2"]
    assert not ch02.plot_correlations({"a": np.eye(9)}).axes[0].texts


def test_the_method_shows_the_three_images_and_ends_at_the_identity():
    views = [np.full((4, 4), value) for value in (0.1, 0.2, 0.3)]
    drawn = [image.get_array() for image in ch02.plot_method(*views).axes[0].images]
    assert all(np.array_equal(a, b) for a, b in zip(drawn, views, strict=False))
    assert np.array_equal(drawn[-1], np.eye(6)) and drawn[-2].shape == (6, 6)


def test_what_was_not_measured_in_an_epoch_is_left_out():
    panels = {"loss": {"loss": "loss"}, "both": {"loss": "l", "rank": "r"}}
    loss, both, empty = ch02.plot_log(LOG, panels, columns=3).axes
    assert loss.lines[0].get_xdata().tolist() == [1, 2]
    assert both.lines[1].get_xdata().tolist() == [0, 2]
    assert both.get_legend() and not loss.get_legend() and not empty.axison


def test_a_floor_is_drawn_in_its_panel_alone():
    figure = ch02.plot_log(LOG, {"loss": {"loss": "l"}, "rank": {"rank": "r"}}, floors={"loss": 1})
    loss, rank = figure.axes
    assert loss.lines[1].get_ydata() == [1, 1] and len(rank.lines) == 1
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["l", "floor"]


def test_runs_have_a_line_each_and_a_logarithmic_loss():
    logs = {name: STEP for name in "abcde"}
    figure = ch02.plot_runs(logs, {"loss": "loss", "diagonal": "diagonal"})
    assert [len(axis.lines) for axis in figure.axes] == [5, 5]
    assert [axis.get_yscale() for axis in figure.axes] == ["log", "linear"]
    styles = [(line.get_linestyle(), line._dash_pattern) for line in figure.axes[0].lines]
    assert len(set(map(str, styles))) == 5


def test_each_run_has_a_panel_of_its_stages_and_all_share_the_last():
    longer = MOVED.assign(epoch=[0, 10, 35], moved_layer4=[0.0, np.nan, 0.4])
    figure = ch02.plot_moved({"here": MOVED, "longer": longer})
    here, there, brought = figure.axes
    assert [line.get_label() for line in here.lines] == ["conv1", "layer4"]
    assert here.lines[1].get_xdata().tolist() == [0, 5]
    assert here.lines[1].get_ydata().tolist() == [0, 20]
    assert here.get_ylim() == there.get_ylim() and here.get_ylim()[1] > 40
    assert [line.get_label() for line in brought.lines] == ["here", "longer"]
    assert brought.lines[1].get_xdata().tolist() == [0, 40]
    assert brought.lines[1].get_ydata().tolist() == [0.5, 0.6]


def test_losses_are_drawn_in_percent_of_the_run():
    figure = ch02.plot_losses_by_width({"a": (torch.tensor([0.0, 1.0]), [1.0, 0.1])})
    assert figure.axes[0].lines[0].get_xdata().tolist() == [0, 100]


def test_neighbors_have_a_row_for_each_kind_of_features():
    rows = {"a": ([IMAGE] * 3, ["1", "2", "3"]), "b": ([IMAGE] * 2, ["1", "2"])}
    figure = ch02.plot_neighbors(IMAGE, rows, title="query: AP, F")
    first = [figure.axes[0], figure.axes[4]]
    assert [axis.get_title() for axis in first] == ["query: AP, F"] * 2
    assert [axis.texts[0].get_text() for axis in first] == ["a", "b"]
    assert [len(axis.images) for axis in figure.axes] == [1, 1, 1, 1, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ch02.plot_correlations({}), "no matrix"),
        (lambda: ch02.plot_correlations({"a": np.zeros((2, 3))}), r"'a' has shape \(2, 3\)"),
        (lambda: ch02.plot_method(IMAGE, IMAGE, IMAGE[0]), "view B of shape"),
        (lambda: ch02.plot_log(LOG, {}), "no panel"),
        (lambda: ch02.plot_log(LOG, {"loss": {"lose": "l"}}), "no column 'lose'"),
        (lambda: ch02.plot_log(LOG[:0], {"loss": {"loss": "l"}}), "no rows"),
        (lambda: ch02.plot_runs({}, {"loss": "l"}), "0 runs"),
        (lambda: ch02.plot_runs({"a": STEP}, {"rank": "r"}), "no column 'rank'"),
        (lambda: ch02.plot_runs({"a": STEP.astype({"loss": str})}, {"loss": "l"}), "text '3.0'"),
        (lambda: ch02.plot_moved({}), "no run"),
        (lambda: ch02.plot_moved({"a": LOG}), "log of 'a' has no column moved_"),
        (lambda: ch02.plot_moved({"a": MOVED[:0]}), "no rows"),
        (lambda: ch02.plot_moved({"a": MOVED.drop(columns="epoch")}), "no column 'epoch'"),
        (lambda: ch02.plot_losses_by_width({}), "no curve"),
        (lambda: ch02.plot_losses_by_width({"a": ([0, 1], [1])}), r"'a' has shapes \(2,\) and"),
        (lambda: ch02.plot_neighbors(IMAGE, {}), "no row"),
        (lambda: ch02.plot_neighbors(IMAGE, {"a": ([IMAGE], [])}), "1 images and 0 lines"),
        (lambda: ch02.plot_neighbors(IMAGE.astype(int), {"a": ([], [])}), "'query' is int64"),
    ],
)
def test_what_shows_nothing_is_refused_by_name(call, words):
    with pytest.raises(ValueError, match=words):
        call()
