"""Faster R-CNN with a feature pyramid, on a ResNet that another stage has trained.

torchvision's detector, put together so that the choices a transfer experiment depends on are
visible: which backbone weights were placed and whether all of them were, what batch norm does,
which stages are frozen, which anchors are used, and at what size and normalization an image goes
in. All of that is kept with the model, in its file.

Paper: Ren et al., Faster R-CNN, https://arxiv.org/abs/1506.01497.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, safetensors, torch, torchvision.
Goes with: anchors.py, backbone.py, boxes.py.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

from .anchors import PYRAMID_LEVELS, Anchors
from .backbone import ARCHITECTURES, STAGES, STEM, DetectorError, build_backbone, place_backbone

BATCH_NORMS = ("frozen", "train", "sync")


@dataclass(frozen=True)
class DetectorSettings:
    """Everything that is needed to build the detector again.

    Attributes:
        class_names: of the classes 1, 2, ...; 0 is background.
        arch: one of `backbone.ARCHITECTURES`.
        image_size: side in pixels to which the longer side of an image is scaled.
        image_mean: mean of each channel that is subtracted, for images in [0, 1].
        image_std: standard deviation of each channel by which is divided.
        anchors: shapes of the region proposal network, in pixels at `image_size`.
        fpn_channels: width of the feature pyramid.
        head_width: width of the two fully connected layers of the box head.
        box_batch_size_per_image: proposals of each image that train the box head.
        sampling_ratio: points a side at which each of a proposal's 7 x 7 cells is sampled.
        canonical_scale: side of a proposal in pixels that is pooled from stride 16; half of it is
            pooled from stride 8, and so on.
        proposals: proposals kept of each image, in training and in use.
        batch_norm: `train` updates the running mean and variance of the backbone's batch norm
            and uses those of the batch; `frozen` uses the ones that came with the backbone
            (mmdetection's `norm_eval=True`), right where batches are too small to estimate them;
            `sync` is `train` with one batch over all GPUs. Scale and shift learn in all cases.
            A random backbone's own statistics are zeros and ones, so `frozen` would switch its
            normalization off.
        frozen_stages: 0 trains everything; k keeps the stem and the first k stages as they came.
    """

    class_names: tuple[str, ...]
    arch: str = "resnet50"
    image_size: int = 640
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.25, 0.25, 0.25)
    anchors: Anchors = Anchors()
    fpn_channels: int = 256
    head_width: int = 1024
    box_batch_size_per_image: int = 512
    sampling_ratio: int = 2
    canonical_scale: int = 224
    proposals: tuple[int, int] = (2000, 1000)
    batch_norm: str = "frozen"
    frozen_stages: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        unordered = isinstance(self.class_names, str | set | frozenset)
        names = () if unordered else tuple(map(str, self.class_names))
        if not names or len(set(names)) < len(names):
            raise DetectorError(
                f"class_names must be a list of different names, got {self.class_names!r}"
            )
        object.__setattr__(self, "class_names", names)
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
            ["0", "1", "2", "3"], 7, s.sampling_ratio, canonical_scale=s.canonical_scale
        )
        sizes, ratios = s.anchors.level_sizes, (s.anchors.ratios,) * PYRAMID_LEVELS
        generator = AnchorGenerator(sizes, ratios)
        super().__init__(
            build_backbone(s.arch, fpn_channels=s.fpn_channels),
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
            box_predictor=_Float32Predictor(s.head_width, len(s.class_names) + 1),
            box_batch_size_per_image=s.box_batch_size_per_image,
            box_score_thresh=0.01,
        )
        self.settings = settings
        if s.batch_norm == "sync":
            body = nn.SyncBatchNorm.convert_sync_batchnorm(self.backbone.body)
            self.backbone.body = body
        for module in self._frozen_modules():
            module.requires_grad_(False)
        self.train()  # a new module counts as training, and what is frozen must not

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

    >>> small = DetectorSettings(("mass",), arch="resnet18", fpn_channels=8, head_width=8)
    >>> build_detector(small, seed=0).roi_heads.box_predictor.cls_score.out_features
    2
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
    path: str | os.PathLike[str], *, class_names: Sequence[str] | None = None
) -> Detector:
    """Build the detector that a file describes, with its weights, ready for use (eval mode).

    Args:
        path: written by `save_detector`.
        class_names: the classes that the caller will read into the labels, to be compared.

    Raises:
        FileNotFoundError: there is no such file.
        DetectorError: the file is no detector, is damaged, or is for other classes.
    """
    settings, _ = read_detector_settings(path)
    if class_names is not None and tuple(class_names) != settings.class_names:
        raise DetectorError(
            f"{path} finds {len(settings.class_names)} classes {settings.class_names}, not the "
            f"{len(class_names)} classes {tuple(class_names)}; train one for these, or read its "
            "labels with its own names"
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
        raise DetectorError(
            f"{path} has settings that are no detector's of this version: {error}; train it anew, "
            "or read it with the version that wrote it"
        ) from error
