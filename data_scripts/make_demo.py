"""Make the course's demo data: synthetic radiographs in the formats of the real downloads.

    python data_scripts/make_demo.py
    python data_scripts/make_demo.py --out data/demo --seed 0 --workers 2

writes nih/ (images/*.png, Data_Entry_2017_v2020.csv, BBox_List_2017.csv, train_val_list.txt,
test_list.txt), vindr/ (train/*.dicom, train.csv) and, last, demo.json. The pictures are phantoms
(cxr_helpers/phantom); nobody was X-rayed for them and no clinical conclusion may be drawn.

What is real: the rows. Which findings, views, sexes, ages and detector sizes come together in an
NIH-like patient, and which findings which of the 17 VinDr readers marked in an image, are drawn
from the real tables that the package torchxrayvision carries. Patient and image names are new.
Exceptions: at most 25 images a patient, Hernia in at least five patients, and each VinDr class in
at least six images, so that a split has some. NIH labels are as noisy as measured: the finding is
drawn on the share of labelled images that re-reading confirmed, and on some without the label
(`NIH_NOISE`). In VinDr-like images a finding's contrast depends on how many readers marked it.

One seed gives the same bytes, whatever the number of workers.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import hashlib
import importlib.util
import io
import json
import multiprocessing
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from tqdm import tqdm

from cxr_helpers import phantom

MIN_PER_CLASS = 6
MAX_IMAGES = 25
NIH_SIZE = 256

# NIH label -> finding of the phantom.
NIH_FINDINGS = {
    "Atelectasis": "Atelectasis",
    "Cardiomegaly": "Cardiomegaly",
    "Consolidation": "Consolidation",
    "Edema": "Edema",
    "Effusion": "Pleural effusion",
    "Emphysema": "Emphysema",
    "Fibrosis": "Pulmonary fibrosis",
    "Hernia": "Hernia",
    "Infiltration": "Infiltration",
    "Mass": "Nodule/Mass",
    "Nodule": "Nodule/Mass",
    "Pleural_Thickening": "Pleural thickening",
    "Pneumonia": "Pneumonia",
    "Pneumothorax": "Pneumothorax",
}
LASTING = {
    "Cardiomegaly",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
}
# Share of labelled images that show the finding, and share of shown findings that are labelled.
# Source: measured for these three against the re-reads of Majkowska et al., Radiology 2020;
# for the other labels they are not known and assumed.
NIH_NOISE = {"Pneumothorax": (0.458, 0.458), "Nodule": (0.563, 0.423), "Mass": (0.563, 0.423)}
ASSUMED_NOISE = (0.85, 0.75)
NIH_BOXED = ("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule")
NIH_BOXED += ("Pneumonia", "Pneumothorax")

VINDR_CLASSES = (
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Consolidation",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Nodule/Mass",
    "Other lesion",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
)
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
# Each worker is one thread, and glibc keeps freed memory instead of giving it back to the system
# and asking again for every array (a fifth faster).
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_TOP_PAD_": "64000000",
}


# Names the drawing. Whoever changes a byte of the demo gives it another name, so that demos on disk
# are made anew; tests/data_scripts/test_make_demo.py tells when that is due.
VERSION = "6a973955f4fa"

PARTS = ("nih", "vindr", "demo.json")  # what lies in a demo

Task = tuple[str, dict[str, Any]]


class DemoError(RuntimeError):
    """The demo cannot be made; the message says why and what to do."""


def _rng(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([int(k) for k in key])))


# --- the real tables -----------------------------------------------------------------------------


@functools.lru_cache(maxsize=2)
def _read_table(name: str) -> pd.DataFrame:
    spec = importlib.util.find_spec("torchxrayvision")
    path = Path(spec.origin).parent / "data" / name if spec and spec.origin else None
    if path is None or not path.is_file():
        raise DemoError(f"torchxrayvision's table {name} is missing: pip install torchxrayvision")
    with gzip.open(path, "rt") as file:
        return pd.read_csv(file)


def _nih_rows(seed: int, n_images: int) -> pd.DataFrame:
    """Rows of drawn patients, in the real table's columns, with new names and a column `list`."""
    real = _read_table("Data_Entry_2017_v2020.csv.gz")
    sick = real["Finding Labels"] != "No Finding"
    by = pd.DataFrame({"patient": real["Patient ID"], "sick": sick})
    by["ap"] = real["View Position"] == "AP"
    by["hernia"] = real["Finding Labels"].str.contains("Hernia")
    grouped = by.groupby("patient")
    patients = grouped.mean()
    patients["n"] = grouped.size()
    rng = _rng(seed, 11)
    n_test = round(0.228 * n_images)
    weight = patients["n"] ** 0.3 * (0.05 + patients["sick"]) * (0.4 + patients["ap"])
    rarely = patients["n"].to_numpy() ** 0.15  # a mean of about 3.3 images, not 3.6
    order = np.argsort(rng.exponential(size=len(patients)) * rarely)
    keys = rng.exponential(size=len(patients)) / weight.to_numpy()
    test_order = np.argsort(keys)
    hernia = np.flatnonzero((patients["hernia"].to_numpy() > 0) & (patients["n"].to_numpy() < 8))
    hernia = rng.permutation(hernia)[:5] if n_images >= 500 else hernia[:0]
    chosen: dict[int, str] = {}
    for name, limit, candidates, cap in (
        ("test", n_test, [*hernia[:2], *test_order], 10),
        ("train_val", n_images - n_test, [*hernia[2:], *order], MAX_IMAGES),
    ):
        total = 0
        for i in candidates:
            patient, n = int(patients.index[i]), min(int(patients["n"].iloc[i]), cap)
            if total >= limit:
                break
            if patient not in chosen and total + n <= limit + 2:
                chosen[patient] = name
                total += n
    rows = real[real["Patient ID"].isin(chosen)].copy()
    rows["list"] = rows["Patient ID"].map(chosen)
    rank = rows.groupby("Patient ID").cumcount()
    rows = rows[rank < np.where(rows["list"] == "test", 10, MAX_IMAGES)]
    numbers = dict(zip(chosen, rng.permutation(len(chosen)) + 1, strict=True))
    rows["Patient ID"] = rows["Patient ID"].map(numbers)
    rows = rows.sort_values(["Patient ID", "Follow-up #"], kind="stable").reset_index(drop=True)
    follow = rows.groupby("Patient ID").cumcount()
    rows["Follow-up #"] = follow
    rows["Image Index"] = [
        f"{p:08d}_{k:03d}.png" for p, k in zip(rows["Patient ID"], follow, strict=True)
    ]
    return rows


def _vindr_rows(seed: int, n_images: int) -> list[dict[str, Any]]:
    """For each image its name and, per reader, the number of boxes of each class."""
    real = _read_table("vinbigdata-train.csv.gz")
    rng = _rng(seed, 12)
    marked = real[real["class_id"] < 14]
    counts = marked.groupby(["image_id", "class_id", "rad_id"]).size()
    abnormal = np.array(sorted(marked["image_id"].unique()))
    normal = np.array(sorted(set(real["image_id"]) - set(abnormal)))
    n_abnormal = round(n_images * len(abnormal) / real["image_id"].nunique())
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


# --- NIH-like ------------------------------------------------------------------------------------


def _nih_truth(seed: int, number: int, image: int, labels: set[str], share: dict[str, float]):
    """The findings that the picture shows: the labels through the noise of labelling."""
    shown = []
    for i, label in enumerate(NIH_FINDINGS):
        lasting = label in LASTING
        confirmed = _rng(seed, 21, number, i, 0 if lasting else image + 1).uniform()
        ppv, sensitivity = NIH_NOISE.get(label, ASSUMED_NOISE)
        p = share.get(label, 0.0)
        missed = p * ppv * (1 / sensitivity - 1) / max(1 - p, 0.05)
        if label in labels and confirmed < ppv:
            shown.append((label, False))
        elif label not in labels and confirmed > 1 - missed:
            shown.append((label, True))
    return shown


def _nih_lesions(seed: int, patient: phantom.Patient, image: int, shown) -> list[tuple[str, Any]]:
    """One or more lesions per shown finding; lasting ones keep their place from image to image."""
    lesions = []
    for label, missed in shown:
        index = list(NIH_FINDINGS).index(label)
        kept = label in LASTING
        rng = _rng(seed, 22, patient.number, index, 0 if kept else image + 1)
        several = {"Infiltration": 4, "Nodule": 4, "Effusion": 2, "Fibrosis": 4, "Pneumonia": 2}
        several |= {"Pleural_Thickening": 3, "Consolidation": 2}
        n = int(rng.integers(1, several.get(label, 1) + 1))
        base = rng.uniform(0.0, 0.35) if missed else rng.beta(2.6, 1.2)
        side = int(rng.choice((-1, 1)))
        for k in range(n):
            drift = _rng(seed, 23, patient.number, index, image, k).normal(0, 0.08)
            severity = float(np.clip(base + drift, 0, 1))
            lesion = phantom.draw_lesion(NIH_FINDINGS[label], patient, rng, severity=severity)
            if label in ("Nodule", "Mass"):
                size = rng.uniform(1.3, 3.0) if label == "Nodule" else rng.uniform(3.2, 7.5)
                lesion = replace(lesion, width=size, height=size * rng.uniform(0.8, 1.2))
            if label in ("Effusion", "Pneumothorax"):
                grow = 2.0 if label == "Effusion" else 1.3
                lesion = replace(lesion, width=lesion.width * grow, height=lesion.height * grow)
            lesion = replace(lesion, side=side if k % 2 == 0 else -side)
            lesions.append((label, lesion))
    return lesions


def _make_nih_patient(task: dict[str, Any]) -> list[dict[str, Any]]:
    """Draw all images of one patient; return the boxes."""
    seed, number, folder = task["seed"], task["number"], Path(task["folder"])
    rows = task["rows"]
    age = min(float(rows[0]["age"]), 95.0)
    patient = phantom.draw_patient(seed, number, sex=rows[0]["sex"], age=age)
    boxes = []
    for k, row in enumerate(rows):
        acquisition = phantom.draw_acquisition(
            seed,
            number,
            k,
            site="nih",
            view=row["view"],
            image_hw=(NIH_SIZE, NIH_SIZE),
            field_cm=row["field_cm"],
        )
        shown = _nih_truth(seed, number, k, set(row["labels"]), task["share"])
        lesions = _nih_lesions(seed, patient, k, shown)
        made = phantom.render(patient, acquisition, tuple(lesion for _, lesion in lesions))
        pixels = np.round(made.pixels * 255).astype(np.uint8)
        rgba = _rng(seed, 24, number, k).uniform() < 0.005
        image = Image.fromarray(pixels)
        image = image.convert("RGBA") if rgba else image
        image.save(folder / row["name"], compress_level=4)
        for (label, _), box in zip(lesions, made.boxes, strict=True):
            if box is not None and label in row["labels"] and label in NIH_BOXED:
                boxes.append({"name": row["name"], "label": label, "xyxy": box.xyxy})
    return boxes


def _nih_tasks(seed: int, rows: pd.DataFrame, folder: Path) -> list[Task]:
    images = folder / "images"
    images.mkdir(parents=True)
    labels = rows["Finding Labels"].str.split("|")
    share = labels.explode().value_counts() / len(rows)
    share = {k: float(v) for k, v in share.items()}
    tasks = []
    for number, group in rows.groupby("Patient ID"):
        described = [
            {
                "name": r["Image Index"],
                "labels": r["Finding Labels"].split("|"),
                "view": r["View Position"],
                "sex": r["Patient Gender"],
                "age": r["Patient Age"],
                "field_cm": (
                    r["Height]"] * r["y]"] / 10,
                    r["OriginalImage[Width"] * r["OriginalImagePixelSpacing[x"] / 10,
                ),
            }
            for _, r in group.iterrows()
        ]
        task = {"seed": seed, "number": int(number), "rows": described, "share": share}
        tasks.append(("nih", task | {"folder": str(images)}))
    return tasks


def _write_nih(rows: pd.DataFrame, boxes: list[dict[str, Any]], folder: Path) -> None:
    """The tables and lists, under the real files' headers."""
    columns = [c for c in rows.columns if c != "list"]
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
    header += "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    body = rows[columns].to_csv(index=False, header=False, lineterminator="\n")
    _write_text(folder / "Data_Entry_2017_v2020.csv", header + "\n" + body)
    for name in ("train_val", "test"):
        listed = rows.loc[rows["list"] == name, "Image Index"]
        _write_text(folder / f"{name}_list.txt", "\n".join(listed) + "\n")
    test = set(rows.loc[rows["list"] == "test", "Image Index"])
    scale = 1024 / NIH_SIZE  # the real table's boxes are those of the 1024 x 1024 images
    lines = ["Image Index,Finding Label,Bbox [x,y,w,h],,,"]
    for box in boxes:
        if box["name"] in test:
            x0, y0, x1, y1 = (scale * v for v in box["xyxy"])
            label = "Infiltrate" if box["label"] == "Infiltration" else box["label"]
            lines.append(f"{box['name']},{label},{x0},{y0},{x1 - x0},{y1 - y0},,,")
    _write_text(folder / "BBox_List_2017.csv", "\n".join(lines) + "\n")


# --- VinDr-like ----------------------------------------------------------------------------------


def _vindr_shape(rng: np.random.Generator) -> tuple[tuple[int, int], tuple[float, float]]:
    """Pixels and field of view in cm (height, width): 13% square, most of the rest portrait."""
    kind = rng.uniform()
    aspect = (
        1.0 if kind < 0.13 else rng.uniform(1.08, 1.24) if kind < 0.8 else rng.uniform(0.82, 0.95)
    )
    width_cm = rng.uniform(33.0, 39.0) * (1.05 if aspect <= 1 else 1.0)
    long = int(rng.integers(288, 321))
    height, width = (long, round(long / aspect)) if aspect > 1 else (round(long * aspect), long)
    return (height, width), (width_cm * height / width, width_cm)


def _reader_boxes(
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


def _vindr_lesions(
    rng: np.random.Generator, patient: phantom.Patient, marks
) -> list[tuple[int, Any]]:
    """Lesions of each marked class; the more readers marked it, the plainer it is."""
    lesions = []
    for class_id, by_reader in sorted(marks.items()):
        low, high = ((0.2, 0.85), (0.5, 1.0), (0.7, 1.0))[len(by_reader) - 1]
        for k in range(min(max(by_reader.values()), 8)):
            severity = rng.uniform(low, high) * (1.0 if k == 0 else rng.uniform(0.5, 1.0))
            name = VINDR_CLASSES[class_id]
            lesion = phantom.draw_lesion(name, patient, rng, severity=severity)
            if k == 1:
                lesion = replace(lesion, side=-lesions[-1][1].side)
            lesions.append((class_id, lesion))
    return lesions


def _make_vindr_image(task: dict[str, Any]) -> list[list[Any]]:
    """Draw one image, write its DICOM file; return its rows of train.csv."""
    seed, number = task["seed"], task["number"]
    rng = _rng(seed, 31, number)
    abnormal = bool(task["marks"])
    age = float(np.clip(rng.normal(58 if abnormal else 44, 16), 16, 92))
    sex = "M" if rng.uniform() < 0.52 else "F"
    patient = phantom.draw_patient(seed, 1_000_000 + number, sex=sex, age=age)
    hw, field_cm = _vindr_shape(rng)
    view = "AP" if rng.uniform() < (0.12 if abnormal else 0.03) else "PA"
    acquisition = phantom.draw_acquisition(
        seed, patient.number, 0, site="vindr", view=view, image_hw=hw, field_cm=field_cm
    )
    lesions = _vindr_lesions(rng, patient, task["marks"])
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
                boxes = _reader_boxes(rng, found[class_id], n, READER_JITTER[name], hw)
                drawn += [[task["id"], name, class_id, reader, *map(float, b)] for b in boxes]
        lines += drawn or [[task["id"], "No finding", 14, reader, "", "", "", ""]]
    _write_dicom(Path(task["folder"]) / f"{task['id']}.dicom", made.pixels, seed, number)
    return lines


def _write_dicom(path: Path, pixels: np.ndarray, seed: int, number: int) -> None:
    """Write gray [0, 1] as a de-identified DICOM file, as varied as the real ones are."""
    rng = _rng(seed, 32, number)
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


def _vindr_tasks(seed: int, images: list[dict[str, Any]], folder: Path) -> list[Task]:
    train = folder / "train"
    train.mkdir(parents=True)
    return [("vindr", image | {"seed": seed, "folder": str(train)}) for image in images]


def _write_vindr(seed: int, lines: list[list[Any]], folder: Path) -> None:
    """train.csv, rows in a random order as Kaggle's."""
    order = _rng(seed, 33).permutation(len(lines))
    text = ["image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"]
    text += [",".join(map(str, lines[i])) for i in order]
    _write_text(folder / "train.csv", "\n".join(text) + "\n")


# --- all of it -----------------------------------------------------------------------------------


def _write_text(path: Path, text: str) -> None:
    path.write_bytes(text.encode())


def _work(task: Task) -> list[Any]:
    kind, what = task
    return _make_nih_patient(what) if kind == "nih" else _make_vindr_image(what)


def _run(tasks: list[Task], workers: int, bar: tqdm) -> list[list[Any]]:
    """Results in the order of the tasks, whatever the number of workers."""
    results = []
    if workers <= 1:
        for task in tasks:
            results.append(_work(task))
            bar.update(len(task[1].get("rows", "1")))
        return results
    before = {k: os.environ.get(k) for k in WORKER_ENVIRONMENT}
    os.environ.update(WORKER_ENVIRONMENT)  # children read it as they start
    try:
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            for task, result in zip(tasks, pool.imap(_work, tasks, chunksize=4), strict=True):
                results.append(result)
                bar.update(len(task[1].get("rows", "1")))
    finally:
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.__setitem__(key, value)
    return results


def is_whole(out: Path, *, seed: int, n_nih: int, n_vindr: int) -> bool:
    """Whether `out` already holds the demo of this seed, version and size."""
    try:
        stamp = json.loads((out / "demo.json").read_text())
    except (OSError, ValueError):
        return False
    asked = {"seed": seed, "version": VERSION, "n_nih": n_nih, "n_vindr": n_vindr}
    return all(stamp.get(key) == value for key, value in asked.items())


def _alive(pid: int) -> bool:
    if os.name == "nt":
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sweep(out: Path) -> None:
    """Remove what an interrupted run left beside `out`: its folder's name ends with its process."""
    for left in out.parent.glob(f"{out.name}.partial-*"):
        pid = left.name.removeprefix(f"{out.name}.partial-").removeprefix("old-")
        if not pid.isdigit() or _strangers(left):
            continue
        old = time.time() - left.stat().st_mtime > 3600
        if old or not _alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def _strangers(folder: Path) -> list[str]:
    """Names in a folder that no demo has."""
    names = (p.name for p in folder.iterdir())
    return sorted(name for name in names if name not in PARTS and not name.startswith("."))


def make_demo(
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    n_nih: int = 1500,
    n_vindr: int = 1600,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Make the demo data in the folder `out`, unless they are already there.

    Args:
        out: folder to make; an older demo in it is replaced once the new one is whole.
        seed: not negative; the same seed gives the same bytes.
        n_nih: about how many NIH-like images (patients are drawn whole).
        n_vindr: how many VinDr-like images.
        workers: processes; None takes one per core. 1 works in this process.
        progress: whether to show a progress bar on stderr.

    Returns:
        The folder.

    Raises:
        DemoError: bad numbers, a folder that is no demo, or a disk that cannot be written.
    """
    out = Path(out)
    if seed < 0 or n_nih < 1 or n_vindr < 1 or (workers is not None and workers < 1):
        raise DemoError("seed must be 0 or more; workers and the numbers of images 1 or more")
    if is_whole(out, seed=seed, n_nih=n_nih, n_vindr=n_vindr):
        return out
    if out.exists() and not out.is_dir():
        raise DemoError(f"{out} is a file: name a folder with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / "demo.json").is_file():
        raise DemoError(f"{out} holds other files than a demo: name another folder with --out")
    if out.is_dir() and (strangers := _strangers(out)):
        raise DemoError(
            f"{out} holds {strangers[0]!r}, which is no part of a demo and would be lost: move it "
            "away, or name another folder with --out"
        )
    part = out.with_name(f"{out.name}.partial-{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        _fill(part, seed, n_nih, n_vindr, workers or os.cpu_count() or 1, progress)
        if is_whole(out, seed=seed, n_nih=n_nih, n_vindr=n_vindr):
            return out  # another process was faster
        if out.exists():
            old = part.with_name(part.name.replace(".partial-", ".partial-old-"))
            out.rename(old)
            part.rename(out)
            shutil.rmtree(old, ignore_errors=True)
        else:
            part.rename(out)
    except OSError as error:
        raise DemoError(
            f"cannot write the demo to {out} ({error.strerror or error}): "
            "free about 500 MB there or name another folder with --out"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


def _fill(part: Path, seed: int, n_nih: int, n_vindr: int, workers: int, progress: bool) -> None:
    rows, images = _nih_rows(seed, n_nih), _vindr_rows(seed, n_vindr)
    nih, vindr = part / "nih", part / "vindr"
    tasks = [*_nih_tasks(seed, rows, nih), *_vindr_tasks(seed, images, vindr)]
    total = len(rows) + len(images)
    every = 0.3 if sys.stderr.isatty() else 15.0  # seconds; a log gets few lines
    with tqdm(
        total=total, unit="image", desc="demo data", disable=not progress, mininterval=every
    ) as bar:
        results = _run(tasks, workers, bar)
    kinds = [kind for kind, _ in tasks]
    flat = {
        k: [r for kd, rs in zip(kinds, results, strict=True) if kd == k for r in rs]
        for k in ("nih", "vindr")
    }
    _write_nih(rows, flat["nih"], nih)
    _write_vindr(seed, flat["vindr"], vindr)
    stamp = {
        "seed": seed,
        "version": VERSION,
        "n_nih": n_nih,
        "n_vindr": n_vindr,
        "nih_images": len(rows),
        "nih_patients": int(rows["Patient ID"].nunique()),
        "vindr_images": len(images),
        "vindr_abnormal": len({line[0] for line in flat["vindr"] if line[2] != 14}),
        "vindr_boxes": sum(line[2] != 14 for line in flat["vindr"]),
        "note": "synthetic radiographs; no clinical conclusion may be drawn from them",
    }
    _write_text(part / "demo.json", json.dumps(stamp, indent=1) + "\n")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Make synthetic radiographs in the formats of NIH ChestX-ray14 and VinDr-CXR.",
        epilog="example: python data_scripts/make_demo.py --out data/demo --seed 0 --workers 2",
    )
    default = Path(__file__).resolve().parents[1] / "data" / "demo"
    parser.add_argument("--out", type=Path, default=default, help="folder to make (data/demo)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (0)")
    parser.add_argument("--workers", type=int, help="processes (one per core)")
    parser.add_argument("--nih", type=int, default=1500, help="NIH-like images (about 1500)")
    parser.add_argument("--vindr", type=int, default=1600, help="VinDr-like images (1600)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit status."""
    args = _parse(arguments)
    sizes = {"seed": args.seed, "n_nih": args.nih, "n_vindr": args.vindr}
    if is_whole(args.out, **sizes):
        os.utime(args.out / "demo.json")  # so that make, which compares times, is content too
        print(f"{args.out} already holds the demo of seed {args.seed}; nothing to do.")
        return 0
    start = time.perf_counter()
    try:
        out = make_demo(args.out, workers=args.workers, **sizes)
    except DemoError as error:
        print(f"make_demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("make_demo: interrupted; nothing was kept", file=sys.stderr)
        return 130
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file()) / 1e6
    print(f"{out}: {size:.0f} MB in {time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
