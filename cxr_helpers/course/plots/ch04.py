"""Figures for detection. Readers' boxes are dashed, detections solid.

Needs: matplotlib, numpy, pandas, seaborn.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxr_helpers.course.plots._checks import box_array, check_table, pair
from cxr_helpers.course.plots.style import (
    BLUE,
    FOUND,
    ORANGE,
    TRUTH,
    draw_boxes,
    draw_intervals,
    look,
    show_image,
    tidy,
)
from cxr_helpers.detection.anchors import Anchors
from cxr_helpers.detection.boxes import checked_image


def show_detections(
    axis: Axes,
    image: np.ndarray,
    truth: Mapping[str, np.ndarray],
    found: Mapping[str, np.ndarray] | None = None,
    *,
    class_names: Sequence[str],
    title: str = "",
    threshold: float = 0.3,
) -> None:
    """An image with the readers' boxes (dashed) and the detections above a score (solid).

    Names stand below the readers' boxes and above the detections, or on a free line near by. Boxes
    of one name side by side share it, and where there is no room a name is left out.

    Args:
        axis: to draw on, at the size it will have.
        image: (H, W) gray.
        truth: `boxes`, `labels` from 1.
        found: `boxes`, `labels`, `scores`; or None to show the truth alone.
        class_names: of the classes 1, 2, ...
        title: of the panel.
        threshold: least score of a detection that is drawn.

    Raises:
        ValueError: a label has no name, there is not one for each box, or as in `show_image`.

    Example:
        >>> figure, axis = plt.subplots()
        >>> truth = {"boxes": [[1, 1, 5, 5]], "labels": [1]}
        >>> found = {"boxes": [[2, 1, 6, 5]], "labels": [1], "scores": [0.9]}
        >>> show_detections(axis, np.zeros((8, 8)), truth, found, class_names=["mass"])
        >>> [text.get_text() for text in axis.texts]
        ['mass', 'mass 0.90']
        >>> plt.close(figure)
    """
    truth = checked_image(truth, "truth", n_classes=len(class_names))
    show_image(axis, image, title)
    draw_boxes(axis, truth["boxes"], **TRUTH)
    names, taken = [class_names[k - 1] for k in truth["labels"]], []
    _write_names(axis, truth["boxes"], names, TRUTH["color"], taken, below=True)
    if found is None:
        return
    found = checked_image(found, "detections", n_classes=len(class_names), scores=True)
    strong = np.flatnonzero(found["scores"] >= threshold)
    texts = [f"{class_names[found['labels'][k] - 1]} {found['scores'][k]:.2f}" for k in strong]
    draw_boxes(axis, found["boxes"][strong], **FOUND)
    _write_names(axis, found["boxes"][strong], texts, FOUND["color"], taken, below=False)


def _write_names(
    axis: Axes,
    boxes: np.ndarray,
    texts: Sequence[str],
    color: str,
    taken: list[tuple[float, float, float]],
    *,
    below: bool,
) -> None:
    """Write a text at each box, or on the nearest line where none stands; far off, leave it out.

    Args:
        axis: shows the image.
        boxes: (n, 4).
        texts: one for each box; of one class, only those that lie apart are written.
        color: behind the texts.
        taken: left, right and top of the texts that stand there; new ones are added.
        below: whether they stand below the boxes.
    """
    axis.figure.draw_without_rendering()  # or else the axis has not the size that it will have
    point = axis.get_xlim()[1] / axis.get_window_extent().width * axis.figure.dpi / 72
    line, letter, width = 10 * point, 4.2 * point, axis.get_xlim()[1]  # of a text of 7 points
    written: list[tuple[str, float, float]] = []
    for i in np.argsort(boxes[:, 1], kind="stable"):
        x, y = boxes[i, 0], boxes[i, 3] if below else boxes[i, 1] - line
        name, length = texts[i].rstrip(".0123456789"), letter * len(texts[i])
        if any(name == other and np.hypot(x - a, y - b) < 0.2 * width for other, a, b in written):
            continue
        left = max(0.0, min(x, width - length))
        beside = np.array([t for a, b, t in taken if left < b and a < left + length])
        lines = y + line * np.array([0, 1, -1, 2, -2, 3, -3])
        free = [t for t in lines if t >= 0 and (abs(beside - t) >= 0.99 * line).all()]
        if not free:
            continue
        written.append((name, x, y))
        taken.append((left, left + length, free[0]))
        axis.text(
            left, free[0] if below else free[0] + line, texts[i], fontsize=7, clip_on=True,
            va="top" if below else "bottom",
            bbox={"facecolor": color, "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip


def plot_box_shapes(boxes_xyxy: np.ndarray, anchors: Mapping[str, Anchors]) -> Figure:
    """Width against height of boxes, and of each set of anchors over them.

    Args:
        boxes_xyxy: (N, 4).
        anchors: name to anchors, two sets at most.

    Example:
        >>> plt.close(plot_box_shapes([[0, 0, 30, 60]], {"small": Anchors((32, 64))}))
    """
    boxes = box_array(boxes_xyxy)
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    figure, axis = plt.subplots(figsize=(6, 4.4))
    axis.scatter(width, height, s=8, alpha=0.35, color="0.5", label="readers' boxes, fused", lw=0)
    for (name, one), color, marker in zip(anchors.items(), (BLUE, ORANGE), "ox", strict=False):
        sizes, ratios = (a.ravel() for a in np.meshgrid(one.sizes, one.ratios))
        across, up = sizes / np.sqrt(ratios), sizes * np.sqrt(ratios)
        axis.scatter(across, up, s=45, marker=marker, color=color, label=name)
    axis.set(xscale="log", yscale="log", xlabel="width (pixels)", ylabel="height (pixels)")
    axis.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    return tidy(figure, text=None)


def plot_per_class(
    per_class: Mapping[str, Mapping[str, float]],
    counts: pd.Series,
    names: Mapping[str, str] | None = None,
) -> Figure:
    """Average precision of each class, a mark for each arm, with the number of truth boxes.

    Args:
        per_class: arm -> class -> average precision.
        counts: truth boxes by class; its order is kept from top to bottom.
        names: of arms, for the legend.

    Raises:
        ValueError: an arm has values, and none of its classes is in the counts.

    Example:
        >>> plt.close(plot_per_class({"random": {"mass": 0.4}}, pd.Series({"mass": 12})))
    """
    for arm, values in per_class.items():
        if len(values) and not set(values) & set(counts.index):
            raise ValueError(
                f"{arm} has classes such as {next(iter(values))!r}, the counts such as "
                f"{next(iter(counts.index), None)!r}; give both for the same classes"
            )
    figure, axis = plt.subplots(figsize=(6.5, 0.34 * len(counts) + 1))
    y = np.arange(len(counts))[::-1]
    for i, (arm, values) in enumerate(per_class.items()):
        style = look(arm, i) | {"linestyle": "none"}
        shift = 0.12 * (i - (len(per_class) - 1) / 2)
        own = [values.get(name, np.nan) for name in counts.index]
        axis.plot(own, y - shift, label=(names or {}).get(arm, arm), **style)
    axis.set_yticks(y, [f"{name} ({count})" for name, count in counts.items()])
    axis.set(xlabel="average precision at IoU 0.5", xlim=(-0.02, 1.02))
    axis.grid(axis="x", color="0.9")
    axis.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    return tidy(figure, text=None)


def plot_froc(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], names: Mapping[str, str] | None = None
) -> Figure:
    """Sensitivity against false positives an image, a line for each arm, by its name if given.

    Example:
        >>> plt.close(plot_froc({"random": ([0.1, 1, 8], [0.2, 0.5, 0.6])}))
    """
    figure, axis = plt.subplots(figsize=(5.5, 3.6))
    for i, (arm, curve) in enumerate(curves.items()):
        style = look(arm, i) | {"marker": ""}
        axis.step(
            *pair(*curve, repr(arm)), where="post", label=(names or {}).get(arm, arm), **style
        )
    axis.axvline(1, color="0.6", lw=1)
    axis.set(xscale="log", xlim=(0.1, 10))
    axis.set_xticks([1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8], ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    axis.minorticks_off()
    axis.set_ylim(bottom=0)
    axis.set(xlabel="false alarms an image", ylabel="sensitivity (share of boxes found)")
    axis.legend(frameon=False, fontsize=9)
    return tidy(figure, text=None)


def plot_table(counts: pd.DataFrame, *, xlabel: str, ylabel: str, title: str = "") -> Figure:
    """Counts as shades of gray-blue with their numbers written in; zeros are left blank.

    Example:
        >>> counts = pd.DataFrame([[3, 1]], index=["mass"], columns=["hit", "missed"])
        >>> plt.close(plot_table(counts, xlabel="what became of it", ylabel="truth"))
    """
    size = (0.55 * counts.shape[1] + 2.6, 0.3 * len(counts) + 1.8)
    figure, axis = plt.subplots(figsize=size)
    text = counts.astype(str).where(counts > 0, "")
    style = {"cmap": "Blues", "cbar": False, "linewidths": 0.4, "linecolor": "0.9"}
    sns.heatmap(np.sqrt(counts), annot=text, fmt="", annot_kws={"fontsize": 7}, ax=axis, **style)
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axis.tick_params(labelsize=8, length=0)
    axis.set_xticks(axis.get_xticks(), axis.get_xticklabels(), rotation=45, ha="right")
    return figure


def plot_box_probe(table: pd.DataFrame, names: Mapping[str, str] | None = None) -> Figure:
    """Macro AUROC of frozen features of boxes at each stage, an interval for each network.

    Where the class is `macro`, a row without a stage needs no network and is a level line with its
    interval in gray; the stage that validation chose for a network is ringed.

    Args:
        table: columns arm, stage, class, value, low, high, and chosen, which is true or false.
        names: of arms, for the legend.

    Raises:
        ValueError: a column is missing, text stands where numbers belong, an arm has a stage
            twice, or no row is of class `macro`.

    Example:
        >>> row = {"arm": "random", "stage": "layer1", "class": "macro", "value": 0.7}
        >>> table = pd.DataFrame([row]).assign(low=0.6, high=0.8, chosen=True)
        >>> plt.close(plot_box_probe(table))
    """
    numbers = ("value", "low", "high")
    check_table(table, "arm", "stage", "class", "chosen", numbers=numbers)
    table, names = table[table["class"] == "macro"], names or {}
    check_table(table, once=("arm", "stage"))
    network = table["stage"] != ""
    stages = list(dict.fromkeys(table.loc[network, "stage"]))
    figure, axis = plt.subplots(figsize=(7.2, 3.8))
    for i, (arm, part) in enumerate(table[~network].groupby("arm", sort=False)):
        one, line = part.iloc[0], (":", "-.", "--")[i % 3]
        axis.axhspan(one["low"], one["high"], color="0.5", alpha=0.12, lw=0)
        axis.axhline(one["value"], color="0.4", ls=line, lw=1.2, label=names.get(arm, arm))
    arms = table[network].groupby("arm", sort=False)
    for i, (arm, part) in enumerate(arms):
        x = np.array([stages.index(stage) for stage in part["stage"]])
        x = x + 0.08 * (i - (len(arms) - 1) / 2)
        style = look(arm, i)
        draw_intervals(axis, part, x, vertical=True, label=names.get(arm, arm), ms=5, **style)
        best = part["chosen"].to_numpy(bool)
        ring = {"mfc": "none", "mec": style["color"], "ms": 12, "ls": "none"}
        axis.plot(x[best], part["value"][best], "o", **ring)
    axis.set_xticks(range(len(stages)), stages)
    axis.set(xlabel="stage of the network", ylabel="AUROC, mean over classes")
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)
    return tidy(figure, text=None)
