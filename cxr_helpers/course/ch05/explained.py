"""Which boxes notebook 05 explains, and their maps.

All boxes are xyxy in pixels of the packed images. Maps have the size of the radiograph in them,
without the black that makes it square: nothing is to be seen there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from torch import nn

from cxr_helpers.course.core.data import BoxData
from cxr_helpers.data.packed import PackedImages
from cxr_helpers.detection.boxes import box_iou
from cxr_helpers.explanation import ablation_fast, heatmaps


@dataclass(frozen=True)
class Finding:
    """A detection to explain, and the readers' boxes of its class in that image.

    Attributes:
        row: of the image.
        label: class from 1.
        score: of the detection.
        box: (4,) as detected.
        readers: (n, 4) the readers' fused boxes of the class.
        name: of the class.
    """

    row: int
    label: int
    score: float
    box: np.ndarray
    readers: np.ndarray
    name: str

    @property
    def placed(self) -> bool:
        """Whether the detection overlaps a reader's box by half (IoU)."""
        return bool(box_iou([self.box], self.readers).max() >= 0.5)


def choose(
    data: BoxData,
    rows: np.ndarray,
    found: Sequence[Mapping[str, np.ndarray]],
    *,
    threshold: float,
    max_images: int,
) -> list[Finding]:
    """In each image the best detection of each class that the readers saw there, if any.

    Args:
        data: gives the truth.
        rows: images.
        found: detections in each of them.
        threshold: least score.
        max_images: the first so many rows are used.
    """
    chosen = []
    pairs = zip(rows, data.truths(rows), found, strict=True)
    for row, truth, one in list(pairs)[:max_images]:
        for label in np.unique(truth["labels"]):
            candidates = np.flatnonzero((one["labels"] == label) & (one["scores"] >= threshold))
            if len(candidates):
                best = candidates[one["scores"][candidates].argmax()]
                readers = truth["boxes"][truth["labels"] == label]
                score, box = float(one["scores"][best]), one["boxes"][best]
                name = data.class_names[label - 1]
                chosen.append(Finding(int(row), int(label), score, box, readers, name))
    return chosen


def shared(first: Sequence[Finding], second: Sequence[Finding]) -> list[tuple[Finding, Finding]]:
    """The same class in the same image, placed by two detectors.

    Returns:
        Pairs; the pair whose less sure detection is surest comes first.
    """
    theirs = by_key(second)
    pairs = [(f, theirs[key]) for key, f in by_key(first).items() if key in theirs]
    placed = [(a, b) for a, b in pairs if a.placed and b.placed]
    return sorted(placed, key=lambda p: (-min(p[0].score, p[1].score), p[0].row, p[0].label))


def by_key(items: Sequence[Finding]) -> dict[tuple[int, int], Finding]:
    """Findings by row and label."""
    return {(item.row, item.label): item for item in items}


def ablations(
    detector: nn.Module, data: BoxData, items: Sequence[Finding], *, layer: str
) -> Iterator[tuple[Finding, ablation_fast.BoxAblation]]:
    """The fast Ablation-CAM of each finding; the findings of one image share its computation.

    Yields:
        Finding and ablation, image by image.
    """
    for row, group in groupby(sorted(items, key=lambda f: f.row), key=lambda f: f.row):
        here = list(group)
        boxes, labels = [f.box for f in here], [f.label for f in here]
        image = np.asarray(data.images.pixels[row])
        made = ablation_fast.ablate_boxes(detector, image, boxes, labels, layer=layer)
        yield from zip(here, made, strict=True)


def on_image(ablation: ablation_fast.BoxAblation, images: PackedImages, row: int) -> np.ndarray:
    """A map scaled to [0, 1] and to the radiograph in this row, (h, w) of its `filled_hw`.

    A cell is drawn over the pixels that the pyramid's nearest upsampling spreads it to, and not
    around the first of them, half a cell further up and left, where a strided convolution looks.
    """
    shape = tuple(images.filled_hw[row])
    covered = tuple(c * n / images.size for c, n in zip(ablation.covered, shape, strict=True))
    resized = heatmaps.resize_map(ablation.heatmap, shape, covered=covered)
    return heatmaps.normalize_map(resized)


def heatmap_of(detector: nn.Module, data: BoxData, item: Finding, *, layer: str) -> np.ndarray:
    """The fast Ablation-CAM of one finding, in [0, 1] and of the radiograph's size."""
    ((_, ablation),) = ablations(detector, data, [item], layer=layer)
    return on_image(ablation, data.images, item.row)
