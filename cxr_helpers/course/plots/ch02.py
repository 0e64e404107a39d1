"""Figures of Barlow Twins pretraining: the method, correlation matrices, logs, neighbors.

Needs: matplotlib, numpy, pandas.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from cxr_helpers.course.plots._checks import array, check_table, gray, pair, some
from cxr_helpers.course.plots.style import SKY, grid, look, panels, show_image, tidy

COLORS_OF_C = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1, "interpolation": "nearest"}


def plot_method(image: np.ndarray, view_a: np.ndarray, view_b: np.ndarray) -> Figure:
    """Barlow Twins in one picture, from an image to the matrix and its aim.

    The images are those given; outputs and matrix are made up, as a run halfway may give them.

    Args:
        image: (H, W): uint8, uint16 of the full range, or float in [0, 1]; so are the others.
        view_a: one changed copy.
        view_b: another.

    Raises:
        ValueError: an image is of another kind.

    Example:
        >>> plt.close(plot_method(np.eye(4), np.eye(4), 1 - np.eye(4)))
    """
    outputs = np.random.default_rng(0).normal(size=(2, 12, 6)) / 2  # (view, image, feature)
    outputs[1] += 2 * outputs[0]
    c = np.corrcoef(*outputs, rowvar=False)[:6, 6:]
    figure, axis = plt.subplots(figsize=(10, 3.2), layout="constrained")
    axis.set(xlim=(-0.1, 22.6), ylim=(-0.4, 6.6), aspect="equal", autoscale_on=False)
    axis.set_axis_off()
    for picture, place, text in [
        (image, (0, 1.6, 2.8), "one image"),
        (view_a, (4, 3.4, 2.4), "view A"),
        (view_b, (4, 0, 2.4), "view B"),
    ]:
        pixels, white = gray(picture, text)
        _picture(axis, pixels, place, text, cmap="gray", vmin=0, vmax=white)
    parts = {7.6: "network,\nthe same\nfor both", 11: "projector,\nthrown away\nlater"}
    for left, text in parts.items():
        box = FancyBboxPatch((left, 0.2), 2, 5.4, boxstyle="round,pad=0.2", fc=SKY, alpha=0.5)
        axis.add_patch(box)
        axis.text(left + 1, 2.9, text, ha="center", va="center", fontsize=8.5)
    _picture(axis, outputs[0], (14.2, 3.4, 1.2, 2.4), "$z_A$", **COLORS_OF_C)
    _picture(axis, outputs[1], (14.2, 0, 1.2, 2.4), "$z_B$", **COLORS_OF_C)
    _picture(axis, c, (16.4, 1.6, 2.6), "correlation\nmatrix", **COLORS_OF_C)
    _picture(axis, np.eye(6), (20, 1.6, 2.6), "the aim:\nidentity", **COLORS_OF_C)
    for x in (6.6, 10, 13.4):
        _arrow(axis, (x, 4.6), (x + 0.7, 4.6))
        _arrow(axis, (x, 1.2), (x + 0.7, 1.2))
    for start, end in [((2.9, 3.3), (3.9, 4.4)), ((2.9, 2.7), (3.9, 1.4))]:
        _arrow(axis, start, end)
    for start, end in [((15.5, 4.4), (16.3, 3.6)), ((15.5, 1.4), (16.3, 2.3))]:
        _arrow(axis, start, end)
    _arrow(axis, (19.1, 2.9), (19.9, 2.9))
    return figure


def _picture(axis: Axes, values: np.ndarray, place: tuple, text: str, **options) -> None:
    """Draw values at (left, bottom, width) or (left, bottom, width, height), a name above."""
    left, bottom, width, *height = place
    top = bottom + (height[0] if height else width)
    axis.imshow(values, extent=(left, left + width, bottom, top), aspect="equal", **options)
    axis.text(left + width / 2, top + 0.1, text, ha="center", va="bottom", fontsize=8.5)


def _arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axis.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "0.3", "lw": 1})


def plot_correlations(matrices: Mapping[str, np.ndarray], *, shown: int = 64) -> Figure:
    """Correlation matrices side by side, on one scale of colors; small ones with their values.

    Args:
        matrices: title to (D, D), entries in [-1, 1].
        shown: only the first so many rows and columns, so that an entry can be seen.

    Raises:
        ValueError: there is no matrix, or one is not (D, D) with D > 0.

    Example:
        >>> plt.close(plot_correlations({"no copies": np.eye(3), "copies": np.ones((3, 3))}))
    """
    some(matrices, "matrix")
    matrices = {title: array(matrix) for title, matrix in matrices.items()}
    for title, matrix in matrices.items():
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
            raise ValueError(f"{title!r} has shape {matrix.shape}; expected (D, D)")
    figure, axes = panels(1, len(matrices), width=2.2 + 1.2 / len(matrices), height=2.9)
    figure.set_layout_engine("compressed")  # or a gap opens between square panels and the bar
    for axis, (title, matrix) in zip(axes.flat, matrices.items(), strict=True):
        part = matrix[:shown, :shown]
        drawn = axis.imshow(part, **COLORS_OF_C)
        axis.set_title(title, fontsize=10)
        axis.set(xlabel="output of view B")
        if len(part) <= 8:
            _write_values(axis, part)
    axes[0, 0].set_ylabel("output of view A")
    figure.colorbar(drawn, ax=axes, shrink=0.8, pad=0.04 / len(matrices), label="correlation")
    return tidy(figure, text=9)


def _write_values(axis: Axes, matrix: np.ndarray) -> None:
    """Each entry as text in its cell, with lines between the cells."""
    for (i, j), value in np.ndenumerate(matrix):
        color = "white" if abs(value) > 0.6 else "black"
        axis.text(j, i, f"{value:.2f}", ha="center", va="center", color=color, fontsize=10)
    places = range(len(matrix))
    axis.set_xticks(places, [f"B{i + 1}" for i in places])
    axis.set_yticks(places, [f"A{i + 1}" for i in places])
    axis.set_xticks(np.arange(0.5, len(matrix) - 1), minor=True)
    axis.set_yticks(np.arange(0.5, len(matrix) - 1), minor=True)
    axis.grid(which="minor", color="white", lw=2)
    axis.tick_params(which="both", length=0)


def plot_log(
    log: pd.DataFrame,
    panels: Mapping[str, Mapping[str, str]],
    *,
    columns: int = 2,
    floors: Mapping[str, float] | None = None,
) -> Figure:
    """A training log in small panels over the epochs.

    Args:
        log: column `epoch` and the figures; NaN where one was not measured.
        panels: label of the vertical axis to its lines, each a column and its name in the legend.
        columns: panels a row.
        floors: label of a panel to the value below which its lines cannot fall, a dotted line.

    Raises:
        ValueError: there is no panel, or the log has no rows or lacks a column.

    Example:
        >>> log = pd.DataFrame({"epoch": [0, 1], "loss": [9.0, 4.0]})
        >>> plt.close(plot_log(log, {"loss": {"loss": "training"}}, floors={"loss": 2.0}))
    """
    some(panels, "panel")
    check_table(log, numbers=("epoch", *(column for lines in panels.values() for column in lines)))
    figure, axes = grid(len(panels), columns, width=4.2, height=2.5)
    for axis, (label, lines) in zip(axes, panels.items(), strict=True):
        for i, (column, name) in enumerate(lines.items()):
            part = log[["epoch", column]].dropna()
            axis.plot(part["epoch"], part[column], label=name, **look(name, i) | {"marker": ""})
        if floors and label in floors:
            axis.axhline(floors[label], color="0.4", ls=":", lw=1.5, label="floor")
        axis.set(xlabel="epoch", ylabel=label)
        if len(axis.lines) > 1:
            axis.legend(frameon=False, fontsize=8)
    return tidy(figure, text=9)


def plot_runs(logs: Mapping[str, pd.DataFrame], metrics: Mapping[str, str]) -> Figure:
    """The same figures of several runs side by side, a line a run, with one legend.

    Args:
        logs: name of a run to its log with a column `step`.
        metrics: column to the label of its axis; the loss is drawn on a logarithmic axis.

    Raises:
        ValueError: there is no run or no metric, or a log has no rows or lacks a column.

    Example:
        >>> log = pd.DataFrame({"step": [1, 2], "loss": [9.0, 4.0]})
        >>> plt.close(plot_runs({"healthy": log, "batch of 4": 2 * log}, {"loss": "loss"}))
    """
    if not logs or not metrics:
        raise ValueError(f"{len(logs)} runs and {len(metrics)} metrics show nothing")
    for log in logs.values():
        check_table(log, numbers=("step", *metrics))
    figure, axes = panels(1, len(metrics), width=3.3, height=3.2)
    for axis, (column, label) in zip(axes.flat, metrics.items(), strict=True):
        for i, (name, log) in enumerate(logs.items()):
            axis.plot(log["step"], log[column], label=name, **look(name, i) | {"marker": ""})
        axis.set(xlabel="step", ylabel=label, yscale="log" if column == "loss" else "linear")
    handles, names = axes[0, 0].get_legend_handles_labels()
    style = {"frameon": False, "fontsize": 9, "ncols": 3}
    figure.legend(handles, names, loc="outside lower center", **style)
    return tidy(figure, text=9)


def plot_moved(logs: Mapping[str, pd.DataFrame]) -> Figure:
    """How far each stage of a network moved, run by run, and what the last stage's way brought.

    Args:
        logs: name of a run to its log: columns `epoch`, `knn_findings`, and `moved_<stage>` for
            each stage, shares of the kernels' length before; NaN where one was not measured.

    Raises:
        ValueError: there is no run, or a log has no rows, no stage or lacks a column.

    Example:
        >>> log = {"epoch": [0, 5], "moved_conv1": [0.0, 0.1], "knn_findings": [0.5, 0.6]}
        >>> plt.close(plot_moved({"this run": pd.DataFrame(log)}))
    """
    some(logs, "run")
    stages = {name: [c for c in log if str(c).startswith("moved_")] for name, log in logs.items()}
    for name, log in logs.items():
        if not stages[name]:
            raise ValueError(f"the log of {name!r} has no column moved_...; train that run anew")
        check_table(log, numbers=("epoch", "knn_findings", *stages[name]))
    figure, axes = panels(1, len(logs) + 1, width=3.3, height=3.0)
    *own, last = axes.flat
    for i, (name, log) in enumerate(logs.items()):
        known = log.dropna(subset=stages[name])
        for j, stage in enumerate(stages[name]):
            label = stage.removeprefix("moved_")
            line = look(label, j) | {"marker": ""}
            own[i].plot(known["epoch"], 100 * known[stage], label=label, **line)
        own[i].sharey(own[0])
        own[i].set(xlabel="epoch", ylabel="moved (% of the kernels' length)")
        own[i].set_title(name, fontsize=10)
        far = 100 * known[stages[name][-1]]
        last.plot(far, known["knn_findings"], markersize=4, label=name, **look(name, i))
    keys = own[0].get_legend_handles_labels()
    figure.legend(*keys, loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    last.set(xlabel="last stage moved (%)", ylabel="k-NN AUROC of findings")
    last.legend(frameon=False, fontsize=8)
    return tidy(figure, text=9)


def plot_losses_by_width(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """Loss divided by the projector's width D against the share of the run that is done.

    Args:
        curves: name to (share of the run in [0, 1], loss / D).

    Raises:
        ValueError: there is no curve, or one has not as many shares as losses.

    Example:
        >>> plt.close(plot_losses_by_width({"this run": ([0.1, 1.0], [0.9, 0.2])}))
    """
    some(curves, "curve")
    curves = {name: pair(*curve, repr(name)) for name, curve in curves.items()}
    figure, axis = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
    for i, (name, (share, loss)) in enumerate(curves.items()):
        axis.plot(100 * share, loss, markersize=4, label=name, **look(name, i))
    axis.axhline(1.0, color="0.6", lw=1)
    axis.annotate("start: loss = D", (100, 0.97), ha="right", va="top", color="0.4", fontsize=8)
    axis.set(xlabel="share of the run (%)", ylabel="loss / D", yscale="log")
    axis.legend(frameon=False, fontsize=9)
    return tidy(figure, text=9)


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

    Example:
        >>> near = ([np.zeros((4, 4)), np.ones((4, 4))], ["AP, F", "PA, M"])
        >>> plt.close(plot_neighbors(np.eye(4), {"random": near}, title="query: PA, M"))
    """
    some(rows, "row of neighbors")
    for name, (images, texts) in rows.items():
        if len(images) != len(texts):
            raise ValueError(f"{name!r} has {len(images)} images and {len(texts)} lines about them")
    count = max(len(images) for images, _ in rows.values())
    figure, axes = panels(len(rows), count + 1, width=1.7, height=2.1)
    for axis in axes.flat:
        axis.set_axis_off()
    for line, (name, (images, texts)) in zip(axes, rows.items(), strict=True):
        for axis, image, text in zip(line, [query, *images], [title, *texts], strict=False):
            show_image(axis, image, text, text=8)
        middle = {"ha": "center", "va": "center", "transform": line[0].transAxes, "fontsize": 9}
        line[0].text(-0.08, 0.5, name, rotation=90, **middle)
    return figure
