"""Heatmaps as arrays: scale, threshold, and scores of a map against boxes.

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

Sources: pointing game, Zhang et al., https://arxiv.org/abs/1608.00507; energy-based pointing
game, Wang et al., Score-CAM, https://arxiv.org/abs/1910.01279.

From cxr-helpers 0.1.0 (MIT license).
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
    source, shape_hw = _check_map(heatmap), _check_shape(shape_hw)
    if len(covered) != 2 or not all(0 < share <= 1 for share in covered):
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
    holds the box's center. So a small box is never lost.

    Args:
        boxes_xyxy: (n, 4) in pixels, each with an area; n may be 0.
        shape_hw: height and width of the mask.

    Returns:
        bool array of that shape.

    Raises:
        ValueError: a box is turned, has no area or a value that is not finite, lies outside the
            mask, or ends more than a pixel beyond its right or lower edge.

    >>> box_mask([[1, 0, 3, 1]], (2, 4)).astype(int).tolist()
    [[0, 1, 1, 0], [0, 0, 0, 0]]
    """
    height, width = _check_shape(shape_hw)
    boxes = _check_boxes(boxes_xyxy, height, width)
    mask = np.zeros((height, width), dtype=bool)
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    for x_min, y_min, x_max, y_max in boxes:
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
        ValueError: the map or a box is none, or they are not of one image; see `box_mask`.

    >>> pointing_game([[0, 1, 0, 0]], [[1, 0, 3, 1]])
    1.0
    """
    _check_same_shape(heatmap, image_hw)
    peaks = threshold_map(heatmap, 1.0)
    return _share(peaks & box_mask(boxes_xyxy, peaks.shape), peaks)


def energy_in_box(
    heatmap: np.ndarray, boxes_xyxy: np.ndarray, *, image_hw: tuple[int, int] | None = None
) -> float:
    """Share of the map's evidence that lies in the boxes.

    Arguments and errors are those of `pointing_game`.

    >>> energy_in_box([[1, 2, 1, 0]], [[1, 0, 3, 1]])
    0.75
    """
    _check_same_shape(heatmap, image_hw)
    evidence = normalize_map(heatmap)
    return _share(evidence * box_mask(boxes_xyxy, evidence.shape), evidence)


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
    _check_same_shape(heatmap, image_hw)
    region = threshold_map(heatmap, level)
    inside = box_mask(boxes_xyxy, region.shape)
    return _share(region & inside, region | inside)


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
    _check_same_shape(heatmap, image_hw)
    thresholds = _numbers(levels, "list of levels")
    for level in thresholds:
        _check_level(level)
    scaled = normalize_map(heatmap)
    inside = box_mask(boxes_xyxy, scaled.shape)
    region = _count_from(scaled, thresholds)
    overlap = _count_from(scaled[inside], thresholds)
    union = region + inside.sum() - overlap
    return np.divide(overlap, union, out=np.zeros(len(thresholds)), where=union > 0)


def best_iou(
    heatmap: np.ndarray,
    boxes_xyxy: np.ndarray,
    *,
    levels: Sequence[float] = LEVELS,
    image_hw: tuple[int, int] | None = None,
) -> tuple[float, float]:
    """The highest IoU over thresholds, and its threshold. It flatters a map: it knows the box.

    Arguments and errors are those of `iou_at_levels`; there must be a level.
    """
    if not len(levels):
        raise ValueError("there is no level to choose from; give one or more in (0, 1]")
    values = iou_at_levels(heatmap, boxes_xyxy, levels=levels, image_hw=image_hw)
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
    shape_hw = _check_shape(shape_hw)
    if not 0 < sigma < np.inf:
        raise ValueError(f"cannot draw a Gaussian of sigma {sigma}; give a share above 0")
    y, x = (((np.arange(n) + 0.5) / n - 0.5) / sigma for n in shape_hw)
    return np.exp(-0.5 * (y[:, None] ** 2 + x**2))


def box_prior(boxes_xyxy: Sequence[np.ndarray], shape_hw: tuple[int, int]) -> np.ndarray:
    """How often each pixel lies in a box: a baseline that knows where a finding usually is.

    Args:
        boxes_xyxy: for each training image its (n, 4) boxes of one class, in pixels of the map.
        shape_hw: height and width of the map.

    Returns:
        float64 array of that shape in [0, 1]; zeros where there is no image.

    Raises:
        ValueError: as `box_mask`.
    """
    total = np.zeros(_check_shape(shape_hw))
    for boxes in boxes_xyxy:
        total += box_mask(boxes, shape_hw)
    return total / max(1, len(boxes_xyxy))


def _count_from(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """How many values reach each threshold."""
    return values.size - np.searchsorted(np.sort(values, axis=None), thresholds, side="left")


def _check_level(level: float) -> None:
    if isinstance(level, str) or np.ndim(level) or not 0 < level <= 1:
        raise ValueError(f"level {level} is not a share of the maximum, above 0 and at most 1")


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    total = float(whole.sum())
    return float(part.sum()) / total if total > 0 else 0.0


def _numbers(values, name: str) -> np.ndarray:
    """float64 of a list, an array, or a tensor of any device and type."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().double()
    if isinstance(values, (list, tuple)) and any(hasattr(one, "detach") for one in values):
        values = [_numbers(one, name) for one in values]
    try:
        if isinstance(values, np.ma.MaskedArray):  # what is masked is not known
            values = values.astype(float).filled(np.nan)
        array = np.asarray(values)
        if array.dtype.kind not in "buifO":
            raise TypeError(f"they are {array.dtype}")
        return array.astype(float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the {name} holds no plain table of numbers: {error}") from None


def _check_map(heatmap: np.ndarray) -> np.ndarray:
    values = _numbers(heatmap, "map")
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"expected a map (height, width), got shape {values.shape}")
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise ValueError(
            f"the map holds {len(bad)} of {values.size} values that are not finite, the first in "
            f"row {bad[0][0]}, column {bad[0][1]}; leave this map out"
        )
    return values


def _check_same_shape(heatmap: np.ndarray, image_hw: tuple[int, int] | None) -> None:
    if image_hw is not None and np.shape(heatmap) != _check_shape(image_hw):
        raise ValueError(
            f"map of shape {tuple(np.shape(heatmap))} for an image of {tuple(image_hw)}: a map of "
            "another shape is not scored; resize it first, resize_map(heatmap, image_hw)"
        )


def _check_shape(shape_hw: Sequence[int]) -> tuple[int, int]:
    shape = tuple(shape_hw)
    if len(shape) != 2 or any(n != int(n) or n < 1 for n in shape):
        raise ValueError(f"shape {shape} is no (height, width) of whole numbers from 1 on")
    return int(shape[0]), int(shape[1])


def _check_boxes(boxes_xyxy: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes as (n, 4) float64 that lie in a map of this size, but for a pixel."""
    boxes = _numbers(boxes_xyxy, "table of boxes")
    boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"expected boxes of shape (n, 4), got shape {boxes.shape}")
    for box in boxes:
        if not np.isfinite(box).all() or (box[2:] <= box[:2]).any():
            raise ValueError(
                f"boxes must be finite (x_min, y_min, x_max, y_max) with area, got {box.tolist()}"
            )
        x_min, y_min, x_max, y_max = box
        inside = x_min < width and y_min < height and x_max > 0 and y_max > 0
        if not inside or x_max > width + 1 or y_max > height + 1:
            raise ValueError(
                f"boxes must lie in the map, and {box.tolist()} does not in one of {width} x "
                f"{height} (width x height): resize a map smaller than its image with resize_map, "
                "or scale and clip boxes that are in other pixels"
            )
    return boxes
