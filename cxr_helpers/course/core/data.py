"""The two data sets as the notebooks use them: tables, packed images, a split.

What is missing is made: the demo data by data_scripts/make_demo.py, the packed images by reading
every file once. The caches lie in runs/<data>/cache and are named after what is in them. A whole
cache that data_scripts/prepare_nih.py or prepare_vindr.py left in the download is used instead.
"""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_helpers.course.core.machine import usable_cores
from cxr_helpers.course.core.settings import VINDR_TABLES, Settings, SettingsError, fingerprint
from cxr_helpers.course.core.tables import packaged_table
from cxr_helpers.data import consensus, dicom, nih, splits, vindr
from cxr_helpers.data.datasets import CORNERS, Truth, boxes_by_image
from cxr_helpers.data.packed import (
    CacheBusyError,
    CacheError,
    PackedImages,
    pack_images,
    reader_key,
)

PARTS = ("train", "val", "test")
NIH_PARTS = {"train": 0.7, "val": 0.1, "test": 0.2}
NIH_TABLE = "Data_Entry_2017_v2020.csv"  # the version that the README names
EXACT_TABLE = "exact_boxes.csv"  # of the demo's VinDr-like half
TEST_LIST, TRAIN_LIST = "test_list.txt", "train_val_list.txt"
PREPARED = "packed"  # folder in a download in which the scripts leave what they prepared
VINDR_PARTS = {"train": 0.6, "val": 0.1, "test": 0.3}
CHUNK = 512  # images hashed at once


class SplitImages:
    """What images with a split have in common, whatever is known of them.

    Attributes:
        images: the pixels.
        split: (N,) `train`, `val` or `test`.
    """

    images: PackedImages
    split: np.ndarray

    @cached_property
    def digest(self) -> str:
        """Changes with the images and the split, see `data_digest`."""
        return data_digest(self.images, self.split)

    def rows(self, part: str) -> np.ndarray:
        """Row numbers of the images in one part of the split.

        Raises:
            ValueError: there is no such part.
        """
        if part not in PARTS:
            raise ValueError(f"part {part!r} is none of {', '.join(PARTS)}")
        return np.flatnonzero(self.split == part)


@dataclass(frozen=True)
class NihData(SplitImages):
    """NIH ChestX-ray14, one row an image, in the same order everywhere.

    Attributes:
        entries: the table (see `nih.read_entries`).
        images: the pixels.
        split: (N,) `train`, `val` or `test`, by patient.
        split_source: one sentence on where the split came from.
        left_out: sentences on what was not needed and passed over.
    """

    entries: pd.DataFrame
    images: PackedImages
    split: np.ndarray
    split_source: str
    left_out: tuple[str, ...] = field(default=(), kw_only=True)

    @cached_property
    def labels(self) -> np.ndarray:
        """(N, 14) of 0 and 1, columns as `nih.LABELS`."""
        return nih.label_matrix(self.entries).to_numpy()

    @cached_property
    def patients(self) -> np.ndarray:
        """(N,) patient of each image."""
        return self.entries["patient_id"].to_numpy()


@dataclass(frozen=True)
class BoxData(SplitImages):
    """Images with boxes, VinDr-CXR's or others in the same form, in the same order everywhere.

    Attributes:
        readings: what each reader said of each image (see `vindr.Readings`).
        fused: one truth from the readers' boxes, in pixels of the original file.
        exact: what was really drawn, in the same form; None of real radiographs: nobody knows.
        images: the pixels.
        split: (N,) `train`, `val` or `test`.
        class_names: of the classes that boxes have, numbered from 1.
        patients: (N,) patient of each image; its own id where the files name no patient.
        left_out: sentences on what was not needed and passed over.
    """

    readings: vindr.Readings
    fused: pd.DataFrame
    images: PackedImages
    split: np.ndarray
    class_names: tuple[str, ...] = vindr.CLASSES
    patients: np.ndarray | None = None
    left_out: tuple[str, ...] = field(default=(), kw_only=True)
    exact: pd.DataFrame | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Without patients each image counts as one of its own."""
        if self.patients is None:
            object.__setattr__(self, "patients", np.array(self.images.image_ids))

    @cached_property
    def abnormal(self) -> np.ndarray:
        """(N,) whether at least one reader drew a box."""
        return np.isin(self.images.image_ids, self.fused["image_id"].unique())

    def rows(self, part: str, *, abnormal_only: bool = False) -> np.ndarray:
        """Row numbers of the images in one part of the split.

        Raises:
            ValueError: there is no such part.
        """
        rows = super().rows(part)
        return rows[self.abnormal[rows]] if abnormal_only else rows

    def truths(self, rows: Sequence[int], boxes: pd.DataFrame | None = None) -> list[Truth]:
        """What is on the images of these rows: `boxes`, xyxy in packed pixels, `labels` from 1.

        Args:
            rows: of the images.
            boxes: in pixels of the original files; None takes the fused boxes.

        Raises:
            ValueError: a box lies on an image that is not here.
        """
        found = self._fused_truths if boxes is None else self._truths(boxes)
        return [found[row] for row in rows]

    @cached_property
    def _fused_truths(self) -> list[Truth]:
        return self._truths(self.fused)

    def _truths(self, boxes: pd.DataFrame) -> list[Truth]:
        scale = dict(zip(self.images.image_ids, self.images.scale, strict=True))
        factor = boxes["image_id"].map(scale).to_numpy(np.float64)
        if np.isnan(factor).any():
            absent = boxes["image_id"][np.isnan(factor)]
            raise ValueError(
                f"{len(absent)} boxes lie on images that are not here, such as {absent.iloc[0]!r}; "
                f"the images are called such as {self.images.image_ids[0]!r}"
            )
        packed = boxes.assign(**{name: boxes[name] * factor for name in CORNERS})
        return boxes_by_image(packed, self.images.image_ids, self.class_names)


def data_digest(images: PackedImages, split: Sequence[str]) -> str:
    """Sixteen hex digits that change when an image, its name or its part of the split changes.

    Args:
        images: every pixel is read, about a second for each gigabyte.
        split: (N,) part of each image.

    Raises:
        ValueError: images and parts differ in number.
    """
    if len(split) != len(images.image_ids):
        raise ValueError(f"{len(images.image_ids)} images, but a split of {len(split)}")
    digest = hashlib.sha256(json.dumps([list(images.image_ids), list(map(str, split))]).encode())
    for start in range(0, len(images.pixels), CHUNK):
        digest.update(np.ascontiguousarray(images.pixels[start : start + CHUNK]))
    return digest.hexdigest()[:16]


def ensure_demo(settings: Settings) -> None:
    """Make the demo data where it is missing; takes about two minutes.

    Raises:
        SettingsError: the script that makes it failed; the text holds its last words.
    """
    demo = settings.project / "data" / "demo"
    if settings.data == "demo" and not (demo / "demo.json").is_file():
        _run_make_demo(settings, "--out", str(demo))


def load_phantoms(settings: Settings) -> PackedImages:
    """The phantoms that a preset pretrains on, made where they are missing; some 40 a second.

    Raises:
        SettingsError: their seed is that of the demo, so they would hold its test patients; or the
            script that makes them failed.
    """
    preset = settings.pretrain
    stamp = settings.project / "data" / "demo" / "demo.json"
    if stamp.is_file() and json.loads(stamp.read_text(encoding="utf-8"))["seed"] == (
        preset.phantoms_seed
    ):
        raise SettingsError(
            f"phantoms_seed {preset.phantoms_seed} is the seed of {stamp.parent}, whose test "
            "patients nobody may learn from; give another seed"
        )
    root = settings.project / "data" / f"phantoms_{preset.phantoms_seed}"
    asked = {"out": root, "seed": preset.phantoms_seed, "nih": preset.phantoms, "vindr": 0}
    _run_make_demo(settings, *(str(a) for key, v in asked.items() for a in (f"--{key}", v)))
    files = nih.find_images(root / "nih")
    size = preset.cache_size
    return pack_once(settings, root / "nih", f"phantoms_{size}", files, nih.read_image, size)


def _run_make_demo(settings: Settings, *arguments: str) -> None:
    script = settings.project / "data_scripts" / "make_demo.py"
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SettingsError(f"{script.name} failed: {done.stderr.strip()[-500:]}")


def load_nih(settings: Settings) -> NihData:
    """NIH ChestX-ray14 from the download or the demo.

    The table is the download's own, or the one that torchxrayvision ships. The test part is the
    official test list where the download has it, and else a fifth of the patients.

    Raises:
        SettingsError: this data has no NIH folder, none of its images is in the table, or the
            official lists do not fit the images or each other.
    """
    ensure_demo(settings)
    if settings.nih is None:
        raise SettingsError(f"{settings.data} has no NIH ChestX-ray14 folder (images/)")
    files = nih.find_images(settings.nih)
    entries = nih.read_entries(nih_table(settings.nih))
    ordered = listed(files, entries["image_id"])
    check_meet(files, entries["image_id"], settings.nih)
    size = settings.pretrain.cache_size
    images = pack_once(settings, settings.nih, f"nih_{size}", ordered, nih.read_image, size)
    entries = entries.set_index("image_id").loc[images.image_ids].reset_index()
    split, source = _nih_split(settings, entries)
    return NihData(entries, images, split, source, left_out=passed_over(files, ordered, images))


def check_meet(files: Mapping[str, Path], image_ids: Iterable[str], root: Path) -> None:
    """Refuse files and a table that have no image in common.

    Raises:
        SettingsError: with a name of each side.
    """
    ids = set(image_ids)
    if ids.isdisjoint(files):
        raise SettingsError(
            f"none of the {len(files)} images in {root} is in the table: the files are called such "
            f"as {min(files)!r}, and the table says {min(ids)!r}; put the images' own table there"
        )


def passed_over(
    files: Mapping[str, Path], ordered: Mapping[str, Path], images: PackedImages
) -> tuple[str, ...]:
    """Sentences on files without a row in the table, and on those that could not be read."""
    extra, bad = sorted(files.keys() - ordered.keys()), images.unreadable
    told = []
    if extra:
        told.append(f"{len(extra)} images are not in the table, such as {extra[0]}.")
    if bad:
        first = min(bad)
        told.append(f"{len(bad)} images could not be read, such as {first}: {bad[first]}")
    return tuple(told)


def _nih_split(settings: Settings, entries: pd.DataFrame) -> tuple[np.ndarray, str]:
    patients = entries["patient_id"].to_numpy()
    named, source = _official_test(settings.nih, set(entries["image_id"]))
    if not named:
        split = splits.split_by_patient(patients, parts=NIH_PARTS, seed=settings.split_seed)
        return split, "No official list beside the images: split by patient, at random."
    lists = {"test": named, "rest": set(entries["image_id"]) - named}
    split = splits.split_by_lists(entries["image_id"], patients, lists).astype("<U5")
    rest = split == "rest"
    share = NIH_PARTS["val"] / (NIH_PARTS["val"] + NIH_PARTS["train"])
    parts = {"train": 1 - share, "val": share}
    split[rest] = splits.split_by_patient(patients[rest], parts=parts, seed=settings.split_seed)
    return split, f"Test part: {source}. Validation: patients of the other list."


def _official_test(root: Path, ids: set[str]) -> tuple[set[str], str]:
    """The official test images, and where they are named; an empty set where no list is there.

    Raises:
        SettingsError: a list names none of the images or leaves none, or two lists contradict.
    """
    lists = official_lists(root, ids)
    if TEST_LIST in lists:
        named, source = lists[TEST_LIST], f"the images of {TEST_LIST}"
        if absent := len(named - ids):
            source += f" ({absent:,} of its {len(named):,} are not here)"
    elif lists:
        named, source = ids - lists[TRAIN_LIST], f"the images that {TRAIN_LIST} leaves out"
    else:
        return set(), ""
    if not named & ids or ids <= named:
        part = "to test on" if ids - named else "to learn from"
        raise SettingsError(
            f"{root / next(iter(lists))} leaves none of the {len(ids)} images here {part}; unpack "
            "more archives, or move the list elsewhere to draw the test patients at random"
        )
    return named, source


def official_lists(root: Path, ids: set[str]) -> dict[str, set[str]]:
    """The images that the official lists name, by the list's name, as far as these are there.

    Raises:
        SettingsError: a list names none of these images, or an image is in both lists or in neither
            of the two.
    """
    lists = {
        name: _read_list(root / name, ids)
        for name in (TEST_LIST, TRAIN_LIST)
        if (root / name).is_file()
    }
    if len(lists) == 2:
        both, neither = lists[TEST_LIST] & lists[TRAIN_LIST], ids.difference(*lists.values())
        if found := both or neither:
            raise SettingsError(
                f"{len(found)} images are in {'both' if both else 'neither'} of {TEST_LIST} and "
                f"{TRAIN_LIST} in {root}, such as {min(found)!r}; a list is cut or changed: get "
                "both again, or keep the one you mean"
            )
    return lists


def _read_list(path: Path, ids: set[str]) -> set[str]:
    named = set(nih.read_image_list(path))
    folders = sorted(name for name in named if "/" in name or "\\" in name)
    if folders or not named & ids:
        many = f"{len(folders)} images with their folder" if folders else "none of the images here"
        raise SettingsError(
            f"{path} names {many}, such as {(folders or sorted(named))[0]!r}, and the images are "
            f"called such as {min(ids)!r}; give the list of this download, with plain names"
        )
    return named


def load_vindr(settings: Settings) -> BoxData:
    """VinDr-CXR from the download or the demo, with the readers' boxes fused.

    Raises:
        SettingsError: this data has no VinDr-CXR folder.
    """
    ensure_demo(settings)
    if settings.vindr is None:
        raise SettingsError(
            f"{settings.data} has no VinDr-CXR folder (train/ beside train.csv), which detection "
            "needs. Put both downloads below one root, in `nih` and `vindr`."
        )
    readings = vindr.read_readings(vindr_table(settings.vindr))
    files = vindr.find_images(settings.vindr)
    ordered = listed(files, sorted(set(readings.readings["image_id"])))
    check_meet(files, readings.readings["image_id"], settings.vindr)
    size = settings.detect.image_size
    images = pack_once(settings, settings.vindr, f"vindr_{size}", ordered, read_dicom_pixels, size)
    hw = dict(zip(images.image_ids, map(tuple, images.original_hw), strict=True))
    readings = vindr.clip_boxes(readings, hw)
    fused = consensus.fuse_readings(readings.boxes)
    fused = fused[fused["image_id"].isin(images.image_ids)].reset_index(drop=True)
    split = splits.split_by_patient(images.image_ids, parts=VINDR_PARTS, seed=settings.split_seed)
    left_out, exact = passed_over(files, ordered, images), _exact_boxes(settings, images)
    return BoxData(readings, fused, images, split, left_out=left_out, exact=exact)


def _exact_boxes(settings: Settings, images: PackedImages) -> pd.DataFrame | None:
    """The boxes of the demo's phantoms, in pixels of the files."""
    path = settings.vindr / EXACT_TABLE
    if not path.is_file():
        return None
    boxes = pd.read_csv(path).rename(columns={"class_name": "label"}).drop(columns="class_id")
    return boxes[boxes["image_id"].isin(images.image_ids)].reset_index(drop=True)


def read_dicom_pixels(path: Path) -> np.ndarray:
    """The picture in a DICOM file, (H, W) float32 in [0, 1]."""
    return dicom.read_dicom(path).pixels


def nih_table(root: Path) -> Path:
    """The table of an NIH download: its own, or the one that torchxrayvision ships.

    Of several, the version that the README names is taken.

    Raises:
        SettingsError: there are several, and none has that name.
    """
    root = Path(root)
    for name in (NIH_TABLE, f"{NIH_TABLE}.gz"):
        if (root / name).is_file():
            return root / name
    tables = sorted(
        p for ending in ("csv", "csv.gz") for p in root.glob(f"Data_Entry_2017*.{ending}")
    )
    if len(tables) > 1:
        raise SettingsError(
            f"{root} holds {len(tables)} tables of entries: {', '.join(p.name for p in tables)}; "
            f"call the one you mean {NIH_TABLE}, or keep one only"
        )
    return tables[0] if tables else packaged_table("nih_entries")


def vindr_table(root: Path) -> Path:
    """The table of boxes of a VinDr-CXR download.

    Raises:
        SettingsError: there is none.
    """
    root = Path(root)
    for name in VINDR_TABLES:
        if (root / name).is_file():
            return root / name
    raise SettingsError(f"{root} has no table of boxes ({' or '.join(VINDR_TABLES)})")


def listed(files: Mapping[str, Path], image_ids: Iterable[str]) -> dict[str, Path]:
    """The files of these images, in the order of the images; those without a file are left out."""
    return {image_id: files[image_id] for image_id in image_ids if image_id in files}


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file: another root of the same name, or a file that was replaced, differs.

    A file that cannot be asked is one that packing will name.
    """
    try:
        found = path.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def pack_once(
    settings: Settings, root: Path, name: str, files: dict, read, size: int
) -> PackedImages:
    """The packed images: as prepared in the download, or packed into runs/ where they are not.

    Where another process is packing the same images, this one waits for it.
    """
    prepared = root / PREPARED / name
    if prepared.is_dir():
        images = PackedImages.load(prepared)
        if images.size == size and set(files) == {*images.image_ids, *images.unreadable}:
            return images
    stamps = [(image_id, *_stamp(path)) for image_id, path in sorted(files.items())]
    key = fingerprint(stamps, size, settings.data_key, reader_key(read))
    folder = settings.runs / "cache" / f"{name}_{key}"
    options = {"workers": min(8, usable_cores()), "progress": True}
    while True:
        try:
            return PackedImages.load(folder)
        except CacheError:
            with suppress(CacheBusyError):  # a process beside this one, started by torchrun
                return pack_images(files, read, size=size, out=folder, **options)
            time.sleep(1.0)
