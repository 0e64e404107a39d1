"""Prepare a download of VinDr-CXR for the course: decode the DICOM files once, tidy tables.

    python data_scripts/prepare_vindr.py /data/vindr
    python data_scripts/prepare_vindr.py /data/vindr --limit 100 --dry-run

Into ROOT/packed go vindr_640/ (the packed images, see cxr_helpers/data/packed.py) and
vindr_tables/: images.csv (one row an image, in the order of the packed images), readings.csv,
boxes.csv, fused.csv (one truth from the readers' boxes), dropped_rows.csv (rows that say nothing
usable, with the reason), set_aside.csv (each file that is not among the packed images, with the
reason) and no_file.csv (images of the table that are not there). The course finds them there. It
can be killed at any moment; started again it goes on and ends in the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd
from fetching import PrepareError
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

from cxr_helpers.course.core.data import read_dicom_pixels, vindr_table
from cxr_helpers.course.core.settings import PRESETS
from cxr_helpers.data import consensus, vindr
from cxr_helpers.data.packed import PackedImages

# Kaggle's page tells the size. 23 GB is a floor: 15,000 files of the smallest size that occurs,
# 927 x 823 pixels of 2 bytes.
HOW_TO_GET = {
    "kaggle": """Kaggle gives the files to its users, by a program of its own:
  1. accept the rules at https://www.kaggle.com/c/vinbigdata-chest-xray-abnormalities-detection;
  2. pip install kaggle, and log in as https://github.com/Kaggle/kaggle-api tells;
  3. download (at the very least 23 GB, and as much again unpacked; this command can be stopped and
     started again):
     kaggle competitions download vinbigdata-chest-xray-abnormalities-detection -p {root}
  4. run this script again without --download; it unpacks the archive.""",
    "physionet": """PhysioNet gives the files to people, not to scripts:
  1. get credentialed access and sign the agreement at
     https://physionet.org/content/vindr-cxr/1.0.0/ (it forbids passing the images on);
  2. download, as that page says (this command can be stopped and started again):
     wget -r -N -c -np -nH --cut-dirs=3 -P {root} --user YOUR_NAME --ask-password \\
       https://physionet.org/files/vindr-cxr/1.0.0/
  3. put annotations_train.csv and image_labels_train.csv (they come with the download) into
     {root}, beside train/;
  4. run this script again without --download.""",
}


def survey(root: Path) -> Survey:
    """What of the table is there, by name; with PhysioNet's image labels if they lie beside it."""
    path = vindr_table(root)
    labels = path.with_name(path.name.replace("annotations", "image_labels"))
    beside = labels if labels != path and labels.is_file() else None
    readings = vindr.read_readings(path, image_labels=beside)
    named = sorted(set(readings.readings["image_id"]))
    return surveyed(root, vindr.find_images(root), named, readings)


def tables(root: Path, survey: Survey, images: PackedImages) -> dict[str, pd.DataFrame]:
    """Sizes, readings and boxes of the packed images, and the rows left out.

    The sizes of the images are known only now: boxes are clipped to their image, and those wholly
    outside are named among the rows left out.
    """
    hw = {i: tuple(size) for i, size in zip(images.image_ids, images.original_hw, strict=True)}
    found = vindr.clip_boxes(survey.table, hw)
    readings, boxes = (
        table[table["image_id"].isin(hw.keys())].reset_index(drop=True)
        for table in (found.readings, found.boxes)
    )
    sizes = {"height": images.original_hw[:, 0], "width": images.original_hw[:, 1]}
    return {
        "images.csv": pd.DataFrame({"image_id": images.image_ids, **sizes}),
        "readings.csv": readings,
        "boxes.csv": boxes,
        "fused.csv": consensus.fuse_readings(boxes),
        "dropped_rows.csv": found.dropped,
    }


SOURCE = Source(
    name="vindr",
    read=read_dicom_pixels,
    survey=survey,
    tables=tables,
    archives=("*.zip",),
    scales={PRESETS[scale]["detect"].image_size: scale for scale in PRESETS},
)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Prepare a download of VinDr-CXR for the course.",
        epilog="example: python data_scripts/prepare_vindr.py /data/vindr --limit 100"
        f"\n\n{STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser, size=PRESETS["paper"]["detect"].image_size)
    parser.add_argument(
        "--download",
        choices=[*HOW_TO_GET],
        help="say how to get the files from there into ROOT, and stop",
    )
    return parser.parse_args(arguments)


def _run(args: argparse.Namespace) -> int:
    if args.download:
        print(HOW_TO_GET[args.download].format(root=args.root))
        return DONE
    if not args.root.is_dir():
        raise PrepareError(f"{args.root}: no such folder; name the download, or use --download")
    return prepare(SOURCE, args)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit status."""
    args = _parse(arguments)
    return exit_status(lambda: _run(args), "prepare_vindr")


if __name__ == "__main__":
    sys.exit(main())
