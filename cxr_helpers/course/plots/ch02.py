"""Figures of Barlow Twins pretraining: correlation matrices, logs, gradients of the two terms.

Needs: matplotlib, numpy, pandas.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cxr_helpers.course.plots._checks import array, check_table, pair, some
from cxr_helpers.course.plots.style import BLUE, ORANGE, grid, look, panels, show_image, tidy


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

    Example:
        >>> plt.close(plot_correlations({"no copies": np.eye(3), "copies": np.ones((3, 3))}))
    """
    some(matrices, "matrix")
    matrices = {title: array(matrix) for title, matrix in matrices.items()}
    for title, matrix in matrices.items():
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
            raise ValueError(f"{title!r} has shape {matrix.shape}; expected (D, D)")
    figure, axes = panels(1, len(matrices), width=2.9 + 0.8 / len(matrices), height=3.1)
    for axis, (title, matrix) in zip(axes.flat, matrices.items(), strict=True):
        part = matrix[:shown, :shown]
        image = axis.imshow(part, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        axis.set_title(title, fontsize=10)
        axis.set(xlabel="feature of view B", ylabel="feature of view A")
        if len(part) <= 8:
            axis.set_xticks(range(len(part)), range(1, len(part) + 1))
            axis.set_yticks(range(len(part)), range(1, len(part) + 1))
    figure.colorbar(image, ax=axes, shrink=0.8, label="correlation")
    return tidy(figure, text=9)


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

    Example:
        >>> log = pd.DataFrame({"epoch": [0, 1], "loss": [9.0, 4.0]})
        >>> plt.close(plot_log(log, {"loss": {"loss": "training"}}))
    """
    some(panels, "panel")
    check_table(log, numbers=("epoch", *(column for lines in panels.values() for column in lines)))
    figure, axes = grid(len(panels), columns, width=3.2, height=2.6)
    for axis, (label, lines) in zip(axes, panels.items(), strict=True):
        for i, (column, name) in enumerate(lines.items()):
            part = log[["epoch", column]].dropna()
            axis.plot(part["epoch"], part[column], label=name, **look(name, i) | {"marker": ""})
        axis.set(xlabel="epoch", ylabel=label)
        if len(lines) > 1:
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
    figure.legend(handles, names, loc="outside upper center", **style)
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
    figure.legend(*keys, loc="outside upper center", ncols=5, frameon=False, fontsize=8)
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
    axis.annotate("start: loss = D", (100, 1.0), ha="right", va="bottom", color="0.4", fontsize=8)
    axis.set(xlabel="share of the run (%)", ylabel="loss / D", yscale="log")
    axis.legend(frameon=False, fontsize=9, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return tidy(figure, text=9)


def plot_pull(
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], labels: Sequence[tuple[str, str]]
) -> Figure:
    """Points and the direction in which a gradient step would move them.

    Args:
        pairs: title of a panel to points (N, 2) and their steps (N, 2).
        labels: horizontal and vertical label of each panel.

    Raises:
        ValueError: there is no panel, the labels are not as many, or points and steps are not
            (N, 2) with N > 0.

    Example:
        >>> towards_zero = (np.eye(2), -np.eye(2))
        >>> plt.close(plot_pull({"invariance": towards_zero}, [("view A", "view B")]))
    """
    if not pairs or len(labels) != len(pairs):
        raise ValueError(f"{len(pairs)} panels and {len(labels)} labels; give a pair for each")
    pairs = {title: pair(*p, repr(title), columns=2) for title, p in pairs.items()}
    figure, axes = panels(1, len(pairs), width=3.8, height=3.6)
    for axis, (across, up), (title, (points, steps)) in zip(
        axes.flat, labels, pairs.items(), strict=True
    ):
        reach = np.abs(points).max() * 1.3
        longest = np.linalg.norm(steps, axis=1).max()
        arrows = steps * (0.35 * reach / longest if longest > 0 else 0)
        axis.plot([-reach, reach], [-reach, reach], color="0.8", lw=1, zorder=0)
        axis.quiver(
            *points.T, *arrows.T, angles="xy", scale_units="xy", scale=1, color=ORANGE, width=0.006
        )
        axis.scatter(*points.T, s=14, color=BLUE)
        axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axis.set(xlabel=across, ylabel=up)
        axis.set_title(title, fontsize=10)
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
