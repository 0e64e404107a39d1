"""What notebook 04 measures: stages of one image, scores with intervals, images to look at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cxr_helpers.course.core.data import BoxData
from cxr_helpers.detection import detector as det
from cxr_helpers.detection import metrics as dm
from cxr_helpers.detection.prediction import gray_to_tensor, predict
from cxr_helpers.evaluation.intervals import Interval, bootstrap

FINDABLE = 0.1  # average precision on validation images from which a class counts as found


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


def gallery_rows(matches: dm.Matches, *, score: float = 0.3, most_boxes: int = 5) -> dict[str, int]:
    """Images to look at, by what they show.

    Args:
        matches: of any images, abnormal or not.
        score: least score of a detection that counts as found.
        most_boxes: images with more boxes of the truth are left out of the first two, since nobody
            could read them; where all have more, they are asked after all.

    Returns:
        The images with the most boxes found and the most missed; and, where there is one, the image
        with the surest mistake, and the normal image with the surest alarm.
    """
    n = len(matches.truths)
    found = np.bincount(matches.image[matches.hit & (matches.score >= score)], minlength=n)
    boxes = matches.truths.sum(axis=1)
    least = boxes[boxes > 0].min(initial=boxes.max(initial=0))
    few = (boxes > 0) & (boxes <= max(most_boxes, least))
    counted = {"most found": found, "most missed": boxes - found}
    rows = {title: int(np.where(few, count, -1).argmax()) for title, count in counted.items()}
    wrong = matches.image[~matches.hit]  # by descending score
    abnormal = matches.truths.any(axis=1)
    kinds = {"surest mistake": abnormal, "surest alarm on a normal image": ~abnormal}
    for title, kind in kinds.items():
        own = wrong[kind[wrong]]
        if len(own):
            rows[title] = int(own[0])
    return rows
