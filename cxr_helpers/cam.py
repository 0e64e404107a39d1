"""Ablation-CAM of a Faster R-CNN: which feature channels does the score of a box rest on?

Ablation-CAM removes one channel of a layer at a time and weighs the channel's activation map by
the share of the score that goes with it: w_c = (s - s_c) / s, and the map is relu(sum w_c A_c).

Two ways are here. `library_ablation_cam` is pytorch-grad-cam's: the whole detector runs once for
each channel, its proposals may move, and the score is that of the detection that still overlaps
the box. `ablate_box` holds the box fixed and asks only how its class score changes. That needs no
further run of the detector, because everything between the ablated channel and the box head's
first layer is linear.

Derivation. Let x_c be channel c of stage s of the ResNet, l <= s the pyramid level that the box is
pooled from, R the RoIAlign of the box (linear, each channel for itself), U the nearest
upsampling from stage s to level l, W the 1x1 convolution of stage s, L the 3x3 convolution of
level l, and S_d the shift of a map by one of the nine offsets d of a 3x3 kernel. Then channel c
contributes to the pooled features, for every pyramid channel f,

    delta_c[f] = sum_d (sum_g L[f, g, d] W[g, c]) R(S_d(U(x_c))),

biases being untouched. The box head's first layer is linear too, so removing the channel changes
its input to the activation function from z to z - F vec(delta_c). All channels together are three
matrix products; the rest of the head is run on one row for each channel. For a channel of the
pyramid level itself, delta_c is the pooled channel alone. A stage below the pooled level (s < l)
does not reach the box, and all its weights are 0.

What differs from ablating the stage inside the network: later stages are computed from this one,
and here they are held as they were. The route through the pyramid is what is explained.

Paper: Desai and Ramaswamy, Ablation-CAM, WACV 2020.

Needs: grad-cam, numpy, torch, torchvision.
"""

import contextlib
import copy
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_grad_cam import AblationCAM
from pytorch_grad_cam.ablation_layer import AblationLayer, AblationLayerFasterRCNN
from pytorch_grad_cam.utils.model_targets import FasterRCNNBoxScoreTarget
from pytorch_grad_cam.utils.reshape_transforms import fasterrcnn_reshape_transform
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.ops import roi_align

STAGES = ("layer1", "layer2", "layer3", "layer4")  # C2, C3, C4, C5 of the papers
PYRAMID = "pyramid"
PARTS = ("head", "pyramid", "layer4", "layer3", "layer2", "layer1", "stem")


class AblationError(ValueError):
    """A detector, a box or a layer that cannot be explained this way."""


@dataclass(frozen=True)
class BoxAblation:
    """What every channel of a layer contributes to the score of one fixed box.

    Attributes:
        score: probability of the class in the box, all channels in place.
        ablated: (C,) float32, the probability with each channel removed.
        activations: (C, h, w) float32, what the channels show; magnitudes for the pyramid, whose
            channels have no sign convention.
    """

    score: float
    ablated: np.ndarray
    activations: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """(C,) share of the score that goes with each channel; negative if removal helps."""
        return (self.score - self.ablated) / self.score

    @property
    def heatmap(self) -> np.ndarray:
        """(h, w) float32, not negative: the weighted sum of the activations, cut at zero."""
        return np.maximum(np.tensordot(self.weights, self.activations, axes=1), 0)


@torch.no_grad()
def ablate_box(
    detector: nn.Module,
    image: Tensor,
    box_xyxy: Sequence[float],
    label: int,
    *,
    layer: str = "layer3",
) -> BoxAblation:
    """Ablate every channel of a layer for one fixed box, exactly and in one go.

    Args:
        detector: a torchvision Faster R-CNN on a ResNet with feature pyramid, in eval mode.
        image: (3, H, W) float32 in [0, 1], on the detector's device.
        box_xyxy: four floats, pixels of the image.
        label: class whose probability is explained, from 1.
        layer: `layer1` to `layer4` of the ResNet (C2 to C5), or `pyramid` for the level that the
            box is pooled from.

    Raises:
        AblationError: the detector trains or has another head, the box has no area, or the
            label or the layer does not exist.
    """
    stages, roi, level = _prepare(detector, image, box_xyxy, label, layer)
    pyramid = _pyramid(detector, stages)[level]
    pooled = _pool(detector, pyramid, roi, level)  # (1, F, 7, 7)
    fc6 = detector.roi_heads.box_head.fc6
    before = fc6(pooled.flatten(1))  # (1, D)
    if layer == PYRAMID:
        kernel = fc6.weight.unflatten(1, (pooled.shape[1], -1))  # (D, F, 49)
        change = torch.einsum("dfp,fp->fd", kernel, pooled[0].flatten(1))
        activations = pyramid.abs()
    else:
        stage = STAGES.index(layer)
        activations = stages[stage]
        change = _stage_change(detector, stages, stage, level, roi) @ fc6.weight.T
    scores = _class_scores(detector, torch.cat([before, before - change]), label)
    return BoxAblation(
        float(scores[0]), scores[1:].float().cpu().numpy(), activations[0].float().cpu().numpy()
    )


def _stage_change(
    detector: nn.Module, stages: list[Tensor], stage: int, level: int, roi: Tensor
) -> Tensor:
    """delta_c of the derivation above: (C, F * 49)."""
    maps = stages[stage]  # (1, C, h, w)
    fpn = detector.backbone.fpn
    inner = fpn.inner_blocks[stage][0].weight[:, :, 0, 0]  # (G, C)
    outer = fpn.layer_blocks[level][0].weight.flatten(2)  # (F, G, 9)
    if level > stage:
        return maps.new_zeros(maps.shape[1], outer.shape[0] * 49)
    for lower in range(stage - 1, level - 1, -1):
        maps = F.interpolate(maps, size=stages[lower].shape[-2:], mode="nearest")
    height, width = maps.shape[-2:]
    padded = F.pad(maps, (1, 1, 1, 1))[0]
    shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    pooled = _pool(detector, torch.cat(shifted)[None], roi, level)  # (1, 9 * C, 7, 7)
    pooled = pooled.reshape(9, -1, 49)  # (9, C, 49)
    mixing = torch.einsum("fgd,gc->dfc", outer, inner)  # (9, F, C)
    return torch.einsum("dfc,dcp->cfp", mixing, pooled).flatten(1)


@torch.no_grad()
def brute_force_ablation(
    detector: nn.Module,
    image: Tensor,
    box_xyxy: Sequence[float],
    label: int,
    *,
    layer: str = "layer3",
) -> BoxAblation:
    """The same as `ablate_box`, by running pyramid and head again for every channel.

    Slow; it is what `ablate_box` is tested against. Arguments and errors are the same.
    """
    stages, roi, level = _prepare(detector, image, box_xyxy, label, layer)

    def score(changed: list[Tensor], channel: int | None = None) -> float:
        features = _pyramid(detector, changed)[level]
        if layer == PYRAMID and channel is not None:
            features = _without(features, channel)
        pooled = _pool(detector, features, roi, level).flatten(1)
        return float(_class_scores(detector, detector.roi_heads.box_head.fc6(pooled), label)[0])

    if layer == PYRAMID:
        activations = _pyramid(detector, stages)[level].abs()
        ablated = [score(stages, c) for c in range(activations.shape[1])]
    else:
        stage = STAGES.index(layer)
        activations = stages[stage]
        ablated = [
            score([*stages[:stage], _without(activations, c), *stages[stage + 1 :]])
            for c in range(activations.shape[1])
        ]
    return BoxAblation(score(stages), np.float32(ablated), activations[0].cpu().numpy())


class PyramidAblationLayer(AblationLayerFasterRCNN):
    """pytorch-grad-cam's ablation of the pyramid, for a pyramid of any width.

    The library's own layer takes channel i to be channel i % 256 of level i // 256.

    Args:
        channels: width of the pyramid.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        """The stored pyramid, with one channel ablated in each copy of the image."""
        names = list(self.activations)
        for row in range(self.activations["pool"].shape[0]):
            level, channel = divmod(int(self.indices[row]), self.channels)
            self.activations[names[level]][row, channel] = -1000  # the library's value
        return self.activations


def library_ablation_cam(
    detector: nn.Module,
    image: Tensor,
    box_xyxy: Sequence[float],
    label: int,
    *,
    layer: str = "layer3",
    ratio: float = 1.0,
    batch_size: int = 16,
) -> np.ndarray:
    """Ablation-CAM as pytorch-grad-cam computes it: one run of the detector for each channel.

    The score is the library's: IoU with the box plus class probability of the detection that
    overlaps it most, and 0 where none of the class overlaps it by half.

    Args:
        detector: a torchvision Faster R-CNN on a ResNet with feature pyramid, in eval mode.
        image: (3, H, W) float32 in [0, 1], on the detector's device.
        box_xyxy: a box that the detector finds in this image, pixels of the image.
        label: its class, from 1.
        layer: `layer1` to `layer4` of the ResNet, or `pyramid` for all its levels at once.
        ratio: the library ablates this share of the channels from either end of its own ranking,
            so that 0.5 already means all of them.
        batch_size: channels ablated in one run.

    Returns:
        (H, W) float32 in [0, 1].

    Raises:
        AblationError: as in `ablate_box`; also where the detector does not find the box.
    """
    _prepare(detector, image, box_xyxy, label, layer)
    box = np.asarray(box_xyxy, dtype=np.float32)
    target = FasterRCNNBoxScoreTarget(labels=[label], bounding_boxes=[box])
    with torch.no_grad():
        if float(target(detector([image])[0])) <= 0:
            raise AblationError(f"the detector finds no box of class {label} at {box.tolist()}")
    if layer == PYRAMID:
        module, reshape = detector.backbone, fasterrcnn_reshape_transform
        ablation: AblationLayer = PyramidAblationLayer(detector.backbone.out_channels)
    else:
        module, reshape, ablation = detector.backbone.body[layer], None, AblationLayer()
    silent = contextlib.redirect_stderr(io.StringIO())  # the library always draws a bar
    try:
        with (
            silent,
            AblationCAM(
                detector,
                [module],
                reshape_transform=reshape,
                ablation_layer=ablation,
                batch_size=batch_size,
                ratio_channels_to_ablate=ratio,
            ) as method,
        ):
            return method(image[None], targets=[target])[0].astype(np.float32)
    finally:  # the library leaves its own layer in place when it is interrupted
        if layer == PYRAMID:
            detector.backbone = module
        else:
            detector.backbone.body[layer] = module


def randomized_copy(detector: nn.Module, parts: Sequence[str], *, seed: int) -> nn.Module:
    """A copy with some parts drawn anew.

    A map that stays the same on it says nothing of what was learned.

    Args:
        detector: left as it is.
        parts: of `head`, `pyramid`, `layer4` to `layer1`, `stem`.
        seed: of the new weights.

    Source:
        Adebayo et al., Sanity checks for saliency maps, https://arxiv.org/abs/1810.03292.

    Raises:
        AblationError: no such part.
    """
    unknown = [p for p in parts if p not in PARTS]
    if unknown:
        raise AblationError(f"part {unknown[0]!r} is none of {', '.join(PARTS)}")
    changed = copy.deepcopy(detector)
    body = changed.backbone.body
    modules = {
        "head": [changed.roi_heads.box_head, changed.roi_heads.box_predictor],
        "pyramid": [changed.backbone.fpn],
        "stem": [body["conv1"], body["bn1"]],
        **{stage: [body[stage]] for stage in STAGES},
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part in parts:
            for module in (m for root in modules[part] for m in root.modules()):
                if isinstance(module, nn.Conv2d):  # torchvision's start of a ResNet
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                elif hasattr(module, "reset_parameters"):
                    module.reset_parameters()
    return changed


def _prepare(
    detector: nn.Module, image: Tensor, box_xyxy: Sequence[float], label: int, layer: str
) -> tuple[list[Tensor], Tensor, int]:
    """Stages C2 to C5, the box in pixels of the network's input, and its pyramid level."""
    if detector.training:
        raise AblationError("the detector is in training mode; call detector.eval() first")
    if not isinstance(detector.roi_heads.box_head, TwoMLPHead):
        name = type(detector.roi_heads.box_head).__name__
        raise AblationError(f"the box head is a {name}; only torchvision's TwoMLPHead is covered")
    if layer not in (*STAGES, PYRAMID):
        raise AblationError(f"layer {layer!r} is none of {', '.join((*STAGES, PYRAMID))}")
    if not 1 <= label < detector.roi_heads.box_predictor.cls_score.out_features:
        raise AblationError(f"label {label} is no class of this detector; 0 is background")
    box = np.asarray(box_xyxy, dtype=float)
    if box.shape != (4,) or not np.isfinite(box).all() or (box[2:] <= box[:2]).any():
        raise AblationError(f"box {box.tolist()} is no (x_min, y_min, x_max, y_max) with an area")
    device = next(detector.parameters()).device
    if image.ndim != 3 or image.device != device:
        raise AblationError(
            f"image of shape {tuple(image.shape)} on {image.device}; expected (3, H, W) on {device}"
        )
    with torch.no_grad():
        target = {"boxes": torch.as_tensor(box[None], dtype=torch.float32, device=device)}
        images, targets = detector.transform([image], [target])
        stages = list(detector.backbone.body(images.tensors).values())
        roi = targets[0]["boxes"]
        pool = detector.roi_heads.box_roi_pool
        pyramid = dict(zip(pool.featmap_names, _pyramid(detector, stages), strict=False))
        pool(pyramid, [roi], images.image_sizes)  # it learns its scales in use
        return stages, roi, int(pool.map_levels([roi])[0])


def _pyramid(detector: nn.Module, stages: list[Tensor]) -> list[Tensor]:
    return list(detector.backbone.fpn({str(i): x for i, x in enumerate(stages)}).values())


def _pool(detector: nn.Module, features: Tensor, roi: Tensor, level: int) -> Tensor:
    pool = detector.roi_heads.box_roi_pool
    return roi_align(features, [roi], pool.output_size, pool.scales[level], pool.sampling_ratio)


def _class_scores(detector: nn.Module, hidden: Tensor, label: int) -> Tensor:
    """(N, D) before the head's first activation -> (N,) probability of the class."""
    head = detector.roi_heads.box_head
    logits, _ = detector.roi_heads.box_predictor(F.relu(head.fc7(F.relu(hidden))))
    return logits.softmax(dim=1)[:, label]


def _without(features: Tensor, channel: int) -> Tensor:
    changed = features.clone()
    changed[:, channel] = 0
    return changed
