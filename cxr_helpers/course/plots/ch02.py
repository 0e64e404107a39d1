"""Figures of Barlow Twins pretraining: correlation matrices, logs, gradients of the two terms.

Needs: matplotlib, numpy, pandas.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette with a line for each, so that color is never alone.
STYLES = (
    {"color": "#000000", "linestyle": "-"},
    {"color": "#0072B2", "linestyle": "--"},
    {"color": "#D55E00", "linestyle": "-."},
    {"color": "#009E73", "linestyle": ":"},
    {"color": "#CC79A7", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
)


def plot_correlations(
    matrices: Mapping[str, np.ndarray], *, shown: int = 64, limit: float = 1.0
) -> Figure:
    """Correlation matrices side by side, on one scale of colors.

    Args:
        matrices: title to (D, D), entries in [-1, 1].
        shown: only the first so many rows and columns, so that an entry can be seen.
        limit: value of the strongest color.

    Raises:
        ValueError: there is no matrix, or one is not (D, D) with D > 0.
    """
    matrices = {title: _array(matrix) for title, matrix in matrices.items()}
    if not matrices:
        raise ValueError("there is no matrix to show")
    for title, matrix in matrices.items():
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
            raise ValueError(f"{title!r} has shape {matrix.shape}; expected (D, D)")
    figure, axes = plt.subplots(
        1,
        len(matrices),
        figsize=(2.9 * len(matrices) + 0.8, 3.1),
        layout="constrained",
        squeeze=False,
    )
    for axis, (title, matrix) in zip(axes.flat, matrices.items(), strict=True):
        part = matrix[:shown, :shown]
        image = axis.imshow(part, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        axis.set_title(title, fontsize=10)
        axis.set(xlabel="feature of view B", ylabel="feature of view A")
        if len(part) <= 8:
            axis.set_xticks(range(len(part)), range(1, len(part) + 1))
            axis.set_yticks(range(len(part)), range(1, len(part) + 1))
        _small(axis)
    figure.colorbar(image, ax=axes, shrink=0.8, label="correlation")
    return figure


def plot_log(
    log: pd.DataFrame, panels: Mapping[str, Mapping[str, str]], *, columns: int = 3
) -> Figure:
    """A training log in small panels over the epochs.

    Args:
        log: column `epoch` and the figures; NaN where one was not measured.
        panels: label of the vertical axis to its lines, each a column and its name in the legend.
        columns: panels a row.

    Raises:
        ValueError: there is no panel, or the log has no rows or lacks a column.
    """
    if not panels:
        raise ValueError("there is no panel to show")
    _check_log(log, "epoch", *(column for lines in panels.values() for column in lines))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.2 * columns, 2.6 * rows), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (label, lines) in zip(axes.flat, panels.items(), strict=False):
        for style, (column, name) in zip(cycle(STYLES), lines.items(), strict=False):
            part = log[["epoch", column]].dropna()
            axis.plot(part["epoch"], part[column], **style, label=name)
        axis.set(xlabel="epoch", ylabel=label)
        if len(lines) > 1:
            axis.legend(frameon=False, fontsize=8)
        _small(axis)
    return figure


def plot_runs(logs: Mapping[str, pd.DataFrame], metrics: Mapping[str, str]) -> Figure:
    """The same figures of several runs side by side, a line a run, with one legend.

    Args:
        logs: name of a run to its log with a column `step`.
        metrics: column to the label of its axis; the loss is drawn on a logarithmic axis.

    Raises:
        ValueError: there is no run or no metric, or a log has no rows or lacks a column.
    """
    if not logs or not metrics:
        raise ValueError(f"{len(logs)} runs and {len(metrics)} metrics show nothing")
    for log in logs.values():
        _check_log(log, "step", *metrics)
    figure, axes = plt.subplots(
        1, len(metrics), figsize=(3.3 * len(metrics), 3.2), layout="constrained", squeeze=False
    )
    for axis, (column, label) in zip(axes.flat, metrics.items(), strict=True):
        for style, (name, log) in zip(cycle(STYLES), logs.items(), strict=False):
            axis.plot(log["step"], log[column], **style, label=name)
        axis.set(xlabel="step", ylabel=label, yscale="log" if column == "loss" else "linear")
        _small(axis)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3,
                  frameon=False, fontsize=9)  # fmt: skip
    return figure


def plot_losses_by_width(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """Loss divided by the projector's width D against the share of the run that is done.

    Args:
        curves: name to (share of the run in [0, 1], loss / D).

    Raises:
        ValueError: there is no curve, or one has not as many shares as losses.
    """
    curves = {name: (_array(share), _array(loss)) for name, (share, loss) in curves.items()}
    if not curves:
        raise ValueError("there is no curve to show")
    for name, (share, loss) in curves.items():
        if share.shape != loss.shape:
            raise ValueError(f"{name!r} has {share.shape} shares and {loss.shape} losses")
    figure, axis = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
    for style, marker, (name, (share, loss)) in zip(
        cycle(STYLES), cycle("os^vD"), curves.items(), strict=False
    ):
        axis.plot(100 * share, loss, **style, marker=marker, markersize=4, label=name)
    axis.axhline(1.0, color="0.6", lw=1)
    axis.annotate("start: loss = D", (100, 1.0), ha="right", va="bottom", color="0.4", fontsize=8)
    axis.set(xlabel="share of the run (%)", ylabel="loss / D", yscale="log")
    axis.legend(frameon=False, fontsize=9, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    _small(axis)
    return figure


def plot_pull(
    panels: Mapping[str, tuple[np.ndarray, np.ndarray]], labels: Sequence[tuple[str, str]]
) -> Figure:
    """Points and the direction in which a gradient step would move them.

    Args:
        panels: title to points (N, 2) and their steps (N, 2).
        labels: horizontal and vertical label of each panel.

    Raises:
        ValueError: there is no panel, the labels are not as many, or points and steps are not
            (N, 2) with N > 0.
    """
    panels = {title: (_array(p), _array(s)) for title, (p, s) in panels.items()}
    if not panels or len(labels) != len(panels):
        raise ValueError(f"{len(panels)} panels and {len(labels)} labels; give a pair for each")
    for title, (points, steps) in panels.items():
        if points.shape != steps.shape or points.shape[1:] != (2,) or not len(points):
            raise ValueError(f"{title!r}: points {points.shape}, steps {steps.shape}; want (N, 2)")
    figure, axes = plt.subplots(
        1, len(panels), figsize=(3.8 * len(panels), 3.6), layout="constrained", squeeze=False
    )
    for axis, names, (title, (points, steps)) in zip(
        axes.flat, labels, panels.items(), strict=True
    ):
        reach = np.abs(points).max() * 1.3
        longest = np.linalg.norm(steps, axis=1).max()
        arrows = steps * (0.35 * reach / longest if longest > 0 else 0)
        axis.plot([-reach, reach], [-reach, reach], color="0.8", lw=1, zorder=0)
        axis.quiver(*points.T, *arrows.T, angles="xy", scale_units="xy", scale=1, color="#D55E00",
                    width=0.006)  # fmt: skip
        axis.scatter(*points.T, s=14, color="#0072B2")
        axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axis.set(xlabel=names[0], ylabel=names[1])
        axis.set_title(title, fontsize=10)
        _small(axis)
    return figure


def plot_neighbors(
    query: np.ndarray,
    rows: Mapping[str, tuple[Sequence[np.ndarray], Sequence[str]]],
    *,
    title: str = "query",
) -> Figure:
    """A query image, and in each row the images that some features hold nearest to it.

    Args:
        query: (H, W): uint8, uint16 of the full range, or float in [0, 1]; so are the others.
        rows: name of the features to images and a line about each.
        title: a line about the query.

    Raises:
        ValueError: there is no row, one has not as many lines as images, or an image is of
            another kind.
    """
    if not rows:
        raise ValueError("there is no row of neighbors to show")
    for name, (images, texts) in rows.items():
        if len(images) != len(texts):
            raise ValueError(f"{name!r} has {len(images)} images and {len(texts)} lines about them")
    count = max(len(images) for images, _ in rows.values())
    figure, axes = plt.subplots(
        len(rows),
        count + 1,
        figsize=(1.7 * (count + 1), 2.1 * len(rows)),
        layout="constrained",
        squeeze=False,
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for line, (name, (images, texts)) in zip(axes, rows.items(), strict=True):
        _picture(line[0], query, title)
        middle = {"ha": "center", "va": "center", "transform": line[0].transAxes}
        line[0].text(-0.08, 0.5, name, rotation=90, **middle)
        for axis, image, text in zip(line[1:], images, texts, strict=False):
            _picture(axis, image, text)
    return figure


def _picture(axis: Axes, image: np.ndarray, title: str) -> None:
    image, top = _gray(image, f"image {title!r}")
    axis.imshow(image, cmap="gray", vmin=0, vmax=top)
    axis.set_title(title, fontsize=8)


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


def _check_log(log: pd.DataFrame, *numbers: str) -> None:
    """Refuse a log without rows or one of these columns, or with text where numbers belong."""
    missing = [name for name in numbers if name not in log]
    if missing:
        raise ValueError(f"the log has no column {missing[0]!r}; it has {list(log)}")
    if not len(log):
        raise ValueError("the log has no rows, so there is nothing to show")
    for name in numbers:
        text = next((value for value in log[name] if isinstance(value, str)), None)
        if text is not None:
            raise ValueError(f"column {name!r} holds the text {text!r}; make it numbers")


def _small(axis: Axes) -> None:
    axis.tick_params(labelsize=8)
    axis.xaxis.label.set_size(9)
    axis.yaxis.label.set_size(9)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
