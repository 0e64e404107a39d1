"""Random labels for a detector's box head: does the map change when there is nothing to learn?

Training the whole detector on random labels takes as long as training it on true ones. Here only
the box head is trained anew, on the features that the backbone gives for the readers' boxes.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from cxr_helpers.course.core.data import BoxData
from cxr_helpers.detection.boxes import box_iou
from cxr_helpers.detection.prediction import gray_to_tensor
from cxr_helpers.explanation import sanity


@dataclass(frozen=True)
class PooledBoxes:
    """What the box head sees of some boxes.

    Attributes:
        features: (N, F, 7, 7) float32.
        labels: (N,) int64; 0 is background.
    """

    features: Tensor
    labels: Tensor


@torch.no_grad()
def pool_boxes(detector: nn.Module, data: BoxData, rows: np.ndarray, *, seed: int) -> PooledBoxes:
    """Pool the readers' boxes of some images, and as many that no reader drew.

    Args:
        detector: in eval mode.
        data: images and boxes.
        rows: images.
        seed: of the background boxes: of the size of the readers', elsewhere in the image, and with
            an IoU below 0.3 with each of them.
    """
    rng = np.random.default_rng(seed)
    device = next(detector.parameters()).device
    features, labels = [], []
    for row, truth in zip(rows, data.truths(rows), strict=True):
        others = background_boxes(truth["boxes"], data.images.size, rng)
        image = gray_to_tensor(np.asarray(data.images.pixels[row])).to(device)
        boxes = np.concatenate([truth["boxes"], others]).astype(np.float32)
        target = {"boxes": torch.from_numpy(boxes).to(device)}
        batch, targets = detector.transform([image], [target])
        maps = detector.backbone(batch.tensors)
        rois = [targets[0]["boxes"]]
        features.append(detector.roi_heads.box_roi_pool(maps, rois, batch.image_sizes).cpu())
        labels.append(np.concatenate([truth["labels"], np.zeros(len(others), dtype=np.int64)]))
    return PooledBoxes(torch.cat(features), torch.from_numpy(np.concatenate(labels)))


def background_boxes(boxes_xyxy: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Boxes of the same sizes at random places, without those that overlap a given one.

    Args:
        boxes_xyxy: (n, 4) pixels.
        size: side of the square image.
        rng: draws the places.

    Returns:
        (m, 4), m at most n; each has an IoU below 0.3 with all given boxes.
    """
    boxes = np.asarray(boxes_xyxy, dtype=float).reshape(-1, 4)
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 1, size)
    corners = rng.random((len(boxes), 2)) * (size - sides)
    moved = np.concatenate([corners, corners + sides], axis=1)
    if not len(moved):
        return moved
    return moved[box_iou(moved, boxes).max(axis=1) < 0.3]


def refit_head(
    detector: nn.Module, boxes: PooledBoxes, *, steps: int, seed: int, batch_size: int = 256
) -> nn.Module:
    """A copy of the detector whose box head has been trained anew, from random weights.

    Args:
        detector: left as it is; in eval mode.
        boxes: to train on, with true or shuffled labels.
        steps: of Adam at a rate of 0.001.
        seed: of weights and batches.
        batch_size: boxes a step.
    """
    changed = sanity.randomized_copy(detector, sanity.DETECTOR_PARTS["head"], seed=seed)
    heads = changed.roi_heads
    modules = nn.ModuleList([heads.box_head, heads.box_predictor])
    optimizer = torch.optim.Adam(modules.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(seed)
    device = next(changed.parameters()).device
    for _ in range(steps):
        rows = torch.randint(len(boxes.labels), (batch_size,), generator=generator)
        logits, _ = heads.box_predictor(heads.box_head(boxes.features[rows].to(device)))
        loss = nn.functional.cross_entropy(logits, boxes.labels[rows].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return changed.eval()


@torch.no_grad()
def head_accuracy(detector: nn.Module, boxes: PooledBoxes) -> float:
    """Share of the boxes whose most probable class is their label."""
    heads, device = detector.roi_heads, next(detector.parameters()).device
    logits, _ = heads.box_predictor(heads.box_head(boxes.features.to(device)))
    return float((logits.argmax(dim=1).cpu() == boxes.labels).float().mean())


def random_label_heads(
    detector: nn.Module, data: BoxData, *, steps: int, seed: int, most: int = 300
) -> tuple[dict[str, nn.Module], pd.DataFrame]:
    """Three detectors with a new box head each: true labels, true labels again, shuffled labels.

    Args:
        detector: left as it is; in eval mode.
        data: images and boxes.
        steps: of each head's training.
        seed: of everything drawn.
        most: training images whose boxes are taken, and a third of it in validation.

    Returns:
        The detectors, and a row for each with its accuracy on the labels it was trained on and on
        the true labels of validation boxes.
    """
    rows = {part: data.rows(part, abnormal_only=True) for part in ("train", "val")}
    train = pool_boxes(detector, data, rows["train"][:most], seed=seed)
    val = pool_boxes(detector, data, rows["val"][: max(1, most // 3)], seed=seed)
    mixed = sanity.shuffle_labels(train.labels.numpy(), seed=seed)
    wrong = PooledBoxes(train.features, torch.from_numpy(mixed))
    plans = {"true labels": (train, 1), "true labels again": (train, 2), "shuffled": (wrong, 1)}
    heads, rows = {}, {}
    for name, (boxes, number) in plans.items():
        heads[name] = refit_head(detector, boxes, steps=steps, seed=seed + number)
        rows[name] = {
            "accuracy on its training labels": head_accuracy(heads[name], boxes),
            "accuracy on validation boxes": head_accuracy(heads[name], val),
        }
    return heads, pd.DataFrame.from_dict(rows, orient="index")
