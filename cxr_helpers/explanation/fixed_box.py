"""A fixed box of a Faster R-CNN, step by step: stages, pyramid, pooled box, score.

`ablation_fast` and `cells` change something between two of these steps and go on from there. All
that lies between a stage of the ResNet and the first activation function of the box head is linear.

The score is the class's log-odds against all other classes and the background,

    log(p / (1 - p)),

and not its probability p. At a probability of 0.99 no channel costs more than a few ten thousandths
of it, because p is nearly flat there; log-odds are as steep as everywhere else.

An image is gray, (H, W) or (1, H, W), or (3, H, W) with the channels alike; uint8, uint16 of the
full range, or float in [0, 1]. Boxes are xyxy in pixels of the image; labels count from 1. All may
be arrays, lists or tensors. What cannot be explained raises `inputs.ExplanationError`.

>>> from torchvision.models.detection import FasterRCNN, backbone_utils
>>> backbone = backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None)
>>> detector = FasterRCNN(backbone, num_classes=3, min_size=64, max_size=64).eval()
>>> scene, labels = enter(detector, np.zeros((64, 64)), [[8, 8, 40, 40]], [1], "layer3")
>>> [tuple(maps.shape[1:]) for maps in scene.stages]
[(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)]
>>> level = scene.levels[0]
>>> pooled = pool(detector, pyramid(detector, scene.stages)[level], scene.rois, level)
>>> tuple(pooled.shape)
(1, 256, 7, 7)
>>> tuple(log_odds(detector, first_layer(detector, pooled), 1).shape)
(1,)
>>> score_box(detector, np.zeros((5, 1, 64, 64)), [8, 8, 40, 40], 1).shape
(5,)

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, torch, torchvision.
Goes with: inputs.py, layers.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, roi_align

from .inputs import ExplanationError, check_labeled_boxes, images_for
from .layers import LAYERS, PYRAMID, STAGES


@dataclass(frozen=True)
class Scene:
    """An image inside a detector, or several of one size.

    Attributes:
        stages: C2 to C5, each (B, C, h, w).
        rois: (n, 4) boxes in pixels of the detector's input, the same in all images.
        levels: of the pyramid that each box is pooled from, 0 for P2.
        covered: share of the height and width that shows the image; the rest is the padding that
            the detector adds to a side not divisible by 32.
    """

    stages: list[Tensor]
    rois: Tensor
    levels: list[int]
    covered: tuple[float, float]


@torch.no_grad()
def enter(
    detector: nn.Module,
    images: np.ndarray | Tensor,
    boxes_xyxy: Sequence[Sequence[float]],
    labels: Sequence[int],
    layer: str,
    *,
    several: bool = False,
) -> tuple[Scene, list[int]]:
    """Run the backbone on an image, or on several of one size, after all refusals.

    Args:
        detector: a torchvision Faster R-CNN on a ResNet with feature pyramid, in eval mode.
        images: one image, see above; with `several`, (B, 1, H, W) or (B, 3, H, W).
        boxes_xyxy: (n, 4); n may be 0.
        labels: n classes.
        layer: of `layers.LAYERS`; only checked here.
        several: whether `images` is a batch.

    Returns:
        The scene, and the labels as plain numbers.

    Raises:
        ExplanationError: the detector trains, or it, its pyramid or its box head is of another
            kind; the image is of another type or shape, on another device, or holds values that
            are not finite or outside [0, 1]; a box has no area or lies outside the image; or a
            label or the layer does not exist.
    """
    check_detector(detector)
    if layer not in LAYERS:
        raise ExplanationError(f"layer {layer!r} is none of {', '.join(LAYERS)}")
    device = next(detector.parameters()).device
    images = torch.from_numpy(images_for(device, images, several=several)).to(device)
    images = images.expand(-1, 3, -1, -1)
    boxes, labels = check_labeled_boxes(
        boxes_xyxy,
        labels,
        image_hw=tuple(images.shape[-2:]),
        class_count=detector.roi_heads.box_predictor.cls_score.out_features,
    )
    target = {"boxes": torch.as_tensor(boxes, dtype=torch.float32, device=device)}
    batch, targets = detector.transform(list(images), [target] * len(images))
    stages = list(detector.backbone.body(batch.tensors).values())
    rois = targets[0]["boxes"]
    pooling = detector.roi_heads.box_roi_pool
    if pooling.scales is None:  # it learns its scales at first use
        named = dict(zip(pooling.featmap_names, pyramid(detector, stages), strict=False))
        pooling(named, [rois] * len(images), batch.image_sizes)
    covered = tuple(
        own / padded
        for own, padded in zip(batch.image_sizes[0], batch.tensors.shape[-2:], strict=True)
    )
    return Scene(stages, rois, pooling.map_levels([rois]).tolist(), covered), labels


def pyramid(detector: nn.Module, stages: list[Tensor]) -> list[Tensor]:
    """C2 to C5 -> the levels of the pyramid, P2 first."""
    return list(detector.backbone.fpn({str(i): x for i, x in enumerate(stages)}).values())


def pool(detector: nn.Module, features: Tensor, rois: Tensor, level: int) -> Tensor:
    """(B, F, h, w) of a level and (n, 4) -> (B * n, F, 7, 7): the same boxes in each image."""
    pooling, rois = detector.roi_heads.box_roi_pool, [rois] * len(features)
    size, ratio = pooling.output_size, pooling.sampling_ratio
    return roi_align(features, rois, size, pooling.scales[level], ratio)


def mixing(detector: nn.Module, stage: int, level: int) -> Tensor:
    """(C, F, 9): how channel c of a stage enters channel f of a level through each of nine shifts.

    The 1x1 lateral convolution of the stage and the 3x3 smoothing of the level, multiplied.
    """
    fpn = detector.backbone.fpn
    inner = fpn.inner_blocks[stage][0].weight[:, :, 0, 0]  # (G, C)
    outer = fpn.layer_blocks[level][0].weight.flatten(2)  # (F, G, 9)
    return torch.einsum("fgd,gc->cfd", outer, inner).contiguous()


def spread(maps: Tensor, stages: list[Tensor], stage: int, level: int) -> Tensor:
    """Maps of a stage's size on a level's, with a border of zeros: (1, C, h, w) -> (C, H+2, W+2).

    By the pyramid's nearest upsampling, from stage to stage.
    """
    for lower in range(stage - 1, level - 1, -1):
        maps = F.interpolate(maps, size=stages[lower].shape[-2:], mode="nearest")
    return F.pad(maps, (1, 1, 1, 1))[0]


def pool_shifted(detector: nn.Module, padded: Tensor, roi: Tensor, level: int) -> Tensor:
    """One box of each map, shifted by each of nine places: (C, H+2, W+2) -> (C, 9, 49).

    Only the part of the maps that the box touches is shifted.

    Args:
        detector: as in `enter`.
        padded: as `spread` gives it.
        roi: (4,).
        level: that the box is pooled from.
    """
    scale = detector.roi_heads.box_roi_pool.scales[level]
    rows, columns = touched(detector, padded.shape, roi, level)
    height, width = rows.stop - rows.start - 2, columns.stop - columns.start - 2
    near = padded[:, rows, columns]
    shifted = torch.cat([near[:, i : i + height, j : j + width]
                         for i in range(3) for j in range(3)])  # fmt: skip
    moved = roi - roi.new_tensor([columns.start, rows.start] * 2) / scale
    pooled = pool(detector, shifted[None], moved[None], level)  # (1, 9 * C, 7, 7)
    return pooled.reshape(9, padded.shape[0], -1).transpose(0, 1)


def touched(
    detector: nn.Module, padded_shape: Sequence[int], roi: Tensor, level: int
) -> tuple[slice, slice]:
    """Rows and columns of padded maps that a box may read through all nine shifts."""
    x_min, y_min, x_max, y_max = (roi * detector.roi_heads.box_roi_pool.scales[level]).tolist()
    spans = _span(y_min, y_max, padded_shape[-2] - 2), _span(x_min, x_max, padded_shape[-1] - 2)
    return tuple(slice(first, last + 2) for first, last in spans)


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    """Rows or columns that bilinear sampling between two places may read, with one to spare.

    RoIAlign makes boxes at least one pixel wide, and repeats the edge outside the map.
    """
    first = min(max(int(low) - 2, 0), size - 1)
    return first, min(max(int(max(high, low + 1)) + 3, first + 1), size)


def first_layer(detector: nn.Module, pooled: Tensor) -> Tensor:
    """(N, F, 7, 7) -> (N, D), what the box head has before its first activation function."""
    return detector.roi_heads.box_head.fc6(pooled.flatten(1))


def log_odds(detector: nn.Module, hidden: Tensor, label: int) -> Tensor:
    """(N, D) of `first_layer` -> (N,) log-odds of the class against all others.

    Raises:
        ExplanationError: a score is NaN.
    """
    head = detector.roi_heads.box_head
    logits, _ = detector.roi_heads.box_predictor(F.relu(head.fc7(F.relu(hidden))))
    others = torch.cat([logits[:, :label], logits[:, label + 1 :]], dim=1)
    scores = logits[:, label] - others.logsumexp(dim=1)
    if scores.isnan().any():
        raise ExplanationError("the detector scores this box NaN; look for NaN in its weights")
    return scores


def probability(odds: float | np.ndarray) -> float | np.ndarray:
    """The probability that belongs to log-odds.

    >>> float(probability(0.0))
    0.5
    """
    return 1 / (1 + np.exp(-np.clip(odds, -80, 80)))


@torch.no_grad()
def score_box(
    detector: nn.Module, images: np.ndarray | Tensor, box_xyxy: Sequence[float], label: int
) -> np.ndarray:
    """Log-odds of a class in one fixed box, for several versions of an image.

    Args:
        detector: as in `enter`, and so are the errors.
        images: (B, 1, H, W) or (B, 3, H, W), see above; a tensor on the detector's device.
        box_xyxy: the box, the same in all of them.
        label: of the class.

    Returns:
        (B,) float32.
    """
    scene, (label,) = enter(detector, images, [box_xyxy], [label], PYRAMID, several=True)
    (level,) = scene.levels
    pooled = pool(detector, pyramid(detector, scene.stages)[level], scene.rois, level)
    return log_odds(detector, first_layer(detector, pooled), label).float().cpu().numpy()


def check_detector(detector: nn.Module) -> None:
    """Refuse by name what is no Faster R-CNN with a plain pyramid and head.

    Raises:
        ExplanationError: with the part that is of another kind.
    """
    if detector.training:
        raise ExplanationError("the detector is in training mode; call detector.eval() first")
    if not (hasattr(detector, "roi_heads") and hasattr(detector, "backbone")):
        raise ExplanationError(
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
            raise ExplanationError(
                f"the {name} is a {type(part).__name__}; only torchvision's {kind.__name__} is "
                "covered"
            )
    body = [name for name, _ in getattr(backbone, "body", nn.Module()).named_children()]
    if not set(STAGES) <= set(body) or len(backbone.fpn.inner_blocks) != len(STAGES):
        raise ExplanationError(
            f"the backbone is no ResNet with a pyramid on all of {', '.join(STAGES)}; it has "
            f"{', '.join(body) or 'no body'}"
        )
    blocks = (*backbone.fpn.inner_blocks, *backbone.fpn.layer_blocks)
    if any(len(block) != 1 for block in blocks):
        raise ExplanationError("the pyramid has more than a convolution in a block, such as a norm")


def score_without(
    detector: nn.Module,
    scene: Scene,
    label: int,
    layer: str,
    removed: tuple | None,
    *,
    recompute_later: bool = False,
) -> float:
    """Log-odds of a scene's first box, by running pyramid and head on maps with a part set to zero.

    Args:
        detector: as for `enter`.
        scene: from `enter`.
        label: of the class.
        layer: of `layers.LAYERS`, where the part is removed.
        removed: index into the layer's (1, C, h, w); None removes nothing.
        recompute_later: also run the stages after this one again.
    """
    stages, level = [*scene.stages], scene.levels[0]
    if removed is not None and layer != PYRAMID:
        stage = STAGES.index(layer)
        stages[stage] = _zeroed(stages[stage], removed)
        for later in range(stage + 1, len(STAGES)) if recompute_later else ():
            stages[later] = detector.backbone.body[STAGES[later]](stages[later - 1])
    features = pyramid(detector, stages)[level]
    if removed is not None and layer == PYRAMID:
        features = _zeroed(features, removed)
    pooled = pool(detector, features, scene.rois, level)
    return float(log_odds(detector, first_layer(detector, pooled), label)[0])


def _zeroed(features: Tensor, removed: tuple) -> Tensor:
    changed = features.clone()
    changed[removed] = 0
    return changed
