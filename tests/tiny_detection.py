"""Detection data small enough for a unit test; as a script it trains in a process of its own.

python tests/tiny_detection.py FOLDER [DEVICES]
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cxr_helpers.course.ch04 import experiment
from cxr_helpers.course.core.compute import Compute, process_rank
from cxr_helpers.course.core.data import BoxData
from cxr_helpers.course.core.settings import load_settings
from cxr_helpers.data import splits, vindr
from cxr_helpers.data.packed import PackedImages

CORNERS = ["x_min", "y_min", "x_max", "y_max"]
SMALL = {"image_size": 32, "batch_size": 2, "epochs": 1, "fpn_channels": 8, "head_width": 8}


def vindr_data(n=40):
    """Images of 32 px, packed at 16; two readers agree on a heart, a third draws a nodule."""
    ids = [f"i{k:02d}" for k in range(n)]
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, 16, 16), dtype=np.uint8)
    images = PackedImages(pixels, ids, np.full((n, 2), 32), {})
    drawn, fused = [], []
    for k in ids[: n - 8]:
        heart, nodule = (k, "Cardiomegaly", 4, 8, 24, 28), (k, "Nodule/Mass", 2, 2, 8, 8)
        drawn += [("R2", *heart), ("R1", *nodule), ("R3", *heart)]
        fused += [(*heart, 2), (*nodule, 1)]
    boxes = pd.DataFrame(drawn, columns=["reader_id", "image_id", "label", *CORNERS])
    table = pd.DataFrame(fused, columns=["image_id", "label", *CORNERS, "readers"])
    readings = vindr.Readings(boxes, pd.DataFrame(), pd.DataFrame())
    split = splits.split_by_patient(ids, parts={"train": 0.6, "val": 0.2, "test": 0.2}, seed=0)
    return BoxData(readings, table, images, split)


def small_settings(folder, **changes):
    """The demo's settings with a detector of a few thousand weights and another folder."""
    found = load_settings({})
    detect = replace(found.detect, **{**SMALL, **changes})
    pretrain = replace(found.pretrain, cache_size=16)
    return replace(found, data="made", project=Path(folder), detect=detect, pretrain=pretrain)


def long_settings(folder):
    """Three epochs of four images a step, a checkpoint after each, the best one kept."""
    return small_settings(folder, epochs=3, batch_size=4, checkpoint_every=1, keep="best")


def train(folder, **options):
    """Train the random arm; gives the detector, its path and detections in the test images."""
    settings, data = long_settings(folder), vindr_data()
    made, path = experiment.train_or_load_detector(
        settings, data, "random", progress=False, **options
    )
    return made, path, experiment.predictions(made, path, data, data.rows("test"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    devices = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    _, path, found = train(
        sys.argv[1], compute=Compute(devices, strategy="ddp" if devices > 1 else "auto")
    )
    np.savez(
        path.with_name(f"found_by_{process_rank()}.npz"),
        scores=np.concatenate([one["scores"] for one in found]),
        boxes=np.concatenate([one["boxes"] for one in found]),
    )
