"""Fine-tuning as notebook 04 runs it: arms, shares of the boxes, cached predictions.

Detectors and their predictions lie in runs/<data>/detect, named after everything they depend on,
and are made where they are missing.
"""

import hashlib
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.course.ch04.training import train_detector
from cxr_helpers.course.core import checkpoints, records
from cxr_helpers.course.core.compute import ONE_PROCESS, Compute, each_once, process_rank
from cxr_helpers.course.core.data import BoxData
from cxr_helpers.course.core.epoch_log import read_log
from cxr_helpers.course.core.files import whole
from cxr_helpers.course.core.settings import RATES, Settings, SettingsError, fingerprint
from cxr_helpers.data import splits
from cxr_helpers.detection import detector as det
from cxr_helpers.detection.anchors import derive_anchors
from cxr_helpers.detection.backbone import DetectorError
from cxr_helpers.detection.prediction import predict

ARMS = pretraining.ARMS
# Settings that no training depends on; of the recipes it is the arm's own that counts.
UNTRAINED = ("fractions", "resamples", "checkpoint_every", "recipes")


def arms_here(settings: Settings) -> tuple[str, str]:
    """The two arms that notebook 04 trains itself, and 05 explains: from scratch, and the best.

    The best is `evening` where its file is there, or else `pretrained`.
    """
    state, _ = pretraining.arm_state(settings, "evening", seed=settings.seed)
    return "random", "pretrained" if state is None else "evening"


def with_recipe(settings: Settings, arm: str) -> Settings:
    """Settings with the learning rate and the backbone's share of it that this arm is trained by.

    Raises:
        SettingsError: the preset has no recipe of this arm, or says how the backbone learns
            without a learning rate.
    """
    preset = settings.detect
    if preset.learning_rate:
        return settings
    if preset.backbone_rate != 1:
        raise SettingsError(
            f"detect.backbone_rate is {preset.backbone_rate}, but the recipe of each arm is taken, "
            "since detect.learning_rate is 0; set both"
        )
    if arm not in preset.recipes:
        known = ", ".join(preset.recipes) or "no arm"
        raise SettingsError(
            f"detect.recipes has {known}, not {arm}; add it there, or set detect.learning_rate"
        )
    rates = {name: preset.recipes[arm][name] for name in RATES}
    return replace(settings, detect=replace(preset, **rates))


def detector_settings(settings: Settings, data: BoxData, arm: str) -> det.DetectorSettings:
    """What to build: the preset, anchors from the training boxes, the arm's normalization.

    A random arm keeps no stage and no running statistics fixed: there is nothing in them yet.
    """
    preset = asdict(settings.detect)
    shared = {f.name: preset[f.name] for f in fields(det.DetectorSettings) if f.name in preset}
    if arm == "random":
        shared |= {"batch_norm": "train", "frozen_stages": 0}
    if arm == "imagenet":
        shared |= {"image_mean": pretraining.IMAGENET_MEAN, "image_std": pretraining.IMAGENET_STD}
    boxes = [one["boxes"] for one in data.truths(data.rows("train", abnormal_only=True))]
    return det.DetectorSettings(
        class_names=data.class_names,
        arch=settings.pretrain.arch,
        anchors=derive_anchors(
            np.concatenate(boxes), every_level=settings.detect.anchors_at_every_level
        ),
        **shared,
    )


def training_rows(
    settings: Settings, data: BoxData, *, fraction: float = 1.0, seed: int = 0
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
    labels, most = [one["labels"] for one in data.truths(rows)], len(data.class_names) + 1
    has = np.array([np.bincount(one, minlength=most)[1:] > 0 for one in labels])
    patients = [data.patients[row] for row in rows]
    shares = sorted({*settings.detect.fractions, fraction})
    return rows[splits.nested_fractions(has, patients, fractions=shares, seed=seed)[fraction]]


def detector_path(
    settings: Settings, data: BoxData, arm: str, *, seed: int, fraction: float = 1.0
) -> Path:
    """Where the detector of an arm lies, made or not."""
    preset = asdict(with_recipe(settings, arm).detect)
    key = fingerprint(
        {name: value for name, value in preset.items() if name not in UNTRAINED},
        _weights_key(settings, arm),
        _data_key(settings, data),
        arm,
        seed,
        # Which images a share holds depends on the larger shares that it lies in.
        fraction if fraction == 1 else (fraction, settings.detect.fractions),
    )
    share = "" if fraction == 1 else f"_{100 * fraction:g}percent"
    return settings.runs / "detect" / f"{arm}{share}_seed{seed}_{key}.safetensors"


def _weights_key(settings: Settings, arm: str) -> object:
    """Changes when the arm's weights do, as far as settings and shipped files tell."""
    if arm == "pretrained":
        return asdict(settings.pretrain)
    path = pretraining.evening_path(settings)
    if arm == "evening" and path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return settings.pretrain.arch


def _data_key(settings: Settings, data: BoxData) -> str:
    """Changes when images, boxes, split or the demo's version change."""
    boxes = data.fused.select_dtypes("number").sum().round(1).to_dict()
    return fingerprint(settings.data_key, data.images.image_ids, data.split.tolist(), boxes)


def _check_backbone(settings: Settings, arm: str, path: Path, seed: int) -> None:
    if arm != "pretrained":
        return
    now = pretraining.backbone_digest(settings, seed=seed)
    then = det.read_detector_settings(path)[1].get("backbone")
    if None not in (now, then) and now != then:
        backbone = pretraining.backbone_path(settings, seed=seed)
        raise DetectorError(
            f"{path} began from a backbone that was pretrained on other images or another split "
            f"than {backbone.name} (digest {then}, now {now}); move it elsewhere to train anew"
        )


def train_or_load_detector(
    settings: Settings,
    data: BoxData,
    arm: str,
    *,
    seed: int = 0,
    fraction: float = 1.0,
    progress: bool = True,
    compute: Compute = ONE_PROCESS,
    resume: str = "auto",
) -> tuple[det.Detector | None, Path | str]:
    """The detector of an arm, trained by its recipe where its file is missing.

    Args:
        settings: give preset and folder.
        data: to train on.
        arm: one of `ARMS`.
        seed: of everything, the backbone's weights or pretraining included.
        fraction: share of the abnormal training images.
        progress: show Lightning's progress bar.
        compute: processes and precision.
        resume: as for `train_detector`.

    Returns:
        The detector and its path; or None and a sentence, where the arm's weights are not to be
        had.

    Raises:
        DetectorError: the detector that is here began from a backbone of other images than the
            pretrained one that is here now.
        SettingsError: as `with_recipe`.
    """
    settings = with_recipe(settings, arm)
    path = detector_path(settings, data, arm, seed=seed, fraction=fraction)
    if path.is_file():
        _check_backbone(settings, arm, path, seed)
        return det.load_detector(path, class_names=data.class_names), path
    state, sentence = pretraining.arm_state(settings, arm, seed=seed)
    if state is None:
        return None, sentence
    detector = det.build_detector(detector_settings(settings, data, arm), state, seed=seed)
    rows = training_rows(settings, data, fraction=fraction, seed=seed)
    detector = train_detector(
        detector,
        settings,
        data,
        rows,
        seed=seed,
        log=path.with_suffix(""),
        validation=data.truths(data.rows("val", abnormal_only=True)),
        progress=progress,
        compute=compute,
        resume=resume,
    )
    if process_rank() == 0:
        notes = {"arm": arm, "seed": seed, "data": settings.data, "images": len(rows)}
        if arm == "pretrained":
            notes["backbone"] = pretraining.backbone_digest(settings, seed=seed)
        record = records.run_record(
            settings, stage="detect", seed=seed, digest=data.digest, compute=compute
        )
        records.write_record(record | notes, path.with_suffix("") / "record.json")
        det.save_detector(detector, path, notes=notes)
        (path.with_suffix("") / checkpoints.NAME).unlink(missing_ok=True)  # the detector stands
    return detector, path


def training_log(path: str | Path) -> pd.DataFrame:
    """The log beside a detector: a row an epoch with the losses."""
    return read_log(path)


def lost_boxes(path: str | Path) -> pd.DataFrame:
    """How many boxes augmentation met and lost while a detector was trained, by class."""
    return pd.read_csv(Path(path).with_suffix("") / "boxes.csv").set_index("class")


def predictions(
    detector: det.Detector, path: str | Path, data: BoxData, rows: np.ndarray
) -> list[dict[str, np.ndarray]]:
    """Detections in these rows, read from the file beside the detector or made.

    Returns:
        One dict for each row: `boxes` in packed pixels, `scores`, `labels`.
    """
    path, rows = Path(path), np.asarray(rows)
    cache = path.with_name(f"{path.stem}_{fingerprint(rows.tolist())}.npz")
    if cache.is_file() and cache.stat().st_mtime >= path.stat().st_mtime:
        with np.load(cache) as stored:
            ends = np.cumsum(stored["counts"])[:-1]
            parts = {k: np.split(stored[k], ends) for k in ("boxes", "scores", "labels")}
        return [
            dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)
        ]
    found = each_once(rows, lambda share: predict(detector, data.images.pixels[share]))
    if process_rank() > 0:
        return found
    arrays = {k: np.concatenate([f[k] for f in found]) for k in ("boxes", "scores", "labels")}
    with whole(cache) as unfinished, unfinished.open("wb") as file:
        np.savez(file, counts=[len(f["labels"]) for f in found], **arrays)
    return found


def blind_predictions(
    data: BoxData, train_rows: np.ndarray, n_images: int, *, per_class: int = 3
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
    known = data.truths(train_rows)
    boxes, labels = (np.concatenate([one[k] for one in known]) for k in ("boxes", "labels"))
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
