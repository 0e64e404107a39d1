"""The exercise of notebook 05 that ends in a figure: an Ablation-CAM map and its box.

How to add one: the head of engine.py says it.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.patches import Rectangle

from cxr_helpers.course.exercises.ch05 import map_from_channels, signed
from cxr_helpers.course.exercises.engine import Exercise
from cxr_helpers.course.exercises.figures import drawn_series, drawn_then, judge_figure, no_names
from cxr_helpers.explanation import heatmaps

SIDE = 64  # pixels of the practice image


def practice_box() -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """An invented box of a 64 x 64 image: score, scores without each channel, maps, box.

    Returns:
        Score; (5,) scores; (5, 8, 8) maps, one cell for 8 x 8 pixels; the box, xyxy in pixels.
    """
    places = [(3, 5, 1.0), (4, 6, 1.5), (6, 1, 1.2), (1, 1, 2.0), (0, 7, 1.0)]
    y, x = np.mgrid[:8, :8]
    maps = [np.exp(-((y - r) ** 2 + (x - c) ** 2) / (2 * s**2)) for r, c, s in places]
    ablated = np.array([0.3, 0.6, 0.9, 0.75, 0.8])
    return 0.8, ablated, np.stack(maps).round(3), np.array([32.0, 16, 56, 40])


def map_figure(axis, score, ablated, maps, box):
    """The map over the area of the image, and the box in its pixels."""
    heatmap = np.maximum(np.tensordot((score - ablated) / score, maps, axes=1), 0)
    axis.imshow(heatmap, cmap="magma", extent=(0, 64, 64, 0))
    x_min, y_min, x_max, y_max = box
    axis.plot([x_min, x_max, x_max, x_min, x_min], [y_min, y_min, y_max, y_max, y_min], "c--")
    axis.set(xlabel="x (pixels)", ylabel="y (pixels)")


def _draws(heatmap_of=map_from_channels, *, extent=(0, SIDE, SIDE, 0), origin="upper", ends=False):
    """A function that draws like `map_figure`, with one thing done otherwise."""

    def draw(axis, score, ablated, maps, box):
        heatmap = heatmap_of(score, ablated, maps)
        axis.imshow(heatmap, extent=extent, origin=origin)
        size = box[2:] if ends else box[2:] - box[:2]
        axis.add_patch(Rectangle(box[:2], *size, fill=False))
        axis.set(xlabel="x (pixels)", ylabel="y (pixels)")

    return draw


NO_MAP = "There is no picture on the axis; axis.imshow draws the map as one."
OTHER_MAP = "The picture is not the Ablation-CAM map of these channels. Compare with exercise 5.2."
SIGNED = "What is below zero speaks against the box: cut the map at zero before you draw it."
EVEN = "All channels count the same here. Weigh each by the share of the score that it holds."
OFF = (
    "Map and box do not fit: the box is in pixels of the image, 0 to 64, and a cell of the map "
    "covers 8 of them. imshow(..., extent=(0, 64, 64, 0)) stretches the map over the image."
)
UPSIDE_DOWN = "The image's first row belongs at the top: here the y axis points up."
NO_BOX = "The map is right. Now draw the box on it, as a Rectangle or as a closed line."
ENDS = "Rectangle takes a corner, then width and height: x_max - x_min and y_max - y_min."


def _problem(axis: Axes) -> str | None:
    score, ablated, maps, box = practice_box()
    wanted = map_from_channels(score, ablated, maps)
    pictures = _pictures(axis)
    if not pictures:
        return NO_MAP
    covered = [covers for values, covers in pictures if _shows(values, wanted)]
    if not covered:
        return _why_other(pictures, signed(score, ablated, maps), maps.mean(axis=0))
    if not any(np.allclose(covers, [0, SIDE, 0, SIDE], atol=0.6) for covers in covered):
        return OFF
    if not axis.yaxis_inverted():
        return UPSIDE_DOWN
    return _box_problem(axis, box)


def _pictures(axis: Axes) -> list[tuple[np.ndarray, list[float]]]:
    """Values of each picture, masked ones as 0; its left and right, and its first and last row."""
    found = []
    for image in axis.images:
        left, right, bottom, top = image.get_extent()
        rows = [top, bottom] if image.origin == "upper" else [bottom, top]
        found.append((image.get_array(), [left, right, *rows]))
    for mesh in axis.collections:
        if isinstance(mesh, QuadMesh):
            (left, first), (right, last) = mesh.get_coordinates()[[0, -1], [0, -1]]
            found.append((mesh.get_array(), [left, right, first, last]))
    return [(np.ma.filled(values, 0).astype(float), covers) for values, covers in found]


def _why_other(pictures: list, signed: np.ndarray, even: np.ndarray) -> str:
    if any(_shows(values, signed) for values, _ in pictures):
        return SIGNED
    return EVEN if any(_shows(values, even) for values, _ in pictures) else OTHER_MAP


def _shows(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether a picture is this map at any scale, as it is or stretched over the image."""
    larger = [np.kron(wanted, np.ones((8, 8))), heatmaps.resize_map(wanted, (SIDE, SIDE))]
    return found.max() > 0 and (
        any(_alike(found, one, 1e-3) for one in (wanted, *larger)) or _is_smoothed(found, wanted)
    )


def _alike(found: np.ndarray, wanted: np.ndarray, tolerance: float) -> bool:
    same_shape = found.shape == wanted.shape
    return same_shape and np.allclose(
        found / found.max(), wanted / wanted.max(), atol=tolerance, rtol=0
    )


def _is_smoothed(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether a picture of 64 x 64 is the map, enlarged by curves: they dip a little below zero."""
    if found.shape != (SIDE, SIDE) or wanted.min() < 0 or found.min() < -0.05 * found.max():
        return False
    return _alike(found.reshape(8, 8, 8, 8).mean(axis=(1, 3)), wanted, 0.06)


def _box_problem(axis: Axes, box: np.ndarray) -> str | None:
    found = [patch.get_bbox().extents for patch in axis.patches if isinstance(patch, Rectangle)]
    found += [np.concatenate([s.min(axis=0), s.max(axis=0)]) for s in drawn_series(axis) if len(s)]
    if any(np.allclose(one, box, atol=0.6) for one in found):
        return None
    ends = [*box[:2], *(box[:2] + box[2:])]
    return ENDS if any(np.allclose(one, ends, atol=0.6) for one in found) else NO_BOX


EXERCISES = (
    Exercise(
        number="5.8",
        title="your figure: a map and its box",
        minutes=30,
        reference=map_figure,
        mistakes=(
            (_draws(signed), SIGNED),
            (_draws(lambda s, a, m: m.mean(axis=0)), EVEN),
            (_draws(lambda s, a, m: m[0]), OTHER_MAP),
            (_draws(extent=None), OFF),
            (_draws(extent=(0, SIDE, 0, SIDE)), OFF),
            (_draws(extent=(0, SIDE, 0, SIDE), origin="lower"), UPSIDE_DOWN),
            (drawn_then(map_figure, lambda axis: axis.lines[0].remove()), NO_BOX),
            (_draws(ends=True), ENDS),
            (lambda axis, *_: axis.plot([1, 2], [1, 2]), NO_MAP),
            (drawn_then(map_figure, no_names), "name both axes"),
        ),
        hints=(
            "The map first: exercise 5.2, from score, ablated and maps.",
            "axis.imshow(heatmap, extent=(0, 64, 64, 0)) draws it in pixels of the image.",
            "The box as a line through its corners, or as a Rectangle from matplotlib.patches.",
        ),
        why="In this invented map most of the evidence lies in the box; in the notebook's maps "
        "of channels most of it lies beside the box. It comes from channels that matter for the "
        "box and are active elsewhere too: Ablation-CAM weighs whole channels.",
        judge=judge_figure(_problem, practice_box),
    ),
)
