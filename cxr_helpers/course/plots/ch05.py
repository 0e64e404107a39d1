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


def plot_shortcut(
    image: np.ndarray,
    maps: Mapping[str, np.ndarray],
    auroc: pd.DataFrame,
    *,
    title: str,
    boxes: np.ndarray = (),
) -> Figure:
    """A radiograph, the maps of some networks on it, and how their AUROC falls.

    Args:
        image: as in `show_heatmap`.
        maps: name of each panel -> its map.
        auroc: a row for each network, a column for each place of the shortcut, in order.
        title: of the figure.
        boxes: (n, 4) of the finding, dashed.

    Raises:
        ValueError: the table has no rows, or holds text; or as `show_heatmap`.

    Example:
        >>> auroc = pd.DataFrame({"learned": [1.0], "moved": [0.1]}, index=["shortcut"])
        >>> maps = {"shortcut network": np.eye(8)}
        >>> plt.close(plot_shortcut(np.zeros((8, 8)), maps, auroc, title="it falls"))
    """
    check_table(auroc, numbers=list(auroc))
    widths = [1.0] * (1 + len(maps)) + [1.3]
    figure, axes = plt.subplots(
        1, len(widths), figsize=(2.1 * sum(widths), 3.1), layout="constrained", width_ratios=widths
    )
    show_heatmap(axes[0], image, title="what the network sees", truth_boxes=boxes)
    for axis, (name, heatmap) in zip(axes[1:], maps.items(), strict=False):
        show_heatmap(axis, image, heatmap, title=name, truth_boxes=boxes)
    for i, (name, values) in enumerate(auroc.iterrows()):
        axes[-1].plot(values.to_numpy(), label=name, **look(name, 1 - i))
        for x, value in enumerate(values):
            axes[-1].annotate(f"{value:.2f}", (x, value), (0, 5), textcoords="offset points",
                              ha="center", fontsize=8)  # fmt: skip
    axes[-1].axhline(0.5, color="0.6", lw=1)
    axes[-1].set_xticks(range(auroc.shape[1]), ["\n".join(name.rsplit(" ", 1)) for name in auroc])
    axes[-1].set(ylabel="AUROC", ylim=(0, 1.12), xlim=(-0.4, auroc.shape[1] - 0.6))
    axes[-1].legend(frameon=False, fontsize=8, loc="lower left")
    figure.suptitle(title, fontsize=11)
    return tidy(figure, text=9)


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
