"""The demo's exact boxes: drawn again from its seed, they lie under the readers' boxes."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cxr_helpers.course.ch04 import exact_boxes
from cxr_helpers.course.core.data import BoxData
from cxr_helpers.course.core.settings import SettingsError, load_settings
from cxr_helpers.data import vindr
from cxr_helpers.data.packed import PackedImages
from cxr_helpers.detection.boxes import box_iou

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    sys.path.insert(0, str(ROOT / "data_scripts"))
    try:
        from make_demo import make_demo
    finally:
        sys.path.pop(0)
    out = tmp_path_factory.mktemp("demo") / "demo"
    return make_demo(out, seed=5, n_nih=4, n_vindr=40, workers=1, progress=False)


def load(folder):
    """Settings and data of a demo, packed at half of 300 px; the pixels do not matter here."""
    readings = vindr.read_readings(folder / "vindr" / "train.csv")
    ids = sorted(set(readings.readings["image_id"]))
    images = PackedImages(
        np.zeros((len(ids), 150, 150), np.uint8), ids, np.full((len(ids), 2), 300), {}
    )
    data = BoxData(readings, readings.boxes, images, np.array(["test"] * len(ids)))
    return replace(load_settings({}), vindr=folder / "vindr"), data


def test_readers_drew_around_the_exact_boxes(demo):
    settings, data = load(demo)
    rows = np.arange(len(data.images.image_ids))
    found = exact_boxes.exact_boxes(settings, data, rows)
    overlap, drawn = [], data.truths(rows, data.readings.boxes)
    for row, own, one in zip(rows, drawn, found, strict=True):
        assert data.abnormal[row] == (len(one["labels"]) > 0)
        assert set(own["labels"]) <= set(one["labels"])
        for label in set(own["labels"]):
            part, exact = (truth["boxes"][truth["labels"] == label] for truth in (own, one))
            overlap += box_iou(part, exact).max(1).tolist()
    assert len(overlap) > 20 and np.median(overlap) > 0.6 and min(overlap) > 0.1
    assert all((one["scores"] == 1).all() for one in found)


def test_rows_are_answered_in_their_order(demo):
    settings, data = load(demo)
    rows = np.flatnonzero(data.abnormal)[:2]
    forth, back = (exact_boxes.exact_boxes(settings, data, r) for r in (rows, rows[::-1]))
    assert np.array_equal(forth[0]["boxes"], back[1]["boxes"])
    assert not np.array_equal(forth[0]["boxes"], forth[1]["boxes"])


def test_real_data_have_none(tmp_path):
    settings = replace(load_settings({}), vindr=tmp_path)
    assert exact_boxes.exact_boxes(settings, None, np.arange(3)) is None
    assert exact_boxes.exact_boxes(replace(settings, vindr=None), None, np.arange(3)) is None


def test_a_demo_that_was_drawn_otherwise_is_refused(demo, tmp_path):
    settings, data = load(demo)
    made = json.loads((demo / "demo.json").read_text()) | {"seed": 6}
    (tmp_path / "demo.json").write_text(json.dumps(made))
    other = replace(settings, vindr=tmp_path / "vindr")
    with pytest.raises(SettingsError, match="another version of make_demo.py.*make it anew"):
        exact_boxes.exact_boxes(other, data, np.flatnonzero(data.abnormal)[:1])
