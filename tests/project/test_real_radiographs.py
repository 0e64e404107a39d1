"""Notebooks 01 to 03 on real radiographs, unchanged but for the switches: `make test-real`.

They run at the scale `quick`: what is asked is whether they run. CXR_REAL names the folder, an NIH
ChestX-ray14 download; by default ../shared/nih_mini beside the course. Copies of the notebooks are
executed.
"""

import json
import os
import time
from pathlib import Path

import pytest

from tools.run import notebook_paths, run_notebooks

ROOT = Path(__file__).resolve().parents[2]
REAL = (ROOT / os.environ.get("CXR_REAL", "../shared/nih_mini")).resolve()
KEYS = {"metrics", "settings", "seconds", "peak_memory_mb", "versions"}

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not REAL.is_dir(), reason=f"no real radiographs in {REAL}; set CXR_REAL"),
]


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """Run the three notebooks in order; the time at which they began."""
    start = time.time()
    env = os.environ | {"CXR_DATA": str(REAL), "CXR_SCALE": "quick"}
    paths = notebook_paths(ROOT / "notebooks", ["01", "02", "03"])
    run_notebooks(paths, tmp_path_factory.mktemp("executed"), env=env)
    return start


@pytest.mark.parametrize("number", ["02", "03"])
def test_notebook_leaves_its_results(started, number):
    found = sorted((ROOT / "runs" / REAL.name / "quick" / "results").glob(f"{number}_*.json"))
    assert len(found) == 1
    # One second of slack: a file system may store coarser times than the clock tells.
    assert found[0].stat().st_mtime > started - 1, "the file is from an earlier run"
    results = json.loads(found[0].read_text(encoding="utf-8"))
    assert set(results) == KEYS
    assert results["metrics"]
    assert results["settings"]["data"] == REAL.name
