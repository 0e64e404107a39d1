"""Figures about heatmaps: maps over images, their scores, and their sanity checks.

Color-blind safe, and never by color alone. Boxes are xyxy in pixels of the image shown: the
readers' are dashed, detected ones solid.

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

# Okabe and Ito's palette; a marker and a line for each arm and map.
BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY, BLACK = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000",
)  # fmt: skip
STYLE = {
    "random": {"color": ORANGE, "marker": "s", "linestyle": "--"},
    "pretrained": {"color": BLUE, "marker": "o", "linestyle": "-"},
    "imagenet": {"color": GREEN, "marker": "^", "linestyle": ":"},
    "ablation": {"color": BLUE, "marker": "o", "linestyle": "-"},
    "class prior": {"color": PURPLE, "marker": "v", "linestyle": "--"},
    "centered bell": {"color": YELLOW, "marker": "D", "linestyle": "-."},
    "bell on the box": {"color": GREEN, "marker": "^", "linestyle": "-."},
    "random map": {"color": BLACK, "marker": "x", "linestyle": ":"},
}
OTHER = {"color": "0.4", "marker": "D", "linestyle": "-."}


def show_heatmap(
    axis: Axes,
    image: np.ndarray,
    heatmap: np.ndarray | None = None,
    *,
    title: str = "",
    truth_boxes: np.ndarray = (),
    found_boxes: np.ndarray = (),
    level: float | None = None,
) -> None:
    """A map in [0, 1] over its image; transparent where there is no evidence.

    A white cross marks the brightest place: over black it looks darker than it is.

    Args:
        axis: to draw on.
        image: (H, W) gray: uint8, uint16 of the full range, or float in [0, 1].
        heatmap: (H, W) in [0, 1], of the image's shape, or None for the image alone.
        title: of the panel.
        truth_boxes: (n, 4), dashed.
        found_boxes: (m, 4), solid.
        level: also draw the line where the map reaches this share of its maximum, in (0, 1].

    Raises:
        ValueError: image, map, a box or the level is none; or the map has another shape than the
            image, over which it would lie in the wrong place.
    """
    image, top = _gray(image)
    heatmap = None if heatmap is None else _check_map(heatmap, image.shape)
    if level is not None and not 0 < level <= 1:
        raise ValueError(f"level {level} is no share of the maximum, above 0 and at most 1")
    axis.imshow(image, cmap="gray", vmin=0, vmax=top)
    axis.autoscale(False)  # a box that ends beyond the image must not widen the axes
    if heatmap is not None:
        axis.imshow(heatmap, cmap="magma", vmin=0, vmax=1, alpha=0.65 * heatmap)
        if np.max(heatmap) > 0:
            y, x = np.unravel_index(np.argmax(heatmap), np.shape(heatmap))
            axis.plot(x, y, marker="+", color="black", ms=9, mew=2.6)
            axis.plot(x, y, marker="+", color="white", ms=8, mew=1.2)
            if level is not None:
                contour = {"colors": "white", "linewidths": 0.8}
                axis.contour(heatmap, levels=[level * np.max(heatmap)], **contour)
    _draw_boxes(axis, truth_boxes, YELLOW, "--")
    _draw_boxes(axis, found_boxes, SKY, "-")
    axis.set_axis_off()
    axis.set_title(title, fontsize=8.5)


def _draw_boxes(axis: Axes, boxes_xyxy: np.ndarray, color: str, linestyle: str) -> None:
    for x_min, y_min, x_max, y_max in _check_boxes(boxes_xyxy):
        size = (x_max - x_min, y_max - y_min)
        axis.add_patch(
            Rectangle((x_min, y_min), *size, fill=False, color=color, lw=1.4, ls=linestyle)
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


def _floats(values, name: str) -> np.ndarray:
    try:
        return _array(values).astype(float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the {name} holds no plain numbers: {error}") from None


def _check_map(heatmap, shape: tuple[int, int]) -> np.ndarray:
    heatmap = _floats(heatmap, "map")
    if heatmap.shape != shape:
        raise ValueError(
            f"map of shape {heatmap.shape} over an image of {shape}; resize the map to the image "
            "first, as heatmaps.resize_map does"
        )
    if not (heatmap.min() >= -1e-3 and heatmap.max() <= 1 + 1e-3):
        raise ValueError(
            f"the map has values from {heatmap.min():g} to {heatmap.max():g}; expected [0, 1], as "
            "heatmaps.normalize_map gives them"
        )
    return np.clip(heatmap, 0, 1)


def _check_boxes(boxes_xyxy) -> np.ndarray:
    if isinstance(boxes_xyxy, (list, tuple)):
        boxes_xyxy = [_array(box) for box in boxes_xyxy]
    boxes = _floats(boxes_xyxy, "table of boxes")
    boxes = boxes.reshape(-1, 4) if boxes.size == 0 or boxes.shape == (4,) else boxes
    fits = boxes.ndim == 2 and boxes.shape[1] == 4 and np.isfinite(boxes).all()
    if not fits or (boxes[:, 2:] < boxes[:, :2]).any():
        raise ValueError(
            f"boxes {boxes.tolist()}; expected finite (n, 4), each x_min, y_min, x_max, y_max"
        )
    return boxes


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


def panels(rows: int, columns: int, *, width: float = 1.8) -> tuple[Figure, np.ndarray]:
    """A figure of square panels with titles, and its axes as (rows, columns)."""
    if rows < 1 or columns < 1:
        raise ValueError(f"{rows} rows and {columns} columns of panels show nothing")
    return plt.subplots(
        rows, columns, figsize=(width * columns, (width + 0.3) * rows), squeeze=False
    )


def plot_scores(scores: pd.DataFrame, *, limits: tuple[float, float] = (0, 1)) -> Figure:
    """Scores with intervals: a panel for each measure, a line for each map.

    Args:
        scores: columns measure, map, value, low, high; each map at most once a measure, and
            where one was not measured its place stays empty.
        limits: of the horizontal axes.

    Raises:
        ValueError: the table has no rows, lacks a column, or holds a map twice in a measure.
    """
    _check_table(scores, "measure", "map", numbers=("value", "low", "high"))
    _check_once(scores, ["measure", "map"])
    measures, maps = list(dict.fromkeys(scores["measure"])), list(dict.fromkeys(scores["map"]))
    size = (1 + 2.3 * len(measures), 0.4 * len(maps) + 1.2)
    figure, axes = plt.subplots(1, len(measures), figsize=size, squeeze=False, sharey=True)
    for axis, measure in zip(axes.flat, measures, strict=True):
        part = scores[scores["measure"] == measure].set_index("map")
        for y, name in enumerate(maps[::-1]):
            if name in part.index:
                _interval(axis, part.loc[name], y, STYLE.get(name, OTHER))
        axis.set(xlim=limits, ylim=(-0.6, len(maps) - 0.4))
        axis.set_xlabel(measure, fontsize=10)
        axis.axvline(0, color="0.6", lw=1)
        axis.set_yticks(range(len(maps)), maps[::-1])
        axis.tick_params(labelsize=9)
    sns.despine(figure)
    return figure


def plot_class_scores(scores: pd.DataFrame) -> Figure:
    """Scores class by class: a panel for each measure, a mark with interval for each arm.

    The figure's size does not depend on the number of classes, so that a stored notebook, which
    names the size, does not change with what was found.

    Args:
        scores: columns measure, class, n, arm, value, low, high; classes in this order from the
            top, with the numbers n of each arm in brackets.

    Raises:
        ValueError: the table has no rows, lacks a column, or holds a class twice in a measure
            and arm.
    """
    _check_table(scores, "measure", "class", "n", "arm", numbers=("value", "low", "high"))
    _check_once(scores, ["measure", "class", "arm"])
    measures, classes, arms = (
        list(dict.fromkeys(scores[column])) for column in ("measure", "class", "arm")
    )
    size = (2.2 + 2.9 * len(measures), 4.56)
    figure, axes = plt.subplots(1, len(measures), figsize=size, squeeze=False, sharey=True)
    for axis, measure in zip(axes.flat, measures, strict=True):
        part = scores[scores["measure"] == measure].set_index(["class", "arm"])
        for i, arm in enumerate(arms):
            for y, name in enumerate(classes[::-1]):
                shift = 0.22 * ((len(arms) - 1) / 2 - i)
                label = arm if y == 0 else None
                if (name, arm) in part.index:
                    style = STYLE.get(arm, OTHER)
                    _interval(axis, part.loc[(name, arm)], y + shift, style, label)
        axis.set(xlim=(-0.02, 1.02))
        axis.set_xlabel(measure, fontsize=10)
        axis.tick_params(labelsize=9)
    counts = scores.drop_duplicates(["class", "arm"]).groupby("class")["n"]
    numbers = counts.agg(lambda n: " / ".join(map(str, n)))
    axes.flat[0].set_yticks(
        range(len(classes)), [f"{name} ({numbers[name]})" for name in classes[::-1]]
    )
    axes.flat[-1].legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    sns.despine(figure)
    return figure


def _check_once(table: pd.DataFrame, columns: list[str]) -> None:
    twice = table[table.duplicated(columns)]
    if len(twice):
        raise ValueError(f"more than one row for {columns} {twice[columns].iloc[0].tolist()}")


def _interval(
    axis: Axes, row: pd.Series, y: float, style: Mapping[str, str], label: str | None = None
) -> None:
    errors = [[row["value"] - row["low"]], [row["high"] - row["value"]]]
    axis.errorbar(
        row["value"], y, xerr=np.maximum(errors, 0), capsize=3, color=style["color"],
        fmt=style["marker"], label=label,
    )  # fmt: skip


def plot_predicted(measured: np.ndarray, predicted: np.ndarray) -> Figure:
    """What removing each channel costs, against what the gradient says it costs.

    Args:
        measured: (C,) loss of score without each channel.
        predicted: (C,) the same along a straight line.

    Raises:
        ValueError: the two have another shape, or no channel.
    """
    measured, predicted = _array(measured), _array(predicted)
    if measured.shape != predicted.shape or measured.ndim != 1 or not measured.size:
        raise ValueError(f"shapes {measured.shape} and {predicted.shape}; expected (C,) twice")
    figure, axis = plt.subplots(figsize=(4.2, 3.8))
    low, high = np.nanmin([measured, predicted]), np.nanmax([measured, predicted])
    axis.plot([low, high], [low, high], color="0.6", lw=1, label="equal")
    axis.scatter(measured, predicted, s=12, color=BLUE, alpha=0.6, lw=0, label="one channel")
    axis.set(xlabel="score lost without the channel", ylabel="loss along the gradient")
    axis.ticklabel_format(style="sci", scilimits=(0, 0))
    axis.locator_params(nbins=5)
    axis.tick_params(labelsize=9)
    axis.legend(frameon=False, fontsize=9)
    sns.despine(figure)
    return figure


def plot_steps(values: pd.DataFrame, *, ylabel: str) -> Figure:
    """One line for each box and their median, over the steps of a randomization.

    Args:
        values: a row for each box, a column for each step in order.
        ylabel: of the values.

    Raises:
        ValueError: the table has no rows.
    """
    _check_table(values, numbers=list(values))
    figure, axis = plt.subplots(figsize=(6, 3.2))
    steps = np.arange(values.shape[1])
    axis.plot(steps, values.to_numpy().T, color=BLUE, alpha=0.15, lw=0.8)
    axis.plot(steps, values.median(), color=ORANGE, marker="o", lw=2, label="median")
    axis.plot([], [], color=BLUE, alpha=0.4, lw=0.8, label="one box")
    axis.axhline(0, color="0.6", lw=1)
    axis.set(ylabel=ylabel, ylim=(-1.02, 1.02))
    axis.set_xticks(steps, values.columns, fontsize=9)
    axis.tick_params(labelsize=9)
    axis.legend(frameon=False, fontsize=9, loc="lower left")
    sns.despine(figure)
    return figure


def plot_curves(
    curves: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]],
) -> Figure:
    """Mean score while pixels go or come: a panel for each kind, a line for each order.

    Args:
        curves: kind -> order -> (share of the pixels, mean score at each).

    Raises:
        ValueError: there is no curve.
    """
    if not curves or not any(curves.values()):
        raise ValueError("there is no curve to show")
    figure, axes = plt.subplots(
        1, len(curves), figsize=(3.8 * len(curves), 3.2), squeeze=False, sharey=True
    )
    for axis, (kind, lines) in zip(axes.flat, curves.items(), strict=True):
        for name, (share, score) in lines.items():
            axis.plot(_array(share), _array(score), label=name, ms=4, **STYLE.get(name, OTHER))
        axis.set_title(kind, fontsize=10)
        axis.set_xlabel("share of the pixels", fontsize=10)
        axis.tick_params(labelsize=9)
    axes.flat[0].set_ylabel("class probability in the box", fontsize=10)
    axes.flat[-1].legend(frameon=False, fontsize=9)
    sns.despine(figure)
    return figure


def mosaic(
    images: Sequence[np.ndarray],
    maps: Sequence[np.ndarray],
    titles: Sequence[str],
    *,
    truth_boxes: Sequence[np.ndarray],
    found_boxes: Sequence[np.ndarray] | None = None,
    columns: int = 4,
    width: float = 1.8,
) -> Figure:
    """`show_heatmap` for several images; panels that are left over stay empty.

    Raises:
        ValueError: there is no image, or another number of maps, titles or boxes; or as
            `show_heatmap`.
    """
    parts = {"maps": maps, "titles": titles, "truth_boxes": truth_boxes, "found_boxes": found_boxes}
    for name, part in parts.items():
        if part is not None and len(part) != len(images):
            raise ValueError(f"{len(images)} images and {len(part)} {name}; give one for each")
    if not len(images):
        raise ValueError("there is no image to show")
    rows = -(-len(images) // columns)
    figure, axes = panels(rows, columns, width=width)
    for axis in axes.flat:
        axis.set_axis_off()
    for i, axis in enumerate(axes.flat[: len(images)]):
        found = () if found_boxes is None else found_boxes[i]
        show_heatmap(
            axis, images[i], maps[i], title=titles[i], truth_boxes=truth_boxes[i], found_boxes=found
        )
    return figure
