"""Does pretraining help a detector, over several seeds, and is the bootstrap of mAP50 fast?

    python benchmarks/detection.py [--seeds 0 1 2] [--only bootstrap|seeds]

1. A thousand resamples of 1,000 made-up images with 14 classes on one core, against COCO's average
   precision recomputed (faster-coco-eval through torchmetrics) on some of the same resamples; and
   the largest difference between the two.
2. Random against pretrained for each seed, at all boxes and at a tenth: mAP50 on the abnormal test
   images, and the paired difference. Detectors trained before with the same settings are used
   again.
benchmarks/README.md says what was measured.
"""

import argparse
import os
import sys
import time

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from cxr_helpers.course.ch04 import experiment, tables
from cxr_helpers.course.core.data import BoxData, ensure_demo, load_vindr
from cxr_helpers.course.core.results import Results, peak_memory_mb
from cxr_helpers.course.core.settings import Settings, load_settings
from cxr_helpers.detection import coco
from cxr_helpers.detection import metrics as dm
from cxr_helpers.evaluation.intervals import (
    bias_corrected,
    over_seeds,
    over_seeds_and_images,
    resampled,
)

N_IMAGES, N_CLASSES, RESAMPLES = 1000, 14, 1000
SECONDS, TIMES_FASTER, EQUAL = 10.0, 20.0, 1e-6
FRACTIONS, AIM, MINUTES, MEMORY = (0.1, 1.0), 0.05, 3.0, 5 * 1024


def made_up_boxes(seed: int = 0) -> tuple[list[dict], list[dict]]:
    """Detections and truths of the size that the figure is about: 5 boxes, 40 detections each."""
    rng = np.random.default_rng(seed)
    found, truths = [], []
    for _ in range(N_IMAGES):
        n = rng.integers(0, 11)
        corner = rng.uniform(0, 400, (n, 2))
        boxes = np.hstack([corner, corner + rng.uniform(20, 200, (n, 2))])
        labels = rng.integers(1, N_CLASSES + 1, n)
        near = rng.integers(0, n, 20) if n else np.zeros(0, int)
        corner = rng.uniform(0, 400, (20, 2))
        far = np.hstack([corner, corner + rng.uniform(20, 200, (20, 2))])
        close = boxes[near] + rng.normal(0, 4, (len(near), 4))  # sides are 20 and more
        close[:, 2:] = np.maximum(close[:, 2:], close[:, :2] + 1)
        detected = np.vstack([close, far])
        names = np.append(labels[near], rng.integers(1, N_CLASSES + 1, 20))
        truths.append({"boxes": boxes, "labels": labels})
        found.append({"boxes": detected, "labels": names, "scores": rng.random(len(names))})
    return found, truths


def measure_bootstrap(recomputed: int) -> dict[str, float]:
    """Seconds of all resamples, seconds of recomputing one, and the largest difference."""
    found, truths = made_up_boxes()
    names = [f"class {k}" for k in range(N_CLASSES)]
    start = time.perf_counter()
    matches = dm.match_detections(found, truths, class_names=names)
    matching = time.perf_counter() - start
    start = time.perf_counter()
    options = {"resamples": RESAMPLES, "seed": 0}
    drawn = resampled(lambda w: dm.mean_average_precision(matches, w), N_IMAGES, **options)
    seconds = time.perf_counter() - start
    counts = resampled(lambda w: w, N_IMAGES, **options)[:recomputed].astype(int)
    values, start = [], time.perf_counter()
    for one in counts:
        rows = np.repeat(np.arange(N_IMAGES), one)
        values.append(coco_map50([found[i] for i in rows], [truths[i] for i in rows]))
    each = (time.perf_counter() - start) / recomputed
    return {
        "matching_seconds": matching,
        "bootstrap_seconds": seconds,
        "recomputing_one_seconds": each,
        "times_faster": each * RESAMPLES / (matching + seconds),
        "largest_difference": float(np.abs(np.array(values) - drawn[:recomputed]).max()),
    }


def coco_map50(found: list[dict], truths: list[dict]) -> float:
    """What a recomputation does, at IoU 0.5 alone."""
    metric = coco.MeanAveragePrecision(
        iou_thresholds=[0.5],
        rec_thresholds=coco.RECALL_POINTS.tolist(),
        backend="faster_coco_eval",
    )
    metric.warn_on_many_detections = False
    as_tensors = [
        [{k: torch.as_tensor(v) for k, v in one.items()} for one in side]
        for side in (found, truths)
    ]
    metric.update(*as_tensors)
    return float(metric.compute()["map"])


def matches_of(
    settings: Settings, data: BoxData, arm: str, seed: int, fraction: float
) -> tuple[dm.Matches, float | None]:
    """Matched detections in the abnormal test images, and the minutes of training if it ran."""
    path = experiment.detector_path(settings, data, arm, seed=seed, fraction=fraction)
    known, start = path.is_file(), time.perf_counter()
    options = {"seed": seed, "fraction": fraction, "progress": False}
    detector, path = experiment.train_or_load_detector(settings, data, arm, **options)
    minutes = None if known else (time.perf_counter() - start) / 60
    rows = data.rows("test", abnormal_only=True)
    found = experiment.predictions(detector, path, data, rows)
    return tables.match(found, data.truths(rows), data), minutes


def measure_fraction(
    settings: Settings, data: BoxData, seeds: list[int], fraction: float
) -> tuple[list[dict], dict]:
    """A row for each seed, and the gain of the pretrained arm with three intervals."""
    rows, drawn = [], []
    n = len(data.rows("test", abnormal_only=True))
    options = {"resamples": settings.detect.resamples, "seed": settings.seed}
    for seed in seeds:
        row, matched = {"fraction": fraction, "seed": seed}, {}
        for arm in ("random", "pretrained"):
            matched[arm], minutes = matches_of(settings, data, arm, seed, fraction)
            row[arm] = dm.mean_average_precision(matched[arm])
            row[f"minutes {arm}"] = minutes
        both = [
            resampled(lambda w, m=m: dm.mean_average_precision(m, w), n, **options)
            for m in matched.values()
        ]
        drawn.append(both[1] - both[0])
        rows.append(row | {"difference": row["pretrained"] - row["random"]})
        print({k: round(v, 3) for k, v in rows[-1].items() if v is not None}, flush=True)
    each = np.array([row["difference"] for row in rows])
    return rows, gain(each, np.array(drawn), n)


def gain(each: np.ndarray, drawn: np.ndarray, n_images: int) -> dict[str, float | None]:
    """Mean difference over seeds with its 95% intervals.

    Args:
        each: (S,) difference of each seed on the test images themselves.
        drawn: (S, B) the same on B resamples of the images, the same for all seeds.
        n_images: how many test images there are.

    Returns:
        `value`; `low`, `high` over images; `low_both`, `high_both` over images and seeds
        together, and `t_low`, `t_high`, Student's over seeds alone: both None for a single seed.
    """
    images = bias_corrected(each.mean(), drawn.mean(axis=0))
    found = images.as_dict() | dict.fromkeys(("low_both", "high_both", "t_low", "t_high"))
    if len(each) > 1:
        both, seeds = over_seeds_and_images(each, drawn, n_images=n_images), over_seeds(each)
        found |= {"low_both": both.low, "high_both": both.high}
        found |= {"t_low": seeds.low, "t_high": seeds.high}
    return found


def verdicts(speed: dict | None, rows: list[dict], gains: dict[float, dict]) -> list[str]:
    """One line for each figure, with the bound it should keep."""
    figures = {}
    if speed:
        total = speed["matching_seconds"] + speed["bootstrap_seconds"]
        figures["seconds of matching and 1,000 resamples"] = (total, "<=", SECONDS)
        figures["times faster than recomputing"] = (speed["times_faster"], ">=", TIMES_FASTER)
        figures["largest difference from COCO"] = (speed["largest_difference"], "<=", EQUAL)
    for fraction, one in gains.items():
        name = f"at {100 * fraction:g}% of the boxes"
        figures[f"gain {name}"] = (one["value"], ">=", AIM)
        if one["low_both"] is not None:
            figures[f"lower end of the gain {name}"] = (one["low_both"], ">=", 0.0)
    trained = [row[k] for row in rows for k in row if k.startswith("minutes") and row[k]]
    if trained:
        figures["minutes of the longest training"] = (max(trained), "<=", MINUTES)
        figures["peak memory, MB"] = (peak_memory_mb(), "<=", MEMORY)
    lines = []
    for name, (value, sign, bound) in figures.items():
        kept = value <= bound if sign == "<=" else value >= bound
        verdict = "kept" if kept else "NOT KEPT"
        lines.append(f"{name:48} {value:10.6g}  {sign} {bound:<6g} {verdict}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and save; status 1 where a bound is not kept."""
    parser = argparse.ArgumentParser(description="Seeds of detection, and speed of its bootstrap.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", choices=["bootstrap", "seeds"], help="measure one of the two")
    parser.add_argument("--fractions", type=float, nargs="+", default=list(FRACTIONS))
    parser.add_argument("--recomputed", type=int, default=5, help="resamples to recompute")
    args = parser.parse_args(arguments)
    settings = load_settings({})
    name = "detection" if args.only is None else f"detection_{args.only}"
    results = Results(name, settings, folder=settings.project / "runs" / "benchmarks")
    speed, rows, gains = None, [], {}
    if args.only != "seeds":
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        with threadpool_limits(1):
            speed = measure_bootstrap(args.recomputed)
        torch.set_num_threads(threads)
        print({key: round(value, 6) for key, value in speed.items()})
    if args.only != "bootstrap":
        ensure_demo(settings)
        data = load_vindr(settings)
        for fraction in args.fractions:
            found, gains[fraction] = measure_fraction(settings, data, args.seeds, fraction)
            rows += found
        print(pd.DataFrame(rows).round(3).to_string(index=False))
        print(pd.DataFrame(gains).T.round(3).to_string())
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    results.add(bootstrap=speed, seeds=rows, gains=gains, load_average=load)
    results.save()
    lines = verdicts(speed, rows, gains)
    print("\n".join(lines))
    return int(any("NOT" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
