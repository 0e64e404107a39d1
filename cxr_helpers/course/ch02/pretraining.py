"""Pretraining as notebook 02 runs it, and the backbones of all arms for those that follow."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from lightly.utils.debug import std_of_l2_normalized
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cxr_helpers.course.core import checkpoints, records
from cxr_helpers.course.core.compute import (
    ONE_PROCESS,
    Compute,
    memory_is_told,
    resolved,
    training_precision,
)
from cxr_helpers.course.core.data import NihData, data_digest, load_nih, load_phantoms
from cxr_helpers.course.core.epoch_log import EpochLog, read_log
from cxr_helpers.course.core.quiet import quiet_lightning
from cxr_helpers.course.core.settings import PretrainPreset, Settings, fingerprint
from cxr_helpers.course.core.threads import SpareCores
from cxr_helpers.data.packed import PackedImages
from cxr_helpers.evaluation import probe, scoring
from cxr_helpers.evaluation.features import extract_features
from cxr_helpers.pretraining import barlow, pairs, processes, views, weights

ARMS = ("random", "pretrained", "evening", "imagenet")
ARM_NAMES = {
    "random": "random weights",
    "pretrained": "pretrained here",
    "evening": "pretrained for an evening",
    "imagenet": "ImageNet",
}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def backbone_path(settings: Settings, *, seed: int) -> Path:
    """Where the pretrained backbone of these settings lies, made or not.

    Its name follows from settings and data, not from code: whoever changes the loss or the views
    moves the file away, or an older backbone is taken.
    """
    key = fingerprint(asdict(settings.pretrain), settings.data_key, seed)
    return settings.runs / "pretrain" / f"{settings.pretrain.arch}_seed{seed}_{key}.safetensors"


def epoch_count(preset: PretrainPreset, n_images: int) -> int:
    """Epochs over `n_images`: the preset's, or more where they make fewer than `min_steps`."""
    steps_per_epoch = max(1, n_images // preset.batch_size)
    return max(preset.epochs, math.ceil(preset.min_steps / steps_per_epoch))


def build_module(
    preset: PretrainPreset, *, seed: int, total_steps: int, criterion: Callable | None = None
) -> barlow.BarlowTwins:
    """Backbone, projector and loss of a preset, ready to train.

    Args:
        preset: the recipe.
        seed: of the weights.
        total_steps: of the whole run.
        criterion: instead of lightly's loss.

    Raises:
        WeightsError: the preset starts from weights that are not to be had or do not fit.
    """
    backbone = barlow.build_backbone(preset.arch, seed=seed)
    if preset.initial_weights == "imagenet":
        state, sentence = weights.imagenet_state(preset.arch)
        if state is None:
            raise weights.WeightsError(f"{sentence} The preset starts from them.")
        weights.load_weights(backbone, state)
    elif preset.initial_weights != "random":
        weights.load_weights(backbone, weights.read_weights(Path(preset.initial_weights))[0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
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
            criterion=criterion,
        )


def evening_path(settings: Settings) -> Path:
    """The backbone that ships with the course; its log and record lie in the folder of its name."""
    return settings.project / "weights" / "evening.safetensors"


def two_views(preset: PretrainPreset) -> views.TwoViews:
    """What makes two views of an image, by the preset's recipe."""
    first, second = ({**side, "min_scale": preset.min_crop} for side in views.recipe(preset.views))
    return views.TwoViews((first, second), preset.image_size)


class MeasuredLog(EpochLog):
    """A log with a row of epoch 0, before training, and with figures on other patients.

    Correlation matrices of the outputs are saved beside it, before, halfway and at the end.

    Args:
        folder: for `log.csv` and `correlation_<epoch>.npy`.
        measure: called with the module; gives figures by name, and the correlation matrix.
        every: epochs between two measurements.
    """

    def __init__(
        self,
        folder: Path,
        measure: Callable[[barlow.BarlowTwins], tuple[dict[str, float], Tensor]],
        *,
        every: int,
    ):
        super().__init__(folder)
        self.measure, self.every = measure, every

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure before the first step, unless this run goes on from a checkpoint."""
        if not self.rows:
            self.add_row(trainer, 0, {})

    def add_row(self, trainer: pl.Trainer, epoch: int, figures: dict[str, float]) -> None:
        """Add a row; the first process measures where it is time to."""
        last = trainer.max_epochs
        if trainer.is_global_zero and (epoch % self.every == 0 or epoch in (last // 2, last)):
            measured, correlation = self.measure(trainer.lightning_module)
            figures = figures | measured
            if epoch in (0, last // 2, last):
                np.save(self.folder / f"correlation_{epoch}.npy", correlation.numpy())
        super().add_row(trainer, epoch, figures)


def watch(
    settings: Settings,
    data: NihData,
    *,
    start: Mapping[str, Tensor] | None = None,
    most: int = 2000,
) -> Callable:
    """What the log measures on validation patients, whom pretraining never sees.

    Args:
        settings: views, image size and neighbors.
        data: validation images are measured; training images and their labels vote, where there
            are labels.
        start: the backbone's weights before training; the log then says how far they moved.
        most: images of each part, evenly spaced, so that large data is measured in seconds.

    Returns:
        A function of the module. Its figures: `knn_findings` and `knn_view`, macro AUROC of a
        k-NN probe for findings and AUROC for AP against PA; `spread` and `effective_rank` of the
        features; `heldout_diagonal`, `heldout_offdiagonal` and `found_again` (see that function) of
        the outputs for two views; `moved_conv1`, `moved_layer1` and so on, see
        `weights.distance_moved`. And the matrix of the outputs.
    """
    train, val = (_spaced(data.rows(part), most) for part in ("train", "val"))
    pixels = np.concatenate([data.images.pixels[train], data.images.pixels[val]])
    targets = {}
    if data.labels is not None:
        view = data.entries["view"]
        is_ap = (view == "AP").to_numpy(int)[:, None]
        every = np.ones(len(view), bool)
        targets = {
            "knn_findings": (data.labels, every),
            "knn_view": (is_ap, view.notna().to_numpy()),
        }

    def measure(module: barlow.BarlowTwins) -> tuple[dict[str, float], Tensor]:
        with _autocast():
            found = features(settings, module.backbone, pixels, "pretrained")
        near, here = found[: len(train)], found[len(train) :]
        tensor = torch.from_numpy(here)
        row = {
            "spread": std_of_l2_normalized(tensor).item() * math.sqrt(tensor.shape[1]),
            "effective_rank": barlow.effective_rank(tensor),
        }
        for name, (labels, known) in targets.items():
            t, v = known[train], known[val]  # an image whose table does not say has no vote
            votes = probe.knn_scores(
                near[t], labels[train][t], here[v], neighbors=settings.probe.neighbors
            )
            row[name] = float(np.nanmean(scoring.auroc(labels[val][v], votes)))
        z_a, z_b = outputs_of_views(settings, module, pixels[len(train) :])
        row["found_again"] = found_again(z_a, z_b)
        correlation = barlow.cross_correlation(z_a, z_b)
        row["heldout_diagonal"] = correlation.diagonal().mean().item()
        row["heldout_offdiagonal"] = barlow.offdiagonal_abs_mean(correlation)
        if start is not None:
            moved = weights.distance_moved(start, module.backbone.state_dict())
            row |= {f"moved_{stage}": share for stage, share in moved.items()}
        return row, correlation

    return measure


def _spaced(rows: np.ndarray, most: int) -> np.ndarray:
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]


@torch.inference_mode()
def outputs_of_views(
    settings: Settings, module: barlow.BarlowTwins, pixels: np.ndarray, *, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """A module's outputs for two views of each image.

    Args:
        settings: give the views.
        module: in evaluation mode here; its mode is put back.
        pixels: (N, H, W) uint8. Of the correlation of the outputs: the more images, the less noise;
            independent outputs still show a mean |c| of sqrt(2 / (pi N)) off the diagonal.
        seed: of the views.

    Returns:
        (N, D) for views A, (N, D) for views B.
    """
    preset, was_training = settings.pretrain, module.training
    images = pairs.ImagePairs(pixels, range(len(pixels)), two_views(preset), seed=seed)
    places = [(0, place) for place in range(len(images))]
    module.eval()
    outputs = [[], []]
    for batch in DataLoader(images, preset.batch_size, sampler=places):
        for side, view in zip(outputs, batch, strict=True):
            with _autocast():
                side.append(module(view.to(module.device)).float().cpu())
    module.train(was_training)
    return torch.cat(outputs[0]), torch.cat(outputs[1])


def found_again(z_a: Tensor, z_b: Tensor, *, among: int = 10) -> float:
    """How often view A of an image finds its own view B among those of some images.

    Args:
        z_a: (N, D) outputs for views A; similarity is the cosine of standardized outputs.
        z_b: (N, D) outputs for views B of the same images.
        among: how many views B there are to choose from, the others drawn at random.

    Returns:
        From 0 to 1; 1 / `among` is chance.

    >>> z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    >>> found_again(z, 2 * z), found_again(z, -z)
    (1.0, 0.0)
    """
    a, b = (
        nn.functional.normalize((z - z.mean(dim=0)) / z.std(dim=0).clamp_min(1e-6))
        for z in (z_a, z_b)
    )
    similarity = a @ b.T  # (views A, views B)
    beaten = (similarity < similarity.diagonal()[:, None]).double().sum(dim=1) / (len(a) - 1)
    return beaten.pow(among - 1).mean().item()


def _autocast() -> torch.autocast:
    """Bfloat16 where the processor or the GPU has it."""
    precision = training_precision()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16-mixed")


def pretrain(
    settings: Settings,
    data: NihData,
    *,
    seed: int,
    progress: bool = True,
    compute: Compute = ONE_PROCESS,
    resume: str = "auto",
) -> Path:
    """Pretrain on the training part, its pixels only, or the preset's phantoms; save the backbone.

    A run that was killed goes on from its last checkpoint and ends as an unbroken one would.

    Args:
        settings: give the preset.
        data: images of the `train` part are used, no label of theirs; none where the preset names
            phantoms. The validation part is measured.
        seed: of weights, order and augmentations.
        progress: show Lightning's progress bar.
        compute: processes and precision.
        resume: `auto` goes on where a checkpoint is, `yes` insists on one, `no` starts anew.

    Returns:
        Path of the backbone; `training_log` and `correlations` read what lies beside it, and
        `record.json` there says what it was made of.

    Raises:
        ValueError: fewer training images than one batch.
        ComputeError: the machines are not there, or do not fit the batch.
        OSError: the folder of the results cannot be written, or its disk is too small or full.
        FloatingPointError: the loss is not finite; the text says at which step and what to try.
        MemoryError: memory ran out; the text says what to halve.
        CheckpointError: the checkpoint to go on from cannot be used.
        WeightsError: the preset's weights cannot be used.
    """
    preset, path = settings.pretrain, backbone_path(settings, seed=seed)
    compute = resolved(compute, batch_size=preset.batch_size)
    folder = path.with_suffix("")
    images, rows, told = _learned_from(settings, data)
    fed = pairs.ViewPairs(
        images.pixels,
        rows,
        two_views(preset),
        batch_size=preset.batch_size,
        seed=seed,
        workers=compute.loader_workers(),
    )
    epochs = epoch_count(preset, len(rows))
    steps = epochs * (len(rows) // preset.batch_size)
    module = build_module(preset, seed=seed, total_steps=steps)
    checkpoints.check_room(path.parent, checkpoint_bytes(module))
    if compute.processes > 1 and not compute.uses_gpu:
        processes.synchronize_batch_norm(module)
    checkpoint = checkpoints.checkpoint_to_resume(folder, told, resume=resume)
    start = {key: value.clone() for key, value in module.backbone.state_dict().items()}
    measure = watch(settings, data, start=start)
    log = MeasuredLog(folder, measure, every=preset.measure_every)
    callbacks = [log, checkpoints.Identity(told), *([TQDMProgressBar()] if progress else [])]
    with quiet_lightning():
        trainer = _trainer(preset, folder, epochs, callbacks, compute)
        with memory_is_told(batch_size=preset.batch_size, image_size=preset.image_size):
            trainer.fit(module, fed, ckpt_path=checkpoint, weights_only=True)
    if trainer.is_global_zero:
        record = records.run_record(
            settings, stage="pretrain", seed=seed, digest=data.digest, compute=compute
        )
        records.write_record(record, folder / "record.json")
        # Last: the file says that the run ended. Only then may its checkpoint go.
        weights.save_weights(
            module.backbone.state_dict(),
            path,
            settings={"preset": asdict(preset), "seed": seed, "steps": steps, **told},
        )
        (folder / checkpoints.NAME).unlink(missing_ok=True)
    return path


def pretrain_once(settings: Settings, data: NihData, *, seed: int, **options: object) -> Path:
    """The backbone of these settings and this data: as it lies there, or else pretrained now.

    Args:
        settings: as for `pretrain`.
        data: as for `pretrain`.
        seed: as for `pretrain`.
        **options: of `pretrain`.

    Raises:
        WeightsError: the backbone that is there is of other data under the same name.
        ValueError, OSError, ...: as `pretrain`.
    """
    path = backbone_path(settings, seed=seed)
    if not path.is_file():
        return pretrain(settings, data, seed=seed, **options)
    if weights.read_weights(path)[1].get("digest", data.digest) != data.digest:
        raise weights.WeightsError(
            f"{path} was pretrained on other images or another split than this {settings.data} "
            "(their digests differ). Give each root a folder name of its own, or move the file "
            "elsewhere to pretrain anew"
        )
    return path


def _learned_from(settings: Settings, data: NihData) -> tuple[PackedImages, np.ndarray, dict]:
    """The images that a run learns from, their rows, and what the run says of them."""
    told = {"data": settings.data, "digest": data.digest}
    if not settings.pretrain.phantoms:
        rows = data.rows("train")
        return data.images, rows, told | {"images": len(rows)}
    made = load_phantoms(settings)
    rows = np.arange(len(made.image_ids))
    digest = data_digest(made, ["train"] * len(rows))
    return made, rows, told | {"images": len(rows), "phantoms": digest}


def checkpoint_bytes(module: barlow.BarlowTwins) -> int:
    """Bytes of a checkpoint: weights, and one or two values a parameter for the optimizer."""
    states = 2 if module.hparams.optimizer == "adamw" else 1
    return checkpoints.training_bytes(module, states=states)


def _trainer(
    preset: PretrainPreset, folder: Path, epochs: int, callbacks: list, compute: Compute
) -> pl.Trainer:
    """Lightning's trainer with a checkpoint to resume from; the CSV file is our log's."""
    kept = ModelCheckpoint(
        folder,
        filename=Path(checkpoints.NAME).stem,
        every_n_epochs=preset.checkpoint_every,
        enable_version_counter=False,
    )
    return pl.Trainer(
        max_epochs=epochs,
        sync_batchnorm=compute.uses_gpu,
        logger=False,
        callbacks=[*callbacks, kept, SpareCores()],
        plugins=[checkpoints.AtomicCheckpointIO()],
        enable_progress_bar=any(isinstance(c, TQDMProgressBar) for c in callbacks),
        enable_model_summary=False,
        **compute.trainer_options(),
    )


def training_log(path: Path) -> pd.DataFrame:
    """The log beside a backbone: a row an epoch, from 0 (before training).

    Returns:
        Columns epoch, step, loss, invariance, redundancy, diagonal_mean (means over the epoch's
        batches), offdiagonal_abs_mean (of its last batch), and what `watch` measures, NaN in
        epochs between.
    """
    return read_log(path)


def correlations(path: Path) -> dict[int, np.ndarray]:
    """Cross-correlation matrices of the outputs beside a backbone, by epoch, in order."""
    files = Path(path).with_suffix("").glob("correlation_*.npy")
    found = {int(file.stem.split("_")[1]): np.load(file) for file in files}
    return dict(sorted(found.items()))


def backbone_digest(settings: Settings, *, seed: int) -> str | None:
    """Digest of the data that the pretrained backbone here was made of; None where none is here."""
    path = backbone_path(settings, seed=seed)
    return weights.read_weights(path)[1].get("digest") if path.is_file() else None


def arm_state(settings: Settings, arm: str, *, seed: int, data: NihData | None = None):
    """The weights that an arm starts from.

    Args:
        settings: give preset and folder.
        arm: one of `ARMS`.
        seed: of the random weights or of pretraining.
        data: needed where the pretrained backbone has to be made first.

    Returns:
        State dict under torchvision's names, and a sentence on where it came from. The state is
        None for `imagenet` where those weights are not to be had, and for `evening` where the file
        is missing or of another architecture.

    Raises:
        ValueError: there is no such arm.
        WeightsError: the pretrained backbone is of other data under the same name.
    """
    if arm == "random":
        backbone = barlow.build_backbone(settings.pretrain.arch, seed=seed)
        return backbone.state_dict(), f"Random weights, seed {seed}."
    if arm == "imagenet":
        return weights.imagenet_state(settings.pretrain.arch)
    if arm == "evening":
        return _evening_state(settings)
    if arm != "pretrained":
        raise ValueError(f"no arm {arm!r}; there are {ARMS}")
    path = backbone_path(settings, seed=seed)
    if data is None and not path.is_file():
        data = load_nih(settings)
    if data is not None:
        path = pretrain_once(settings, data, seed=seed)
    state, _ = weights.read_weights(path)
    return state, f"Barlow Twins pretraining: {path.name}."


def _evening_state(settings: Settings) -> tuple[dict[str, Tensor] | None, str]:
    path, arch = evening_path(settings), settings.pretrain.arch
    if not path.is_file():
        return None, f"{path.name} is not there; `python -m tools.evening` makes it in an hour."
    state, told = weights.read_weights(path)
    if told["preset"]["arch"] != arch:
        return None, f"{path.name} is a {told['preset']['arch']}, and this scale takes a {arch}."
    state = {key: v.float() if v.is_floating_point() else v for key, v in state.items()}
    images, steps = told["images"], told["steps"]
    return (
        state,
        f"Barlow Twins pretraining of {steps:,} steps on {images:,} phantoms: {path.name}.",
    )


def arm_backbone(settings: Settings, arm: str, *, seed: int, data: NihData | None = None):
    """The backbone of an arm and a sentence on its weights; None where they are not to be had."""
    state, sentence = arm_state(settings, arm, seed=seed, data=data)
    if state is None:
        return None, sentence
    backbone = barlow.build_backbone(settings.pretrain.arch, seed=seed)
    weights.load_weights(backbone, state)
    return backbone.to(memory_format=torch.channels_last), sentence


def features(settings: Settings, backbone: nn.Module, pixels: np.ndarray, arm: str) -> np.ndarray:
    """Frozen features of packed images, normalized as the arm's weights were trained."""
    norm = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD} if arm == "imagenet" else {}
    device = next(backbone.parameters()).device
    return extract_features(
        backbone, pixels, image_size=settings.pretrain.image_size, device=device, **norm
    )
