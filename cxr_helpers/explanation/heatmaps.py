"""Heatmaps as arrays: scale, size, and scores of a map against boxes.

A map is (H, W), finite, of any scale; only its values above zero count as evidence. Boxes are
xyxy in pixels of the map. So a map smaller than its image, such as the activations of a layer, is
resized first (`resize_map`). A box that ends more than a pixel beyond the map's right or lower
edge, or lies outside it, is refused, for then map and image differ; up to there it is cut off. A
small map is not always found out that way: give `image_hw`, and each map of another shape is
refused. Maps and boxes are arrays, lists or tensors. Every score is a number in [0, 1]:

- a map of zeros points nowhere and scores 0;
- a constant positive map points everywhere and scores what chance does, the boxes' share of the
  area;
- without a box nothing can be inside one, so the score is 0; an average over images should leave
  such images out.

A map, a box, a level or a shape that is none raises `inputs.ExplanationError`, which is a
ValueError, everywhere.

Sources: pointing game, Zhang et al., https://arxiv.org/abs/1608.00507; energy-based pointing
game, Wang et al., Score-CAM, https://arxiv.org/abs/1910.01279.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, scipy.
Goes with: inputs.py.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from .inputs import ExplanationError, check_boxes, numbers

LEVELS = tuple(np.arange(1, 20) / 20)  # thresholds as shares of the maximum


def normalize_map(heatmap: np.ndarray) -> np.ndarray:
    """Scale the evidence (values above zero) to [0, 1].

    Args:
        heatmap: (H, W) finite.

    Returns:
        (H, W) float64, maximum 1; all zeros where nothing is above zero.

    >>> normalize_map([[-1.0, 0.0, 2.0, 4.0]]).tolist()
    [[0.0, 0.0, 0.5, 1.0]]
    """
    evidence = np.clip(_check_map(heatmap), 0, None)
    top = evidence.max()
    return evidence / top if top > 0 else evidence


def resize_map(
    heatmap: np.ndarray,
    shape_hw: tuple[int, int],
    *,
    covered: tuple[float, float] = (1.0, 1.0),
) -> np.ndarray:
    """Bilinear resize, pixel centers aligned (as torch's `align_corners=False`).

    Args:
        heatmap: (H, W) finite.
        shape_hw: height and width of the result.
        covered: share of the map's height and width, from the upper left, that the result shows;
            a network that pads its input draws the rest of the map over the padding.

    Returns:
        float64 array of that shape.

    >>> resize_map([[1.0, 3.0]], (1, 4)).tolist()
    [[1.0, 1.5, 2.5, 3.0]]
    >>> resize_map([[1.0, 3.0]], (1, 2), covered=(1.0, 0.5)).tolist()
    [[1.0, 1.5]]
    """
    source, shape_hw = _check_map(heatmap), _check_shape(shape_hw)
    if len(covered) != 2 or not all(0 < share <= 1 for share in covered):
        raise ExplanationError(f"covered {covered}: expected two shares above 0 and at most 1")
    axes = [
        np.clip((np.arange(new) + 0.5) * old * share / new - 0.5, 0, old - 1)
        for new, old, share in zip(shape_hw, source.shape, covered, strict=True)
    ]
    grid = np.meshgrid(*axes, indexing="ij")
    return ndimage.map_coordinates(source, grid, order=1, mode="nearest")


def box_mask(boxes_xyxy: np.ndarray, shape_hw: tuple[int, int]) -> np.ndarray:
    """Pixels inside at least one box.

    A pixel is inside when its center is; a box that holds no pixel's center marks the pixel that
    holds the box's center. So a small box is never lost.

    Args:
        boxes_xyxy: (n, 4) in pixels, each with an area; n may be 0.
        shape_hw: height and width of the mask.

    Returns:
        bool array of that shape.

    Raises:
        ExplanationError: a box is turned, has no area or a value that is not finite, lies outside
            the mask, or ends more than a pixel beyond its right or lower edge.

    >>> box_mask([[1, 0, 3, 1]], (2, 4)).astype(int).tolist()
    [[0, 1, 1, 0], [0, 0, 0, 0]]
    """
    height, width = _check_shape(shape_hw)
    mask = np.zeros((height, width), dtype=bool)
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    for box in check_boxes(boxes_xyxy):
        x_min, y_min, x_max, y_max = box
        inside = x_min < width and y_min < height and x_max > 0 and y_max > 0
        if not inside or x_max > width + 1 or y_max > height + 1:
            raise ExplanationError(
                f"boxes must lie in the map, and {box.tolist()} does not in one of {width} x "
                f"{height} (width x height): resize a map smaller than its image with resize_map, "
                "or scale and clip boxes that are in other pixels"
            )
        columns, rows = (x >= x_min) & (x < x_max), (y >= y_min) & (y < y_max)
        center_x, center_y = (x_min + x_max) / 2, (y_min + y_max) / 2
        if 0 <= center_x < width and 0 <= center_y < height:
            columns[int(center_x)] = rows[int(center_y)] = True
        mask |= rows[:, None] & columns
    return mask


def pointing_game(
    heatmap: np.ndarray, boxes_xyxy: np.ndarray, *, image_hw: tuple[int, int] | None = None
) -> float:
    """Whether the map's maximum lies in a box: 1 or 0, or between for several equal maxima.

    Args:
        heatmap: (H, W) finite.
        boxes_xyxy: (n, 4) pixels of the map; n may be 0.
        image_hw: height and width of the image that the boxes are in, where it shall be checked
            that the map has its shape.

    Raises:
        ExplanationError: the map or a box is none, or they are not of one image; see `box_mask`.

    >>> pointing_game([[0, 1, 0, 0]], [[1, 0, 3, 1]])
    1.0
    """
    scaled, inside = _map_and_mask(heatmap, boxes_xyxy, image_hw)
    return _share_inside(scaled == 1, inside)


def energy_in_box(
    heatmap: np.ndarray, boxes_xyxy: np.ndarray, *, image_hw: tuple[int, int] | None = None
) -> float:
    """Share of the map's evidence that lies in the boxes.

    Arguments and errors are those of `pointing_game`.

    >>> energy_in_box([[1, 2, 1, 0]], [[1, 0, 3, 1]])
    0.75
    """
    return _share_inside(*_map_and_mask(heatmap, boxes_xyxy, image_hw))


def iou_at(
    heatmap: np.ndarray,
    boxes_xyxy: np.ndarray,
    *,
    level: float = 0.5,
    image_hw: tuple[int, int] | None = None,
) -> float:
    """IoU of the map thresholded at `level` of its maximum and the boxes' area.

    The other arguments and the errors are those of `pointing_game`.

    >>> round(iou_at([[1, 2, 1, 0]], [[1, 0, 3, 1]], level=0.5), 3)
    0.667
    """
    return float(iou_at_levels(heatmap, boxes_xyxy, levels=(level,), image_hw=image_hw)[0])


def iou_at_levels(
    heatmap: np.ndarray,
    boxes_xyxy: np.ndarray,
    *,
    levels: Sequence[float] = LEVELS,
    image_hw: tuple[int, int] | None = None,
) -> np.ndarray:
    """`iou_at` for several thresholds at once.

    To score maps at one threshold, choose the one with the highest mean on validation images.

    Args:
        heatmap: (H, W) finite.
        boxes_xyxy: (n, 4) pixels of the map; n may be 0.
        levels: L shares of the maximum, each above 0 and at most 1.
        image_hw: as in `pointing_game`.

    Returns:
        (L,) float64.

    >>> iou_at_levels([[1, 2, 4, 0]], [[2, 0, 3, 1]], levels=(0.2, 0.5, 0.9)).round(2).tolist()
    [0.33, 0.5, 1.0]
    """
    scaled, inside = _map_and_mask(heatmap, boxes_xyxy, image_hw)
    thresholds = numbers(levels, "list of levels")
    if thresholds.ndim != 1 or not ((thresholds > 0) & (thresholds <= 1)).all():
        raise ExplanationError(
            f"level {levels} is not a share of the maximum, above 0 and at most 1"
        )
    region = _count_from(scaled, thresholds)
    overlap = _count_from(scaled[inside], thresholds)
    union = region + inside.sum() - overlap
    return np.divide(overlap, union, out=np.zeros(len(thresholds)), where=union > 0)


def centered_gaussian(
    shape_hw: tuple[int, int], *, box_xyxy: Sequence[float] | None = None
) -> np.ndarray:
    """A bell in the middle of the image or of a box: the map of someone who has not looked.

    Args:
        shape_hw: height and width.
        box_xyxy: the box; without one, the whole image.

    Returns:
        float64 array of that shape, maximum near 1; the standard deviation is a quarter of each
        side, at least a pixel.

    >>> centered_gaussian((1, 4)).round(2).tolist()
    [[0.32, 0.88, 0.88, 0.32]]
    """
    height, width = _check_shape(shape_hw)
    box = (0, 0, width, height) if box_xyxy is None else box_xyxy
    ((x_min, y_min, x_max, y_max),) = check_boxes([box])
    y = (np.arange(height) + 0.5 - (y_min + y_max) / 2) / max(1, (y_max - y_min) / 4)
    x = (np.arange(width) + 0.5 - (x_min + x_max) / 2) / max(1, (x_max - x_min) / 4)
    return np.exp(-0.5 * (y[:, None] ** 2 + x**2))


def box_prior(boxes_xyxy: Sequence[np.ndarray], shape_hw: tuple[int, int]) -> np.ndarray:
    """How often each pixel lies in a box: a baseline that knows where a finding usually is.

    Args:
        boxes_xyxy: for each training image its (n, 4) boxes of one class, in pixels of the map.
        shape_hw: height and width of the map.

    Returns:
        float64 array of that shape in [0, 1]; zeros where there is no image.

    >>> box_prior([[[0, 0, 2, 1]], [[1, 0, 3, 1]]], (1, 4)).tolist()
    [[0.5, 1.0, 0.5, 0.0]]
    """
    total = np.zeros(_check_shape(shape_hw))
    for boxes in boxes_xyxy:
        total += box_mask(boxes, shape_hw)
    return total / max(1, len(boxes_xyxy))


def _map_and_mask(
    heatmap: np.ndarray, boxes_xyxy: np.ndarray, image_hw: tuple[int, int] | None
) -> tuple[np.ndarray, np.ndarray]:
    """The map scaled to [0, 1] and the boxes' pixels, after all refusals."""
    scaled = normalize_map(heatmap)
    if image_hw is not None and scaled.shape != _check_shape(image_hw):
        raise ExplanationError(
            f"map of shape {scaled.shape} for an image of {tuple(image_hw)}: a map of another "
            "shape is not scored; resize it first, resize_map(heatmap, image_hw)"
        )
    return scaled, box_mask(boxes_xyxy, scaled.shape)


def _share_inside(values: np.ndarray, inside: np.ndarray) -> float:
    total = float(values.sum())
    return float(values[inside].sum()) / total if total > 0 else 0.0


def _count_from(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """How many values reach each threshold."""
    return values.size - np.searchsorted(np.sort(values, axis=None), thresholds, side="left")


def _check_map(heatmap: np.ndarray) -> np.ndarray:
    values = numbers(heatmap, "map")
    if values.ndim != 2 or 0 in values.shape:
        raise ExplanationError(f"expected a map (height, width), got shape {values.shape}")
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise ExplanationError(
            f"the map holds {len(bad)} of {values.size} values that are not finite, the first in "
            f"row {bad[0][0]}, column {bad[0][1]}; leave this map out"
        )
    return values


def _check_shape(shape_hw: Sequence[int]) -> tuple[int, int]:
    shape = tuple(shape_hw)
    if len(shape) != 2 or any(n != int(n) or n < 1 for n in shape):
        raise ExplanationError(f"shape {shape} is no (height, width) of whole numbers from 1 on")
    return int(shape[0]), int(shape[1])
