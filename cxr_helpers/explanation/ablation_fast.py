"""Ablation-CAM of one fixed box of a Faster R-CNN, all channels at once.

Ablation-CAM (Desai and Ramaswamy, WACV 2020) removes one channel of a layer at a time and weighs
the channel's map A_c by what the score s loses:

    w_c = s - s_c,    heatmap = relu(sum_c w_c A_c).

The score is the class's log-odds (`fixed_box` says why), which may be zero or negative. So the loss
is not divided by the score, as the paper does with a probability: that would only scale the map,
and a negative score would turn it over.

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
be arrays, lists or tensors. What cannot be explained raises `inputs.ExplanationError`.

>>> from torchvision.models.detection import FasterRCNN, backbone_utils
>>> backbone = backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None)
>>> detector = FasterRCNN(backbone, num_classes=3, min_size=64, max_size=64).eval()
>>> image, box, label = np.zeros((64, 64)), [8, 8, 40, 40], 1
>>> ablation = ablate_box(detector, image, box, label)
>>> ablation.weights.shape, ablation.heatmap.shape
((256,), (4, 4))
>>> len(ablate_boxes(detector, image, [box, box], [1, 2], layer="layer4"))
2
>>> brute_force_ablation(detector, image, box, label, layer="layer1").weights.shape
(64,)
>>> box_gradient(detector, image, box, label).heatmap.shape
(4, 4)

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, torch.
Goes with: fixed_box.py, inputs.py, layers.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from .fixed_box import (
    Scene,
    enter,
    first_layer,
    log_odds,
    mixing,
    pool,
    pool_shifted,
    pyramid,
    score_without,
    spread,
)
from .inputs import ExplanationError
from .layers import DEFAULT_LAYER, PYRAMID, STAGES


@dataclass(frozen=True)
class BoxAblation:
    """What every channel of a layer contributes to the score of one fixed box.

    Attributes:
        score: log-odds of the class in the box, all channels in place.
        ablated: (C,) float32, the log-odds with each channel removed.
        activations: (C, h, w) float32, what the channels show; magnitudes for the pyramid, whose
            channels have no sign convention.
        covered: share of the map's height and width that shows the image; the rest is the padding
            that the detector adds to a side not divisible by 32.

    >>> maps = np.array([[[4.0, 0.0]], [[0.0, 2.0]]])
    >>> ablation = BoxAblation(-0.5, np.array([-1.25, -0.5]), maps)
    >>> ablation.weights.round(2).tolist(), ablation.heatmap.round(2).tolist()
    ([0.75, 0.0], [[3.0, 0.0]])
    """

    score: float
    ablated: np.ndarray
    activations: np.ndarray
    covered: tuple[float, float] = (1.0, 1.0)

    @property
    def weights(self) -> np.ndarray:
        """(C,) log-odds that go with each channel; negative if removal helps."""
        return self.score - self.ablated

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
        score: log-odds of the class in the box.
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


def ablate_box(
    detector: nn.Module,
    image: np.ndarray | Tensor,
    box_xyxy: Sequence[float],
    label: int,
    *,
    layer: str = DEFAULT_LAYER,
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
    layer: str = DEFAULT_LAYER,
) -> list[BoxAblation]:
    """Ablate every channel of a layer for each of some boxes of one image, exactly.

    Args:
        detector: a torchvision Faster R-CNN on a ResNet with feature pyramid, in eval mode.
        image: (H, W), (1, H, W) or (3, H, W), see above; a tensor on the detector's device.
        boxes_xyxy: (n, 4) floats; detected or not. n may be 0.
        labels: n classes whose log-odds are explained.
        layer: of `layers.LAYERS`; the pyramid is that level (P2 to P5) that a box is pooled from.

    Returns:
        One ablation for each box; none where there is no box.

    Raises:
        ExplanationError: as `fixed_box.enter`, or the detector scores a box NaN.
    """
    scene, labels = enter(detector, image, boxes_xyxy, labels, layer)
    levels, weight = pyramid(detector, scene.stages), detector.roi_heads.box_head.fc6.weight
    linear = cache(lambda level: _linear(detector, scene.stages, STAGES.index(layer), level))
    found = []
    for roi, level, label in zip(scene.rois, scene.levels, labels, strict=True):
        pooled = pool(detector, levels[level], roi[None], level)  # (1, F, 7, 7)
        if layer == PYRAMID:
            delta = torch.block_diag(*pooled[0].flatten(1))  # (F, F * 49)
        elif STAGES.index(layer) < level:  # the stage does not reach the box
            delta = weight.new_zeros(scene.stages[STAGES.index(layer)].shape[1], weight.shape[1])
        else:
            mixed, padded = linear(level)
            delta = torch.bmm(mixed, pool_shifted(detector, padded, roi, level)).flatten(1)
        before = first_layer(detector, pooled)
        hidden = torch.cat([before, before - delta @ weight.T])
        scores = log_odds(detector, hidden, label).float().cpu().numpy()
        activations = _activations(scene, levels[level], layer)
        found.append(BoxAblation(float(scores[0]), scores[1:], activations, scene.covered))
    return found


def _linear(
    detector: nn.Module, stages: list[Tensor], stage: int, level: int
) -> tuple[Tensor, Tensor]:
    """The matrix in brackets, (C, F, 9), and U A_c with a border of zeros, (C, h + 2, w + 2)."""
    return mixing(detector, stage, level), spread(stages[stage], stages, stage, level)


def _activations(scene: Scene, features: Tensor, layer: str) -> np.ndarray:
    """(C, h, w) float32 of the layer, or of the level of the pyramid with these features."""
    maps = features.abs() if layer == PYRAMID else scene.stages[STAGES.index(layer)]
    return maps[0].float().cpu().numpy()


@torch.no_grad()
def brute_force_ablation(
    detector: nn.Module,
    image: np.ndarray | Tensor,
    box_xyxy: Sequence[float],
    label: int,
    *,
    layer: str = DEFAULT_LAYER,
    recompute_later: bool = False,
) -> BoxAblation:
    """The same as `ablate_box`, by running pyramid and head again for every channel.

    Slow; it is what `ablate_box` is tested against. Arguments and errors are those of
    `ablate_boxes`, but for

    Args:
        recompute_later: also run the stages after this one again, as they would be in the network
            without the channel. `ablate_box` holds them.
    """
    scene, (label,) = enter(detector, image, [box_xyxy], [label], layer)
    activations = _activations(scene, pyramid(detector, scene.stages)[scene.levels[0]], layer)
    own = {"recompute_later": recompute_later}
    ablated = [
        score_without(detector, scene, label, layer, (slice(None), channel), **own)
        for channel in range(len(activations))
    ]
    whole = score_without(detector, scene, label, layer, None)
    return BoxAblation(whole, np.float32(ablated), activations, scene.covered)


def box_gradient(
    detector: nn.Module,
    image: np.ndarray | Tensor,
    box_xyxy: Sequence[float],
    label: int,
    *,
    layer: str = DEFAULT_LAYER,
) -> BoxGradient:
    """Gradient of the same score with respect to the same stage, the rest held as in `ablate_box`.

    Arguments and errors are those of `ablate_boxes`, but the pyramid is refused.
    """
    scene, (label,) = enter(detector, image, [box_xyxy], [label], layer)
    if layer == PYRAMID:
        raise ExplanationError(f"Grad-CAM is given for {', '.join(STAGES)}, not for the pyramid")
    (level,), stages = scene.levels, [*scene.stages]
    with torch.enable_grad():
        maps = stages[STAGES.index(layer)].detach().requires_grad_()
        stages[STAGES.index(layer)] = maps
        pooled = pool(detector, pyramid(detector, stages)[level], scene.rois, level)
        score = log_odds(detector, first_layer(detector, pooled), label)[0]
        (gradient,) = torch.autograd.grad(score, maps, allow_unused=True)
    if gradient is None:  # the stage does not reach the box
        gradient = torch.zeros_like(maps)
    slope, activations = (x[0].detach().float().cpu().numpy() for x in (gradient, maps))
    return BoxGradient(float(score.detach()), slope, activations, scene.covered)
