"""Ablation-CAM of one fixed box of a Faster R-CNN, all channels at once.

Ablation-CAM (Desai and Ramaswamy, WACV 2020) removes one channel of a layer at a time and weighs
the channel's map A_c by the share of the score that goes with it:

    w_c = (s - s_c) / s,    heatmap = relu(sum_c w_c A_c).

Done literally, the detector runs once for each channel. If the box is held fixed, it need not run
again: all that lies between the channel and the first layer of the box head is linear.

Derivation. Write A_c for channel c of stage s of the ResNet (C2 to C5), l for the pyramid level
that the box is pooled from, and

    W   the 1x1 lateral convolution of stage s, W[g, c],
    U   the nearest upsampling from stage s down to level l (top-down path),
    L   the 3x3 smoothing of level l, L[f, g, d], d = 1 ... 9 its places,
    S_d the shift of a map by the d-th place, zeros coming in at the edge,
    R   RoIAlign of the box, which averages interpolated values of each channel for itself,
    z   the input of the head's first activation function: z = Q vec(pooled) + q.

The pyramid adds lateral and top-down maps, with no activation function between, so channel c
enters level l as one summand: sum_d L[f, :, d] W[:, c] S_d U A_c in pyramid channel f. (W mixes
channels and U moves pixels, so the two change places.) After RoIAlign this summand is

    delta_c[f] = sum_d (sum_g L[f, g, d] W[g, c]) R(S_d U A_c),

and without channel c the head sees z - Q vec(delta_c). Biases cancel. So pool the nine shifts of
all channels once, multiply by the matrix in brackets and by Q, and run the rest of the head on one
row for each channel: three matrix products instead of C runs of the detector.

For a channel f of level l itself, delta_f is the pooled channel alone. A stage below the pooled
level (s < l) does not reach the box: its weights are 0.

What is held besides the box: the later stages of the ResNet. Removing a channel of C4 inside the
network changes C5 too; here only its own way through the pyramid is cut. `brute_force_ablation`
can recompute the later stages, to see how much that matters. For C5 and the pyramid there is no
difference.

The maps here have the size of the layer, a few cells a side, and the scale of its activations; the
padding that the detector adds is still in them (`covered`). A map of pytorch-grad-cam, as `cam.py`
makes it, has the image's size and a maximum of 1. So resize a map from here to the image and
normalize it before it is shown, scored against boxes, or compared: `heatmaps.resize_map(heatmap,
image_hw, covered=covered)` and `heatmaps.normalize_map`.

An image is gray, (H, W) or (1, H, W), or (3, H, W) with the channels alike; uint8, uint16 of the
full range, or float in [0, 1]. Boxes are xyxy in pixels of the image; labels count from 1. All may
be arrays, lists or tensors.

From cxr-helpers 0.1.0 (MIT license).
Needs: numpy, torch, torchvision.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, roi_align

STAGES = ("layer1", "layer2", "layer3", "layer4")  # C2, C3, C4, C5 of the papers
PYRAMID = "pyramid"
LAYERS = (*STAGES, PYRAMID)


class AblationError(ValueError):
    """A detector, an image, a box or a layer that cannot be explained this way."""


@dataclass(frozen=True)
class BoxAblation:
    """What every channel of a layer contributes to the score of one fixed box.

    Attributes:
        score: probability of the class in the box, all channels in place.
        ablated: (C,) float32, the probability with each channel removed.
        activations: (C, h, w) float32, what the channels show; magnitudes for the pyramid, whose
            channels have no sign convention.
        covered: share of the map's height and width that shows the image; the rest is the padding
            that the detector adds to a side not divisible by 32.

    >>> maps = np.array([[[4.0, 0.0]], [[0.0, 2.0]]])
    >>> ablation = BoxAblation(0.8, np.array([0.2, 0.8]), maps)
    >>> ablation.weights.round(2).tolist(), ablation.heatmap.round(2).tolist()
    ([0.75, 0.0], [[3.0, 0.0]])
    """

    score: float
    ablated: np.ndarray
    activations: np.ndarray
    covered: tuple[float, float] = (1.0, 1.0)

    @property
    def weights(self) -> np.ndarray:
        """(C,) share of the score that goes with each channel; negative if removal helps."""
        if self.score == 0:
            return np.zeros_like(self.ablated)
        return (self.score - self.ablated) / self.score

    @property
    def signed_map(self) -> np.ndarray:
        """(h, w) float32, the weighted sum of the activations: for and, below zero, against."""
        return np.tensordot(self.weights, self.activations, axes=1)

    @property
    def heatmap(self) -> np.ndarray:
        """(h, w) float32 of the layer's size, unscaled: `signed_map` cut at zero.

        All zeros where nothing speaks for the box.
        """
        return np.maximum(self.signed_map, 0)


@dataclass(frozen=True)
class BoxGradient:
    """What the gradient says of the same score.

    Attributes:
        score: probability of the class in the box.
        gradient: (C, h, w) float32, slope of the score at each value of the layer.
        activations: (C, h, w) float32, as they are.
        covered: as in `BoxAblation`.
    """

    score: float
    gradient: np.ndarray
    activations: np.ndarray
    covered: tuple[float, float] = (1.0, 1.0)

    @property
    def weights(self) -> np.ndarray:
        """(C,) mean slope of each channel, Grad-CAM's weight."""
        return self.gradient.mean(axis=(1, 2))

    @property
    def predicted(self) -> np.ndarray:
        """(C,) score that a straight line along the gradient predicts without each channel."""
        return self.score - (self.gradient * self.activations).sum(axis=(1, 2))

    @property
    def heatmap(self) -> np.ndarray:
        """(h, w) float32 of the layer's size, unscaled: Grad-CAM's map.

        Source: Selvaraju et al., https://arxiv.org/abs/1610.02391.
        """
        return np.maximum(np.tensordot(self.weights, self.activations, axes=1), 0)


@dataclass(frozen=True)
class _Scene:
    """An image inside the detector: stages C2 to C5, boxes in its pixels, their levels."""

    stages: list[Tensor]
    rois: Tensor
    levels: list[int]
    covered: tuple[float, float]


def ablate_box(
    detector: nn.Module,
    image: np.ndarray | Tensor,
    box_xyxy: Sequence[float],
    label: int,
    *,
    layer: str = "layer3",
) -> BoxAblation:
    """Ablate every channel of a layer for one box; see `ablate_boxes`."""
    return ablate_boxes(detector, image, [box_xyxy], [label], layer=layer)[0]


@torch.no_grad()
def ablate_boxes(
    detector: nn.Module,
    image: np.ndarray | Tensor,
    boxes_xyxy: Sequence[Sequence[float]],
    labels: Sequence[int],
    *,
    layer: str = "layer3",
) -> list[BoxAblation]:
    """Ablate every channel of a layer for each of some boxes of one image, exactly.

    Args:
        detector: a torchvision Faster R-CNN on a ResNet with feature pyramid, in eval mode.
        image: (H, W), (1, H, W) or (3, H, W), see above; a tensor on the detector's device.
        boxes_xyxy: (n, 4) floats; detected or not. n may be 0.
        labels: n classes whose probability is explained.
        layer: `layer1` to `layer4` of the ResNet (C2 to C5), or `pyramid` for the level that a
            box is pooled from (P2 to P5).

    Returns:
        One ablation for each box; none where there is no box.

    Raises:
        AblationError: the detector trains, or it, its pyramid or its box head is of another kind;
            the image is of another type or shape, on another device, or holds values that are not
            finite or outside [0, 1]; a box has no area or lies outside the image; a label or the
            layer does not exist; or the detector scores a box NaN.
    """
    image, boxes, labels = _check(detector, image, boxes_xyxy, labels, layer)
    if not len(boxes):
        return []
    scene = _run(detector, image, boxes)
    if layer == PYRAMID:
        return _ablate_pyramid(detector, scene, labels)
    stage = STAGES.index(layer)
    activations = scene.stages[stage][0].float().cpu().numpy()
    pyramid = _pyramid(detector, scene.stages)
    found: list[BoxAblation | None] = [None] * len(boxes)
    for level in set(scene.levels):
        rows = [i for i, own in enumerate(scene.levels) if own == level]
        before = _first_layer(detector, _pool(detector, pyramid[level], scene.rois[rows], level))
        changes = _stage_changes(detector, scene, stage, level, rows)
        for i, row, change in zip(rows, before, changes, strict=True):
            ablated = row - change @ detector.roi_heads.box_head.fc6.weight.T
            scores = _class_scores(detector, torch.cat([row[None], ablated]), labels[i])
            found[i] = _ablation(scores, activations, scene.covered)
    return found


def _ablate_pyramid(detector: nn.Module, scene: _Scene, labels: Sequence[int]) -> list[BoxAblation]:
    pyramid = _pyramid(detector, scene.stages)
    weight = detector.roi_heads.box_head.fc6.weight
    found = []
    for roi, level, label in zip(scene.rois, scene.levels, labels, strict=True):
        pooled = _pool(detector, pyramid[level], roi[None], level)  # (1, F, 7, 7)
        before = _first_layer(detector, pooled)
        kernel = weight.unflatten(1, (pooled.shape[1], -1))  # (D, F, 49)
        change = torch.einsum("dfp,fp->fd", kernel, pooled[0].flatten(1))
        scores = _class_scores(detector, torch.cat([before, before - change]), label)
        found.append(_ablation(scores, pyramid[level][0].abs().cpu().numpy(), scene.covered))
    return found


def _ablation(scores: Tensor, activations: np.ndarray, covered: tuple[float, float]) -> BoxAblation:
    values = scores.float().cpu().numpy()
    return BoxAblation(float(values[0]), values[1:], activations, covered)


def _stage_changes(
    detector: nn.Module, scene: _Scene, stage: int, level: int, rows: Sequence[int]
) -> Iterator[Tensor]:
    """delta_c of the derivation, (C, F * 49), for each of these boxes of one level."""
    maps = scene.stages[stage]  # (1, C, h, w)
    fpn = detector.backbone.fpn
    inner = fpn.inner_blocks[stage][0].weight[:, :, 0, 0]  # (G, C)
    outer = fpn.layer_blocks[level][0].weight.flatten(2)  # (F, G, 9)
    if stage < level:
        cells = detector.roi_heads.box_head.fc6.in_features
        yield from (maps.new_zeros(maps.shape[1], cells) for _ in rows)
        return
    for lower in range(stage - 1, level - 1, -1):
        maps = F.interpolate(maps, size=scene.stages[lower].shape[-2:], mode="nearest")
    mixing = torch.einsum("fgd,gc->cfd", outer, inner).contiguous()  # (C, F, 9)
    padded = F.pad(maps, (1, 1, 1, 1))[0]  # (C, h + 2, w + 2)
    for row in rows:
        pooled = _pool_shifted(detector, padded, scene.rois[row], level)  # (C, 9, 49)
        yield torch.bmm(mixing, pooled).flatten(1)


def _pool_shifted(detector: nn.Module, padded: Tensor, roi: Tensor, level: int) -> Tensor:
    """R(S_d U A_c) for the nine shifts d, (C, 9, 49), from maps with a border of zeros.

    Only the part of the maps that the box touches is shifted.
    """
    scale = detector.roi_heads.box_roi_pool.scales[level]
    height, width = padded.shape[1] - 2, padded.shape[2] - 2
    x_min, y_min, x_max, y_max = (roi * scale).tolist()
    top, bottom = _span(y_min, y_max, height)
    left, right = _span(x_min, x_max, width)
    shifted = torch.cat([padded[:, top + i : bottom + i, left + j : right + j]
                         for i in range(3) for j in range(3)])  # fmt: skip
    moved = roi - roi.new_tensor([left, top, left, top]) / scale
    pooled = _pool(detector, shifted[None], moved[None], level)  # (1, 9 * C, 7, 7)
    return pooled.reshape(9, padded.shape[0], -1).transpose(0, 1)


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    """Rows or columns that bilinear sampling between two places may read, with one to spare.

    RoIAlign makes boxes at least one pixel wide, and repeats the edge outside the map.
    """
    first = min(max(int(low) - 2, 0), size - 1)
    return first, min(max(int(max(high, low + 1)) + 3, first + 1), size)


def sum_ablations(ablations: Sequence[BoxAblation]) -> BoxAblation:
    """Explain the summed score of several boxes, such as all boxes of a class in an image.

    Raises:
        AblationError: there is none, or they are of different layers or images.
    """
    if not len(ablations):
        raise AblationError("there is no box to explain; lower the score threshold, or skip it")
    first = ablations[0].activations
    if any(not np.array_equal(a.activations, first) for a in ablations[1:]):
        raise AblationError("these boxes do not share one layer of one image")
    return BoxAblation(
        sum(a.score for a in ablations),
        np.sum([a.ablated for a in ablations], axis=0),
        first,
        ablations[0].covered,
    )


@torch.no_grad()
def brute_force_ablation(
    detector: nn.Module,
    image: Tensor,
    box_xyxy: Sequence[float],
    label: int,
    *,
    layer: str = "layer3",
    recompute_later: bool = False,
) -> BoxAblation:
    """The same as `ablate_box`, by running pyramid and head again for every channel.

    Slow; it is what `ablate_box` is tested against.

    Args:
        detector: as in `ablate_boxes`, and so are the next four.
        image: see there.
        box_xyxy: see there.
        label: see there.
        layer: see there.
        recompute_later: also run the stages after this one again, as they would be in the network
            without the channel. `ablate_box` holds them.

    Raises:
        AblationError: as in `ablate_boxes`.
    """
    image, boxes, (label,) = _check(detector, image, [box_xyxy], [label], layer)
    scene = _run(detector, image, boxes)
    level = scene.levels[0]

    def score(stages: list[Tensor], channel: int | None = None) -> float:
        features = _pyramid(detector, stages)[level]
        if layer == PYRAMID and channel is not None:
            features = _without(features, channel)
        pooled = _pool(detector, features, scene.rois, level)
        return float(_class_scores(detector, _first_layer(detector, pooled), label)[0])

    def changed(channel: int) -> list[Tensor]:
        if layer == PYRAMID:
            return scene.stages
        stage = STAGES.index(layer)
        stages = [*scene.stages]
        stages[stage] = _without(stages[stage], channel)
        for later in range(stage + 1, len(STAGES)) if recompute_later else ():
            stages[later] = detector.backbone.body[STAGES[later]](stages[later - 1])
        return stages

    if layer == PYRAMID:
        activations = _pyramid(detector, scene.stages)[level][0].abs()
    else:
        activations = scene.stages[STAGES.index(layer)][0]
    ablated = [score(changed(channel), channel) for channel in range(len(activations))]
    return BoxAblation(
        score(scene.stages), np.float32(ablated), activations.cpu().numpy(), scene.covered
    )


def box_gradient(
    detector: nn.Module,
    image: Tensor,
    box_xyxy: Sequence[float],
    label: int,
    *,
    layer: str = "layer3",
) -> BoxGradient:
    """Gradient of the same score with respect to the same stage, the rest held as in `ablate_box`.

    Args:
        detector: as in `ablate_boxes`.
        image: see there.
        box_xyxy: see there.
        label: see there.
        layer: `layer1` to `layer4`.

    Raises:
        AblationError: as in `ablate_boxes`; also for the pyramid.
    """
    image, boxes, (label,) = _check(detector, image, [box_xyxy], [label], layer)
    if layer == PYRAMID:
        raise AblationError(f"Grad-CAM is given for {', '.join(STAGES)}, not for the pyramid")
    with torch.no_grad():
        scene = _run(detector, image, boxes)
    with torch.enable_grad():
        stages = [*scene.stages]
        stage = STAGES.index(layer)
        stages[stage] = stages[stage].detach().requires_grad_()
        level = scene.levels[0]
        pooled = _pool(detector, _pyramid(detector, stages)[level], scene.rois, level)
        score = _class_scores(detector, _first_layer(detector, pooled), label)[0]
        (gradient,) = torch.autograd.grad(score, stages[stage], allow_unused=True)
    if gradient is None:  # the stage does not reach the box
        gradient = torch.zeros_like(stages[stage])
    return BoxGradient(
        float(score.detach()),
        gradient[0].float().cpu().numpy(),
        stages[stage][0].detach().float().cpu().numpy(),
        scene.covered,
    )


@torch.no_grad()
def score_box(
    detector: nn.Module, images: np.ndarray | Tensor, box_xyxy: Sequence[float], label: int
) -> np.ndarray:
    """Probability of a class in one fixed box, for several versions of an image.

    Args:
        detector: as in `ablate_boxes`.
        images: (B, 1, H, W) or (B, 3, H, W), see above; a tensor on the detector's device.
        box_xyxy: the box, the same in all of them.
        label: of the class.

    Returns:
        (B,) float32 in [0, 1].

    Raises:
        AblationError: as in `ablate_boxes`.
    """
    _check_detector(detector)
    images = _on_device(images, next(detector.parameters()).device)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise AblationError(
            f"images of shape {tuple(images.shape)}; expected (B, 3, H, W) or (B, 1, H, W), B > 0"
        )
    images = images.expand(-1, 3, -1, -1)
    _, boxes, (label,) = _check(detector, images[0], [box_xyxy], [label], PYRAMID)
    scene = _run(detector, images, boxes)
    level, rois = scene.levels[0], [scene.rois] * len(images)
    pool = detector.roi_heads.box_roi_pool
    pooled = roi_align(
        _pyramid(detector, scene.stages)[level], rois, pool.output_size, pool.scales[level],
        pool.sampling_ratio,
    )  # fmt: skip
    return _class_scores(detector, _first_layer(detector, pooled), label).float().cpu().numpy()


def _check(
    detector: nn.Module,
    image: np.ndarray | Tensor,
    boxes_xyxy: Sequence[Sequence[float]],
    labels: Sequence[int],
    layer: str,
) -> tuple[Tensor, np.ndarray, list[int]]:
    """The image (3, H, W) in [0, 1], the boxes (n, 4) and the labels, after all refusals."""
    _check_detector(detector)
    if layer not in LAYERS:
        raise AblationError(f"layer {layer!r} is none of {', '.join(LAYERS)}")
    image = _on_device(image, next(detector.parameters()).device)
    image = image[None] if image.ndim == 2 else image
    if image.ndim != 3 or image.shape[0] not in (1, 3) or 0 in image.shape:
        raise AblationError(
            f"image of shape {tuple(image.shape)}; expected (H, W), (1, H, W) or (3, H, W)"
        )
    image = image.expand(3, -1, -1)
    boxes = _array(boxes_xyxy, "boxes")
    labels = _whole(labels, detector.roi_heads.box_predictor.cls_score.out_features)
    if boxes.size == 0 and not labels:
        return image, np.zeros((0, 4)), []
    if boxes.ndim != 2 or boxes.shape[1] != 4 or len(boxes) != len(labels):
        raise AblationError(
            f"boxes of shape {boxes.shape} and {len(labels)} labels; expected (n, 4) and n"
        )
    height, width = image.shape[1:]
    for box in boxes:
        if not np.isfinite(box).all() or (box[2:] <= box[:2]).any():
            raise AblationError(
                f"box {box.tolist()} is no (x_min, y_min, x_max, y_max) with an area"
            )
        if (box[2:] <= 0).any() or box[0] >= width or box[1] >= height:
            raise AblationError(f"box {box.tolist()} lies outside the image of {width} x {height}")
    return image, boxes, labels


def _on_device(image: np.ndarray | Tensor, device: torch.device) -> Tensor:
    if isinstance(image, Tensor) and image.device != device:
        raise AblationError(f"the image is on {image.device}, the detector on {device}; move one")
    return _unit(image).to(device)


def _unit(image: np.ndarray | Tensor) -> Tensor:
    """Gray values as float32 in [0, 1], but for rounding, where the image is."""
    try:
        image = image.detach() if isinstance(image, Tensor) else np.asarray(image)
    except ValueError as error:  # lists of several lengths
        raise AblationError(f"the image is no one array: {error}") from None
    kind = str(getattr(image.dtype, "name", image.dtype)).removeprefix("torch.")
    if kind not in ("uint8", "uint16") and "float" not in kind:
        raise AblationError(
            f"the image is {kind}; give uint8, uint16 of the full range, or float in [0, 1]"
        )
    if not isinstance(image, Tensor):
        image = torch.from_numpy(np.array(image, dtype=np.float32))
    values = image.float()
    if kind == "uint8" or not values.numel():
        return values / 255
    low, top = float(values.min()), float(values.max())
    if kind == "uint16" and 0 < top < 32768:
        raise AblationError(
            f"the image is uint16 up to {top:g}, so it holds {int(top).bit_length()} bits only; "
            "scale it to 65535, or give floats in [0, 1]"
        )
    if kind == "uint16":
        return values / 65535
    if not (low >= -1e-3 and top <= 1 + 1e-3):
        raise AblationError(
            f"the image has values from {low:g} to {top:g}; expected [0, 1], so give 8 bits as "
            "uint8, or divide them by 255"
        )
    return values


def _array(values, name: str) -> np.ndarray:
    """float64 of a list, an array, or a tensor of any device and type."""
    try:
        if isinstance(values, (list, tuple)):  # of tensors, perhaps
            return np.array([_array(one, name) for one in values], dtype=float)
        if isinstance(values, Tensor):
            values = values.detach().double().cpu()
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise AblationError(f"the {name} are no numbers: {error}") from None


def _whole(labels, classes: int) -> list[int]:
    """Classes as int, each one that the detector has."""
    values = _array(labels, "labels")
    if values.ndim != 1:
        raise AblationError(f"labels of shape {values.shape}; expected n, a list of them")
    for label in values:
        if not (1 <= label < classes and label == int(label)):
            raise AblationError(
                f"label {label:g} is no class of this detector; 0 is background, the last is "
                f"{classes - 1}"
            )
    return [int(label) for label in values]


def _check_detector(detector: nn.Module) -> None:
    """Refuse by name what the derivation does not cover."""
    if detector.training:
        raise AblationError("the detector is in training mode; call detector.eval() first")
    if not (hasattr(detector, "roi_heads") and hasattr(detector, "backbone")):
        raise AblationError(
            f"the network is a {type(detector).__name__}; only torchvision's FasterRCNN is covered"
        )
    heads, backbone = detector.roi_heads, detector.backbone
    parts = {
        "box head": (heads.box_head, TwoMLPHead),
        "box predictor": (heads.box_predictor, FastRCNNPredictor),
        "pooling": (heads.box_roi_pool, MultiScaleRoIAlign),
        "pyramid": (getattr(backbone, "fpn", None), FeaturePyramidNetwork),
    }
    for name, (part, kind) in parts.items():
        if not isinstance(part, kind):
            raise AblationError(
                f"the {name} is a {type(part).__name__}; only torchvision's {kind.__name__} is "
                "covered"
            )
    children = dict(backbone.named_children())
    body = dict(children["body"].named_children()) if "body" in children else {}
    absent = [stage for stage in STAGES if stage not in body]
    if absent or len(backbone.fpn.inner_blocks) != len(STAGES):
        raise AblationError(
            f"the backbone is no ResNet with a pyramid on all of {', '.join(STAGES)}; it has "
            f"{', '.join(body) or 'no body'}"
        )
    blocks = (*backbone.fpn.inner_blocks, *backbone.fpn.layer_blocks)
    if any(len(block) != 1 for block in blocks):
        raise AblationError("the pyramid has more than a convolution in a block, such as a norm")


def _run(detector: nn.Module, images: Tensor, boxes: np.ndarray) -> _Scene:
    """Run the backbone on one image, or on several of one size."""
    device = images.device
    target = {"boxes": torch.as_tensor(boxes, dtype=torch.float32, device=device)}
    several = list(images) if images.ndim == 4 else [images]
    batch, targets = detector.transform(several, [target] * len(several))
    stages = list(detector.backbone.body(batch.tensors).values())
    rois = targets[0]["boxes"]
    pool = detector.roi_heads.box_roi_pool
    if pool.scales is None:  # it learns its scales at first use
        pyramid = dict(zip(pool.featmap_names, _pyramid(detector, stages), strict=False))
        pool(pyramid, [rois] * len(several), batch.image_sizes)
    covered = tuple(
        own / padded
        for own, padded in zip(batch.image_sizes[0], batch.tensors.shape[-2:], strict=True)
    )
    return _Scene(stages, rois, pool.map_levels([rois]).tolist(), covered)


def _pyramid(detector: nn.Module, stages: list[Tensor]) -> list[Tensor]:
    return list(detector.backbone.fpn({str(i): x for i, x in enumerate(stages)}).values())


def _pool(detector: nn.Module, features: Tensor, rois: Tensor, level: int) -> Tensor:
    """(1, F, h, w) and (n, 4) -> (n, F, 7, 7)."""
    pool = detector.roi_heads.box_roi_pool
    return roi_align(features, [rois], pool.output_size, pool.scales[level], pool.sampling_ratio)


def _first_layer(detector: nn.Module, pooled: Tensor) -> Tensor:
    return detector.roi_heads.box_head.fc6(pooled.flatten(1))


def _class_scores(detector: nn.Module, hidden: Tensor, label: int) -> Tensor:
    """(N, D) before the head's first activation -> (N,) probability of the class."""
    head = detector.roi_heads.box_head
    logits, _ = detector.roi_heads.box_predictor(F.relu(head.fc7(F.relu(hidden))))
    scores = logits.softmax(dim=1)[:, label]
    if scores.isnan().any():
        raise AblationError("the detector scores this box NaN; look for NaN in its weights")
    return scores


def _without(features: Tensor, channel: int) -> Tensor:
    changed = features.clone()
    changed[:, channel] = 0
    return changed
