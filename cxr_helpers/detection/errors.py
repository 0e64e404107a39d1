"""What goes wrong in a detector: missed, wrong class, badly placed, duplicate, background.

One number such as mAP50 does not say what to mend. Here each detection above a score gets one
verdict, and each truth box is found or missed.

All boxes are xyxy in pixels. Predictions and truths are lists with one dict for each image:
`boxes` (n, 4), `labels` (n,) from 1, and for predictions `scores` (n,). Arrays, lists or tensors.

Source: Bolya et al., TIDE, ECCV 2020, https://arxiv.org/abs/2008.08115, section 2.2, whose two
mixed kinds count as background here.

From cxr-helpers 0.1.0 (MIT license).
Needs: numpy, pandas.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

HIT, DUPLICATE, WRONG_CLASS, BADLY_PLACED, BACKGROUND = VERDICTS = (
    "hit",
    "duplicate",
    "wrong class",
    "badly placed",
    "background",
)
NONE = "nothing"

Boxes = Sequence[Mapping[str, object]]


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
        ValueError: the thresholds are not 0 < near <= iou_threshold <= 1; a key is absent, a shape
            is wrong, a number is not finite, a box ends before it begins, or a label is below 1.

    >>> mass = {"boxes": np.array([[0.0, 0, 10, 10]]), "labels": np.array([1])}
    >>> boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 6, 10, 16], [50, 50, 60, 60]])
    >>> found = {"boxes": boxes, "labels": np.ones(4, int), "scores": np.array([0.9, 0.8, 0.7, 0])}
    >>> judge_image(found, mass)
    (['hit', 'duplicate', 'badly placed', 'background'], array([ True]))
    """
    if not 0 < near <= iou_threshold <= 1:
        raise ValueError(f"expected 0 < near <= iou_threshold <= 1, got {near}, {iou_threshold}")
    found = _checked(found, "found", np.inf, ("boxes", "labels", "scores"))
    truth = _checked(truth, "truth", np.inf)
    ious = _iou(found["boxes"], truth["boxes"])
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
        ValueError: lengths differ, a label has no name, two classes have one, or as in
            `judge_image`.
    """
    names = _different_names(class_names)
    counts = pd.DataFrame(0, index=names, columns=["truth", "missed", *VERDICTS])
    for found, truth in _strong(predictions, truths, len(names), min_score):
        verdicts, taken = judge_image(found, truth, **thresholds)
        for label, verdict in zip(found["labels"], verdicts, strict=True):
            counts.loc[names[label - 1], verdict] += 1
        for label, was_found in zip(truth["labels"], taken, strict=True):
            counts.loc[names[label - 1], "truth"] += 1
            counts.loc[names[label - 1], "missed"] += not was_found
    return counts


def confusion_matrix(
    predictions: Boxes,
    truths: Boxes,
    *,
    class_names: Sequence[str],
    min_score: float = 0.3,
    iou_threshold: float = 0.5,
) -> pd.DataFrame:
    """What each truth box was called: boxes are paired by place alone, best score first.

    Args:
        predictions: one dict for each image.
        truths: one dict for each image, in the same order.
        class_names: names of the classes 1, 2, ...
        min_score: least score of a detection.
        iou_threshold: least IoU of a pair. Of several free truth boxes a detection takes one of
            its own class, if there is one, and else that with the highest IoU.

    Returns:
        (K + 1, K + 1) counts. Rows: what the truth says, the last one `nothing` for detections
        without a pair. Columns: what the detector says, the last one `nothing` for boxes that no
        detection pairs with.

    Raises:
        ValueError: lengths differ, the threshold is not above 0 and up to 1, a label has no name,
            or two classes have one; as in `judge_image`.
    """
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"expected 0 < iou_threshold <= 1, got {iou_threshold}")
    names = [*_different_names(class_names), NONE]
    counts = np.zeros((len(names), len(names)), dtype=int)
    nothing = len(names) - 1
    for found, truth in _strong(predictions, truths, nothing, min_score):
        ious = _iou(found["boxes"], truth["boxes"])
        free = np.ones(len(truth["labels"]), dtype=bool)
        true = truth["labels"] - 1
        for d in np.argsort(-found["scores"], kind="stable"):
            said = found["labels"][d] - 1
            fits = free & (ious[d] >= iou_threshold)
            if not fits.any():
                counts[nothing, said] += 1
                continue
            best = np.where(fits, ious[d] + (true == said), -1.0).argmax()
            free[best] = False
            counts[true[best], said] += 1
        np.add.at(counts, (true[free], nothing), 1)
    return pd.DataFrame(counts, index=names, columns=names)


def _strong(predictions: Boxes, truths: Boxes, n_classes: int, min_score: float):
    if np.isnan(min_score):
        raise ValueError("min_score is NaN, which no score reaches; give a number")
    if len(predictions) != len(truths):
        raise ValueError(f"{len(predictions)} predictions for {len(truths)} truths; one for each")
    for i, (found, truth) in enumerate(zip(predictions, truths, strict=True)):
        found = _checked(found, f"prediction {i}", n_classes, ("boxes", "labels", "scores"))
        keep = found["scores"] >= min_score
        yield {k: v[keep] for k, v in found.items()}, _checked(truth, f"truth {i}", n_classes)


def _different_names(class_names: Sequence[str]) -> list[str]:
    names = list(class_names)
    if isinstance(class_names, str) or len(set(names)) < len(names) or NONE in names:
        raise ValueError(
            f"class_names must be a list of different names, none of them {NONE!r}, not "
            f"{class_names!r}"
        )
    return names


def _checked(
    one: Mapping, where: str, n_classes: float, keys: Sequence[str] = ("boxes", "labels")
) -> dict[str, np.ndarray]:
    """Boxes (n, 4) float, labels (n,) int and scores (n,) float of one image."""
    absent = [key for key in keys if key not in one]
    if absent:
        raise ValueError(f"{where} lacks {', '.join(absent)}; it has {', '.join(map(str, one))}")
    arrays = {key: _numbers(one[key], f"{where}: {key}") for key in keys}
    n = arrays["labels"].size
    if not n and not arrays["boxes"].size:
        arrays["boxes"] = arrays["boxes"].reshape(0, 4)
    shapes = {key: array.shape for key, array in arrays.items()}
    if shapes != {key: (n, 4) if key == "boxes" else (n,) for key in keys}:
        raise ValueError(f"{where} has shapes {shapes}; boxes must be (n, 4), the rest (n,)")
    labels, boxes = arrays["labels"], arrays["boxes"]
    odd = labels[(labels < 1) | (labels > n_classes) | (labels % 1 != 0)]
    if odd.size:
        most = f"{n_classes} class names allow 1 to {n_classes}"
        raise ValueError(
            f"{where} has label {odd[0]:g}; "
            + (most if n_classes < np.inf else "classes are numbered from 1")
        )
    turned = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    if turned.any():
        raise ValueError(
            f"{where} has box {boxes[turned][0].tolist()}; expected x_min, y_min, x_max, y_max"
        )
    return arrays | {"labels": labels.astype(np.int64)}


def _numbers(values: object, where: str) -> np.ndarray:
    if hasattr(values, "detach"):  # a tensor, on any device
        values = values.detach().cpu().numpy()
    array = np.asarray(values) if np.size(values) else np.zeros(np.shape(values))
    if array.dtype.kind not in "uif":
        raise ValueError(f"{where} holds {array.ravel()[0]!r}; expected numbers")
    if not np.isfinite(array).all():
        raise ValueError(f"{where} holds a value that is not finite")
    return array.astype(float)


def _iou(a_xyxy: np.ndarray, b_xyxy: np.ndarray) -> np.ndarray:
    a, b = a_xyxy[:, None], b_xyxy[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    overlap = np.clip(sides, 0, None).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
