"""What all figures of the course share: one palette, grids of images, boxes, dots and intervals.

Colors are Okabe and Ito's and come with a marker and a line of their own, so that no figure speaks
by color alone. Boxes are x_min, y_min, x_max, y_max in pixels of the image shown.

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

from cxr_helpers.course.plots._checks import box_array, check_table, floats, gray, some

BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY, BLACK = COLORS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000",
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
MAP = "cividis"
TRUTH = {"color": YELLOW, "linestyle": "--"}  # boxes of readers
FOUND = {"color": SKY, "linestyle": "-"}  # boxes of a detector

_KNOWN = {
    "pretrained": (BLUE, "o", "-"),
    "evening": (BLACK, "v", "-"),
    "random": (ORANGE, "s", "--"),
    "imagenet": (GREEN, "^", ":"),
    "from scratch": (PURPLE, "D", "--"),
    "fine-tuned": (YELLOW, "P", "-"),
    "pixels": ("0.5", "X", ":"),
    "k-NN": (SKY, "v", ":"),
    "channel ablation": (BLUE, "o", "-"),
    "cell ablation": (ORANGE, "s", "--"),
    "linear probe": (SKY, "P", ":"),
    "class prior": (PURPLE, "v", "--"),
    "centered bell": (YELLOW, "D", "-."),
    "bell on the box": (GREEN, "^", "-."),
    "random map": (BLACK, "x", ":"),
    "detected box": ("0.4", "D", "-."),
}
_KNOWN |= {
    "pretrained here": _KNOWN["pretrained"],
    "pretrained for an evening": _KNOWN["evening"],
    "random weights": _KNOWN["random"],
    "16 x 16 pixels": _KNOWN["pixels"],
}


def look(name: str, place: int = 0) -> dict[str, object]:
    """Color, marker and line: of an arm or map the same in every figure, of all else by its place.

    Example:
        >>> look("random")
        {'color': '#D55E00', 'marker': 's', 'linestyle': '--'}
        >>> look("site B", 2)["marker"]
        '^'
    """
    by_place = tuple(kinds[place % len(kinds)] for kinds in (COLORS, MARKERS, LINES))
    return dict(zip(("color", "marker", "linestyle"), _KNOWN.get(name, by_place), strict=True))


def set_style() -> None:
    """Set seaborn's theme, the palette and the resolution for a notebook.

    Example:
        >>> with plt.rc_context():
        ...     set_style()
        ...     plt.rcParams["figure.dpi"]
        100.0
    """
    sns.set_theme(style="ticks", context="notebook", palette=list(COLORS))
    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "figure.titlesize": 12,
            "savefig.dpi": 100,
            "figure.constrained_layout.use": True,
        }
    )


def panels(
    rows: int, columns: int, *, width: float = 1.8, height: float | None = None, **options
) -> tuple[Figure, np.ndarray]:
    """A figure of panels, and its axes as (rows, columns).

    Args:
        rows: of panels.
        columns: of panels.
        width: of a panel in inches.
        height: of a panel in inches; if None, that of a square image under a title.
        **options: of `plt.subplots`.

    Raises:
        ValueError: there is no row or no column.

    Example:
        >>> figure, axes = panels(2, 3)
        >>> axes.shape
        (2, 3)
        >>> plt.close(figure)
    """
    if rows < 1 or columns < 1:
        raise ValueError(f"{rows} rows and {columns} columns of panels show nothing")
    size = (width * columns, (width + 0.3 if height is None else height) * rows)
    return plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)


def grid(count: int, columns: int, **options) -> tuple[Figure, list[Axes]]:
    """As `panels`, for so many in rows of so many columns; places left over stay empty.

    Example:
        >>> figure, axes = grid(4, 3)
        >>> len(axes), len(figure.axes)
        (4, 6)
        >>> plt.close(figure)
    """
    figure, axes = panels(-(-count // columns), columns, **options)
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    return figure, list(axes.flat[:count])


def tidy(figure: Figure, *, text: float | None = 10) -> Figure:
    """No frame at the top and right, names of axes in this size, their numbers a point smaller.

    With `text=None` the sizes stay those of the style.

    Example:
        >>> figure = tidy(plt.figure())
        >>> plt.close(figure)
    """
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
        if text is not None:
            axis.tick_params(labelsize=text - 1)
            axis.xaxis.label.set_size(text)
            axis.yaxis.label.set_size(text)
    return figure


def show_image(axis: Axes, image: np.ndarray, title: str = "", *, text: float = 9) -> None:
    """Draw a gray image from black to white, without axes.

    Args:
        axis: to draw on.
        image: (H, W): uint8, uint16 of the full range, or float in [0, 1]; array or tensor.
        title: of the panel.
        text: size of the title in points.

    Raises:
        ValueError: an image of another shape, type or range.

    Example:
        >>> figure, axes = panels(1, 1)
        >>> show_image(axes[0, 0], np.eye(3), "three pixels a side")
        >>> plt.close(figure)
    """
    pixels, white = gray(image, f"image {title!r}" if title else "image")
    axis.imshow(pixels, cmap="gray", vmin=0, vmax=white)
    axis.set_axis_off()
    axis.set_title(title, fontsize=text)


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
        images: each as in `show_image`.
        titles: one for each image, or none.
        columns: images a row.
        width: of one image in inches.
        boxes: for each image as in `draw_boxes`.

    Raises:
        ValueError: there is no image, one is of another kind, or titles or boxes are not as many.

    Example:
        >>> plt.close(show_images([np.eye(3), np.zeros((3, 3))], ["a line", "black"]))
    """
    titled = len(titles) > 0
    some(images, "image")
    for name, part in (("titles", titles if titled else None), ("boxes", boxes)):
        if part is not None and len(part) != len(images):
            raise ValueError(f"{len(images)} images and {len(part)} {name}; give one for each")
    images = [gray(image, f"image {i}")[0] for i, image in enumerate(images)]
    height = width * max(i.shape[0] / i.shape[1] for i in images) + 0.3 * titled
    figure, axes = grid(len(images), columns, width=width, height=height)
    for i, axis in enumerate(axes):
        show_image(axis, images[i], titles[i] if titled else "")
        if boxes is not None:
            draw_boxes(axis, boxes[i])
    return figure


def draw_boxes(
    axis: Axes,
    boxes: pd.DataFrame | np.ndarray,
    names: Sequence[str] = (),
    *,
    color: str | None = None,
    linestyle: str = "-",
    below: bool = False,
) -> None:
    """Draw boxes on an image, each with its name; boxes of one name side by side share it.

    Args:
        axis: shows the image.
        boxes: (n, 4) pixels of the image, array or tensor; or a table with x_min, y_min, x_max,
            y_max, and `label`, which names the boxes. n may be 0.
        names: one for each box, or none.
        color: of lines and names; if None, one for each name in the order of the alphabet, and
            sky blue without names.
        linestyle: of the lines.
        below: whether the names stand below the boxes, or above, where no other name stands.

    Raises:
        ValueError: the table lacks a column, boxes have another shape, are turned or not finite,
            or there is not one name for each.

    Example:
        >>> figure, axes = panels(1, 1)
        >>> show_image(axes[0, 0], np.zeros((9, 9)))
        >>> draw_boxes(axes[0, 0], np.array([[1, 2, 6, 8]]), ["mass"])
        >>> [text.get_text() for text in axes[0, 0].texts]
        ['mass']
        >>> plt.close(figure)
    """
    corners = box_array(boxes)
    if isinstance(boxes, pd.DataFrame) and len(boxes):
        check_table(boxes, "label")
        names = boxes["label"].tolist()
    if len(names) not in (0, len(corners)):
        raise ValueError(f"{len(names)} names for {len(corners)} boxes; give one for each, or none")
    order, width = sorted(set(names)), max(axis.get_xlim())
    written: list[tuple[str, float, float]] = []
    for i in np.argsort(corners[:, 1], kind="stable"):
        x_min, y_min, x_max, y_max = corners[i]
        place = order.index(names[i]) if len(names) else 0
        own = color or (COLORS[place % 6] if len(names) else SKY)
        size = (x_max - x_min, y_max - y_min)
        axis.add_patch(
            Rectangle((x_min, y_min), *size, fill=False, color=own, lw=1.4, ls=linestyle)
        )
        if not len(names):
            continue
        right = x_min > 0.65 * width  # there the text ends where the box does, in the image
        x, y = x_max if right else x_min, y_max if below else y_min
        near = [np.hypot(x - a, y - b) for name, a, b in written if name == names[i]]
        if min(near, default=width) > 0.2 * width:
            beside = [
                abs(x - a) < 0.35 * width and abs(y - b) < 0.04 * width for _, a, b in written
            ]
            under = below != any(beside)  # where another name stands, on the other side
            y = y_max if under else y_min
            written.append((names[i], x, y))
            axis.text(
                x, y, names[i], fontsize=7, clip_on=True,
                color="white" if own in (BLUE, ORANGE, BLACK) else "black",
                ha="right" if right else "left", va="top" if under else "bottom",
                bbox={"facecolor": own, "edgecolor": "none", "pad": 0.5},
            )  # fmt: skip


def plot_dots(
    table: pd.DataFrame,
    *,
    xlabel: str,
    names: Mapping[str, str] | None = None,
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
        names: of columns in the legend, where they differ from those in the table.
        log: whether the axis is logarithmic.
        width: of the figure in inches.
        reference: where to draw a dashed line to compare with, and what it is.

    Raises:
        ValueError: the table is empty, has more columns than there are markers, or holds what is
            no number or has no place on the axis: infinity, and on a logarithmic one 0 and below.

    Example:
        >>> table = pd.DataFrame({"NIH": [12.0, 3.0]}, index=["effusion", "hernia"])
        >>> plt.close(plot_dots(table, xlabel="images with the label (%)"))
    """
    table = table.to_frame() if isinstance(table, pd.Series) else table
    if table.empty or table.shape[1] > len(MARKERS):
        raise ValueError(f"need 1 to {len(MARKERS)} columns and some rows, not {table.shape}")
    check_table(table, numbers=list(table))
    values = floats(table, "table")
    if not np.isfinite(values).any() or np.isinf(values).any() or (log and (values <= 0).any()):
        raise ValueError(
            f"values from {np.nanmin(values, initial=np.inf):g} to "
            f"{np.nanmax(values, initial=-np.inf):g} have no place on "
            f"{'a logarithmic' if log else 'an'} axis; leave such rows out"
        )
    table = table.sort_values(table.columns[0])
    y, several = np.arange(len(table)), table.shape[1] > 1
    low, high = np.nanmin(values), np.nanmax(values)
    # Ends of the axis leave room beside the outermost dots.
    ends = (0.65 * low, 1.25 * high) if log else (min(-0.02 * high, low), 1.05 * high or 1.0)
    figure, axis = plt.subplots(figsize=(width, 0.23 * len(table) + 0.8))
    start = table.min(axis=1) if several else ends[0]
    axis.hlines(y, start, table.max(axis=1), color="0.8", zorder=1)
    known = [column for column in map(str, table) if column in _KNOWN]
    taken = {look(column)["color"] for column in known}
    free = [place for place, color in enumerate(COLORS) if color not in taken]
    for column in table:
        shown = look(str(column), 0 if str(column) in known else free.pop(0))
        label = (names or {}).get(column, str(column)) if several else None
        sns.scatterplot(
            x=table[column].to_numpy(), y=y, label=label, color=shown["color"],
            marker=shown["marker"], s=45, zorder=2, ax=axis,
        )  # fmt: skip
    axis.set_yticks(y, table.index.astype(str))
    axis.set(xlabel=xlabel, ylabel="", xscale="log" if log else "linear")
    axis.set(xlim=ends, ylim=(-0.7, len(table) - 0.3))
    if log:
        axis.xaxis.set_major_formatter("{x:g}")
    if reference is not None:
        mark_reference(axis, *reference)
    elif several:
        _legend_above(axis)
    return tidy(figure)


def mark_reference(axis: Axes, at: float, name: str) -> None:
    """Draw an upright dashed line to compare with; a legend above the axes names it.

    Example:
        >>> figure, axis = plt.subplots()
        >>> mark_reference(axis, 0.5, "chance")
        >>> plt.close(figure)
    """
    axis.axvline(at, color="0.4", ls="--", lw=1, zorder=0, label=name)
    _legend_above(axis)


def _legend_above(axis: Axes) -> None:
    axis.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=len(MARKERS) + 1, frameon=False, fontsize=9,
        handletextpad=0.4, borderaxespad=0.1,
    )  # fmt: skip


def draw_intervals(
    axis: Axes, table: pd.DataFrame, at: Sequence[float], *, vertical: bool = False, **options
) -> None:
    """Draw values with their intervals; an end that lies beyond its value is not drawn.

    Args:
        axis: to draw on.
        table: columns value, low, high.
        at: where each stands on the other axis.
        vertical: whether the intervals stand upright.
        **options: of `Axes.errorbar`.

    Example:
        >>> figure, axis = plt.subplots()
        >>> table = pd.DataFrame({"value": [0.6], "low": [0.5], "high": [0.8]})
        >>> draw_intervals(axis, table, [0], color=BLUE)
        >>> plt.close(figure)
    """
    ends = [table["value"] - table["low"], table["high"] - table["value"]]
    ends = np.maximum(ends, 0).astype(float)
    if vertical:
        axis.errorbar(at, table["value"], yerr=ends, capsize=2.5, **options)
    else:
        axis.errorbar(table["value"], at, xerr=ends, capsize=2.5, **options)


def plot_estimates(
    table: pd.DataFrame,
    *,
    rows: str = "name",
    groups: str | None = None,
    panels: str | None = None,
    xlabel: str = "",
    zero: float | None = 0.0,
    limits: tuple[float, float] | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """Values with their intervals, a line for each row, in the order of the table.

    Args:
        table: columns value, low, high, and those that are named here. What was not measured in a
            panel or group leaves its place empty.
        rows: column that names the lines.
        groups: column whose values stand side by side on a line, each with its look; may be that
            of the rows.
        panels: column that makes a panel of each of its values, which then names the axis.
        xlabel: with the unit.
        zero: where to draw the line of no effect, or None.
        limits: of the horizontal axes.
        size: width and height of the figure in inches; if None it grows with the table.

    Raises:
        ValueError: the table has no rows, lacks a column, or holds a line twice.

    Example:
        >>> table = pd.DataFrame({"name": ["AUROC"], "value": 0.1, "low": -0.1, "high": 0.3})
        >>> plt.close(plot_estimates(table, xlabel="pretrained - random"))
    """
    by = list(dict.fromkeys(column for column in (rows, groups, panels) if column))
    check_table(table, *by, numbers=("value", "low", "high"), once=by)
    lines, shown = list(dict.fromkeys(table[rows])), table[panels].unique() if panels else [xlabel]
    sets = list(dict.fromkeys(table[groups])) if groups else [None]
    beside = groups and groups != rows
    width = 1 + 2.3 * len(shown) if panels else 7 if beside else 6
    size = size or (width, 0.4 * len(lines) + (1.2 if panels or beside else 1))
    figure, axes = plt.subplots(1, len(shown), figsize=size, squeeze=False, sharey=True)
    for axis, panel in zip(axes.flat, shown, strict=True):
        part = table[table[panels] == panel] if panels else table
        if zero is not None:
            axis.axvline(zero, color="0.6", lw=1)
        for i, name in enumerate(sets):
            own = part[part[groups] == name] if groups else part
            y = [len(lines) - 1 - lines.index(line) for line in own[rows]]
            shift = 0.24 * ((len(sets) - 1) / 2 - i) if beside else 0
            style = look(name, i) | {"linestyle": "none", "label": name}
            draw_intervals(axis, own, np.add(y, shift), **style)
        axis.set(xlabel=panel, ylim=(-0.6, len(lines) - 0.4), xlim=limits)
        axis.locator_params(axis="x", nbins=4 if panels else 6)  # small differences are long
    axes.flat[0].set_yticks(range(len(lines)), lines[::-1])
    if beside:
        axes.flat[-1].legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    return tidy(figure, text=10 if panels else None)
