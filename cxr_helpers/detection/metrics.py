"""Average precision of a detector, also on a thousand resamples of the images, in seconds.

Detections are matched to the truth once. Every later question, a thousand bootstrap resamples
included, is answered from the list of matched scores, without running the detector or the
matching again. `mean_average_precision` and `map_difference` take one row of counts a resample, as
`intervals.bootstrap` hands them over.

All boxes are xyxy in pixels. Predictions and truths are lists with one dict for each image:
`boxes` (n, 4), `labels` (n,) from 1, and for predictions `scores` (n,). Arrays or tensors.

Sources: Lin et al., Microsoft COCO, https://arxiv.org/abs/1405.0312, and its `cocoeval.py` for
the matching and the 101 recall points.

From cxr-helpers 0.1.0 (MIT license).
Needs: numpy, scipy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

RECALL_POINTS = np.linspace(0.0, 1.0, 101)
Boxes = Sequence[Mapping[str, object]]


@dataclass(frozen=True)
class Matches:
    """Detections matched to the truth at one IoU, in descending order of score.

    Attributes:
        image: (M,) row of the image of each detection.
        label: (M,) class from 1.
        score: (M,) float64.
        hit: (M,) whether it found a truth box of its class that no better one had found.
        truths: (N, K) number of truth boxes of each image and class.
        class_names: K names, of the classes 1 to K.
        iou_threshold: the IoU that a hit needs.
    """

    image: np.ndarray
    label: np.ndarray
    score: np.ndarray
    hit: np.ndarray
    truths: np.ndarray
    class_names: tuple[str, ...]
    iou_threshold: float

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the classes without a truth box."""
        return tuple(n for n, c in zip(self.class_names, self.truths.sum(0), strict=True) if not c)


def box_iou(a_xyxy: np.ndarray, b_xyxy: np.ndarray) -> np.ndarray:
    """IoU of each box of one set with each of the other; 0 where both have no area.

    Args:
        a_xyxy: (N, 4) float, or empty.
        b_xyxy: (M, 4) float, or empty.

    Returns:
        (N, M) float64. 0 for a box with NaN, or one that ends before it begins.

    Raises:
        ValueError: another shape, or no numbers.

    >>> box_iou([[0, 0, 10, 10]], [[0, 0, 10, 5], [5, 5, 15, 15]]).round(3).tolist()
    [[0.5, 0.143]]
    """
    a, b = (_array(boxes) for boxes in (a_xyxy, b_xyxy))
    for boxes in (a, b):
        if boxes.size and boxes.dtype.kind not in "iuf":
            raise ValueError(f"boxes of {boxes.dtype}; expected numbers")
        if boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 4):
            raise ValueError(f"boxes of shape {boxes.shape}; expected (n, 4)")
    a, b = a.astype(float).reshape(-1, 4)[:, None], b.astype(float).reshape(-1, 4)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    overlap = np.clip(sides, 0, None).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def _array(values: object) -> np.ndarray:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def match_detections(
    predictions: Boxes,
    truths: Boxes,
    *,
    class_names: Sequence[str],
    iou_threshold: float = 0.5,
    max_detections: int = 100,
) -> Matches:
    """Match each image's detections to its truth, class by class, as COCO does.

    In descending order of score each detection takes the truth box of its class with the highest
    IoU that no other has taken, if that IoU reaches the threshold.

    Args:
        predictions: one dict for each image, see the module.
        truths: one dict for each image, in the same order.
        class_names: names of the classes 1, 2, ...
        iou_threshold: least IoU of a hit, 0 to 1.
        max_detections: of each image and class, those with the highest scores.

    Raises:
        ValueError: lengths differ, a key is absent, a shape is wrong, a label has no name, a
            number is not finite, a box ends before it begins, the threshold is outside 0 to 1,
            names repeat, or `max_detections` is below 1.
    """
    names = tuple(class_names)
    if isinstance(class_names, str) or len(set(names)) < len(names):
        raise ValueError(f"class_names must be a list of different names, not {class_names!r}")
    if max_detections < 1:
        raise ValueError(f"max_detections is {max_detections}; give 1 or more")
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold must lie between 0 and 1, not {iou_threshold!r}")
    predicted = _check(predictions, len(class_names), "prediction")
    true = _check(truths, len(class_names), "truth")
    _check_pairs(predicted, true)
    counts = np.zeros((len(true), len(class_names)), dtype=np.int64)
    rows = []
    for i, (p, t) in enumerate(zip(predicted, true, strict=True)):
        np.add.at(counts[i], t["labels"] - 1, 1)
        for label in np.unique(p["labels"]):
            of_class = p["labels"] == label
            order = np.argsort(-p["scores"][of_class], kind="stable")[:max_detections]
            ious = box_iou(p["boxes"][of_class][order], t["boxes"][t["labels"] == label])
            hit = _greedy_hits(ious, iou_threshold)
            size = len(order)
            rows.append((np.full(size, i), np.full(size, label), p["scores"][of_class][order], hit))
    columns = [np.concatenate(c) for c in zip(*rows, strict=True)] if rows else [np.zeros(0)] * 4
    order = np.argsort(-columns[2], kind="stable")
    image, label, score, hit = (c[order] for c in columns)
    return Matches(
        image.astype(np.int64),
        label.astype(np.int64),
        score,
        hit.astype(bool),
        counts,
        tuple(class_names),
        iou_threshold,
    )


def _greedy_hits(ious: np.ndarray, threshold: float) -> np.ndarray:
    """(D, T) IoU, detections by descending score -> (D,) whether each is a hit."""
    free = np.ones(ious.shape[1], dtype=bool)
    hit = np.zeros(len(ious), dtype=bool)
    for d, row in enumerate(ious):
        candidates = np.where(free, row, -1.0)
        if not candidates.size or candidates.max() < min(threshold, 1 - 1e-10):
            continue
        best = len(row) - 1 - candidates[::-1].argmax()  # of equal ones COCO takes the last
        hit[d], free[best] = True, False
    return hit


def average_precision(matches: Matches, image_weights: np.ndarray | None = None) -> np.ndarray:
    """COCO's average precision of each class, for one or many weightings of the images.

    A weight w is the same as w copies of the image, so that a bootstrap resample is one row of
    counts. Only at a hit does recall rise, so precision is needed there alone: the weights of the
    detections between two hits enter as one sum, which makes a resample a sparse product.

    Args:
        matches: of N images and K classes.
        image_weights: (B, N) counts of each image, or None for every image once.

    Returns:
        (K,) float64, or (B, K). NaN for a class without a truth box among the weighted images.

    Raises:
        ValueError: the weights are not (B, N), or are negative; or these are no `Matches`.
    """
    if not hasattr(matches, "truths"):
        raise ValueError(
            f"{type(matches).__name__} given; match the detections first, with match_detections"
        )
    weights = _weights(matches, image_weights)
    columns = [_class_precision(matches, k + 1, weights) for k in range(len(matches.class_names))]
    values = np.stack(columns, axis=1)  # (B, K)
    return values if image_weights is not None else values[0]


def mean_average_precision(matches: Matches, image_weights: np.ndarray | None = None):
    """Mean over the classes that the (weighted) truth holds; NaN where it holds none.

    Returns:
        A float, or (B,) for weights (B, N).
    """
    values = average_precision(matches, image_weights)
    known = ~np.isnan(values)
    total, count = np.where(known, values, 0.0).sum(-1), known.sum(-1)
    mean = np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)
    return mean if image_weights is not None else float(mean)


def _class_precision(matches: Matches, label: int, weights: np.ndarray) -> np.ndarray:
    truths = weights @ matches.truths[:, label - 1]  # (B,)
    of_class = matches.label == label
    image, hit = matches.image[of_class], matches.hit[of_class]
    result = np.where(truths > 0, 0.0, np.nan)
    if not hit.any():
        return result
    last_hit = np.flatnonzero(hit)[-1] + 1
    image, hit = image[:last_hit], hit[:last_hit]
    segment = np.cumsum(hit) - hit  # detections up to and with the first hit are segment 0, ...
    shape = (segment[-1] + 1, weights.shape[1])
    detections = csr_array((np.ones(len(image)), (segment, image)), shape=shape)
    found = np.cumsum(weights[:, image[hit]], axis=1)  # (B, H)
    shown = np.cumsum((detections @ weights.T).T, axis=1)  # (B, H)
    precision = found / np.maximum(shown, 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = found / np.maximum(truths, 1)[:, None]
    reached = np.searchsorted(RECALL_POINTS, recall, side="right")  # recall points up to here
    steps = np.diff(reached, axis=1, prepend=0)
    area = (steps * envelope).sum(axis=1) / len(RECALL_POINTS)
    return np.where(truths > 0, area, np.nan)


def map_difference(first: Matches, second: Matches, image_weights: np.ndarray | None = None):
    """Mean average precision of `second` minus `first`, on the same weighting of the images.

    Returns:
        A float, or (B,) for weights (B, N).

    Raises:
        ValueError: as `average_precision`, or the two were not matched to the same truth at the
            same IoU.
    """
    if first.iou_threshold != second.iou_threshold:
        raise ValueError(
            f"one detector was matched at an IoU of {first.iou_threshold}, the other at "
            f"{second.iou_threshold}; compare at one"
        )
    if first.class_names != second.class_names or not np.array_equal(first.truths, second.truths):
        raise ValueError("the two detectors were matched to different truths; compare on one set")
    a, b = (mean_average_precision(m, image_weights) for m in (first, second))
    return b - a


def _weights(matches: Matches, image_weights: np.ndarray | None) -> np.ndarray:
    n = len(matches.truths)
    if image_weights is None:
        return np.ones((1, n))
    weights = _array(image_weights).astype(float)
    shaped = weights.ndim == 2 and weights.shape[1] == n
    if not shaped or not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(
            f"expected counts of shape (B, {n}), finite and none negative, got {weights.shape}"
        )
    return weights


def _check(boxes: Boxes, n_classes: int, kind: str) -> list[dict[str, np.ndarray]]:
    keys = ("boxes", "labels", "scores") if kind == "prediction" else ("boxes", "labels")
    checked = []
    for i, one in enumerate(boxes):
        absent = [k for k in keys if k not in one]
        if absent:
            raise ValueError(f"{kind} {i} lacks {', '.join(absent)}; it has {sorted(one)}")
        arrays = {k: _array(one[k]) for k in keys}
        text = [k for k in keys if arrays[k].size and arrays[k].dtype.kind not in "biuf"]
        if text:
            raise ValueError(f"{kind} {i}: {text[0]} are {arrays[text[0]].dtype}; give numbers")
        if arrays["labels"].size and arrays["labels"].dtype.kind == "b":
            raise ValueError(f"{kind} {i}: labels are bool; give whole numbers from 1")
        n = arrays["labels"].size
        arrays["boxes"] = arrays["boxes"].astype(np.float32)
        if n == 0 and arrays["boxes"].size == 0:
            arrays["boxes"] = arrays["boxes"].reshape(0, 4)
        shapes = {k: v.shape for k, v in arrays.items()}
        if shapes != {k: (n, 4) if k == "boxes" else (n,) for k in keys}:
            raise ValueError(f"{kind} {i} has shapes {shapes}; boxes must be (n, 4), the rest (n,)")
        if not all(np.isfinite(arrays[k]).all() for k in keys):
            raise ValueError(f"{kind} {i} holds a value that is not finite")
        turned = (arrays["boxes"][:, 2:] < arrays["boxes"][:, :2]).any(axis=1)
        if turned.any():
            raise ValueError(
                f"{kind} {i} has box {arrays['boxes'][turned][0].tolist()}; expected x_min, y_min, "
                "x_max, y_max"
            )
        part = arrays["labels"] % 1 != 0 if n else np.zeros(0, bool)
        if part.any():
            raise ValueError(
                f"{kind} {i} has label {arrays['labels'][part][0]}; labels are whole numbers from 1"
            )
        arrays["labels"] = arrays["labels"].astype(np.int64)
        outside = arrays["labels"][(arrays["labels"] < 1) | (arrays["labels"] > n_classes)]
        if outside.size:
            raise ValueError(
                f"{kind} {i} has label {outside[0]}; {n_classes} class names allow 1 to {n_classes}"
            )
        checked.append(arrays)
    return checked


def _check_pairs(predicted: list, true: list) -> None:
    if len(predicted) != len(true):
        raise ValueError(f"{len(predicted)} predictions for {len(true)} truths; give one for each")
