"""A packed cache of radiographs and torch data sets that read from it.

Decoding a PNG or DICOM file costs far more than a training step needs of it. So each image is
decoded once, scaled to fit a square (ratio kept, the rest black) and written into one
memory-mapped array of bytes. An epoch then costs no decoding.

Needs: numpy, pillow, torch, tqdm.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from tqdm.auto import tqdm

Reader = Callable[[Path], np.ndarray]


class CacheError(ValueError):
    """A packed cache is damaged, or cannot be made from these files."""


@dataclass(frozen=True)
class PackedImages:
    """Radiographs of one size, in one memory-mapped array.

    Attributes:
        pixels: (N, size, size) uint8, gray; each image in its upper left corner, the rest 0.
        image_ids: N ids, in the order of `pixels`.
        original_hw: (N, 2) height and width of each file in pixels.
        unreadable: reason for each file that could not be read and is not in `pixels`.
    """

    pixels: np.ndarray
    image_ids: list[str]
    original_hw: np.ndarray
    unreadable: dict[str, str]

    @property
    def size(self) -> int:
        """Side of the square in pixels."""
        return self.pixels.shape[1]

    @property
    def scale(self) -> np.ndarray:
        """(N,) packed pixels for each pixel of the original file."""
        return self.size / self.original_hw.max(axis=1)

    def rows(self, image_ids: Sequence[str]) -> np.ndarray:
        """Row numbers of these images.

        Raises:
            KeyError: an image is not in the cache; the text names it and how many more.
        """
        row = {image_id: i for i, image_id in enumerate(self.image_ids)}
        absent = [i for i in image_ids if i not in row]
        if absent:
            raise KeyError(f"{len(absent)} images are not in the cache, such as {absent[0]!r}")
        return np.array([row[i] for i in image_ids], dtype=int)

    @classmethod
    def load(cls, folder: Path) -> "PackedImages":
        """Open a cache written by `pack_images`, without reading its pixels.

        Raises:
            CacheError: the folder holds no whole cache; the text says what to delete.
        """
        try:
            index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            pixels = np.load(folder / "pixels.npy", mmap_mode="r")
            hw = np.array(index["original_hw"], dtype=int).reshape(-1, 2)
            packed = cls(pixels, index["image_ids"], hw, index["unreadable"])
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise CacheError(f"{folder} is no packed cache ({error}); delete it") from error
        if not len(pixels) == len(packed.image_ids) == len(hw):
            raise CacheError(f"{folder}: pixels and index differ in length; delete the folder")
        return packed


def pack_images(
    files: Mapping[str, Path],
    read: Reader,
    *,
    size: int,
    out: Path,
    workers: int = 1,
    progress: bool = False,
) -> PackedImages:
    """Read every file once and write the packed cache.

    Args:
        files: path of each image id; their order is kept.
        read: path to an (H, W) array, uint8 or float in [0, 1]; a function of a module when
            `workers` is more than 1. A `ValueError` or `OSError` of it sets the file aside.
        size: side of the square in pixels.
        out: folder to make; an existing one is replaced once the new one is whole.
        workers: processes that read.
        progress: show a progress bar.

    Raises:
        CacheError: there is no file, `size` is not positive, or no file could be read.
    """
    if not files or size < 1:
        raise CacheError(f"nothing to pack into {out}: {len(files)} files at {size} pixels")
    partial_out = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial_out, ignore_errors=True)
    partial_out.mkdir(parents=True)
    raw = partial_out / "pixels.raw"
    with raw.open("wb") as stream:
        index = _pack_into(stream, files, read, size, workers, progress, out.name)
    n_read = len(index["image_ids"])
    if not n_read:
        first = next(iter(index["unreadable"].items()))
        shutil.rmtree(partial_out)
        raise CacheError(
            f"none of {len(files)} files could be read; the first, {first[0]}: {first[1]}"
        )
    _raw_to_npy(raw, partial_out / "pixels.npy", (n_read, size, size))
    (partial_out / "index.json").write_text(json.dumps(index), encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    os.replace(partial_out, out)
    return PackedImages.load(out)


def _pack_into(stream, files, read, size, workers, progress, name) -> dict:
    index = {"image_ids": [], "original_hw": [], "unreadable": {}}
    results = _read_all(list(files.values()), partial(_read_square, read=read, size=size), workers)
    bar = tqdm(
        results, total=len(files), desc=f"packing {name}", unit="image", disable=not progress
    )
    for image_id, (square, hw, reason) in zip(files, bar, strict=True):
        if square is None:
            index["unreadable"][image_id] = reason
            continue
        stream.write(square.tobytes())
        index["image_ids"].append(image_id)
        index["original_hw"].append(hw)
    return index


def _read_all(paths: list[Path], read_one: Callable, workers: int) -> Iterator:
    if workers <= 1:
        yield from map(read_one, paths)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(read_one, paths, chunksize=16)


def _read_square(path: Path, *, read: Reader, size: int):
    """(square, original height and width, None), or (None, None, reason)."""
    try:
        image = read(path)
        return fit_square(image, size), image.shape, None
    except (ValueError, OSError) as error:
        return None, None, str(error)


def _raw_to_npy(raw: Path, npy: Path, shape: tuple[int, ...]) -> None:
    """Put an .npy header before raw bytes, in pieces, so that memory stays small."""
    with npy.open("wb") as target, raw.open("rb") as source:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(target, header)
        shutil.copyfileobj(source, target, 2**20)
    raw.unlink()


def fit_square(image: np.ndarray, size: int) -> np.ndarray:
    """Scale an image so that its longer side is `size`, and fill up with black.

    Args:
        image: (H, W) uint8, or float in [0, 1].
        size: side of the square in pixels.

    Returns:
        (size, size) uint8.

    Raises:
        ValueError: the image is not (H, W), is empty, or holds floats outside [0, 1].

    >>> fit_square(np.full((2, 4), 255, np.uint8), 4).tolist()[1:3]
    [[255, 255, 255, 255], [0, 0, 0, 0]]
    """
    if image.ndim != 2 or 0 in image.shape:
        raise ValueError(f"expected one gray image (height, width), got shape {image.shape}")
    if image.dtype != np.uint8:
        if not np.isfinite(image).all() or image.min() < 0 or image.max() > 1:
            raise ValueError(f"a {image.dtype} image must hold finite values in [0, 1]")
        image = image.astype(np.float32) * 255
    height, width = image.shape
    scale = size / max(height, width)
    new_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(Image.fromarray(image).resize(new_wh, Image.Resampling.BILINEAR))
    square = np.zeros((size, size), np.uint8)
    square[: new_wh[1], : new_wh[0]] = np.round(small).clip(0, 255)
    return square


class ImageDataset(Dataset):
    """Images of a packed cache, each through a transform (for instance two views of it).

    Args:
        packed: the cache.
        rows: row numbers to use, in order.
        transform: (size, size) uint8 array to whatever training takes.
    """

    def __init__(self, packed: PackedImages, rows: Sequence[int], transform: Callable):
        self.packed, self.rows, self.transform = packed, np.asarray(rows), transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int):
        return self.transform(np.array(self.packed.pixels[self.rows[index]]))


class DetectionDataset(Dataset):
    """Images with boxes, in the form that torchvision's detectors take.

    Args:
        packed: the cache.
        rows: row numbers to use, in order.
        boxes: for each row an (n, 4) array, xyxy in packed pixels.
        labels: for each row an (n,) array of classes from 1; 0 is background.
        transform: called as `transform(image=..., bboxes=..., labels=...)` with a uint8 image and
            returning a dict of the same (the form of an albumentations pipeline), or None.
    """

    def __init__(self, packed, rows, boxes, labels, transform: Callable | None = None):
        if not len(rows) == len(boxes) == len(labels):
            raise ValueError(
                f"{len(rows)} rows, {len(boxes)} boxes and {len(labels)} labels differ"
            )
        self.packed, self.rows, self.transform = packed, np.asarray(rows), transform
        self.boxes = [np.asarray(b, np.float32).reshape(-1, 4) for b in boxes]
        self.labels = [np.asarray(c, np.int64).reshape(-1) for c in labels]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Image (3, size, size) float32 in [0, 1], gray repeated, and its target."""
        image = np.array(self.packed.pixels[self.rows[index]])
        boxes, labels = self.boxes[index], self.labels[index]
        if self.transform is not None:
            changed = self.transform(image=image, bboxes=boxes, labels=labels)
            image, boxes, labels = changed["image"], changed["bboxes"], changed["labels"]
        target = {
            "boxes": torch.as_tensor(np.asarray(boxes, np.float32).reshape(-1, 4)),
            "labels": torch.as_tensor(np.asarray(labels, np.int64).reshape(-1)),
            "image_id": torch.tensor(index),
        }
        gray = torch.from_numpy(np.ascontiguousarray(image)).float() / 255
        return gray.expand(3, -1, -1), target
