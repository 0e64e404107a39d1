"""Pretraining as notebook 02 runs it, and the backbones of all arms for those that follow."""

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader

from cxr_helpers import barlow, probe, views
from cxr_helpers.course.data import NihData
from cxr_helpers.course.quiet import quiet_lightning
from cxr_helpers.course.settings import PretrainPreset, Settings, fingerprint
from cxr_helpers.datasets import ImageDataset

ARMS = ("random", "pretrained", "imagenet")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware (AVX512-BF16 or AMX)."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)


def training_precision() -> str:
    """Lightning's name for the fastest precision that trains well here."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    return "bf16-mixed" if cpu_has_bf16() else "32-true"


def backbone_path(settings: Settings, *, seed: int) -> Path:
    """Where the pretrained backbone of these settings lies, made or not."""
    key = fingerprint(asdict(settings.pretrain), settings.data_key, seed)
    return settings.runs / "pretrain" / f"{settings.pretrain.arch}_seed{seed}_{key}.safetensors"


def epoch_count(preset: PretrainPreset, n_images: int) -> int:
    """Epochs over `n_images`: the preset's, or more where they make fewer than `min_steps`."""
    steps_per_epoch = max(1, n_images // preset.batch_size)
    return max(preset.epochs, math.ceil(preset.min_steps / steps_per_epoch))


def build_module(preset: PretrainPreset, *, seed: int, total_steps: int) -> barlow.BarlowTwins:
    """Backbone, projector and loss of a preset, ready to train."""
    backbone = barlow.build_backbone(preset.arch, seed=seed)
    if preset.initial_weights == "imagenet":
        state, sentence = barlow.imagenet_state(preset.arch)
        if state is None:
            raise barlow.WeightsError(f"{sentence} The preset starts from them.")
        barlow.load_weights(backbone, state)
    pl.seed_everything(seed, verbose=False)
    return barlow.BarlowTwins(
        backbone.to(memory_format=torch.channels_last),
        projector=preset.projector,
        redundancy_weight=preset.redundancy_weight,
        optimizer=preset.optimizer,
        learning_rate=preset.learning_rate,
        weight_decay=preset.weight_decay,
        batch_size=preset.batch_size,
        total_steps=total_steps,
        warmup_fraction=preset.warmup_fraction,
        gather_distributed=True,
    )


def pretrain(settings: Settings, data: NihData, *, seed: int, progress: bool = True) -> Path:
    """Pretrain on the training part (its pixels only) and save the backbone.

    Args:
        settings: give the preset.
        data: images of the `train` part are used, no label of theirs.
        seed: of weights, order and augmentations.
        progress: show Lightning's progress bar.

    Returns:
        Path of the backbone; `training_log` reads its log.

    Raises:
        ValueError: fewer training images than one batch.
    """
    preset, path = settings.pretrain, backbone_path(settings, seed=seed)
    rows = data.rows("train")
    if len(rows) < preset.batch_size:
        raise ValueError(
            f"{len(rows)} training images do not fill one batch of {preset.batch_size}; use more "
            "images or a smaller batch_size"
        )
    two_views = views.TwoViews(preset.views, preset.image_size)
    dataset = ImageDataset(data.entries.iloc[rows], data.images.read, two_views)
    epochs = epoch_count(preset, len(rows))
    steps = epochs * (len(rows) // preset.batch_size)
    module = build_module(preset, seed=seed, total_steps=steps)
    loader = DataLoader(dataset, preset.batch_size, shuffle=True, drop_last=True)
    with quiet_lightning():
        trainer = pl.Trainer(
            max_epochs=epochs,
            precision=training_precision(),
            accelerator="auto",
            devices=1,
            logger=CSVLogger(path.with_suffix(""), name="", version=""),
            callbacks=[TQDMProgressBar()] if progress else None,
            enable_progress_bar=progress,
            enable_checkpointing=False,
            enable_model_summary=False,
            log_every_n_steps=1,
        )
        trainer.fit(module, loader)
    told = {"preset": asdict(preset), "data": settings.data, "seed": seed, "images": len(rows)}
    barlow.save_backbone(module.backbone, path, settings=told)
    return path


def training_log(path: Path) -> pd.DataFrame:
    """The log beside a backbone: a row an epoch with the loss, its terms and correlations."""
    return pd.read_csv(path.with_suffix("") / "metrics.csv")


def arm_state(settings: Settings, arm: str, *, seed: int, data: NihData | None = None):
    """The weights that an arm starts from.

    Args:
        settings: give preset and folder.
        arm: `random`, `pretrained` or `imagenet`.
        seed: of the random weights or of pretraining.
        data: needed where the pretrained backbone has to be made first.

    Returns:
        State dict under torchvision's names, and a sentence on where it came from. The state is
        None for `imagenet` where those weights are not to be had.

    Raises:
        ValueError: there is no such arm.
    """
    if arm == "random":
        backbone = barlow.build_backbone(settings.pretrain.arch, seed=seed)
        return backbone.state_dict(), f"Random weights, seed {seed}."
    if arm == "imagenet":
        return barlow.imagenet_state(settings.pretrain.arch)
    if arm != "pretrained":
        raise ValueError(f"no arm {arm!r}; there are {ARMS}")
    path = backbone_path(settings, seed=seed)
    if not path.is_file():
        if data is None:
            from cxr_helpers.course.data import load_nih

            data = load_nih(settings)
        pretrain(settings, data, seed=seed)
    return barlow.read_weights(path)[0], f"Barlow Twins pretraining: {path.name}."


def arm_backbone(settings: Settings, arm: str, *, seed: int, data: NihData | None = None):
    """The backbone of an arm and a sentence on its weights; None where they are not to be had."""
    state, sentence = arm_state(settings, arm, seed=seed, data=data)
    if state is None:
        return None, sentence
    backbone = barlow.build_backbone(settings.pretrain.arch, seed=seed)
    barlow.load_weights(backbone, state)
    return backbone.to(memory_format=torch.channels_last), sentence


def features(settings: Settings, backbone: nn.Module, pixels: np.ndarray, arm: str) -> np.ndarray:
    """Frozen features of packed images, normalized as the arm's weights were trained."""
    norm = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD} if arm == "imagenet" else {}
    return probe.extract_features(backbone, pixels, image_size=settings.pretrain.image_size, **norm)


@torch.inference_mode()
def feature_correlation(
    settings: Settings, backbone: nn.Module, data: NihData, *, images: int = 256
) -> torch.Tensor:
    """Cross-correlation of backbone features between two views of training images.

    Args:
        settings: give the views and the seed.
        backbone: as `arm_backbone` gives it.
        data: its training part is used.
        images: how many of its images, from the first on.

    Returns:
        (D, D), entries in [-1, 1].
    """
    preset = settings.pretrain
    pl.seed_everything(settings.seed, verbose=False)
    two_views = views.TwoViews(preset.views, preset.image_size)
    pairs = [two_views(np.array(data.images.pixels[row])) for row in data.rows("train")[:images]]
    backbone.eval()
    z_a, z_b = (
        backbone(torch.stack(side).expand(-1, 3, -1, -1)) for side in zip(*pairs, strict=True)
    )
    return barlow.cross_correlation(z_a, z_b)
