"""Figures for detection, color-blind safe, never by color alone.

Boxes are xyxy in pixels of the image shown. Truth is drawn dashed, detections solid.

Needs: matplotlib, numpy, pandas, seaborn.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

# Okabe and Ito's palette; a marker and a line for each arm, so that color is never alone.
BLUE, ORANGE, GREEN, YELLOW, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9"
ARM_STYLE = {
    "random": {"color": ORANGE, "marker": "s", "linestyle": "--"},
    "pretrained": {"color": BLUE, "marker": "o", "linestyle": "-"},
    "imagenet": {"color": GREEN, "marker": "^", "linestyle": ":"},
}
OTHER_STYLE = {"color": "0.4", "marker": "D", "linestyle": "-."}


def show_image(axis: Axes, image: np.ndarray, title: str = "") -> None:
    """Draw a gray image, (H, W), without axes.

    Args:
        axis: to draw on.
        image: uint8, uint16 of the full range, or float in [0, 1]; array or tensor.
        title: of the panel.

    Raises:
        ValueError: an image of another shape, type or range.
    """
    pixels = _array(image)
    if pixels.ndim != 2 or 0 in pixels.shape or pixels.dtype.kind not in "biuf":
        raise ValueError(
            f"image of shape {pixels.shape} and type {pixels.dtype}; expected gray numbers (H, W)"
        )
    whole = pixels.dtype in (np.uint8, np.uint16)
    top = np.iinfo(pixels.dtype).max if whole else 1
    dark = pixels.dtype == np.uint16 and 0 < pixels.max() < 2**15
    if (
        dark
        or not whole
        and not (pixels.dtype.kind == "f" and pixels.min() >= 0 and pixels.max() <= 1)
    ):
        raise ValueError(
            f"{pixels.dtype} image from {pixels.min()} to {pixels.max()}; expected uint8, uint16 "
            "up to 65535, or floats in [0, 1]: scale it"
        )
    axis.imshow(pixels, cmap="gray", vmin=0, vmax=top)
    axis.set_axis_off()
    axis.set_title(title, fontsize=9)


def _array(values: object) -> np.ndarray:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def draw_boxes(
    axis: Axes,
    boxes_xyxy: np.ndarray,
    names: Sequence[str] = (),
    *,
    color: str = SKY,
    linestyle: str = "-",
    below: bool = False,
) -> None:
    """Draw boxes on an image, each with its name at the upper edge, or below the lower one.

    Args:
        axis: shows the image.
        boxes_xyxy: (n, 4) pixels of the image; n may be 0.
        names: one for each box, or none.
        color: of lines and names.
        linestyle: of the lines.
        below: whether the names stand below the boxes.

    Raises:
        ValueError: boxes of another shape or not finite, or not one name for each.
    """
    boxes = _array(boxes_xyxy)
    boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise ValueError(f"boxes {boxes.tolist()}; expected (n, 4) finite numbers, xyxy")
    if len(names) not in (0, len(boxes)):
        raise ValueError(f"{len(names)} names for {len(boxes)} boxes; give one for each, or none")
    for i, (x_min, y_min, x_max, y_max) in enumerate(boxes):
        size = (x_max - x_min, y_max - y_min)
        axis.add_patch(
            Rectangle((x_min, y_min), *size, fill=False, color=color, lw=1.4, ls=linestyle)
        )
        if len(names):
            label = {"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 0.6}
            y, va = (y_max, "top") if below else (y_min, "bottom")
            axis.text(
                x_min, y, names[i], color=color, fontsize=6.5, va=va, bbox=label, clip_on=True
            )


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
        ValueError: a label has no name, or as in `show_image` and `draw_boxes`.
    """
    drawn = _names(truth["labels"], class_names)
    labels, scores = _names(found["labels"], class_names), _array(found["scores"])
    boxes = _array(found["boxes"]).reshape(-1, 4)
    if not len(labels) == len(scores) == len(boxes):
        raise ValueError(f"{len(boxes)} boxes, {len(labels)} labels and {len(scores)} scores found")
    show_image(axis, image, title)
    draw_boxes(
        axis,
        truth["boxes"],
        drawn,
        color=YELLOW,
        linestyle="--",
        below=True,
    )
    strong = np.flatnonzero(scores >= threshold)
    draw_boxes(axis, boxes[strong], [f"{labels[k]} {scores[k]:.2f}" for k in strong], color=SKY)


def _names(labels: object, class_names: Sequence[str]) -> list[str]:
    numbers = _array(labels)
    odd = [k for k in numbers.tolist() if k not in range(1, len(class_names) + 1)]
    if odd or numbers.dtype == bool:
        raise ValueError(
            f"label {(odd or [True])[0]} has no name; expected 1 to {len(class_names)}"
        )
    return [class_names[int(k) - 1] for k in numbers]


def gallery(
    images: Sequence[np.ndarray],
    truths: Sequence[Mapping[str, np.ndarray]],
    found: Sequence[Mapping[str, np.ndarray]],
    class_names: Sequence[str],
    titles: Sequence[str],
    *,
    columns: int = 3,
    threshold: float = 0.3,
) -> Figure:
    """`show_detections` for several images.

    Raises:
        ValueError: no image, or not as many truths, detections and titles.
    """
    counts = {len(images), len(truths), len(found), len(titles)}
    if len(counts) > 1 or not len(images):
        raise ValueError(
            f"{len(images)} images, {len(truths)} truths, {len(found)} detections and "
            f"{len(titles)} titles; give one of each for each image, and one image at least"
        )
    rows = -(-len(images) // columns)
    side = 10 / columns
    size = (side * columns, (side + 0.2) * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    panels = zip(axes.flat, images, truths, found, titles, strict=False)
    for axis, image, truth, one, title in panels:
        show_detections(axis, image, truth, one, class_names, title=title, threshold=threshold)
    return figure


def plot_box_shapes(
    boxes_xyxy: np.ndarray, anchor_sizes: Sequence[float], anchor_ratios: Sequence[float]
) -> Figure:
    """Width against height of boxes, and of the anchors (height / width ratios) over them."""
    boxes = _array(boxes_xyxy).reshape(-1, 4)
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    sizes, ratios = (a.ravel() for a in np.meshgrid(anchor_sizes, anchor_ratios))
    figure, axis = plt.subplots(figsize=(5, 4.2))
    axis.scatter(width, height, s=8, alpha=0.35, color=BLUE, label="readers' boxes, fused", lw=0)
    axis.scatter(
        sizes / np.sqrt(ratios), sizes * np.sqrt(ratios), s=50, marker="x", color=ORANGE,
        label="anchors",
    )  # fmt: skip
    axis.set(xscale="log", yscale="log", xlabel="width (pixels)", ylabel="height (pixels)")
    axis.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    sns.despine(figure)
    return figure


def plot_losses(logs: Mapping[str, pd.DataFrame]) -> Figure:
    """Training loss over the epochs, a line for each arm (columns `epoch` and `loss`)."""
    figure, axis = plt.subplots(figsize=(5.5, 3.4))
    for arm, log in logs.items():
        axis.plot(log["epoch"] + 1, log["loss"], label=arm, ms=4, **ARM_STYLE.get(arm, OTHER_STYLE))
    axis.set(xlabel="epoch", ylabel="training loss (sum of four)")
    axis.legend(title="initialization", frameon=False)
    sns.despine(figure)
    return figure


def plot_per_class(per_class: Mapping[str, Mapping[str, float]], counts: pd.Series) -> Figure:
    """Average precision of each class, a mark for each arm, with the number of truth boxes.

    Args:
        per_class: arm -> class -> average precision.
        counts: truth boxes by class; its order is kept from top to bottom.

    Raises:
        ValueError: an arm has values, and none of its classes is in the counts.
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
        style = ARM_STYLE.get(arm, OTHER_STYLE)
        shift = 0.12 * (i - (len(per_class) - 1) / 2)
        axis.scatter(
            [values.get(name, np.nan) for name in counts.index], y - shift, s=40, label=arm,
            color=style["color"], marker=style["marker"],
        )  # fmt: skip
    axis.set_yticks(y, [f"{name} ({count})" for name, count in counts.items()])
    axis.set(xlabel="average precision at IoU 0.5", xlim=(-0.02, 1.02))
    axis.grid(axis="x", color="0.9")
    axis.legend(title="initialization", frameon=False, loc="lower right")
    sns.despine(figure)
    return figure


def plot_froc(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Sensitivity against false positives an image, a line for each arm."""
    figure, axis = plt.subplots(figsize=(5.5, 3.6))
    for arm, (wrong, found) in curves.items():
        style = ARM_STYLE.get(arm, OTHER_STYLE)
        axis.step(
            wrong, found, where="post", label=arm, color=style["color"], ls=style["linestyle"]
        )
    axis.axvline(1, color="0.6", lw=1)
    ticks = [1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8]
    axis.set(xscale="log", xlim=(0.1, 10), ylim=(0, 1))
    axis.set_xticks(ticks, ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    axis.minorticks_off()
    axis.set(xlabel="false positives an image", ylabel="sensitivity (share of boxes found)")
    axis.legend(title="initialization", frameon=False)
    sns.despine(figure)
    return figure


def plot_table(counts: pd.DataFrame, *, xlabel: str, ylabel: str, title: str = "") -> Figure:
    """Counts as shades of gray-blue with their numbers written in; zeros are left blank."""
    size = (0.55 * counts.shape[1] + 2.6, 0.3 * len(counts) + 1.8)
    figure, axis = plt.subplots(figsize=size)
    text = counts.astype(str).where(counts > 0, "")
    style = {"cmap": "Blues", "cbar": False, "linewidths": 0.4, "linecolor": "0.9"}
    sns.heatmap(np.sqrt(counts), annot=text, fmt="", annot_kws={"fontsize": 7}, ax=axis, **style)
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axis.tick_params(labelsize=8, length=0)
    axis.set_xticks(axis.get_xticks(), axis.get_xticklabels(), rotation=45, ha="right")
    return figure
