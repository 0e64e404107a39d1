"""What goes wrong in a detector: missed, wrong class, badly placed, duplicate, background.

One number such as mAP50 does not say what to mend. Here each detection above a score gets one
verdict, and each truth box is found or missed.

Predictions and truths are lists with one dict for each image, as `boxes` describes them.

Source: Bolya et al., TIDE, ECCV 2020, https://arxiv.org/abs/2008.08115, section 2.2, whose two
mixed kinds count as background here.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, pandas.
Goes with: boxes.py.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from .boxes import Boxes, box_iou, checked_image, checked_pairs, different_names

HIT, DUPLICATE, WRONG_CLASS, BADLY_PLACED, BACKGROUND = VERDICTS = (
    "hit",
    "duplicate",
    "wrong class",
    "badly placed",
    "background",
)


def judge_image(
    found: Mapping[str, object],
    truth: Mapping[str, object],
    *,
    iou_threshold: float = 0.5,
    near: float = 0.1,
) -> tuple[list[str], np.ndarray]:
    """A verdict for each detection of one image, and whether each truth box was found.

    In descending order of score, a detection is the first of these that is true:

    - hit: its IoU with a truth box of its class that is still free reaches the threshold.
    - duplicate: it reaches the threshold with one that a better detection has taken.
    - wrong class: it reaches the threshold with a truth box of another class.
    - badly placed: its IoU with a truth box of its class is at least `near`.
    - background: none of these.

    Args:
        found: `boxes` (n, 4), `labels`, `scores`.
        truth: `boxes` (m, 4), `labels`.
        iou_threshold: least IoU of a hit.
        near: least IoU of a badly placed box.

    Returns:
        n verdicts in the order of `found`, and (m,) bool.

    Raises:
        ValueError: the thresholds are not 0 < near <= iou_threshold <= 1; or as
            `boxes.checked_image`.

    >>> mass = {"boxes": np.array([[0.0, 0, 10, 10]]), "labels": np.array([1])}
    >>> boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 6, 10, 16], [50, 50, 60, 60]])
    >>> found = {"boxes": boxes, "labels": np.ones(4, int), "scores": np.array([0.9, 0.8, 0.7, 0])}
    >>> judge_image(found, mass)
    (['hit', 'duplicate', 'badly placed', 'background'], array([ True]))
    """
    if not 0 < near <= iou_threshold <= 1:
        raise ValueError(f"expected 0 < near <= iou_threshold <= 1, got {near}, {iou_threshold}")
    found, truth = checked_image(found, "found", scores=True), checked_image(truth, "truth")
    ious = box_iou(found["boxes"], truth["boxes"])
    same = found["labels"][:, None] == truth["labels"][None]
    taken = np.zeros(len(truth["labels"]), dtype=bool)
    verdicts = [BACKGROUND] * len(found["labels"])
    for d in np.argsort(-found["scores"], kind="stable"):
        own, other = np.where(same[d], ious[d], 0.0), np.where(same[d], 0.0, ious[d])
        free = np.where(taken, 0.0, own)
        if free.max(initial=0) >= iou_threshold:
            taken[free.argmax()] = True
            verdicts[d] = HIT
        elif own.max(initial=0) >= iou_threshold:
            verdicts[d] = DUPLICATE
        elif other.max(initial=0) >= iou_threshold:
            verdicts[d] = WRONG_CLASS
        elif own.max(initial=0) >= near:
            verdicts[d] = BADLY_PLACED
    return verdicts, taken


def error_table(
    predictions: Boxes,
    truths: Boxes,
    *,
    class_names: Sequence[str],
    min_score: float = 0.3,
    **thresholds: float,
) -> pd.DataFrame:
    """Counts of each verdict for each class.

    Args:
        predictions: one dict for each image.
        truths: one dict for each image, in the same order.
        class_names: names of the classes 1, 2, ...
        min_score: least score of a detection that is judged.
        thresholds: `iou_threshold` and `near`, as in `judge_image`.

    Returns:
        Indexed by class name: `truth` (boxes), `missed` (of these), and a column for each of
        `VERDICTS`: detections of this class. `hit` + `missed` = `truth`.

    Raises:
        ValueError: as `judge_image` and `boxes.checked_pairs`; or `min_score` is NaN.

    >>> mass = {"boxes": [[0, 0, 9, 9]], "labels": [1]}
    >>> found = {"boxes": [[0, 0, 9, 9], [50, 50, 59, 59]], "labels": [1, 1], "scores": [0.9, 0.8]}
    >>> error_table([found], [mass], class_names=["mass"]).loc["mass", ["truth", "hit"]].to_dict()
    {'truth': 1, 'hit': 1}
    """
    names = list(different_names(class_names))
    counts = pd.DataFrame(0, index=names, columns=["truth", "missed", *VERDICTS])
    for found, truth in _strong(predictions, truths, names, min_score):
        verdicts, taken = judge_image(found, truth, **thresholds)
        for label, verdict in zip(found["labels"], verdicts, strict=True):
            counts.loc[names[label - 1], verdict] += 1
        for label, was_found in zip(truth["labels"], taken, strict=True):
            counts.loc[names[label - 1], "truth"] += 1
            counts.loc[names[label - 1], "missed"] += not was_found
    return counts


def _strong(predictions: Boxes, truths: Boxes, names: Sequence[str], min_score: float):
    """Each image's detections of at least `min_score`, and its truth."""
    if np.isnan(min_score):
        raise ValueError("min_score is NaN, which no score reaches; give a number")
    for found, truth in checked_pairs(predictions, truths, names):
        keep = found["scores"] >= min_score
        yield {key: values[keep] for key, values in found.items()}, truth
