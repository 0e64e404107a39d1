"""Which cells of a layer the score of one fixed box rests on: empty each cell, see what is lost.

Ablation-CAM weighs whole channels and then draws them over the whole image, so its map is bright
wherever an important channel is active. But a fixed box is pooled from its own part of the pyramid,
and with the later stages held no other cell can change its score. So ask cell by cell. Set all
channels of cell (i, j) to zero and let s_ij be the score then:

    map_ij = s - s_ij,    heatmap = relu(map).

The score is the class's log-odds. With the notation of `ablation_fast`, the cell enters the pooled
level as one summand, and RoIAlign makes of it

    delta_ij[f] = sum_d (sum_c (sum_g L[f, g, d] W[g, c]) A_c[i, j]) R(S_d U 1_ij),

where 1_ij is a map of one at the cell and zero elsewhere. Without the cell the head sees
z - Q vec(delta_ij), as exact as for a channel. Cells that neither RoIAlign nor the 3x3 convolution
before it reads have delta = 0 and are not computed.

Held, as there: the box and the later stages of the ResNet. Run again, these look far around, and
more cells reach the box through them (`brute_force_cells` can show it). For the pyramid, which has
the cells of the level that the box is pooled from, nothing is left to hold: emptying a cell takes
all that the head could see at that place. A cell of any layer has seen far more of the image than
its own square, so a map says through which cells the score came, not which pixels made it.

Image, boxes and labels are those of `ablation_fast`; so is what the map needs before it is shown.

>>> from torchvision.models.detection import FasterRCNN, backbone_utils
>>> backbone = backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None)
>>> detector = FasterRCNN(backbone, num_classes=3, min_size=64, max_size=64).eval()
>>> image, box, label = np.zeros((64, 64)), [8, 8, 40, 40], 1
>>> (cells,) = ablate_cells(detector, image, [box], [label], layer="layer2")
>>> cells.heatmap.shape, brute_force_cells(detector, image, box, label).ablated.shape
((8, 8), (4, 4))

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, torch.
Goes with: fixed_box.py, inputs.py, layers.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .fixed_box import (
    enter,
    first_layer,
    log_odds,
    mixing,
    pool,
    pool_shifted,
    pyramid,
    score_without,
    spread,
    touched,
)
from .layers import DEFAULT_LAYER, PYRAMID, STAGES


@dataclass(frozen=True)
class CellAblation:
    """What every cell of a layer contributes to the score of one fixed box.

    Attributes:
        score: log-odds of the class in the box, all cells in place.
        ablated: (h, w) float32, the log-odds with each cell emptied in all channels.
        covered: share of the map's height and width that shows the image; the rest is the padding
            that the detector adds to a side not divisible by 32.

    >>> cells = CellAblation(2.0, np.float32([[2.0, 0.5], [2.25, 2.0]]))
    >>> cells.heatmap.tolist(), cells.reach.tolist()
    ([[0.0, 1.5], [0.0, 0.0]], [[False, True], [True, False]])
    """

    score: float
    ablated: np.ndarray
    covered: tuple[float, float] = (1.0, 1.0)

    @property
    def signed_map(self) -> np.ndarray:
        """(h, w) log-odds that go with each cell; negative where emptying it helps."""
        return self.score - self.ablated

    @property
    def heatmap(self) -> np.ndarray:
        """(h, w) of the layer's size, unscaled: `signed_map` cut at zero."""
        return np.maximum(self.signed_map, 0)

    @property
    def reach(self) -> np.ndarray:
        """(h, w) bool, the cells that change the score at all."""
        return self.ablated != np.float32(self.score)


@torch.no_grad()
def ablate_cells(
    detector: nn.Module,
    image: np.ndarray | Tensor,
    boxes_xyxy: Sequence[Sequence[float]],
    labels: Sequence[int],
    *,
    layer: str = DEFAULT_LAYER,
) -> list[CellAblation]:
    """Empty every cell of a layer for each of some boxes of one image, exactly.

    Args:
        detector: a torchvision Faster R-CNN on a ResNet with feature pyramid, in eval mode.
        image: (H, W), (1, H, W) or (3, H, W).
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
    found = []
    for roi, level, label in zip(scene.rois, scene.levels, labels, strict=True):
        pooled = pool(detector, levels[level], roi[None], level)  # (1, F, 7, 7)
        before = first_layer(detector, pooled)
        if layer == PYRAMID:
            shape = levels[level].shape[-2:]
            cells, delta = _level_cells(detector, levels[level], roi, level)
        else:
            shape = scene.stages[STAGES.index(layer)].shape[-2:]
            cells, delta = _stage_cells(detector, scene.stages, STAGES.index(layer), roi, level)
        hidden = torch.cat([before, before - delta.flatten(1) @ weight.T])
        scores = log_odds(detector, hidden, label).float().cpu().numpy()
        ablated = np.full(shape, scores[0])
        ablated.flat[cells.cpu().numpy()] = scores[1:]
        found.append(CellAblation(float(scores[0]), ablated, scene.covered))
    return found


def _stage_cells(
    detector: nn.Module, stages: list[Tensor], stage: int, roi: Tensor, level: int
) -> tuple[Tensor, Tensor]:
    """The n cells of a stage that a box reads, (n,) counted row by row, and delta, (n, F, 49)."""
    maps = stages[stage]
    if stage < level:  # the stage does not reach the box
        fields = detector.backbone.out_channels
        none = torch.zeros(0, dtype=torch.long, device=maps.device)
        return none, maps.new_zeros(0, fields, _bins(detector))
    # A border of zeros must not look like cell 0, so cells count from 1 here.
    numbers = torch.arange(1, maps[0, 0].numel() + 1, device=maps.device, dtype=maps.dtype)
    padded = spread(numbers.reshape(1, 1, *maps.shape[-2:]), stages, stage, level)
    rows, columns = touched(detector, padded.shape, roi, level)
    near = padded[0, rows, columns].unique()
    near = near[near > 0]
    ones = (padded == near[:, None, None]).to(maps.dtype)  # (n, H + 2, W + 2)
    places = pool_shifted(detector, ones, roi, level)  # (n, 9, 49)
    cells = near.long() - 1
    values = maps[0].flatten(1)[:, cells]  # (C, n)
    mixed = torch.einsum("cfd,cn->nfd", mixing(detector, stage, level), values)
    return cells, torch.bmm(mixed, places)


def _level_cells(
    detector: nn.Module, features: Tensor, roi: Tensor, level: int
) -> tuple[Tensor, Tensor]:
    """The same for the cells of the pyramid's level itself."""
    height, width = features.shape[-2:]
    # One more than what nine shifts would need: RoIAlign reads no further.
    rows, columns = touched(detector, (height + 2, width + 2), roi, level)
    inside = features.new_zeros(height + 2, width + 2, dtype=torch.bool)
    inside[rows, columns] = True
    cells = inside[1:-1, 1:-1].flatten().nonzero()[:, 0]
    ones = features.new_zeros(len(cells), height * width)
    ones[torch.arange(len(cells)), cells] = 1
    places = pool(detector, ones.reshape(1, -1, height, width), roi[None], level)[0].flatten(1)
    values = features[0].flatten(1)[:, cells]  # (F, n)
    return cells, values.T[:, :, None] * places[:, None]


def _bins(detector: nn.Module) -> int:
    height, width = detector.roi_heads.box_roi_pool.output_size
    return height * width


@torch.no_grad()
def brute_force_cells(
    detector: nn.Module,
    image: np.ndarray | Tensor,
    box_xyxy: Sequence[float],
    label: int,
    *,
    layer: str = DEFAULT_LAYER,
    recompute_later: bool = False,
) -> CellAblation:
    """The same for one box, by running pyramid and head again for every cell.

    Slow; it is what `ablate_cells` is tested against. Arguments and errors are those of
    `ablate_cells`, but for

    Args:
        recompute_later: also run the stages after this one again, as they would be in the network
            without the cell. `ablate_cells` holds them.
    """
    scene, (label,) = enter(detector, image, [box_xyxy], [label], layer)
    own = {"recompute_later": recompute_later}
    on_pyramid = layer == PYRAMID
    levels = pyramid(detector, scene.stages) if on_pyramid else scene.stages
    height, width = levels[scene.levels[0] if on_pyramid else STAGES.index(layer)].shape[-2:]
    everything = slice(None)
    ablated = [
        [
            score_without(detector, scene, label, layer, (everything, everything, y, x), **own)
            for x in range(width)
        ]
        for y in range(height)
    ]
    whole = score_without(detector, scene, label, layer, None)
    return CellAblation(whole, np.float32(ablated), scene.covered)
