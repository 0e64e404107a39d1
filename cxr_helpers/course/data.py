"""The two data sets as the notebooks use them: tables, packed images, a split.

What is missing is made: the demo data by data_scripts/make_demo.py, the packed images by reading
every file once. The caches lie in runs/<data>/cache and are named after what is in them. A whole
cache that data_scripts/prepare_nih.py or prepare_vindr.py left in the download is used instead.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_helpers import consensus, dicom, nih, splits, vindr
from cxr_helpers.course.settings import (
    VINDR_TABLES,
    Settings,
    SettingsError,
    fingerprint,
)
from cxr_helpers.course.tables import packaged_table
from cxr_helpers.datasets import (
    CacheBusyError,
    CacheError,
    PackedImages,
    boxes_by_image,
    pack_images,
)

NIH_PARTS = {"train": 0.7, "val": 0.1, "test": 0.2}
PREPARED = "packed"  # folder in a download in which the scripts leave what they prepared
VINDR_PARTS = {"train": 0.6, "val": 0.1, "test": 0.3}
CHUNK = 512  # images hashed at once


@dataclass(frozen=True)
class NihData:
    """NIH ChestX-ray14, one row an image, in the same order everywhere.

    Attributes:
        entries: the table (see `nih.read_entries`).
        images: the pixels.
        split: (N,) `train`, `val` or `test`, by patient.
        split_source: one sentence on where the split came from.
    """

    entries: pd.DataFrame
    images: PackedImages
    split: np.ndarray
    split_source: str

    @cached_property
    def labels(self) -> np.ndarray:
        """(N, 14) of 0 and 1, columns as `nih.LABELS`."""
        return nih.label_matrix(self.entries).to_numpy()

    @cached_property
    def patients(self) -> np.ndarray:
        """(N,) patient of each image."""
        return self.entries["patient_id"].to_numpy()

    @cached_property
    def digest(self) -> str:
        """Changes with the images and the split, see `data_digest`."""
        return data_digest(self.images, self.split)

    def rows(self, part: str) -> np.ndarray:
        """Row numbers of the images in one part of the split."""
        return np.flatnonzero(self.split == part)


@dataclass(frozen=True)
class VindrData:
    """VinDr-CXR, one row an image, in the same order everywhere.

    Attributes:
        readings: what each reader said of each image (see `vindr.Readings`).
        fused: one truth from the readers' boxes, in pixels of the original file.
        images: the pixels.
        split: (N,) `train`, `val` or `test`, by image: the files name no patient.
    """

    readings: vindr.Readings
    fused: pd.DataFrame
    images: PackedImages
    split: np.ndarray

    @cached_property
    def abnormal(self) -> np.ndarray:
        """(N,) whether at least one reader drew a box."""
        return np.isin(self.images.image_ids, self.fused["image_id"].unique())

    @cached_property
    def digest(self) -> str:
        """Changes with the images and the split, see `data_digest`."""
        return data_digest(self.images, self.split)

    def rows(self, part: str, *, abnormal_only: bool = False) -> np.ndarray:
        """Row numbers of the images in one part of the split."""
        keep = self.split == part
        return np.flatnonzero(keep & self.abnormal if abnormal_only else keep)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that boxes have, numbered from 1."""
        return vindr.CLASSES

    @property
    def patients(self) -> np.ndarray:
        """(N,) patient of each image: its own id, for the files name none."""
        return np.array(self.images.image_ids)

    def packed(self, boxes: pd.DataFrame) -> pd.DataFrame:
        """A table of boxes in pixels of the original files, in packed pixels."""
        scale = dict(zip(self.images.image_ids, self.images.scale, strict=True))
        factor = boxes["image_id"].map(scale).to_numpy(np.float64)
        corners = ["x_min", "y_min", "x_max", "y_max"]
        return boxes.assign(**{name: boxes[name] * factor for name in corners})

    @cached_property
    def packed_fused(self) -> pd.DataFrame:
        """Fused boxes as in `fused`, in packed pixels."""
        return self.packed(self.fused)

    def packed_boxes(self, rows: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Fused boxes of these rows, xyxy in packed pixels, and their classes from 1."""
        names = [self.images.image_ids[row] for row in rows]
        found = boxes_by_image(self.packed_fused, names, self.classes)
        return [boxes for boxes, _ in found], [labels for _, labels in found]


def data_digest(images: PackedImages, split: Sequence[str]) -> str:
    """Sixteen hex digits that change when an image, its name or its part of the split changes.

    Args:
        images: every pixel is read, about a second for each gigabyte.
        split: (N,) part of each image.
    """
    digest = hashlib.sha256(json.dumps([list(images.image_ids), list(map(str, split))]).encode())
    for start in range(0, len(images.pixels), CHUNK):
        digest.update(np.ascontiguousarray(images.pixels[start : start + CHUNK]))
    return digest.hexdigest()[:16]


def ensure_demo(settings: Settings) -> None:
    """Make the demo data where it is missing; takes about a minute.

    Raises:
        SettingsError: the script that makes it failed; the text holds its last words.
    """
    demo = settings.project / "data" / "demo"
    if settings.data != "demo" or (demo / "demo.json").is_file():
        return
    script = settings.project / "data_scripts" / "make_demo.py"
    command = [sys.executable, str(script), "--out", str(demo)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SettingsError(f"{script.name} failed: {done.stderr.strip()[-500:]}")


def load_nih(settings: Settings) -> NihData:
    """NIH ChestX-ray14 from the download or the demo.

    The table is the download's own, or the one that torchxrayvision ships. The test part is the
    official test list where the download has it, and else a fifth of the patients.

    Raises:
        SettingsError: this data has no NIH folder, or none of its images is in the table.
    """
    ensure_demo(settings)
    if settings.nih is None:
        raise SettingsError(f"{settings.data} has no NIH ChestX-ray14 folder (images/)")
    files = nih.find_images(settings.nih)
    entries = nih.read_entries(nih_table(settings.nih))
    ordered = listed(files, entries["image_id"])
    if not ordered:
        raise SettingsError(f"none of the {len(files)} images in {settings.nih} is in the table")
    size = settings.pretrain.cache_size
    images = pack_once(settings, settings.nih, f"nih_{size}", ordered, nih.read_image, size)
    entries = entries.set_index("image_id").loc[images.image_ids].reset_index()
    split, source = _nih_split(settings, entries)
    return NihData(entries, images, split, source)


def _nih_split(settings: Settings, entries: pd.DataFrame) -> tuple[np.ndarray, str]:
    patients = entries["patient_id"].to_numpy()
    official = settings.nih / "test_list.txt"
    if not official.is_file():
        split = splits.split_by_patient(patients, parts=NIH_PARTS, seed=settings.split_seed)
        return split, "No official list beside the images: split by patient, at random."
    named = set(nih.read_image_list(official))
    lists = {"test": named, "rest": set(entries["image_id"]) - named}
    split = splits.split_by_lists(entries["image_id"], patients, lists).astype("<U5")
    rest = split == "rest"
    share = NIH_PARTS["val"] / (NIH_PARTS["val"] + NIH_PARTS["train"])
    parts = {"train": 1 - share, "val": share}
    split[rest] = splits.split_by_patient(patients[rest], parts=parts, seed=settings.split_seed)
    return split, "Test part: the images of test_list.txt. Validation: patients of the other list."


def load_vindr(settings: Settings) -> VindrData:
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
    table = vindr_table(settings.vindr)
    readings = vindr.read_readings(table)
    files = vindr.find_images(settings.vindr)
    ordered = listed(files, sorted(set(readings.readings["image_id"])))
    if not ordered:
        raise SettingsError(f"none of the {len(files)} images in {settings.vindr} is in the table")
    size = settings.detect.image_size
    images = pack_once(settings, settings.vindr, f"vindr_{size}", ordered, read_dicom_pixels, size)
    hw = dict(zip(images.image_ids, map(tuple, images.original_hw), strict=True))
    readings = vindr.read_readings(table, image_hw=hw)  # again, now that the sizes are known
    fused = consensus.fuse_readings(readings.boxes)
    fused = fused[fused["image_id"].isin(images.image_ids)].reset_index(drop=True)
    # No patient is named in the files, so each image counts as a patient of its own.
    split = splits.split_by_patient(images.image_ids, parts=VINDR_PARTS, seed=settings.split_seed)
    return VindrData(readings, fused, images, split)


def read_dicom_pixels(path: Path) -> np.ndarray:
    """The picture in a DICOM file, (H, W) float32 in [0, 1]."""
    return dicom.read_dicom(path).pixels


def nih_table(root: Path) -> Path:
    """The table of an NIH download: its own, or the one that torchxrayvision ships."""
    tables = sorted(root.glob("Data_Entry_2017*.csv"))
    return tables[0] if tables else packaged_table("nih_entries")


def vindr_table(root: Path) -> Path:
    """The table of boxes of a VinDr-CXR download.

    Raises:
        SettingsError: there is none.
    """
    for name in VINDR_TABLES:
        if (root / name).is_file():
            return root / name
    raise SettingsError(f"{root} has no table of boxes ({' or '.join(VINDR_TABLES)})")


def listed(files: Mapping[str, Path], image_ids: Iterable[str]) -> dict[str, Path]:
    """The files of these images, in the order of the images; those without a file are left out."""
    return {image_id: files[image_id] for image_id in image_ids if image_id in files}


def pack_once(
    settings: Settings, root: Path, name: str, files: dict, read, size: int
) -> PackedImages:
    """The packed images: as prepared in the download, or packed into runs/ where they are not.

    Where another process is packing the same images, this one waits for it.
    """
    prepared = root / PREPARED / name
    if prepared.is_dir():
        images = PackedImages.load(prepared)
        if set(files) == {*images.image_ids, *images.unreadable}:
            return images
    key = fingerprint(sorted(files), size, settings.data_key)
    folder = settings.runs / "cache" / f"{name}_{key}"
    options = {"workers": min(8, os.cpu_count() or 1), "progress": True}
    while True:
        try:
            return PackedImages.load(folder)
        except CacheError:
            with suppress(CacheBusyError):  # a process beside this one, started by torchrun
                return pack_images(files, read, size=size, out=folder, **options)
            time.sleep(1.0)
