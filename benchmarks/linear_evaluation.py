"""Do pretrained features beat random ones, over several seeds? And does the probe fit real size?

    python benchmarks/linear_evaluation.py
    python benchmarks/linear_evaluation.py --parts size
    CXR_DATA=/data/cxr python benchmarks/linear_evaluation.py --parts seeds --seeds 0 1 2 3 4

`seeds`: for each seed a pretraining (minutes each, kept in runs/) and a random network of the same
seed; macro AUROC of linear probes on the test patients at each share of the labels, the paired
difference and its intervals; and how far a seed alone moves it. `size`: time and memory of one
core for probes on 86,524 x 2,048 random features with 14 labels, in a process of its own.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from threadpoolctl import threadpool_limits

from cxr_helpers.course.ch03 import linear
from cxr_helpers.course.core.data import load_nih
from cxr_helpers.course.core.results import Results, peak_memory_mb
from cxr_helpers.course.core.settings import load_settings
from cxr_helpers.evaluation import probe, scoring
from cxr_helpers.evaluation.intervals import (
    Interval,
    bias_corrected,
    over_seeds,
    over_seeds_and_images,
)

ROOT = Path(__file__).resolve().parents[1]
REAL_SIZE = (86_524, 2_048)
N_LABELS, N_VAL = 14, 8_652
MAX_GB, MAX_MINUTES = 8, 10
AIMS = {0.01: 0.08, 1.0: 0.03}


def seed_scores(settings, data, columns, seed: int) -> dict[str, dict[float, list[np.ndarray]]]:
    """Test scores of the random and the pretrained network of one seed, for each share and draw."""
    names = linear.label_names(columns)
    draws = linear.draw_labels(settings, data, columns)
    ids = np.array(data.images.image_ids)[data.rows("test")]
    arms, _ = linear.load_arms(settings, data, seed=seed)
    scores = {}
    for name in ("random", "pretrained"):
        frozen = linear.frozen_features(settings, arms[name], data.images)
        probes = linear.fit_probes(data, frozen, data.labels[:, columns], names, draws)
        scores[name] = linear.probe_scores(probes, frozen, ids)
    return scores


def seeds_table(settings, data, columns, by_seed: list[dict]) -> tuple[pd.DataFrame, dict]:
    """A row for each share: both arms, the difference with two intervals, and each seed's.

    `low` and `high` cover other patients, draws and seeds together (of a single seed: patients and
    draws alone). `t low` and `t high` are Student's over the seeds' differences, on the test
    patients as they are.
    """
    test = data.rows("test")
    labels, patients = data.labels[test][:, columns], data.patients[test]
    rows, per_seed = {}, {}
    for share in by_seed[0]["random"]:
        arms = {
            arm: [s for scores in by_seed for s in scores[arm][share]]
            for arm in ("random", "pretrained")
        }
        means = {
            arm: np.mean([scoring.nan_mean(scoring.auroc(labels, s), axis=0) for s in drawn])
            for arm, drawn in arms.items()
        }
        values = scoring.resampled_scores(
            labels,
            arms["pretrained"],
            patients,
            minus=arms["random"],
            resamples=2000,
            seed=settings.seed,
        )
        macro = scoring.nan_mean(values, axis=2).reshape(len(by_seed), -1, values.shape[1])
        each = macro[:, :, 0].mean(axis=1)
        together = interval(macro, n_patients=len(set(patients)), seed=settings.seed)
        seeds = over_seeds(each) if len(each) > 1 else Interval(each[0], np.nan, np.nan)
        per_seed[f"{share:.0%}"] = each.round(4).tolist()
        rows[f"{share:.0%}"] = {
            **means,
            "difference": each.mean(),
            "low": together.low,
            "high": together.high,
            "t low": seeds.low,
            "t high": seeds.high,
            "seeds above 0": f"{(each > 0).sum()} of {len(each)}",
        }
    return pd.DataFrame.from_dict(rows, orient="index"), per_seed


def interval(macro: np.ndarray, *, n_patients: int, seed: int) -> Interval:
    """(seeds, draws, 1 + R) to an interval over patients, draws and, if several, seeds."""
    if len(macro) == 1:
        first, *drawn = scoring.over_draws(macro[0], seed=seed)
        return bias_corrected(first, drawn)
    if macro.shape[1] == 1:
        macro = macro[:, 0]  # all labels are used, so there is one draw and no other to expect
    return over_seeds_and_images(macro[..., 0], macro[..., 1:], n_images=n_patients)


def measure_seeds(seeds: list[int]) -> dict:
    """Run all seeds, print the table, and return what the results file holds."""
    settings = load_settings()
    data = load_nih(settings)
    columns = linear.scorable_labels(data)
    by_seed = []
    for seed in seeds:
        start = time.perf_counter()
        by_seed.append(seed_scores(settings, data, columns, seed))
        print(f"  seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    table, per_seed = seeds_table(settings, data, columns, by_seed)
    n_patients = len(set(data.patients[data.rows("test")]))
    print(f"{settings.data}: {len(data.rows('test'))} test images of {n_patients} patients")
    print(f"labels: {', '.join(linear.label_names(columns))}")
    print(table.round(3).to_string(), "\n", pd.DataFrame(per_seed, index=seeds).round(3))
    for share, aim in AIMS.items():
        row = table.loc[f"{share:.0%}"] if f"{share:.0%}" in table.index else None
        if settings.is_demo and row is not None:
            kept = "kept" if row["difference"] >= aim else "not kept"
            print(f"aim at {share:.0%}: +{aim}: {kept}")
    return {
        "shares": json.loads(table.to_json(orient="index")),
        "differences_of_seeds": per_seed,
        "test_patients": n_patients,
    }


def fit_real_size(n_images: int, n_features: int) -> dict[str, float]:
    """Fit, choose and score on random features on one core; seconds and peak GB."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((n_images, n_features), dtype=np.float32)
    val = rng.standard_normal((N_VAL, n_features), dtype=np.float32)
    direction = rng.standard_normal((n_features, N_LABELS), dtype=np.float32) / n_features**0.5

    def labels(x):  # from 1% to 20% positives, as findings are
        rate = np.linspace(0.01, 0.2, N_LABELS)
        z = x @ direction + rng.standard_normal((len(x), N_LABELS), dtype=np.float32)
        return (z > stats.norm.isf(rate) * 2**0.5).astype(np.uint8)

    train_labels, val_labels = labels(features), labels(val)
    start = time.perf_counter()
    with threadpool_limits(1):
        fitted = probe.fit_probe(features, train_labels, val, val_labels)
        seconds = time.perf_counter() - start
        macro = np.nanmean(scoring.auroc(val_labels, fitted.scores(val)))
    return {
        "minutes": seconds / 60,
        "peak_gb": peak_memory_mb() / 1024,
        "strength": fitted.strength,
        "auroc_validation": float(macro),
    }


def measure_size() -> dict:
    """Run the fit in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, __file__, "--fit", *map(str, REAL_SIZE)]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    print(
        f"{REAL_SIZE[0]:,} x {REAL_SIZE[1]:,} features, {N_LABELS} labels, "
        f"{len(probe.REGULARIZATION)} strengths, one core: {found['minutes']:.1f} minutes, peak "
        f"{found['peak_gb']:.1f} GB, features included"
    )
    return found


def main() -> int:
    """Run from the command line; 1 where the probe is too slow or too large at real size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--parts", nargs="+", choices=["seeds", "size"], default=["seeds", "size"])
    parser.add_argument("--fit", type=int, nargs=2, metavar=("IMAGES", "FEATURES"))
    options = parser.parse_args()
    if options.fit:
        print(json.dumps(fit_real_size(*options.fit)))
        return 0
    settings = load_settings()
    name = "linear_evaluation" if settings.is_demo else f"linear_evaluation_{settings.data}"
    results = Results(name, settings, folder=ROOT / "runs" / "benchmarks")
    fits = True
    if "size" in options.parts:
        size = measure_size()
        fits = size["peak_gb"] <= MAX_GB and size["minutes"] <= MAX_MINUTES
        results.add(real_size=size)
    if "seeds" in options.parts:
        results.add(**measure_seeds(options.seeds))
    results.save()
    return 0 if fits else 1


if __name__ == "__main__":
    sys.exit(main())
