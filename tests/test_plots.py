"""Figures of the linear evaluation: what is drawn, on which axes, with which names."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cxr_helpers import plots


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def curve(**columns):
    rows = [
        {"arm": arm, "fraction": f, "value": 0.6 + f / 10, "low": 0.5, "high": 0.8, **columns}
        for arm in ("random", "pretrained", "another")
        for f in (0.01, 1.0)
    ]
    return pd.DataFrame(rows)


def test_a_label_curve_has_a_line_an_arm_and_names_its_axes():
    figure = plots.plot_label_curve(curve(), chance=None, legend="method")
    axis = figure.axes[0]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["random", "pretrained", "another"]
    assert axis.get_xscale() == "log" and "%" in axis.get_xlabel() and axis.get_ylabel()
    assert [t.get_text() for t in axis.get_xticklabels()] == ["1", "100"]
    styles = {(c[0].get_color(), c[0].get_marker()) for c in axis.containers}
    assert len(styles) == 3  # color and marker tell the arms apart


def test_chance_is_drawn_where_it_is_known():
    with_line = plots.plot_label_curve(curve(), chance=0.5).axes[0]
    without = plots.plot_label_curve(curve(), chance=None).axes[0]
    assert len(with_line.lines) == len(without.lines) + 1


def test_each_label_gets_a_panel_on_common_axes():
    table = pd.concat([curve(label=name) for name in ("Mass", "Edema", "Hernia")])
    figure = plots.plot_class_curves(table, columns=2)
    shown = [axis for axis in figure.axes if axis.axison]
    assert [axis.get_title() for axis in shown] == ["Mass", "Edema", "Hernia"]
    assert len({axis.get_ylim() for axis in shown}) == 1
    assert [text.get_text() for text in figure.legends[0].get_texts()][0] == "random"
    with pytest.raises(ValueError, match="no label"):
        plots.plot_class_curves(table.iloc[:0])


def test_reliability_lies_on_square_axes_with_the_diagonal():
    table = pd.DataFrame({"predicted": [0.1, 0.4], "observed": [0.2, 0.3]})
    axis = plots.plot_reliability({"random": table, "pretrained": table}).axes[0]
    assert axis.get_xlim() == axis.get_ylim() == (0, pytest.approx(0.44))
    assert len(axis.lines) == 3
    assert np.array_equal(axis.lines[1].get_xydata(), table.to_numpy())


def test_sites_stand_side_by_side_in_the_order_given():
    rows = [
        {"label": label, "site": site, "value": 0.7, "low": 0.6, "high": 0.9}
        for site in ("here", "there")
        for label in ("Mass", "Edema")
    ]
    axis = plots.plot_sites(pd.DataFrame(rows), xlabel="AUROC").axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["Edema", "Mass"]
    here, there = (c[0].get_ydata() for c in axis.containers)
    assert (here > there).all() and (np.abs(here - there) < 0.5).all()
