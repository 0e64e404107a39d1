"""Figures of the linear evaluation: what is drawn, on which axes, with which names."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection

from cxr_helpers.course.plots import ch03

RELIABILITY = pd.DataFrame({"predicted": [0.1, 0.4], "observed": [0.2, 0.3]})
CURVE = pd.DataFrame(
    [
        ("Mass", arm, fraction, 0.6 + fraction / 10, 0.5, 0.8)
        for arm in ("random", "pretrained", "another")
        for fraction in (0.01, 1.0)
    ],
    columns=["label", "arm", "fraction", "value", "low", "high"],
)


def test_a_label_curve_has_a_line_an_arm_and_names_its_axes():
    figure = ch03.plot_label_curve(CURVE, chance=None, legend="method")
    axis = figure.axes[0]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["random", "pretrained", "another"]
    assert axis.get_xscale() == "log" and "%" in axis.get_xlabel() and axis.get_ylabel()
    assert [t.get_text() for t in axis.get_xticklabels()] == ["1", "100"]
    styles = {(c[0].get_color(), c[0].get_marker()) for c in axis.containers}
    assert len(styles) == 3  # color and marker tell the arms apart
    with_chance = ch03.plot_label_curve(CURVE, chance=0.5).axes[0]
    assert len(with_chance.lines) == len(axis.lines) + 1


def test_arms_have_names_of_their_own_and_one_more_run_is_drawn_as_open_rings():
    own = pd.DataFrame(
        [("pretrained", 0.01, 0.55), ("pretrained", 0.1, 0.6), ("unknown", 0.01, 0.7)],
        columns=["arm", "fraction", "value"],
    )
    figure = ch03.plot_label_curve(CURVE, names={"pretrained": "pretrained here"}, own=own)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["random", "pretrained here", "another"]
    drawn = [c for c in figure.axes[0].collections if isinstance(c, PathCollection)]
    rings = np.concatenate([c.get_offsets() for c in drawn])
    assert rings.round(6).tolist() == [[1.04, 0.55]]  # of a share and an arm that have a line
    with pytest.raises(ValueError, match="no share of the labels"):
        ch03.plot_label_curve(CURVE, own=own.assign(fraction=10))


def test_the_arms_of_the_course_can_be_told_apart():
    arms = ("random", "pretrained", "evening", "imagenet", "pixels", "from scratch", "fine-tuned")
    table = pd.concat([CURVE[CURVE["arm"] == "random"].assign(arm=arm) for arm in arms])
    lines = [c[0] for c in ch03.plot_label_curve(table).axes[0].containers]
    for kinds in ({line.get_color() for line in lines}, {line.get_marker() for line in lines}):
        assert len(kinds) == len(arms)


def test_reliability_lies_on_square_axes_with_the_diagonal():
    axis = ch03.plot_reliability({"random": RELIABILITY, "pretrained": RELIABILITY}).axes[0]
    assert axis.get_xlim() == axis.get_ylim() == (0, pytest.approx(0.44))
    assert len(axis.lines) == 3
    assert np.array_equal(axis.lines[1].get_xydata(), RELIABILITY.to_numpy())


@pytest.mark.parametrize(
    ("plot", "table"),
    [
        (ch03.plot_label_curve, CURVE.drop(columns="label")),
        (lambda table: ch03.plot_reliability({"one": table}), RELIABILITY),
    ],
)
def test_a_table_is_left_alone_and_what_it_lacks_is_named(plot, table, check_of_table):
    check_of_table(plot, table)


@pytest.mark.parametrize("fraction", [0, 10, np.nan])
def test_a_fraction_is_a_share(fraction):
    with pytest.raises(ValueError, match="no share of the labels"):
        ch03.plot_label_curve(CURVE.assign(fraction=fraction))


def test_one_arm_with_one_share_is_drawn_under_its_title():
    axis = ch03.plot_label_curve(CURVE[:1], title="one point").axes[0]
    assert len(axis.containers) == 1 and axis.get_title("left") == "one point"


def test_reliability_of_nothing_or_of_percent_is_refused():
    with pytest.raises(ValueError, match="there is no"):
        ch03.plot_reliability({})
    with pytest.raises(ValueError, match="percent are divided"):
        ch03.plot_reliability({"a": 100 * RELIABILITY})
