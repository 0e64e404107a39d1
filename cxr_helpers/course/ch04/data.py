"""The images and boxes that detectors are trained on: VinDr-CXR, or NIH's own boxes without it.

VinDr-CXR is given to credentialed users only. BBox_List_2017.csv comes with NIH ChestX-ray14: few
boxes, of eight findings, drawn by one radiologist, but open to all, and with a patient for each
image.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from cxr_helpers.course.core.data import (
    VINDR_PARTS,
    BoxData,
    NihData,
    ensure_demo,
    listed,
    load_nih,
    load_vindr,
    nih_table,
    pack_once,
)
from cxr_helpers.course.core.settings import Settings, SettingsError
from cxr_helpers.data import nih, splits, vindr
from cxr_helpers.data.packed import PackedImages

BOX_TABLE = "BBox_List_2017.csv"
READER = "NIH"


def load_detection(settings: Settings) -> BoxData:
    """VinDr-CXR where this data has it, or else the boxes of an NIH download.

    Raises:
        SettingsError: it has neither; or patients with a box are among those that pretraining
            learns from.
    """
    ensure_demo(settings)
    return load_vindr(settings) if settings.vindr is not None else load_nih_boxes(settings)


def load_nih_boxes(settings: Settings) -> BoxData:
    """The images of BBox_List_2017.csv with their boxes, one reader's, split by patient.

    The classes are the findings that the table has boxes of, by name.

    Raises:
        SettingsError: there is no NIH folder, no table of boxes in it, or none of its images; or
            patients with a box are among those that pretraining learns from.
    """
    if settings.nih is None or not (settings.nih / BOX_TABLE).is_file():
        raise SettingsError(
            f"{settings.data} has neither VinDr-CXR (train/ beside train.csv) nor {BOX_TABLE} "
            "beside NIH's images; put one of the two there"
        )
    images = _boxed_images(settings)
    boxes = _boxes_in_file_pixels(settings, images)
    patients = _patients(settings, images.image_ids)
    _check_pretraining_is_free(load_nih(settings), patients)
    split = splits.split_by_patient(patients, parts=VINDR_PARTS, seed=settings.split_seed)
    drawn = boxes.assign(reader_id=READER)
    seen = pd.DataFrame({"image_id": images.image_ids, "reader_id": READER, "normal": False})
    dropped = pd.DataFrame(columns=["row", "image_id", "reason"])
    readings = vindr.Readings(drawn, seen, dropped)
    fused, names = boxes.assign(readers=1, boxes=1), tuple(sorted(set(boxes["label"])))
    return BoxData(readings, fused, images, split, names, patients)


def _patients(settings: Settings, image_ids: list[str]) -> np.ndarray:
    table = nih_table(settings.nih)
    patient = nih.read_entries(table).set_index("image_id")["patient_id"]
    if absent := sorted({*image_ids} - {*patient.index}):
        raise SettingsError(
            f"{len(absent)} images with a box are not in {table}, such as {absent[0]!r}; it names "
            f"such as {patient.index[0]!r}. Put the table of these images there"
        )
    return patient.loc[image_ids].to_numpy()


def _boxed_images(settings: Settings) -> PackedImages:
    table, files = nih.read_boxes(settings.nih / BOX_TABLE), nih.find_images(settings.nih)
    ordered = listed(files, sorted(set(table["image_id"])))
    if not ordered:
        raise SettingsError(
            f"none of the images of {BOX_TABLE}, such as {min(table['image_id'])!r}, is in "
            f"{settings.nih}, which holds such as {min(files)!r}; its archives hold them all, the "
            "small Kaggle sample only some"
        )
    size = settings.detect.image_size
    return pack_once(settings, settings.nih, f"nih_boxes_{size}", ordered, _read_square, size)


def _boxes_in_file_pixels(settings: Settings, images: PackedImages) -> pd.DataFrame:
    """The table's boxes of these images, each in pixels of its own file."""
    boxes = nih.read_boxes(settings.nih / BOX_TABLE, size=1.0)  # as shares of the image's side
    boxes = boxes[boxes["image_id"].isin(images.image_ids)].reset_index(drop=True)
    sides = dict(zip(images.image_ids, images.original_hw[:, 1], strict=True))
    side = boxes["image_id"].map(sides).to_numpy(np.float64)
    return boxes.assign(**{c: boxes[c] * side for c in ("x_min", "y_min", "x_max", "y_max")})


def _read_square(path: Path) -> np.ndarray:
    """One PNG; the table's boxes are at one scale for both sides.

    Raises:
        ValueError: the image is not square.
    """
    pixels = nih.read_image(path)
    if pixels.shape[0] != pixels.shape[1]:
        raise ValueError(f"{path}: {pixels.shape} pixels; boxes of {BOX_TABLE} fit square images")
    return pixels


def _check_pretraining_is_free(data: NihData, patients: np.ndarray) -> None:
    """Pretraining must not have seen the patients that the detector is tested on."""
    shared = set(patients) & set(data.patients[data.rows("train")])
    if shared:
        raise SettingsError(
            f"{len(shared)} of {len(set(patients))} patients with a box, such as {min(shared)}, "
            "are in the training part of pretraining. Put the official test_list.txt beside the "
            "images: it names all patients with boxes, and pretraining then leaves them out."
        )
