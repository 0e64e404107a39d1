"""Is the GPU ever idle in pretraining? Images a second against the same step on ready tensors.

    python benchmarks/gpu.py             the paper's preset on a GPU, the demo's without one
    python benchmarks/gpu.py --batch 256 --steps 20

Both sides are the course's module in Lightning's loop. One reads a packed cache and makes views
with a worker on each core, as training does; the other gets two views that lie on the device
already. On a GPU there are also its peak memory, its power, and what 100, 300 and 800 epochs of
112,120 images would take.
benchmarks/README.md says what was measured.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.course.core.compute import ONE_PROCESS, training_precision
from cxr_helpers.course.core.quiet import quiet_lightning
from cxr_helpers.course.core.results import Results
from cxr_helpers.course.core.settings import PRESETS, PretrainPreset, load_settings
from cxr_helpers.pretraining import pairs

RATIO = 0.9
EPOCHS, ALL_IMAGES = (100, 300, 800), 112_120
GIB = 2**30


class ReadyPairs(pairs.ViewPairs):
    """Gives the same two views at every step, already on the device."""

    ready: list[Tensor] | None = None

    def train_dataloader(self) -> DataLoader:
        """One batch of the usual loader, as often as asked for."""
        batch = next(iter(super().train_dataloader()))
        return DataLoader(Same(batch), batch_size=None)

    def transfer_batch_to_device(self, batch, device, dataloader_idx: int) -> list[Tensor]:
        """The views that were moved at the first step."""
        if self.ready is None:
            self.ready = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return self.ready


class Same(Dataset):
    """One item many times."""

    def __init__(self, item: list[Tensor], count: int = 1_000_000):
        self.item, self.count = item, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.item


class Rate(pl.Callback):
    """Images a second from the end of the first steps to the end of the last."""

    def __init__(self, warmup: int, batch_size: int):
        self.warmup, self.batch_size, self.start, self.seconds = warmup, batch_size, 0.0, 0.0
        self.power: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        """Start or stop the watch once the device has done what it was given."""
        if trainer.global_step in (self.warmup, trainer.max_steps):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            now = time.perf_counter()
            self.start, self.seconds = (
                (now, 0.0) if trainer.global_step == self.warmup else (self.start, now - self.start)
            )
        elif trainer.global_step > self.warmup and (watts := power_draw()) is not None:
            self.power.append(watts)


def power_draw() -> float | None:
    """Watts that the first GPU draws now; None where nothing tells."""
    if not torch.cuda.is_available() or shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--id=0", "--query-gpu=power.draw", "--format=csv,noheader,nounits"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    try:
        return float(done.stdout.split()[0])
    except (ValueError, IndexError):
        return None


def measure(
    preset: PretrainPreset, pixels: np.ndarray, steps: int, *, ready: bool
) -> dict[str, float | None]:
    """Images a second, seconds a step, peak memory (GB) and mean power (W) of one side."""
    warmup = max(2, steps // 5)
    module = pretraining.build_module(preset, seed=0, total_steps=10 * steps)
    kind = ReadyPairs if ready else pairs.ViewPairs
    fed = kind(
        pixels,
        range(len(pixels)),
        pretraining.two_views(preset),
        batch_size=preset.batch_size,
        seed=0,
        workers=0 if ready else ONE_PROCESS.loader_workers(),
    )
    rate = Rate(warmup, preset.batch_size)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with quiet_lightning():
        trainer = pl.Trainer(
            max_steps=steps + warmup,
            precision=training_precision(),
            accelerator="auto",
            devices=1,
            logger=False,
            callbacks=[rate],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, fed)
    memory = torch.cuda.max_memory_allocated() / GIB if torch.cuda.is_available() else None
    return {
        "images_a_second": steps * preset.batch_size / rate.seconds,
        "seconds_a_step": rate.seconds / steps,
        "memory_gb": memory,
        "watts": float(np.mean(rate.power)) if rate.power else None,
    }


def made_up_cache(folder: Path, count: int, side: int) -> np.ndarray:
    """A packed cache of noise, memory-mapped as the real one is."""
    path = folder / "pixels.npy"
    rng = np.random.default_rng(0)
    np.save(path, rng.integers(0, 256, (count, side, side), dtype=np.uint8))
    return np.load(path, mmap_mode="r")


def outlook(side: dict[str, float | None]) -> list[dict[str, float | None]]:
    """Hours and kilowatt-hours of long runs at this rate."""
    rows = []
    for epochs in EPOCHS:
        hours = epochs * ALL_IMAGES / side["images_a_second"] / 3600
        energy = None if side["watts"] is None else hours * side["watts"] / 1000
        rows.append({"epochs": epochs, "hours": hours, "kwh": energy})
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and save; status 1 where the bound is not kept on a GPU."""
    parser = argparse.ArgumentParser(description="Is the GPU ever idle in pretraining?")
    parser.add_argument("--batch", type=int, help="images a step; the preset's by default")
    parser.add_argument("--steps", type=int, default=30, help="steps that are timed")
    parser.add_argument("--rounds", type=int, default=3, help="times the two sides take turns")
    args = parser.parse_args(arguments)
    settings = load_settings({})
    preset = PRESETS["paper" if torch.cuda.is_available() else "demo"]["pretrain"]
    preset = replace(preset, initial_weights="random", batch_size=args.batch or preset.batch_size)
    found: dict[str, list[dict]] = {"fed": [], "ready": []}
    with tempfile.TemporaryDirectory() as folder:
        pixels = made_up_cache(Path(folder), 4 * preset.batch_size, preset.cache_size)
        for _ in range(args.rounds):
            for side in found:
                found[side].append(measure(preset, pixels, args.steps, ready=side == "ready"))
    best = {s: max(rounds, key=lambda r: r["images_a_second"]) for s, rounds in found.items()}
    ratio = best["fed"]["images_a_second"] / best["ready"]["images_a_second"]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    results = Results("gpu", settings, folder=settings.project / "runs" / "benchmarks")
    results.add(device=device, batch=preset.batch_size, **best, ratio=ratio)
    results.add(outlook=outlook(best["fed"]) if torch.cuda.is_available() else None)
    results.save()
    for side, figures in best.items():
        print(side, {k: round(v, 3) for k, v in figures.items() if v is not None})
    verdict = "kept" if ratio >= RATIO else "NOT KEPT"
    print(f"{device}: fed at {ratio:.3f} of the rate on ready tensors  >= {RATIO} {verdict}")
    return int(ratio < RATIO)


if __name__ == "__main__":
    sys.exit(main())
