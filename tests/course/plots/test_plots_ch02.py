"""Figures of pretraining: what is drawn, and that axes are named."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from cxr_helpers.course.plots import ch02 as pp

LOG = pd.DataFrame({"epoch": [0, 1, 2], "loss": [np.nan, 3.0, 2.0], "rank": [1.0, np.nan, 4.0]})


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_matrices_share_one_scale_and_are_cut_to_what_is_shown():
    figure = pp.plot_correlations({"a": np.eye(8), "b": -np.eye(8)}, shown=4)
    images = [axis.images[0] for axis in figure.axes[:2]]
    assert [i.get_array().shape for i in images] == [(4, 4)] * 2
    assert {i.get_clim() for i in images} == {(-1.0, 1.0)}


def test_what_was_not_measured_in_an_epoch_is_left_out():
    figure = pp.plot_log(LOG, {"loss": {"loss": "loss"}, "both": {"loss": "l", "rank": "r"}})
    loss, both, empty = figure.axes
    assert loss.lines[0].get_xdata().tolist() == [1, 2]
    assert both.lines[1].get_xdata().tolist() == [0, 2]
    assert both.get_legend() and not loss.get_legend() and not empty.axison


def test_runs_have_a_line_each_and_a_logarithmic_loss():
    log = pd.DataFrame({"step": [4, 8], "loss": [3.0, 2.0], "diagonal": [0.1, 0.2]})
    figure = pp.plot_runs({"a": log, "b": log}, {"loss": "loss", "diagonal": "diagonal"})
    assert [len(axis.lines) for axis in figure.axes] == [2, 2]
    assert [axis.get_yscale() for axis in figure.axes] == ["log", "linear"]
    assert len({line.get_linestyle() for line in figure.axes[0].lines}) == 2


def test_arrows_keep_their_direction():
    points, steps = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.0, 2.0], [1.0, 0.0]])
    figure = pp.plot_pull({"one": (points, steps)}, [("x", "y")])
    arrows = figure.axes[0].collections[0]
    assert arrows.U[0] == 0 and arrows.V[0] == pytest.approx(2 * arrows.U[1])
    pp.plot_pull({"still": (points, 0 * steps)}, [("x", "y")])


def test_losses_are_drawn_in_percent_of_the_run():
    figure = pp.plot_losses_by_width({"a": ([0.0, 1.0], [1.0, 0.1])})
    assert figure.axes[0].lines[0].get_xdata().tolist() == [0, 100]


def test_neighbors_have_a_row_for_each_kind_of_features():
    image = np.zeros((4, 4), np.uint8)
    rows = {"a": ([image] * 3, ["1", "2", "3"]), "b": ([image] * 2, ["1", "2"])}
    figure = pp.plot_neighbors(image, rows, title="query: AP, F")
    first = [figure.axes[0], figure.axes[4]]
    assert [axis.get_title() for axis in first] == ["query: AP, F"] * 2
    assert [axis.texts[0].get_text() for axis in first] == ["a", "b"]
    assert len(figure.axes) == 8
    assert [len(axis.images) for axis in figure.axes] == [1, 1, 1, 1, 1, 1, 1, 0]


IMAGE = np.zeros((4, 4), np.uint8)
STEP = pd.DataFrame({"step": [1], "loss": [2.0]})


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: pp.plot_correlations({}), "no matrix"),
        (lambda: pp.plot_correlations({"a": np.zeros((2, 3))}), r"'a' has shape \(2, 3\)"),
        (lambda: pp.plot_log(LOG, {}), "no panel"),
        (lambda: pp.plot_log(LOG, {"loss": {"lose": "l"}}), "no column 'lose'"),
        (lambda: pp.plot_log(LOG[:0], {"loss": {"loss": "l"}}), "no rows"),
        (lambda: pp.plot_runs({}, {"loss": "l"}), "0 runs"),
        (lambda: pp.plot_runs({"a": STEP}, {"rank": "r"}), "no column 'rank'"),
        (lambda: pp.plot_runs({"a": STEP.astype({"loss": str})}, {"loss": "l"}), "text '2.0'"),
        (lambda: pp.plot_losses_by_width({}), "no curve"),
        (lambda: pp.plot_losses_by_width({"a": ([0, 1], [1])}), r"'a' has \(2,\) shares"),
        (lambda: pp.plot_pull({"a": (np.zeros((1, 2)),) * 2}, []), "1 panels and 0 labels"),
        (lambda: pp.plot_pull({"a": (np.zeros((0, 2)),) * 2}, [("x", "y")]), r"'a': points \(0"),
        (lambda: pp.plot_neighbors(IMAGE, {}), "no row"),
        (lambda: pp.plot_neighbors(IMAGE, {"a": ([IMAGE], [])}), "1 images and 0 lines"),
        (lambda: pp.plot_neighbors(IMAGE.astype(int), {"a": ([], [])}), "'query' is int64"),
        (lambda: pp.plot_neighbors(IMAGE + 2.0, {"a": ([], [])}), "values from 2.0 to 2.0"),
    ],
)
def test_what_shows_nothing_is_refused_by_name(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_tensors_are_drawn():
    matrix = torch.eye(3, requires_grad=True)
    image = pp.plot_correlations({"a": matrix}).axes[0].images[0]
    assert np.array_equal(image.get_array(), np.eye(3))
    points = torch.eye(2, requires_grad=True)
    assert pp.plot_pull({"a": (points, points)}, [("x", "y")]).axes
    assert pp.plot_losses_by_width({"a": (torch.tensor([0.0, 1.0]), [1.0, 0.5])}).axes
    white = pp.plot_neighbors(torch.full((4, 4), 65535, dtype=torch.uint16), {"a": ([], [])})
    assert white.axes[0].images[0].get_clim() == (0, 65535)
