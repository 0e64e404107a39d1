"""Figures that describe a data set of radiographs: shares, sizes, places, gray values.

Each takes a tidy table or plain arrays and returns the figure. Colors are Okabe and Ito's and come
with a marker or a line style of their own, maps are drawn in cividis: both can be told apart by
color-blind readers and in print.

Needs: matplotlib, numpy, pandas, Pillow, seaborn.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from PIL import Image

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", ":", "-.")
MAP = "cividis"


@dataclass(frozen=True, repr=False)
class Picture:
    """A finished picture that a notebook shows where it is the last value of a cell.

    Attributes:
        png: the bytes of a PNG file.
        size: width and height in pixels.
    """

    png: bytes
    size: tuple[int, int]

    def _repr_png_(self) -> bytes:
        return self.png

    def __repr__(self) -> str:
        """Without the size, which changes by a pixel where a font does."""
        return "<Picture>"


def show(figure: Figure, *, colors: int = 256) -> Picture:
    """Draw a figure as a PNG of few colors and close it: a third to a quarter of the usual bytes.

    A figure without color is stored as 256 grays, unchanged.

    Args:
        figure: is closed.
        colors: of the picture, 2 to 256.

    Raises:
        ValueError: another number of colors.
    """
    if not 2 <= colors <= 256:
        raise ValueError(f"{colors} colors; a picture can have 2 to 256")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", facecolor="white")
    plt.close(figure)
    image = Image.open(buffer).convert("RGB")
    channels = np.asarray(image)
    if (channels == channels[..., :1]).all():
        image = image.convert("L")
    else:
        image = image.quantize(colors, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    small = io.BytesIO()
    image.save(small, "PNG", optimize=True)
    return Picture(small.getvalue(), image.size)


def plot_dots(
    table: pd.DataFrame,
    *,
    xlabel: str,
    log: bool = False,
    width: float = 6,
    reference: tuple[float, str] | None = None,
) -> Figure:
    """One line for each row of the table, one dot for each column; a thin bar joins the dots.

    Args:
        table: numbers; the index names the lines, sorted here by the first column, largest on
            top; the columns become the legend, which a single column does not need. A dot that is
            NaN is left out.
        xlabel: with the unit.
        log: whether the axis is logarithmic.
        width: of the figure in inches.
        reference: where to draw a dashed line to compare with, and what it is.

    Raises:
        ValueError: the table is empty, has more columns than there are markers, or holds what is
            no number or has no place on the axis: infinity, and on a logarithmic one 0 and below.
    """
    table = table.to_frame() if isinstance(table, pd.Series) else table
    if table.empty or table.shape[1] > len(MARKERS):
        raise ValueError(f"need 1 to {len(MARKERS)} columns and some rows, not {table.shape}")
    values = _numbers(table)
    if not np.isfinite(values).any() or np.isinf(values).any() or (log and (values <= 0).any()):
        raise ValueError(
            f"values from {np.nanmin(values, initial=np.inf):g} to "
            f"{np.nanmax(values, initial=-np.inf):g} have no place on "
            f"{'a logarithmic' if log else 'an'} axis; leave such rows out"
        )
    table = table.sort_values(table.columns[0])
    y, several = np.arange(len(table)), table.shape[1] > 1
    figure, axis = plt.subplots(figsize=(width, 0.23 * len(table) + 0.8))
    low, high = _limits(table, log)
    axis.hlines(y, table.min(axis=1) if several else low, table.max(axis=1), color="0.8", zorder=1)
    for column, color, marker in zip(table, COLORS, MARKERS, strict=False):
        look = {"color": color, "marker": marker, "s": 45, "zorder": 2}
        label = str(column) if several else None
        sns.scatterplot(x=table[column].to_numpy(), y=y, label=label, ax=axis, **look)
    axis.set_yticks(y, table.index.astype(str), fontsize=9)
    axis.tick_params(axis="x", labelsize=9)
    axis.set(ylabel="", ylim=(-0.7, len(table) - 0.3), xscale="log" if log else "linear")
    axis.set_xlabel(xlabel, fontsize=10)
    axis.set_xlim(low, high)
    if log:
        axis.xaxis.set_major_formatter("{x:g}")
    if reference is not None:
        axis.axvline(reference[0], color="0.4", ls="--", lw=1, zorder=0, label=reference[1])
    if several or reference is not None:
        _legend_above(axis, table.shape[1] + 1)
    sns.despine(figure)
    return figure


def _numbers(table: pd.DataFrame) -> np.ndarray:
    """The table's values; text that looks like a number is none."""
    for name, column in table.items():
        text = next((value for value in column if isinstance(value, str)), None)
        if text is not None:
            raise ValueError(f"column {name!r} holds the text {text!r}; make it numbers")
    return _floats(table, "table")


def _array(values) -> np.ndarray:
    """An array of a list, or of a tensor of any device and type."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if "bfloat16" in str(values.dtype) else values
    return np.asarray(values)


def _floats(values, name: str) -> np.ndarray:
    try:
        array = _array(values)
        if array.dtype.kind not in "buifO":
            raise TypeError(f"they are {array.dtype}")
        return array.astype(float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the {name} holds no plain numbers: {error}") from None


def _limits(table: pd.DataFrame, log: bool) -> tuple[float, float]:
    """Ends of an axis that leave room beside the outermost dots."""
    low, high = float(table.min(axis=None)), float(table.max(axis=None))
    if log:
        return 0.65 * low, 1.25 * high
    return min(-0.02 * high, low), 1.05 * high or 1.0


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
    """
    if table.empty or (_numbers(table) < 0).any():
        raise ValueError(f"table {table.shape}: expected some numbers, none of them below 0")
    rows, columns = table.shape
    figure, axis = plt.subplots(figsize=(0.24 * columns + 3.0, 0.24 * rows + 1.5))
    sns.heatmap(
        table,
        ax=axis,
        cmap=MAP,
        vmin=0,
        vmax=limit,
        linewidths=0.5,
        xticklabels=True,
        yticklabels=True,
        cbar_kws={"shrink": 0.9},
    )
    axis.set_facecolor("0.85")
    bar = axis.collections[0].colorbar
    bar.set_label(label, fontsize=10)
    bar.ax.tick_params(labelsize=9)
    axis.set_xlabel(xlabel, fontsize=10)
    axis.set_ylabel(ylabel, fontsize=10)
    axis.tick_params(labelsize=9, length=0)
    axis.set_xticklabels(axis.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    return figure


def plot_histograms(
    groups: Mapping[str, Sequence[float]], *, xlabel: str, bin_width: float
) -> Figure:
    """How often values occur, in percent of each group, one outline for each group.

    The bins begin at 0, or below the least value where that is negative.

    Args:
        groups: name to values; NaN is left out, and so is a group without any other value.
        xlabel: with the unit.
        bin_width: in the unit of the values.

    Raises:
        ValueError: there is no value, one is infinite, or the bins have no width.
    """
    clean = {
        name: pd.Series(_floats(values, f"group {name!r}").ravel()).dropna()
        for name, values in groups.items()
    }
    clean = {name: values for name, values in clean.items() if len(values)}
    together = np.concatenate([[], *clean.values()])
    if not len(together) or np.isinf(together).any() or not 0 < bin_width < np.inf:
        raise ValueError(
            f"{len(together)} values in bins of {bin_width}: give finite ones, a width"
        )
    start = bin_width * min(0, together.min() // bin_width)
    end = bin_width * (1 + together.max() // bin_width)
    figure, axis = plt.subplots(figsize=(6, 2.8))
    looks = zip(clean.items(), cycle(COLORS), cycle(LINES), strict=False)
    for (name, values), color, line in looks:
        sns.histplot(
            x=values,
            bins=np.arange(start, end + bin_width / 2, bin_width),
            stat="percent",
            element="step",
            fill=False,
            color=color,
            linestyle=line,
            label=name,
            ax=axis,
        )
    axis.set_xlabel(xlabel, fontsize=10)
    axis.set_ylabel("share of the group (%)", fontsize=10)
    axis.tick_params(labelsize=9)
    axis.legend(frameon=False, fontsize=9)
    sns.despine(figure)
    return figure


def plot_spread(values: pd.Series, groups: pd.Series, *, xlabel: str) -> Figure:
    """Median, quartiles and the middle 90% of positive values, a line for each group.

    Args:
        values: above 0, one for each item.
        groups: the group of each item, same index; sorted here by median, largest on top.
        xlabel: with the unit; the axis is logarithmic.

    Raises:
        ValueError: the two have another index, nothing is given, or a value is not above 0.
    """
    values, groups = pd.Series(values), pd.Series(groups)
    if not values.index.equals(groups.index):
        raise ValueError(
            f"values of {list(values.index[:1])} and groups of {list(groups.index[:1])}: give both "
            "one index"
        )
    if values.empty or not (values.dropna() > 0).all() or not values.notna().any():
        raise ValueError(f"{len(values)} values: a logarithmic axis takes some, all above 0")
    medians = values.groupby(groups).median().sort_values(ascending=False)
    figure, axis = plt.subplots(figsize=(6, 0.25 * len(medians) + 0.8))
    sns.boxplot(
        x=values,
        y=groups,
        order=list(medians.index),
        whis=(5, 95),
        showfliers=False,
        color=COLORS[5],
        width=0.6,
        linewidth=1,
        log_scale=(True, False),
        ax=axis,
    )
    axis.set(ylabel="")
    axis.set_xlabel(xlabel, fontsize=10)
    axis.tick_params(labelsize=9)
    axis.xaxis.set_major_formatter("{x:g}")
    sns.despine(figure)
    return figure


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
    boxes = _floats(boxes_xyxy, "table of boxes")
    boxes = boxes.reshape(-1, 4) if not boxes.size else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes_xyxy must be (N, 4), not {boxes.shape}")
    if not np.isfinite(boxes).all() or (boxes[:, 2:] < boxes[:, :2]).any():
        raise ValueError("a box is not finite, or not x_min <= x_max and y_min <= y_max")
    if np.abs(boxes).max(initial=0) > 10:
        raise ValueError(
            f"boxes reach to {np.abs(boxes).max():g} times the image's side; give shares of the "
            "image, so divide pixels by its width and height"
        )
    n = len(boxes)
    boxes = boxes[(boxes[:, :2] < 1).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)]
    boxes = np.clip(boxes, 0, 1) * bins
    x0, y0 = np.floor(boxes[:, :2]).astype(int).clip(0, bins - 1).T
    x1, y1 = np.ceil(boxes[:, 2:]).astype(int).clip(1, bins).T
    corners = np.zeros((bins + 1, bins + 1))  # summed over rows and columns, each box is a block
    for y, x, sign in ((y0, x0, 1), (y0, x1, -1), (y1, x0, -1), (y1, x1, 1)):
        np.add.at(corners, (y, x), sign)
    return corners.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] / max(1, n)


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
    """
    corners = ["x_min", "y_min", "x_max", "y_max"]
    missing = [column for column in ("label", *corners) if column not in boxes]
    if missing:
        raise ValueError(f"the table has no column {missing[0]!r}; it has {list(boxes)}")
    _numbers(boxes[corners])
    names = sorted(boxes["label"].unique())
    if not names:
        raise ValueError("there is no box to show")
    rows = -(-(len(names) + 1) // columns)
    height = width * frame_xy[1] / frame_xy[0] + 0.35
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * width, rows * height), squeeze=False
    )
    scale = np.array([*frame_xy, *frame_xy], dtype=float)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, name in zip(axes.flat, names, strict=False):
        part = boxes.loc[boxes["label"] == name, corners]
        share = 100 * coverage_map(part.to_numpy() / scale)
        image = axis.imshow(
            share / (share.max() or 1), MAP, vmin=0, aspect=frame_xy[1] / frame_xy[0]
        )
        axis.set_title(f"{name}\nup to {share.max():.0f}%", fontsize=8, pad=3)
    place = axes.flat[len(names)].inset_axes([0.55, 0.05, 0.12, 0.9])
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
    """
    steps = _pictures(steps, "step")
    missing = [title for title in steps if title not in units]
    if missing:
        raise ValueError(f"step {missing[0]!r} has no unit; units has {list(units)}")
    figure, axes = plt.subplots(
        2,
        len(steps),
        figsize=(len(steps) * width, width + 1.45),
        height_ratios=[width, 0.9],
        squeeze=False,
    )
    for i, (title, values) in enumerate(steps.items()):
        top, bottom = axes[:, i]
        top.imshow(values, cmap="gray")
        top.set_axis_off()
        top.set_title(title, fontsize=9)
        pixels = np.ravel(values)[:: max(1, values.size // 200_000)]  # of a large image enough
        look = {"element": "step", "color": COLORS[0], "alpha": 1, "linewidth": 0}
        sns.histplot(x=pixels, stat="percent", bins=60, ax=bottom, **look)
        bottom.set(ylabel="")
        bottom.tick_params(labelsize=8)
        bottom.locator_params(axis="x", nbins=3)
        bottom.locator_params(axis="y", nbins=3)
        bottom.set_xlabel(units[title], fontsize=9)
    axes[1, 0].set_ylabel("pixels (%)", fontsize=9)
    sns.despine(figure)
    return figure


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
    """
    maps = _pictures(maps, "map")
    for title, values in maps.items():
        if title not in units and not (values.min() >= -1e-3 and values.max() <= 1 + 1e-3):
            raise ValueError(
                f"map {title!r} has no unit, so it must be a picture in [0, 1]; its values go from "
                f"{values.min():g} to {values.max():g}"
            )
    rows = -(-len(maps) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * width, rows * (width + 0.75)), squeeze=False
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (title, values) in zip(axes.flat, maps.items(), strict=False):
        unit = units.get(title)
        limits = {"vmin": 0, "vmax": 1} if unit is None else {}
        image = axis.imshow(values, cmap="gray" if unit is None else MAP, **limits)
        axis.set_title(title, fontsize=9)
        bar = figure.colorbar(image, ax=axis, location="bottom", shrink=0.8, aspect=14)
        bar.ax.tick_params(labelsize=8)
        bar.ax.locator_params(nbins=3)
        bar.set_label(unit or "gray value", fontsize=8)
    return figure


def _pictures(values: Mapping[str, np.ndarray], what: str) -> dict[str, np.ndarray]:
    if not values:
        raise ValueError(f"there is no {what} to show")
    found = {title: _array(value) for title, value in values.items()}
    for title, value in found.items():
        if value.ndim != 2 or not value.size or value.dtype.kind not in "buif":
            raise ValueError(
                f"{what} {title!r} is {value.dtype} of shape {value.shape}; expected (H, W) numbers"
            )
    return found


def _legend_above(axis: plt.Axes, columns: int) -> None:
    axis.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        frameon=False,
        fontsize=9,
        handletextpad=0.4,
        borderaxespad=0.1,
    )
