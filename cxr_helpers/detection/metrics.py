"""Average precision of a detector, also on a thousand resamples of the images, in seconds.

Detections are matched to the truth once. Every later question, a thousand bootstrap resamples
included, is answered from the list of matched scores, without running the detector or the
matching again. `mean_average_precision` and `map_difference` take one row of counts a resample, as
`intervals.bootstrap` hands them over.

Predictions and truths are lists with one dict for each image, as `boxes` describes them.

Sources: Lin et al., Microsoft COCO, https://arxiv.org/abs/1405.0312, and its `cocoeval.py` for
the matching and the 101 recall points.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, scipy.
Goes with: boxes.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from .boxes import Boxes, as_array, box_iou, checked_pairs, different_names

RECALL_POINTS = np.linspace(0.0, 1.0, 101)


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

    Raises:
        ValueError: lengths differ, an image is none of the truth's or a label none of the classes',
            a hit is neither 0 nor 1, or the scores do not descend.
    """

    image: np.ndarray
    label: np.ndarray
    score: np.ndarray
    hit: np.ndarray
    truths: np.ndarray
    class_names: tuple[str, ...]
    iou_threshold: float

    def __post_init__(self) -> None:
        """Take tensors and lists too, and refuse what no matching gives."""
        arrays = {name: as_array(getattr(self, name)) for name in ("image", "label", "score")}
        hit, truths = as_array(self.hit), as_array(self.truths)
        image, label, score = arrays.values()
        shapes = {name: array.shape for name, array in (arrays | {"hit": hit}).items()}
        if len(set(shapes.values())) > 1 or score.ndim != 1 or truths.ndim != 2:
            raise ValueError(f"{shapes} and truths {truths.shape}; expected (M,) each, and (N, K)")
        classes = len(self.class_names)
        strange = label[~np.isin(label, np.arange(1, classes + 1))]
        if truths.shape[1] != classes or strange.size:
            raise ValueError(
                f"truths of {truths.shape[1]} classes and labels {np.unique(strange).tolist()} "
                f"beside {classes} class names; labels are 1 to {classes}"
            )
        outside = image[~((image >= 0) & (image < len(truths)))]
        if outside.size:
            raise ValueError(
                f"a detection is of image {outside[0]}, and the truth has {len(truths)} images, "
                "from 0"
            )
        if not np.isin(hit, (0, 1)).all():
            odd = hit[~np.isin(hit, (0, 1))][0]
            raise ValueError(f"hit {odd} is neither 0 nor 1; give each detection True or False")
        if np.isnan(score).any() or not (score[1:] <= score[:-1]).all():
            raise ValueError("scores do not descend; sort image, label, score, hit by them")
        arrays |= {"hit": hit.astype(bool), "truths": truths}
        for name, array in arrays.items():
            object.__setattr__(self, name, array)

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the classes without a truth box."""
        return tuple(n for n, c in zip(self.class_names, self.truths.sum(0), strict=True) if not c)


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
        predictions: one dict for each image, with scores.
        truths: one dict for each image, in the same order.
        class_names: names of the classes 1, 2, ...
        iou_threshold: least IoU of a hit, 0 to 1.
        max_detections: of each image and class, those with the highest scores.

    Raises:
        ValueError: as `boxes.checked_pairs`; the threshold is outside 0 to 1, or `max_detections`
            is below 1.

    >>> truth = {"boxes": [[0, 0, 10, 10]], "labels": [1]}
    >>> found = {"boxes": [[0, 0, 10, 9], [5, 5, 9, 9]], "labels": [1, 1], "scores": [0.9, 0.4]}
    >>> match_detections([found], [truth], class_names=["mass"]).hit
    array([ True, False])
    """
    if max_detections < 1:
        raise ValueError(f"max_detections is {max_detections}; give 1 or more")
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold must lie between 0 and 1, not {iou_threshold!r}")
    names = different_names(class_names)
    counts = np.zeros((len(truths), len(names)), dtype=np.int64)
    rows = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0, bool))]
    for i, (found, truth) in enumerate(checked_pairs(predictions, truths, names)):
        np.add.at(counts[i], truth["labels"] - 1, 1)
        ious = box_iou(found["boxes"], truth["boxes"])
        for label in np.unique(found["labels"]):
            own = np.flatnonzero(found["labels"] == label)
            own = own[np.argsort(-found["scores"][own], kind="stable")][:max_detections]
            hit = _greedy_hits(ious[own][:, truth["labels"] == label], iou_threshold)
            rows.append((np.full(len(own), i), found["labels"][own], found["scores"][own], hit))
    image, label, score, hit = (np.concatenate(column) for column in zip(*rows, strict=True))
    order = np.argsort(-score, kind="stable")
    best = (column[order] for column in (image, label, score, hit))
    return Matches(*best, counts, names, iou_threshold)


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


def image_counts(matches: Matches, image_weights: np.ndarray | None) -> np.ndarray:
    """How often each image counts: (B, N) float64; every image once for None.

    Raises:
        ValueError: the weights are not (B, N), not finite or negative; or these are no `Matches`.

    >>> image_counts(match_detections([], [], class_names=["mass"]), None).shape
    (1, 0)
    """
    if not isinstance(matches, Matches):
        raise ValueError(
            f"{type(matches).__name__} given; match the detections first, with match_detections"
        )
    n = len(matches.truths)
    weights = np.ones((1, n)) if image_weights is None else as_array(image_weights).astype(float)
    shaped = weights.ndim == 2 and weights.shape[1] == n
    if not shaped or not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(
            f"expected counts of shape (B, {n}), finite and none negative, got {weights.shape}"
        )
    return weights


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
        ValueError: as `image_counts`.

    >>> mass = {"boxes": [[0, 0, 9, 9]], "labels": [1]}
    >>> matches = match_detections([mass | {"scores": [0.9]}], [mass], class_names=["mass", "node"])
    >>> average_precision(matches), average_precision(matches, [[1], [0]])[:, 0]
    (array([ 1., nan]), array([ 1., nan]))
    """
    weights = image_counts(matches, image_weights)
    columns = [_class_precision(matches, k + 1, weights) for k in range(len(matches.class_names))]
    values = np.stack(columns, axis=1)  # (B, K)
    return values if image_weights is not None else values[0]


def mean_average_precision(
    matches: Matches,
    image_weights: np.ndarray | None = None,
    *,
    classes: Sequence[str] | None = None,
):
    """Mean over the classes that the (weighted) truth holds; NaN where it holds none.

    Args:
        matches: of N images.
        image_weights: as for `average_precision`.
        classes: names of those that count; None takes all.

    Returns:
        A float, or (B,) for weights (B, N).

    Raises:
        ValueError: as `average_precision`, or a name is none of the classes'.

    >>> mass = {"boxes": [[0, 0, 9, 9]], "labels": [1]}
    >>> found = [mass | {"scores": [0.9]}, mass | {"boxes": [[50, 50, 59, 59]], "scores": [0.8]}]
    >>> matches = match_detections(found, [mass, mass], class_names=["mass"])
    >>> round(mean_average_precision(matches), 3), mean_average_precision(matches, [[1, 0], [0, 1]])
    (0.505, array([1., 0.]))
    """
    mean = mean_over_classes(
        average_precision(matches, image_weights), matches.class_names, classes=classes
    )
    return mean if image_weights is not None else float(mean)


def mean_over_classes(
    values: np.ndarray, class_names: Sequence[str], *, classes: Sequence[str] | None = None
) -> np.ndarray:
    """Mean of the classes' average precision, of those that have one.

    Args:
        values: (..., K) as `average_precision` gives them.
        class_names: K names.
        classes: names of those that count; None takes all.

    Returns:
        (...,) float64, NaN where none of them has a value.

    Raises:
        ValueError: `values` are of another number of classes, or `classes` names none of them.

    >>> mean_over_classes([[0.5, np.nan], [0.2, 0.4]], ["mass", "node"]).round(2)
    array([0.5, 0.3])
    >>> mean_over_classes([0.2, 0.4], ["mass", "node"], classes=["node"])
    array(0.4)
    """
    values, names = np.asarray(values, dtype=float), list(class_names)
    chosen = names if classes is None else list(classes)
    if values.shape[-1:] != (len(names),):
        raise ValueError(f"values {values.shape} for {len(names)} class names; give (..., K)")
    if not chosen or set(chosen) - set(names):
        raise ValueError(
            f"classes {chosen} must be one or more of {', '.join(names)}; None takes all"
        )
    values = values[..., [names.index(name) for name in chosen]]
    known = ~np.isnan(values)
    total, count = np.where(known, values, 0.0).sum(-1), known.sum(-1)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


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


def map_difference(
    first: Matches,
    second: Matches,
    image_weights: np.ndarray | None = None,
    *,
    classes: Sequence[str] | None = None,
):
    """Mean average precision of `second` minus `first`, on the same weighting of the images.

    Args:
        first: matched to the truth.
        second: matched to the same truth.
        image_weights: as for `average_precision`.
        classes: as for `mean_average_precision`.

    Returns:
        A float, or (B,) for weights (B, N).

    Raises:
        ValueError: as `mean_average_precision`, or the two were not matched to the same truth at
            the same IoU.

    >>> mass = {"boxes": [[0, 0, 9, 9]], "labels": [1]}
    >>> nothing = {"boxes": [], "labels": [], "scores": []}
    >>> both = [match_detections([found], [mass], class_names=["mass"])
    ...         for found in (nothing, mass | {"scores": [0.9]})]
    >>> map_difference(*both)
    1.0
    """
    if first.iou_threshold != second.iou_threshold:
        raise ValueError(
            f"one detector was matched at an IoU of {first.iou_threshold}, the other at "
            f"{second.iou_threshold}; compare at one"
        )
    if first.class_names != second.class_names or not np.array_equal(first.truths, second.truths):
        raise ValueError("the two detectors were matched to different truths; compare on one set")
    a, b = (mean_average_precision(m, image_weights, classes=classes) for m in (first, second))
    return b - a
