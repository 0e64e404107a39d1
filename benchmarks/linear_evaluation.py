"""What do frozen features add over several seeds, and does the probe fit real size?

    python benchmarks/linear_evaluation.py --seeds 0 1 2 3 4
    python benchmarks/linear_evaluation.py --seeds 0 1 2 3 4 --parts seeds --store
    python benchmarks/linear_evaluation.py --parts real --real FOLDER --seeds 0 1 2 --store
    python benchmarks/linear_evaluation.py --parts size

`seeds`: macro AUROC on the test patients at each share of the labels, of linear probes on all arms
that can be had here and of networks trained from scratch; and paired differences between them. A
seed has its own random weights, its own pretraining (minutes each, kept in runs/) and its own
training from scratch; the draws of labels are the same for all. The evening's weights, ImageNet's
and the pixels are one each, whatever the seed.

`real`: the same for real radiographs in FOLDER (any folder with NIH's images; what is known of them
comes from the table in torchxrayvision), by cross-validation over patients. Pretraining and the
evening's weights are those of the demo: no network learns from these images.

`size`: time and memory of one core for probes on 86,524 x 2,048 random features, 14 labels, in a
process of its own.

With `--store` the curves go to notebooks/stored, where notebook 03 reads them: figures alone, no
image. The results go to runs/benchmarks. Status 1 where an aim is not kept.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from threadpoolctl import threadpool_limits

from cxr_helpers.course.ch03 import crossed, end_to_end, linear
from cxr_helpers.course.core.data import NihData, load_nih
from cxr_helpers.course.core.results import Results, peak_memory_mb
from cxr_helpers.course.core.settings import Settings, load_settings
from cxr_helpers.course.core.stored import write_stored
from cxr_helpers.evaluation import probe, scoring
from cxr_helpers.evaluation.intervals import Interval, bias_corrected, over_seeds_and_images

ROOT = Path(__file__).resolve().parents[1]
REAL_SIZE = (86_524, 2_048)
N_LABELS, N_VAL = 14, 8_652
MAX_GB, MAX_MINUTES = 8, 10
RESAMPLES = 1000
SCRATCH, SCRATCH_DRAWS = "from scratch", 3
FIXED = ("evening", "imagenet", linear.PIXELS)  # one each, whatever the seed
PAIRS = (
    ("pretrained", "random"),
    ("evening", "random"),
    ("imagenet", "random"),
    (linear.PIXELS, "random"),
    (SCRATCH, "random"),
    ("pretrained", linear.PIXELS),
    ("evening", linear.PIXELS),
    ("pretrained", SCRATCH),
    ("evening", SCRATCH),
    ("evening", "pretrained"),
    ("pretrained", "imagenet"),
    ("evening", "imagenet"),
)
AIMS = (  # one arm minus another, at these shares, is at least so much, and its interval above zero
    ("evening", "random", (0.01, 0.1, 1.0), 0.08),
    ("evening", linear.PIXELS, (0.01, 0.1, 1.0), 0.0),
    ("evening", SCRATCH, (0.01, 0.1), 0.0),
    ("pretrained", SCRATCH, (0.01, 0.1), 0.0),
    (SCRATCH, "random", (1.0,), 0.0),
)
SINGLE_AIMS = (("pretrained", "random", (0.1, 1.0), 0.0),)  # with the interval of its single run
REAL_FRACTIONS, REAL_DRAWS = (0.1, 0.3, 1.0), 5
REAL_AIMS = (  # at least so much, whatever the interval
    ("evening", "random", (0.1, 1.0), 0.015),
    ("pretrained", "random", (0.1,), 0.015),
    ("pretrained", "random", (1.0,), 0.009),
)

Macros = dict[str, dict[float, np.ndarray]]  # arm and share to (seeds, draws, 1 + resamples)


def seed_scores(
    settings: Settings, data: NihData, columns: Sequence[int], seed: int, *, fixed: bool
) -> dict[str, linear.Scores]:
    """Test scores of each arm with this seed, for each share and draw.

    Args:
        settings: give the draws of labels, which do not depend on `seed`.
        data: images and labels.
        columns: of the labels.
        seed: of random weights, pretraining and training from scratch.
        fixed: whether the arms that have no seed are scored too.
    """
    names, labels = linear.label_names(columns), data.labels[:, columns]
    draws = linear.draw_labels(settings, data, columns)
    ids = np.array(data.images.image_ids)[data.rows("test")]
    scores: dict[str, linear.Scores] = {}
    arms, _ = linear.load_arms(settings, data, seed=seed)
    for name, arm in arms.items():
        if fixed or name not in FIXED:
            frozen = linear.frozen_features(settings, arm, data.images)
            probes = linear.fit_probes(data, frozen, labels, names, draws)
            scores[name] = linear.probe_scores(probes, frozen, ids)
    preset = replace(settings.probe, finetune_draws=SCRATCH_DRAWS)
    few = end_to_end.few_draws(replace(settings, probe=preset), draws)
    own = replace(settings, seed=seed)
    runs = end_to_end.train_runs(own, data, arms["random"], columns, few)
    scores[SCRATCH] = end_to_end.chosen_scores(runs)
    return scores


def resampled_macros(
    labels: np.ndarray,
    patients: np.ndarray,
    by_seed: Sequence[Mapping[str, linear.Scores]],
    *,
    seed: int,
) -> Macros:
    """Macro AUROC of each arm on the patients as they are and on the same resamples of them.

    Args:
        labels: (N, K) of the scored images.
        patients: (N,) their patients.
        by_seed: for each seed and arm the scores; arms without a seed in the first alone.
        seed: of the resamples.
    """
    options = {"resamples": RESAMPLES, "seed": seed}
    found: Macros = {}
    for arm in by_seed[0]:
        runs = [scores[arm] for scores in by_seed if arm in scores]
        found[arm] = {
            share: np.stack(
                [
                    scoring.nan_mean(
                        scoring.resampled_scores(labels, run[share], patients, **options), axis=2
                    )
                    for run in runs
                ]
            )
            for share in runs[0]
        }
    return found


def curves(macros: Macros, *, n_patients: int, seed: int) -> pd.DataFrame:
    """Each arm, and each of `PAIRS` that is there, at each share.

    Returns:
        Columns arm, minus (the other arm of a difference, or empty), fraction, value, low, high,
        seeds, seeds_above (of a difference: how many seeds lie above zero).
    """
    both = [(arm, "") for arm in macros]
    both += [(a, b) for a, b in PAIRS if a in macros and b in macros]
    rows = []
    for arm, minus in both:
        for share, values in macros[arm].items():
            if minus and share not in macros[minus]:
                continue
            if minus:
                draws = min(values.shape[1], macros[minus][share].shape[1])
                values = values[:, :draws] - macros[minus][share][:, :draws]
            found = interval(values, n_patients=n_patients, seed=seed)
            above = int((values[:, :, 0].mean(axis=1) > 0).sum()) if minus else ""
            at = {"arm": arm, "minus": minus, "fraction": share}
            rows.append(at | found.as_dict() | {"seeds": len(values), "seeds_above": above})
    return pd.DataFrame(rows)


def interval(macro: np.ndarray, *, n_patients: int, seed: int) -> Interval:
    """(seeds, draws, 1 + R) to an interval over patients, draws and, if several, seeds."""
    if len(macro) == 1:
        first, *drawn = scoring.over_draws(macro[0], seed=seed)
        return bias_corrected(first, drawn)
    if macro.shape[1] == 1:
        macro = macro[:, 0]  # all labels are used, so there is one draw and no other to expect
    return over_seeds_and_images(macro[..., 0], macro[..., 1:], n_images=n_patients)


def verdicts(
    table: pd.DataFrame, aims: Sequence[tuple], *, of: str, above_zero: bool = True
) -> Iterator[str]:
    """A line for each aim: the difference, its interval, and whether the aim is kept.

    Args:
        table: as `curves` gives it.
        aims: arm, other arm, shares, least difference.
        of: what was run, for the line.
        above_zero: whether the interval is to lie above zero too.
    """
    rows = table.set_index(["arm", "minus", "fraction"])
    for arm, minus, shares, least in aims:
        for share in shares:
            name = f"aim, {of}: {arm} - {minus}, {share:.0%} of the labels"
            if (arm, minus, share) not in rows.index:
                yield f"{name:62} NOT KEPT: not measured"
                continue
            row = rows.loc[(arm, minus, share)]
            kept = row["value"] >= least and (row["low"] > 0 or not above_zero)
            found = Interval(row["value"], row["low"], row["high"])
            asked = f">= {least}{', above 0' if above_zero else ''}"
            yield f"{name:62} {found}  {asked}: {'kept' if kept else 'NOT KEPT'}"


def measure_seeds(settings: Settings, seeds: list[int], *, store: bool) -> tuple[dict, list[str]]:
    """Run all seeds, print the curves, and return what the results file holds, and the verdicts."""
    data = load_nih(settings)
    columns, test = linear.scorable_labels(data), data.rows("test")
    by_seed = []
    for seed in seeds:
        start = time.perf_counter()
        by_seed.append(seed_scores(settings, data, columns, seed, fixed=seed == seeds[0]))
        print(f"  seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    labels, patients = data.labels[test][:, columns], data.patients[test]
    macros = resampled_macros(labels, patients, by_seed, seed=settings.seed)
    options = {"n_patients": len(set(patients)), "seed": settings.seed}
    table = curves(macros, **options)
    single = curves({arm: _first(shares) for arm, shares in macros.items()}, **options)
    names = linear.label_names(columns)
    print(f"{settings.data}: {len(test)} test images of {len(set(patients))} patients")
    print(f"labels: {', '.join(names)}")
    print(table.round(3).to_string(index=False))
    if store:
        told = {"images": len(test), "patients": len(set(patients)), "labels": names}
        _store("label_curves", table, settings, data, seeds, parts="seeds", test=told)
    lines = [*verdicts(table, AIMS, of=f"{len(seeds)} seeds")] if settings.is_demo else []
    if settings.is_demo:
        lines += verdicts(single, SINGLE_AIMS, of=f"seed {seeds[0]}")
    found = {"test_patients": len(set(patients)), "labels": names}
    return found | {"curves": table.to_dict("records")}, lines


def _first(shares: Mapping[float, np.ndarray]) -> dict[float, np.ndarray]:
    return {share: values[:1] for share, values in shares.items()}


def _store(
    name: str,
    table: pd.DataFrame,
    settings: Settings,
    data: NihData,
    seeds: list[int],
    *,
    parts: str,
    **more: object,
) -> None:
    folder = "" if parts == "seeds" else "--real FOLDER "
    given = f"--parts {parts} {folder}--seeds {' '.join(map(str, seeds))} --store"
    command = f"python benchmarks/linear_evaluation.py {given}"
    path = write_stored(
        name, table, settings, command=command, digest=data.digest, seeds=seeds, **more
    )
    print(f"stored: {path.relative_to(settings.project)}")


def measure_real(
    settings: Settings, folder: Path, seeds: list[int], *, store: bool
) -> tuple[dict, list[str]]:
    """Curves on real radiographs, of arms that learned from the demo or from photographs."""
    demo, real = load_nih(settings), load_nih(real_settings(settings, folder))
    labels, names = crossed.targets(real.entries)
    patients, ids = real.patients, real.images.image_ids
    options = {"fractions": REAL_FRACTIONS, "draws": REAL_DRAWS, "seed": settings.seed}
    by_seed = []
    for seed in seeds:
        start, scores = time.perf_counter(), {}
        for name, arm in linear.load_arms(settings, demo, seed=seed)[0].items():
            if seed == seeds[0] or name not in FIXED:
                values = linear.frozen_features(settings, arm, real.images).of(ids)
                scores[name] = crossed.crossed_scores(values, labels, patients, **options)
        by_seed.append(scores)
        print(f"  seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    macros = resampled_macros(labels, patients, by_seed, seed=settings.seed)
    told = crossed.described(patients, names)
    table = curves(macros, n_patients=told["patients"], seed=settings.seed)
    print(f"{told['images']} real radiographs of {told['patients']} patients: {', '.join(names)}")
    print(table.round(3).to_string(index=False))
    if store:
        _store("label_curves_real", table, settings, demo, seeds, parts="real", real=told)
    lines = verdicts(table, REAL_AIMS, of="real radiographs", above_zero=False)
    return told | {"curves": table.to_dict("records")}, [*lines]


def real_settings(settings: Settings, folder: Path) -> Settings:
    """The same settings for NIH's images in another folder.

    Raises:
        ValueError: the folder is named as the demo is, whose caches its own would mix with.
    """
    folder = folder.resolve()
    if folder.name == "demo":
        raise ValueError(f"{folder}: real radiographs must not lie in a folder named demo")
    return replace(settings, data=folder.name, nih=folder, vindr=None)


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
    """Run from the command line; 1 where an aim is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--parts", nargs="+", choices=["seeds", "real", "size"], default=None)
    parser.add_argument("--real", type=Path, metavar="FOLDER", help="with real NIH images")
    parser.add_argument("--store", action="store_true", help="write notebooks/stored")
    parser.add_argument("--fit", type=int, nargs=2, metavar=("IMAGES", "FEATURES"))
    options = parser.parse_args()
    if options.fit:
        print(json.dumps(fit_real_size(*options.fit)))
        return 0
    parts = options.parts or ["seeds", "size", *(["real"] if options.real else [])]
    if "real" in parts and not options.real:
        parser.error("the part `real` needs a folder of real radiographs: add --real FOLDER")
    settings = load_settings()
    if options.store and not settings.is_demo:
        parser.error("what is stored is the demo's: unset CXR_DATA and CXR_SCALE")
    name = "linear_evaluation" if settings.is_demo else f"linear_evaluation_{settings.data}"
    results = Results(name, settings, folder=ROOT / "runs" / "benchmarks")
    lines = []
    if "size" in parts:
        size = measure_size()
        kept = size["peak_gb"] <= MAX_GB and size["minutes"] <= MAX_MINUTES
        verdict = "kept" if kept else "NOT KEPT"
        lines.append(f"aim, real size: at most {MAX_MINUTES} minutes, {MAX_GB} GB: {verdict}")
        results.add(real_size=size)
    if "seeds" in parts:
        found, own = measure_seeds(settings, options.seeds, store=options.store)
        lines += own
        results.add(**found)
    if "real" in parts:
        found, own = measure_real(settings, options.real, options.seeds, store=options.store)
        lines += own
        results.add(real_radiographs=found)
    results.save()
    print("\n".join(lines))
    return int(any("NOT" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
