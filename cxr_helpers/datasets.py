"""Torch data sets over a table and a reader function, and a packed cache to read from.

The data sets take a table with a column `image_id` and a function from an id to its image. Any
function does; `PackedImages.read` is the fast one. Decoding a PNG or DICOM file costs far more than
a training step needs of it, so each image is decoded once, scaled to fit a square (ratio kept, the
rest black) and written into one memory-mapped array of bytes. An epoch then costs no decoding.

Needs: numpy, pandas, pillow, torch, tqdm.
"""

import gc
import io
import json
import multiprocessing
import os
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import Dataset
from tqdm.auto import tqdm

Reader = Callable[[Path], np.ndarray]
ReadImage = Callable[[str], np.ndarray]

JOURNAL = "journal.jsonl"  # what of an unfinished cache is done
SECONDS_AT_RISK = 2.0  # work that a kill may cost
CHUNK = 16  # files that a worker takes at once


class CacheError(ValueError):
    """A packed cache is damaged, or cannot be made from these files."""


class CacheBusyError(CacheError):
    """Another process is packing into the same folder."""


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

    def __getstate__(self) -> dict:
        """Travel to a loader's worker process as a file's name, not as gigabytes of pixels."""
        state = {field.name: getattr(self, field.name) for field in fields(self)}
        if isinstance(self.pixels, np.memmap):
            state["pixels"] = Path(self.pixels.filename)
        return state

    def __setstate__(self, state: dict) -> None:
        """Open the file again."""
        if isinstance(state["pixels"], Path):
            state = state | {"pixels": np.load(state["pixels"], mmap_mode="r")}
        self.__dict__.update(state)

    @property
    def size(self) -> int:
        """Side of the square in pixels."""
        return self.pixels.shape[1]

    @property
    def scale(self) -> np.ndarray:
        """(N,) packed pixels for each pixel of the original file."""
        return self.size / self.original_hw.max(axis=1)

    @property
    def filled_hw(self) -> np.ndarray:
        """(N, 2) packed pixels that each image is high and wide, rounded as in `fit_square`."""
        return np.maximum(1, np.round(self.original_hw * self.scale[:, None])).astype(int)

    def picture(self, row: int) -> np.ndarray:
        """One image without the black that makes it square: (h, w) uint8, of its `filled_hw`."""
        height, width = self.filled_hw[row]
        return np.asarray(self.pixels[row, :height, :width])

    def rows(self, image_ids: Sequence[str]) -> np.ndarray:
        """Row numbers of these images.

        Raises:
            KeyError: an image is not in the cache; the text names it and how many more.
        """
        absent = [i for i in image_ids if i not in self._row]
        if absent:
            raise KeyError(f"{len(absent)} images are not in the cache, such as {absent[0]!r}")
        return np.array([self._row[i] for i in image_ids], dtype=int)

    def read(self, image_id: str) -> np.ndarray:
        """One image, (size, size) uint8: the reader function of the data sets below.

        Raises:
            KeyError: it is not in the cache; the text says why, where that is known.
        """
        row = self._row.get(image_id)
        if row is None:
            why = self.unreadable.get(image_id, "no file of that name was packed")
            raise KeyError(f"image {image_id!r} is not in the cache: {why}")
        return np.array(self.pixels[row])

    @cached_property
    def _row(self) -> dict[str, int]:
        return {image_id: row for row, image_id in enumerate(self.image_ids)}

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

    A run that was killed goes on where it stopped, as long as files and size are the same, and
    ends in the same bytes. A file that changed meanwhile is read again, with all after it.

    Args:
        files: path of each image id; their order is kept.
        read: path to an (H, W) array, uint8 or float in [0, 1]; a function of a module when
            `workers` is more than 1. An exception of it sets the file aside.
        size: side of the square in pixels.
        out: folder to make; an existing one is replaced once the new one is whole.
        workers: processes that read. With 2 or more, a file that crashes its process is set
            aside too.
        progress: show a progress bar.

    Raises:
        CacheError: there is no file, `size` is not positive, no file could be read, the disk
            cannot be written.
        CacheBusyError: another process is packing into `out`.
    """
    if not files or size < 1:
        raise CacheError(f"nothing to pack into {out}: {len(files)} files at {size} pixels")
    unfinished = out.with_name(f".{out.name}.partial")
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        with _alone(out):
            index = _pack_into(unfinished, files, read, size, workers, progress, out.name)
            if not index["image_ids"]:
                shutil.rmtree(unfinished)
                first, reason = next(iter(index["unreadable"].items()))
                raise CacheError(
                    f"none of {len(files)} files could be read; the first, {first}: {reason}"
                )
            (unfinished / "index.json").write_text(json.dumps(index), encoding="utf-8")
            (unfinished / JOURNAL).unlink()
            shutil.rmtree(out, ignore_errors=True)
            os.replace(unfinished, out)
    except OSError as error:
        raise CacheError(
            f"cannot write {out} ({error.strerror or error}); free space or mend the rights "
            "there, then start again: what is done is kept"
        ) from error
    return PackedImages.load(out)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold a lock beside `out`, which ends with the process however that ends."""
    path = out.with_name(f".{out.name}.lock")
    with path.open("a+b") as stream:
        try:
            if os.name == "nt":
                import msvcrt

                msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                # Not flock: forked workers would inherit that and outlive a killed parent.
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CacheBusyError(f"another process is packing into {out}; wait for it") from error
        try:
            yield
        finally:
            with suppress(OSError):  # Windows removes no open file
                path.unlink()


def drop_stale_lock(out: Path) -> None:
    """Remove the empty file `.NAME.lock` that a run killed at its very end left beside a cache."""
    if out.with_name(f".{out.name}.lock").exists():
        with suppress(CacheError), _alone(out):  # taken and let go, unless it is in use
            pass


def _pack_into(folder, files, read, size, workers, progress, name) -> dict:
    """Append squares to pixels.npy and then, once these are on the disk, lines to the journal."""
    pixels, journal = folder / "pixels.npy", folder / JOURNAL
    done, journal_bytes = _finished(pixels, journal, files, size)
    todo = list(files.items())[len(done) :]
    results = _read_all([p for _, p in todo], partial(_read_square, read=read, size=size), workers)
    bar = _bar(results, len(files), len(done), name, progress)
    with (
        closing(results),
        pixels.open("r+b" if done else "wb") as stream,
        journal.open("r+b" if done else "wb") as lines,
    ):
        stream.write(_npy_header(0, size))
        stream.truncate(stream.seek(_npy_bytes(_n_read(done), size)))
        lines.truncate(lines.seek(journal_bytes))
        if not done:
            lines.write(json.dumps({"size": size}).encode() + b"\n")
        done += _append(stream, lines, zip(todo, bar, strict=True))
        stream.seek(0)
        stream.write(_npy_header(_n_read(done), size))
    return {
        "image_ids": [image_id for image_id, _, hw, _ in done if hw],
        "original_hw": [hw for _, _, hw, _ in done if hw],
        "unreadable": {image_id: reason for image_id, _, hw, reason in done if not hw},
    }


def _append(stream: IO[bytes], lines: IO[bytes], results: Iterable) -> list:
    """Write every result, saving from time to time; return the journal's entries."""
    written, fresh, saved = [], [], time.monotonic()
    for (image_id, _), (square, stamp, hw, reason) in results:
        if square is not None:
            stream.write(square)
        fresh.append((image_id, stamp, hw, reason))
        if time.monotonic() - saved > SECONDS_AT_RISK:
            _save(stream, lines, fresh)
            written, fresh, saved = written + fresh, [], time.monotonic()
    _save(stream, lines, fresh)
    return written + fresh


def _bar(results: Iterable, total: int, initial: int, name: str, progress: bool) -> Iterable:
    return tqdm(
        results,
        total=total,
        initial=initial,
        desc=f"packing {name}",
        unit="image",
        mininterval=0.3 if sys.stderr.isatty() else 15.0,  # seconds; a log gets few lines
        disable=not progress,
    )


def _save(stream: IO[bytes], lines: IO[bytes], entries: list) -> None:
    stream.flush()
    os.fsync(stream.fileno())
    lines.write("".join(json.dumps(entry) + "\n" for entry in entries).encode())
    lines.flush()
    os.fsync(lines.fileno())


def _finished(pixels: Path, journal: Path, files, size: int) -> tuple[list, int]:
    """What an interrupted run leaves to go on from, and how many bytes of its journal stand."""
    try:
        lines = journal.read_bytes().split(b"\n")[:-1]  # a line that was cut has no end
        room = (pixels.stat().st_size - _npy_bytes(0, size)) // size**2
        if not lines or json.loads(lines[0]) != {"size": size}:
            return [], 0
    except (OSError, ValueError):
        return [], 0
    done, n_bytes = [], len(lines[0]) + 1
    for line, (image_id, path) in zip(lines[1:], files.items(), strict=False):
        try:
            entry = json.loads(line)
        except ValueError:
            break
        room -= entry[2] is not None
        if entry[:2] != [image_id, _stamp(path)] or room < 0:
            break
        done.append(entry)
        n_bytes += len(line) + 1
    return (done, n_bytes) if done else ([], 0)


def _stamp(path: Path) -> list[int] | None:
    """Size and time of a file, to see whether it changed."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _n_read(entries: list) -> int:
    return sum(hw is not None for _, _, hw, _ in entries)


def _npy_header(n: int, size: int) -> bytes:
    """Header of an .npy file; as long for any `n`, for numpy leaves room to grow."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (n, size, size)}
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def _npy_bytes(n: int, size: int) -> int:
    return len(_npy_header(n, size)) + n * size**2


def _read_all(paths: list[Path], read_one: Callable, workers: int) -> Iterator:
    """Results in the order of the paths; a crash of a worker costs only the file it crashed on."""
    if workers <= 1:
        yield from map(read_one, paths)
        return
    chunks = deque(paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK))
    running: deque = deque()
    pool = _pool(workers)
    try:
        while chunks or running:
            try:
                while chunks and len(running) < 4 * workers:
                    running.append((chunks[0], pool.submit(_read_chunk, chunks[0], read_one)))
                    chunks.popleft()
                results = running[0][1].result()
            except BrokenProcessPool:
                pool.shutdown()
                chunks.extendleft(chunk for chunk, _ in reversed(running))
                running.clear()
                yield from _read_guarded(chunks.popleft(), read_one)
                pool = _pool(workers)
                continue
            running.popleft()
            yield from results
    finally:
        pool.shutdown(cancel_futures=True)


def _read_guarded(paths: list[Path], read_one: Callable) -> Iterator:
    """Read each file in a process of its own."""
    for path in paths:
        with _pool(1) as pool:
            try:
                result = pool.submit(read_one, path).result()
            except BrokenProcessPool:
                reason = "the process that read it died: its decoder crashed or memory ran out"
                result = None, _stamp(path), None, reason
        yield result


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, initializer=_end_with_parent)


def _end_with_parent() -> None:
    """Make this worker end when its parent was killed, which it would not notice otherwise."""
    gc.freeze()  # a collection would touch, and so copy, all that is shared with the parent

    def wait() -> None:  # for the parent's end
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _read_chunk(paths: list[Path], read_one: Callable) -> list:
    return [read_one(path) for path in paths]


def _read_square(path: Path, *, read: Reader, size: int):
    """Square or None, the file's stamp, [original height, width] or None, reason or None."""
    stamp = _stamp(path)
    try:
        image = read(path)
        return fit_square(image, size), stamp, list(image.shape), None
    except (ValueError, OSError) as error:
        return None, stamp, None, str(error)
    except Exception as error:  # a file must not stop the run
        return None, stamp, None, f"{type(error).__name__}: {error}"


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
    """One image for each row of a table, through a transform (for instance two views of it).

    Args:
        table: with a column `image_id`.
        read: image id to an (H, W) array, such as `PackedImages.read`.
        transform: what `read` returns to whatever training takes; None leaves it as it is.

    Raises:
        ValueError: the table has no column `image_id`, or a row without one.

    >>> dataset = ImageDataset(pd.DataFrame({"image_id": ["a"]}), lambda name: np.eye(2))
    >>> len(dataset), dataset[0].shape
    (1, (2, 2))
    """

    def __init__(self, table: pd.DataFrame, read: ReadImage, transform: Callable | None = None):
        self.image_ids = _image_ids(table)
        self.read, self.transform = read, transform

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int):
        image = self.read(self.image_ids[index])
        return image if self.transform is None else self.transform(image)


class LabeledImageDataset(ImageDataset):
    """The same with the row's labels: (what the transform returns, float32 (K,) of 0 and 1).

    Args:
        table: with a column `image_id` and one of 0 and 1 for each label.
        read: image id to an (H, W) array.
        labels: the K columns, in order.
        transform: as for `ImageDataset`.

    Raises:
        ValueError: a column is missing, or holds something else than 0 and 1.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        read: ReadImage,
        transform: Callable | None = None,
        *,
        labels: Sequence[str],
    ):
        super().__init__(table, read, transform)
        absent = [name for name in labels if name not in table]
        if absent or not len(labels):
            raise ValueError(f"the table has no column {', '.join(absent) or 'named'}; give labels")
        values = table[list(labels)].to_numpy()
        if not np.isin(values, [0, 1]).all():
            row, column = np.argwhere(~np.isin(values, [0, 1]))[0]
            raise ValueError(
                f"{labels[column]} of {self.image_ids[row]!r} is {values[row, column]}; "
                "expected 0 or 1"
            )
        self.labels = torch.from_numpy(values.astype(np.float32))

    def __getitem__(self, index: int) -> tuple:
        return super().__getitem__(index), self.labels[index]


class DetectionDataset(Dataset):
    """Images with boxes, in the form that torchvision's detectors take.

    Args:
        table: with a column `image_id`; an image without a box is a normal one.
        read: image id to an (H, W) uint8 array.
        boxes: `image_id`, `label` and `x_min`, `y_min`, `x_max`, `y_max` in pixels of what `read`
            returns; those of other images are left out.
        classes: the labels, numbered from 1; 0 is background.
        transform: called as `transform(image=..., bboxes=..., labels=...)` with a uint8 image and
            returning a dict of the same (the form of an albumentations pipeline), or None.

    Raises:
        ValueError: a column is missing, or a box has a label that is none of the classes.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        read: ReadImage,
        transform: Callable | None = None,
        *,
        boxes: pd.DataFrame,
        classes: Sequence[str],
    ):
        self.image_ids = _image_ids(table)
        self.read, self.transform = read, transform
        self.targets = boxes_by_image(boxes, self.image_ids, classes)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Image (3, H, W) float32 in [0, 1], gray repeated, and its target."""
        image = self.read(self.image_ids[index])
        boxes, labels = self.targets[index]
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


def boxes_by_image(
    boxes: pd.DataFrame, image_ids: Sequence[str], classes: Sequence[str]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each image its boxes, float32 (n, 4) xyxy, and their classes, int64 (n,) from 1.

    Args:
        boxes: `image_id`, `label`, `x_min`, `y_min`, `x_max`, `y_max`, in any one unit.
        image_ids: the images, in order.
        classes: the labels, in the order of their numbers.

    Raises:
        ValueError: a column is missing, or a label is none of the classes.

    >>> corners = {"x_min": [1.0], "y_min": [2.0], "x_max": [3.0], "y_max": [4.0]}
    >>> table = pd.DataFrame({"image_id": ["a"], "label": ["ILD"], **corners})
    >>> [(b.tolist(), c.tolist()) for b, c in boxes_by_image(table, ["b", "a"], ["Edema", "ILD"])]
    [([], []), ([[1.0, 2.0, 3.0, 4.0]], [2])]
    """
    corners = ["x_min", "y_min", "x_max", "y_max"]
    absent = [name for name in ("image_id", "label", *corners) if name not in boxes]
    if absent:
        raise ValueError(f"the table of boxes has no column {', '.join(absent)}")
    number = {name: k for k, name in enumerate(classes, start=1)}
    unknown = set(boxes["label"]) - set(number)
    if unknown:
        raise ValueError(
            f"label {min(unknown)!r} is none of the classes {', '.join(classes)}; a detector "
            "would leave its boxes out"
        )
    labels = boxes["label"].map(number).to_numpy(np.int64)
    xyxy = boxes[corners].to_numpy(np.float32)
    rows_of = boxes.groupby("image_id").indices
    none = np.zeros(0, dtype=np.int64)
    return [(xyxy[rows], labels[rows]) for rows in (rows_of.get(i, none) for i in image_ids)]


def _image_ids(table: pd.DataFrame) -> list[str]:
    if "image_id" not in table or table["image_id"].isna().any():
        raise ValueError(
            f"expected a column image_id without gaps, among the columns {', '.join(table)}"
        )
    return table["image_id"].tolist()
