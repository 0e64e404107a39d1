"""A small pretraining run in a process of its own, to be killed and gone on with.

python -m cxr_helpers.course.ch06.resuming FOLDER
"""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.course.core import checkpoints
from cxr_helpers.course.core.data import load_nih
from cxr_helpers.course.core.settings import Settings, load_settings
from cxr_helpers.pretraining import weights

SMALL = {
    "image_size": 32,
    "batch_size": 128,
    "epochs": 4,
    "min_steps": 0,
    "projector": (64, 64, 32),
    "measure_every": 4,
    "checkpoint_every": 1,
}


def small_settings(folder: Path) -> Settings:
    """The settings of the switches with a run of seconds, whose results go to `folder`."""
    settings = load_settings()
    preset = replace(settings.pretrain, **{**SMALL, "arch": "resnet18", "optimizer": "adamw"})
    return replace(settings, project=Path(folder), pretrain=preset)


def start(folder: Path) -> subprocess.Popen:
    """Start the small run in another process; it goes on where a checkpoint lies in the folder."""
    command = [sys.executable, "-m", "cxr_helpers.course.ch06.resuming", str(folder)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, **quiet)


def finish(folder: Path) -> dict[str, torch.Tensor]:
    """Run to the end; the weights of the backbone.

    Raises:
        RuntimeError: the process failed.
    """
    if start(folder).wait() != 0:
        raise RuntimeError(f"the small run in {folder} failed: start it in a terminal to see why")
    return weights.read_weights(pretraining.backbone_path(small_settings(folder), seed=0))[0]


def kill_after_a_checkpoint(folder: Path, *, patience: float = 300.0) -> int:
    """Start the small run and kill it once its first checkpoint is there; epochs it had done.

    Args:
        folder: of the run.
        patience: seconds to wait for the checkpoint.

    Raises:
        RuntimeError: the run ended, or the time was over, before there was a checkpoint.
    """
    process = start(folder)
    path = pretraining.backbone_path(small_settings(folder), seed=0).with_suffix("")
    checkpoint, end = path / checkpoints.NAME, time.monotonic() + patience
    while not checkpoint.is_file():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise RuntimeError(f"no checkpoint appeared in {path}")
        time.sleep(0.01)
    process.kill()
    process.wait()
    return torch.load(checkpoint, weights_only=True, mmap=True)["epoch"] + 1


if __name__ == "__main__":
    data = load_nih(load_settings())
    torch.set_num_threads(1)
    pretraining.pretrain(small_settings(Path(sys.argv[1])), data, seed=0, progress=False)
