"""Training of the detector: its losses, its optimizer, and what refuses a batch that cannot train.

From cxr-helpers 0.2.0 (MIT license).
Needs: pytorch-lightning, torch.
"""

import math
from collections.abc import Mapping, Sequence

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

OPTIMIZERS = ("sgd", "adamw")


class DetectorModule(pl.LightningModule):
    """Trains a detector: its losses, an optimizer with warm-up and cosine, and a log of both.

    Args:
        detector: takes (images, targets) and returns a dict of losses while training. Its ResNet is
            `backbone.body`.
        optimizer: `sgd` (momentum 0.9) or `adamw`.
        learning_rate: at its highest, after the warm-up.
        backbone_rate: share of the learning rate that the ResNet gets, 0 to 1. 0 keeps it as it
            came, the statistics of its batch norm included, which also saves its backward pass;
            0.1 is slow; 1 is free. Pyramid and heads always learn at the full rate.
        weight_decay: for all parameters.
        warmup_steps: steps of linear increase.
        final_share: share of `learning_rate` that is left at the end.
        max_norm: to which the norm of the gradient is cut.

    Raises:
        ValueError: there is no such optimizer, or `backbone_rate` is outside 0 to 1.
    """

    def __init__(
        self,
        detector: nn.Module,
        *,
        optimizer: str,
        learning_rate: float,
        backbone_rate: float = 1.0,
        weight_decay: float = 1e-4,
        warmup_steps: int = 50,
        final_share: float = 0.02,
        max_norm: float = 10.0,
    ):
        super().__init__()
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer {optimizer!r} is none of {OPTIMIZERS}")
        if not 0 <= backbone_rate <= 1:
            raise ValueError(
                f"backbone_rate {backbone_rate} is a share of the learning rate; give 0 for a "
                "frozen backbone, up to 1 for a free one"
            )
        self.detector, self.optimizer_name = detector, optimizer
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.backbone_rate = backbone_rate
        self.warmup_steps, self.final_share = warmup_steps, final_share
        self.max_norm = max_norm
        if backbone_rate == 0:
            detector.backbone.body.requires_grad_(False)

    def training_step(self, batch: tuple[list[Tensor], list[dict]], batch_index: int) -> Tensor:
        """Sum of the four losses of one batch.

        Raises:
            ValueError: an image, a box or a label cannot train, see `check_batch`.
            FloatingPointError: a loss is not finite; the text names it.
        """
        settings = getattr(self.detector, "settings", None)
        check_batch(*batch, getattr(settings, "class_names", None))
        if self.backbone_rate == 0:  # at each step, for a look at validation turns training on
            self.detector.backbone.body.eval()
        losses = self.detector(*batch)
        total = sum(losses.values())
        if not torch.isfinite(total):
            values = {name: float(value) for name, value in losses.items()}
            raise FloatingPointError(
                f"losses {values} at step {self.global_step}; use a smaller learning rate"
            )
        logged = {"loss": total.detach(), **{name: v.detach() for name, v in losses.items()}}
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=len(batch[0]))
        return total

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Cut the gradient; Lightning's own clipping refuses fused optimizers."""
        nn.utils.clip_grad_norm_(self.detector.parameters(), self.max_norm)

    def configure_optimizers(self) -> dict:
        """The optimizer and a schedule that moves at every step."""
        groups = self._parameter_groups()
        if self.optimizer_name == "sgd":
            optimizer = torch.optim.SGD(
                groups, self.learning_rate, momentum=0.9, weight_decay=self.weight_decay
            )
        else:
            optimizer = torch.optim.AdamW(
                groups,
                self.learning_rate,
                weight_decay=self.weight_decay,
                fused=self.device.type == "cpu",  # a tenth of a step on two cores
            )
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self._rate_share(step, steps)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _parameter_groups(self) -> list[dict]:
        """What learns at the full rate, and the ResNet where it learns more slowly."""
        slow = self.detector.backbone.body.parameters() if self.backbone_rate < 1 else ()
        slow = set(map(id, slow))
        learning = [p for p in self.parameters() if p.requires_grad]
        groups = [{"params": [p for p in learning if id(p) not in slow]}]
        if own := [p for p in learning if id(p) in slow]:
            groups.append({"params": own, "lr": self.backbone_rate * self.learning_rate})
        return groups

    def _rate_share(self, step: int, steps: int) -> float:
        warmup = min(self.warmup_steps, steps // 2)
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(1, steps - warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return self.final_share + (1 - self.final_share) * cosine


def check_batch(
    images: Sequence[Tensor],
    targets: Sequence[Mapping[str, Tensor]],
    class_names: Sequence[str] | None,
) -> None:
    """Refuse what trains wrongly or ends the process.

    torchvision trains label 0 and those below as background, and a box that is not finite can end
    in a crash of the process.

    Args:
        images: of a batch, (3, H, W) float in [0, 1].
        targets: of each `boxes` (n, 4) float and `labels` (n,) int64; an `image_id` is told.
        class_names: of the labels from 1, or None where they are not known.

    Raises:
        ValueError: there is not a target for each image; an image of another shape, type or
            range; a box that is not finite, has no area or lies outside its image; or a label
            without a class.

    >>> box = {"boxes": torch.tensor([[1.0, 1, 5, 5]]), "labels": torch.tensor([0])}
    >>> check_batch([torch.rand(3, 8, 8)], [box], ["mass"])
    Traceback (most recent call last):
    ValueError: image 0 of the batch has label 0; 0 is background, and the classes are 1 mass
    """
    if len(images) != len(targets):
        raise ValueError(f"{len(images)} images with {len(targets)} targets; give one for each")
    for place, (image, target) in enumerate(zip(images, targets, strict=True)):
        own = f" (image_id {target['image_id']})" if "image_id" in target else ""
        where = f"image {place} of the batch{own}"
        if absent := sorted({"boxes", "labels"} - set(target)):
            raise ValueError(f"the target of {where} lacks {', '.join(absent)}")
        if image.ndim != 3 or len(image) != 3 or not image.is_floating_point():
            told = f"shape {tuple(image.shape)} and type {image.dtype}"
            raise ValueError(f"{where} has {told}; expected floats (3, H, W)")
        if not (image.min() >= 0 and image.max() <= 1):
            told = f"from {image.min():g} to {image.max():g}"
            raise ValueError(f"{where} has values {told}; the detector takes [0, 1]")
        _check_boxes(target["boxes"].detach(), target["labels"], image.shape[1:], where)
        _check_labels(target["labels"], class_names, where)


def _check_boxes(boxes: Tensor, labels: Tensor, hw: Sequence[int], where: str) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4 or labels.shape != (len(boxes),):
        raise ValueError(
            f"{where} has boxes of shape {tuple(boxes.shape)} and labels of shape "
            f"{tuple(labels.shape)}; expected (n, 4) and (n,)"
        )
    low, high = boxes[:, :2], boxes[:, 2:]
    inside = (high > 0) & (low < torch.tensor([hw[1], hw[0]], device=boxes.device))
    good = torch.isfinite(boxes).all(dim=1) & (high > low).all(dim=1) & inside.all(dim=1)
    if not boxes.is_floating_point() or not good.all():
        raise ValueError(
            f"{where} has boxes of {boxes.dtype} with {boxes[~good][:1].tolist()}; expected finite "
            "floats with x_min < x_max and y_min < y_max, and a part of the box within "
            f"{hw[0]} x {hw[1]} pixels"
        )


def _check_labels(labels: Tensor, class_names: Sequence[str] | None, where: str) -> None:
    if labels.dtype != torch.int64:
        raise ValueError(f"{where} has labels of {labels.dtype}; expected torch.int64")
    unknown = labels[(labels < 1) | (labels > (len(class_names) if class_names else torch.inf))]
    if len(unknown):
        names = ", ".join(f"{k} {name}" for k, name in enumerate(class_names or (), start=1))
        raise ValueError(
            f"{where} has label {int(unknown[0])}; 0 is background, and the classes are "
            f"{names or 'numbered from 1'}"
        )


def collate_detection(batch: Sequence[tuple[Tensor, dict]]) -> tuple[list[Tensor], list[dict]]:
    """Images and targets of a batch as two lists: images may carry any number of boxes.

    >>> collate_detection([("image a", {"labels": [1]}), ("image b", {"labels": []})])
    (['image a', 'image b'], [{'labels': [1]}, {'labels': []}])
    """
    images, targets = zip(*batch, strict=True)
    return list(images), list(targets)
