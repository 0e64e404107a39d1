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
from cxr_helpers.detection.boxes import checked_image


def show_detections(
    axis: Axes,
    image: np.ndarray,
    truth: Mapping[str, np.ndarray],
    found: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    *,
    title: str = "",
    threshold: float = 0.3,
) -> None:
    """An image with the readers' boxes (dashed) and the detections above a score (solid).

    Names stand below the readers' boxes and above the detections.

    Args:
        axis: to draw on.
        image: (H, W) gray.
        truth: `boxes`, `labels` from 1.
        found: `boxes`, `labels`, `scores`.
        class_names: of the classes 1, 2, ...
        title: of the panel.
        threshold: least score of a detection that is drawn.

    Raises:
        ValueError: a label has no name, there is not one for each box, or as in `show_image`.

    Example:
        >>> figure, axis = plt.subplots()
        >>> truth = {"boxes": [[1, 1, 5, 5]], "labels": [1]}
        >>> found = {"boxes": [[2, 1, 6, 5]], "labels": [1], "scores": [0.9]}
        >>> show_detections(axis, np.zeros((8, 8)), truth, found, ["mass"])
        >>> [text.get_text() for text in axis.texts]
        ['mass', 'mass 0.90']
        >>> plt.close(figure)
    """
    truth = checked_image(truth, "truth", n_classes=len(class_names))
    found = checked_image(found, "detections", n_classes=len(class_names), scores=True)
    names, drawn = ([class_names[k - 1] for k in part["labels"]] for part in (found, truth))
    show_image(axis, image, title)
    draw_boxes(axis, truth["boxes"], drawn, below=True, **TRUTH)
    strong = np.flatnonzero(found["scores"] >= threshold)
    texts = [f"{names[k]} {found['scores'][k]:.2f}" for k in strong]
    draw_boxes(axis, found["boxes"][strong], texts, **FOUND)


def plot_box_shapes(
    boxes_xyxy: np.ndarray, anchor_sizes: Sequence[float], anchor_ratios: Sequence[float]
) -> Figure:
    """Width against height of boxes, and of the anchors (height / width ratios) over them.

    Example:
        >>> plt.close(plot_box_shapes([[0, 0, 30, 60]], [32, 64], [0.5, 1, 2]))
    """
    boxes = box_array(boxes_xyxy)
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    sizes, ratios = (a.ravel() for a in np.meshgrid(anchor_sizes, anchor_ratios))
    figure, axis = plt.subplots(figsize=(5, 4.2))
    axis.scatter(width, height, s=8, alpha=0.35, color=BLUE, label="readers' boxes, fused", lw=0)
    across, up = sizes / np.sqrt(ratios), sizes * np.sqrt(ratios)
    axis.scatter(across, up, s=50, marker="x", color=ORANGE, label="anchors")
    axis.set(xscale="log", yscale="log", xlabel="width (pixels)", ylabel="height (pixels)")
    axis.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return tidy(figure, text=None)


def plot_per_class(per_class: Mapping[str, Mapping[str, float]], counts: pd.Series) -> Figure:
    """Average precision of each class, a mark for each arm, with the number of truth boxes.

    Args:
        per_class: arm -> class -> average precision.
        counts: truth boxes by class; its order is kept from top to bottom.

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
        axis.plot(
            [values.get(name, np.nan) for name in counts.index], y - shift, label=arm, **style
        )
    axis.set_yticks(y, [f"{name} ({count})" for name, count in counts.items()])
    axis.set(xlabel="average precision at IoU 0.5", xlim=(-0.02, 1.02))
    axis.grid(axis="x", color="0.9")
    axis.legend(title="initialization", frameon=False, loc="lower right")
    return tidy(figure, text=None)


def plot_froc(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Sensitivity against false positives an image, a line for each arm.

    Example:
        >>> plt.close(plot_froc({"random": ([0.1, 1, 8], [0.2, 0.5, 0.6])}))
    """
    figure, axis = plt.subplots(figsize=(5.5, 3.6))
    for i, (arm, curve) in enumerate(curves.items()):
        style = look(arm, i) | {"marker": ""}
        axis.step(*pair(*curve, repr(arm)), where="post", label=arm, **style)
    axis.axvline(1, color="0.6", lw=1)
    axis.set(xscale="log", xlim=(0.1, 10), ylim=(0, 1))
    axis.set_xticks([1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8], ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    axis.minorticks_off()
    axis.set(xlabel="false positives an image", ylabel="sensitivity (share of boxes found)")
    axis.legend(title="initialization", frameon=False)
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
