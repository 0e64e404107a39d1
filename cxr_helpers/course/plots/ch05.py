"""Figures about heatmaps: maps over images, their scores, and their sanity checks.

Needs: matplotlib, numpy, pandas, seaborn.
"""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxr_helpers.course.plots._checks import check_table, floats, pair, some
from cxr_helpers.course.plots.style import (
    BLUE,
    FOUND,
    ORANGE,
    TRUTH,
    draw_boxes,
    look,
    panels,
    plot_estimates,
    show_image,
    tidy,
)


def show_heatmap(
    axis: Axes,
    image: np.ndarray,
    heatmap: np.ndarray | None = None,
    *,
    title: str = "",
    truth_boxes: np.ndarray = (),
    found_boxes: np.ndarray = (),
    level: float | None = None,
    veiled: np.ndarray | None = None,
) -> None:
    """A map in [0, 1] over its image; transparent where there is no evidence.

    A white cross marks the brightest place: over black it looks darker than it is.

    Args:
        axis: to draw on.
        image: (H, W) gray: uint8, uint16 of the full range, or float in [0, 1].
        heatmap: (H, W) in [0, 1], of the image's shape, or None for the image alone.
        title: of the panel.
        truth_boxes: (n, 4), dashed.
        found_boxes: (m, 4), solid.
        level: also draw the line where the map reaches this share of its maximum, in (0, 1].
        veiled: (H, W) bool, the pixels that a blue veil lies over.

    Raises:
        ValueError: image, map, veil, a box or the level is none; or map or veil has another shape
            than the image, over which it would lie in the wrong place.

    Example:
        >>> figure, axis = plt.subplots()
        >>> show_heatmap(axis, np.zeros((8, 8)), np.eye(8), truth_boxes=[[1, 1, 5, 6]])
        >>> plt.close(figure)
    """
    if level is not None and not 0 < level <= 1:
        raise ValueError(f"level {level} is no share of the maximum, above 0 and at most 1")
    show_image(axis, image, title, text=8.5)
    axis.autoscale(False)  # a box that ends beyond the image must not widen the axes
    if heatmap is not None:
        heatmap = _check_map(heatmap, axis.images[-1].get_array().shape)
        axis.imshow(heatmap, cmap="magma", vmin=0, vmax=1, alpha=0.65 * heatmap)
        if heatmap.max() > 0:
            y, x = np.unravel_index(np.argmax(heatmap), heatmap.shape)
            axis.plot(x, y, marker="+", color="black", ms=9, mew=2.6)
            axis.plot(x, y, marker="+", color="white", ms=8, mew=1.2)
            if level is not None:
                contour = {"colors": "white", "linewidths": 0.8}
                axis.contour(heatmap, levels=[level * heatmap.max()], **contour)
    if veiled is not None:
        veil = _check_map(veiled, axis.images[0].get_array().shape)
        axis.imshow(np.ones_like(veil), cmap="Blues", vmin=0, vmax=1, alpha=0.35 * veil)
    draw_boxes(axis, truth_boxes, **TRUTH)
    draw_boxes(axis, found_boxes, **FOUND)


def _check_map(heatmap, shape: tuple[int, int]) -> np.ndarray:
    heatmap = floats(heatmap, "map")
    if heatmap.shape != shape:
        raise ValueError(
            f"map of shape {heatmap.shape} over an image of {shape}; resize the map to the image "
            "first, as heatmaps.resize_map does"
        )
    if not (heatmap.min() >= -1e-3 and heatmap.max() <= 1 + 1e-3):
        raise ValueError(
            f"the map has values from {heatmap.min():g} to {heatmap.max():g}; expected [0, 1], as "
            "heatmaps.normalize_map gives them"
        )
    return np.clip(heatmap, 0, 1)


def plot_class_scores(scores: pd.DataFrame) -> Figure:
    """Scores class by class: a panel for each measure, a mark with interval for each arm.

    The figure's size does not depend on the number of classes, so that a stored notebook, which
    names the size, does not change with what was found.

    Args:
        scores: columns measure, class, n, arm, value, low, high; classes in this order from the
            top, with the numbers n of each arm in brackets.

    Raises:
        ValueError: the table has no rows, lacks a column, or holds a class twice in a measure
            and arm.

    Example:
        >>> scores = pd.DataFrame({"measure": ["pointing"], "class": "A", "n": 9, "arm": "random"})
        >>> plt.close(plot_class_scores(scores.assign(value=0.5, low=0.4, high=0.6)))
    """
    check_table(scores, "measure", "class", "n", "arm")
    numbers = scores.drop_duplicates(["class", "arm"]).groupby("class")["n"]
    numbers = numbers.agg(lambda n: " / ".join(map(str, n)))
    named = scores.assign(name=[f"{name} ({numbers[name]})" for name in scores["class"]])
    size = (2.2 + 2.9 * scores["measure"].nunique(), 4.56)
    style = {"zero": None, "limits": (-0.02, 1.02), "size": size}
    return plot_estimates(named, groups="arm", panels="measure", **style)


def plot_predicted(measured: np.ndarray, predicted: np.ndarray) -> Figure:
    """What removing each channel costs, against what the gradient says it costs.

    Args:
        measured: (C,) log-odds lost without each channel.
        predicted: (C,) the same along a straight line.

    Raises:
        ValueError: the two have another shape, or no channel.

    Example:
        >>> plt.close(plot_predicted([0.0, 0.02], [0.001, 0.015]))
    """
    measured, predicted = pair(measured, predicted, "a cost measured and predicted")
    figure, axis = plt.subplots(figsize=(4.2, 3.8))
    ends = [np.nanmin([measured, predicted]), np.nanmax([measured, predicted])]
    axis.plot(ends, ends, color="0.6", lw=1, label="equal")
    axis.scatter(measured, predicted, s=12, color=BLUE, alpha=0.6, lw=0, label="one channel")
    axis.set(xlabel="log-odds lost without the channel", ylabel="loss along the gradient")
    axis.ticklabel_format(style="sci", scilimits=(0, 0))
    axis.locator_params(nbins=5)
    axis.legend(frameon=False, fontsize=9)
    return tidy(figure)


def plot_randomization(tables: Mapping[str, pd.DataFrame], *, ylabel: str) -> Figure:
    """A panel for each way: one line for each box and their median, over steps of a randomization.

    Args:
        tables: name -> a row for each box, a column for each step in order.
        ylabel: of the values.

    Raises:
        ValueError: there is no table, or one has no rows or holds text.

    Example:
        >>> alike = pd.DataFrame({"as trained": [1.0, 1.0], "+ head": [0.3, 0.2]})
        >>> plt.close(plot_randomization({"cells": alike}, ylabel="rank correlation"))
    """
    some(list(tables), "table of a randomization")
    for values in tables.values():
        check_table(values, numbers=list(values))
    figure, axes = panels(1, len(tables), width=3.4, height=3.2, sharey=True)
    for axis, (name, values) in zip(axes.flat, tables.items(), strict=True):
        steps = np.arange(values.shape[1])
        axis.plot(steps, values.to_numpy().T, color=BLUE, alpha=0.15, lw=0.8)
        axis.plot(steps, values.median(), color=ORANGE, marker="o", lw=2, label="median")
        axis.plot([], [], color=BLUE, alpha=0.4, lw=0.8, label="one box")
        axis.axhline(0, color="0.6", lw=1)
        axis.set(ylim=(-1.02, 1.02))
        axis.set_title(name, fontsize=10)
        axis.set_xticks(steps, values.columns, rotation=45, ha="right")
    axes.flat[0].set_ylabel(ylabel)
    axes.flat[0].legend(frameon=False, fontsize=9, loc="lower left")
    return tidy(figure)


def plot_curves(curves: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]) -> Figure:
    """Mean score while pixels go or come: a panel for each kind, a line for each order.

    Args:
        curves: kind -> order -> (share of the pixels, mean score at each).

    Raises:
        ValueError: there is no curve.

    Example:
        >>> plt.close(plot_curves({"deletion": {"cell ablation": ([0, 1], [2.5, -0.5])}}))
    """
    some([line for lines in curves.values() for line in lines], "curve")
    figure, axes = panels(1, len(curves), width=3.8, height=3.2, sharey=True)
    for axis, (kind, lines) in zip(axes.flat, curves.items(), strict=True):
        for i, (name, line) in enumerate(lines.items()):
            axis.plot(*pair(*line, repr(name)), label=name, ms=4, **look(name, i))
        axis.set_title(kind, fontsize=10)
        axis.set_xlabel("share of the pixels")
    axes.flat[0].set_ylabel("log-odds of the class in the box")
    axes.flat[-1].legend(frameon=False, fontsize=9)
    return tidy(figure)
