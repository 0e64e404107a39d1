"""Fine-tuning as notebook 04 runs it: arms, shares of the boxes, cached predictions, truths.

Detectors and their predictions lie in runs/<data>/detect, named after everything they depend on,
and are made where they are missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger
from sklearn.cluster import KMeans
from torch.utils.data import DataLoader

from cxr_helpers import detection_metrics, dicom, nih, splits
from cxr_helpers import detector as det
from cxr_helpers.course import pretraining
from cxr_helpers.course.data import VindrData
from cxr_helpers.course.quiet import quiet_lightning
from cxr_helpers.course.settings import Settings, fingerprint
from cxr_helpers.datasets import DetectionDataset, boxes_by_image
from cxr_helpers.detection_pipelines import CountedPipeline, detection_pipeline

ARMS = pretraining.ARMS
TRUTHS = ("fused", "two readers", "one reader", "any reader")
UNTRAINED = ("fractions", "resamples")  # settings that no training depends on


def detector_settings(settings: Settings, data: VindrData, arm: str) -> det.DetectorSettings:
    """What to build: the preset, anchors from the training boxes, the arm's normalization.

    A random arm keeps no stage and no running statistics fixed: there is nothing in them yet.
    """
    preset = settings.detect
    boxes, _ = data.packed_boxes(data.rows("train", abnormal_only=True))
    start = {"batch_norm": preset.norm, "frozen_stages": preset.frozen_stages}
    if arm == "random":
        start = {"batch_norm": "train", "frozen_stages": 0}
    if arm == "imagenet":
        start |= {"image_mean": pretraining.IMAGENET_MEAN, "image_std": pretraining.IMAGENET_STD}
    return det.DetectorSettings(
        classes=data.classes,
        arch=settings.pretrain.arch,
        image_size=preset.image_size,
        anchors=det.derive_anchors(
            np.concatenate(boxes), every_level=preset.anchors_at_every_level
        ),
        fpn_channels=preset.fpn_channels,
        head_width=preset.head_width,
        roi_samples=preset.rois_per_image,
        roi_sampling=preset.roi_sampling,
        roi_canonical_size=preset.roi_canonical_size,
        proposals=preset.proposals,
        **start,
    )


def training_rows(
    settings: Settings, data: VindrData, *, fraction: float = 1.0, seed: int = 0
) -> np.ndarray:
    """A share of the abnormal training images, stratified by class; smaller shares lie in larger.

    Args:
        settings: their `fractions` are nested.
        data: gives boxes and split.
        fraction: above 0, up to 1.
        seed: of the draw.
    """
    rows = data.rows("train", abnormal_only=True)
    if fraction == 1:
        return rows
    _, labels = data.packed_boxes(rows)
    has = np.array([np.bincount(one, minlength=len(data.classes) + 1)[1:] > 0 for one in labels])
    patients = [data.patients[row] for row in rows]
    shares = sorted({*settings.detect.fractions, fraction})
    return rows[splits.nested_fractions(has, patients, fractions=shares, seed=seed)[fraction]]


def detector_path(
    settings: Settings, data: VindrData, arm: str, *, seed: int, fraction: float = 1.0
) -> Path:
    """Where the detector of an arm lies, made or not."""
    preset = {k: v for k, v in asdict(settings.detect).items() if k not in UNTRAINED}
    key = fingerprint(
        preset,
        asdict(settings.pretrain) if arm == "pretrained" else settings.pretrain.arch,
        _data_key(settings, data),
        arm,
        seed,
        # Which images a share holds depends on the larger shares that it lies in.
        fraction if fraction == 1 else (fraction, settings.detect.fractions),
    )
    share = "" if fraction == 1 else f"_{100 * fraction:g}percent"
    return settings.runs / "detect" / f"{arm}{share}_seed{seed}_{key}.safetensors"


def _data_key(settings: Settings, data: VindrData) -> str:
    """Changes when images, boxes, split or the demo's version change."""
    boxes = data.fused.select_dtypes("number").sum().round(1).to_dict()
    return fingerprint(settings.data_key, data.images.image_ids, data.split.tolist(), boxes)


def truths(
    data: VindrData, rows: np.ndarray, *, choice: str = "fused"
) -> list[dict[str, np.ndarray]]:
    """Boxes of these rows in the form that `detection_metrics` takes, packed pixels.

    Args:
        data: gives the boxes.
        rows: images.
        choice: `fused`, all readers' boxes fused; `two readers`, of these the ones that at least
            two readers drew; `one reader`, what one reader of each image drew, the first by name
            of those who drew any box; `any reader`, every box of every reader, unfused.

    Raises:
        ValueError: there is no such choice.
    """
    names = [data.images.image_ids[row] for row in rows]
    found = boxes_by_image(data.packed(_chosen(data, choice)), names, data.classes)
    return [{"boxes": boxes, "labels": labels} for boxes, labels in found]


def _chosen(data: VindrData, choice: str) -> pd.DataFrame:
    drawn = data.readings.boxes
    if choice == "fused":
        return data.fused
    if choice == "two readers":
        return data.fused[data.fused["readers"] >= 2]
    if choice == "any reader":
        return drawn[drawn["image_id"].isin(data.images.image_ids)]
    if choice == "one reader":
        first = drawn.groupby("image_id")["reader_id"].transform("min")
        return drawn[(drawn["reader_id"] == first) & drawn["image_id"].isin(data.images.image_ids)]
    raise ValueError(f"truth {choice!r} is none of {', '.join(TRUTHS)}")


class _KeepBest(Callback):
    """Keeps the weights of the epoch with the best validation mAP50."""

    def __init__(self, settings: Settings, data: VindrData):
        self.settings, self.rows = settings, data.rows("val", abnormal_only=True)
        self.pixels, self.truths = data.images.pixels[self.rows], truths(data, self.rows)
        self.classes = data.classes
        self.best, self.state = -1.0, None

    def on_train_epoch_end(self, trainer: pl.Trainer, module: det.DetectorModule) -> None:
        found = det.predict(module.detector, self.pixels)
        matches = detection_metrics.match_detections(found, self.truths, class_names=self.classes)
        value = detection_metrics.mean_average_precision(matches)
        module.log("val_map50", value)
        if value > self.best:
            state = module.detector.state_dict()
            self.best, self.state = value, {k: v.cpu().clone() for k, v in state.items()}

    def on_fit_end(self, trainer: pl.Trainer, module: det.DetectorModule) -> None:
        if self.state is not None:
            module.detector.load_state_dict(self.state)


def train_detector(
    settings: Settings,
    data: VindrData,
    arm: str,
    state: Mapping[str, torch.Tensor],
    *,
    seed: int,
    log: Path,
    rows: np.ndarray | None = None,
    progress: bool = True,
) -> det.Detector:
    """Train one arm on abnormal training images, as the paper does.

    Args:
        settings: give the preset.
        data: boxes are the fused ones.
        arm: name that decides the normalization.
        state: the backbone's weights.
        seed: of new weights, order and augmentation.
        log: folder for the CSV file of the losses.
        rows: other training rows than all of the abnormal ones.
        progress: show Lightning's progress bar.

    Returns:
        The detector after the last epoch, or the epoch best on validation, as the preset says.
    """
    preset = settings.detect
    rows = data.rows("train", abnormal_only=True) if rows is None else rows
    if len(rows) < preset.batch_size:
        raise ValueError(f"{len(rows)} training images do not fill a batch of {preset.batch_size}")
    table = pd.DataFrame({"image_id": [data.images.image_ids[row] for row in rows]})
    pipeline = CountedPipeline(detection_pipeline(preset.pipeline, seed=seed))
    dataset = DetectionDataset(
        table, data.images.read, pipeline, boxes=data.packed(data.fused), classes=data.classes
    )
    detector = det.build_detector(detector_settings(settings, data, arm), state, seed=seed)
    module = det.DetectorModule(
        detector.to(memory_format=torch.channels_last),
        optimizer=preset.optimizer,
        learning_rate=preset.learning_rate,
        weight_decay=preset.weight_decay,
        warmup_steps=preset.warmup_steps,
    )
    callbacks: list[Callback] = [_KeepBest(settings, data)] if preset.keep == "best" else []
    if progress:
        callbacks.append(TQDMProgressBar())
    pl.seed_everything(seed, verbose=False)
    loader = DataLoader(
        dataset, preset.batch_size, shuffle=True, drop_last=True, collate_fn=det.collate_detection
    )
    with quiet_lightning():
        trainer = pl.Trainer(
            max_epochs=_epochs(settings, data, len(rows)),
            precision=pretraining.training_precision(),
            accelerator="auto",
            devices=1,
            logger=CSVLogger(log, name="", version=""),
            callbacks=callbacks,
            enable_progress_bar=progress,
            enable_checkpointing=False,
            enable_model_summary=False,
            log_every_n_steps=1,
        )
        trainer.fit(module, loader)
    _write_counts(log, pipeline, data.classes)
    return detector.cpu().eval()


def _epochs(settings: Settings, data: VindrData, n_images: int) -> int:
    """The preset's epochs, or more where few images would make less than the least steps."""
    preset, all_images = settings.detect, len(data.rows("train", abnormal_only=True))
    steps = preset.epochs * (all_images // preset.batch_size)
    return max(preset.epochs, round(preset.least_steps * steps / (n_images // preset.batch_size)))


def _write_counts(log: Path, pipeline: CountedPipeline, classes: Sequence[str]) -> None:
    """Keep beside the losses how many boxes augmentation met and lost, by class."""
    numbers = range(1, len(classes) + 1)
    table = {
        "class": list(classes),
        "seen": [pipeline.seen[k] for k in numbers],
        "lost": [pipeline.lost[k] for k in numbers],
    }
    pd.DataFrame(table).to_csv(log / "boxes.csv", index=False)


def train_or_load_detector(
    settings: Settings,
    data: VindrData,
    arm: str,
    *,
    seed: int = 0,
    fraction: float = 1.0,
    progress: bool = True,
) -> tuple[det.Detector | None, Path | str]:
    """The detector of an arm, trained where its file is missing.

    Args:
        settings: give preset and folder.
        data: to train on.
        arm: `random`, `pretrained` or `imagenet`.
        seed: of everything, the backbone's weights or pretraining included.
        fraction: share of the abnormal training images.
        progress: show Lightning's progress bar.

    Returns:
        The detector and its path; or None and a sentence, where the arm's weights are not to be
        had.
    """
    path = detector_path(settings, data, arm, seed=seed, fraction=fraction)
    if path.is_file():
        return det.load_detector(path, classes=data.classes), path
    state, sentence = pretraining.arm_state(settings, arm, seed=seed)
    if state is None:
        return None, sentence
    rows = training_rows(settings, data, fraction=fraction, seed=seed)
    options = {"seed": seed, "log": path.with_suffix(""), "rows": rows, "progress": progress}
    detector = train_detector(settings, data, arm, state, **options)
    notes = {"arm": arm, "seed": seed, "data": settings.data, "images": len(rows)}
    det.save_detector(detector, path, notes=notes)
    return detector, path


def training_log(path: Path) -> pd.DataFrame:
    """The log beside a detector: a row an epoch with the losses."""
    return pd.read_csv(path.with_suffix("") / "metrics.csv")


def lost_boxes(path: Path) -> pd.DataFrame:
    """How many boxes augmentation met and lost while a detector was trained, by class."""
    return pd.read_csv(path.with_suffix("") / "boxes.csv").set_index("class")


def detect_file(detector: det.Detector, path: Path) -> dict[str, np.ndarray]:
    """Detections in a DICOM file or a PNG, in pixels of that file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it gives no picture; the text names file and remedy.
    """
    read = nih.read_image if path.suffix.lower() in (".png", ".jpg", ".jpeg") else _dicom_pixels
    return det.predict_files(detector, [path], read)[0]


def _dicom_pixels(path: Path) -> np.ndarray:
    return dicom.read_dicom(path).pixels


def predictions(
    detector: det.Detector, path: Path, data: VindrData, rows: np.ndarray
) -> list[dict[str, np.ndarray]]:
    """Detections in these rows, read from the file beside the detector or made.

    Returns:
        One dict for each row: `boxes` in packed pixels, `scores`, `labels`.
    """
    cache = path.with_name(f"{path.stem}_{fingerprint(rows.tolist())}.npz")
    if cache.is_file() and cache.stat().st_mtime >= path.stat().st_mtime:
        with np.load(cache) as stored:
            ends = np.cumsum(stored["counts"])[:-1]
            parts = {k: np.split(stored[k], ends) for k in ("boxes", "scores", "labels")}
        return [
            dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)
        ]
    found = det.predict(detector, data.images.pixels[rows])
    arrays = {k: np.concatenate([f[k] for f in found]) for k in ("boxes", "scores", "labels")}
    temporary = cache.with_name(f".{cache.name}")
    with temporary.open("wb") as file:
        np.savez(file, counts=[len(f["labels"]) for f in found], **arrays)
    temporary.replace(cache)
    return found


def blind_predictions(
    data: VindrData, train_rows: np.ndarray, n_images: int, *, per_class: int = 3
) -> list[dict[str, np.ndarray]]:
    """What a detector says that knows the training boxes and never looks at the image.

    For each class the centers of a k-means of its training boxes, scored by how many boxes each
    stands for; the same for every image.

    Args:
        data: gives the boxes.
        train_rows: images whose boxes it knows.
        n_images: how many images it is asked about.
        per_class: centers of each class, fewer for a class with fewer boxes.
    """
    boxes, labels = (np.concatenate(x) for x in data.packed_boxes(train_rows))
    centers, names, scores = [], [], []
    for label in np.unique(labels):
        own = boxes[labels == label].astype(float)
        fit = KMeans(min(per_class, len(own)), n_init=5, random_state=0).fit(own)
        centers.append(fit.cluster_centers_)
        names += [label] * len(fit.cluster_centers_)
        scores.append(np.bincount(fit.labels_) / len(train_rows))
    one = {
        "boxes": np.concatenate(centers).astype(np.float32),
        "labels": np.array(names, dtype=np.int64),
        "scores": np.concatenate(scores),
    }
    return [one] * n_images


def handoff_table(settings: Settings, arms: Sequence[str] = ARMS) -> pd.DataFrame:
    """For each arm, how many tensors and numbers of its backbone arrived in a detector."""
    rows = []
    for arm in arms:
        state, sentence = pretraining.arm_state(settings, arm, seed=settings.seed)
        if state is None:
            rows.append({"arm": arm, "tensors": 0, "placed": 0, "source": sentence})
            continue
        blank = det.DetectorSettings(("finding",), arch=settings.pretrain.arch)
        placed = det.place_backbone(det.build_detector(blank, seed=0), state)
        rows.append({"arm": arm, "tensors": len(state), "placed": len(placed), "source": sentence})
    return pd.DataFrame(rows).set_index("arm")
