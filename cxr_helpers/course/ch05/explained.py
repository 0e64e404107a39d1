"""Which boxes notebook 05 explains, and their maps.

All boxes are xyxy in pixels of the packed images. Maps have the size of the radiograph in them,
without the black that makes it square: nothing is to be seen there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from torch import nn

from cxr_helpers.course.ch04 import experiment
from cxr_helpers.course.core.data import BoxData
from cxr_helpers.course.core.settings import Settings
from cxr_helpers.data.packed import PackedImages
from cxr_helpers.detection.boxes import box_iou
from cxr_helpers.explanation import ablation_fast, cells, heatmaps
from cxr_helpers.explanation.probe_map import ProbeMaps

CHANNELS, CELLS, PROBE = "channel ablation", "cell ablation", "linear probe"
WAYS = (CHANNELS, CELLS, PROBE)


class LayerMap(Protocol):
    """What `BoxAblation`, `CellAblation` and `ProbeMap` have in common."""

    signed_map: np.ndarray
    heatmap: np.ndarray
    covered: tuple[float, float]


Layers = str | Mapping[str, str]  # one layer, or one for each way
# Image, its boxes and their labels -> a map for each box.
Explain = Callable[[np.ndarray, Sequence[np.ndarray], Sequence[int]], Sequence[LayerMap]]


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
        exact: (n, 4) where the finding lies; empty where the readers are wrong and nothing does;
            None where nobody knows.
    """

    row: int
    label: int
    score: float
    box: np.ndarray
    readers: np.ndarray
    name: str
    exact: np.ndarray | None = None

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
        data: gives the readers' truth, and the exact one where it is known.
        rows: images.
        found: detections in each of them.
        threshold: least score.
        max_images: the first so many rows are used.
    """
    chosen = []
    exact = [None] * len(rows) if data.exact is None else data.truths(rows, data.exact)
    pairs = zip(rows, data.truths(rows), exact, found, strict=True)
    for row, truth, known, one in list(pairs)[:max_images]:
        for label in np.unique(truth["labels"]):
            candidates = np.flatnonzero((one["labels"] == label) & (one["scores"] >= threshold))
            if len(candidates):
                best = candidates[one["scores"][candidates].argmax()]
                readers = truth["boxes"][truth["labels"] == label]
                score, box = float(one["scores"][best]), one["boxes"][best]
                lies = None if known is None else known["boxes"][known["labels"] == label]
                name = data.class_names[label - 1]
                chosen.append(Finding(int(row), int(label), score, box, readers, name, lies))
    return chosen


def findings(
    settings: Settings, data: BoxData, detector: nn.Module, path: Path
) -> dict[str, list[Finding]]:
    """`choose` on the abnormal validation and test images, by the preset's threshold and number.

    Args:
        settings: give the preset.
        data: images and boxes.
        detector: in eval mode.
        path: of its weights, beside which its predictions are kept.
    """
    preset, found = settings.explain, {}
    for part in ("val", "test"):
        rows = data.rows(part, abnormal_only=True)
        said = experiment.predictions(detector, path, data, rows)
        limits = {"threshold": preset.score_threshold, "max_images": preset.max_images}
        found[part] = choose(data, rows, said, **limits)
    return found


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


def ways(
    detector: nn.Module, probe: ProbeMaps | None = None, *, layer: Layers
) -> dict[str, Explain]:
    """The ways to draw a map of a box, by name.

    Args:
        detector: in eval mode; its channels and its cells are ablated.
        probe: adds the map of a linear probe, which has a layer of its own.
        layer: of `layers.LAYERS`, that the ablations take; or one for each way.
    """
    at = {CHANNELS: layer, CELLS: layer} if isinstance(layer, str) else layer
    found: dict[str, Explain] = {
        CHANNELS: partial(ablation_fast.ablate_boxes, detector, layer=at[CHANNELS]),
        CELLS: partial(cells.ablate_cells, detector, layer=at[CELLS]),
    }
    if probe is not None:
        found[PROBE] = lambda image, boxes, labels: probe.explain(image, labels)
    return found


def maps_of(
    explain: Explain, data: BoxData, items: Sequence[Finding]
) -> Iterator[tuple[Finding, LayerMap]]:
    """The map of each finding in one way; the findings of one image share its computation.

    Yields:
        Finding and map, image by image.
    """
    for row, group in groupby(sorted(items, key=lambda f: f.row), key=lambda f: f.row):
        here = list(group)
        boxes, labels = [f.box for f in here], [f.label for f in here]
        made = explain(np.asarray(data.images.pixels[row]), boxes, labels)
        yield from zip(here, made, strict=True)


def on_image(made: LayerMap, images: PackedImages, row: int) -> np.ndarray:
    """A map scaled to [0, 1] and to the radiograph in this row, (h, w) of its `filled_hw`.

    A cell is drawn over the pixels that the pyramid's nearest upsampling spreads it to, and not
    around the first of them, half a cell further up and left, where a strided convolution looks.
    """
    shape = tuple(images.filled_hw[row])
    covered = tuple(c * n / images.size for c, n in zip(made.covered, shape, strict=True))
    resized = heatmaps.resize_map(made.heatmap, shape, covered=covered)
    return heatmaps.normalize_map(resized)


def as_cells(values: np.ndarray, made: LayerMap, images: PackedImages, row: int) -> np.ndarray:
    """Values of a map's cells on the pixels of the radiograph, each cell as one even block.

    Args:
        values: (h, w), such as a map's `signed_map` or `reach`.
        made: the map; says how much of it is padding.
        images: packed.
        row: of the image.
    """
    height, width = images.filled_hw[row]
    rows, columns = (
        np.minimum((np.arange(n) + 0.5) * cells * share / images.size, cells - 1).astype(int)
        for n, cells, share in zip((height, width), values.shape, made.covered, strict=True)
    )
    return values[rows[:, None], columns]


def heatmap_of(explain: Explain, data: BoxData, item: Finding) -> np.ndarray:
    """The map of one finding, in [0, 1] and of the radiograph's size."""
    ((_, made),) = maps_of(explain, data, [item])
    return on_image(made, data.images, item.row)


def shares_that_matter(
    detector: nn.Module, data: BoxData, items: Sequence[Finding], *, layer: str
) -> pd.DataFrame:
    """For each finding, how much of the image can change its score, and what maps show beyond.

    Args:
        detector: in eval mode.
        data: images.
        items: findings.
        layer: of `layers.LAYERS`.

    Returns:
        A row for each finding: `cells that change the score` (share of the layer's cells) and
        `channel map on other cells` (share of the channel ablation's evidence; NaN for an empty
        map).
    """
    made = ways(detector, layer=layer)
    pairs = zip(
        maps_of(made[CELLS], data, items), maps_of(made[CHANNELS], data, items), strict=True
    )
    rows = []
    for (_, cell), (_, channel) in pairs:
        evidence = channel.heatmap
        beyond = evidence[~cell.reach].sum() / evidence.sum() if evidence.max() > 0 else np.nan
        rows.append((cell.reach.mean(), beyond))
    return pd.DataFrame(rows, columns=["cells that change the score", "channel map on other cells"])
