"""What the two preparation scripts share: pack every image, write the tables, report.

Everything can be killed at any moment and started again; what is done is not done twice, and the
result is the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from fetching import (
    PrepareError,
    check_space,
    free_bytes,
    refused_members,
    unpack,
    unpacked_bytes,
    waiting_archives,
    write_whole,
)

from cxr_helpers.course.core.data import PREPARED, check_meet, listed
from cxr_helpers.course.core.machine import usable_cores
from cxr_helpers.data.packed import CacheError, PackedImages, drop_stale_lock, pack_images

DONE, FAILED, SOME_SET_ASIDE, INTERRUPTED = 0, 1, 3, 130  # 2 is argparse's, for wrong usage
STATUSES = """exit status:
  0  every file was read
  1  it could not be done; the message says why and what to do
  2  wrong usage
  3  done, but files were set aside: set_aside.csv says which and why
  130  interrupted; start it again and it goes on"""


@dataclass(frozen=True)
class Survey:
    """What a download holds.

    Attributes:
        files: image id to path, in the order in which they are packed.
        unlisted: image id to path of files that no table row names.
        no_file: ids of the images of which the table tells and that are not there.
        table: what the table says, in the form of its reader.
    """

    files: dict[str, Path]
    unlisted: dict[str, Path]
    no_file: list[str]
    table: Any


def surveyed(root: Path, found: dict[str, Path], image_ids: Iterable[str], table: object) -> Survey:
    """Compare the files with the images of the table, in the table's order.

    Raises:
        SettingsError: they have no image in common.
    """
    image_ids = list(image_ids)
    check_meet(found, image_ids, root)
    files = listed(found, image_ids)
    unlisted = {image_id: path for image_id, path in found.items() if image_id not in files}
    no_file = [image_id for image_id in image_ids if image_id not in found]
    return Survey(files, unlisted, no_file, table)


@dataclass(frozen=True)
class Source:
    """One of the two data sets.

    Attributes:
        name: short, for the names of folders.
        read: path to one image (see `packed.pack_images`).
        survey: root folder to what it holds.
        tables: root, survey and packed images to the tidy tables by file name.
        archives: patterns of the archives to unpack in the root.
        scales: which `CXR_SCALE` takes which size in pixels.
    """

    name: str
    read: Callable
    survey: Callable[[Path], Survey]
    tables: Callable[[Path, Survey, PackedImages], dict[str, pd.DataFrame]]
    archives: tuple[str, ...]
    scales: dict[int, str] = field(default_factory=dict)


def add_arguments(parser: argparse.ArgumentParser, *, size: int) -> None:
    """Add what both scripts take."""
    parser.add_argument("root", type=Path, help="folder of the download")
    parser.add_argument("--out", type=Path, help="folder to write into (ROOT/packed)")
    parser.add_argument(
        "--size",
        type=_positive,
        nargs="+",
        default=[size],
        help=f"side of the packed images in pixels; one cache each ({size}, the preset `paper`'s)",
    )
    parser.add_argument("--limit", type=_positive, help="only so many images, for a trial")
    parser.add_argument(
        "--workers", type=_positive, default=usable_cores(), help="processes (all cores)"
    )
    parser.add_argument("--again", action="store_true", help="pack anew what is packed already")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and stop")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.add_argument(
        "--remove-archives",
        action="store_true",
        help="delete each archive of images once it is unpacked",
    )


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def prepare(source: Source, args: argparse.Namespace) -> int:
    """Unpack, pack and write the tables; return the exit status.

    Raises:
        PrepareError: it could not be done.
    """
    root = args.root
    waiting = waiting_archives(root, source.archives)
    if args.dry_run:
        return _dry_run(source, args, waiting)
    broken = _unpack_all(waiting, root, args)
    survey = source.survey(root)
    files = dict(list(survey.files.items())[: args.limit])
    _check_cache_space(_missing_sizes(source, args, files), files, args)
    packed = [_pack(source, args, files, size) for size in args.size]

    aside = [*broken, *refused_members(root), *_aside(survey, packed, args)]
    tables = source.tables(root, survey, packed[0])
    tables["set_aside.csv"] = pd.DataFrame(aside, columns=["image_id", "file", "reason"])
    tables["no_file.csv"] = pd.DataFrame({"image_id": survey.no_file})
    folder = _out(args) / f"{source.name}_tables{_trial(args)}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_whole(folder / name, table.to_csv(index=False, lineterminator="\n"))
    _report(source, args, packed, tables, folder)
    return SOME_SET_ASIDE if aside else DONE


def _aside(survey: Survey, packed: list[PackedImages], args) -> list[tuple[str, str, str]]:
    """Image id, file and reason of what is not among the packed images."""
    unlisted = {} if args.limit else survey.unlisted  # in a trial most files are not looked at
    rows = [(i, path, "no row of the table names it") for i, path in unlisted.items()]
    reasons = {i: why for images in packed for i, why in images.unreadable.items()}
    for i, path in survey.files.items():
        if i in reasons:
            rows.append((i, path, reasons[i].replace(f"{path}: ", "")))
    return [(i, _within(path, args.root), why) for i, path, why in rows]


def _unpack_all(waiting: list[Path], root: Path, args) -> list[tuple[str, str, str]]:
    if not waiting:
        return []
    check_space(root, unpacked_bytes(waiting), f"unpacking {len(waiting)} archives")
    broken = []
    for archive in waiting:
        error = unpack(archive, root, remove=args.remove_archives, progress=not args.quiet)
        if error:
            broken.append(("", archive.name, error))
    return broken


def _out(args) -> Path:
    return args.out or args.root / PREPARED


def _trial(args) -> str:
    return f"_first{args.limit}" if args.limit else ""


def _cache(source: Source, args, size: int) -> Path:
    return _out(args) / f"{source.name}_{size}{_trial(args)}"


def _whole(folder: Path, files: dict) -> PackedImages | None:
    """The cache, if it is there and holds these files."""
    try:
        images = PackedImages.load(folder)
    except CacheError:
        return None
    return images if set(files) == {*images.image_ids, *images.unreadable} else None


def _missing_sizes(source: Source, args, files: dict) -> list[int]:
    return [s for s in args.size if args.again or _whole(_cache(source, args, s), files) is None]


def _check_cache_space(sizes: list[int], files: dict, args) -> None:
    # Room that an unfinished run has taken already is not counted again.
    taken = sum(p.stat().st_size for p in _out(args).glob(".*.partial/pixels.npy"))
    needed = sum(len(files) * size**2 for size in sizes)
    if needed:
        check_space(_out(args), max(0, needed - taken), f"packing {len(files)} images")


def _pack(source: Source, args, files: dict, size: int) -> PackedImages:
    folder = _cache(source, args, size)
    images = None if args.again else _whole(folder, files)
    if images is not None:
        drop_stale_lock(folder)
        return images
    try:
        return pack_images(
            files,
            source.read,
            size=size,
            out=folder,
            workers=min(args.workers, len(files)),
            progress=not args.quiet,
        )
    except CacheError as error:
        raise PrepareError(str(error)) from error


def _dry_run(source: Source, args, waiting: list[Path]) -> int:
    free = free_bytes(_out(args)) / 1e9
    print(f"Dry run: nothing is written. Free in {_out(args)}: {free:.1f} GB")
    if waiting:
        size = unpacked_bytes(waiting) / 1e9
        print(f"To unpack: {len(waiting)} archives, about {size:.1f} GB; images in them are not")
        print("counted below.")
    try:
        survey = source.survey(args.root)
    except (ValueError, FileNotFoundError):
        if waiting:  # what is not found yet may be in them
            return DONE
        raise
    files = dict(list(survey.files.items())[: args.limit])
    todo = _missing_sizes(source, args, files)
    print(
        f"Images: {len(files)} of {len(survey.files)} to pack; {len(survey.unlisted)} files are "
        f"not in the table, {len(survey.no_file)} rows of the table have no file."
    )
    for size in args.size:
        state = f"{len(files) * size**2 / 1e9:.2f} GB" if size in todo else "is there already"
        print(f"To write: {_cache(source, args, size)}, {state}")
    _check_cache_space(todo, files, args)
    return DONE


def _report(source: Source, args, packed, tables, folder) -> None:
    for size, images in zip(args.size, packed, strict=True):
        total = len(images.image_ids) + len(images.unreadable)
        print(
            f"{_cache(source, args, size)}: {len(images.image_ids)} of {total} images at {size} px"
        )
    print(f"{folder}: {', '.join(sorted(tables))}")
    if n := len(tables["set_aside.csv"]):
        print(f"Set aside: {n} files; {folder / 'set_aside.csv'} says which and why.")
        print("Once these are mended, run it again with --again.")
    if n := len(tables["no_file.csv"]):
        print(f"Without a file: {n} rows of the table; see {folder / 'no_file.csv'}.")
    scales = [source.scales[s] for s in args.size if s in source.scales]
    if scales and not args.limit and args.out is None:
        print(f"The course uses it with CXR_DATA={args.root} and CXR_SCALE={' or '.join(scales)}.")


def _within(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def exit_status(run: Callable[[], int], name: str) -> int:
    """Run a script's body; errors that a user can mend become one line and a status."""
    try:
        return run()
    except (ValueError, OSError) as error:  # of the readers of tables too
        print(f"{name}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(f"{name}: interrupted; start it again and it goes on", file=sys.stderr)
        return INTERRUPTED
