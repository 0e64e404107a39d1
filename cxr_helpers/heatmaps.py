"""Heatmaps as arrays: scale, threshold, and scores of a map against boxes.

A map is (H, W), finite, of any scale; only its values above zero count as evidence. Boxes are
xyxy in pixels of the map; what lies outside the map is cut off. Every score is a number in
[0, 1] for every such input:

- a map of zeros points nowhere and scores 0;
- a constant positive map points everywhere and scores what chance does, the boxes' share of the
  area;
- without a box (or with all boxes outside the map) nothing can be inside one, so the score is 0;
  an average over images should leave such images out.

Sources: pointing game, Zhang et al., https://arxiv.org/abs/1608.00507; energy-based pointing
game, Wang et al., Score-CAM, https://arxiv.org/abs/1910.01279.

Needs: numpy, scipy.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

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
    source = _check_map(heatmap)
    if min(shape_hw) < 1:
        raise ValueError(f"cannot resize a map to {tuple(shape_hw)}")
    if not all(0 < share <= 1 for share in covered):
        raise ValueError(f"covered {covered}: expected two shares above 0 and at most 1")
    axes = [
        np.clip((np.arange(new) + 0.5) * old * share / new - 0.5, 0, old - 1)
        for new, old, share in zip(shape_hw, source.shape, covered, strict=True)
    ]
    grid = np.meshgrid(*axes, indexing="ij")
    return ndimage.map_coordinates(source, grid, order=1, mode="nearest")


def threshold_map(heatmap: np.ndarray, level: float) -> np.ndarray:
    """Pixels with at least `level` of the map's maximum.

    Args:
        heatmap: (H, W) finite.
        level: share of the maximum, above 0 and at most 1.

    Returns:
        (H, W) bool; all False for a map without evidence.
    """
    _check_level(level)
    scaled = normalize_map(heatmap)
    return (scaled >= level) & (scaled > 0)


def map_to_boxes(heatmap: np.ndarray, level: float) -> np.ndarray:
    """Boxes around the connected regions of the thresholded map, the largest region first.

    Returns:
        (n, 4) float64 xyxy in pixels.
    """
    regions, count = ndimage.label(threshold_map(heatmap, level))
    sizes = ndimage.sum_labels(regions > 0, regions, np.arange(1, count + 1))
    slices = ndimage.find_objects(regions)
    boxes = [
        (slices[i][1].start, slices[i][0].start, slices[i][1].stop, slices[i][0].stop)
        for i in np.argsort(-sizes, kind="stable")
    ]
    return np.array(boxes, dtype=float).reshape(-1, 4)


def box_mask(boxes_xyxy: np.ndarray, shape_hw: tuple[int, int]) -> np.ndarray:
    """Pixels inside at least one box.

    A pixel is inside when its center is; a box that holds no pixel's center marks the pixel that
    holds the box's center. So a small box is never lost, and one outside marks nothing.

    Args:
        boxes_xyxy: (n, 4) float, pixels; n may be 0.
        shape_hw: height and width of the mask.

    Returns:
        bool array of that shape.

    >>> box_mask([[1, 0, 3, 1]], (2, 4)).astype(int).tolist()
    [[0, 1, 1, 0], [0, 0, 0, 0]]
    """
    boxes = np.asarray(boxes_xyxy, dtype=float)
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise ValueError(f"expected finite boxes of shape (n, 4), got shape {boxes.shape}")
    if (boxes[:, 2:] < boxes[:, :2]).any():
        raise ValueError(f"boxes must be (x_min, y_min, x_max, y_max), got {boxes.tolist()}")
    height, width = shape_hw
    mask = np.zeros((height, width), dtype=bool)
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    for x_min, y_min, x_max, y_max in boxes:
        columns, rows = (x >= x_min) & (x < x_max), (y >= y_min) & (y < y_max)
        center_x, center_y = (x_min + x_max) / 2, (y_min + y_max) / 2
        if 0 <= center_x < width and 0 <= center_y < height:
            columns[int(center_x)] = rows[int(center_y)] = True
        mask |= rows[:, None] & columns
    return mask


def pointing_game(heatmap: np.ndarray, boxes_xyxy: np.ndarray) -> float:
    """Whether the map's maximum lies in a box: 1 or 0, or between for several equal maxima.

    >>> pointing_game([[0, 1, 0, 0]], [[1, 0, 3, 1]])
    1.0
    """
    peaks = threshold_map(heatmap, 1.0)
    return _share(peaks & box_mask(boxes_xyxy, peaks.shape), peaks)


def energy_in_box(heatmap: np.ndarray, boxes_xyxy: np.ndarray) -> float:
    """Share of the map's evidence that lies in the boxes.

    >>> energy_in_box([[1, 2, 1, 0]], [[1, 0, 3, 1]])
    0.75
    """
    evidence = normalize_map(heatmap)
    return _share(evidence * box_mask(boxes_xyxy, evidence.shape), evidence)


def iou_at(heatmap: np.ndarray, boxes_xyxy: np.ndarray, *, level: float = 0.5) -> float:
    """IoU of the thresholded map and the boxes' area.

    >>> round(iou_at([[1, 2, 1, 0]], [[1, 0, 3, 1]], level=0.5), 3)
    0.667
    """
    region = threshold_map(heatmap, level)
    inside = box_mask(boxes_xyxy, region.shape)
    return _share(region & inside, region | inside)


def iou_at_levels(
    heatmap: np.ndarray, boxes_xyxy: np.ndarray, *, levels: Sequence[float] = LEVELS
) -> np.ndarray:
    """`iou_at` for several thresholds at once.

    To score maps at one threshold, choose the one with the highest mean on validation images.

    Args:
        heatmap: (H, W) finite.
        boxes_xyxy: (n, 4) pixels; n may be 0.
        levels: L shares of the maximum, each above 0 and at most 1.

    Returns:
        (L,) float64.

    >>> iou_at_levels([[1, 2, 4, 0]], [[2, 0, 3, 1]], levels=(0.2, 0.5, 0.9)).round(2).tolist()
    [0.33, 0.5, 1.0]
    """
    for level in levels:
        _check_level(level)
    scaled = normalize_map(heatmap)
    inside = box_mask(boxes_xyxy, scaled.shape)
    thresholds = np.asarray(levels, dtype=float)
    region = _count_from(scaled, thresholds)
    overlap = _count_from(scaled[inside], thresholds)
    union = region + inside.sum() - overlap
    return np.divide(overlap, union, out=np.zeros(len(thresholds)), where=union > 0)


def best_iou(
    heatmap: np.ndarray, boxes_xyxy: np.ndarray, *, levels: Sequence[float] = LEVELS
) -> tuple[float, float]:
    """The highest IoU over thresholds, and its threshold. It flatters a map: it knows the box."""
    values = iou_at_levels(heatmap, boxes_xyxy, levels=levels)
    best = int(np.argmax(values))
    return float(values[best]), float(levels[best])


def centered_gaussian(shape_hw: tuple[int, int], *, sigma: float = 0.25) -> np.ndarray:
    """The map that a lazy reader would draw: a bell in the middle, whatever the image shows.

    Args:
        shape_hw: height and width.
        sigma: standard deviation as a share of each side.

    Returns:
        float64 array of that shape, maximum near 1.
    """
    if min(shape_hw) < 1 or sigma <= 0:
        raise ValueError(f"cannot draw a Gaussian of sigma {sigma} on {tuple(shape_hw)}")
    y, x = (((np.arange(n) + 0.5) / n - 0.5) / sigma for n in shape_hw)
    return np.exp(-0.5 * (y[:, None] ** 2 + x**2))


def box_prior(boxes_xyxy: Sequence[np.ndarray], shape_hw: tuple[int, int]) -> np.ndarray:
    """How often each pixel lies in a box: a baseline that knows where a finding usually is.

    Args:
        boxes_xyxy: for each training image its (n, 4) boxes of one class, in pixels of the map.
        shape_hw: height and width of the map.

    Returns:
        float64 array of that shape in [0, 1]; zeros where there is no image.
    """
    total = np.zeros(shape_hw)
    for boxes in boxes_xyxy:
        total += box_mask(boxes, shape_hw)
    return total / max(1, len(boxes_xyxy))


def _count_from(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """How many values reach each threshold."""
    return values.size - np.searchsorted(np.sort(values, axis=None), thresholds, side="left")


def _check_level(level: float) -> None:
    if not 0 < level <= 1:
        raise ValueError(f"level {level} is not a share of the maximum, above 0 and at most 1")


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    total = float(whole.sum())
    return float(part.sum()) / total if total > 0 else 0.0


def _check_map(heatmap: np.ndarray) -> np.ndarray:
    values = np.asarray(heatmap, dtype=float)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"expected a map (height, width), got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("the map holds values that are not finite; was its score zero?")
    return values
