"""Anchors: the shapes that the region proposal network starts from, taken from the boxes.

Paper: Ren et al., Faster R-CNN, https://arxiv.org/abs/1506.01497, section 3.1.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, scipy.
Goes with: boxes.py.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.cluster import vq

from .boxes import as_boxes

PYRAMID_LEVELS = 5  # strides 4, 8, 16, 32 from the stages of the ResNet, and 64 by pooling


@dataclass(frozen=True)
class Anchors:
    """Shapes that the region proposal network starts from.

    Attributes:
        sizes: square root of the area in pixels of the network's input, ascending.
        ratios: height / width, used at every level.
        every_level: use every size at each of the five pyramid levels; otherwise there are five
            sizes, one for each level. With small images all boxes are small, and a size of 18
            pixels on the grid of level 4, whose points lie 16 pixels apart, misses most of them.
    """

    sizes: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    every_level: bool = False

    @property
    def level_sizes(self) -> tuple[tuple[float, ...], ...]:
        """Sizes of each of the five levels."""
        if self.every_level:
            return (self.sizes,) * PYRAMID_LEVELS
        return tuple((size,) for size in self.sizes)


def derive_anchors(
    boxes_xyxy: object,
    *,
    sizes: int = PYRAMID_LEVELS,
    ratios: int = 3,
    every_level: bool = False,
) -> Anchors:
    """Anchors that follow the training boxes instead of COCO's everyday objects.

    Sizes and ratios are the centers of a one-dimensional k-means of the logarithms, started at
    the quantiles, so the result is the same every time.

    Args:
        boxes_xyxy: (N, 4) float, pixels at the size the network works at.
        sizes: how many sizes.
        ratios: how many height / width ratios.
        every_level: see `Anchors`.

    Raises:
        ValueError: these are no boxes (`boxes.as_boxes`), there are fewer of them than anchors,
            or one has no area.

    >>> derive_anchors([[0, 0, 8, 8], [0, 0, 16, 16], [0, 0, 32, 32]], sizes=3, ratios=1).sizes
    (8.0, 16.0, 32.0)
    """
    width, height = _sides(boxes_xyxy)
    if len(width) < max(sizes, ratios):
        raise ValueError(f"{len(width)} boxes are too few for {sizes} sizes, {ratios} ratios")
    centers = _kmeans(np.log2(width * height) / 2, sizes)
    shapes = _kmeans(np.log2(height / width), ratios)
    return Anchors(
        tuple(round(float(2**c), 1) for c in centers),
        tuple(round(float(2**r), 2) for r in shapes),
        every_level,
    )


def anchor_coverage(boxes_xyxy: object, anchors: Anchors, *, iou: float = 0.5) -> float:
    """Share of boxes whose shape some anchor matches at this IoU, both at the same center.

    Raises:
        ValueError: there is no box, or as `derive_anchors`.

    >>> anchor_coverage([[0, 0, 10, 10], [5, 5, 25, 15], [0, 0, 90, 10]], Anchors((10.0,), (1.0,)))
    0.666...
    """
    width, height = (side[:, None] for side in _sides(boxes_xyxy))
    sizes, ratios = (a.ravel() for a in np.meshgrid(anchors.sizes, anchors.ratios))
    a_width, a_height = sizes / np.sqrt(ratios), sizes * np.sqrt(ratios)
    overlap = np.minimum(width, a_width) * np.minimum(height, a_height)
    best = (overlap / (width * height + a_width * a_height - overlap)).max(axis=1)
    return float((best >= iou).mean())


def _sides(boxes_xyxy: object) -> tuple[np.ndarray, np.ndarray]:
    boxes = as_boxes(boxes_xyxy)
    if not len(boxes):
        raise ValueError("no boxes; give one at least, of shape (N, 4)")
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    if (width == 0).any() or (height == 0).any():
        raise ValueError(f"box {boxes[np.argmin(np.minimum(width, height))].tolist()} has no area")
    return width, height


def _kmeans(values: np.ndarray, k: int) -> np.ndarray:
    """(k,) centers in ascending order; a start at the quantiles makes them the same each time."""
    start = np.quantile(values, (np.arange(k) + 0.5) / k)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a center without values stays where it is
        return np.sort(vq.kmeans2(values, start, iter=50, minit="matrix")[0])
