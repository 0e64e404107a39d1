"""COCO's JSON in and out: the files that other frameworks train from and report to.

Boxes here are xyxy in pixels, classes are numbered from 1 and 0 is background. In the files boxes
are x, y, width, height, as COCO has them.

Source: the format of the files, https://cocodataset.org/#format-data.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy.
Goes with: boxes.py.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .boxes import Boxes, checked_image, different_names

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".dcm", ".dicm", ".dicom")


class CocoError(ValueError):
    """A file cannot be read or written; the text names what, and the remedy."""


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
        ValueError: boxes or labels are none, as `boxes.checked_image` says.
        CocoError: ids repeat, boxes do not fit their images, or there are not as many of each.

    >>> import tempfile
    >>> boxes = [{"boxes": [[0, 0, 9, 9]], "labels": [1]}]
    >>> truth = CocoTruth(("1.2.840",), np.array([[64, 64]]), boxes, ("mass",))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     read_coco(write_coco(f"{folder}/truth.json", truth, suffix=".png")).image_ids
    ('1.2.840',)
    """
    if suffix and not suffix.startswith("."):
        raise CocoError(f"suffix {suffix!r} has no dot; write .{suffix}")
    ids, sizes = _plain_ids(truth.image_ids), list(truth.image_hw)
    _check_counts(image_ids=ids, image_hw=sizes, boxes=truth.boxes)
    names = different_names(truth.class_names)
    images, annotations, paired = [], [], zip(ids, sizes, truth.boxes, strict=True)
    for number, (name, hw, one) in enumerate(paired, start=1):
        one = checked_image(one, f"image {name!r}", n_classes=len(names))
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

    >>> import tempfile
    >>> boxes = [{"boxes": [[0, 0, 9, 9]], "labels": [1]}]
    >>> truth = CocoTruth(("a",), np.array([[64, 64]]), boxes, ("mass",))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     read = read_coco(write_coco(f"{folder}/truth.json", truth), class_names=["mass"])
    >>> read.boxes[0]["boxes"].tolist(), read.class_names
    ([[0.0, 0.0, 9.0, 9.0]], ('mass',))
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
    truth, sizes = [], []
    for entry, name in zip(images, image_ids, strict=True):
        corners, labels = boxes[entry["id"]]
        where, own = f"{path}: image {name!r}", np.array(corners, dtype=float).reshape(-1, 4)
        sizes.append([_size(entry[side], where) for side in ("height", "width")])
        _check_inside(own, sizes[-1], where)
        truth.append({"boxes": own, "labels": np.array(labels, dtype=np.int64)})
    return CocoTruth(tuple(image_ids), np.array(sizes, dtype=int).reshape(-1, 2), truth, names)


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
    names = different_names(class_names)
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
        ValueError: boxes, labels or scores are none, as `boxes.checked_image` says.
        CocoError: ids repeat, or there are not as many predictions as ids.

    >>> import tempfile
    >>> found = {"boxes": [[2, 3, 9, 9]], "labels": [1], "scores": [0.5]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_coco_results(f"{folder}/found.json", ["a"], [found]).read_text()
    '[{"image_id": 1, "category_id": 1, "bbox": [2.0, 3.0, 7.0, 6.0], "score": 0.5}]'
    """
    ids = _plain_ids(image_ids)
    _check_counts(image_ids=ids, predictions=predictions)
    rows: list[dict] = []
    for number, (name, one) in enumerate(zip(ids, predictions, strict=True), start=1):
        one = checked_image(one, f"image {name!r}", scores=True)
        rows += [
            {"image_id": number, "category_id": int(label), "bbox": box["bbox"], "score": float(s)}
            for (box, label), s in zip(_as_coco(one), one["scores"], strict=True)
        ]
    return _write_json(path, rows)


def _as_coco(one: Mapping[str, np.ndarray]) -> list[tuple[dict, int]]:
    boxes = one["boxes"]
    sides = boxes[:, 2:] - boxes[:, :2]
    return [
        ({"bbox": [*box[:2].tolist(), *side.tolist()], "area": float(side.prod()), "iscrowd": 0}, c)
        for box, side, c in zip(boxes, sides, one["labels"], strict=True)
    ]


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
