"""Figures that describe a data set of radiographs: shares, sizes, places, gray values.

Needs: matplotlib, numpy, pandas, seaborn.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cxr_helpers.course.plots._checks import CORNERS, array, box_array, check_table, floats, some
from cxr_helpers.course.plots.style import BLUE, COLORS, LINES, MAP, ORANGE, SKY, grid, panels, tidy


def plot_heatmap(
    table: pd.DataFrame, *, label: str, xlabel: str, ylabel: str, limit: float | None = None
) -> Figure:
    """A table as colors; empty cells (NaN) stay gray.

    Args:
        table: numbers; index and columns name the lines.
        label: of the color bar, with the unit.
        xlabel: what the columns are.
        ylabel: what the rows are.
        limit: value of the brightest color; the largest of the table if None.

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
    figure, axis = plt.subplots(figsize=(0.24 * columns + 3.0, 0.24 * rows + 1.5))
    sns.heatmap(
        table, ax=axis, cmap=MAP, vmin=0, vmax=limit, linewidths=0.5, xticklabels=True,
        yticklabels=True, cbar_kws={"shrink": 0.9, "label": label},
    )  # fmt: skip
    axis.set(xlabel=xlabel, ylabel=ylabel, facecolor="0.85")
    axis.tick_params(length=0)
    axis.set_xticklabels(axis.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    return tidy(figure)


def plot_spread(values: pd.Series, groups: pd.Series, *, xlabel: str) -> Figure:
    """Median, quartiles and the middle 90% of positive values, a line for each group.

    Args:
        values: above 0, one for each item.
        groups: the group of each item, same index; sorted here by median, largest on top.
        xlabel: with the unit; the axis is logarithmic.

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


def plot_steps(
    steps: Mapping[str, np.ndarray], *, units: Mapping[str, str], width: float = 1.65
) -> Figure:
    """Pictures on their way from stored values to the display; below each, its histogram.

    Args:
        steps: title to (H, W) values; each is drawn from its own smallest to its largest value.
        units: title to what the values are.
        width: of one picture in inches.

    Raises:
        ValueError: there is no step, one is not (H, W), or one has no unit.

    Example:
        >>> steps = {"stored": 4095 * np.eye(3), "shown": np.eye(3)}
        >>> plt.close(plot_steps(steps, units={"stored": "number", "shown": "gray, 0 to 1"}))
    """
    steps = _pictures(steps, "step")
    missing = [title for title in steps if title not in units]
    if missing:
        raise ValueError(f"step {missing[0]!r} has no unit; units has {list(units)}")
    heights = {"height": (width + 1.45) / 2, "height_ratios": [width, 0.9]}
    figure, axes = panels(2, len(steps), width=width, **heights)
    for (top, bottom), (title, values) in zip(axes.T, steps.items(), strict=True):
        top.imshow(values, cmap="gray")
        top.set_axis_off()
        top.set_title(title, fontsize=9)
        pixels = np.ravel(values)[:: max(1, values.size // 200_000)]  # of a large image enough
        sns.histplot(
            x=pixels, stat="percent", bins=60, element="step", color=BLUE, alpha=1, linewidth=0,
            ax=bottom,
        )  # fmt: skip
        bottom.set(xlabel=units[title], ylabel="")
        bottom.locator_params(nbins=3)
    axes[1, 0].set_ylabel("pixels (%)")
    return tidy(figure, text=9)


def plot_maps(
    maps: Mapping[str, np.ndarray],
    *,
    units: Mapping[str, str],
    columns: int = 5,
    width: float = 1.45,
) -> Figure:
    """Maps of any quantity, each with its own color bar; the unit stands below the bar.

    Args:
        maps: title to (H, W) values.
        units: title to unit; a map without one is a picture, drawn gray from 0 to 1.
        columns: maps a row.
        width: of one map in inches.

    Raises:
        ValueError: there is no map, one is not (H, W), or one without a unit is not in [0, 1].

    Example:
        >>> maps = {"bone": 3 * np.eye(3), "picture": np.eye(3)}
        >>> plt.close(plot_maps(maps, units={"bone": "cm"}))
    """
    maps = _pictures(maps, "map")
    figure, axes = grid(len(maps), columns, width=width, height=width + 0.75)
    for axis, (title, values) in zip(axes, maps.items(), strict=True):
        look, unit = {"cmap": MAP}, units.get(title)
        if unit is None:
            look = {"cmap": "gray", "vmin": 0, "vmax": 1}
            if not (values.min() >= -1e-3 and values.max() <= 1 + 1e-3):
                plt.close(figure)
                raise ValueError(
                    f"map {title!r} has no unit, so it must be a picture in [0, 1]; its values go "
                    f"from {values.min():g} to {values.max():g}"
                )
        image = axis.imshow(values, **look)
        axis.set_axis_off()
        axis.set_title(title, fontsize=9)
        bar = figure.colorbar(image, ax=axis, location="bottom", shrink=0.8, aspect=14)
        bar.ax.tick_params(labelsize=8)
        bar.ax.locator_params(nbins=3)
        bar.set_label(unit or "gray value", fontsize=8)
    return figure


def _pictures(values: Mapping[str, np.ndarray], what: str) -> dict[str, np.ndarray]:
    some(values, what)
    found = {title: array(value) for title, value in values.items()}
    for title, value in found.items():
        if value.ndim != 2 or not value.size or value.dtype.kind not in "buif":
            raise ValueError(
                f"{what} {title!r} is {value.dtype} of shape {value.shape}; expected (H, W) numbers"
            )
    return found


def plot_frequencies(values: Sequence[int], *, xlabel: str, ylabel: str) -> Figure:
    """How often each number above 0 occurs, a point each, both axes logarithmic.

    Raises:
        ValueError: there is no value, or one that has no place on a logarithmic axis.

    Example:
        >>> plt.close(plot_frequencies([1, 1, 1, 7], xlabel="images", ylabel="patients"))
    """
    values = pd.Series(array(values).ravel())
    if values.empty or values.dtype.kind not in "uif" or not (values > 0).all():
        raise ValueError(f"{len(values)} values; a logarithmic axis takes one or more above 0")
    counts = values.value_counts()
    figure, axis = plt.subplots(figsize=(6, 3))
    sns.scatterplot(x=counts.index.to_numpy(), y=counts.to_numpy(), s=22, color=BLUE, ax=axis)
    axis.set(xlabel=xlabel, ylabel=ylabel, xscale="log", yscale="log")
    return tidy(figure)


def plot_readers(readers: pd.DataFrame) -> Figure:
    """Share of normal and of abnormal images that each reader read; area shows boxes drawn.

    Args:
        readers: index the reader's name, columns normal_percent, abnormal_percent, boxes.

    Raises:
        ValueError: the table has no rows, or lacks a column.

    Example:
        >>> table = {"normal_percent": [40, 1], "abnormal_percent": [2, 90], "boxes": [0, 700]}
        >>> plt.close(plot_readers(pd.DataFrame(table, index=["R1", "R9"])))
    """
    check_table(readers, numbers=("normal_percent", "abnormal_percent", "boxes"))
    figure, axis = plt.subplots(figsize=(6, 4))
    area = 20 + 400 * readers["boxes"] / max(readers["boxes"].max(), 1)
    drew = readers["boxes"] > 0
    for part, size, color, marker, label in (
        (readers[drew], area[drew], BLUE, "o", "drew boxes"),
        (readers[~drew], 40, ORANGE, "x", "drew none"),
    ):
        x, y = part["normal_percent"], part["abnormal_percent"]
        axis.scatter(x, y, s=size, marker=marker, color=color, alpha=0.7, label=label)
    named = readers[readers["abnormal_percent"] > 50].sort_values("normal_percent")
    for i, (name, row) in enumerate(named.iterrows()):
        point = (row["normal_percent"], row["abnormal_percent"])
        offset = (0, -22 if i % 2 else 14)  # above and below in turn, so that names stay apart
        axis.annotate(name, point, offset, textcoords="offset points", ha="center", fontsize=9)
    axis.set(xlabel="share of the normal images read (%)", ylim=(-8, 115))
    axis.set(ylabel="share of the abnormal images read (%)")
    style = {"frameon": False, "fontsize": 9, "title_fontsize": 9}
    axis.legend(title="area: boxes drawn", loc="center left", **style)
    return tidy(figure)


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
