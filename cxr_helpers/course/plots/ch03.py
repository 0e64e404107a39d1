"""Figures of the linear evaluation: scores against the share of labels, and calibration.

Needs: matplotlib, numpy, pandas.
"""

from collections.abc import Mapping
from textwrap import fill

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxr_helpers.course.plots._checks import check_table, some
from cxr_helpers.course.plots.style import draw_intervals, look, tidy


def plot_label_curve(
    curve: pd.DataFrame,
    *,
    ylabel: str = "macro AUROC (test)",
    chance: float | None = 0.5,
    legend: str = "initialization",
    names: Mapping[str, str] | None = None,
    own: pd.DataFrame | None = None,
    title: str = "",
) -> Figure:
    """Score against label fraction, a line and an interval for each arm.

    Args:
        curve: columns arm, fraction (a share, above 0 and at most 1), value, low, high.
        ylabel: of the vertical axis.
        chance: where to draw the line of chance, or None.
        legend: its title.
        names: of arms in the legend, where they differ from those in the table.
        own: columns arm, fraction, value of one more run, drawn as large open markers on the lines
            of the same arms; its other arms are left out.
        title: of the figure.

    Raises:
        ValueError: a table has no rows or lacks a column, or a fraction is no share.

    Example:
        >>> curve = pd.DataFrame({"arm": "random", "fraction": [0.1, 1], "value": [0.6, 0.7]})
        >>> plt.close(plot_label_curve(curve.assign(low=0.5, high=0.8)))
    """
    _check_curve(curve)
    if own is not None:
        _check_curve(own, numbers=("fraction", "value"))
    figure, axis = plt.subplots(figsize=(7.2, 3.8), layout="constrained")
    _draw_curves(axis, curve, names=names, own=own)
    axis.set(xlabel="labels used (% of the training images)", ylabel=ylabel)
    wrapped = "\n".join(fill(line, 62) for line in title.split("\n"))
    axis.set_title(wrapped, fontsize=10, loc="left")
    if chance is not None:
        axis.axhline(chance, color="0.6", lw=1)
        beside = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 9}
        axis.annotate(" chance", (1.0, chance), color="0.4", **beside)
    # Outside the axes, where it covers no interval.
    style = {"frameon": False, "fontsize": 9, "title_fontsize": 9}
    figure.legend(loc="outside right upper", title=legend, **style)
    return tidy(figure, text=None)


def _check_curve(
    curve: pd.DataFrame, *, numbers: tuple[str, ...] = ("fraction", "value", "low", "high")
) -> None:
    check_table(curve, "arm", numbers=numbers)
    wrong = curve["fraction"][~curve["fraction"].between(0, 1, inclusive="right")]
    if len(wrong):
        raise ValueError(
            f"fraction {wrong.iloc[0]} is no share of the labels, above 0 and at most 1; divide "
            "percent by 100"
        )


def _draw_curves(
    axis: Axes,
    curve: pd.DataFrame,
    *,
    names: Mapping[str, str] | None = None,
    own: pd.DataFrame | None = None,
) -> None:
    """A line with intervals for each arm, on a logarithmic axis of label shares in percent."""
    for i, (arm, part) in enumerate(curve.groupby("arm", sort=False)):
        part = part.sort_values("fraction")
        beside = 100 * (1 + 0.04 * i)  # not over each other
        shown = look(arm, i)
        label = (names or {}).get(arm, arm)
        draw_intervals(axis, part, part["fraction"] * beside, vertical=True, label=label, **shown)
        if own is not None:
            mine = own[(own["arm"] == arm) & own["fraction"].isin(part["fraction"])]
            ring = {"facecolors": "none", "edgecolors": shown["color"], "s": 90, "zorder": 3}
            axis.scatter(mine["fraction"] * beside, mine["value"], **ring)
    fractions = sorted(curve["fraction"].unique())
    axis.set_xscale("log")
    axis.set_xticks([100 * f for f in fractions], [f"{100 * f:g}" for f in fractions])
    axis.minorticks_off()


def plot_reliability(tables: Mapping[str, pd.DataFrame], *, title: str = "") -> Figure:
    """Observed share against predicted probability; on the diagonal the two agree.

    Args:
        tables: name to a table with columns predicted and observed, both in [0, 1].
        title: of the figure.

    Raises:
        ValueError: there is no table, or one has no rows, lacks a column or leaves [0, 1].

    Example:
        >>> table = pd.DataFrame({"predicted": [0.1, 0.4], "observed": [0.2, 0.3]})
        >>> plt.close(plot_reliability({"pretrained": table}))
    """
    some(tables, "table of reliability")
    for table in tables.values():
        check_table(table, numbers=("predicted", "observed"))
    both = pd.concat(list(tables.values()))[["predicted", "observed"]]
    if ((both < 0) | (both > 1)).any(axis=None):
        raise ValueError("a predicted or observed share is below 0 or above 1; percent are divided")
    figure, axis = plt.subplots(figsize=(4.6, 4.2))
    axis.plot([0, 1], [0, 1], color="0.6", lw=1)
    for i, (name, table) in enumerate(tables.items()):
        axis.plot(table["predicted"], table["observed"], label=name, **look(name, i))
    limits = (0, min(1.0, 1.1 * both.max(axis=None)))
    axis.set(xlabel="predicted probability", ylabel="observed share", xlim=limits, ylim=limits)
    axis.set_title(title, fontsize=10)
    axis.legend(frameon=False, fontsize=9)
    return tidy(figure, text=None)
