"""Prepare a download of NIH ChestX-ray14 for the course: unpack, decode once, tidy tables.

    python data_scripts/prepare_nih.py /data/nih
    python data_scripts/prepare_nih.py /data/nih --download nih
    python data_scripts/prepare_nih.py /data/nih --limit 100 --dry-run

Into ROOT/packed go nih_256/ (the packed images, see cxr_helpers/data/packed.py) and nih_tables/:
entries.csv (one row an image, in the order of the packed images), labels.csv, boxes.csv,
set_aside.csv (each file that is not among the packed images, with the reason) and no_file.csv
(images of the table that are not there). The course finds them there. It can be killed at any
moment; started again it goes on and ends in the same bytes.

Use of the images is free; cite Wang et al., ChestX-ray8, CVPR 2017, link the download site
https://nihcc.app.box.com/v/ChestXray-NIHCC and acknowledge the NIH Clinical Center.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from fetching import (
    Archive,
    PrepareError,
    check_space,
    fetch,
    is_unpacked,
    part_of,
    read_links,
    unpack,
)
from preparing import (
    DONE,
    STATUSES,
    Source,
    Survey,
    add_arguments,
    exit_status,
    prepare,
    surveyed,
)

from cxr_helpers.course.core.data import nih_table, official_lists
from cxr_helpers.course.core.settings import PRESETS
from cxr_helpers.course.core.tables import packaged_table
from cxr_helpers.data import nih
from cxr_helpers.data.packed import PackedImages

SITE = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
# Key in NIH's Box folder, bytes, MD5, images. Source: batch_download_zips.py and FAQ_CHESTXRAY.pdf
# (question 7) of that folder.
_BOX = (
    ("vfk49d74nhbxq3nqjg0900w5nvkorp5c", 2008470987, "fe8ed0a6961412fddcbb3603c11b3698", 4999),
    ("i28rlmbvmfjbl8p2n3ril0pptcmcu9d1", 3952623504, "ab07a2d7cbe6f65ddd97b4ed7bde10bf", 10000),
    ("f1t00wrtdk94satdfb9olcolqx20z2jp", 3929234850, "2301d03bde4c246388bad3876965d574", 10000),
    ("0aowwzs5lhjrceb3qp67ahp0rd1l1etg", 3838903983, "9f1b7f5aae01b13f4bc8e2c44a4b8ef6", 10000),
    ("v5e3goj22zr6h8tzualxfsqlqaygfbsn", 3935496531, "1861f3cd0ef7734df8104f2b0309023b", 10000),
    ("asi7ikud9jwnkrnkj99jnpfkjdes7l6l", 3986301172, "456b53a8b351afd92a35bc41444c58c8", 10000),
    ("jn1b4mw4n6lnh74ovmcjb8y48h8xj07n", 4016328426, "1075121ea20a137b87f290d6a4a5965e", 10000),
    ("tvpxmn7qyrgl0w8wfh9kqfjskv6nmm1j", 4018347353, "b61f34cec3aa69f295fbb593cbd9d443", 10000),
    ("upyy3ml7qdumlgk2rfcvlb9k6gvqq2pj", 4111327929, "442a3caa61ae9b64e61c561294d1e183", 10000),
    ("l6nilvfa9cg3s28tqv1qc1olm3gnz54p", 4181556296, "09ec81c4c31e32858ad8cf965c494b74", 10000),
    ("hhq8fkdgvcari67vfhs7ppg2w6ni4jze", 4187084020, "499aefc67207a5a97692424cf5dbeed5", 10000),
    ("ioqwiy20ihqwyr8pf4c24eazhh281pbu", 2914187733, "dc9fda1757c2de0032b63347a7d2895c", 7121),
)
ARCHIVES = tuple(
    Archive(f"images_{k:03d}.tar.gz", f"https://nihcc.box.com/shared/static/{key}.gz", md5, size)
    for k, (key, size, md5, _) in enumerate(_BOX, start=1)
)
KAGGLE = """Kaggle gives the files to its users, by a program of its own:
  1. pip install kaggle, and log in as https://github.com/Kaggle/kaggle-api tells;
  2. all images (42 GB, and as much again unpacked; this command can be stopped and started again):
     kaggle datasets download nih-chest-xrays/data -p {root}
     or a sample of 5% (2 GB):
     kaggle datasets download nih-chest-xrays/sample -p {root} --unzip
  3. run this script again without --download, on {root} or, for the sample, on
     {root}/sample; it unpacks the archive."""


def survey(root: Path) -> Survey:
    """What of the table is there, in the table's order."""
    entries = nih.read_entries(nih_table(root))
    return surveyed(root, nih.find_images(root), entries["image_id"], entries)


def tables(root: Path, survey: Survey, images: PackedImages) -> dict[str, pd.DataFrame]:
    """Entries, labels and boxes of the packed images."""
    entries = survey.table.set_index("image_id").loc[images.image_ids].reset_index()
    entries["official_list"] = ""
    every = survey.table["image_id"]
    for name, named in official_lists(root, set(every)).items():
        part = name.removesuffix("_list.txt")
        entries.loc[entries["image_id"].isin(named), "official_list"] = part
    own = root / "BBox_List_2017.csv"
    path = own if own.is_file() else packaged_table("nih_boxes")
    boxes = nih.read_boxes(path, size=1.0)  # as shares of the image's side
    if path == own and not every.isin(boxes["image_id"]).any():
        raise PrepareError(
            f"{path}: names images such as {boxes['image_id'][0]!r}, the table such as "
            f"{every.iloc[0]!r}, and none is in both; take the files of one download"
        )
    hw = pd.DataFrame(images.original_hw, index=images.image_ids)
    boxes = boxes[boxes["image_id"].isin(hw.index)].reset_index(drop=True)
    if of_oblong := sorted(set(boxes["image_id"]) & set(hw.index[hw[0] != hw[1]])):
        raise PrepareError(
            f"{len(of_oblong)} images with a box are not square, such as {of_oblong[0]}, and the "
            "boxes are written for 1024 x 1024 pixels; take the images as the NIH gives them"
        )
    for column in ("x_min", "y_min", "x_max", "y_max"):
        boxes[column] *= boxes["image_id"].map(hw[0]).to_numpy(np.float64)
    labels = nih.label_matrix(entries).reset_index()
    return {"entries.csv": entries, "labels.csv": labels, "boxes.csv": boxes}


SOURCE = Source(
    name="nih",
    read=nih.read_image,
    survey=survey,
    tables=tables,
    archives=("images_*.tar.gz", "*.zip"),
    scales={PRESETS[scale]["pretrain"].cache_size: scale for scale in PRESETS},
)


def download(args: argparse.Namespace) -> None:
    """Download into the root what was asked for."""
    archives = read_links(args.links) if args.links else list(_enough(args.limit))
    absent = [a for a in archives if not is_unpacked(args.root / a.name, args.root)]
    size = sum(archive.n_bytes for archive in absent)
    print(f"To download: {len(absent)} of {len(archives)} archives, {size / 1e9:.1f} GB")
    _name_tables(args.root)
    if args.dry_run:
        return
    begun = [part_of(args.root / archive.name) for archive in absent]
    parts = sum(path.stat().st_size for path in begun if path.exists())
    unpacked = max((a.n_bytes for a in absent), default=0) if args.remove_archives else size
    check_space(args.root, max(0, size - parts) + unpacked, "downloading and unpacking")
    for archive in absent:
        fetch(archive, args.root, progress=not args.quiet)
        if args.remove_archives:
            # At once, so that the disk holds one archive at a time.
            path = args.root / archive.name
            if error := unpack(path, args.root, remove=True, progress=not args.quiet):
                raise PrepareError(f"{path} {error}")


def _enough(limit: int | None) -> tuple[Archive, ...]:
    """The first archives that hold `limit` images together."""
    if limit is None:
        return ARCHIVES
    held = np.cumsum([images for *_, images in _BOX])
    return ARCHIVES[: int(np.searchsorted(held, limit)) + 1]


def _name_tables(root: Path) -> None:
    wanted = ("BBox_List_2017.csv", "train_val_list.txt", "test_list.txt")
    missing = [name for name in wanted if not (root / name).is_file()]
    if not list(root.glob("Data_Entry_2017*.csv")):
        missing.insert(0, "Data_Entry_2017_v2020.csv")
    if missing:
        print(f"Save these yourself from {SITE} into {root}: {', '.join(missing)}.")
        print("Without the tables those of the package torchxrayvision are taken; without the")
        print("lists the course splits by patient at random.")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Prepare a download of NIH ChestX-ray14 for the course.",
        epilog="example: python data_scripts/prepare_nih.py /data/nih --download nih --limit 100"
        f"\n\n{STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser, size=PRESETS["paper"]["pretrain"].cache_size)
    parser.add_argument(
        "--download",
        choices=["nih", "kaggle"],
        help="first download into ROOT the NIH's own archives (45 GB, and as much again "
        "unpacked); or say how to get Kaggle's copy or its sample of 5%%, and stop",
    )
    parser.add_argument(
        "--links", type=Path, help="with --download nih: other links, lines of ADDRESS NAME [MD5]"
    )
    args = parser.parse_args(arguments)
    if args.links and args.download != "nih":
        parser.error("--links goes with --download nih")
    return args


def _run(args: argparse.Namespace) -> int:
    if args.download == "kaggle":
        print(KAGGLE.format(root=args.root))
        return DONE
    if args.download:
        download(args)
        if args.dry_run:
            return DONE
    elif not args.root.is_dir():
        raise PrepareError(f"{args.root}: no such folder; name the download, or use --download")
    return prepare(SOURCE, args)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit status."""
    args = _parse(arguments)
    return exit_status(lambda: _run(args), "prepare_nih")


if __name__ == "__main__":
    sys.exit(main())
