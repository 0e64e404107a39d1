"""COCO's own average precision through torchmetrics, and COCO's JSON in and out.

One pass gives what three communities quote: mAP50, Kaggle's mAP at IoU 0.4, and COCO's mean over
IoU 0.5 to 0.95; per class, and for small, medium and large boxes. The files are those that other
frameworks train from and report to.

Boxes here are xyxy in pixels, classes are numbered from 1 and 0 is background. In the files boxes
are x, y, width, height, as COCO has them.

Sources: Lin et al., Microsoft COCO, https://arxiv.org/abs/1405.0312; the format of the files,
https://cocodataset.org/#format-data. Kaggle's VinBigData counts by VOC's rules of 2010, which
integrate the precision at every recall instead of at 101 points: its figure at 0.4 differs a
little from the one given here.

Needs: numpy, torch, torchmetrics, torchvision, faster-coco-eval.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torchmetrics.detection import MeanAveragePrecision

KAGGLE = 0.4
THRESHOLDS = (KAGGLE, *(0.5 + 0.05 * np.arange(10)).round(2).tolist())
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
AREAS = ("all", "small", "medium", "large")
SMALL_SIDE, LARGE_SIDE = 32, 96  # pixels; COCO's limits are the areas of such squares
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".dcm", ".dicm", ".dicom")
COLUMNS = ("ap50", "ap40", "ap50_95", *(f"ap50_{area}" for area in AREAS[1:]))

Boxes = Sequence[Mapping[str, object]]


class CocoError(ValueError):
    """Boxes or a file cannot be used; the text names what, and the remedy."""


@dataclass(frozen=True)
class CocoScores:
    """Average precision as COCO computes it.

    Attributes:
        per_class: class name to its scores by the names in `COLUMNS`; NaN where the truth has no
            box of that size. Classes without any truth box are not in it.
        absent: names of the classes that no truth box has; they are not averaged in.
    """

    per_class: dict[str, dict[str, float]]
    absent: tuple[str, ...]

    def mean(self, column: str = "ap50") -> float:
        """Mean over the classes that the truth holds, such as mAP50 for `ap50`; or NaN."""
        values = np.array([scores[column] for scores in self.per_class.values()])
        known = values[~np.isnan(values)]
        return float(known.mean()) if len(known) else float("nan")


def coco_scores(
    predictions: Boxes, truths: Boxes, *, class_names: Sequence[str], scale: float = 1.0
) -> CocoScores:
    """Average precision through torchmetrics, computed by faster-coco-eval.

    Args:
        predictions: for each image `boxes` (n, 4), `scores` (n,), `labels` (n,) from 1. Of each
            image and class the 100 highest count.
        truths: for each image, in the same order, `boxes` (m, 4) and `labels` (m,).
        class_names: names of the classes 1, 2, ...
        scale: by which all boxes are multiplied before they are called small (area under 32 x 32
            pixels) or large (over 96 x 96). Nothing else depends on it.

    Raises:
        CocoError: lengths differ, a shape is wrong, a label has no name, a number is not finite,
            a box ends before it begins, the scale is not above 0, or no image has a truth box.

    >>> box = {"boxes": [[0, 0, 10, 10]], "labels": [1]}
    >>> coco_scores([box | {"scores": [0.9]}], [box], class_names=["mass"]).mean("ap40")
    1.0
    """
    if not 0 < scale < np.inf:
        raise CocoError(
            f"scale is {scale}; give a factor above 0, 1 to leave the boxes as they are"
        )
    metric = MeanAveragePrecision(
        iou_type="bbox",
        iou_thresholds=list(THRESHOLDS),
        rec_thresholds=RECALL_POINTS.tolist(),  # float64 as in COCO; torchmetrics' own are float32
        extended_summary=True,
        backend="faster_coco_eval",
    )
    metric.warn_on_many_detections = False
    true = _tensors(truths, len(class_names), scale, ("boxes", "labels"))
    found = _tensors(predictions, len(class_names), scale, ("boxes", "labels", "scores"))
    if len(found) != len(true):
        raise CocoError(f"{len(found)} predictions for {len(true)} truths; give one for each")
    present = {int(label) for one in true for label in one["labels"]}
    if not present:
        raise CocoError("no image has a truth box, so there is no average precision")
    metric.update(found, true)
    result = metric.compute()
    # (threshold, recall, class, area, most detections); -1 where the truth has no such box
    precision = result["precision"][..., -1].numpy()
    ap = np.where(precision > -1, precision, np.nan).mean(axis=1)
    classes = np.atleast_1d(result["classes"].numpy())
    per_class = {
        class_names[label - 1]: _scores(ap[:, k])
        for k, label in enumerate(classes)
        if label in present
    }
    absent = tuple(name for name in class_names if name not in per_class)
    return CocoScores(per_class, absent)


def _scores(ap: np.ndarray) -> dict[str, float]:
    """(threshold, area) average precision of one class by the names in `COLUMNS`."""
    values = (ap[1, 0], ap[0, 0], ap[1:, 0].mean(), *ap[1, 1:])
    return dict(zip(COLUMNS, map(float, values), strict=True))


def _tensors(boxes: Boxes, n_classes: int, scale: float, keys: Sequence[str]) -> list[dict]:
    checked = []
    for i, one in enumerate(boxes):
        _check_boxes(one, n_classes, f"image {i}", keys)
        tensors = {key: torch.as_tensor(np.asarray(one[key])) for key in keys}
        tensors["boxes"] = tensors["boxes"].double().reshape(-1, 4) * scale
        tensors["labels"] = tensors["labels"].long().reshape(-1)
        checked.append(tensors)
    return checked


def _check_boxes(one: Mapping, n_classes: float, where: str, keys: Sequence[str]) -> None:
    absent = [key for key in keys if key not in one]
    if absent:
        raise CocoError(f"{where} lacks {', '.join(absent)}; it has {', '.join(sorted(one))}")
    shapes = {key: np.shape(one[key]) for key in keys}
    n = len(one["labels"])
    expected = {key: (n, 4) if key == "boxes" else (n,) for key in keys}
    if n and shapes != expected or not n and np.size(one["boxes"]):
        raise CocoError(f"{where} has the shapes {shapes}; expected {expected}")
    if not all(np.isfinite(np.asarray(one[key], dtype=float)).all() for key in keys):
        raise CocoError(f"{where} holds a value that is not finite")
    labels = np.asarray(one["labels"])
    if n and not (labels.min() >= 1 and labels.max() <= n_classes):
        raise CocoError(f"{where} has labels {labels.tolist()}; expected 1 to {n_classes}")
    boxes = np.asarray(one["boxes"], dtype=float).reshape(-1, 4)
    turned = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    if turned.any():
        raise CocoError(
            f"{where} has box {boxes[turned][0].tolist()}; expected x_min, y_min, x_max, y_max"
        )


@dataclass(frozen=True)
class CocoTruth:
    """What an annotation file holds.

    Attributes:
        image_ids: names of the images, which are the files' names without folder, and without
            suffix where that is one of `SUFFIXES`: a DICOM UID has dots and no suffix.
        image_hw: (N, 2) height and width in pixels.
        boxes: for each image `boxes` (m, 4) float64 xyxy and `labels` (m,) int64 from 1.
        class_names: of the classes 1, 2, ...
    """

    image_ids: tuple[str, ...]
    image_hw: np.ndarray
    boxes: list[dict[str, np.ndarray]]
    class_names: tuple[str, ...]


def write_coco(path: str | os.PathLike[str], truth: CocoTruth, *, suffix: str = "") -> Path:
    """Write an annotation file, whole or not at all.

    Args:
        path: file to write; its folder is made.
        truth: what to write. Images without a box are written too: they are the normal ones.
        suffix: of the image files, such as `.png`.

    Raises:
        CocoError: ids repeat, or boxes do not fit their images.
    """
    if len(set(truth.image_ids)) < len(truth.image_ids):
        raise CocoError("an image id occurs twice; COCO counts each image once")
    annotations = []
    for number, (name, hw, one) in enumerate(
        zip(truth.image_ids, truth.image_hw, truth.boxes, strict=True), start=1
    ):
        _check_boxes(one, len(truth.class_names), f"image {name!r}", ("boxes", "labels"))
        _check_inside(one["boxes"], hw, name)
        annotations += [
            {"id": len(annotations) + k, "image_id": number, "category_id": int(label), **box}
            for k, (box, label) in enumerate(_as_coco(one), start=1)
        ]
    images = [
        {"id": k, "file_name": f"{name}{suffix}", "height": int(height), "width": int(width)}
        for k, (name, (height, width)) in enumerate(
            zip(truth.image_ids, truth.image_hw, strict=True), start=1
        )
    ]
    categories = [{"id": k, "name": name} for k, name in enumerate(truth.class_names, start=1)]
    return _write_json(
        path, {"images": images, "annotations": annotations, "categories": categories}
    )


def read_coco(path: str | os.PathLike[str], *, class_names: Sequence[str]) -> CocoTruth:
    """Read an annotation file whose classes are the expected ones, by name.

    The file's numbers are mapped to the places of the names in `class_names`: a file may count
    from 0, or in another order. Its numbers of images and classes are not kept. What
    `write_coco_results` writes can therefore not be scored by COCO's tools against this file, but
    against one that `write_coco` makes of what was read.

    Args:
        path: the file.
        class_names: the classes that the caller numbers 1, 2, ...

    Raises:
        FileNotFoundError: there is no such file.
        CocoError: the file is no such file, has a class that is not expected or lacks one that
            is, has a crowd, or a box outside its image; or two images have one id or one name. A
            class that differs by a letter is refused: left out, it would be missing from the
            truth without a word.
    """
    content = _read_json(path)
    try:
        names = {entry["id"]: entry["name"] for entry in content["categories"]}
        images = {e["id"]: (e["file_name"], e["height"], e["width"]) for e in content["images"]}
        annotations = content["annotations"]
    except (KeyError, TypeError) as error:
        raise CocoError(
            f"{path} is no COCO annotation file ({error!r}); it needs images, annotations and "
            "categories"
        ) from error
    image_ids = tuple(_image_id(entry["file_name"]) for entry in content["images"])
    for what, values in (("id", [e["id"] for e in content["images"]]), ("name", image_ids)):
        found, times = np.unique(values, return_counts=True)
        if (times > 1).any():
            raise CocoError(
                f"{path}: {times.max()} images have the {what} {found[times.argmax()]}, and each "
                "needs its own; change one in the file"
            )
    if set(names.values()) != set(class_names) or len(names) != len(class_names):
        there, expected = set(names.values()), set(class_names)
        raise CocoError(
            f"{path} has other classes: {sorted(there - expected)} are not expected and "
            f"{sorted(expected - there)} are missing; rename them in the file, or give the names "
            "that the file has"
        )
    number = {key: class_names.index(name) + 1 for key, name in names.items()}
    boxes = {key: ([], []) for key in images}
    for k, entry in enumerate(annotations):
        where = f"{path}: annotation {entry.get('id', f'at place {k}')}"
        absent = {"image_id", "category_id", "bbox"} - entry.keys()
        if absent:
            raise CocoError(f"{where} lacks {', '.join(sorted(absent))}")
        if entry.get("iscrowd"):
            raise CocoError(f"{where} is a crowd, not one finding")
        if entry["image_id"] not in images or entry["category_id"] not in number:
            raise CocoError(f"{where} names no image or class of the file")
        if len(entry["bbox"]) != 4:
            raise CocoError(f"{where} has bbox {entry['bbox']}; expected x, y, width, height")
        x, y, width, height = entry["bbox"]
        boxes[entry["image_id"]][0].append([x, y, x + width, y + height])
        boxes[entry["image_id"]][1].append(number[entry["category_id"]])
    truth = [_as_arrays(*boxes[key]) for key in images]
    for (name, *hw), one in zip(images.values(), truth, strict=True):
        _check_inside(one["boxes"], hw, name)
    hw = np.array([hw for _, *hw in images.values()], dtype=int).reshape(-1, 2)
    return CocoTruth(image_ids, hw, truth, tuple(class_names))


def _image_id(file_name: str) -> str:
    path = Path(file_name)
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def write_coco_results(
    path: str | os.PathLike[str], image_ids: Sequence[str], predictions: Boxes
) -> Path:
    """Write detections in COCO's results format, for images numbered as in `write_coco`.

    Images and classes are numbered from 1 in the order given here. COCO's tools score the file
    rightly only against one that `write_coco` wrote from the same images and classes: against
    another file, numbered otherwise, they may give a wrong figure without a word.

    Raises:
        CocoError: the boxes have wrong shapes, a label is below 1, or a box ends before it begins.
    """
    rows = []
    for number, (name, one) in enumerate(zip(image_ids, predictions, strict=True), start=1):
        _check_boxes(one, np.inf, f"image {name!r}", ("boxes", "labels", "scores"))
        rows += [
            {"image_id": number, "category_id": int(label), "bbox": box["bbox"], "score": float(s)}
            for (box, label), s in zip(_as_coco(one), one["scores"], strict=True)
        ]
    return _write_json(path, rows)


def read_coco_results(
    path: str | os.PathLike[str], *, n_images: int
) -> list[dict[str, np.ndarray]]:
    """Read detections written by `write_coco_results`, one dict for each of `n_images` images.

    Raises:
        FileNotFoundError: there is no such file.
        CocoError: the file is no results file, names an image outside 1 to `n_images` or a class
            below 1, as files do that count from 0, or a box ends before it begins.
    """
    found: list = [([], [], []) for _ in range(n_images)]
    try:
        for row in _read_json(path):
            if not 1 <= row["image_id"] <= n_images:
                raise CocoError(f"{path} has image {row['image_id']}; there are 1 to {n_images}")
            x, y, width, height = row["bbox"]
            boxes, labels, scores = found[row["image_id"] - 1]
            boxes.append([x, y, x + width, y + height])
            labels.append(row["category_id"])
            scores.append(row["score"])
    except (KeyError, TypeError) as error:
        raise CocoError(f"{path} is no COCO results file: {error!r}") from error
    read = [_as_arrays(b, c) | {"scores": np.array(s, dtype=float)} for b, c, s in found]
    for number, one in enumerate(read, start=1):
        _check_boxes(one, np.inf, f"{path}: image {number}", ("boxes", "labels", "scores"))
    return read


def _as_coco(one: Mapping) -> list[tuple[dict, int]]:
    boxes = np.asarray(one["boxes"], dtype=float).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    return [
        ({"bbox": [*box[:2].tolist(), *side.tolist()], "area": float(side.prod()), "iscrowd": 0}, c)
        for box, side, c in zip(boxes, sides, np.asarray(one["labels"]).reshape(-1), strict=True)
    ]


def _as_arrays(boxes: list, labels: list) -> dict[str, np.ndarray]:
    return {
        "boxes": np.array(boxes, dtype=float).reshape(-1, 4),
        "labels": np.array(labels, dtype=np.int64),
    }


def _check_inside(boxes_xyxy: np.ndarray, hw: Sequence[int], name: str) -> None:
    boxes = np.asarray(boxes_xyxy, dtype=float).reshape(-1, 4)
    height, width = hw
    good = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & (boxes[:, :2] >= 0).all(axis=1)
    good &= (boxes[:, 2:] <= np.array([width, height]) + 0.5).all(axis=1)  # rounding in the file
    if not good.all():
        raise CocoError(
            f"image {name!r}, {height} x {width} pixels, has a box {boxes[~good][0].tolist()} "
            "that is empty or outside; clip it or leave it out"
        )


def _write_json(path: str | os.PathLike[str], content: object) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(content), encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _read_json(path: str | os.PathLike[str]):
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CocoError(f"{path} is no JSON ({error}); write or download it again") from error
