"""The VinDr-like half of the demo: DICOM files, and what each reader marked in them."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from demo_tables import LOOKS, Look, Task, read_table, seeded, write_text
from pydicom.dataset import FileDataset, FileMetaDataset

from cxr_helpers import phantom
from cxr_helpers.data.vindr import CLASSES as VINDR_CLASSES

MIN_PER_CLASS = 6
# Of the images, against 0.29 in the real table: detectors learn from and are tested on these alone.
ABNORMAL_SHARE = 0.75

# Standard deviation of a reader's box edges in shares of the box, set so that two readers'
# boxes agree as the real ones do (F1 at IoU 0.5; tests/data_scripts/test_make_demo.py compares).
READER_JITTER = {
    "Aortic enlargement": 0.095,
    "Atelectasis": 0.18,
    "Calcification": 0.135,
    "Cardiomegaly": 0.09,
    "Consolidation": 0.12,
    "ILD": 0.145,
    "Infiltration": 0.145,
    "Lung Opacity": 0.15,
    "Nodule/Mass": 0.12,
    "Other lesion": 0.17,
    "Pleural effusion": 0.17,
    "Pleural thickening": 0.18,
    "Pneumothorax": 0.11,
    "Pulmonary fibrosis": 0.155,
}


def vindr_rows(seed: int, n_images: int) -> list[dict[str, Any]]:
    """For each image its name and, per reader, the number of boxes of each class."""
    real = read_table("vinbigdata-train.csv.gz")
    rng = seeded(seed, 12)
    marked = real[real["class_id"] < 14]
    counts = marked.groupby(["image_id", "class_id", "rad_id"]).size()
    abnormal = np.array(sorted(marked["image_id"].unique()))
    normal = np.array(sorted(set(real["image_id"]) - set(abnormal)))
    n_abnormal = round(n_images * ABNORMAL_SHARE)
    classes = marked.drop_duplicates(["image_id", "class_id"]).groupby("class_id")["image_id"]
    first: list[str] = []
    if n_abnormal >= 14 * MIN_PER_CLASS:
        for _, ids in sorted(classes, key=lambda item: len(item[1])):
            pool = rng.permutation(np.array(sorted(ids)))
            have = len(set(first) & set(pool))
            missing = max(MIN_PER_CLASS - have, 0)
            first += [i for i in pool if i not in set(first)][:missing]
    rest = [i for i in rng.permutation(abnormal) if i not in set(first)]
    picked = [*first, *rest][:n_abnormal] + list(rng.permutation(normal))[: n_images - n_abnormal]
    readers = real.groupby("image_id")["rad_id"].unique()
    images = []
    order = rng.permutation(len(picked))
    for k, i in enumerate(order):
        real_id = picked[i]
        marks: dict[int, dict[str, int]] = {}
        if i < n_abnormal:
            for (class_id, reader), n in counts.loc[real_id].items():
                marks.setdefault(int(class_id), {})[reader] = int(n)
        name = hashlib.md5(f"demo {seed} {k}".encode(), usedforsecurity=False).hexdigest()
        images.append(
            {"number": k, "id": name, "readers": sorted(readers[real_id]), "marks": marks}
        )
    return images


def draw_shape(rng: np.random.Generator) -> tuple[tuple[int, int], tuple[float, float]]:
    """Pixels and field of view in cm (height, width): 13% square, most of the rest portrait."""
    kind = rng.uniform()
    aspect = (
        1.0 if kind < 0.13 else rng.uniform(1.08, 1.24) if kind < 0.8 else rng.uniform(0.82, 0.95)
    )
    width_cm = rng.uniform(33.0, 39.0) * (1.05 if aspect <= 1 else 1.0)
    long = int(rng.integers(288, 321))
    height, width = (long, round(long / aspect)) if aspect > 1 else (round(long * aspect), long)
    return (height, width), (width_cm * height / width, width_cm)


def reader_boxes(
    rng: np.random.Generator, found: list[phantom.Box], n: int, jitter: float, hw: tuple[int, int]
) -> list[list[int]]:
    """The `n` boxes one reader draws around `found`, in whole pixels inside the image."""
    weight = np.array([box.contrast for box in found]) + 0.05
    picked = rng.choice(len(found), min(n, len(found)), replace=False, p=weight / weight.sum())
    boxes = []
    for i in sorted(picked):
        x0, y0, x1, y1 = found[i].xyxy
        w, h = x1 - x0, y1 - y0
        edges = np.array([x0, y0, x1, y1]) + rng.normal(0, jitter, 4) * (w, h, w, h)
        x0, x1 = np.clip(np.sort(np.round(edges[[0, 2]])), 0, hw[1]).astype(int)
        y0, y1 = np.clip(np.sort(np.round(edges[[1, 3]])), 0, hw[0]).astype(int)
        x0, y0 = min(x0, hw[1] - 2), min(y0, hw[0] - 2)
        boxes.append([int(x0), int(y0), int(max(x1, x0 + 2)), int(max(y1, y0 + 2))])
    return boxes


def draw_lesions(
    rng: np.random.Generator, patient: phantom.Patient, marks, look: Look
) -> list[tuple[int, Any]]:
    """Lesions of each marked class; the more readers marked it, the plainer it is."""
    lesions = []
    for class_id, by_reader in sorted(marks.items()):
        low, high = ((0.2, 0.85), (0.5, 1.0), (0.7, 1.0))[len(by_reader) - 1]
        for k in range(min(max(by_reader.values()), 8)):
            severity = rng.uniform(low, high) * (1.0 if k == 0 else rng.uniform(0.5, 1.0))
            name = VINDR_CLASSES[class_id]
            lesion = phantom.draw_lesion(
                name,
                patient,
                rng,
                severity=look.severity(severity),
                size=look.size,
                plain=look.plain,
            )
            if k == 1:
                lesion = replace(lesion, side=-lesions[-1][1].side)
            lesions.append((class_id, lesion))
    return lesions


def make_image(task: dict[str, Any]) -> list[dict[str, list[list[Any]]]]:
    """Draw one image, write its DICOM file; return its readers' rows and its exact boxes."""
    seed, number, look = task["seed"], task["number"], LOOKS[task["look"]]
    rng = seeded(seed, 31, number)
    abnormal = bool(task["marks"])
    age = float(np.clip(rng.normal(58 if abnormal else 44, 16), 16, 92))
    sex = "M" if rng.uniform() < 0.52 else "F"
    patient = phantom.draw_patient(seed, 1_000_000 + number, sex=sex, age=age)
    hw, field_cm = draw_shape(rng)
    view = "AP" if rng.uniform() < (0.12 if abnormal else 0.03) else "PA"
    acquisition = phantom.draw_acquisition(
        seed,
        patient.number,
        0,
        site="vindr",
        view=view,
        image_hw=hw,
        field_cm=field_cm,
        variety=look.variety,
    )
    lesions = draw_lesions(rng, patient, task["marks"], look)
    made = phantom.render(patient, acquisition, tuple(lesion for _, lesion in lesions))
    found: dict[int, list[phantom.Box]] = {}
    for (class_id, _), box in zip(lesions, made.boxes, strict=True):
        if box is not None:
            found.setdefault(class_id, []).append(box)
    lines = []
    for reader in task["readers"]:
        drawn = []
        for class_id, by_reader in sorted(task["marks"].items()):
            n = by_reader.get(reader, 0)
            if n and class_id in found:
                name = VINDR_CLASSES[class_id]
                boxes = reader_boxes(rng, found[class_id], n, READER_JITTER[name], hw)
                drawn += [[task["id"], name, class_id, reader, *map(float, b)] for b in boxes]
        lines += drawn or [[task["id"], "No finding", 14, reader, "", "", "", ""]]
    _write_dicom(Path(task["folder"]) / f"{task['id']}.dicom", made.pixels, seed, number)
    exact = [
        [task["id"], VINDR_CLASSES[class_id], class_id, *map(float, box.xyxy)]
        for class_id, boxes in sorted(found.items())
        for box in boxes
    ]
    return [{"readers": lines, "exact": exact}]


def _write_dicom(path: Path, pixels: np.ndarray, seed: int, number: int) -> None:
    """Write gray [0, 1] as a de-identified DICOM file, as varied as the real ones are."""
    rng = seeded(seed, 32, number)
    bits = int(rng.choice((10, 12, 14, 16), p=(0.08, 0.52, 0.30, 0.10)))
    inverted = rng.uniform() < 0.2
    top = 2**bits - 1
    low, high = rng.uniform(0.02, 0.12) * top, rng.uniform(0.7, 0.97) * top
    stored = low + (1 - pixels if inverted else pixels).astype(np.float64) * (high - low)
    stored = np.round(stored + rng.normal(0, 0.0012 * top, pixels.shape))
    stored = np.clip(stored, 0, top).astype("<u2")
    root = "1.2.826.0.1.3680043.8.498"  # pydicom's own root
    uids = [f"{root}.{seed}.{number + 1}.{k}" for k in (1, 2, 3)]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = uids[0]
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.ImplementationClassUID = f"{root}.1"
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, uids[0]
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uids[1], uids[2]
    ds.Modality = "DX"
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, bits, bits - 1
    ds.PixelRepresentation = 0
    center, width = round((low + high) / 2), round(high - low)
    window = rng.uniform()
    if window > 0.15:
        several = window > 0.9
        ds.WindowCenter = [center, round(0.8 * center)] if several else center
        ds.WindowWidth = [width, round(0.7 * width)] if several else width
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    ds.LossyImageCompression = "00"
    ds.PixelData = stored.tobytes()
    packing = rng.uniform()
    if packing < 0.06:
        ds.compress(pydicom.uid.RLELossless, stored, generate_instance_uid=False)
    elif packing < 0.15:
        ds.compress(pydicom.uid.JPEG2000Lossless, stored, generate_instance_uid=False)
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    path.write_bytes(buffer.getvalue())


def vindr_tasks(seed: int, look: str, images: list[dict[str, Any]], folder: Path) -> list[Task]:
    """One piece of work for each image; makes the folder of the files."""
    train = folder / "train"
    train.mkdir(parents=True)
    shared = {"seed": seed, "look": look, "folder": str(train)}
    return [("vindr", image | shared) for image in images]


def write_vindr(seed: int, drawn: list[dict[str, list[list[Any]]]], folder: Path) -> None:
    """train.csv, rows in a random order as Kaggle's, and the boxes of what was really drawn."""
    lines, exact = ([row for one in drawn for row in one[key]] for key in ("readers", "exact"))
    order = seeded(seed, 33).permutation(len(lines))
    text = ["image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"]
    text += [",".join(map(str, lines[i])) for i in order]
    write_text(folder / "train.csv", "\n".join(text) + "\n")
    text = ["image_id,class_name,class_id,x_min,y_min,x_max,y_max"]
    text += [",".join(map(str, row)) for row in exact]
    write_text(folder / "exact_boxes.csv", "\n".join(text) + "\n")
