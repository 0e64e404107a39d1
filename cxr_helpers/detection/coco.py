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

From cxr-helpers 0.1.0 (MIT license).
Needs: numpy, torch, torchmetrics, torchvision, faster-coco-eval.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
        CocoError: lengths differ, a shape is wrong, a label has no name, two classes have one, a
            number is not finite, a box ends before it begins, the scale is not above 0, or no
            image has a truth box.

    >>> box = {"boxes": [[0, 0, 10, 10]], "labels": [1]}
    >>> coco_scores([box | {"scores": [0.9]}], [box], class_names=["mass"]).mean("ap40")
    1.0
    """
    if not 0 < scale < np.inf:
        raise CocoError(
            f"scale is {scale}; give a factor above 0, 1 to leave the boxes as they are"
        )
    class_names = _different_names(class_names)
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
    checked = [_checked(one, n_classes, f"image {i}", keys) for i, one in enumerate(boxes)]
    tensors = [{key: torch.from_numpy(one[key]) for key in keys} for one in checked]
    return [one | {"boxes": one["boxes"] * scale} for one in tensors]


def _different_names(class_names: Sequence[str]) -> tuple[str, ...]:
    names = tuple(class_names)
    if isinstance(class_names, str) or len(set(names)) < len(names):
        raise CocoError(f"class_names must be a list of different names, not {class_names!r}")
    return names


def _checked(
    one: Mapping, n_classes: float, where: str, keys: Sequence[str]
) -> dict[str, np.ndarray]:
    """Boxes (n, 4) float64, labels (n,) int64 and scores (n,) float64 of one image."""
    absent = [key for key in keys if key not in one]
    if absent:
        raise CocoError(f"{where} lacks {', '.join(absent)}; it has {', '.join(map(str, one))}")
    arrays = {key: _as_float(one[key], f"{where}: {key}") for key in keys}
    if not arrays["labels"].size and not arrays["boxes"].size:
        arrays["boxes"] = arrays["boxes"].reshape(0, 4)
    shapes, n = {key: array.shape for key, array in arrays.items()}, arrays["labels"].size
    expected = {key: (n, 4) if key == "boxes" else (n,) for key in keys}
    if shapes != expected:
        raise CocoError(f"{where} has the shapes {shapes}; expected {expected}")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise CocoError(f"{where} holds a value that is not finite")
    labels, boxes = arrays["labels"], arrays["boxes"]
    if ((labels < 1) | (labels > n_classes) | (labels % 1 != 0)).any():
        expected = f"1 to {n_classes}" if n_classes < np.inf else "whole numbers from 1"
        told = ", ".join(f"{label:g}" for label in labels)
        raise CocoError(f"{where} has labels [{told}]; expected {expected}")
    turned = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    if turned.any():
        raise CocoError(
            f"{where} has box {boxes[turned][0].tolist()}; expected x_min, y_min, x_max, y_max"
        )
    return arrays | {"labels": labels.astype(np.int64)}


def _as_float(values: object, where: str) -> np.ndarray:
    if torch.is_tensor(values):
        values = values.detach().cpu().numpy()
    array = np.asarray(values) if np.size(values) else np.zeros(np.shape(values))
    if array.dtype.kind not in "uif":
        raise CocoError(f"{where} holds {array.ravel()[0]!r}; expected numbers")
    return array.astype(np.float64)


@dataclass(frozen=True)
class CocoTruth:
    """What an annotation file holds.

    Attributes:
        image_ids: names or numbers of the images. Those of a file that `write_coco` wrote come
            back as they went in. In another file they are the files' names without folder, and
            without suffix where that is one of `SUFFIXES`: a DICOM UID has dots and no suffix.
        image_hw: (N, 2) height and width in pixels.
        boxes: for each image `boxes` (m, 4) float64 xyxy and `labels` (m,) int64 from 1.
        class_names: of the classes 1, 2, ...
    """

    image_ids: tuple[str | int, ...]
    image_hw: np.ndarray
    boxes: list[dict[str, np.ndarray]]
    class_names: tuple[str, ...]


def write_coco(path: str | os.PathLike[str], truth: CocoTruth, *, suffix: str = "") -> Path:
    """Write an annotation file, whole or not at all.

    Each image keeps its id as `image_id` beside `file_name`, so that `read_coco` gives it back.

    Args:
        path: file to write; its folder is made.
        truth: what to write. Images without a box are written too: they are the normal ones.
        suffix: of the image files, such as `.png`; an id that ends with it is a file name already.

    Raises:
        CocoError: ids repeat, boxes do not fit their images, or there are not as many of each.
    """
    if suffix and not suffix.startswith("."):
        raise CocoError(f"suffix {suffix!r} has no dot; write .{suffix}")
    ids, sizes = _plain_ids(truth.image_ids), list(truth.image_hw)
    _check_counts(image_ids=ids, image_hw=sizes, boxes=truth.boxes)
    names = _different_names(truth.class_names)
    images, annotations, paired = [], [], zip(ids, sizes, truth.boxes, strict=True)
    for number, (name, hw, one) in enumerate(paired, start=1):
        one = _checked(one, len(names), f"image {name!r}", ("boxes", "labels"))
        hw = [_size(side, f"image {name!r}") for side in np.asarray(hw).tolist()]
        _check_inside(one["boxes"], hw, f"image {name!r}")
        annotations += [
            {"id": len(annotations) + k, "image_id": number, "category_id": int(label), **box}
            for k, (box, label) in enumerate(_as_coco(one), start=1)
        ]
        file = str(name) if str(name).lower().endswith(suffix.lower()) else f"{name}{suffix}"
        size = {"height": hw[0], "width": hw[1]}
        images.append({"id": number, "file_name": file, "image_id": name, **size})
    _check_unique("", "images", file_name=[image["file_name"] for image in images])
    categories = [{"id": k, "name": str(name)} for k, name in enumerate(names, start=1)]
    return _write_json(
        path, {"images": images, "annotations": annotations, "categories": categories}
    )


def _plain_ids(image_ids: Sequence) -> list[str | int]:
    """Ids as JSON holds them: text and whole numbers, those of numpy and pandas too."""
    if isinstance(image_ids, str):
        raise CocoError(f"image_ids must be a list, not the text {image_ids!r}")
    ids = [one.item() if isinstance(one, np.generic) else one for one in image_ids]
    for one in ids:
        if not isinstance(one, (str, int)) or isinstance(one, bool):
            raise CocoError(f"image id {one!r} is neither text nor a whole number")
    if len(set(ids)) < len(ids):
        raise CocoError(f"image id {Counter(ids).most_common(1)[0][0]!r} occurs twice")
    return ids


def _check_counts(**columns: Sequence) -> None:
    counts = {name: len(values) for name, values in columns.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise CocoError(f"{told}; give one of each for each image")


def _check_unique(where: str, kind: str, **columns: Sequence) -> None:
    for what, values in columns.items():
        found, times = max(Counter(values).items(), key=lambda pair: pair[1], default=("", 0))
        if times > 1:
            raise CocoError(
                f"{where}{times} {kind} have the {what} {found}, and each needs its own; change "
                "all but one"
            )


def read_coco(
    path: str | os.PathLike[str], *, class_names: Sequence[str] | None = None
) -> CocoTruth:
    """Read an annotation file whose classes are the expected ones, by name.

    The file's numbers are mapped to the places of the names in `class_names`: a file may count
    from 0, or in another order. Its numbers of images and classes are not kept. What
    `write_coco_results` writes can therefore not be scored by COCO's tools against this file, but
    against one that `write_coco` makes of what was read.

    Args:
        path: the file.
        class_names: the classes that the caller numbers 1, 2, ...; None takes those of the file,
            by ascending id.

    Raises:
        FileNotFoundError: there is no such file.
        CocoError: the file is no such file, has a class that is not expected or lacks one that
            is, has a crowd, a value that is no number, or a box outside its image; or two images
            or classes have one id or one name. A class that differs by a letter is refused: left
            out, it would be missing from the truth without a word.
    """
    content = _read_json(path)
    kinds = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in kinds):
        raise CocoError(
            f"{path} is no COCO annotation file; it needs images, annotations and categories, "
            "each a list"
        )
    images = _entries(content, "images", ("id", "file_name", "height", "width"), path)
    image_ids = [_image_id(entry) for entry in images]
    _check_unique(f"{path}: ", "images", id=[entry["id"] for entry in images], name=image_ids)
    number, names = _class_numbers(content, class_names, path)
    boxes = {entry["id"]: ([], []) for entry in images}
    for where, entry in _annotations(content, path):
        if entry["image_id"] not in boxes or entry["category_id"] not in number:
            raise CocoError(
                f"{where} names no image or class of the file: image_id {entry['image_id']!r}, "
                f"category_id {entry['category_id']!r}"
            )
        x, y, width, height = _bbox(entry["bbox"], where)
        boxes[entry["image_id"]][0].append([x, y, x + width, y + height])
        boxes[entry["image_id"]][1].append(number[entry["category_id"]])
    truth = [_as_arrays(*boxes[entry["id"]]) for entry in images]
    hw = [[_size(e[side], f"{path}: image {n!r}") for side in ("height", "width")]
          for e, n in zip(images, image_ids, strict=True)]  # fmt: skip
    for name, size, one in zip(image_ids, hw, truth, strict=True):
        _check_inside(one["boxes"], size, f"{path}: image {name!r}")
    sizes = np.array(hw, dtype=int).reshape(-1, 2)
    return CocoTruth(tuple(image_ids), sizes, truth, names)


def _entries(content: dict, kind: str, needed: Sequence[str], path) -> list[dict]:
    """The list under a key, each entry with what is needed; ids are text or numbers."""
    for place, entry in enumerate(content[kind]):
        number = entry.get("id") if isinstance(entry, dict) else None
        where = f"{path}: {kind[:-1]} {f'at place {place}' if number is None else number}"
        absent = sorted(set(needed) - entry.keys()) if isinstance(entry, dict) else needed
        if absent:
            raise CocoError(f"{where} lacks {', '.join(absent)}; is it a COCO annotation file?")
        for key in needed:
            whole = isinstance(entry[key], float) and entry[key].is_integer()
            if key.endswith("id") and not isinstance(entry[key], (str, int)) and not whole:
                raise CocoError(f"{where} has {key} {entry[key]!r}; expected a whole number")
    return content[kind]


def _class_numbers(content: dict, class_names: Sequence[str] | None, path):
    """Number of each category id, and the names in that order."""
    entries = _entries(content, "categories", ("id", "name"), path)
    there = [entry["name"] for entry in entries]
    _check_unique(f"{path}: ", "classes", id=[e["id"] for e in entries], name=map(str, there))
    if class_names is None:
        by_id = sorted(entries, key=lambda e: (isinstance(e["id"], str), e["id"]))
        class_names = [entry["name"] for entry in by_id]
    names = _different_names(class_names)
    if set(there) != set(names):
        raise CocoError(
            f"{path} has other classes: {sorted(set(there) - set(names))} are not expected and "
            f"{sorted(set(names) - set(there))} are missing; rename them in the file, or give the "
            "names that the file has"
        )
    return {entry["id"]: names.index(entry["name"]) + 1 for entry in entries}, names


def _annotations(content: dict, path) -> Iterator[tuple[str, dict]]:
    entries = _entries(content, "annotations", ("image_id", "category_id", "bbox"), path)
    for place, entry in enumerate(entries):
        where = f"{path}: annotation {entry.get('id', f'at place {place}')}"
        if entry.get("iscrowd") not in (None, 0):
            raise CocoError(f"{where} has iscrowd {entry['iscrowd']!r}: a crowd, not one finding")
        yield where, entry


def _bbox(values: object, where: str) -> list[float]:
    good = isinstance(values, list) and len(values) == 4 and all(map(_is_number, values))
    if not good:
        raise CocoError(f"{where} has bbox {values!r}; expected four numbers x, y, width, height")
    return values


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value)


def _size(value: object, where: str) -> int:
    if not _is_number(value) or value < 1 or value != int(value):
        raise CocoError(f"{where} has a height or width of {value!r}; expected pixels, 1 or more")
    return int(value)


def _image_id(entry: dict) -> str | int:
    own = entry.get("image_id")  # as write_coco keeps it; void where the file was renamed
    if isinstance(own, (str, int)) and str(entry["file_name"]).startswith(str(own)):
        return own
    path = Path(str(entry["file_name"]).replace("\\", "/"))
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def write_coco_results(
    path: str | os.PathLike[str], image_ids: Sequence[str], predictions: Boxes
) -> Path:
    """Write detections in COCO's results format, for images numbered as in `write_coco`.

    Images and classes are numbered from 1 in the order given here. COCO's tools score the file
    rightly only against one that `write_coco` wrote from the same images and classes: against
    another file, numbered otherwise, they may give a wrong figure without a word.

    Raises:
        CocoError: the boxes have wrong shapes, a label is below 1, a box ends before it begins,
            ids repeat, or there are not as many predictions as ids.
    """
    ids = _plain_ids(image_ids)
    _check_counts(image_ids=ids, predictions=predictions)
    rows = []
    for number, (name, one) in enumerate(zip(ids, predictions, strict=True), start=1):
        one = _checked(one, np.inf, f"image {name!r}", ("boxes", "labels", "scores"))
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
            below 1, as files do that count from 0, has a value that is no number, or a box ends
            before it begins.
    """
    rows, needed = _read_json(path), ("image_id", "category_id", "bbox", "score")
    if not isinstance(rows, list):
        raise CocoError(f"{path} is no COCO results file, which is a list of detections")
    found: list = [([], [], []) for _ in range(n_images)]
    for place, row in enumerate(_entries({"results": rows}, "results", needed, path)):
        where, image = f"{path}: result at place {place}", row["image_id"]
        if not _is_number(image) or image not in range(1, n_images + 1):
            raise CocoError(f"{path} has image {image!r}; there are 1 to {n_images}")
        if not _is_number(row["score"]) or not _is_number(row["category_id"]):
            told = f"score {row['score']!r} and category_id {row['category_id']!r}"
            raise CocoError(f"{where} has {told}; expected numbers")
        x, y, width, height = _bbox(row["bbox"], where)
        boxes, labels, scores = found[int(image) - 1]
        boxes.append([x, y, x + width, y + height])
        labels.append(row["category_id"])
        scores.append(row["score"])
    keys = ("boxes", "labels", "scores")
    return [
        _checked(dict(zip(keys, one, strict=True)), np.inf, f"{path}: image {number}", keys)
        for number, one in enumerate(found, start=1)
    ]


def _as_coco(one: Mapping[str, np.ndarray]) -> list[tuple[dict, int]]:
    boxes = one["boxes"]
    sides = boxes[:, 2:] - boxes[:, :2]
    return [
        ({"bbox": [*box[:2].tolist(), *side.tolist()], "area": float(side.prod()), "iscrowd": 0}, c)
        for box, side, c in zip(boxes, sides, one["labels"], strict=True)
    ]


def _as_arrays(boxes: list, labels: list) -> dict[str, np.ndarray]:
    return {
        "boxes": np.array(boxes, dtype=float).reshape(-1, 4),
        "labels": np.array(labels, dtype=np.int64),
    }


def _check_inside(boxes: np.ndarray, hw: Sequence[int], where: str) -> None:
    height, width = hw
    good = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & (boxes[:, :2] >= 0).all(axis=1)
    good &= (boxes[:, 2:] <= np.array([width, height]) + 0.5).all(axis=1)  # rounding in the file
    if not good.all():
        raise CocoError(
            f"{where}, {height} x {width} pixels, has a box {boxes[~good][0].tolist()} "
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
        text = Path(path).read_text(encoding="utf-8-sig")  # without the mark that some tools set
        return json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CocoError(f"{path} is no JSON: {error}") from error
