"""Run a script of the tests in a process of its own, on one thread."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def start(script, folder, *more, launcher=(), **environment):
    """Start Python with a script and its arguments; `launcher` comes before, as in -m MODULE."""
    return subprocess.Popen(
        [sys.executable, *launcher, str(script), str(folder), *more],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*started, timeout=300):
    """Wait for all of them; none may fail, and none outlives the wait."""
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert not any(process.returncode for process in started), "\n".join(outputs)
