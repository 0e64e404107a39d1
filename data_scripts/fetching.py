"""Get archives and unpack them, in steps that a kill can interrupt and a restart goes on with."""

from __future__ import annotations

import errno
import hashlib
import http.client
import io
import json
import os
import shutil
import stat
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tqdm.auto import tqdm

UNPACKED = ".unpacked"  # folder of notes on the archives that are unpacked
SPARE_BYTES = 200_000_000  # left free on the disk
_BLOCK = 1 << 20
_IMAGES = {".png", ".dicom", ".dcm"}
_WEB_ERRORS = (urllib.error.URLError, http.client.HTTPException, OSError)
_ARCHIVE_ERRORS = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError)
_ARCHIVE_ERRORS += (OSError, RuntimeError)


class PrepareError(ValueError):
    """The preparation cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Archive:
    """A file to download.

    Attributes:
        name: what to call it here.
        url: where it is, http or https.
        md5: checksum in hex digits, or '' where it is not known.
        n_bytes: its size, or 0 where it is not known.
    """

    name: str
    url: str
    md5: str = ""
    n_bytes: int = 0


# --- the disk -------------------------------------------------------------------------------------


def check_space(folder: Path, needed: int, purpose: str) -> None:
    """Refuse to begin what would fill the disk.

    Args:
        folder: where it will be written; need not exist yet.
        needed: bytes.
        purpose: what for, in words.

    Raises:
        PrepareError: fewer bytes are free; the text says how many are missing.
    """
    free = free_bytes(folder)
    if needed + SPARE_BYTES > free:
        raise PrepareError(
            f"{purpose} needs {needed / 1e9:.1f} GB in {folder} and {SPARE_BYTES / 1e9:.1f} GB to "
            f"spare, but {free / 1e9:.1f} GB are free: free "
            f"{(needed + SPARE_BYTES - free) / 1e9:.1f} GB or name another folder"
        )


def free_bytes(folder: Path) -> int:
    """Bytes that are free where the folder is or will be."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


# --- download -------------------------------------------------------------------------------------


def read_links(path: str | Path) -> list[Archive]:
    """Read a list of links: on each line the address, the file's name and, if known, its MD5.

    Raises:
        PrepareError: the file cannot be read, or a line is no such line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PrepareError(f"{path}: cannot be read ({error}); name a text file") from error
    archives = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        plain = (
            len(words) in (2, 3) and words[1] not in (".", "..") and not set(words[1]) & {*"/\\"}
        )
        if not plain or not words[0].startswith(("https://", "http://")):
            raise PrepareError(f"{path}, line {number}: expected ADDRESS NAME [MD5], got {line!r}")
        archives.append(Archive(words[1], words[0], *(w.lower() for w in words[2:])))
    if not archives:
        raise PrepareError(f"{path}: no links in it")
    return archives


def fetch(
    archive: Archive, folder: Path, *, tries: int = 5, pause: float = 3.0, progress: bool = True
) -> Path:
    """Download a file, going on where an earlier attempt stopped, and check what arrived.

    Until it is whole and checked it is called `.NAME.part`. (A browser calls what it downloads
    `NAME.part`; that is left alone.)

    Args:
        archive: what to download.
        folder: where to.
        tries: attempts, each going on where the last one stopped.
        pause: seconds before the second attempt; twice as many before each further one.
        progress: show a progress bar.

    Raises:
        PrepareError: it could not be downloaded, or is not what it should be.
    """
    target, part = folder / archive.name, part_of(folder / archive.name)
    if target.exists():
        # The checksum of a file of the right size is left to the unpacking, which takes as long.
        if wrong := _wrong(archive, target, checksum=not archive.n_bytes):
            raise PrepareError(
                f"{target} is not what {archive.url} gives ({wrong}); move it elsewhere, or wait "
                "where another program is still writing it, then start again"
            )
        return target
    folder.mkdir(parents=True, exist_ok=True)
    for attempt in range(tries):
        try:
            _fetch_rest(archive, part, progress)
            break
        except _WEB_ERRORS as error:
            code = getattr(error, "code", None)
            if code == 416:  # the part is longer than the file
                part.unlink(missing_ok=True)
            refused = code is not None and 400 <= code < 500 and code not in (408, 416, 429)
            if refused or attempt == tries - 1:
                raise PrepareError(
                    f"{archive.url} did not arrive ({error}); start again, what arrived is kept, "
                    f"or save it yourself as {target}"
                ) from error
            time.sleep(pause * 2**attempt)
    _check_arrived(archive, part)
    os.replace(part, target)
    return target


def _fetch_rest(archive: Archive, part: Path, progress: bool) -> None:
    have = part.stat().st_size if part.exists() else 0
    if have and have == archive.n_bytes:
        return
    request = urllib.request.Request(archive.url)
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=60) as reply:
        if reply.headers.get_content_type() == "text/html":
            raise PrepareError(f"{archive.url} is a web page, not an archive; check the link")
        if reply.status != 206:  # the server begins anew
            have = 0
        total = have + int(reply.headers.get("Content-Length", 0))
        with (
            _Part(part, "ab" if have else "wb") as stream,
            _bar(archive.name, total, progress, initial=have) as bar,
        ):
            while block := reply.read(_BLOCK):
                stream.write(block)
                bar.update(len(block))
    if part.stat().st_size < total:
        raise ConnectionError(f"the connection ended at {part.stat().st_size} of {total} bytes")


def part_of(path: Path) -> Path:
    """What a file is called until it is whole."""
    return path.with_name(f".{path.name}.part")


def _wrong(archive: Archive, path: Path, *, checksum: bool) -> str:
    """How a file differs from what was promised of it, or ''."""
    size = path.stat().st_size
    if not path.is_file():
        return "no file"
    if archive.n_bytes and archive.n_bytes != size:
        return f"{size} bytes, expected {archive.n_bytes}"
    if archive.md5 and checksum:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "md5").hexdigest()
        return "" if found == archive.md5 else f"MD5 {found}, expected {archive.md5}"
    return ""


def _check_arrived(archive: Archive, part: Path) -> None:
    if wrong := _wrong(archive, part, checksum=True):
        part.unlink()
        raise PrepareError(f"{archive.name} arrived damaged ({wrong}) and was removed; start again")


# --- archives -------------------------------------------------------------------------------------


def waiting_archives(root: Path, patterns: Iterable[str]) -> list[Path]:
    """Archives in the root that are not unpacked yet, by name."""
    found = sorted({path for pattern in patterns for path in root.glob(pattern)})
    return [path for path in found if path.is_file() and not is_unpacked(path, root)]


def is_unpacked(archive: Path, root: Path) -> bool:
    """Whether an archive was unpacked into the root to its end; it need not be there any more."""
    return _note(root, archive) is not None


def _note(root: Path, archive: Path) -> dict | None:
    """The note on an unpacked archive, unless that has another size now."""
    try:
        note = json.loads((root / UNPACKED / f"{archive.name}.json").read_text(encoding="utf-8"))
        same = not archive.exists() or note["bytes"] == archive.stat().st_size
        note["refused"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return note if same else None


def unpacked_bytes(archives: list[Path]) -> int:
    """Sizes once unpacked; PNG files in a .tar.gz are hardly compressed further."""
    total = 0
    for path in archives:
        try:
            with zipfile.ZipFile(path) as archive:
                total += sum(info.file_size for info in archive.infolist())
        except (zipfile.BadZipFile, OSError):
            total += int(1.05 * path.stat().st_size)
    return total


def refused_members(root: Path) -> list[tuple[str, str, str]]:
    """What was left in the unpacked archives: image id '', file and reason."""
    rows = []
    for path in sorted((root / UNPACKED).glob("*.json")):
        name = path.name.removesuffix(".json")
        note = _note(root, root / name) or {"refused": []}  # a damaged note is written anew
        rows += [("", f"{name}: {member}", reason) for member, reason in note["refused"]]
    return rows


def unpack(archive: Path, root: Path, *, remove: bool = False, progress: bool = True) -> str | None:
    """Unpack a .tar.gz or .zip into the root; files that are there already are left alone.

    Only plain files that stay within the root are unpacked. Each gets its name once it is whole. A
    file of another size under the name of one in the archive is somebody else's: it stays, and the
    archive counts as not unpacked.

    Args:
        archive: what to unpack.
        root: where to.
        remove: delete the archive once all that could be unpacked of it stands in the root. One
            without an image is no part of a data set and stays.
        progress: show a progress bar.

    Returns:
        None, or why the archive could not be unpacked to its end.

    Raises:
        PrepareError: the disk is full or cannot be written.
    """
    refused, others, images, size = [], [], 0, archive.stat().st_size
    members = _zip_members if archive.suffix == ".zip" else _tar_members
    try:
        with archive.open("rb") as raw, _bar(f"unpacking {archive.name}", size, progress) as bar:
            for name, n_bytes, reason, opened in members(raw, root):
                bar.update(max(0, raw.tell() - bar.n))
                images += Path(name).suffix.lower() in _IMAGES
                if reason:
                    refused.append((name, reason))
                elif not _unpack_one(opened, root / name, n_bytes):
                    others.append(name)
    except PrepareError:
        raise
    except _ARCHIVE_ERRORS as error:
        damaged = not isinstance(error, RuntimeError) and not getattr(error, "errno", 0)
        return f"cannot be read to its end ({error})" + "; download it again" * damaged
    if others:
        return (
            f"{len(others)} of its files are in the folder already with another size, such as "
            f"{others[0]}; move those elsewhere, or the archive"
        )
    note = root / UNPACKED / f"{archive.name}.json"
    note.parent.mkdir(exist_ok=True)
    write_whole(note, json.dumps({"bytes": size, "refused": refused}))
    if remove and images:
        archive.unlink()
    return None


# A file's name, its size, why it is refused, and what opens it.
Member = tuple[str, int, str | None, Callable[[], IO[bytes]]]
_NOT_PLAIN = "a link or device, not a plain file"
_OUTSIDE = "refused, it would not stay in the folder"


def _tar_members(raw: IO[bytes], root: Path) -> Iterator[Member]:
    with tarfile.open(fileobj=raw, mode="r:*") as tar:
        for member in tar:
            if member.isdir():
                continue
            reason, name = None if member.isreg() else _NOT_PLAIN, member.name
            try:
                name = name if reason else tarfile.data_filter(member, os.path.realpath(root)).name
            except tarfile.FilterError as error:
                reason = f"{_OUTSIDE} ({type(error).__name__})"
            yield name, member.size, reason, lambda member=member: tar.extractfile(member)
        _check_end(tar)


def _check_end(tar: tarfile.TarFile) -> None:
    """Read on from where the members end to gzip's checksum, which comes last.

    tarfile ends at a damaged header, and at a cut between two members, as it does at the end.
    """
    left = 0
    while block := tar.fileobj.read(_BLOCK):
        left += len(block)
        if block.strip(b"\0"):
            raise tarfile.ReadError("a header in it is damaged")
    if not left:
        raise tarfile.ReadError("it is cut between two files")


def _zip_members(raw: IO[bytes], root: Path) -> Iterator[Member]:
    inside = Path(os.path.realpath(root))
    with zipfile.ZipFile(raw) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            reason = None
            if stat.S_ISLNK(info.external_attr >> 16):
                reason = _NOT_PLAIN
            elif not Path(os.path.realpath(inside / info.filename)).is_relative_to(inside):
                reason = _OUTSIDE
            yield info.filename, info.file_size, reason, lambda info=info: archive.open(info)


def _unpack_one(opened: Callable[[], IO[bytes]], target: Path, n_bytes: int) -> bool:
    """Whether the file stands there now; False where another has its name."""
    if target.exists():
        return target.is_file() and target.stat().st_size == n_bytes
    check_space(target.parent, n_bytes, f"unpacking {target.name}")
    part = part_of(target)
    try:
        with _Part(part, "wb") as writing, opened() as source:
            shutil.copyfileobj(source, writing, _BLOCK)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return True


class _Part(io.FileIO):
    """A file that is being written; what the disk refuses is a PrepareError, not one of reading."""

    def __init__(self, path: Path, mode: str):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            super().__init__(path, mode)
        except OSError as error:
            raise _cannot_write(path, error) from error

    def write(self, block: bytes) -> int:
        """Write all of it."""
        try:
            if (written := super().write(block)) < len(block):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise _cannot_write(self.name, error) from error
        return written


def _cannot_write(path: Path, error: OSError) -> PrepareError:
    remedy = {errno.ENOSPC: "free space", errno.EACCES: "mend its rights"}
    return PrepareError(
        f"cannot write {path} ({error.strerror or error}); "
        f"{remedy.get(error.errno, 'mend that')}, then start again"
    )


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that it is there whole or not at all."""
    part = part_of(path)
    part.write_text(text, encoding="utf-8", newline="")
    os.replace(part, path)


def _bar(name: str, total: int, progress: bool, initial: int = 0) -> tqdm:
    return tqdm(
        total=total or None,
        initial=initial,
        desc=name,
        unit="B",
        unit_scale=True,
        mininterval=0.3 if sys.stderr.isatty() else 15.0,  # seconds; a log gets few lines
        disable=not progress,
    )
