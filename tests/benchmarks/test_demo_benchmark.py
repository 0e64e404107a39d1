"""The demo's benchmark says which bound is kept, and knows what was drawn."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from cxr_helpers.course.core.settings import load_settings

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "demo.py"

SIZES = {"test images": 946, "test patients": 392}
SIZES |= {"abnormal test images": 517, "abnormal training images": 1030}
MAKING = {"seconds": 95.0, "megabytes": 410.0}


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("benchmark_demo", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_bound_is_told_with_its_verdict(demo):
    lines = demo.verdicts(MAKING, SIZES, {"random": [0.64, 0.66], "pixels": 0.66, "known": 0.97})
    assert len(lines) == 10 and all(line.endswith(" kept") for line in lines)
    hard = {"random": [0.54], "pixels": 0.62, "known": 0.87}
    lines = demo.verdicts(MAKING, SIZES | {"test images": 344}, hard)
    bad = [line for line in lines if line.endswith("NOT KEPT")]
    assert len(bad) == 4 and "NIH-like test images" in bad[0]


def test_what_was_drawn_is_read_in_the_order_of_the_images(demo, tmp_path):
    text = "Image Index,Exact Findings\na.png,Mass|Edema\nb.png,No Finding\n"
    (tmp_path / "exact_findings.csv").write_text(text)
    data = SimpleNamespace(entries=pd.DataFrame({"image_id": ["b.png", "a.png"]}))
    settings = replace(load_settings({}), nih=tmp_path)
    found = demo.known_scores(settings, data, ["Edema", "Nodule", "Mass"])
    assert found.tolist() == [[0, 0, 0], [1, 0, 1]]
