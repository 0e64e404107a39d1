"""Made-up images with boxes, a tiny detector, and what it would have found there."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from tiny_detector import tiny_detector

from cxr_helpers.course.ch05 import explained
from cxr_helpers.course.ch05.probe import train_probe
from cxr_helpers.course.core.data import BoxData
from cxr_helpers.data import vindr
from cxr_helpers.data.packed import PackedImages

SIZE = 64
HEART, AORTA = (vindr.CLASSES.index(n) + 1 for n in ("Cardiomegaly", "Aortic enlargement"))


@pytest.fixture(scope="session")
def data():
    """Eight images with one or two boxes each: four train, two val, two test."""
    rng = np.random.default_rng(0)
    ids = [f"image{i}" for i in range(8)]
    rows = []
    for i, name in enumerate(ids):
        for label in (HEART, AORTA)[: 1 + i % 2]:
            x, y = rng.uniform(2, 24, 2)
            rows.append((name, vindr.CLASSES[label - 1], x, y, x + 30, y + 20))
    columns = ["image_id", "label", "x_min", "y_min", "x_max", "y_max"]
    pixels = rng.integers(0, 256, size=(8, SIZE, SIZE), dtype=np.uint8)
    images = PackedImages(pixels, ids, np.full((8, 2), SIZE), {})
    split = np.array(["train"] * 4 + ["val"] * 2 + ["test"] * 2)
    fused = pd.DataFrame(rows, columns=columns)
    exact = fused.assign(x_min=fused["x_min"] + 2)[:-1]  # nothing is known to lie at the last one
    return BoxData(SimpleNamespace(boxes=None), fused, images, split, exact=exact)


@pytest.fixture(scope="session")
def detector():
    return tiny_detector(class_names=vindr.CLASSES)


@pytest.fixture(scope="session")
def probe(data, detector):
    return train_probe(detector, data, layer="layer3")


@pytest.fixture(scope="session")
def found_in(data):
    """Findings of one part of the data, from a detection near each reader's box."""

    def found(part, *, score=0.6, shift=1.0):
        rows = data.rows(part)
        detected = [
            {"boxes": t["boxes"] + np.float32(shift), "labels": t["labels"],
             "scores": np.full(len(t["labels"]), score)}
            for t in data.truths(rows)
        ]  # fmt: skip
        return explained.choose(data, rows, detected, threshold=0.5, max_images=100)

    return found


@pytest.fixture(scope="session")
def narrow(data):
    """The same images as if radiographs of 64 x 48 pixels lay in them."""
    return replace(data, images=replace(data.images, original_hw=np.full((8, 2), (320, 240))))
