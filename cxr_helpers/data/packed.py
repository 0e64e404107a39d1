"""A packed cache of radiographs: each file is decoded once, an epoch then costs no decoding.

Decoding a PNG or DICOM file costs far more than a training step needs of it. So each image is
decoded once, scaled to fit a square (ratio kept, the rest black) and written into one
memory-mapped array of bytes. A run that was killed goes on where it stopped.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, tqdm.
Goes with: gray.py, workers.py.
"""

import errno
import hashlib
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, fields
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import IO

import numpy as np
from tqdm.auto import tqdm

from .gray import fit_square, gray_image
from .workers import WorkerError, call_on_files

Reader = Callable[[Path], np.ndarray]

INDEX, PIXELS = "index.json", "pixels.npy"  # all that is in a whole cache
INDEX_STARTS = b'{"image_ids"'
JOURNAL = "journal.jsonl"  # what of an unfinished cache is done
SECONDS_AT_RISK = 2.0  # work that a kill may cost


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

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, row: int) -> np.ndarray:
        """One image by its row, (size, size) uint8."""
        return np.array(self.pixels[row])

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

    A run that was killed goes on where it stopped, as long as files, size and `read` (by its
    `reader_key`) are the same, and ends in the same bytes. A file that changed meanwhile is read
    again, with all after it.

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

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/a.npy", np.full((4, 2), 255, np.uint8))
    ...     files = {"a": f"{folder}/a.npy"}
    ...     pack_images(files, np.load, size=2, out=f"{folder}/packed")[0].tolist()
    [[255, 0], [255, 0]]
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
    except WorkerError as error:
        raise CacheError(str(error)) from error
    except OSError as error:
        raise CacheError(
            f"cannot write {out} ({error.strerror or error}); {_remedy(error)} start again: what "
            "is done is kept"
        ) from error
    return PackedImages.load(out)


def reader_key(read: Reader) -> str:
    """Sixteen hex digits that change with a reader's name, its own code and arguments set for it.

    They are the same in every process. Not seen is what the reader calls in turn.

    >>> reader_key(partial(np.load, mmap_mode=None)) == reader_key(np.load)
    False
    """
    told = ""
    if isinstance(read, partial):
        told, read = f"{read.args} {read.keywords}", read.func
    called = read if hasattr(read, "__code__") else type(read).__call__  # an object's
    told += repr([getattr(called, name, None) for name in ("__defaults__", "__kwdefaults__")])
    named = read if hasattr(read, "__qualname__") else type(read)
    told += f"{named.__module__} {named.__qualname__} {_code_in(getattr(called, '__code__', None))}"
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _code_in(value: object) -> str:
    """A constant of a function, or its code, as text."""
    if hasattr(value, "co_code"):
        parts = [value.co_code.hex(), *value.co_names, *map(_code_in, value.co_consts)]
        return " ".join(parts)
    return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)


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
    """Remove what a run killed at its very end left beside a cache: lock and replaced cache.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     lock = Path(folder, ".packed.lock")
    ...     lock.touch()
    ...     drop_stale_lock(f"{folder}/packed")
    ...     lock.exists()
    False
    """
    out = Path(out)
    if out.with_name(f".{out.name}.lock").exists() or _is_cache(_replaced(out)):
        with suppress(CacheError), _alone(out):  # unless it is in use
            _tidy(out)


def _pack_into(folder, files, read, size, workers, progress, name) -> dict:
    """Append squares to pixels.npy and then, once these are on the disk, lines to the journal."""
    pixels, journal = folder / "pixels.npy", folder / JOURNAL
    recipe = {"size": size, "read": reader_key(read)}
    done, journal_bytes = _finished(pixels, journal, files, recipe)
    todo = list(files.items())[len(done) :]
    read_one = partial(_read_square, read=read, size=size)
    results = call_on_files(read_one, [p for _, p in todo], workers, crashed=_crashed)
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
            lines.write(json.dumps(recipe).encode() + b"\n")
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


def _finished(pixels: Path, journal: Path, files, recipe: dict) -> tuple[list, int]:
    """What an interrupted run leaves to go on from, and how many bytes of its journal stand."""
    try:
        lines = journal.read_bytes().split(b"\n")[:-1]  # a line that was cut has no end
        size = recipe["size"]
        room = (pixels.stat().st_size - _npy_bytes(0, size)) // size**2
        if not lines or json.loads(lines[0]) != recipe:
            return [], 0
    except (OSError, ValueError):
        return [], 0
    done, n_bytes = [], len(lines[0]) + 1
    for line, (image_id, path) in zip(lines[1:], files.items(), strict=False):
        try:
            told_id, stamp, hw, reason = json.loads(line)
        except (ValueError, TypeError):
            break
        room -= hw is not None
        if [told_id, stamp] != [image_id, _stamp(path)] or room < 0:
            break
        done.append([told_id, stamp, hw, reason])
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


def _crashed(path: Path):
    return None, _stamp(path), None, "the process that read it died without a word"


def _read_square(path: Path, *, read: Reader, size: int):
    """Square or None, the file's stamp, [original height, width] or None, reason or None."""
    stamp = _stamp(path)
    try:
        image = gray_image(read(path))
        return fit_square(image, size), stamp, list(image.shape), None
    except (ValueError, OSError) as error:
        return None, stamp, None, str(error)
    except Exception as error:  # a file must not stop the run
        return None, stamp, None, f"{type(error).__name__}: {error}"
