"""Torch data sets over a table and a reader function, and a packed cache to read from.

The data sets take a table with a column `image_id` and a function from an id to its image. Any
function does; `PackedImages.read` is the fast one. Decoding a PNG or DICOM file costs far more than
a training step needs of it, so each image is decoded once, scaled to fit a square (ratio kept, the
rest black) and written into one memory-mapped array of bytes. An epoch then costs no decoding.

From cxr-helpers 0.1.0 (MIT license).
Needs: numpy, pandas, pillow, torch, tqdm.
"""

import errno
import gc
import io
import json
import multiprocessing
import os
import pickle
import re
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
from numbers import Integral
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

INDEX, PIXELS = "index.json", "pixels.npy"  # all that is in a whole cache
INDEX_STARTS = b'{"image_ids"'
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
        image_ids = image_ids.tolist() if hasattr(image_ids, "tolist") else list(image_ids)
        absent = [i for i in image_ids if str(i) not in self._row]
        if absent:
            raise KeyError(
                f"{len(absent)} images are not in the cache, such as {absent[0]!r}; {self._sample}"
            )
        return np.array([self._row[str(i)] for i in image_ids], dtype=int)

    def read(self, image_id: str) -> np.ndarray:
        """One image, (size, size) uint8: the reader function of the data sets below.

        Raises:
            KeyError: it is not in the cache; the text says why, where that is known.
        """
        row = self._row.get(str(image_id))
        if row is None:
            unknown = f"no file of that name was packed; {self._sample}"
            why = self.unreadable.get(str(image_id), unknown)
            raise KeyError(f"image {image_id!r} is not in the cache: {why}")
        return np.array(self.pixels[row])

    @property
    def _sample(self) -> str:
        return f"its ids are such as {self.image_ids[0]!r}" if self.image_ids else "it is empty"

    @cached_property
    def _row(self) -> dict[str, int]:
        return {image_id: row for row, image_id in enumerate(self.image_ids)}

    @classmethod
    def load(cls, folder: str | Path) -> "PackedImages":
        """Open a cache written by `pack_images`, without reading its pixels.

        Raises:
            CacheError: the folder holds no whole cache. Only of one that `pack_images` wrote the
                text says that it may be deleted.
        """
        folder = Path(folder)
        try:
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            pixels = np.load(folder / PIXELS, mmap_mode="r")
            hw = np.array(index["original_hw"], dtype=int).reshape(-1, 2)
            packed = cls(pixels, index["image_ids"], hw, index["unreadable"])
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or len(set(pixels.shape[1:])) != 1:
                raise ValueError(f"{PIXELS} holds {pixels.dtype} of shape {pixels.shape}")
            if not len(pixels) == len(packed.image_ids) == len(hw):
                raise ValueError("pixels and index differ in length")
            if (hw < 1).any() or len(set(packed.image_ids)) < len(hw):
                raise ValueError("the index has an image without a size, or one twice")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _no_cache(folder, f"no file {Path(error.filename).name}") from error
        except OSError as error:
            raise CacheError(f"{folder} cannot be read ({error.strerror or error})") from error
        except (ValueError, KeyError, EOFError, TypeError, AttributeError) as error:
            raise _no_cache(folder, f"{type(error).__name__}: {error}") from error
        return packed


def _no_cache(folder: Path, why: str) -> CacheError:
    if _is_cache(folder):
        return CacheError(f"{folder} is a packed cache, but damaged ({why}); delete it, pack again")
    return CacheError(
        f"{folder} is no packed cache ({why}); expected a folder that pack_images wrote, with "
        f"{INDEX} and {PIXELS} and nothing else, found {_content(folder)}"
    )


def _is_cache(folder: Path) -> bool:
    """Whether a folder holds what `pack_images` writes, whole or damaged, and nothing else."""
    try:
        if {path.name for path in folder.iterdir()} - {INDEX, PIXELS}:
            return False
        with (folder / INDEX).open("rb") as stream:
            return INDEX_STARTS.startswith(stream.read(len(INDEX_STARTS)))
    except OSError:
        return False


def _content(path: Path) -> str:
    """What is at a path, in words; '' for an empty folder."""
    if not path.is_dir():
        return "a file" if path.exists() else "nothing there"
    names = sorted(p.name for p in path.iterdir())
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def pack_images(
    files: Mapping[str, str | Path],
    read: Reader,
    *,
    size: int,
    out: str | Path,
    workers: int = 1,
    progress: bool = False,
) -> PackedImages:
    """Read every file once and write the packed cache.

    A run that was killed goes on where it stopped, as long as files and size are the same, and
    ends in the same bytes. A file that changed meanwhile is read again, with all after it.

    Args:
        files: path of each image id; their order is kept. Ids are text or whole numbers, which
            the cache keeps as text.
        read: path to an (H, W) array or tensor, uint8, uint16 of the full range or float in
            [0, 1], or an object with such `.pixels`, as `dicom.read_dicom` returns; a function of
            a module when `workers` is more than 1. An exception of it sets the file aside.
        size: side of the square in pixels.
        out: folder to make; a packed cache there is replaced once the new one is whole.
        workers: processes that read. With 2 or more, a file that crashes its process is set
            aside too.
        progress: show a progress bar.

    Raises:
        CacheError: there is no file, an id or a path is none, `size` is not positive, no file could
            be read, the disk cannot be written, the workers cannot import `read`, or `out` is
            something else than a packed cache.
        CacheBusyError: another process is packing into `out`.
    """
    out, files = Path(out), _checked_files(files)
    if files and not isinstance(size, Integral):
        raise CacheError(
            f"nothing to pack into {out} at a size of {size!r}; give a whole number of pixels"
        )
    if not files or size < 1:
        raise CacheError(f"nothing to pack into {out}: {len(files)} files at {size} pixels")
    if out.is_symlink() or out.name in ("", ".."):  # what it stands for, on its own disk
        out = out.resolve()
    if not out.name:
        raise CacheError(f"{out} cannot be replaced; give `out` the name of a new folder")
    unfinished = out.with_name(f".{out.name}.partial")
    _refuse_foreign(out, unfinished)
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        with _alone(out):
            _tidy(out)
            index = _pack_into(unfinished, files, read, int(size), workers, progress, out.name)
            if not index["image_ids"]:
                shutil.rmtree(unfinished)
                first, reason = next(iter(index["unreadable"].items()))
                raise CacheError(
                    f"none of {len(files)} files could be read; the first, {first}: {reason}"
                )
            (unfinished / INDEX).write_text(json.dumps(index), encoding="utf-8")
            (unfinished / JOURNAL).unlink()
            if out.exists():
                os.replace(out, _replaced(out))
            os.replace(unfinished, out)
            _tidy(out)
    except OSError as error:
        raise CacheError(
            f"cannot write {out} ({error.strerror or error}); {_remedy(error)} start again: what "
            "is done is kept"
        ) from error
    return PackedImages.load(out)


def _checked_files(files: Mapping[str, str | Path]) -> dict[str, Path]:
    """Ids as text and paths as Path, or CacheError that names the first that is none."""
    if not hasattr(files, "items"):
        raise CacheError(f"files must map image ids to paths, not be a {type(files).__name__}")
    checked: dict[str, Path] = {}
    for image_id, path in files.items():
        if not isinstance(image_id, str | Integral):
            raise CacheError(
                f"the image id {image_id!r} is a {type(image_id).__name__}; give text or whole "
                "numbers"
            )
        if str(image_id) in checked:
            raise CacheError(f"image {image_id!r} is there both as a number and as text, or twice")
        if not isinstance(path, str | os.PathLike):
            raise CacheError(f"the path of image {image_id!r} is {path!r}; leave out what has none")
        checked[str(image_id)] = Path(path)
    return checked


def _refuse_foreign(out: Path, unfinished: Path) -> None:
    """Raise where something stands in the way that `pack_images` did not write."""
    for folder in (out, _replaced(out)):
        if folder.exists() and not _is_cache(folder) and _content(folder):
            raise CacheError(
                f"{folder} is no packed cache, so it is not replaced (found {_content(folder)}); "
                "give `out` the name of a new folder"
            )
    if unfinished.exists():
        foreign = {p.name for p in unfinished.iterdir()} - {INDEX, PIXELS, JOURNAL}
        if foreign:
            raise CacheError(
                f"{unfinished} is for the unfinished cache, but holds {min(foreign)}, which "
                "pack_images did not write; move it elsewhere"
            )


def _replaced(out: Path) -> Path:
    """Where a cache waits until the new one stands in its place."""
    return out.with_name(f".{out.name}.old")


def _tidy(out: Path) -> None:
    """Remove the replaced cache, or put it back where a kill came before the new one stood."""
    old = _replaced(out)
    if not old.exists() or (_content(old) and not _is_cache(old)):
        return
    if out.exists():
        shutil.rmtree(old)
    else:
        os.replace(old, out)


def _remedy(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        return "free space there, then"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "mend the rights there or close what has it open, then"
    return "mend that, then"


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold a lock beside `out`, which ends with the process however that ends."""
    path = out.with_name(f".{out.name}.lock")
    with path.open("a+b") as stream:
        if stream.seek(0, os.SEEK_END):
            raise CacheError(f"{path} holds something, so it is no lock of pack_images; move it")
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


def drop_stale_lock(out: str | Path) -> None:
    """Remove what a run killed at its very end left beside a cache: lock and replaced cache."""
    out = Path(out)
    if out.with_name(f".{out.name}.lock").exists() or _is_cache(_replaced(out)):
        with suppress(CacheError), _alone(out):  # unless it is in use
            _tidy(out)


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
    pickled = _pickled(read_one)
    chunks = deque(paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK))
    running: deque = deque()
    pool = _pool(workers)
    try:
        _check_workers(pool, pickled)
        while chunks or running:
            try:
                while chunks and len(running) < 4 * workers:
                    running.append((chunks[0], pool.submit(_read_chunk, chunks[0], pickled)))
                    chunks.popleft()
                results = running[0][1].result()
            except BrokenProcessPool:
                pool.shutdown()
                chunks.extendleft(chunk for chunk, _ in reversed(running))
                running.clear()
                yield from _read_guarded(chunks.popleft(), pickled)
                pool = _pool(workers)
                continue
            running.popleft()
            yield from results
    except OSError as error:
        raise CacheError(
            f"{workers} worker processes could not be started ({error.strerror or error}); use "
            "fewer, or workers=1"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _read_guarded(paths: list[Path], pickled: bytes) -> Iterator:
    """Read each file in a process of its own."""
    for path in paths:
        with _pool(1) as pool:
            try:
                (result,) = pool.submit(_read_chunk, [path], pickled).result()
            except BrokenProcessPool:
                reason = "the process that read it died without a word"
                result = None, _stamp(path), None, reason
        yield result


def _pickled(read_one: Callable) -> bytes:
    try:
        return pickle.dumps(read_one)
    except Exception as error:  # of what the reader holds, so of any kind
        raise CacheError(
            f"the reader cannot be sent to worker processes ({error}); {_AS_MODULE}"
        ) from error


_AS_MODULE = "save it as a function of a module and import it, or use workers=1"


def _check_workers(pool: ProcessPoolExecutor, pickled: bytes) -> None:
    """Raise at once where the workers could not read any file."""
    try:
        why = pool.submit(_why_not_imported, pickled).result()
    except BrokenProcessPool as error:
        raise CacheError(
            "the worker processes ended before they read a file; above they may say why. A script "
            'must call pack_images below `if __name__ == "__main__":`. Or use workers=1'
        ) from error
    if why:
        raise CacheError(f"the worker processes cannot import the reader ({why}); {_AS_MODULE}")


def _why_not_imported(pickled: bytes) -> str:
    try:
        pickle.loads(pickled)
    except Exception as error:  # of the reader's module, so of any kind
        return f"{type(error).__name__}: {error}"
    return ""


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, initializer=_end_with_parent)


def _end_with_parent() -> None:
    """Make this worker end when its parent was killed, which it would not notice otherwise."""
    gc.freeze()  # a collection would touch, and so copy, all that is shared with the parent

    def wait() -> None:  # for the parent's end
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _read_chunk(paths: list[Path], pickled: bytes) -> list:
    read_one = pickle.loads(pickled)
    return [read_one(path) for path in paths]


def _read_square(path: Path, *, read: Reader, size: int):
    """Square or None, the file's stamp, [original height, width] or None, reason or None."""
    stamp = _stamp(path)
    try:
        image = _gray(read(path))
        return fit_square(image, size), stamp, list(image.shape), None
    except (ValueError, OSError) as error:
        return None, stamp, None, str(error)
    except Exception as error:  # a file must not stop the run
        return None, stamp, None, f"{type(error).__name__}: {error}"


def fit_square(image: np.ndarray, size: int) -> np.ndarray:
    """Scale an image so that its longer side is `size`, and fill up with black.

    Args:
        image: (H, W) array or tensor, uint8, uint16 of the full range, or float in [0, 1].
        size: side of the square in pixels.

    Returns:
        (size, size) uint8.

    Raises:
        ValueError: the image is not (H, W), is empty, or is of another type or range.

    >>> fit_square(np.full((2, 4), 255, np.uint8), 4).tolist()[1:3]
    [[255, 255, 255, 255], [0, 0, 0, 0]]
    """
    image = _gray(image)
    if size < 1:
        raise ValueError(f"the side of the square must be 1 pixel or more, not {size}")
    if image.dtype != np.uint8:
        image = image * 255
    height, width = image.shape
    scale = size / max(height, width)
    new_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(Image.fromarray(image).resize(new_wh, Image.Resampling.BILINEAR))
    square = np.zeros((size, size), np.uint8)
    square[: new_wh[1], : new_wh[0]] = np.round(small).clip(0, 255)
    return square


def _gray(image) -> np.ndarray:
    """A gray image as (H, W) uint8 or float32 in [0, 1], or ValueError that names what it is."""
    image = getattr(image, "pixels", image)  # of what `dicom.read_dicom` returns
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        image = image.float() if image.is_floating_point() else image
    image = np.asarray(image)
    if image.ndim != 2 or 0 in image.shape:
        raise ValueError(f"expected one gray image (height, width), got shape {image.shape}")
    kind, wanted = image.dtype.kind, "pass uint8, uint16 of the full range, or float in [0, 1]"
    if kind not in "fiub":
        raise ValueError(f"a {image.dtype} image; {wanted}")
    low, high = image.min(), image.max()
    if image.dtype == np.uint8:
        return image
    if kind == "u" and image.dtype.itemsize == 2:
        bits = int(high).bit_length()
        if 0 < bits < 16:
            raise ValueError(
                f"a uint16 image up to {high} holds {bits} bits; scale it to 65535, or pass "
                f"floats in [0, 1], such as image / {2**bits - 1}"
            )
        return image.astype(np.float32) / 65535
    if kind != "f":
        raise ValueError(f"a {image.dtype} image, {low} to {high}; {wanted}")
    if not (low >= 0 and high <= 1):
        raise ValueError(f"a {image.dtype} image, {low} to {high}; floats must be in [0, 1]")
    return image.astype(np.float32)


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
        if isinstance(labels, str):
            raise ValueError(f"labels must be a list of columns, not the text {labels!r}")
        absent = [name for name in labels if name not in table]
        if absent or not len(labels):
            raise ValueError(f"the table has no column {', '.join(absent) or 'named'}; give labels")
        values = table[list(labels)].to_numpy()
        if values.shape[1] != len(labels):
            raise ValueError(f"the table has a column of {', '.join(labels)} twice")
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

    A box that reaches over the image's border stays as it is, for training takes it; the pipelines
    of `detection_pipelines` clip it to the image. One that cannot train is refused by name.

    Args:
        table: with a column `image_id`; an image without a box is a normal one.
        read: image id to an (H, W) array or tensor: uint8, uint16 of the full range, or float in
            [0, 1].
        boxes: `image_id`, `label` and `x_min`, `y_min`, `x_max`, `y_max` in pixels of what `read`
            returns; those of other images are left out.
        classes: the labels, numbered from 1; 0 is background.
        transform: called as `transform(image=..., bboxes=..., labels=...)` with a uint8 image
            (float32 in [0, 1] where `read` gives no uint8) and returning a dict of the same (the
            form of an albumentations pipeline), or None.

    Raises:
        ValueError: a column is missing, a box has a label that is none of the classes, no box
            belongs to any image, or a box cannot train: it is not finite, has no area or lies
            outside its image. What lies beyond the right or lower border is known only once the
            image is read, unless `read` is that of `PackedImages`. An image of another type or
            range raises when it is read.
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
        if len(boxes) and self.image_ids and not any(len(found) for found, _ in self.targets):
            raise ValueError(
                f"none of {len(boxes)} boxes belongs to any of {len(self.image_ids)} images; the "
                f"boxes name images such as {pd.DataFrame(boxes)['image_id'].iloc[0]!r}, the table "
                f"such as {self.image_ids[0]!r}. Where all are normal, pass boxes.iloc[:0]"
            )
        drawn = [found for found, _ in self.targets if len(found)]
        if drawn and max(found.max() for found in drawn) <= 1:
            raise ValueError(
                "no box ends above 1, so these are shares of the image; multiply them by its "
                "width and height in pixels"
            )
        packed = getattr(read, "__self__", None)
        if isinstance(packed, PackedImages):
            for image_id, (found, _) in zip(self.image_ids, self.targets, strict=True):
                _check_boxes(found, [image_id] * len(found), (packed.size, packed.size))

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Image (3, H, W) float32 in [0, 1], gray repeated, and its target."""
        image_id, (boxes, labels) = self.image_ids[index], self.targets[index]
        image = self._checked(image_id, self.read(image_id), boxes)
        if self.transform is not None:
            changed = self.transform(image=image, bboxes=boxes, labels=labels)
            boxes, labels = (np.asarray(changed[name]) for name in ("bboxes", "labels"))
            boxes = boxes.astype(np.float32).reshape(-1, 4)
            image = self._checked(image_id, changed["image"], boxes)
        target = {
            "boxes": torch.from_numpy(boxes),
            "labels": torch.as_tensor(labels.astype(np.int64).reshape(-1)),
            "image_id": torch.tensor(index),
        }
        gray = torch.from_numpy(image.astype(np.float32))
        return (gray / 255 if image.dtype == np.uint8 else gray).expand(3, -1, -1), target

    def _checked(self, image_id: str, image, boxes: np.ndarray) -> np.ndarray:
        try:
            image = _gray(image)
        except ValueError as error:
            raise ValueError(f"image {image_id!r}: {error}") from error
        _check_boxes(boxes, [image_id] * len(boxes), image.shape)
        return image


def boxes_by_image(
    boxes: pd.DataFrame, image_ids: Sequence[str], classes: Sequence[str]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each image its boxes, float32 (n, 4) xyxy, and their classes, int64 (n,) from 1.

    Args:
        boxes: `image_id`, `label`, `x_min`, `y_min`, `x_max`, `y_max`, in any one unit.
        image_ids: the images, in order.
        classes: the labels, in the order of their numbers.

    Raises:
        ValueError: a column is missing, a label is none of the classes, a box names no image, an
            image is written otherwise than here (13 and '00000013', 'a' and 'a.dicom'), or a box
            of these images is not finite, has no area or lies left of or above the image.

    >>> corners = {"x_min": [1.0], "y_min": [2.0], "x_max": [3.0], "y_max": [4.0]}
    >>> table = pd.DataFrame({"image_id": ["a"], "label": ["ILD"], **corners})
    >>> [(b.tolist(), c.tolist()) for b, c in boxes_by_image(table, ["b", "a"], ["Edema", "ILD"])]
    [([], []), ([[1.0, 2.0, 3.0, 4.0]], [2])]
    """
    corners, boxes = ["x_min", "y_min", "x_max", "y_max"], pd.DataFrame(boxes)
    absent = [name for name in ("image_id", "label", *corners) if name not in boxes]
    if absent:
        raise ValueError(f"the table of boxes has no column {', '.join(absent)}")
    labels = _numbered(boxes["label"], classes)
    _check_ids(boxes["image_id"], image_ids)
    numbers = boxes[corners].apply(pd.to_numeric, errors="coerce")  # other text becomes NaN
    xyxy = numbers.to_numpy(np.float32).reshape(-1, 4)
    used = boxes["image_id"].isin(list(image_ids)).to_numpy()
    _check_boxes(xyxy[used], boxes["image_id"].array[used])
    rows_of = boxes.groupby("image_id", observed=True).indices
    none = np.zeros(0, dtype=np.int64)
    return [(xyxy[rows], labels[rows]) for rows in (rows_of.get(i, none) for i in image_ids)]


def _numbered(labels: pd.Series, classes: Sequence[str]) -> np.ndarray:
    """Class of each box, int64 from 1."""
    names = () if isinstance(classes, str | set | frozenset) else list(classes)
    number = {name: k for k, name in enumerate(names, start=1)}
    if not number or len(number) < len(names):
        raise ValueError(f"classes must be a list of different names, not {classes!r}")
    unknown = set(labels) - set(number)
    if unknown:
        raise ValueError(
            f"label {min(unknown, key=str)!r} is none of the classes "
            f"{', '.join(map(str, names))}; a detector would leave its boxes out"
        )
    return labels.astype(object).map(number).to_numpy(np.int64)


def _check_ids(of_boxes: pd.Series, image_ids: Sequence[str]) -> None:
    """Raise where a box names no image, or names one in another way than `image_ids` does."""
    if of_boxes.isna().any():
        raise ValueError(f"row {int(of_boxes.isna().argmax())} of the boxes has no image_id")
    known, others = set(image_ids), dict.fromkeys(of_boxes.tolist())
    # Where both have folders, these may be patients', and the files' names the same in each.
    bare = any(not re.search(r"[/\\]", " ".join(map(str, ids))) for ids in (known, others))
    plain = {_plain_id(i, bare): i for i in image_ids}
    for other in others:
        if other not in known and _plain_id(other, bare) in plain:
            raise ValueError(
                f"a box is of image {other!r}, but that image is "
                f"{plain[_plain_id(other, bare)]!r} here; write the ids alike"
            )


def _plain_id(image_id: object, bare: bool) -> str:
    """An id without what tables and files add: suffix, zeros, case, white space, and folder."""
    name = str(image_id).strip().casefold()
    name = re.split(r"[/\\]", name)[-1] if bare else name
    name = re.sub(r"\.(dicom|dcm|dicm|png|jpe?g|tiff?|npy)$", "", name)
    return re.sub(r"^0*(\d+)(\.0)?$", r"\1", name)


def _check_boxes(
    boxes_xyxy: np.ndarray, image_ids: Sequence[str], hw: tuple[int, int] = (sys.maxsize,) * 2
) -> None:
    """Raise for the first box that cannot train, naming image and box."""
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    outside = (high <= 0) | (low >= np.array(hw[::-1]))
    size = "" if sys.maxsize in hw else f" of {hw[0]} x {hw[1]} pixels"
    faults = {
        "is not of finite numbers": ~np.isfinite(boxes_xyxy).all(axis=1),
        "has no x_min < x_max and y_min < y_max": ~(high > low).all(axis=1),
        f"is outside the image{size}": outside.any(axis=1),
    }
    for fault, bad in faults.items():
        if bad.any():
            row = int(np.argmax(bad))
            raise ValueError(
                f"image {image_ids[row]!r}: the box {boxes_xyxy[row].tolist()} {fault}; mend it or "
                "leave it out"
            )


def _image_ids(table: pd.DataFrame) -> list[str]:
    table = pd.DataFrame(table)
    if "image_id" not in table or table["image_id"].isna().any():
        raise ValueError(
            "expected a column image_id without gaps, among the columns "
            f"{', '.join(map(str, table))}"
        )
    return table["image_id"].tolist()
