"""The map of a linear probe: where an image classifier that knows no box finds its class.

A logistic regression on features that are averaged over the image scores a class by

    log-odds = w . mean_ij A[:, i, j] + b.

The average may as well be taken last, so the score is a mean over cells, and each cell's part of
it is known without any ablation. Against what the mean training image has there, m[:, i, j],

    map_ij = w . (A[:, i, j] - m[:, i, j])

is what the cell adds to the log-odds of the mean training image (for a linear score these are its
Shapley values). Without m this is the class activation map; with it, what every chest has at that
place says nothing. The heatmap is cut at zero.

The probe was told which images have the class, not where: no box goes into the map, and two boxes
of one image and class have the same map. It reads a stage of a detector's ResNet; hand over a
detector that has not been trained, with the weights of a frozen backbone in it, and nothing in the
map has ever seen a box.

Sources: Zhou et al., Learning deep features for discriminative localization,
https://arxiv.org/abs/1512.04150; Lundberg and Lee, https://arxiv.org/abs/1705.07874, section 4.2.

>>> from torchvision.models.detection import FasterRCNN, backbone_utils
>>> backbone = backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None)
>>> detector = FasterRCNN(backbone, num_classes=3, min_size=64, max_size=64).eval()
>>> features, center = pooled_features(detector, np.zeros((5, 64, 64)), layer="layer2")
>>> features.shape, center.shape
((5, 128), (128, 8, 8))
>>> probe = ProbeMaps(detector, "layer2", np.ones((2, 128)), center)
>>> probe.explain(np.zeros((64, 64)), [2])[0].heatmap.shape
(8, 8)

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, torch.
Goes with: inputs.py, layers.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .inputs import ExplanationError, images_for
from .layers import DEFAULT_LAYER, STAGES


@dataclass(frozen=True)
class ProbeMap:
    """What every cell adds to the log-odds of a class.

    Attributes:
        signed_map: (h, w) float32; negative where the cell speaks against the class.
        covered: share of the map's height and width that shows the image; the rest is the padding
            that the detector adds to a side not divisible by 32.

    >>> ProbeMap(np.float32([[0.5, -1.0]])).heatmap.tolist()
    [[0.5, 0.0]]
    """

    signed_map: np.ndarray
    covered: tuple[float, float] = (1.0, 1.0)

    @property
    def heatmap(self) -> np.ndarray:
        """(h, w), unscaled: `signed_map` cut at zero."""
        return np.maximum(self.signed_map, 0)


@dataclass(frozen=True)
class ProbeMaps:
    """A linear probe that draws maps.

    Attributes:
        detector: whose ResNet is read, in eval mode.
        layer: of `layers.STAGES`.
        weights: (K, C) of the logistic regressions, on averages as `pooled_features` gives them;
            NaN where a class could not be trained: its map is empty.
        center: (C, h, w) what the mean training image has.
    """

    detector: nn.Module
    layer: str
    weights: np.ndarray
    center: np.ndarray

    def explain(self, image: np.ndarray | Tensor, labels: Sequence[int]) -> list[ProbeMap]:
        """The map of each class in an image.

        Args:
            image: gray, (H, W), (1, H, W) or (3, H, W); uint8, uint16 of the full range, or float
                in [0, 1]; a tensor on the detector's device.
            labels: classes from 1.

        Raises:
            ExplanationError: there is no such class or layer, the image is none, or it is of
                another size than those that the probe learned from.
        """
        for label in labels:
            if not 1 <= label <= len(self.weights):
                raise ExplanationError(
                    f"label {label} is no class of this probe; they are 1 to {len(self.weights)}"
                )
        device = next(self.detector.parameters()).device
        maps, covered = _stage_maps(self.detector, [images_for(device, image)[0]], self.layer)
        if maps.shape[1:] != self.center.shape:
            raise ExplanationError(
                f"the layer has the shape {tuple(maps.shape[1:])} here and {self.center.shape} in "
                "the images that the probe learned from; give images of one size"
            )
        above = maps[0].float().cpu().numpy() - self.center
        weights = np.nan_to_num(self.weights.astype(np.float32))
        return [
            ProbeMap(np.tensordot(weights[label - 1], above, axes=1), covered) for label in labels
        ]


def pooled_features(
    detector: nn.Module,
    images: Sequence[np.ndarray] | np.ndarray,
    *,
    layer: str = DEFAULT_LAYER,
    batch_size: int = 16,
) -> tuple[np.ndarray, np.ndarray]:
    """The average of each channel of a stage over each image, and the mean map of all.

    Args:
        detector: a torchvision Faster R-CNN on a ResNet, in eval mode.
        images: N of one size, (N, H, W) or a sequence of (H, W); uint8, uint16 of the full range,
            or float in [0, 1].
        layer: of `layers.STAGES`.
        batch_size: images at once.

    Returns:
        (N, C) float32, and (C, h, w) float32.

    Raises:
        ExplanationError: there is no image or no such layer, an image is none, the sizes differ,
            or the detector trains.
    """
    if not len(images):
        raise ExplanationError("no image to learn from; give at least one")
    device = next(detector.parameters()).device
    given = [images_for(device, image)[0] for image in images]
    batches = (given[start : start + batch_size] for start in range(0, len(given), batch_size))
    pooled, total = [], 0
    for batch in batches:
        if len({image.shape for image in (given[0], *batch)}) > 1:
            raise ExplanationError("the images are of several sizes; pack them to one size first")
        maps, _ = _stage_maps(detector, batch, layer)
        pooled.append(maps.mean(dim=(2, 3)).float().cpu().numpy())
        total = total + maps.sum(dim=0, dtype=torch.float64).cpu().numpy()
    return np.concatenate(pooled), np.float32(total / len(given))


@torch.no_grad()
def _stage_maps(
    detector: nn.Module, images: Sequence[np.ndarray], layer: str
) -> tuple[Tensor, tuple[float, float]]:
    """(B, C, h, w) of a stage, and the share of it that shows the images."""
    if layer not in STAGES:
        raise ExplanationError(f"layer {layer!r} is none of {', '.join(STAGES)}")
    if detector.training:
        raise ExplanationError("the detector is in training mode; call detector.eval() first")
    device = next(detector.parameters()).device
    tensors = [torch.from_numpy(image).to(device).expand(3, -1, -1) for image in images]
    batch, _ = detector.transform(tensors)
    covered = tuple(
        own / padded
        for own, padded in zip(batch.image_sizes[0], batch.tensors.shape[-2:], strict=True)
    )
    maps = batch.tensors
    body = detector.backbone.body
    for name, part in body.items():
        maps = part(maps)
        if name == layer:
            return maps, covered
    raise ExplanationError(f"the backbone has no {layer}; it has {', '.join(body)}")
