"""Figures of the course: one style, color-blind safe.

Needs: matplotlib, numpy, pandas, seaborn.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

# Okabe and Ito's palette, and a marker and a line for each arm, so that color is never alone.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
ARM_STYLE = {
    "random": {"color": COLORS[1], "marker": "s", "linestyle": "--"},
    "pretrained": {"color": COLORS[0], "marker": "o", "linestyle": "-"},
    "imagenet": {"color": COLORS[2], "marker": "^", "linestyle": ":"},
    "from scratch": {"color": COLORS[3], "marker": "D", "linestyle": "--"},
    "fine-tuned": {"color": COLORS[4], "marker": "P", "linestyle": "-"},
    "k-NN": {"color": COLORS[5], "marker": "v", "linestyle": ":"},
}


def set_style() -> None:
    """Set seaborn's theme, the palette and the resolution for a notebook."""
    sns.set_theme(style="ticks", context="notebook", palette=list(COLORS))
    plt.rcParams.update(
        {"figure.dpi": 100, "savefig.dpi": 100, "figure.constrained_layout.use": True}
    )


def show_images(
    images: Sequence[np.ndarray],
    titles: Sequence[str] = (),
    *,
    columns: int = 4,
    width: float = 2.3,
    boxes: Sequence[pd.DataFrame] | None = None,
) -> Figure:
    """A grid of gray images, with boxes where given.

    Args:
        images: each (H, W): uint8, uint16 of the full range, or float in [0, 1].
        titles: one for each image, or none.
        columns: images a row.
        width: of one image in inches.
        boxes: for each image a frame with x_min, y_min, x_max, y_max in its pixels, and `label`.

    Raises:
        ValueError: there is no image, one is of another kind, or titles or boxes are not as many.
    """
    for name, part in (("titles", titles if len(titles) else None), ("boxes", boxes)):
        if part is not None and len(part) != len(images):
            raise ValueError(f"{len(images)} images and {len(part)} {name}; give one for each")
    images = [_gray(image, f"image {i}") for i, image in enumerate(images)]
    if not len(images):
        raise ValueError("there is no image to show")
    rows = -(-len(images) // columns)
    height = width * max(i.shape[0] / i.shape[1] for i, _ in images) + (0.3 if len(titles) else 0)
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * width, rows * height), squeeze=False
    )
    for i, axis in enumerate(axes.flat):
        axis.set_axis_off()
        if i >= len(images):
            continue
        axis.imshow(images[i][0], cmap="gray", vmin=0, vmax=images[i][1])
        if len(titles):
            axis.set_title(titles[i], fontsize=9)
        if boxes is not None:
            draw_boxes(axis, boxes[i])
    return figure


def draw_boxes(axis: Axes, boxes: pd.DataFrame, *, names: bool = True) -> None:
    """Draw boxes with their label on an image; one color for each label, in order of the alphabet.

    Args:
        axis: shows the image.
        boxes: x_min, y_min, x_max, y_max in pixels of the image, and `label`.
        names: write the label above each box, once where boxes of one label lie together.

    Raises:
        ValueError: the frame lacks a column, or a box is turned or not finite.
    """
    if not len(boxes):
        return
    _check_table(boxes, "label", numbers=("x_min", "y_min", "x_max", "y_max"))
    corners = boxes[["x_min", "y_min", "x_max", "y_max"]].to_numpy(dtype=float)
    if not np.isfinite(corners).all() or (corners[:, 2:] < corners[:, :2]).any():
        raise ValueError(
            f"boxes {corners.tolist()}; expected x_min <= x_max, y_min <= y_max, finite"
        )
    labels = sorted(boxes["label"].unique())
    width = max(axis.get_xlim())
    named: list[tuple[str, float, float]] = []
    for row in boxes.sort_values("y_min").itertuples():
        color = COLORS[labels.index(row.label) % (len(COLORS) - 1)]
        right = row.x_min > 0.65 * width  # there the text ends where the box does, in the image
        corner = (row.label, row.x_max if right else row.x_min, row.y_min)
        size = (row.x_max - row.x_min, row.y_max - row.y_min)
        axis.add_patch(Rectangle((row.x_min, row.y_min), *size, fill=False, color=color, lw=1.5))
        near = [np.hypot(corner[1] - x, corner[2] - y) for n, x, y in named if n == row.label]
        if names and min(near, default=width) > 0.2 * width:  # one name for boxes side by side
            named.append(corner)
            axis.text(
                corner[1],
                row.y_min,
                row.label,
                color="white",
                fontsize=7,
                ha="right" if right else "left",
                va="bottom",
                bbox={"facecolor": color, "edgecolor": "none", "pad": 0.5},
            )


def _array(values) -> np.ndarray:
    """An array of a list, or of a tensor of any device and type."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if "bfloat16" in str(values.dtype) else values
    return np.asarray(values)


def _gray(image, name: str = "image") -> tuple[np.ndarray, int]:
    """A gray image (H, W) and its value of white: 255, 65535, or 1 for floats."""
    image = _array(image)
    if image.ndim != 2 or not image.size:
        raise ValueError(f"{name} of shape {image.shape}; expected gray (H, W)")
    if image.dtype.kind not in "uf" or image.dtype.itemsize > 2 and image.dtype.kind == "u":
        raise ValueError(
            f"{name} is {image.dtype}; give uint8, uint16 of the full range, or float in [0, 1]"
        )
    low, top = image.min(), image.max()
    if image.dtype == np.uint16 and 0 < top < 32768:
        raise ValueError(
            f"{name} is uint16 up to {top}, so it holds {int(top).bit_length()} bits only; scale "
            "it to 65535, or give floats in [0, 1]"
        )
    if image.dtype.kind == "u":
        return image, np.iinfo(image.dtype).max
    if not (low >= -1e-3 and top <= 1 + 1e-3):
        raise ValueError(f"{name} has values from {low} to {top}; floats must lie in [0, 1]")
    return image, 1


def _check_table(table: pd.DataFrame, *texts: str, numbers: Sequence[str] = ()) -> None:
    """Refuse a table without rows or one of these columns, or with text where numbers belong."""
    missing = [name for name in (*texts, *numbers) if name not in table]
    if missing:
        raise ValueError(f"the table has no column {missing[0]!r}; it has {list(table)}")
    if not len(table):
        raise ValueError("the table has no rows, so there is nothing to show")
    for name in numbers:
        text = next((value for value in table[name] if isinstance(value, str)), None)
        if text is not None:
            raise ValueError(f"column {name!r} holds the text {text!r}; make it numbers")


def plot_counts(counts: pd.Series, *, xlabel: str, log: bool = False) -> Figure:
    """Horizontal bars of counts, largest first, each with its number.

    Raises:
        ValueError: there is nothing counted.
    """
    counts = pd.Series(counts)
    if counts.empty:
        raise ValueError("there is no count to show")
    counts = counts.sort_values()
    figure, axis = plt.subplots(figsize=(7, 0.3 * len(counts) + 0.8))
    bars = axis.barh(counts.index.astype(str), counts.to_numpy(), color=COLORS[0])
    axis.bar_label(bars, labels=[f"{v:,}" for v in counts], padding=3, fontsize=9)
    axis.set(xlabel=xlabel, xscale="log" if log else "linear")
    axis.margins(x=0.15)
    sns.despine(figure)
    return figure


def plot_matrix(
    matrix: np.ndarray, axis: Axes, *, title: str, limit: float = 1.0, label: str = "correlation"
) -> None:
    """A square matrix as colors from -limit (blue) to limit (red)."""
    image = axis.imshow(
        _array(matrix), cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest"
    )
    axis.set(title=title, xlabel="feature of view B", ylabel="feature of view A")
    axis.figure.colorbar(image, ax=axis, shrink=0.8, label=label)


def plot_training_log(log: pd.DataFrame, metrics: Mapping[str, str]) -> Figure:
    """One small panel for each metric over the epochs.

    Args:
        log: columns `epoch` and the metrics.
        metrics: column name to axis label.

    Raises:
        ValueError: the log has no rows, or lacks a column; or there is no metric.
    """
    _check_table(log, numbers=("epoch", *metrics))
    if not metrics:
        raise ValueError("there is no metric to show")
    figure, axes = plt.subplots(1, len(metrics), figsize=(3.2 * len(metrics), 2.8), squeeze=False)
    for axis, (column, label) in zip(axes.flat, metrics.items(), strict=True):
        axis.plot(log["epoch"], log[column], color=COLORS[0])
        axis.set(xlabel="epoch", ylabel=label)
    sns.despine(figure)
    return figure


def plot_label_curve(
    curve: pd.DataFrame,
    *,
    ylabel: str = "macro AUROC (test)",
    chance: float | None = 0.5,
    legend: str = "initialization",
) -> Figure:
    """Score against label fraction, a line and an interval for each arm.

    Args:
        curve: columns arm, fraction (a share, above 0 and at most 1), value, low, high.
        ylabel: of the vertical axis.
        chance: where to draw the line of chance, or None.
        legend: its title.

    Raises:
        ValueError: the table has no rows or lacks a column, or a fraction is no share.
    """
    _check_table(curve, "arm", numbers=("fraction", "value", "low", "high"))
    _check_shares(curve["fraction"])
    figure, axis = plt.subplots(figsize=(7.2, 3.8))
    _draw_curves(axis, curve)
    axis.set(xlabel="labels used (% of the training images)", ylabel=ylabel)
    if chance is not None:
        axis.axhline(chance, color="0.6", lw=1)
        beside = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 9}
        axis.annotate(" chance", (1.0, chance), color="0.4", **beside)
    # Outside the axes, where it covers no interval.
    style = {"frameon": False, "fontsize": 9, "title_fontsize": 9}
    figure.legend(loc="outside right upper", title=legend, **style)
    sns.despine(figure)
    return figure


def _errors(table: pd.DataFrame) -> np.ndarray:
    """(2, n) lengths below and above; 0 where a value lies beyond an end of its interval."""
    below, above = table["value"] - table["low"], table["high"] - table["value"]
    return np.maximum([below, above], 0).astype(float)


def _check_shares(fractions: pd.Series) -> None:
    wrong = fractions[~((fractions > 0) & (fractions <= 1))]
    if len(wrong):
        raise ValueError(
            f"fraction {wrong.iloc[0]} is no share of the labels, above 0 and at most 1; divide "
            "percent by 100"
        )


def _draw_curves(axis: Axes, curve: pd.DataFrame) -> None:
    """A line with intervals for each arm, on a logarithmic axis of label shares in percent."""
    for i, (arm, part) in enumerate(curve.groupby("arm", sort=False)):
        part = part.sort_values("fraction")
        x = part["fraction"] * 100 * (1 + 0.04 * i)  # beside each other, not over each other
        errors = _errors(part)
        style = {"color": COLORS[i % len(COLORS)], "marker": "v"} | ARM_STYLE.get(arm, {})
        axis.errorbar(x, part["value"], yerr=errors, capsize=2.5, label=arm, **style)
    fractions = sorted(curve["fraction"].unique())
    axis.set_xscale("log")
    axis.set_xticks([100 * f for f in fractions], [f"{100 * f:g}" for f in fractions])
    axis.minorticks_off()


def plot_class_curves(curves: pd.DataFrame, *, columns: int = 4, ylabel: str = "AUROC") -> Figure:
    """A small panel with each label's curves, on common axes.

    Args:
        curves: columns label, arm, fraction (a share, above 0 and at most 1), value, low, high.
        columns: panels a row.
        ylabel: of the vertical axes.

    Raises:
        ValueError: there is no curve, the table lacks a column, or a fraction is no share.
    """
    if len(curves):
        _check_table(curves, "label", "arm", numbers=("fraction", "value", "low", "high"))
        _check_shares(curves["fraction"])
    groups = list(curves.groupby("label", sort=False))
    if not groups:
        raise ValueError("there is no label with a curve to show")
    rows = -(-len(groups) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.6 * columns, 1.9 * rows), sharex=True, sharey=True, squeeze=False
    )
    for axis, (label, part) in zip(axes.flat, groups, strict=False):
        axis.axhline(0.5, color="0.6", lw=1)
        _draw_curves(axis, part)
        axis.set_title(label, fontsize=9)
        axis.tick_params(labelsize=8)
    for axis in axes.flat[len(groups) :]:
        axis.set_axis_off()
    figure.supxlabel("labels used (%)", fontsize=9)
    figure.supylabel(ylabel, fontsize=9)
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper right", ncols=len(names), fontsize=9)
    sns.despine(figure)
    return figure


def plot_reliability(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Observed share against predicted probability; on the diagonal the two agree.

    Args:
        tables: name to a table with columns predicted and observed, both in [0, 1].

    Raises:
        ValueError: there is no table, or one has no rows, lacks a column or leaves [0, 1].
    """
    if not tables:
        raise ValueError("there is no table of reliability to show")
    for table in tables.values():
        _check_table(table, numbers=("predicted", "observed"))
    figure, axis = plt.subplots(figsize=(4.6, 4.2))
    axis.plot([0, 1], [0, 1], color="0.6", lw=1)
    for i, (name, table) in enumerate(tables.items()):
        style = {"color": COLORS[i % len(COLORS)], "marker": "os^v"[i % 4]}
        axis.plot(table["predicted"], table["observed"], label=name, **style)
    both = pd.concat(list(tables.values()))[["predicted", "observed"]]
    if ((both < 0) | (both > 1)).any(axis=None):
        raise ValueError("a predicted or observed share is below 0 or above 1; percent are divided")
    limits = (0, min(1.0, 1.1 * both.max(axis=None)))
    axis.set(xlabel="predicted probability", ylabel="observed share", xlim=limits, ylim=limits)
    axis.legend(frameon=False, fontsize=9)
    sns.despine(figure)
    return figure


def plot_sites(table: pd.DataFrame, *, xlabel: str) -> Figure:
    """Each label's score at each site, side by side with intervals.

    Args:
        table: columns label, site, value, low, high.
        xlabel: of the scores.

    Raises:
        ValueError: the table has no rows, or lacks a column.
    """
    _check_table(table, "label", "site", numbers=("value", "low", "high"))
    labels = list(dict.fromkeys(table["label"]))
    figure, axis = plt.subplots(figsize=(6.4, 0.42 * len(labels) + 1.2))
    for i, (site, part) in enumerate(table.groupby("site", sort=False)):
        y = [len(labels) - 1 - labels.index(label) + 0.12 - 0.24 * i for label in part["label"]]
        errors = _errors(part)
        style = {"color": COLORS[i % len(COLORS)], "marker": "os^v"[i % 4]}
        axis.errorbar(part["value"], y, xerr=errors, ls="none", capsize=2.5, label=site, **style)
    axis.axvline(0.5, color="0.6", lw=1)
    axis.set_yticks(range(len(labels)), labels[::-1])
    axis.set(xlabel=xlabel)
    axis.legend(frameon=False, fontsize=9)
    sns.despine(figure)
    return figure


def plot_estimates(estimates: pd.DataFrame, *, xlabel: str, zero: float | None = 0.0) -> Figure:
    """Values with their intervals, one line each.

    Args:
        estimates: columns name, value, low, high.
        xlabel: with the unit.
        zero: where to draw the line of no effect, or None.

    Raises:
        ValueError: the table has no rows, or lacks a column.
    """
    _check_table(estimates, "name", numbers=("value", "low", "high"))
    figure, axis = plt.subplots(figsize=(6, 0.4 * len(estimates) + 1))
    y = np.arange(len(estimates))[::-1]
    axis.errorbar(
        estimates["value"], y, xerr=_errors(estimates), fmt="o", color=COLORS[0], capsize=3
    )
    if zero is not None:
        axis.axvline(zero, color="0.6", lw=1)
    axis.set_yticks(y, estimates["name"])
    axis.set(xlabel=xlabel)
    axis.locator_params(axis="x", nbins=6)  # labels of small differences are long
    axis.margins(y=0.2)
    sns.despine(figure)
    return figure


def plot_frequencies(values: Sequence[int], *, xlabel: str, ylabel: str) -> Figure:
    """How often each number above 0 occurs, a point each, both axes logarithmic.

    Raises:
        ValueError: there is no value, or one that has no place on a logarithmic axis.
    """
    values = pd.Series(_array(values).ravel())
    if values.empty or values.dtype.kind not in "uif" or not (values > 0).all():
        raise ValueError(f"{len(values)} values; a logarithmic axis takes one or more above 0")
    frequencies = values.value_counts()
    figure, axis = plt.subplots(figsize=(6, 3))
    x, y = frequencies.index.to_numpy(), frequencies.to_numpy()
    sns.scatterplot(x=x, y=y, s=22, color=COLORS[0], ax=axis)
    axis.set(xlabel=xlabel, ylabel=ylabel, xscale="log", yscale="log")
    _small_text(axis)
    sns.despine(figure)
    return figure


def plot_readers(readers: pd.DataFrame) -> Figure:
    """Share of normal and of abnormal images that each reader read; area shows boxes drawn.

    Args:
        readers: index the reader's name, columns normal_percent, abnormal_percent, boxes.

    Raises:
        ValueError: the table has no rows, or lacks a column.
    """
    _check_table(readers, numbers=("normal_percent", "abnormal_percent", "boxes"))
    figure, axis = plt.subplots(figsize=(6, 4))
    area = 20 + 400 * readers["boxes"] / max(readers["boxes"].max(), 1)
    drew = readers["boxes"] > 0
    for mask, marker, label in ((drew, "o", "drew boxes"), (~drew, "x", "drew none")):
        part = readers[mask]
        axis.scatter(
            part["normal_percent"],
            part["abnormal_percent"],
            s=area[mask] if marker == "o" else 40,
            marker=marker,
            color=COLORS[0 if marker == "o" else 1],
            alpha=0.7,
            label=label,
        )
    named = readers[readers["abnormal_percent"] > 50].sort_values("normal_percent")
    for i, (name, row) in enumerate(named.iterrows()):
        point = (row["normal_percent"], row["abnormal_percent"])
        offset = (0, -22 if i % 2 else 14)  # above and below in turn, so that names stay apart
        axis.annotate(name, point, offset, textcoords="offset points", ha="center", fontsize=9)
    axis.set(
        xlabel="share of the normal images read (%)",
        ylabel="share of the abnormal images read (%)",
        ylim=(-8, 115),
    )
    axis.legend(frameon=False, title="area: boxes drawn", loc="center left", fontsize=9)
    axis.get_legend().get_title().set_fontsize(9)
    _small_text(axis)
    sns.despine(figure)
    return figure


def plot_gray_values(images: Mapping[str, np.ndarray]) -> Figure:
    """How often each gray value occurs at each site.

    Args:
        images: site name to pixels (N, H, W) uint8, each site with an image.

    Raises:
        ValueError: there is no site, or one without uint8 pixels.
    """
    if not images:
        raise ValueError("there is no site to show")
    figure, axis = plt.subplots(figsize=(6, 3))
    styles = zip(images.items(), cycle(COLORS), cycle(("-", "--", ":")), strict=False)
    for (site, pixels), color, style in styles:
        pixels = _array(pixels)
        if pixels.dtype != np.uint8 or not pixels.size:
            raise ValueError(f"{site}: pixels {pixels.shape} {pixels.dtype}; expected some, uint8")
        share = np.bincount(pixels.ravel(), minlength=256) / pixels.size
        smooth = 100 * share.reshape(-1, 4).sum(axis=1)
        look = {"color": color, "linestyle": style, "label": site, "ax": axis}
        sns.lineplot(x=np.arange(0, 256, 4), y=smooth, **look)
    axis.set(xlabel="gray value (0 black, 255 white)", ylabel="share of pixels (%)")
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, fontsize=9)
    _small_text(axis)
    sns.despine(figure)
    return figure


def _small_text(axis: Axes) -> None:
    """The sizes of text that the figures of the data exploration share."""
    axis.tick_params(labelsize=9)
    axis.xaxis.label.set_size(10)
    axis.yaxis.label.set_size(10)
