"""How fast does pretraining step, and does it help on the demo, over several seeds?

    python benchmarks/pretraining.py [--seeds 0 1 2 3 4] [--only speed|busy|seeds|recipes]

1. Images a second of the course's training against a plain loop: contiguous tensors, float32; the
   same views, network, image size, batch, loss and optimizer, rounds in turn. And the share of the
   time in which a step waits for its data.
2. The same beside one and two processes that keep a core busy, which it starts itself: with all
   threads, and with as many as others leave cores (cxr_helpers/course/core/threads.py).
3. A pretrained and a random network for each seed: k-NN and linear probe on the test patients.
   Backbones that were pretrained before with the same settings are used again.
4. With `--only recipes`: other crops, rates and images in the same steps, on a demo of another
   seed than the notebooks' (`make_demo.py --seed 1`), whose test part chooses.
benchmarks/README.md says what was measured.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from lightly.loss import BarlowTwinsLoss
from lightly.models.modules import BarlowTwinsProjectionHead
from torch import nn
from torch.utils.data import DataLoader, Dataset

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.course.ch03 import linear
from cxr_helpers.course.core.compute import training_precision
from cxr_helpers.course.core.data import NihData, ensure_demo, load_nih
from cxr_helpers.course.core.quiet import quiet_lightning
from cxr_helpers.course.core.results import Results
from cxr_helpers.course.core.settings import Settings, SettingsError, load_settings
from cxr_helpers.course.core.threads import SpareCores
from cxr_helpers.evaluation import probe, scoring
from cxr_helpers.evaluation.intervals import over_seeds, over_seeds_and_images
from cxr_helpers.pretraining import barlow, pairs

PARTS = ("speed", "busy", "seeds", "recipes")
SPEEDUP, WAITING = 1.3, 0.15
NEIGHBORS, TIMES_AS_LONG = (0, 1, 2), 2.5
DIAGONAL, OFFDIAGONAL, MINUTES = 0.7, 0.1, 6.0

PHANTOMS = {"phantoms": 3000, "phantoms_seed": 20_241_127, "epochs": 10}

HALF, HARDER = {"epochs": 1, "min_steps": 112}, {"min_crop": 0.6, "learning_rate": 2e-3}

# What differs from the demo's preset, in each stage; all take about as many steps.
RECIPES = {
    "crop 0.8, rate 1e-3": ({},),
    "crop 0.8, rate 2e-3": ({"learning_rate": 2e-3},),
    "3,000 phantoms, crop 0.8, rate 1e-3": (PHANTOMS,),
    "3,000 phantoms, crop 0.6, rate 2e-3": (PHANTOMS | HARDER,),
    "crop 0.6, rate 2e-3": (HARDER,),
    "easy to hard: half at crop 0.8, 1e-3, half at 0.6, 2e-3": (HALF, HALF | HARDER),
}
SHARES, DRAWS = (0.1, 1.0), 5


class PillowPairs(Dataset):
    """Two views of one image at a time, made by lightly's classes on Pillow images."""

    def __init__(self, pixels: np.ndarray, preset):
        self.pixels, self.make = pixels, pretraining.two_views(preset)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int):
        return self.make(self.pixels[index])


def plain_rate(settings: Settings, pixels: np.ndarray, steps: int, workers: int) -> float:
    """Images a second of the plain loop, the first step left out."""
    preset = settings.pretrain
    backbone = barlow.build_backbone(preset.arch, seed=0)
    width = barlow.feature_count(backbone)
    head = BarlowTwinsProjectionHead(width, preset.projector[0], preset.projector[-1])
    network, criterion = nn.Sequential(backbone, head), BarlowTwinsLoss(preset.redundancy_weight)
    optimizer = torch.optim.AdamW(network.parameters(), lr=preset.learning_rate)
    loader = DataLoader(
        PillowPairs(pixels, preset),
        preset.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    for step, (a, b) in enumerate(batches):
        loss = criterion(*(network(v.expand(-1, 3, -1, -1).contiguous()) for v in (a, b)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == 0:
            start = time.perf_counter()
        if step == steps:
            return steps * preset.batch_size / (time.perf_counter() - start)


class Clock(pl.Callback):
    """Measures training in Lightning's loop: seconds in steps, and seconds between them."""

    def __init__(self):
        self.in_steps, self.between, self.last = 0.0, 0.0, None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        """A step has its views: what passed since the step before was waiting."""
        now = time.perf_counter()
        if self.last is not None:
            self.between += now - self.last
        self.begun = now

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        """A step has ended; the first one only warms up."""
        now = time.perf_counter()
        if self.last is not None:
            self.in_steps += now - self.begun
        self.last = now


def course_rate(
    settings: Settings, pixels: np.ndarray, steps: int, *more: pl.Callback
) -> tuple[float, float]:
    """Images a second of the course's training, and the share of the time between steps."""
    preset, clock = settings.pretrain, Clock()
    module = pretraining.build_module(preset, seed=0, total_steps=steps + 1)
    fed = pairs.ViewPairs(
        pixels,
        range(len(pixels)),
        pretraining.two_views(preset),
        batch_size=preset.batch_size,
        seed=0,
    )
    with quiet_lightning():
        trainer = pl.Trainer(
            max_steps=steps + 1,
            precision=training_precision(),
            accelerator="cpu",
            logger=False,
            callbacks=[clock, *more],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, fed)
    total = clock.in_steps + clock.between
    return steps * preset.batch_size / total, clock.between / total


def measure_speed(settings: Settings, data: NihData, steps: int, rounds: int) -> dict:
    """Best images a second of each over the rounds, which take turns."""
    pixels = np.array(data.images.pixels[data.rows("train")])
    rates: dict[str, list[float]] = {"plain": [], "plain, 2 workers": [], "course": []}
    waiting = []
    for _ in range(rounds):
        rates["plain"].append(plain_rate(settings, pixels, steps, workers=0))
        rates["plain, 2 workers"].append(plain_rate(settings, pixels, steps, workers=2))
        rate, waited = course_rate(settings, pixels, steps)
        rates["course"].append(rate)
        waiting.append(waited)
    best = {name: max(found) for name, found in rates.items()}
    plain = max(best["plain"], best["plain, 2 workers"])
    return {
        "images_a_second": best,
        "speedup": best["course"] / plain,
        "waiting": min(waiting),
        "precision": training_precision(),
    }


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """So many processes that do nothing but keep a core busy."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for one in started:
            one.kill()
            one.wait()


def measure_busy(settings: Settings, data: NihData, steps: int, rounds: int) -> pd.DataFrame:
    """Best images a second beside busy processes: with all threads, and with those that are spare.

    Returns:
        A row for each number of busy processes, with `all threads`, `spare cores`, and `times`, how
        many times as long a training on spare cores takes as on the quiet machine.
    """
    pixels = np.array(data.images.pixels[data.rows("train")])
    ways: dict[str, tuple] = {"all threads": (), "spare cores": (SpareCores(),)}
    rates: dict[int, dict[str, float]] = {count: dict.fromkeys(ways, 0.0) for count in NEIGHBORS}
    for _ in range(rounds):
        for count, (way, more) in itertools.product(NEIGHBORS, ways.items()):
            with busy_processes(count):
                rate, _ = course_rate(settings, pixels, steps, *more)
            rates[count][way] = max(rates[count][way], rate)
    table = pd.DataFrame(rates).T.rename_axis("busy processes")
    return table.assign(times=table.loc[0].max() / table["spare cores"])


def probe_scores(settings: Settings, data: NihData, backbone: nn.Module, columns) -> dict:
    """Scores of the test images by k-NN and by a linear probe chosen on validation patients."""
    f = pretraining.features(settings, backbone, data.images.pixels, "pretrained")
    train, val, test = (data.rows(part) for part in ("train", "val", "test"))
    y = data.labels[:, columns]
    fitted = probe.fit_probe(f[train], y[train], f[val], y[val])
    neighbors = settings.probe.neighbors
    return {
        "k-NN": probe.knn_scores(f[train], y[train], f[test], neighbors=neighbors),
        "linear": fitted.scores(f[test]),
    }


def one_seed(settings: Settings, data: NihData, seed: int, columns) -> tuple[dict, dict]:
    """Pretrain with a seed where that was not done before; a row of figures, and all scores."""
    path, minutes = pretraining.backbone_path(settings, seed=seed), None
    if not path.is_file():
        start = time.perf_counter()
        pretraining.pretrain(settings, data, seed=seed, progress=False)
        minutes = (time.perf_counter() - start) / 60
    last = pretraining.training_log(path).iloc[-1]
    scores, row = {}, {"seed": seed, "minutes": minutes}
    for name in ("loss", "diagonal_mean", "offdiagonal_abs_mean"):
        row[name] = float(last[name])
    row |= {k: float(v) for k, v in last.items() if str(k).startswith(("heldout", "whole"))}
    labels = data.labels[data.rows("test")][:, columns]
    for arm in ("random", "pretrained"):
        backbone, _ = pretraining.arm_backbone(settings, arm, seed=seed, data=data)
        scores[arm] = probe_scores(settings, data, backbone, columns)
        for kind, found in scores[arm].items():
            row[f"{kind} {arm}"] = float(np.nanmean(scoring.auroc(labels, found)))
    return row, scores


def measure_seeds(settings: Settings, data: NihData, seeds: list[int]) -> dict:
    """The table of all seeds, and the gain over random weights with two intervals."""
    columns = linear.scorable_labels(data)
    found = [one_seed(settings, data, seed, columns) for seed in seeds]
    rows, scores = [row for row, _ in found], [s for _, s in found]
    test = data.rows("test")
    labels, patients = data.labels[test][:, columns], data.patients[test]
    gains = {}
    for kind in ("k-NN", "linear"):
        values = scoring.resampled_scores(
            labels,
            [s["pretrained"][kind] for s in scores],
            patients,
            minus=[s["random"][kind] for s in scores],
            resamples=settings.probe.resamples,
            seed=0,
        )
        gains[kind] = intervals_of(scoring.nan_mean(values, axis=2), n_patients=len(set(patients)))
    return {"rows": rows, "labels": linear.label_names(columns), "gains": gains}


def measure_recipes(settings: Settings, data: NihData, seeds: list[int]) -> list[dict]:
    """A row for each recipe and seed: how far the weights moved, and a linear probe's macro AUROC.

    Raises:
        SettingsError: this is the demo of seed 0, which the notebooks report.
    """
    stamp = settings.project / "data" / "demo" / "demo.json"
    if json.loads(stamp.read_text(encoding="utf-8"))["seed"] == 0:
        raise SettingsError("recipes are chosen on another demo: make_demo.py --seed 1")
    settings = replace(settings, probe=replace(settings.probe, fractions=SHARES, draws=DRAWS))
    columns, test = linear.scorable_labels(data), data.rows("test")
    draws, labels = linear.draw_labels(settings, data, columns), data.labels[:, columns]
    names, rows = linear.label_names(columns), []
    for recipe, stages in {"random weights": (), **RECIPES}.items():
        for seed in seeds:
            own = settings
            backbone, source = pretraining.arm_backbone(own, "random", seed=seed)
            for number, changes in enumerate(stages):
                start = str(pretraining.backbone_path(own, seed=seed)) if number else "random"
                preset = replace(settings.pretrain, initial_weights=start, **changes)
                own = replace(settings, pretrain=preset)
                backbone, source = pretraining.arm_backbone(own, "pretrained", seed=seed, data=data)
            features = linear.frozen_features(own, linear.Arm(backbone, False, source), data.images)
            probes = linear.fit_probes(data, features, labels, names, draws)
            scores = linear.probe_scores(probes, features, np.array(data.images.image_ids)[test])
            row = {"recipe": recipe, "seed": seed}
            for share, drawn in scores.items():
                values = [np.nanmean(scoring.auroc(labels[test], one)) for one in drawn]
                row[f"AUROC at {100 * share:g}%"] = float(np.mean(values))
            if stages:
                path = pretraining.backbone_path(own, seed=seed)
                last = pretraining.training_log(path).iloc[-1]
                row |= {k: float(last[k]) for k in last.index if k.startswith("moved")}
                row["k-NN of findings"] = float(last["knn_findings"])
            rows.append(row)
            print({k: v if isinstance(v, str) else round(v, 3) for k, v in row.items()}, flush=True)
    return rows


def intervals_of(macro: np.ndarray, *, n_patients: int) -> dict[str, dict[str, float | None]]:
    """Mean over seeds with 95% intervals; without bounds for a single seed.

    Args:
        macro: (S, 1 + R) one row a seed, the test patients as they are first, then resamples.
        n_patients: how many were resampled.
    """
    each, drawn = macro[:, 0], macro[:, 1:]
    if len(each) < 2:
        unknown = {"value": float(each.mean()), "low": None, "high": None}
        return {"over seeds": unknown, "seeds and patients": unknown}
    both = over_seeds_and_images(each, drawn, n_images=n_patients)
    return {"over seeds": over_seeds(each).as_dict(), "seeds and patients": both.as_dict()}


def verdicts(speed: dict | None, busy: pd.DataFrame | None, table: dict | None) -> Iterable[str]:
    """One line for each figure, with the bound it should keep."""
    figures = {}
    if speed:
        figures["step throughput against the plain loop"] = (speed["speedup"], ">=", SPEEDUP)
        figures["share of the time waiting for data"] = (speed["waiting"], "<=", WAITING)
    if busy is not None:
        figures["times as long beside one busy process"] = (
            busy.loc[1, "times"],
            "<=",
            TIMES_AS_LONG,
        )
    if table:
        rows = pd.DataFrame(table["rows"])
        figures["mean diagonal, least of the seeds"] = (
            rows["diagonal_mean"].min(), ">=", DIAGONAL)  # fmt: skip
        figures["mean |off-diagonal|, largest of the seeds"] = (
            rows["offdiagonal_abs_mean"].max(), "<=", OFFDIAGONAL)  # fmt: skip
        if rows["minutes"].notna().any():
            figures["minutes of the longest run"] = (rows["minutes"].max(), "<=", MINUTES)
        for kind, gain in table["gains"].items():
            low = gain["over seeds"]["low"]
            if low is not None:
                figures[f"{kind}: lower end of the gain, over seeds"] = (low, ">=", 0.0)
    for name, (value, sign, bound) in figures.items():
        kept = value <= bound if sign == "<=" else value >= bound
        yield f"{name:45} {value:7.3f}  {sign} {bound:<5} {'kept' if kept else 'NOT KEPT'}"


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and save; status 1 where a bound is not kept."""
    parser = argparse.ArgumentParser(description="Speed and worth of pretraining on the demo.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--only", choices=PARTS, help="one of them")
    parser.add_argument("--steps", type=int, default=12, help="steps of each round of the speed")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the speed")
    args = parser.parse_args(arguments)
    settings = load_settings({})
    ensure_demo(settings)
    data = load_nih(settings)
    settings = replace(settings, probe=replace(settings.probe, resamples=1000))
    name = "pretraining" if args.only is None else f"pretraining_{args.only}"
    results = Results(name, settings, folder=settings.project / "runs" / "benchmarks")
    if args.only == "recipes":
        results.add(recipes=measure_recipes(settings, data, args.seeds))
        results.save()
        return 0
    parts = (args.only,) if args.only else ("speed", "busy", "seeds")
    speed = measure_speed(settings, data, args.steps, args.rounds) if "speed" in parts else None
    busy = measure_busy(settings, data, args.steps, args.rounds) if "busy" in parts else None
    table = measure_seeds(settings, data, args.seeds) if "seeds" in parts else None
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    besides = None if busy is None else busy.to_dict("index")
    results.add(speed=speed, busy=besides, seeds=table, load_average=load)
    results.save()
    if speed:
        print({name: round(rate, 1) for name, rate in speed["images_a_second"].items()})
    if busy is not None:
        print(busy.round(2).to_string())
    if table:
        print(pd.DataFrame(table["rows"]).round(3).to_string(index=False))
        print(pd.DataFrame(table["gains"]).to_string())
    print(f"load of the machine at the end {load}")
    lines = list(verdicts(speed, busy, table))
    print("\n".join(lines))
    return int(any("NOT" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
