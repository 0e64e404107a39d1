"""A pretraining run small enough for a unit test; as a script it runs in a process of its own.

python tests/tiny_pretraining.py FOLDER [DEVICES [BATCH_SIZE]]

With KILL_IN_EPOCH in the environment the last of several processes kills itself once, in that
epoch.
"""

import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.course.core.compute import Compute
from cxr_helpers.course.core.settings import PretrainPreset, ProbePreset, Settings
from cxr_helpers.pretraining import barlow

PRESET = PretrainPreset(
    image_size=32,
    batch_size=8,
    epochs=6,
    min_steps=0,
    projector=(32, 32, 16),
    redundancy_weight=0.02,
    measure_every=2,
    checkpoint_every=2,
)


@dataclass(frozen=True)
class TinyData:
    """What pretraining takes of NihData: 24 training and 12 validation images of noise."""

    images: SimpleNamespace
    entries: pd.DataFrame
    labels: np.ndarray
    digest: str = "0123456789abcdef"

    def rows(self, part):
        return {"train": np.arange(24), "val": np.arange(24, 36)}[part]


def tiny_data():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (36, 8, 8), dtype=np.uint8).repeat(6, axis=1).repeat(6, axis=2)
    views = np.resize(["AP", "PA"], 36)
    labels = rng.integers(0, 2, (36, 14))
    return TinyData(SimpleNamespace(pixels=pixels), pd.DataFrame({"view": views}), labels)


def tiny_settings(folder, **changes):
    preset = replace(PRESET, **changes)
    probe = ProbePreset(neighbors=5)
    return Settings("tiny", "demo", Path(folder), None, None, pretrain=preset, probe=probe)


def run(folder, *, progress=False, changes=(), **options):
    settings, data = tiny_settings(folder, **dict(changes)), tiny_data()
    return pretraining.pretrain(settings, data, seed=0, progress=progress, **options)


def die_once(folder, epoch):
    """Make the last process kill itself in the middle of an epoch, if it has not done so before."""
    mark, step = Path(folder) / "killed", barlow.BarlowTwins.training_step

    def training_step(self, batch, batch_index):
        last = self.trainer.global_rank == self.trainer.world_size - 1
        if last and self.current_epoch == epoch and batch_index == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, batch, batch_index)

    barlow.BarlowTwins.training_step = training_step


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "KILL_IN_EPOCH" in os.environ:
        die_once(sys.argv[1], int(os.environ["KILL_IN_EPOCH"]))
    devices = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    changes = {"batch_size": int(sys.argv[3])} if len(sys.argv) > 3 else {}
    strategy = "ddp" if devices > 1 else "auto"
    run(
        sys.argv[1],
        changes=changes,
        compute=Compute(devices, strategy=strategy, precision="32-true"),
    )
