"""Does a frozen network know, inside a box, what is there? A linear probe on features of boxes.

Each box with a finding is set against the same place in another abnormal image that does not have
this finding. Size and place of the two are alike, so neither can tell them apart: what tells is
what the features hold. Features are pooled from the maps of each stage (RoIAlign), and a logistic
regression for each class is fitted on them. That takes seconds, where a detector takes minutes.

What the features must beat: a small patch of the pixels themselves (`pixel_features`), and a
network of random weights. Size and place alone (`geometry_features`) must come out at 0.5. A cell
of a late stage sees far beyond the box, so what else an image holds can help it there.

Sources: He et al., Mask R-CNN, https://arxiv.org/abs/1703.06870, section 3, for RoIAlign; Alain and
Bengio, Understanding intermediate layers using linear classifier probes,
https://arxiv.org/abs/1610.01644, for a probe at each stage.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, scikit-learn, torch, torchvision.
Goes with: boxes.py, prediction.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torchvision.ops import roi_align

from .boxes import Boxes, as_boxes, as_numbers, box_iou, checked_image
from .prediction import gray_to_tensor

STAGES = ("layer1", "layer2", "layer3", "layer4")
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclass(frozen=True)
class Places:
    """Places in images to be judged: n with their finding, then the same n without it.

    Row i and row n + i are a pair: one class, one size, the same place of two images.

    Attributes:
        images: (2n,) number of the image that each lies on.
        boxes_xyxy: (2n, 4) float64, pixels.
        labels: (2n,) class that is asked for, from 1.
        present: (2n,) whether it is there.
        left_out: boxes with a finding for which no other image had the place.
    """

    images: np.ndarray
    boxes_xyxy: np.ndarray
    labels: np.ndarray
    present: np.ndarray
    left_out: int = 0

    def counts(self) -> dict[int, int]:
        """Pairs of each class, by its number."""
        labels, counts = np.unique(self.labels[self.present], return_counts=True)
        return dict(zip(labels.tolist(), counts.tolist(), strict=True))


def draw_places(truths: Boxes, image_hw: object, *, seed: int) -> Places:
    """For each box the same place in another image that has boxes, but none of this class.

    The other image is drawn among those in which no box of any class touches the place; where there
    is none, among all that lack the class. The place keeps its size in pixels and its center as a
    share of the image's width and height, moved inside where it would stick out. A box that is
    larger than every other image, or whose class is in all of them, is left out and counted.

    Args:
        truths: as `boxes` describes them, one dict for each image.
        image_hw: (N, 2) height and width of each image in pixels, without black padding. Boxes are
            clipped to it.
        seed: of the draw.

    Raises:
        ValueError: as `boxes.checked_image`, sizes that do not fit, or no box has a counterpart.

    >>> heart = {"boxes": [[2, 4, 6, 8]], "labels": [1]}
    >>> nodule = {"boxes": [[0, 0, 2, 2]], "labels": [2]}
    >>> places = draw_places([heart, nodule], [[10, 10], [10, 20]], seed=0)
    >>> places.images.tolist(), places.labels.tolist(), places.present.tolist()
    ([0, 1, 1, 0], [1, 2, 1, 2], [True, True, False, False])
    >>> places.boxes_xyxy[2].tolist()  # its center at 40% of a width of 20 pixels
    [6.0, 4.0, 10.0, 8.0]
    """
    checked = [checked_image(one, f"truth {i}") for i, one in enumerate(truths)]
    hw = as_numbers(image_hw, "image_hw")
    if hw.shape != (len(checked), 2) or not (hw > 0).all():
        raise ValueError(
            f"image_hw of shape {hw.shape} for {len(checked)} images; expected a height and a "
            "width above 0 for each"
        )
    sick = np.flatnonzero([len(one["labels"]) > 0 for one in checked])
    known = sorted({k for i in sick for k in checked[i]["labels"].tolist()})
    lacking = {k: sick[[k not in checked[i]["labels"] for i in sick]] for k in known}
    rng, pairs, left_out = np.random.default_rng(seed), [], 0
    for i in sick:
        boxes = np.clip(checked[i]["boxes"], 0, np.tile(hw[i][::-1], 2))
        for box, label in zip(boxes, checked[i]["labels"].tolist(), strict=True):
            found = _same_place(box, hw[i], rng.permutation(lacking[label]), checked, hw)
            if found is None:
                left_out += 1
            else:
                pairs.append(((i, box), found, label))
    if not pairs:
        raise ValueError(
            f"none of {left_out} boxes has a counterpart; give images with boxes of other classes"
        )
    with_it, without, labels = zip(*pairs, strict=True)
    images, boxes = zip(*with_it, *without, strict=True)
    present = np.repeat([True, False], len(pairs))
    return Places(np.array(images), np.array(boxes), np.tile(labels, 2), present, left_out)


def _same_place(
    box: np.ndarray, own_hw: np.ndarray, others: Sequence[int], truths: Sequence, hw: np.ndarray
) -> tuple[int, np.ndarray] | None:
    """The first of the other images where no box touches the place, else the first that holds it.

    Returns:
        The image and the place; None where no image is large enough, or the box has no area.
    """
    sides, second = box[2:] - box[:2], None
    if not (sides > 0).all():
        return None
    for j in others:
        if (sides > hw[j][::-1]).any():
            continue
        center = (box[:2] + box[2:]) / 2 * (hw[j] / own_hw)[::-1]
        corner = np.clip(center - sides / 2, 0, hw[j][::-1] - sides)
        place = np.concatenate([corner, corner + sides])
        if not box_iou([place], truths[j]["boxes"]).any():
            return j, place
        second = second or (j, place)
    return second


@torch.inference_mode()
def stage_features(
    backbone: nn.Module,
    images: np.ndarray | Tensor,
    places: Places,
    *,
    mean: float | Sequence[float] = 0.5,
    std: float | Sequence[float] = 0.25,
    cells: int = 2,
    batch_size: int = 32,
) -> dict[str, np.ndarray]:
    """Features of each place from each stage of a frozen ResNet; each image is run once.

    Args:
        backbone: a ResNet of torchvision, on any device; left in the mode it was in.
        images: (N, H, W) gray at the size the network sees, uint8, uint16 of the full range, or
            float in [0, 1].
        places: in pixels of these images.
        mean: subtracted from gray values in [0, 1]; one value, or one for each of three channels.
        std: divided by.
        cells: each place is pooled to cells x cells means of the map.
        batch_size: images at once.

    Returns:
        For each stage (2n, channels * cells * cells) float32; `all` are they side by side.

    Raises:
        ValueError: the backbone lacks a stage, or a place lies on an image that is not here.
    """
    modules = dict(backbone.named_children())
    if absent := [stage for stage in STAGES if stage not in modules]:
        raise ValueError(
            f"a {type(backbone).__name__} has no {absent[0]}; give a ResNet of torchvision's kind"
        )
    device, was_training = next(backbone.parameters()).device, backbone.training
    mean, std = (
        torch.as_tensor(v, device=device).float().reshape(1, -1, 1, 1) for v in (mean, std)
    )
    maps: dict[str, Tensor] = {}
    hooks = [
        modules[stage].register_forward_hook(
            lambda module, given, made, stage=stage: maps.update({stage: made})
        )
        for stage in STAGES
    ]
    found: dict[str, np.ndarray] = {}
    backbone.eval()
    try:
        for at, rois, gray in _batches(images, places, batch_size, device):
            batch = (gray - mean) / std
            backbone(batch.contiguous(memory_format=torch.channels_last))
            for stage, values in maps.items():
                stride = 2 ** round(math.log2(gray.shape[-1] / values.shape[-1]))
                pooled = _pooled(values, rois, cells, stride)
                if stage not in found:
                    found[stage] = np.zeros((len(places.images), pooled.shape[1]), np.float32)
                found[stage][at] = pooled
    finally:
        backbone.train(was_training)
        for hook in hooks:
            hook.remove()
    return found | {"all": np.hstack([found[stage] for stage in STAGES])}


def pixel_features(
    images: np.ndarray | Tensor, places: Places, *, cells: int = 8, batch_size: int = 128
) -> np.ndarray:
    """The gray values of each place alone, pooled to cells x cells: (2n, cells * cells) float32.

    Raises:
        ValueError: a place lies on an image that is not here, or as `prediction.gray_to_tensor`.

    >>> places = Places(np.zeros(2, int), np.array([[0, 0, 4, 4]] * 2), np.ones(2), np.ones(2))
    >>> pixel_features(np.full((1, 8, 8), 255, np.uint8), places, cells=1).tolist()
    [[1.0], [1.0]]
    """
    found = np.zeros((len(places.images), cells * cells), np.float32)
    for at, rois, gray in _batches(images, places, batch_size, torch.device("cpu")):
        found[at] = _pooled(gray[:, :1], rois, cells, 1)
    return found


def geometry_features(places: Places, image_hw: object) -> np.ndarray:
    """Where each place lies and how large it is, without any pixel: (2n, 4) float64.

    Columns are the center as a share of width and height, and the logarithms of both sides.

    >>> places = Places(np.zeros(1, int), np.array([[0, 0, 4, 1]]), np.ones(1), np.ones(1))
    >>> geometry_features(places, [[8, 8]]).round(3).tolist()
    [[0.25, 0.062, 1.386, 0.0]]
    """
    boxes = as_boxes(places.boxes_xyxy)
    width_height = as_numbers(image_hw, "image_hw")[places.images][:, ::-1]
    center = (boxes[:, :2] + boxes[:, 2:]) / 2 / width_height
    return np.hstack([center, np.log(boxes[:, 2:] - boxes[:, :2])])


def _batches(images, places: Places, batch_size: int, device: torch.device):
    """Rows of the places, their boxes with the image's place in the batch, (B, 3, H, W) in [0, 1].

    Only images with a place are read.
    """
    used = np.unique(places.images)
    if len(used) and not 0 <= used[0] <= used[-1] < len(images):
        raise ValueError(f"a place lies on image {used[-1]}, and there are {len(images)} images")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; give 1 or more")
    boxes = as_boxes(places.boxes_xyxy)
    for start in range(0, len(used), batch_size):
        rows = used[start : start + batch_size]
        at = np.flatnonzero(np.isin(places.images, rows))
        rois = np.column_stack([np.searchsorted(rows, places.images[at]), boxes[at]])
        gray = torch.stack([gray_to_tensor(images[row]) for row in rows])
        yield at, torch.from_numpy(rois).float().to(device), gray.to(device)


def _pooled(maps: Tensor, rois: Tensor, cells: int, stride: int) -> np.ndarray:
    """(B, C, h, w) maps to (n, C * cells * cells); a bin is sampled as often as it has pixels."""
    pooled = roi_align(maps.float(), rois, cells, spatial_scale=1 / stride, aligned=True)
    return pooled.flatten(1).cpu().numpy()


def probed_labels(
    train: Places, val: Places, *, least_train: int = 20, least_val: int = 5
) -> tuple[int, ...]:
    """The classes that can be probed, by their pairs in training and validation, never in test.

    Args:
        train: places to train on.
        val: places to choose on.
        least_train: pairs that a class needs in training.
        least_val: and in validation.

    Raises:
        ValueError: no class has as many.
    """
    seen, chosen_on = train.counts(), val.counts()
    enough = [k for k, n in seen.items() if n >= least_train and chosen_on.get(k, 0) >= least_val]
    if not enough:
        raise ValueError(
            f"no class has {least_train} pairs in training and {least_val} in validation; the most "
            f"are {max(seen.values())} and {max(chosen_on.values())}: use more images, or ask less"
        )
    return tuple(enough)


@dataclass(frozen=True)
class BoxProbe:
    """Logistic regressions on features of places, one a class.

    Attributes:
        labels: (K,) the classes.
        weights: (K, D) of the features as they come.
        bias: (K,).
        strength: scikit-learn's C that all were fitted with.
        validation: (K,) AUROC on the places it was chosen on.
    """

    labels: tuple[int, ...]
    weights: np.ndarray
    bias: np.ndarray
    strength: float
    validation: np.ndarray

    def scores(self, features: np.ndarray, places: Places) -> np.ndarray:
        """(2n,) log-odds that the class asked for is there; NaN where it has no regression.

        Raises:
            ValueError: features of another number or width.
        """
        features = _matrix(features, places, width=self.weights.shape[1])
        found = np.full(len(features), np.nan)
        for k, label in enumerate(self.labels):
            asked = places.labels == label
            found[asked] = features[asked] @ self.weights[k] + self.bias[k]
        return found


def fit_box_probe(
    features: np.ndarray,
    places: Places,
    val_features: np.ndarray,
    val_places: Places,
    *,
    labels: Sequence[int],
    strengths: Sequence[float] = STRENGTHS,
) -> BoxProbe:
    """A logistic regression for each class; their one strength is chosen on validation places.

    Args:
        features: (2n, D) of the training places.
        places: to train on.
        val_features: (2v, D) of the validation places.
        val_places: to choose the strength on.
        labels: classes to fit, each with pairs in both parts.
        strengths: scikit-learn's C, from strong to weak regularization. The one with the highest
            mean AUROC on validation is taken, the strongest of equals.

    Raises:
        ValueError: features that do not fit the places or are not finite, or a class without a
            pair in one of the parts.

    >>> places = Places(np.arange(4), np.ones((4, 4)), np.ones(4, int), np.arange(4) < 2)
    >>> features = np.array([[3.0], [2.0], [0.0], [1.0]])
    >>> probe = fit_box_probe(features, places, features, places, labels=[1])
    >>> probe.scores(features, places).argsort().tolist(), probe.validation.tolist()
    ([2, 3, 1, 0], [1.0])
    """
    features = _matrix(features, places)
    val_features = _matrix(val_features, val_places, width=features.shape[1])
    for part, there in (("training", places), ("validation", val_places)):
        if absent := sorted(set(labels) - set(there.counts())):
            raise ValueError(f"class {absent[0]} has no pair in {part}; leave it out")
    mean, std = features.mean(axis=0), features.std(axis=0)
    std[std <= 1e-6 * np.abs(mean) + 1e-12] = 1  # a feature that is constant but for rounding
    fitted = []  # (S, D + 1) for each class
    for label in labels:
        asked = places.labels == label
        fitted.append(_path((features[asked] - mean) / std, places.present[asked], strengths))
    by_strength = []
    for one in np.stack(fitted, axis=1):  # (K, D + 1)
        weights = one[:, :-1] / std
        probe = BoxProbe(tuple(labels), weights, one[:, -1] - weights @ mean, 0.0, np.zeros(0))
        by_strength.append(
            (probe, auroc(val_places, probe.scores(val_features, val_places), labels))
        )
    best = int(np.argmax([values.mean() for _, values in by_strength]))
    probe, values = by_strength[best]
    return BoxProbe(probe.labels, probe.weights, probe.bias, strengths[best], values)


def _path(x: np.ndarray, present: np.ndarray, strengths: Sequence[float]) -> np.ndarray:
    """(S, D + 1) weights and bias for each strength, each fit starting from the one before.

    With fewer places than features the fit runs in the space that the places span, which changes
    nothing: the best weights lie there.
    """
    back = None
    if len(x) < x.shape[1]:
        u, s, back = np.linalg.svd(x, full_matrices=False)
        x = u * s  # (n, n)
    model, found = LogisticRegression(warm_start=True, max_iter=300, tol=1e-3), []
    for strength in strengths:
        model.set_params(C=strength).fit(x, present)
        weights = model.coef_[0] if back is None else model.coef_[0] @ back
        found.append(np.append(weights, model.intercept_))
    return np.array(found)


def auroc(places: Places, scores: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """(K,) AUROC of each class over its places; NaN where it has none.

    Raises:
        ValueError: not one score for each place.

    >>> places = Places(np.arange(4), np.ones((4, 4)), np.ones(4, int), np.arange(4) < 2)
    >>> auroc(places, np.array([3.0, 1.0, 2.0, 0.0]), [1, 2]).tolist()
    [0.75, nan]
    """
    scores = np.asarray(scores)
    if scores.shape != places.labels.shape:
        raise ValueError(f"scores {scores.shape} for {len(places.labels)} places; give one each")
    found = []
    for label in labels:
        asked = places.labels == label
        known = asked.any()
        found.append(roc_auc_score(places.present[asked], scores[asked]) if known else np.nan)
    return np.array(found)


def _matrix(features: np.ndarray, places: Places, *, width: int | None = None) -> np.ndarray:
    """Features as float64 (2n, D), D as it must be where that is known."""
    found = as_numbers(features, "features")
    if found.ndim != 2 or len(found) != len(places.images) or width not in (None, found.shape[1]):
        wanted = "D" if width is None else width
        raise ValueError(
            f"features of shape {found.shape}; expected ({len(places.images)}, {wanted})"
        )
    return found
