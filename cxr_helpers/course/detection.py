"""Fine-tuning as notebook 04 runs it, and what notebook 05 needs of it.

Detectors and their predictions lie in runs/<data>/detect, named after everything they depend on,
and are made where they are missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger
from sklearn.cluster import KMeans
from torch.utils.data import DataLoader

from cxr_helpers import cam, detection_metrics, heatmaps, vindr
from cxr_helpers import detector as det
from cxr_helpers.course import pretraining
from cxr_helpers.course.data import VindrData
from cxr_helpers.course.quiet import quiet_lightning
from cxr_helpers.course.settings import Settings, fingerprint
from cxr_helpers.datasets import DetectionDataset
from cxr_helpers.detection_pipelines import detection_pipeline

ARMS = pretraining.ARMS
MEASURES = {
    "pointing_game": heatmaps.pointing_game,
    "energy_in_box": heatmaps.energy_in_box,
    "iou": heatmaps.iou_at,
}


def detector_settings(settings: Settings, data: VindrData, arm: str) -> det.DetectorSettings:
    """What to build: the preset, anchors from the training boxes, the arm's normalization."""
    preset = settings.detect
    boxes, _ = data.packed_boxes(data.rows("train", abnormal_only=True))
    norm = {}
    if arm == "imagenet":
        norm = {"image_mean": pretraining.IMAGENET_MEAN, "image_std": pretraining.IMAGENET_STD}
    return det.DetectorSettings(
        classes=vindr.CLASSES,
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
        batch_norm=preset.norm,
        frozen_stages=preset.frozen_stages,
        **norm,
    )


def detector_path(settings: Settings, data: VindrData, arm: str, *, seed: int) -> Path:
    """Where the detector of an arm lies, made or not."""
    key = fingerprint(
        asdict(settings.detect),
        asdict(settings.pretrain) if arm == "pretrained" else settings.pretrain.arch,
        _data_key(settings, data),
        arm,
        seed,
    )
    return settings.runs / "detect" / f"{arm}_seed{seed}_{key}.safetensors"


def _data_key(settings: Settings, data: VindrData) -> str:
    """Changes when images, boxes, split or the demo's version change."""
    stamp = settings.project / "data" / "demo" / "demo.json"
    version = stamp.read_text(encoding="utf-8") if settings.data == "demo" else ""
    boxes = data.fused.select_dtypes("number").sum().round(1).to_dict()
    return fingerprint(settings.data, version, data.images.image_ids, data.split.tolist(), boxes)


def truths(data: VindrData, rows: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Fused boxes of these rows in the form that `detection_metrics` takes, packed pixels."""
    boxes, labels = data.packed_boxes(rows)
    return [{"boxes": b, "labels": c} for b, c in zip(boxes, labels, strict=True)]


class _KeepBest(Callback):
    """Keeps the weights of the epoch with the best validation mAP50."""

    def __init__(self, settings: Settings, data: VindrData):
        self.settings, self.rows = settings, data.rows("val", abnormal_only=True)
        self.pixels, self.truths = data.images.pixels[self.rows], truths(data, self.rows)
        self.best, self.state = -1.0, None

    def on_train_epoch_end(self, trainer: pl.Trainer, module: det.DetectorModule) -> None:
        found = det.predict(module.detector, self.pixels)
        matches = detection_metrics.match_detections(found, self.truths, class_names=vindr.CLASSES)
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
    table = pd.DataFrame({"image_id": [data.images.image_ids[row] for row in rows]})
    pipeline = detection_pipeline(preset.pipeline, seed=seed)
    dataset = DetectionDataset(
        table, data.images.read, pipeline, boxes=data.packed_fused, classes=vindr.CLASSES
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
            max_epochs=preset.epochs,
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
    return detector.cpu().eval()


def train_or_load_detector(
    settings: Settings, data: VindrData, arm: str, *, seed: int = 0, progress: bool = True
) -> tuple[det.Detector | None, Path | str]:
    """The detector of an arm, trained where its file is missing.

    Returns:
        The detector and its path; or None and a sentence, where the arm's weights are not to be
        had.
    """
    path = detector_path(settings, data, arm, seed=seed)
    if path.is_file():
        return det.load_detector(path, classes=vindr.CLASSES), path
    state, sentence = pretraining.arm_state(settings, arm, seed=settings.seed)
    if state is None:
        return None, sentence
    log = path.with_suffix("")
    detector = train_detector(settings, data, arm, state, seed=seed, log=log, progress=progress)
    det.save_detector(detector, path, notes={"arm": arm, "seed": seed, "data": settings.data})
    return detector, path


def training_log(path: Path) -> pd.DataFrame:
    """The log beside a detector: a row an epoch with the losses."""
    return pd.read_csv(path.with_suffix("") / "metrics.csv")


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
        blank = det.DetectorSettings(vindr.CLASSES, arch=settings.pretrain.arch)
        placed = det.place_backbone(det.build_detector(blank, seed=0), state)
        rows.append({"arm": arm, "tensors": len(state), "placed": len(placed), "source": sentence})
    return pd.DataFrame(rows).set_index("arm")


@dataclass(frozen=True)
class ExplainedBox:
    """A detection to explain, and the readers' boxes of its class in that image.

    Attributes:
        row: of the image.
        label: class from 1.
        score: of the detection.
        box: (4,) xyxy in packed pixels.
        readers: (n, 4) fused boxes of the class, packed pixels.
    """

    row: int
    label: int
    score: float
    box: np.ndarray
    readers: np.ndarray


def explained_boxes(
    data: VindrData,
    rows: np.ndarray,
    found: Sequence[Mapping[str, np.ndarray]],
    *,
    threshold: float,
    max_images: int,
) -> list[ExplainedBox]:
    """In each image the best detection of each class that the readers saw there, if any.

    Args:
        data: gives the truth.
        rows: images.
        found: detections in each of them.
        threshold: least score.
        max_images: the first so many rows are used.
    """
    chosen = []
    pairs = list(zip(rows, truths(data, rows), found, strict=True))[:max_images]
    for row, truth, one in pairs:
        for label in np.unique(truth["labels"]):
            candidates = np.flatnonzero((one["labels"] == label) & (one["scores"] >= threshold))
            if len(candidates):
                best = candidates[one["scores"][candidates].argmax()]
                readers = truth["boxes"][truth["labels"] == label]
                score = float(one["scores"][best])
                chosen.append(
                    ExplainedBox(int(row), int(label), score, one["boxes"][best], readers)
                )
    return chosen


def shared_boxes(
    first: Sequence[ExplainedBox], second: Sequence[ExplainedBox]
) -> list[ExplainedBox]:
    """Findings that two detectors both placed (IoU of at least 0.5 with a reader's box).

    Returns:
        The less sure of the two detections for each finding, the surest first.
    """
    placed = []
    for boxes in (first, second):
        right = [b for b in boxes if detection_metrics.box_iou([b.box], b.readers).max() >= 0.5]
        placed.append({(b.row, b.label): b for b in right})
    both = [
        min(placed[0][key], placed[1][key], key=lambda b: b.score)
        for key in placed[0].keys() & placed[1].keys()
    ]
    return sorted(both, key=lambda b: (-b.score, b.row, b.label))


def heatmap_of(
    detector: det.Detector, image: np.ndarray, item: ExplainedBox, *, layer: str
) -> np.ndarray:
    """The fast Ablation-CAM of one box, scaled to [0, 1] and to the image's size."""
    ablation = cam.ablate_box(
        detector, det.gray_to_tensor(image), item.box, item.label, layer=layer
    )
    return heatmaps.normalize_map(heatmaps.resize_map(ablation.heatmap, image.shape))


def score_heatmaps(
    detector: det.Detector, data: VindrData, items: Sequence[ExplainedBox], *, layer: str
) -> pd.DataFrame:
    """Scores of the detector's maps and of maps that need no network, against readers' boxes.

    Returns:
        A row for each explained box and map: `row`, `label`, `map` (`ablation`, `centered bell`
        or `detected box`) and the three measures.
    """
    shape = (data.images.size, data.images.size)
    bell = heatmaps.centered_gaussian(shape)
    scored = []
    for item in items:
        image = np.asarray(data.images.pixels[item.row])
        maps = {
            "ablation": heatmap_of(detector, image, item, layer=layer),
            "centered bell": bell,
            "detected box": heatmaps.box_mask(item.box[None], shape).astype(float),
        }
        for name, heatmap in maps.items():
            values = {measure: score(heatmap, item.readers) for measure, score in MEASURES.items()}
            scored.append({"row": item.row, "label": item.label, "map": name, **values})
    return pd.DataFrame(scored, columns=["row", "label", "map", *MEASURES])


def mean_score(
    scores: pd.DataFrame, measure: str, *, resamples: int, seed: int
) -> detection_metrics.Interval:
    """Mean over explained boxes, with an interval over images.

    Args:
        scores: rows of one map of `score_heatmaps`.
        measure: column to average.
        resamples: of images.
        seed: of the resamples.
    """
    by_image = scores.groupby("row")[measure].agg(["sum", "count"]).to_numpy(float)
    return detection_metrics.bootstrap(
        lambda weights: (weights @ by_image[:, 0]) / np.maximum(weights @ by_image[:, 1], 1),
        len(by_image),
        resamples=resamples,
        seed=seed,
    )


def score_table(scores: Mapping[str, pd.DataFrame], *, resamples: int, seed: int) -> pd.DataFrame:
    """Means with intervals: each arm's maps, and the baselines on the pretrained arm's boxes.

    Returns:
        Columns measure, map, value, low, high.
    """
    lines = {arm: table[table["map"] == "ablation"] for arm, table in scores.items()}
    reference = scores["pretrained"]
    for name in ("centered bell", "detected box"):
        lines[name] = reference[reference["map"] == name]
    rows = [
        {
            "measure": measure.replace("_", " "),
            "map": name,
            **mean_score(table, measure, resamples=resamples, seed=seed).as_dict(),
        }
        for measure in MEASURES
        for name, table in lines.items()
    ]
    return pd.DataFrame(rows)


def score_summary(table: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """The table of `score_table` as nested dicts: measure, map, and value, low, high."""
    summary: dict = {measure: {} for measure in MEASURES}
    for row in table.to_dict("records"):
        interval = {key: row[key] for key in ("value", "low", "high")}
        summary[row["measure"].replace(" ", "_")][row["map"]] = interval
    return summary


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation of two maps; 0 where one is constant."""
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def randomization_check(
    detector: det.Detector,
    data: VindrData,
    items: Sequence[ExplainedBox],
    parts: Sequence[Sequence[str]],
    *,
    layer: str,
    seed: int,
) -> pd.DataFrame:
    """Correlation of each box's map with its map after parts of the detector were randomized.

    Returns:
        A row for each box, a column for each entry of `parts`.
    """
    copies = {", ".join(p): cam.randomized_copy(detector, p, seed=seed) for p in parts}
    rows = []
    for item in items:
        image = np.asarray(data.images.pixels[item.row])
        trained = heatmap_of(detector, image, item, layer=layer)
        rows.append(
            {
                name: correlation(trained, heatmap_of(changed, image, item, layer=layer))
                for name, changed in copies.items()
            }
        )
    return pd.DataFrame(rows)
