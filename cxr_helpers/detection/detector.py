"""Faster R-CNN with a feature pyramid, on a ResNet that another stage has trained.

torchvision's detector, put together so that the choices a transfer experiment depends on are
visible: which backbone weights were placed and whether all of them were, what batch norm does,
which stages are frozen, which anchors are used, and at what size and normalization an image goes
in. All of that is kept with the model, in its file.

Paper: Ren et al., Faster R-CNN, https://arxiv.org/abs/1506.01497; Lin et al., Feature Pyramid
Networks, https://arxiv.org/abs/1612.03144.

From cxr-helpers 0.1.0 (MIT license).
Needs: numpy, pytorch-lightning, safetensors, torch, torchvision.
"""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

PYRAMID_LEVELS = 5  # strides 4, 8, 16, 32 from the stages of the ResNet, and 64 by pooling
STAGES = ("layer1", "layer2", "layer3", "layer4")
STEM = ("conv1", "bn1")
ARCHITECTURES = {"resnet18": (64, 128, 256, 512), "resnet50": (256, 512, 1024, 2048)}
BATCH_NORMS = ("frozen", "train", "sync")
OPTIMIZERS = ("sgd", "adamw")


class DetectorError(ValueError):
    """A setting, a backbone or a file does not fit the detector."""


@dataclass(frozen=True)
class Anchors:
    """Shapes that the region proposal network starts from.

    Attributes:
        sizes: square root of the area in pixels of the network's input, ascending.
        ratios: height / width, used at every level.
        every_level: use every size at each of the five pyramid levels; otherwise there are five
            sizes, one for each level. With small images all boxes are small, and a size of 18
            pixels on the grid of level 4, whose points lie 16 pixels apart, misses most of them.
    """

    sizes: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    every_level: bool = False

    @property
    def level_sizes(self) -> tuple[tuple[float, ...], ...]:
        """Sizes of each of the five levels."""
        if self.every_level:
            return (self.sizes,) * PYRAMID_LEVELS
        return tuple((size,) for size in self.sizes)


@dataclass(frozen=True)
class DetectorSettings:
    """Everything that is needed to build the detector again.

    Attributes:
        classes: names of the classes 1, 2, ...; 0 is background.
        arch: `resnet18` or `resnet50`.
        image_size: side in pixels to which the longer side of an image is scaled.
        image_mean: mean of each channel that is subtracted, for images in [0, 1].
        image_std: standard deviation of each channel by which is divided.
        anchors: shapes of the region proposal network, in pixels at `image_size`.
        fpn_channels: width of the feature pyramid.
        head_width: width of the two fully connected layers of the box head.
        roi_samples: proposals of each image that train the box head.
        roi_sampling: points a side at which each of a proposal's 7 x 7 cells is sampled.
        roi_canonical_size: side of a proposal in pixels that is pooled from stride 16; half of it
            is pooled from stride 8, and so on.
        proposals: proposals kept of each image, in training and in use.
        batch_norm: `train` updates the running mean and variance of the backbone's batch norm
            and uses those of the batch; `frozen` uses the ones that came with the backbone
            (mmdetection's `norm_eval=True`), right where batches are too small to estimate them;
            `sync` is `train` with one batch over all GPUs. Scale and shift learn in all cases.
            A random backbone's own statistics are zeros and ones, so `frozen` would switch its
            normalization off.
        frozen_stages: 0 trains everything; k keeps the stem and the first k stages as they came.
    """

    classes: tuple[str, ...]
    arch: str = "resnet50"
    image_size: int = 640
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.25, 0.25, 0.25)
    anchors: Anchors = Anchors()
    fpn_channels: int = 256
    head_width: int = 1024
    roi_samples: int = 512
    roi_sampling: int = 2
    roi_canonical_size: int = 224
    proposals: tuple[int, int] = (2000, 1000)
    batch_norm: str = "frozen"
    frozen_stages: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        text = isinstance(self.classes, str)
        if text or not len(self.classes) or len(set(self.classes)) < len(self.classes):
            raise DetectorError(f"classes must be different names, got {self.classes!r}")
        object.__setattr__(self, "classes", tuple(map(str, self.classes)))
        if self.arch not in ARCHITECTURES:
            raise DetectorError(f"arch {self.arch!r} is none of {', '.join(ARCHITECTURES)}")
        if self.batch_norm not in BATCH_NORMS:
            raise DetectorError(f"batch_norm {self.batch_norm!r} is none of {BATCH_NORMS}")
        if self.frozen_stages not in range(len(STAGES) + 1):
            raise DetectorError(f"frozen_stages {self.frozen_stages!r} is not in 0 to 4")
        if len(self.anchors.level_sizes) != PYRAMID_LEVELS:
            raise DetectorError(
                f"{len(self.anchors.sizes)} anchor sizes given; the pyramid has "
                f"{PYRAMID_LEVELS} levels, so give {PYRAMID_LEVELS}, or use every_level"
            )


class _Float32RPNHead(RPNHead):
    """An RPN head whose outputs are float32 under autocast too.

    bfloat16 has 8 bits for the fraction: a box edge at 150 pixels would be rounded to a whole
    pixel, which a nodule of 6 pixels does not survive.
    """

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = super().forward(x)
        return [a.float() for a in logits], [d.float() for d in deltas]


class _Float32Predictor(FastRCNNPredictor):
    """A box predictor whose outputs are float32 under autocast too; see `_Float32RPNHead`."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits, deltas = super().forward(x)
        return logits.float(), deltas.float()


class Detector(FasterRCNN):
    """torchvision's Faster R-CNN with its settings attached.

    Takes a list of (3, H, W) float images in [0, 1], and in training a list of targets with
    `boxes` (n, 4) xyxy in pixels of the image and `labels` (n,) int64 from 1.

    Args:
        settings: what to build. Weights are drawn from torch's random state; `build_detector`
            takes a seed.
    """

    def __init__(self, settings: DetectorSettings):
        s = settings
        pooled = MultiScaleRoIAlign(
            ["0", "1", "2", "3"], 7, s.roi_sampling, canonical_scale=s.roi_canonical_size
        )
        sizes, ratios = s.anchors.level_sizes, (s.anchors.ratios,) * PYRAMID_LEVELS
        generator = AnchorGenerator(sizes, ratios)
        super().__init__(
            _build_backbone_with_pyramid(s.arch, s.fpn_channels),
            min_size=s.image_size,
            max_size=s.image_size,
            image_mean=list(s.image_mean),
            image_std=list(s.image_std),
            rpn_anchor_generator=generator,
            rpn_head=_Float32RPNHead(s.fpn_channels, generator.num_anchors_per_location()[0]),
            rpn_pre_nms_top_n_train=s.proposals[0],
            rpn_post_nms_top_n_train=s.proposals[0],
            rpn_pre_nms_top_n_test=s.proposals[1],
            rpn_post_nms_top_n_test=s.proposals[1],
            box_roi_pool=pooled,
            box_head=TwoMLPHead(s.fpn_channels * 7 * 7, s.head_width),
            box_predictor=_Float32Predictor(s.head_width, len(s.classes) + 1),
            box_batch_size_per_image=s.roi_samples,
            box_score_thresh=0.01,
        )
        self.settings = settings
        if s.batch_norm == "sync":
            body = nn.SyncBatchNorm.convert_sync_batchnorm(self.backbone.body)
            self.backbone.body = body
        for module in self._frozen_modules():
            module.requires_grad_(False)

    def _frozen_modules(self) -> list[nn.Module]:
        count = self.settings.frozen_stages
        names = (*STEM, *STAGES[:count]) if count else ()
        return [self.backbone.body[name] for name in names]

    def train(self, mode: bool = True) -> "Detector":
        """Switch training on or off; what is frozen stays as in use."""
        super().train(mode)
        still = self._frozen_modules()
        if self.settings.batch_norm == "frozen":
            still += [m for m in self.backbone.body.modules() if isinstance(m, nn.BatchNorm2d)]
        for module in still:
            module.eval()
        return self


def _build_backbone_with_pyramid(arch: str, channels: int) -> BackboneWithFPN:
    body = getattr(resnet, arch)(weights=None)
    names = {stage: str(i) for i, stage in enumerate(STAGES)}
    return BackboneWithFPN(body, names, list(ARCHITECTURES[arch]), channels)


def build_detector(
    settings: DetectorSettings,
    backbone: Mapping[str, Tensor] | None = None,
    *,
    seed: int,
    freeze_random: bool = False,
) -> Detector:
    """Build the detector and place a trained backbone in it.

    Args:
        settings: what to build.
        backbone: state dict of a torchvision ResNet without `fc.`, or None to keep random weights.
        seed: for all weights that do not come from `backbone`.
        freeze_random: allow frozen stages without a backbone, for a comparison that wants them.

    Raises:
        DetectorError: the backbone does not fit, see `place_backbone`; or stages would stay frozen
            at random weights.
    """
    if backbone is None and settings.frozen_stages and not freeze_random:
        raise DetectorError(
            f"frozen_stages={settings.frozen_stages} would keep random weights for ever; give a "
            "backbone, set frozen_stages=0, or say freeze_random=True"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detector = Detector(settings)
    if backbone is not None:
        place_backbone(detector, backbone)
    return detector


def place_backbone(detector: Detector, state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Copy every tensor of a backbone into the detector, and prove that it arrived.

    `load_state_dict(strict=False)` would skip what does not fit without a word, and the detector
    would then train from random weights under the name of pretrained ones.

    Args:
        detector: changed in place.
        state: torchvision names without `fc.`, such as `layer1.0.conv1.weight`. Batch norm's
            counters (`num_batches_tracked`) may be absent: nothing is computed from them.

    Returns:
        The names that were placed, in the detector's order.

    Raises:
        DetectorError: a tensor has no place, a place has no tensor, a shape differs, or a value
            is not finite; the text names them. The detector is then unchanged.
    """
    odd = [name for name, value in state.items() if not torch.is_tensor(value)]
    if odd:
        raise DetectorError(
            f"this backbone is no state dict: {odd[0]!r} is no tensor. Give the part of the "
            "checkpoint that holds the tensors, often under 'state_dict'"
        )
    body = detector.backbone.body
    own = body.state_dict()
    needed = {name for name in own if not name.endswith("num_batches_tracked")}
    problems = {
        "without a place": sorted(state.keys() - own.keys()),
        "absent": sorted(needed - state.keys()),
        "of another shape": sorted(
            f"{k} {tuple(state[k].shape)} for {tuple(own[k].shape)}"
            for k in state.keys() & own.keys()
            if state[k].shape != own[k].shape
        ),
        "not finite": sorted(k for k, v in state.items() if not torch.isfinite(v).all()),
    }
    found = [f"{len(v)} {k} ({', '.join(v[:4])})" for k, v in problems.items() if v]
    if found:
        raise DetectorError(
            f"this backbone does not fit a {detector.settings.arch}: {'; '.join(found)}. Give a "
            "torchvision ResNet's state dict of the same architecture, without fc."
        )
    body.load_state_dict(dict(state), strict=False)
    placed = body.state_dict()
    return tuple(k for k in own if k in state and torch.equal(placed[k], state[k].to(placed[k])))


def derive_anchors(
    boxes_xyxy: np.ndarray,
    *,
    sizes: int = PYRAMID_LEVELS,
    ratios: int = 3,
    every_level: bool = False,
) -> Anchors:
    """Anchors that follow the training boxes instead of COCO's everyday objects.

    Sizes and ratios are the centers of a one-dimensional k-means of the logarithms, started at
    the quantiles, so the result is the same every time.

    Args:
        boxes_xyxy: (N, 4) float, pixels at the size the network works at.
        sizes: how many sizes.
        ratios: how many height / width ratios.
        every_level: see `Anchors`.

    Raises:
        DetectorError: the shape is not (N, 4), there are fewer boxes than anchors, or a box has
            no area.

    >>> derive_anchors([[0, 0, 8, 8], [0, 0, 16, 16], [0, 0, 32, 32]], sizes=3, ratios=1).sizes
    (8.0, 16.0, 32.0)
    """
    width, height = _sides(boxes_xyxy)
    if len(width) < max(sizes, ratios):
        raise DetectorError(f"{len(width)} boxes are too few for {sizes} sizes, {ratios} ratios")
    centers = _kmeans_1d(np.log2(width * height) / 2, sizes)
    shapes = _kmeans_1d(np.log2(height / width), ratios)
    return Anchors(
        tuple(round(float(2**c), 1) for c in centers),
        tuple(round(float(2**r), 2) for r in shapes),
        every_level,
    )


def anchor_coverage(boxes_xyxy: np.ndarray, anchors: Anchors, *, iou: float = 0.5) -> float:
    """Share of boxes whose shape some anchor matches at this IoU, both at the same center."""
    width, height = (side[:, None] for side in _sides(boxes_xyxy))
    sizes, ratios = (a.ravel() for a in np.meshgrid(anchors.sizes, anchors.ratios))
    a_width, a_height = sizes / np.sqrt(ratios), sizes * np.sqrt(ratios)
    overlap = np.minimum(width, a_width) * np.minimum(height, a_height)
    best = (overlap / (width * height + a_width * a_height - overlap)).max(axis=1)
    return float((best >= iou).mean())


def _sides(boxes_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    boxes = boxes_xyxy.detach().cpu() if torch.is_tensor(boxes_xyxy) else boxes_xyxy
    boxes = np.asarray(boxes, dtype=float)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes):
        raise DetectorError(f"expected boxes of shape (N, 4), one at least, got {boxes.shape}")
    if not np.isfinite(boxes).all():
        bad = boxes[~np.isfinite(boxes).all(axis=1)][0].tolist()
        raise DetectorError(f"box {bad} is not of finite numbers")
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    if (width <= 0).any() or (height <= 0).any():
        raise DetectorError(f"box {boxes[np.argmin(np.minimum(width, height))]} has no area")
    return width, height


def _kmeans_1d(values: np.ndarray, k: int) -> np.ndarray:
    centers = np.quantile(values, (np.arange(k) + 0.5) / k)
    for _ in range(50):
        nearest = np.abs(values[:, None] - centers).argmin(axis=1)
        moved = [values[nearest == j].mean() if (nearest == j).any() else centers[j]
                 for j in range(k)]  # fmt: skip
        if np.allclose(moved, centers):
            break
        centers = np.array(moved)
    return np.sort(centers)


class DetectorModule(pl.LightningModule):
    """Trains a detector: its losses, an optimizer with warm-up and cosine, and a log of both.

    Args:
        detector: takes (images, targets) and returns a dict of losses while training.
        optimizer: `sgd` (momentum 0.9) or `adamw`.
        learning_rate: at its highest, after the warm-up.
        weight_decay: for all parameters.
        warmup_steps: steps of linear increase.
        final_share: share of `learning_rate` that is left at the end.
        max_norm: to which the norm of the gradient is cut.
    """

    def __init__(
        self,
        detector: nn.Module,
        *,
        optimizer: str,
        learning_rate: float,
        weight_decay: float = 1e-4,
        warmup_steps: int = 50,
        final_share: float = 0.02,
        max_norm: float = 10.0,
    ):
        super().__init__()
        if optimizer not in OPTIMIZERS:
            raise DetectorError(f"optimizer {optimizer!r} is none of {OPTIMIZERS}")
        self.detector, self.optimizer_name = detector, optimizer
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.warmup_steps, self.final_share = warmup_steps, final_share
        self.max_norm = max_norm

    def training_step(self, batch: tuple[list[Tensor], list[dict]], batch_index: int) -> Tensor:
        """Sum of the four losses of one batch.

        Raises:
            DetectorError: an image, a box or a label cannot train, see `check_batch`.
            FloatingPointError: a loss is not finite; the text names it.
        """
        settings = getattr(self.detector, "settings", None)
        check_batch(*batch, getattr(settings, "classes", None))
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
        parameters = [p for p in self.parameters() if p.requires_grad]
        if self.optimizer_name == "sgd":
            optimizer = torch.optim.SGD(
                parameters, self.learning_rate, momentum=0.9, weight_decay=self.weight_decay
            )
        else:
            optimizer = torch.optim.AdamW(
                parameters,
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

    def _rate_share(self, step: int, steps: int) -> float:
        warmup = min(self.warmup_steps, steps // 2)
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(1, steps - warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return self.final_share + (1 - self.final_share) * cosine


def check_batch(
    images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]], classes: Sequence[str] | None
) -> None:
    """Refuse what trains wrongly or ends the process.

    torchvision trains label 0 and those below as background, and a box that is not finite can end
    in a crash of the process.

    Args:
        images: of a batch, (3, H, W) float in [0, 1].
        targets: of each `boxes` (n, 4) float and `labels` (n,) int64; an `image_id` is told.
        classes: names of the labels from 1, or None where they are not known.

    Raises:
        DetectorError: there is not a target for each image; an image of another shape, type or
            range; a box that is not finite, has no area or lies outside its image; or a label
            without a class.
    """
    if len(images) != len(targets):
        raise DetectorError(f"{len(images)} images with {len(targets)} targets; give one for each")
    for place, (image, target) in enumerate(zip(images, targets, strict=True)):
        own = f" (image_id {target['image_id']})" if "image_id" in target else ""
        where = f"image {place} of the batch{own}"
        if absent := sorted({"boxes", "labels"} - set(target)):
            raise DetectorError(f"the target of {where} lacks {', '.join(absent)}")
        if image.ndim != 3 or len(image) != 3 or not image.is_floating_point():
            told = f"shape {tuple(image.shape)} and type {image.dtype}"
            raise DetectorError(f"{where} has {told}; expected floats (3, H, W)")
        if not (image.min() >= 0 and image.max() <= 1):
            told = f"from {image.min():g} to {image.max():g}"
            raise DetectorError(f"{where} has values {told}; the detector takes [0, 1]")
        _check_boxes(target["boxes"].detach(), target["labels"], image.shape[1:], where)
        _check_labels(target["labels"], classes, where)


def _check_boxes(boxes: Tensor, labels: Tensor, hw: Sequence[int], where: str) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4 or labels.shape != (len(boxes),):
        raise DetectorError(
            f"{where} has boxes of shape {tuple(boxes.shape)} and labels of shape "
            f"{tuple(labels.shape)}; expected (n, 4) and (n,)"
        )
    low, high = boxes[:, :2], boxes[:, 2:]
    inside = (high > 0) & (low < torch.tensor([hw[1], hw[0]], device=boxes.device))
    good = torch.isfinite(boxes).all(dim=1) & (high > low).all(dim=1) & inside.all(dim=1)
    if not boxes.is_floating_point() or not good.all():
        raise DetectorError(
            f"{where} has boxes of {boxes.dtype} with {boxes[~good][:1].tolist()}; expected finite "
            "floats with x_min < x_max and y_min < y_max, and a part of the box within "
            f"{hw[0]} x {hw[1]} pixels"
        )


def _check_labels(labels: Tensor, classes: Sequence[str] | None, where: str) -> None:
    if labels.dtype != torch.int64:
        raise DetectorError(f"{where} has labels of {labels.dtype}; expected torch.int64")
    unknown = labels[(labels < 1) | (labels > (len(classes) if classes else torch.inf))]
    if len(unknown):
        names = ", ".join(f"{k} {name}" for k, name in enumerate(classes or (), start=1))
        raise DetectorError(
            f"{where} has label {int(unknown[0])}; 0 is background, and the classes are "
            f"{names or 'numbered from 1'}"
        )


def collate_detection(batch: Sequence[tuple[Tensor, dict]]) -> tuple[list[Tensor], list[dict]]:
    """Images and targets of a batch as two lists: images may carry any number of boxes."""
    images, targets = zip(*batch, strict=True)
    return list(images), list(targets)


@torch.no_grad()
def predict(
    detector: nn.Module,
    images: np.ndarray | Sequence[np.ndarray],
    *,
    batch_size: int = 16,
    precision: torch.dtype = torch.float32,
) -> list[dict[str, np.ndarray]]:
    """Detect on gray images of any size; the detector is left in the mode it was in.

    An image larger or smaller than the detector's size is scaled with an antialiasing filter into
    the corner of a black square of that size, as the images it was trained on.

    Args:
        detector: a `Detector`, on any device.
        images: N arrays or tensors (H, W), uint8, uint16 of the full range, or float in [0, 1].
        batch_size: images at once.
        precision: `torch.bfloat16` computes the convolutions in bfloat16.

    Returns:
        For each image `boxes` (n, 4) float32 xyxy in pixels of the image given, `scores` (n,)
        float32 in [0, 1], highest first, and `labels` (n,) int64 from 1.

    Raises:
        DetectorError: an image is of another shape, type or range, or `detector` has no settings.
    """
    if not isinstance(getattr(detector, "settings", None), DetectorSettings):
        raise DetectorError(
            f"{type(detector).__name__} has no settings that say its image size; give a detector "
            "of build_detector or load_detector. torchvision's own are called with images"
        )
    if batch_size < 1:
        raise DetectorError(f"batch_size is {batch_size}; give 1 or more")
    device, size = next(detector.parameters()).device, detector.settings.image_size
    was_training = detector.training
    detector.eval()
    found = []
    try:
        for start in range(0, len(images), batch_size):
            given = images[start : start + batch_size]
            squares = [_square(i, size, f"image {k}") for k, i in enumerate(given, start)]
            half = precision != torch.float32
            with torch.autocast(device.type, dtype=precision, enabled=half):
                outputs = detector([image.to(device) for image, _ in squares])
            for one, (_, new_hw), image in zip(outputs, squares, given, strict=True):
                one["boxes"] = _to_image(one["boxes"], new_hw, np.shape(image))
                found.append({k: v.float().cpu().numpy() for k, v in one.items()})
    finally:
        detector.train(was_training)
    for one in found:
        one["labels"] = one["labels"].astype(np.int64)
    return found


def predict_files(
    detector: nn.Module,
    paths: Sequence[str | os.PathLike[str]],
    read: Callable[[Path], np.ndarray],
    **options,
) -> list[dict[str, np.ndarray]]:
    """Detect in files; boxes are in pixels of what `read` returns, the file's own for most.

    Args:
        detector: a `Detector`.
        paths: files of any size each.
        read: path to a gray (H, W) array as `predict` takes it, such as a DICOM reader.
        options: as for `predict`.

    Raises:
        FileNotFoundError: there is no such file; and whatever else `read` raises.
        DetectorError: what `read` returned is no gray image in range; the text names the file.
    """
    if isinstance(paths, (str, os.PathLike)):
        raise DetectorError(f"paths must be a list of files, not the path {str(paths)!r}")
    found = []
    for path in paths:
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such image")
        try:
            image = gray_to_tensor(read(Path(path)))[0]
        except DetectorError as error:
            raise DetectorError(f"{path}: {error}") from error
        found += predict(detector, [image], **options)
    return found


def _square(image: np.ndarray, size: int, where: str) -> tuple[Tensor, tuple[int, int]]:
    """An image scaled into the upper left corner of a black square, and its size there (h, w)."""
    try:
        tensor = gray_to_tensor(image)
    except DetectorError as error:
        raise DetectorError(f"{where}: {error}") from error
    height, width = tensor.shape[1:]
    scale = size / max(height, width)
    new_hw = max(1, round(height * scale)), max(1, round(width * scale))
    if new_hw != (height, width):
        small = nn.functional.interpolate(
            tensor[None, :1], size=new_hw, mode="bilinear", antialias=True
        )
        tensor = small[0].clamp(0, 1).expand(3, -1, -1)
    return nn.functional.pad(tensor, (0, size - new_hw[1], 0, size - new_hw[0])), new_hw


def _to_image(boxes_xyxy: Tensor, new_hw: tuple[int, int], hw: tuple[int, int]) -> Tensor:
    """Boxes in a square of `_square` as boxes in the image, clipped to it."""
    factor = torch.tensor([hw[1] / new_hw[1], hw[0] / new_hw[0]] * 2).to(boxes_xyxy)
    most = torch.tensor([hw[1], hw[0]] * 2).to(boxes_xyxy)
    return torch.minimum(boxes_xyxy * factor, most)


def gray_to_tensor(image: np.ndarray | Tensor) -> Tensor:
    """A gray image as the (3, H, W) float32 in [0, 1] that the detector takes.

    Args:
        image: (H, W), array or tensor, uint8, uint16 of the full range, or float in [0, 1].

    Raises:
        DetectorError: another shape, type or range.
    """
    pixels = image.detach().cpu().numpy() if torch.is_tensor(image) else np.asarray(image)
    if pixels.ndim != 2 or 0 in pixels.shape:
        raise DetectorError(
            f"expected a gray image (height, width), got shape {pixels.shape}; take one channel"
        )
    if pixels.dtype.kind not in "buif":
        raise DetectorError(f"{pixels.dtype} image: make it uint8, or float in [0, 1]")
    low, high = pixels.min(), pixels.max()
    told = f"{pixels.dtype} image with values from {low} to {high}"
    if pixels.dtype == np.uint16 and 0 < high < 2**15:
        raise DetectorError(
            f"{told} holds {int(high).bit_length()} bits, not 16: scale it to 65535, or to float "
            "in [0, 1]"
        )
    if pixels.dtype in (np.uint8, np.uint16):
        pixels = pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
    elif not np.issubdtype(pixels.dtype, np.floating):
        raise DetectorError(f"{told}: make it uint8, or float in [0, 1]")
    elif not (low >= 0 and high <= 1):
        raise DetectorError(f"{told}; scale floats to [0, 1]")
    return torch.from_numpy(pixels.astype(np.float32)).expand(3, -1, -1)


def save_detector(
    detector: Detector,
    path: str | os.PathLike[str],
    *,
    notes: Mapping[str, object] = {},  # noqa: B006
) -> Path:
    """Write weights and settings into one safetensors file, whole or not at all.

    Args:
        detector: to be saved.
        path: file to write; its folder is made.
        notes: plain values that are kept beside the settings, such as the arm and the seed.

    Raises:
        DetectorError: there are no settings to keep, or a note is no plain value.
    """
    if not isinstance(getattr(detector, "settings", None), DetectorSettings):
        raise DetectorError(
            f"{type(detector).__name__} has no settings to keep; give a detector of "
            "build_detector, not the module around it"
        )
    path = Path(path)
    state = {k: v.detach().cpu().contiguous() for k, v in detector.state_dict().items()}
    try:
        kept = json.dumps(dict(notes), default=_plain)
    except TypeError as error:
        raise DetectorError(f"notes of {path}: {error}; give text, numbers and lists") from error
    metadata = {"settings": json.dumps(asdict(detector.settings)), "notes": kept}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(state, temporary, metadata=metadata)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return str(value)
    raise TypeError(f"{value!r} is no plain value")


def load_detector(
    path: str | os.PathLike[str], *, classes: Sequence[str] | None = None
) -> Detector:
    """Build the detector that a file describes, with its weights, ready for use (eval mode).

    Args:
        path: written by `save_detector`.
        classes: the classes that the caller will read into the labels, to be compared.

    Raises:
        FileNotFoundError: there is no such file.
        DetectorError: the file is no detector, is damaged, or is for other classes.
    """
    settings, _ = read_detector_settings(path)
    if classes is not None and tuple(classes) != settings.classes:
        raise DetectorError(
            f"{path} finds {len(settings.classes)} classes {settings.classes}, not the "
            f"{len(classes)} classes {tuple(classes)}; train one for these, or read its labels "
            "with its own names"
        )
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}
    detector = build_detector(settings, seed=0, freeze_random=True)  # the weights come next
    try:
        detector.load_state_dict(state)
    except RuntimeError as error:
        raise DetectorError(f"{path} does not hold what its settings say: {error}") from error
    return detector.eval()


def read_detector_settings(path: str | os.PathLike[str]) -> tuple[DetectorSettings, dict]:
    """Settings and notes of a saved detector, without reading its weights.

    Raises:
        FileNotFoundError: there is no such file.
        DetectorError: the file is no saved detector, or is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise DetectorError(
            f"{path} cannot be read as a safetensors file: {error}. Expected a file of "
            "save_detector, whole"
        ) from error
    if not {"settings", "notes"} <= metadata.keys():
        raise DetectorError(
            f"{path} holds tensors, but not the settings of a detector; expected a file of "
            "save_detector. A backbone alone goes into build_detector"
        )
    try:
        plain = json.loads(metadata["settings"])
        shapes = plain.pop("anchors")
        anchors = Anchors(tuple(shapes["sizes"]), tuple(shapes["ratios"]), shapes["every_level"])
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
        return DetectorSettings(anchors=anchors, **values), json.loads(metadata["notes"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DetectorError(f"{path} has settings that are no detector's: {error}") from error
