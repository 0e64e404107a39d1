"""COCO's own average precision, through torchmetrics.

One pass gives what three communities quote: mAP50, Kaggle's mAP at IoU 0.4, and COCO's mean over
IoU 0.5 to 0.95; per class, and for small, medium and large boxes.

Boxes are xyxy in pixels, classes are numbered from 1 and 0 is background.

Sources: Lin et al., Microsoft COCO, https://arxiv.org/abs/1405.0312. Kaggle's VinBigData counts by
VOC's rules of 2010, which integrate the precision at every recall instead of at 101 points: its
figure at 0.4 differs a little from the one given here.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, torch, torchmetrics, torchvision, faster-coco-eval.
Goes with: boxes.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchmetrics.detection import MeanAveragePrecision

from .boxes import Boxes, checked_pairs

KAGGLE = 0.4
THRESHOLDS = (KAGGLE, *(0.5 + 0.05 * np.arange(10)).round(2).tolist())
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
AREAS = ("all", "small", "medium", "large")
SMALL_SIDE, LARGE_SIDE = 32, 96  # pixels; COCO's limits are the areas of such squares
COLUMNS = ("ap50", "ap40", "ap50_95", *(f"ap50_{area}" for area in AREAS[1:]))


@dataclass(frozen=True)
class CocoScores:
    """Average precision as COCO computes it.

    Attributes:
        per_class: class name to its scores by the names in `COLUMNS`; NaN where the truth has no
            box of that size. Classes without any truth box are not in it.
        absent: names of the classes that no truth box has; they are not averaged in.
    """

    per_class: dict[str, dict[str, float]]
    absent: tuple[str, ...]

    def mean(self, column: str = "ap50") -> float:
        """Mean over the classes that the truth holds, such as mAP50 for `ap50`; or NaN."""
        values = np.array([scores[column] for scores in self.per_class.values()])
        known = values[~np.isnan(values)]
        return float(known.mean()) if len(known) else float("nan")


def coco_scores(
    predictions: Boxes, truths: Boxes, *, class_names: Sequence[str], scale: float = 1.0
) -> CocoScores:
    """Average precision through torchmetrics, computed by faster-coco-eval.

    Args:
        predictions: for each image `boxes` (n, 4), `scores` (n,), `labels` (n,) from 1. Of each
            image and class the 100 highest count.
        truths: for each image, in the same order, `boxes` (m, 4) and `labels` (m,).
        class_names: names of the classes 1, 2, ...
        scale: by which all boxes are multiplied before they are called small (area under 32 x 32
            pixels) or large (over 96 x 96). Nothing else depends on it.

    Raises:
        ValueError: as `boxes.checked_pairs`; the scale is not above 0, or no image has a truth
            box.

    >>> box = {"boxes": [[0, 0, 10, 10]], "labels": [1]}
    >>> coco_scores([box | {"scores": [0.9]}], [box], class_names=["mass"]).mean("ap40")
    1.0
    """
    if not 0 < scale < np.inf:
        raise ValueError(
            f"scale is {scale}; give a factor above 0, 1 to leave the boxes as they are"
        )
    pairs = checked_pairs(predictions, truths, class_names)
    present = {int(label) for _, truth in pairs for label in truth["labels"]}
    if not present:
        raise ValueError("no image has a truth box, so there is no average precision")
    metric = MeanAveragePrecision(
        iou_type="bbox",
        iou_thresholds=list(THRESHOLDS),
        rec_thresholds=RECALL_POINTS.tolist(),  # float64 as in COCO; torchmetrics' own are float32
        extended_summary=True,
        backend="faster_coco_eval",
    )
    metric.warn_on_many_detections = False
    metric.update(*([_tensors(one, scale) for one in side] for side in zip(*pairs, strict=True)))
    result = metric.compute()
    # (threshold, recall, class, area, most detections); -1 where the truth has no such box
    precision = result["precision"][..., -1].numpy()
    ap = np.where(precision > -1, precision, np.nan).mean(axis=1)
    classes = np.atleast_1d(result["classes"].numpy())
    per_class = {
        class_names[label - 1]: _scores(ap[:, k])
        for k, label in enumerate(classes)
        if label in present
    }
    absent = tuple(name for name in class_names if name not in per_class)
    return CocoScores(per_class, absent)


def _scores(ap: np.ndarray) -> dict[str, float]:
    """(threshold, area) average precision of one class by the names in `COLUMNS`."""
    values = (ap[1, 0], ap[0, 0], ap[1:, 0].mean(), *ap[1, 1:])
    return dict(zip(COLUMNS, map(float, values), strict=True))


def _tensors(one: Mapping[str, np.ndarray], scale: float) -> dict[str, torch.Tensor]:
    tensors = {key: torch.from_numpy(array) for key, array in one.items()}
    return tensors | {"boxes": tensors["boxes"] * scale}
