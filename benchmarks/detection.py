"""Does pretraining help a detector, over several seeds, and is the bootstrap of mAP50 fast?

    python benchmarks/detection.py --only recipes [--arms random evening] [--seeds 0] [--store]
    python benchmarks/detection.py --only seeds [--seeds 0 1 2 3 4] [--store | --store-shares]
    python benchmarks/detection.py --only bootstrap

`recipes`: each arm is trained with every learning rate and with its backbone frozen, slow and free,
and scored on validation images alone; it prints what belongs into the settings. For a demo of
another seed than the one that notebooks show. `seeds`: every arm at each share of the boxes, equal
steps, by its recipe: mAP50 on the abnormal test images and the paired difference from random
weights, against the readers' fused truth and the exact one, on all classes and on those that an arm
finds on validation images. `bootstrap`: a thousand resamples of 1,000 made-up images with 14
classes on one core, against COCO's average precision recomputed (faster-coco-eval through
torchmetrics), and the largest difference between the two.

Detectors that were trained before with the same settings are used again, so a run goes on where it
was stopped, and two runs with other --arms or --seeds may share the work. The aims are about the
readers' truth and all classes. `--store` writes what notebook 04 shows; `--store-shares` puts the
measured shares beside those that are stored, if all else is the same, and takes over which classes
were found. With `--epochs`, of another number than the settings', both keep a table of its own.
benchmarks/README.md says what was measured.
"""

import argparse
import itertools
import operator
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from cxr_helpers.course.ch04 import experiment, tables, training
from cxr_helpers.course.core.data import BoxData, ensure_demo, load_vindr
from cxr_helpers.course.core.results import Results, peak_memory_mb
from cxr_helpers.course.core.settings import RATES, Settings, load_settings
from cxr_helpers.course.core.stored import Stored, read_stored, write_stored
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
BASELINE, AIMED = "random", "evening"
MAP_AIM, GAIN_AIM, AIMED_FRACTIONS = 0.25, 0.03, (0.3, 1.0)
MINUTES, MEMORY = 3.0, 5 * 1024
LEARNING_RATES, BACKBONE_RATES, CHOSEN_AT = (5e-4, 1e-3, 2e-3), (0.0, 0.1, 1.0), 0.3
USUAL, LONG = "detectors", "detectors_long"  # what is stored; the second by more epochs
TRUTHS, ALL, FOUND = ("readers", "exact"), "all", "found on validation"
COLUMNS = ["truth", "classes", "arm", "minus", "fraction", "seed", "value", "low", "high"]


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


@dataclass(frozen=True)
class Scored:
    """One trained detector on the test images.

    Attributes:
        values: truth -> (K,) average precision of each class.
        drawn: truth -> (B, K) the same on resamples of the images, the same for all detectors.
        validation: its detections in the validation images, matched to the readers' truth.
        minutes: of training, where it was not trained before.
    """

    values: Mapping[str, np.ndarray]
    drawn: Mapping[str, np.ndarray]
    validation: dm.Matches
    minutes: float | None


def trained(settings: Settings, data: BoxData, arm: str, *, seed: int, fraction: float) -> tuple:
    """Detector, its path, and the minutes of training if it ran; None without the arm's weights."""
    path = experiment.detector_path(settings, data, arm, seed=seed, fraction=fraction)
    known, start = path.is_file(), time.perf_counter()
    detector, path = experiment.train_or_load_detector(
        settings, data, arm, seed=seed, fraction=fraction, progress=False
    )
    minutes = None if known else (time.perf_counter() - start) / 60
    return None if detector is None else (detector, path, minutes)


def on_validation(data: BoxData, detector: torch.nn.Module, path: object) -> dm.Matches:
    """Detections in the abnormal validation images, matched to the readers' truth."""
    rows = data.rows("val", abnormal_only=True)
    found = experiment.predictions(detector, path, data, rows)
    return tables.match(found, data.truths(rows), data)


def score(settings: Settings, data: BoxData, made: tuple) -> Scored:
    """What `trained` gave, on the abnormal test images and on the validation images."""
    detector, path, minutes = made
    rows = data.rows("test", abnormal_only=True)
    found = experiment.predictions(detector, path, data, rows)
    options = {"resamples": settings.detect.resamples, "seed": settings.seed}
    values, drawn = {}, {}
    for truth in TRUTHS if data.exact is not None else TRUTHS[:1]:
        boxes = None if truth == "readers" else data.exact
        one = tables.match(found, data.truths(rows, boxes), data)
        values[truth] = dm.average_precision(one)
        drawn[truth] = resampled(lambda w, m=one: dm.average_precision(m, w), len(rows), **options)
    return Scored(values, drawn, on_validation(data, detector, path), minutes)


def measure_seeds(
    settings: Settings,
    data: BoxData,
    *,
    arms: Sequence[str],
    seeds: Sequence[int],
    fractions: Sequence[float],
) -> tuple[dict[tuple[str, float, int], Scored], list[str]]:
    """Arm, share and seed to what was scored, and the arms whose weights are not to be had."""
    scored, absent = {}, []
    for seed, fraction, arm in itertools.product(seeds, fractions, arms):
        if arm in absent:
            continue
        made = trained(settings, data, arm, seed=seed, fraction=fraction)
        if made is None:
            absent.append(arm)
            continue
        one = scored[arm, fraction, seed] = score(settings, data, made)
        mean = float(np.nanmean(one.values["readers"]))
        told = "" if one.minutes is None else f", {one.minutes:.1f} minutes"
        print(f"{arm}, {fraction:.0%}, seed {seed}: mAP50 {mean:.3f}{told}", flush=True)
    return scored, absent


def found_classes(scored: Mapping[tuple[str, float, int], Scored]) -> tuple[str, ...]:
    """Classes that any detector at all boxes finds on validation images, of any arm and seed."""
    largest = max(fraction for _, fraction, _ in scored)
    whole = {f"{arm} {s}": one.validation for (arm, f, s), one in scored.items() if f == largest}
    return tables.findable(whole)


def seeds_table(
    scored: Mapping[tuple[str, float, int], Scored],
    class_names: Sequence[str],
    found: Sequence[str],
    *,
    n_images: int,
) -> pd.DataFrame:
    """mAP50 of each arm and share, and what it is above random weights.

    Args:
        scored: by arm, share and seed; each arm with the same seeds.
        class_names: of all classes.
        found: those that count as found.
        n_images: how many test images there are.

    Returns:
        Columns of `COLUMNS`: `minus` is empty or the arm that is taken off; `seed` is a number with
        an interval over images, or `all` with one over images and seeds.
    """
    seeds = sorted({seed for _, _, seed in scored})
    fractions = sorted({fraction for _, fraction, _ in scored})
    arms = list(dict.fromkeys(arm for arm, _, _ in scored))
    truths = next(iter(scored.values())).values.keys()
    kinds, lines = {ALL: None, FOUND: found}, []
    for truth, (kind, classes), fraction in itertools.product(truths, kinds.items(), fractions):
        means = {
            arm: [
                dm.mean_over_classes(
                    np.vstack([one.values[truth], one.drawn[truth]]), class_names, classes=classes
                )
                for one in (scored[arm, fraction, seed] for seed in seeds)
            ]
            for arm in arms
        }  # (1 + B,) of each seed
        others = [arm for arm in arms if arm != BASELINE and BASELINE in arms]
        for arm, minus in [(a, "") for a in arms] + [(a, BASELINE) for a in others]:
            each = np.array(means[arm]) - (np.array(means[minus]) if minus else 0)
            what = {"truth": truth, "classes": kind, "arm": arm, "minus": minus}
            what["fraction"] = fraction
            lines += [what | line for line in seed_lines(each, seeds, n_images)]
    return pd.DataFrame(lines, columns=COLUMNS)


def seed_lines(each: np.ndarray, seeds: Sequence[int], n_images: int) -> list[dict]:
    """A line for all seeds and one for each, from (S, 1 + B): the images, then their resamples."""
    every = gain(each[:, 0], each[:, 1:], n_images)
    ends = ("low", "high") if every["low_both"] is None else ("low_both", "high_both")
    lines = [{"seed": ALL, "value": every["value"]}]
    lines[0] |= {"low": every[ends[0]], "high": every[ends[1]]}
    for seed, own in zip(seeds, each, strict=True):
        lines.append({"seed": str(seed)} | bias_corrected(own[0], own[1:]).as_dict())
    return lines


def measure_recipes(
    settings: Settings,
    data: BoxData,
    *,
    arms: Sequence[str],
    seeds: Sequence[int],
    fractions: Sequence[float],
    rates: Sequence[float],
    backbone_rates: Sequence[float],
) -> pd.DataFrame:
    """mAP50 on validation images of every arm by every recipe, a mean over shares and seeds.

    Returns:
        Columns arm, learning_rate, backbone_rate, value, and `chosen`: the best of its arm.
    """
    lines = []
    for arm, rate, share in itertools.product(arms, rates, backbone_rates):
        detect = replace(settings.detect, learning_rate=rate, backbone_rate=share)
        own, values = replace(settings, detect=detect), []
        for fraction, seed in itertools.product(fractions, seeds):
            made = trained(own, data, arm, seed=seed, fraction=fraction)
            if made is None:
                break
            values.append(dm.mean_average_precision(on_validation(data, *made[:2])))
        if values:
            line = {"arm": arm, "learning_rate": rate, "backbone_rate": share}
            lines.append(line | {"value": float(np.mean(values))})
            print(lines[-1], flush=True)
    table = pd.DataFrame(lines)
    best = table.groupby("arm")["value"].idxmax()
    return table.assign(chosen=table.index.isin(best))


def recipes_text(table: pd.DataFrame) -> str:
    """What belongs into `DetectPreset.recipes`."""
    chosen = table[table["chosen"]].set_index("arm")[list(RATES)]
    return "\n".join(f'"{arm}": {row.to_dict()},' for arm, row in chosen.iterrows())


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


def verdicts(
    speed: Mapping[str, float] | None, table: pd.DataFrame | None, minutes: Sequence[float] = ()
) -> list[str]:
    """One line for each figure, with the bound it should keep.

    Args:
        speed: of `measure_bootstrap`, or None.
        table: of `seeds_table`, or None.
        minutes: of each training that ran.
    """
    figures = {}
    if speed:
        total = speed["matching_seconds"] + speed["bootstrap_seconds"]
        figures["seconds of matching and 1,000 resamples"] = (total, "<=", SECONDS)
        figures["times faster than recomputing"] = (speed["times_faster"], ">=", TIMES_FASTER)
        figures["largest difference from COCO"] = (speed["largest_difference"], "<=", EQUAL)
    if table is not None:
        figures |= aims(table)
    if minutes:
        figures["minutes of the longest training"] = (max(minutes), "<=", MINUTES)
        figures["peak memory, MB"] = (peak_memory_mb(), "<=", MEMORY)
    lines = []
    kept_by = {"<=": operator.le, ">=": operator.ge, ">": operator.gt}
    for name, (value, sign, bound) in figures.items():
        kept = kept_by[sign](value, bound)
        verdict = "kept" if kept else "NOT KEPT"
        lines.append(f"{name:48} {value:10.6g}  {sign} {bound:<6g} {verdict}")
    return lines


def aims(table: pd.DataFrame) -> dict[str, tuple[float, str, float]]:
    """The aims of detection, on the readers' truth and all classes: figure, sign and bound."""
    own = (table["truth"] == TRUTHS[0]) & (table["classes"] == ALL) & (table["seed"] == ALL)
    table, figures = table[own], {}
    plain, gains = table[table["minus"] == ""], table[table["minus"] == BASELINE]
    whole = plain[plain["fraction"] == 1]
    if len(whole):
        best = whole.loc[whole["value"].idxmax()]
        figures[f"mAP50 at all boxes, {best['arm']}"] = (best["value"], ">=", MAP_AIM)
    for row in gains[gains["fraction"].isin(AIMED_FRACTIONS)].itertuples():
        if row.arm == AIMED:
            name = f"{row.arm} minus {BASELINE} at {row.fraction:.0%}"
            figures[name] = (row.value, ">=", GAIN_AIM)
            figures[f"{name}, lower end"] = (row.low, ">", 0.0)
    return figures


def run_bootstrap(recomputed: int) -> dict[str, float]:
    """`measure_bootstrap` on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        speed = measure_bootstrap(recomputed)
    torch.set_num_threads(threads)
    print({key: round(value, 6) for key, value in speed.items()})
    return speed


def run_recipes(settings: Settings, args: argparse.Namespace, command: str) -> pd.DataFrame:
    """`measure_recipes` on the demo, printed, and stored if that is wanted."""
    data, seeds = load_vindr(settings), args.seeds or [settings.seed]
    fractions = args.fractions or [CHOSEN_AT]
    table = measure_recipes(
        settings, data, arms=args.arms, seeds=seeds, fractions=fractions,
        rates=args.rates, backbone_rates=args.backbone_rates,
    )  # fmt: skip
    print(table.round(4).to_string(index=False))
    print(recipes_text(table))
    if args.store:
        more = {"fractions": fractions, "epochs": settings.detect.epochs}
        write_stored(
            "detector_recipes", table, settings,
            command=command, digest=data.digest, seeds=seeds, **more,
        )  # fmt: skip
    return table


def recipes_of(settings: Settings, arms: Sequence[str]) -> dict[str, dict[str, float]]:
    """The rates that each arm is trained by."""
    detects = {arm: experiment.with_recipe(settings, arm).detect for arm in arms}
    return {arm: {rate: getattr(one, rate) for rate in RATES} for arm, one in detects.items()}


def same_but_for_shares(stored: Stored | None, expected: Mapping[str, object]) -> None:
    """Refuse to put shares beside a stored table that another demo or recipe gave.

    Raises:
        SystemExit: nothing is stored, or its record has other values than `expected`.
    """
    if stored is None:
        sys.exit("no shares are stored to put others beside; use --store")
    other = [key for key, value in expected.items() if stored.record.get(key) != value]
    if other:
        sys.exit(f"the stored shares have another {', '.join(other)}; measure all with --store")


def run_seeds(
    settings: Settings, args: argparse.Namespace, command: str
) -> tuple[pd.DataFrame, dict[str, object]]:
    """`seeds_table` of the demo, printed, and stored if that is wanted; and what else to keep."""
    data, seeds = load_vindr(settings), args.seeds or list(range(5))
    fractions = args.fractions or list(settings.detect.fractions)
    n = len(data.rows("test", abnormal_only=True))
    more = {"least": tables.FINDABLE, "steps": training.step_count(settings, data)}
    more |= {"test_images": n, "recipes": recipes_of(settings, args.arms)}
    name = LONG if args.epochs else USUAL
    stored = read_stored(name, settings) if args.store_shares else None
    if args.store_shares:
        same_but_for_shares(stored, more | {"digest": data.digest, "seeds": seeds})
    scored, absent = measure_seeds(settings, data, arms=args.arms, seeds=seeds, fractions=fractions)
    found = stored.record["found"] if stored else found_classes(scored)
    table = seeds_table(scored, data.class_names, found, n_images=n)
    print(table[table["seed"] == ALL].round(3).to_string(index=False))
    print(f"not to be had: {', '.join(absent) or 'none'}")
    print(f"found on validation: {', '.join(found)}")
    arms = [arm for arm in args.arms if arm not in absent]
    more |= {"found": list(found), "recipes": recipes_of(settings, arms)}
    if stored:
        table = pd.concat([stored.table[~stored.table["fraction"].isin(fractions)], table])
        table = table.sort_values("fraction", kind="stable")
        command = f"{stored.record['command']} && {command}"
    if args.store or stored:
        write_stored(
            name, table, settings, command=command, digest=data.digest, seeds=seeds, **more
        )
    minutes = [one.minutes for one in scored.values() if one.minutes is not None]
    return table, more | {"minutes": minutes}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and save; status 1 where a bound is not kept."""
    parser = argparse.ArgumentParser(description="Seeds of detection, and speed of its bootstrap.")
    parser.add_argument("--seeds", type=int, nargs="+", help="0 to 4, or 0 for the recipes")
    parser.add_argument("--only", choices=["bootstrap", "recipes", "seeds"], default="seeds")
    parser.add_argument("--arms", nargs="+", choices=experiment.ARMS, default=experiment.ARMS)
    parser.add_argument("--fractions", type=float, nargs="+", help="shares of the training images")
    parser.add_argument("--rates", type=float, nargs="+", default=LEARNING_RATES)
    parser.add_argument("--backbone-rates", type=float, nargs="+", default=BACKBONE_RATES)
    parser.add_argument("--epochs", type=int, help="of all images, for a longer training")
    parser.add_argument("--recomputed", type=int, default=5, help="resamples to recompute")
    keep = parser.add_mutually_exclusive_group()
    keep.add_argument("--store", action="store_true", help="keep the figures for notebook 04")
    keep.add_argument("--store-shares", action="store_true", help="beside the other stored shares")
    args = parser.parse_args(arguments)
    if args.epochs is not None and args.epochs < 1:
        parser.error(f"--epochs must be at least 1, not {args.epochs}")
    settings = load_settings({})
    if args.epochs:
        settings = replace(settings, detect=replace(settings.detect, epochs=args.epochs))
    told = sys.argv[1:] if arguments is None else arguments
    command = " ".join(["python benchmarks/detection.py", *told])
    folder = settings.project / "runs" / "benchmarks"
    results = Results(f"detection_{args.only}", settings, folder=folder)
    speed, table, more = None, None, {"minutes": []}
    if args.only == "bootstrap":
        speed = run_bootstrap(args.recomputed)
    else:
        ensure_demo(settings)
    if args.only == "recipes":
        table = run_recipes(settings, args, command)
    elif args.only == "seeds":
        table, more = run_seeds(settings, args, command)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    lines = [] if table is None else table.to_dict("records")
    results.add(bootstrap=speed, table=lines, load_average=load, **more)
    results.save()
    lines = verdicts(speed, table if args.only == "seeds" else None, more["minutes"])
    print("\n".join(lines))
    return int(any("NOT" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
