"""How a detector is trained in the course: its loader, log, checkpoints and best epoch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from torch import distributed as dist
from torch.utils.data import DataLoader

from cxr_helpers.course.core import checkpoints
from cxr_helpers.course.core.compute import (
    ONE_PROCESS,
    Compute,
    each_once,
    memory_is_told,
    process_count,
    process_rank,
    resolved,
)
from cxr_helpers.course.core.data import BoxData
from cxr_helpers.course.core.epoch_log import EpochLog
from cxr_helpers.course.core.quiet import quiet_lightning
from cxr_helpers.course.core.settings import Settings
from cxr_helpers.course.core.threads import SpareCores
from cxr_helpers.data.datasets import DetectionDataset
from cxr_helpers.detection import detector as det
from cxr_helpers.detection import metrics
from cxr_helpers.detection.augmentation import (
    CountedPipeline,
    EpochImages,
    EpochOrder,
    detection_pipeline,
)
from cxr_helpers.detection.prediction import predict
from cxr_helpers.detection.training import DetectorModule, collate_detection

Truths = Sequence[Mapping[str, np.ndarray]]


class KeepBest(Callback):
    """Keeps the weights of the epoch with the best validation mAP50.

    Args:
        pixels: (N, H, W) validation images.
        truths: boxes and labels of each.
        class_names: of the labels from 1.

    Raises:
        ValueError: no validation image has a box, so no epoch could be told from another.
    """

    state_key = "keep_best"

    def __init__(self, pixels: np.ndarray, truths: Truths, class_names: Sequence[str]):
        if not sum(len(one["boxes"]) for one in truths):
            raise ValueError(
                f"none of the {len(truths)} validation images has a box, so no epoch is the best; "
                "give validation images with boxes, or set keep to 'last'"
            )
        self.pixels, self.truths, self.class_names = pixels, truths, class_names
        self.best, self.weights = -1.0, None

    def state_dict(self) -> dict:
        """What the checkpoint keeps."""
        return {"best": self.best, "weights": self.weights}

    def load_state_dict(self, state: dict) -> None:
        """Go on from a checkpoint."""
        self.best, self.weights = state["best"], state["weights"]

    def on_train_epoch_end(self, trainer: pl.Trainer, module: DetectorModule) -> None:
        """Score the epoch that ended; each process detects in its share of the images."""
        found = each_once(
            np.arange(len(self.pixels)),
            lambda share: predict(module.detector, self.pixels[share]),
        )
        matches = metrics.match_detections(found, self.truths, class_names=self.class_names)
        value = metrics.mean_average_precision(matches)
        module.log("val_map50", value)
        if value > self.best:
            state = module.detector.state_dict()
            self.best, self.weights = value, {k: v.cpu().clone() for k, v in state.items()}

    def on_fit_end(self, trainer: pl.Trainer, module: DetectorModule) -> None:
        """Put the best weights back."""
        if self.weights is not None:
            module.detector.load_state_dict(self.weights)


class EpochBatches(pl.LightningDataModule):
    """Feeds batches for detection; what a step sees depends on seed, epoch and step alone.

    So a run that was killed and goes on from a checkpoint sees what an unbroken one would have
    seen, with any number of workers. Under several processes each gets its share of every batch.

    Args:
        images: with the boxes.
        batch_size: images a step over all processes.
        seed: of the order; that of the augmentation is the pipeline's.
        workers: processes that read ahead; none are needed for a packed cache.
    """

    def __init__(self, images: EpochImages, *, batch_size: int, seed: int, workers: int = 0):
        super().__init__()
        self.images, self.batch_size, self.seed, self.workers = images, batch_size, seed, workers

    def train_dataloader(self) -> DataLoader:
        """Batches for this process; Lightning tells the order each new epoch."""
        world, rank = self.trainer.world_size, self.trainer.global_rank
        order = EpochOrder(self.images, seed=self.seed, num_replicas=world, rank=rank)
        order.set_epoch(self.trainer.current_epoch)  # workers read ahead before Lightning tells it
        return DataLoader(
            self.images,
            self.batch_size // world,
            sampler=order,
            drop_last=True,
            collate_fn=collate_detection,
            num_workers=self.workers,
            generator=torch.Generator(),  # or else the iterator draws a seed from torch's state
        )


class RandomStates(Callback):
    """Keeps all random states in the checkpoint, so that a killed run ends as an unbroken one.

    Sampling of proposals draws from torch. Order and augmentation follow from seed and epoch.

    Args:
        counted: the pipeline; its counts are kept too.
    """

    state_key = "random_states"

    def __init__(self, counted: CountedPipeline):
        self.counted, self.loaded = counted, None

    def state_dict(self) -> dict:
        """What the checkpoint keeps: a state for each process."""
        own = {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "seen": dict(self.counted.seen),
            "lost": dict(self.counted.lost),
        }
        states = [own] * process_count()
        if process_count() > 1:
            dist.all_gather_object(states, own)
        return {"states": states}

    def load_state_dict(self, state: dict) -> None:
        """Go on from a checkpoint; with another number of processes each draws anew."""
        same = len(state["states"]) == process_count()
        self.loaded = state["states"][process_rank()] if same else None
        if same:  # at once: after the last epoch no other begins
            self.counted.seen.update(self.loaded["seen"])
            self.counted.lost.update(self.loaded["lost"])

    def on_train_epoch_start(self, trainer: pl.Trainer, module: DetectorModule) -> None:
        """Put the states back where the unbroken run had them."""
        if self.loaded is None:
            return
        own, self.loaded = self.loaded, None
        torch.set_rng_state(own["torch"])
        if own["cuda"]:
            torch.cuda.set_rng_state_all(own["cuda"])


def train_detector(
    detector: det.Detector,
    settings: Settings,
    data: BoxData,
    rows: np.ndarray,
    *,
    seed: int,
    log: Path,
    validation: Truths,
    progress: bool = True,
    compute: Compute = ONE_PROCESS,
    resume: str = "auto",
) -> det.Detector:
    """Train a detector on these images, as the paper's code does on its abnormal ones.

    Args:
        detector: with its backbone in place; changed.
        settings: give the preset, with a learning rate.
        data: boxes are the fused ones.
        rows: training images.
        seed: of order and augmentation.
        log: folder for `log.csv` (losses), `boxes.csv` (boxes seen and lost), checkpoints.
        validation: boxes of the abnormal validation images, where the best epoch is kept.
        progress: show Lightning's progress bar.
        compute: processes and precision.
        resume: `auto` goes on where a checkpoint is, `yes` insists on one, `no` starts anew.

    Returns:
        The detector after the last epoch, or the epoch best on validation, as the preset says.
        Its last checkpoint is still in `log`: remove it once the detector is saved.

    Raises:
        ValueError: fewer images than one batch, or the preset's learning rate is 0, which stands
            for the arms' own (`experiment.with_recipe`).
        ComputeError, CheckpointError, OSError, MemoryError: as `pretraining.pretrain`.
    """
    preset = settings.detect
    if len(rows) < preset.batch_size:
        raise ValueError(f"{len(rows)} training images do not fill a batch of {preset.batch_size}")
    if not preset.learning_rate:
        raise ValueError("detect.learning_rate is 0; take the settings of experiment.with_recipe")
    compute = resolved(compute, batch_size=preset.batch_size)
    pipeline = CountedPipeline(detection_pipeline(preset.pipeline, seed=seed))
    module = DetectorModule(
        detector.to(memory_format=torch.channels_last),
        optimizer=preset.optimizer,
        learning_rate=preset.learning_rate,
        backbone_rate=preset.backbone_rate,
        weight_decay=preset.weight_decay,
        warmup_steps=preset.warmup_steps,
    )
    told = {"data": settings.data, "images": len(rows), "digest": data.digest}
    checkpoint = checkpoints.checkpoint_to_resume(log, told, resume=resume)
    callbacks = _callbacks(settings, data, validation, progress)
    callbacks += [EpochLog(log), RandomStates(pipeline), checkpoints.Identity(told), SpareCores()]
    if preset.checkpoint_every:
        states = 2 if preset.optimizer == "adamw" else 1
        checkpoints.check_room(log.parent, checkpoints.training_bytes(module, states=states))
        callbacks.append(_checkpoints(log, preset.checkpoint_every))
    pl.seed_everything(seed, verbose=False)
    images = EpochBatches(_dataset(data, rows, pipeline), batch_size=preset.batch_size, seed=seed)
    with quiet_lightning():
        trainer = pl.Trainer(
            max_epochs=epoch_count(settings, data, len(rows)),
            logger=False,
            callbacks=callbacks,
            plugins=[checkpoints.AtomicCheckpointIO()],
            enable_progress_bar=progress,
            enable_checkpointing=bool(preset.checkpoint_every),
            enable_model_summary=False,
            **compute.trainer_options(),
        )
        with memory_is_told(batch_size=preset.batch_size, image_size=preset.image_size):
            trainer.fit(module, images, ckpt_path=checkpoint, weights_only=True)
    if trainer.is_global_zero:
        _write_counts(log, pipeline, data.class_names)
    return detector.cpu().eval()


def _callbacks(
    settings: Settings, data: BoxData, validation: Truths, progress: bool
) -> list[Callback]:
    callbacks: list[Callback] = [TQDMProgressBar()] if progress else []
    if settings.detect.keep == "best":
        pixels = data.images.pixels[data.rows("val", abnormal_only=True)]
        callbacks.insert(0, KeepBest(pixels, validation, data.class_names))
    return callbacks


def _checkpoints(folder: Path, every: int) -> ModelCheckpoint:
    return ModelCheckpoint(
        folder,
        filename=Path(checkpoints.NAME).stem,
        every_n_epochs=every,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


def _dataset(data: BoxData, rows: np.ndarray, pipeline: CountedPipeline) -> EpochImages:
    dataset = DetectionDataset(data.images, data.truths(rows), pipeline, rows=rows)
    return EpochImages(dataset, pipeline.pipeline)


def step_count(settings: Settings, data: BoxData) -> int:
    """Steps of every training, on whatever share of the images: the preset's epochs on all."""
    preset = settings.detect
    return preset.epochs * (len(data.rows("train", abnormal_only=True)) // preset.batch_size)


def epoch_count(settings: Settings, data: BoxData, n_images: int) -> int:
    """Epochs in which so many images make `step_count` steps, to within half an epoch."""
    return round(step_count(settings, data) / (n_images // settings.detect.batch_size))


def _write_counts(log: Path, pipeline: CountedPipeline, class_names: Sequence[str]) -> None:
    """Keep beside the losses how many boxes augmentation met and lost, by class."""
    numbers = range(1, len(class_names) + 1)
    table = {
        "class": list(class_names),
        "seen": [pipeline.seen[k] for k in numbers],
        "lost": [pipeline.lost[k] for k in numbers],
    }
    pd.DataFrame(table).to_csv(log / "boxes.csv", index=False)
