"""Figures that describe a data set of radiographs: shares, sizes, places, gray values.

Needs: matplotlib, numpy, pandas, seaborn.
"""

from collections.abc import Mapping
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cxr_helpers.course.plots._checks import CORNERS, array, box_array, check_table, floats, some
from cxr_helpers.course.plots.style import COLORS, LINES, MAP, SKY, grid, mark_reference, tidy


def plot_heatmap(
    table: pd.DataFrame, *, label: str, xlabel: str, ylabel: str, numbers: bool = False
) -> Figure:
    """A table as colors; empty cells (NaN) stay gray.

    Args:
        table: numbers; index and columns name the lines.
        label: of the color bar, with the unit.
        xlabel: what the columns are.
        ylabel: what the rows are.
        numbers: whether each cell shows its value, rounded.

    Raises:
        ValueError: the table is empty, or holds text or what is below 0, the darkest color.

    Example:
        >>> pairs = pd.DataFrame([[100, 20], [40, 100]], index=["A", "B"], columns=["A", "B"])
        >>> plt.close(plot_heatmap(pairs, label="%", xlabel="also has", ylabel="images with"))
    """
    check_table(table, numbers=list(table), empty=True)
    if table.empty or (floats(table, "table") < 0).any():
        raise ValueError(f"table {table.shape}: expected some numbers, none of them below 0")
    rows, columns = table.shape
    wide = 0.5 if numbers else 0.24
    figure, axis = plt.subplots(figsize=(wide * columns + 3.0, 0.24 * rows + 1.5))
    sns.heatmap(
        table, ax=axis, cmap=MAP, vmin=0, linewidths=0.5, xticklabels=True, yticklabels=True,
        annot=numbers, fmt=".0f", annot_kws={"fontsize": 9},
        cbar_kws={"shrink": 0.9, "label": label},
    )  # fmt: skip
    axis.set(xlabel=xlabel, ylabel=ylabel, facecolor="0.85")
    axis.tick_params(length=0)
    axis.set_xticklabels(axis.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    return tidy(figure)


def plot_spread(
    values: pd.Series,
    groups: pd.Series,
    *,
    xlabel: str,
    reference: tuple[float, str] | None = None,
) -> Figure:
    """Median, quartiles and the middle 90% of positive values, a line for each group.

    Args:
        values: above 0, one for each item.
        groups: the group of each item, same index; sorted here by median, largest on top.
        xlabel: with the unit; the axis is logarithmic.
        reference: where to draw a dashed line to compare with, and what it is.

    Raises:
        ValueError: the two have another index, nothing is given, or a value is not above 0.

    Example:
        >>> sides, labels = pd.Series([3.0, 4.0, 30.0]), pd.Series(["nodule", "nodule", "heart"])
        >>> plt.close(plot_spread(sides, labels, xlabel="side of the box (%)"))
    """
    values, groups = pd.Series(values), pd.Series(groups)
    if not values.index.equals(groups.index):
        raise ValueError(
            f"values of {list(values.index[:1])} and groups of {list(groups.index[:1])}: give both "
            "one index"
        )
    if not (values.dropna() > 0).all() or not values.notna().any():
        raise ValueError(f"{len(values)} values: a logarithmic axis takes some, all above 0")
    medians = values.groupby(groups).median().sort_values(ascending=False)
    figure, axis = plt.subplots(figsize=(6, 0.25 * len(medians) + 0.8))
    sns.boxplot(
        x=values, y=groups, order=list(medians.index), whis=(5, 95), showfliers=False, color=SKY,
        width=0.6, linewidth=1, log_scale=(True, False), ax=axis,
    )  # fmt: skip
    axis.set(xlabel=xlabel, ylabel="")
    axis.xaxis.set_major_formatter("{x:g}")
    if reference is not None:
        mark_reference(axis, *reference)
    return tidy(figure)


def coverage_map(boxes_xyxy: np.ndarray, *, bins: int = 40) -> np.ndarray:
    """Share of boxes that cover each cell of a square grid.

    Args:
        boxes_xyxy: (N, 4) x_min, y_min, x_max, y_max as shares of the image, 0 to 1; what lies
            outside is cut off, and a box that lies there wholly covers no cell.
        bins: cells along each side.

    Returns:
        float64 (bins, bins), rows from the top, 0 to 1; all 0 where there is no box.

    Raises:
        ValueError: the boxes are not (N, 4), not finite, turned, or in pixels.

    Example:
        >>> coverage_map(np.array([[0, 0, 0.5, 1], [0, 0, 0.5, 0.5]]), bins=2)
        array([[1. , 0. ],
               [0.5, 0. ]])
    """
    boxes = box_array(boxes_xyxy)
    if np.abs(boxes).max(initial=0) > 10:
        raise ValueError(
            f"boxes reach to {np.abs(boxes).max():g} times the image's side; give shares of the "
            "image, so divide pixels by its width and height"
        )
    x_min, y_min, x_max, y_max = boxes.T[..., None] * bins  # (N, 1) each
    cells = np.arange(bins)
    across = (x_min < cells + 1) & (x_max > cells)  # (N, bins)
    down = (y_min < cells + 1) & (y_max > cells)
    return down.T.astype(float) @ across / max(1, len(boxes))


def plot_places(
    boxes: pd.DataFrame, *, frame_xy: tuple[float, float], columns: int = 5, width: float = 1.3
) -> Figure:
    """One map for each label: where its boxes lie.

    Each map has its own scale of color, from 0 to the share that its title names; the bar for all
    of them stands in the place after the last map.

    Args:
        boxes: `label` and x_min, y_min, x_max, y_max in pixels.
        frame_xy: width and height in pixels that all images are taken to have.
        columns: maps a row.
        width: of one map in inches.

    Raises:
        ValueError: there is no box, a column is missing or no number, or a box is in other pixels.

    Example:
        >>> boxes = pd.DataFrame([["mass", 10, 10, 30, 40]], columns=["label", *CORNERS])
        >>> plt.close(plot_places(boxes, frame_xy=(50, 60)))
    """
    check_table(boxes, "label", numbers=CORNERS, empty=True)
    names = sorted(boxes["label"].unique())
    some(names, "box")
    aspect = frame_xy[1] / frame_xy[0]
    figure, axes = grid(len(names) + 1, columns, width=width, height=width * aspect + 0.35)
    for axis, name in zip(axes, names, strict=False):
        part = boxes.loc[boxes["label"] == name, CORNERS]
        share = 100 * coverage_map(part.to_numpy() / np.array([*frame_xy, *frame_xy], float))
        image = axis.imshow(share / (share.max() or 1), MAP, vmin=0, aspect=aspect)
        axis.set_title(f"{name}\nup to {share.max():.0f}%", fontsize=8, pad=3)
    for axis in axes:
        axis.set_axis_off()
    place = axes[-1].inset_axes([0.55, 0.05, 0.12, 0.9])
    bar = figure.colorbar(image, cax=place)
    place.yaxis.set_ticks_position("left")
    place.yaxis.set_label_position("left")
    bar.set_ticks([0, 1], labels=["0%", "most"], fontsize=8)
    bar.set_label("boxes that cover\nthe place", fontsize=8, labelpad=-8)
    return figure


def plot_gray_values(images: Mapping[str, np.ndarray]) -> Figure:
    """How often each gray value occurs at each site.

    Args:
        images: site name to pixels (N, H, W) uint8, each site with an image.

    Raises:
        ValueError: there is no site, or one without uint8 pixels.

    Example:
        >>> plt.close(plot_gray_values({"here": np.zeros((2, 4, 4), np.uint8)}))
    """
    some(images, "site")
    images = {site: array(pixels) for site, pixels in images.items()}
    for site, pixels in images.items():
        if pixels.dtype != np.uint8 or not pixels.size:
            raise ValueError(f"{site}: pixels {pixels.shape} {pixels.dtype}; expected some, uint8")
    figure, axis = plt.subplots(figsize=(6, 3))
    for (site, pixels), color, line in zip(
        images.items(), cycle(COLORS), cycle(LINES), strict=False
    ):
        counts = np.bincount(pixels.ravel(), minlength=256).reshape(-1, 4).sum(axis=1)
        shares = 100 * counts / pixels.size
        axis.plot(np.arange(0, 256, 4), shares, color=color, linestyle=line, label=site)
    axis.set(xlabel="gray value (0 black, 255 white)", ylabel="share of pixels (%)")
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, fontsize=9)
    return tidy(figure)
