"""The tables of notebook 04: sizes and pyramid levels, scores by truth, stages of one image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torchvision.ops.poolers import LevelMapper

from cxr_helpers.course.core.data import BoxData
from cxr_helpers.course.core.settings import Settings
from cxr_helpers.detection import coco
from cxr_helpers.detection import detector as det
from cxr_helpers.detection import metrics as dm
from cxr_helpers.detection.prediction import gray_to_tensor, predict
from cxr_helpers.evaluation.intervals import Interval, bootstrap

PAPER_SIZE = 640  # pixels; what is small or large is said at this size
FINEST, COARSEST = 2, 5  # pyramid levels that boxes are pooled from, strides 4 to 32
FINDABLE = 0.1  # average precision on validation images from which a class counts as found


def size_table(data: BoxData, rows: np.ndarray, settings: Settings) -> pd.DataFrame:
    """How large each class is, and from which pyramid level most of its boxes are pooled.

    Returns:
        Indexed by class, smallest first: `boxes`; median short side in pixels at this preset's
        size, at 224 and at 640; share with a short side under 8 pixels at 224; `level`, the most
        frequent at this preset's size (stride 2**level).
    """
    truths = data.truths(rows)
    boxes, labels = (np.concatenate([one[k] for one in truths]) for k in ("boxes", "labels"))
    short = (boxes[:, 2:] - boxes[:, :2]).min(axis=1).astype(float) / data.images.size
    level = pooled_level(boxes, settings)
    table = pd.DataFrame({"class": [data.class_names[k - 1] for k in labels], "short": short})
    table["level"], table["tiny"] = level, short * 224 < 8
    groups = table.groupby("class")
    median = groups["short"].median().rename("median")
    sizes = {f"short side at {s}": (median * s).round(1) for s in (data.images.size, 224, 640)}
    shown = pd.DataFrame({"boxes": groups.size(), **sizes})
    shown["under 8 at 224"] = groups["tiny"].mean().round(2)
    shown["level"] = groups["level"].agg(lambda values: values.mode().iloc[0])
    return shown.loc[median.sort_values().index]


def pooled_level(boxes_xyxy: np.ndarray, settings: Settings) -> np.ndarray:
    """(N,) pyramid level from which torchvision pools each box, 2 to 5: stride 4 to 32."""
    mapper = LevelMapper(FINEST, COARSEST, settings.detect.canonical_scale, 4)
    return mapper([torch.as_tensor(boxes_xyxy)]).numpy() + FINEST


@dataclass(frozen=True)
class Stages:
    """What the parts of a detector say of one image.

    Attributes:
        anchors: how many there are.
        proposals: (P, 4) what the region proposal network kept, best first, input pixels.
        found: what `prediction.predict` gives.
    """

    anchors: int
    proposals: np.ndarray
    found: Mapping[str, np.ndarray]


@torch.no_grad()
def stages(detector: det.Detector, image: np.ndarray) -> Stages:
    """From anchors over proposals to detections, on one packed image (H, W)."""
    device = next(detector.parameters()).device
    batch, _ = detector.transform([gray_to_tensor(image).to(device)])
    maps = detector.backbone(batch.tensors)
    anchors = detector.rpn.anchor_generator(batch, list(maps.values()))[0]
    proposals, _ = detector.rpn(batch, maps)
    (found,) = predict(detector, [image])
    return Stages(len(anchors), proposals[0].cpu().numpy(), found)


def score_table(
    found: Mapping[str, Sequence], truths: Sequence, data: BoxData
) -> tuple[pd.DataFrame, dict[str, coco.CocoScores]]:
    """COCO's means for each arm; sizes are those at the published 640 pixels.

    Returns:
        Indexed by arm, a column for each of `coco.COLUMNS`; and the scores behind it.
    """
    scale = PAPER_SIZE / data.images.size
    scores = {
        arm: coco.coco_scores(one, truths, class_names=data.class_names, scale=scale)
        for arm, one in found.items()
    }
    rows = {arm: {c: s.mean(c) for c in coco.COLUMNS} for arm, s in scores.items()}
    return pd.DataFrame.from_dict(rows, orient="index"), scores


def match(found: Sequence, truths: Sequence, data: BoxData, **options) -> dm.Matches:
    """`metrics.match_detections` with the classes of this data."""
    return dm.match_detections(found, truths, class_names=data.class_names, **options)


def findable(matches: Mapping[str, dm.Matches], *, least: float = FINDABLE) -> tuple[str, ...]:
    """Classes that at least one arm finds, to be asked of validation images.

    Args:
        matches: of each arm, in the same images.
        least: average precision from which a class counts as found.

    Raises:
        ValueError: no arm finds any class.
    """
    values = np.stack([dm.average_precision(one) for one in matches.values()])
    names = next(iter(matches.values())).class_names
    found = tuple(np.array(names)[(np.nan_to_num(values) >= least).any(axis=0)].tolist())
    if not found:
        raise ValueError(
            f"no arm of {', '.join(matches)} finds any class with an average precision of {least}; "
            "train longer, or ask for less"
        )
    return found


def bootstrap_map(matches: dm.Matches, **options) -> Interval:
    """Mean average precision of matched detections with its interval over test images.

    Args:
        matches: to the truth.
        options: `classes` as for `metrics.mean_average_precision`, `resamples` and `seed` as for
            `intervals.bootstrap`.
    """
    classes = options.pop("classes", None)
    return bootstrap(
        lambda counts: dm.mean_average_precision(matches, counts, classes=classes),
        len(matches.truths),
        **options,
    )


def bootstrap_map_difference(first: dm.Matches, second: dm.Matches, **options) -> Interval:
    """Mean average precision, `second` minus `first`, on the same resampled test images.

    Args:
        first: matched to the truth.
        second: matched to the same truth.
        options: as for `bootstrap_map`.

    Raises:
        ValueError: the two were not matched to the same truth.
    """
    classes = options.pop("classes", None)
    return bootstrap(
        lambda counts: dm.map_difference(first, second, counts, classes=classes),
        len(first.truths),
        **options,
    )


def gallery_rows(matches: dm.Matches, *, score: float = 0.3) -> dict[str, int]:
    """Images to look at: most boxes found, most missed, and the most confident mistake."""
    n = len(matches.truths)
    found = np.bincount(matches.image[matches.hit & (matches.score >= score)], minlength=n)
    missed = matches.truths.sum(axis=1) - found
    wrong = matches.image[~matches.hit]  # by descending score
    return {
        "most found": int(found.argmax()),
        "most missed": int(missed.argmax()),
        "most confidently wrong": int(wrong[0]) if len(wrong) else int(missed.argmin()),
    }
