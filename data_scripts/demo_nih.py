"""The NIH-like half of the demo: rows, pictures, boxes and lists under the real files' headers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from demo_tables import LOOKS, Look, Task, read_table, seeded, write_text
from PIL import Image

from cxr_helpers import phantom

MAX_IMAGES = {"train_val": 25, "test": 3}  # of one patient; many test patients tell more
TEST_SHARE = 0.45  # of the images
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


def nih_rows(seed: int, n_images: int) -> pd.DataFrame:
    """Rows of drawn patients, in the real table's columns, with new names and a column `list`."""
    real = read_table("Data_Entry_2017_v2020.csv.gz")
    sick = real["Finding Labels"] != "No Finding"
    by = pd.DataFrame({"patient": real["Patient ID"], "sick": sick})
    by["ap"] = real["View Position"] == "AP"
    by["hernia"] = real["Finding Labels"].str.contains("Hernia")
    grouped = by.groupby("patient")
    patients = grouped.mean()
    patients["n"] = grouped.size()
    rng = seeded(seed, 11)
    n_test = round(TEST_SHARE * n_images)
    weight = patients["n"] ** 0.3 * (0.05 + patients["sick"]) * (0.4 + patients["ap"])
    rarely = patients["n"].to_numpy() ** 0.15  # a mean of about 3.3 images, not 3.6
    order = np.argsort(rng.exponential(size=len(patients)) * rarely)
    keys = rng.exponential(size=len(patients)) / weight.to_numpy()
    test_order = np.argsort(keys)
    hernia = np.flatnonzero((patients["hernia"].to_numpy() > 0) & (patients["n"].to_numpy() < 8))
    hernia = rng.permutation(hernia)[:5] if n_images >= 500 else hernia[:0]
    chosen: dict[int, str] = {}
    for name, limit, candidates in (
        ("test", n_test, [*hernia[:2], *test_order]),
        ("train_val", n_images - n_test, [*hernia[2:], *order]),
    ):
        total = 0
        for i in candidates:
            patient, n = int(patients.index[i]), min(int(patients["n"].iloc[i]), MAX_IMAGES[name])
            if total >= limit:
                break
            if patient not in chosen and total + n <= limit + 2:
                chosen[patient] = name
                total += n
    rows = real[real["Patient ID"].isin(chosen)].copy()
    rows["list"] = rows["Patient ID"].map(chosen)
    rank = rows.groupby("Patient ID").cumcount()
    rows = rows[rank < rows["list"].map(MAX_IMAGES)]
    numbers = dict(zip(chosen, rng.permutation(len(chosen)) + 1, strict=True))
    rows["Patient ID"] = rows["Patient ID"].map(numbers)
    rows = rows.sort_values(["Patient ID", "Follow-up #"], kind="stable").reset_index(drop=True)
    follow = rows.groupby("Patient ID").cumcount()
    rows["Follow-up #"] = follow
    rows["Image Index"] = [
        f"{p:08d}_{k:03d}.png" for p, k in zip(rows["Patient ID"], follow, strict=True)
    ]
    return rows


def _nih_truth(
    seed: int, number: int, image: int, labels: set[str], share: dict[str, float], look: Look
):
    """The findings that the picture shows: the labels through the noise of labelling."""
    shown = []
    for i, label in enumerate(NIH_FINDINGS):
        lasting = label in LASTING
        confirmed = seeded(seed, 21, number, i, 0 if lasting else image + 1).uniform()
        ppv, sensitivity = NIH_NOISE.get(label, ASSUMED_NOISE)
        if look.labels_right is not None:
            ppv = sensitivity = look.labels_right
        p = share.get(label, 0.0)
        missed = p * ppv * (1 / sensitivity - 1) / max(1 - p, 0.05)
        if label in labels and confirmed < ppv:
            shown.append((label, False))
        elif label not in labels and confirmed > 1 - missed:
            shown.append((label, True))
    return shown


def _nih_lesions(
    seed: int, patient: phantom.Patient, image: int, shown, look: Look
) -> list[tuple[str, Any]]:
    """One or more lesions per shown finding; lasting ones keep their place from image to image."""
    lesions = []
    for label, missed in shown:
        index = list(NIH_FINDINGS).index(label)
        kept = label in LASTING
        rng = seeded(seed, 22, patient.number, index, 0 if kept else image + 1)
        several = {"Infiltration": 4, "Nodule": 4, "Effusion": 2, "Fibrosis": 4, "Pneumonia": 2}
        several |= {"Pleural_Thickening": 3, "Consolidation": 2}
        n = int(rng.integers(1, several.get(label, 1) + 1))
        base = rng.uniform(0.0, 0.35) if missed else rng.beta(2.6, 1.2)
        side = int(rng.choice((-1, 1)))
        for k in range(n):
            drift = seeded(seed, 23, patient.number, index, image, k).normal(0, 0.08)
            severity = look.severity(float(np.clip(base + drift, 0, 1)))
            lesion = phantom.draw_lesion(
                NIH_FINDINGS[label],
                patient,
                rng,
                severity=severity,
                size=look.size,
                plain=look.plain,
            )
            if label in ("Nodule", "Mass"):
                size = rng.uniform(1.3, 3.0) if label == "Nodule" else rng.uniform(3.2, 7.5)
                size *= look.size
                lesion = replace(lesion, width=size, height=size * rng.uniform(0.8, 1.2))
            if label in ("Effusion", "Pneumothorax"):
                grow = 2.0 if label == "Effusion" else 1.3
                lesion = replace(lesion, width=lesion.width * grow, height=lesion.height * grow)
            lesion = replace(lesion, side=side if k % 2 == 0 else -side)
            lesions.append((label, lesion))
    return lesions


def make_patient(task: dict[str, Any]) -> list[dict[str, Any]]:
    """Draw all images of one patient; return what is in each: its name, findings and boxes."""
    seed, number, folder = task["seed"], task["number"], Path(task["folder"])
    look = LOOKS[task["look"]]
    rows = task["rows"]
    age = min(float(rows[0]["age"]), 95.0)
    patient = phantom.draw_patient(seed, number, sex=rows[0]["sex"], age=age)
    drawn = []
    for k, row in enumerate(rows):
        acquisition = phantom.draw_acquisition(
            seed,
            number,
            k,
            site="nih",
            view=row["view"],
            image_hw=(NIH_SIZE, NIH_SIZE),
            field_cm=row["field_cm"],
            variety=look.variety,
        )
        shown = _nih_truth(seed, number, k, set(row["labels"]), task["share"], look)
        lesions = _nih_lesions(seed, patient, k, shown, look)
        made = phantom.render(patient, acquisition, tuple(lesion for _, lesion in lesions))
        pixels = np.round(made.pixels * 255).astype(np.uint8)
        rgba = seeded(seed, 24, number, k).uniform() < 0.005
        image = Image.fromarray(pixels)
        image = image.convert("RGBA") if rgba else image
        image.save(folder / row["name"], compress_level=4)
        boxes = [
            (label, box.xyxy)
            for (label, _), box in zip(lesions, made.boxes, strict=True)
            if box is not None and label in row["labels"] and label in NIH_BOXED
        ]
        found = [label for label, _ in shown]
        drawn.append({"name": row["name"], "findings": found, "boxes": boxes})
    return drawn


def nih_tasks(seed: int, look: str, rows: pd.DataFrame, folder: Path) -> list[Task]:
    """One piece of work for each patient; makes the folder of the pictures."""
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
        task = {"seed": seed, "look": look, "number": int(number), "rows": described}
        tasks.append(("nih", task | {"share": share, "folder": str(images)}))
    return tasks


def write_nih(rows: pd.DataFrame, drawn: list[dict[str, Any]], folder: Path) -> None:
    """The tables and lists, under the real files' headers, and what was really drawn."""
    columns = [c for c in rows.columns if c != "list"]
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
    header += "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    body = rows[columns].to_csv(index=False, header=False, lineterminator="\n")
    write_text(folder / "Data_Entry_2017_v2020.csv", header + "\n" + body)
    for name in ("train_val", "test"):
        listed = rows.loc[rows["list"] == name, "Image Index"]
        write_text(folder / f"{name}_list.txt", "\n".join(listed) + "\n")
    test = set(rows.loc[rows["list"] == "test", "Image Index"])
    scale = 1024 / NIH_SIZE  # the real table's boxes are those of the 1024 x 1024 images
    lines = ["Image Index,Finding Label,Bbox [x,y,w,h],,,"]
    for one in drawn:
        for name, xyxy in one["boxes"] if one["name"] in test else ():
            x0, y0, x1, y1 = (scale * v for v in xyxy)
            label = "Infiltrate" if name == "Infiltration" else name
            lines.append(f"{one['name']},{label},{x0},{y0},{x1 - x0},{y1 - y0},,,")
    write_text(folder / "BBox_List_2017.csv", "\n".join(lines) + "\n")
    exact = [f"{one['name']},{'|'.join(one['findings']) or 'No Finding'}" for one in drawn]
    header = "Image Index,Exact Findings"
    write_text(folder / "exact_findings.csv", "\n".join([header, *sorted(exact)]) + "\n")
