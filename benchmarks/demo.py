"""Is the demo as learnable as real radiographs, large enough, and quick to make?

    python benchmarks/demo.py [--seeds 0 1 2]

1. A whole demo, made anew in a temporary folder: seconds and megabytes.
2. The demo in data/demo: images and patients of its test parts; and the macro AUROC, at all labels,
   of a linear probe on random weights (one network a seed), of the same probe on 16 x 16 gray
   values, and of one who knows what was drawn. Random weights are to score as on real radiographs:
   with less there is nothing to see, with more nothing to learn. Whether networks that are trained
   from scratch score above them says linear_evaluation.py.
Status 1 where a bound is not kept. benchmarks/README.md says what was measured.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_helpers.course.ch03 import linear
from cxr_helpers.course.core.data import NihData, load_nih, load_vindr
from cxr_helpers.course.core.results import Results
from cxr_helpers.course.core.settings import Settings, load_settings
from cxr_helpers.evaluation import probe, scoring

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "data_scripts"))
from make_demo import make_demo  # noqa: E402

RANDOM, KNOWN, PIXELS_ABOVE = (0.62, 0.72), 0.90, 0.02
PATIENTS, IMAGES, ABNORMAL_TEST, ABNORMAL_TRAINING = 300, 900, 500, 600
SECONDS, MEGABYTES = 120, 700


def measure_making() -> dict[str, float]:
    """Seconds and megabytes of a whole demo."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        out = make_demo(Path(folder) / "demo", progress=False)
        seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return {"seconds": seconds, "megabytes": size / 1e6}


def known_scores(settings: Settings, data: NihData, class_names: list[str]) -> np.ndarray:
    """(N, K) of 0 and 1: what was drawn in each image."""
    table = pd.read_csv(settings.nih / "exact_findings.csv").set_index("Image Index")
    drawn = table.loc[data.entries["image_id"], "Exact Findings"].str.split("|")
    return np.array([[name in found for name in class_names] for found in drawn], float)


def measure_learning(settings: Settings, data: NihData, seeds: list[int]) -> dict:
    """Macro AUROC on the test patients, by arm; a list with a value a seed for random weights."""
    columns = linear.scorable_labels(data)
    names, labels = linear.label_names(columns), data.labels[:, columns]
    train, val, test = (data.rows(part) for part in ("train", "val", "test"))

    def macro(scores: np.ndarray) -> float:
        return float(np.nanmean(scoring.auroc(labels[test], scores)))

    def probed(arm: linear.Arm) -> float:
        found = linear.frozen_features(settings, arm, data.images)
        values = found.of(data.entries["image_id"].tolist())
        chosen_on = values[val], labels[val]
        fitted = probe.fit_probe(values[train], labels[train], *chosen_on, class_names=names)
        return macro(fitted.scores(values[test]))

    found = {"known": macro(known_scores(settings, data, names)[test]), "random": []}
    for seed in seeds:
        backbone, source = linear.pretraining.arm_backbone(settings, "random", seed=seed)
        found["random"].append(probed(linear.Arm(backbone, False, source)))
    return found | {"pixels": probed(linear.Arm(linear.Thumbnail(), False, "pixels"))}


def measure_sizes(settings: Settings, nih: NihData) -> dict[str, int]:
    """What the parts hold."""
    test, vindr = nih.rows("test"), load_vindr(settings)
    return {
        "test images": len(test),
        "test patients": len(set(nih.patients[test])),
        "abnormal test images": len(vindr.rows("test", abnormal_only=True)),
        "abnormal training images": len(vindr.rows("train", abnormal_only=True)),
    }


def verdicts(making: dict, sizes: dict, learning: dict) -> list[str]:
    """One line for each figure, with the bound it should keep."""
    random = float(np.mean(learning["random"]))
    figures = [
        ("seconds to make the demo", making["seconds"], "<=", SECONDS),
        ("megabytes of the demo", making["megabytes"], "<=", MEGABYTES),
        ("NIH-like test patients", sizes["test patients"], ">=", PATIENTS),
        ("NIH-like test images", sizes["test images"], ">=", IMAGES),
        ("VinDr-like abnormal test images", sizes["abnormal test images"], ">=", ABNORMAL_TEST),
        ("abnormal training images", sizes["abnormal training images"], ">=", ABNORMAL_TRAINING),
        ("AUROC of random weights", random, ">=", RANDOM[0]),
        ("AUROC of random weights", random, "<=", RANDOM[1]),
        ("AUROC of pixels minus random", learning["pixels"] - random, "<=", PIXELS_ABOVE),
        ("AUROC of what was drawn", learning["known"], ">=", KNOWN),
    ]
    lines = []
    for name, value, sign, bound in figures:
        kept = value <= bound if sign == "<=" else value >= bound
        verdict = "kept" if kept else "NOT KEPT"
        lines.append(f"{name:36} {value:9.3f}  {sign} {bound:<6g} {verdict}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and save; status 1 where a bound is not kept."""
    parser = argparse.ArgumentParser(description="Difficulty, size and making of the demo.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="random networks")
    args = parser.parse_args(arguments)
    settings = load_settings({})
    data = load_nih(settings)
    making, sizes = measure_making(), measure_sizes(settings, data)
    learning = measure_learning(settings, data, args.seeds)
    results = Results("demo", settings, folder=settings.project / "runs" / "benchmarks")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    results.add(making=making, sizes=sizes, learning=learning, load_average=load)
    results.save()
    lines = verdicts(making, sizes, learning)
    print("\n".join(lines))
    return int(any("NOT" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
