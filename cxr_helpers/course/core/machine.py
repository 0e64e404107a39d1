"""Is this machine ready for the course, and what has it got?

`python -m cxr_helpers.course.core.machine` is the last step of the set-up: it fails with one
sentence where torchvision cannot load. `machine_report` is the table in notebook 00. Neither uses
the network.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import joblib
import pandas as pd
import psutil

MIN_PYTHON = (3, 11)
MIN_MEMORY_GB = 6
MIN_DISK_GB = 3
GIB = 2**30
PACKAGES = ("torch", "torchvision", "lightly", "pytorch-lightning", "pydicom", "grad-cam")

# Runs in a process of its own, so that a crash in a native library is an exit code here.
PAIR_TEST = """
import torch, torchvision
boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
assert torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5).tolist() == [0]
"""
REMEDY = (
    "python -m pip uninstall -y torch torchvision && "
    "python -m pip install -c constraints.txt torch torchvision"
)
BROKEN = f"torch does not load; run: {REMEDY}"
# What each item is needed for, and what to do where it does not suffice.
NEEDED = {
    "Python": ("needed: 3.11 or newer", "install one"),
    "CPU cores": ("the stated times are for 2 cores", "expect twice"),
    "memory": (
        f"the course stays under {MIN_MEMORY_GB} GB",
        "close other programs, one notebook at a time",
    ),
    "free disk": (f"demo data and results take less than {MIN_DISK_GB} GB", "make room"),
    "GPU": ("not needed at demo scale; the paper's scale needs one", BROKEN),
    "fast bfloat16": (
        "used for training; without it, training takes two to three times as long",
        BROKEN,
    ),
}
PACKAGE_NEEDED = (
    "the course is built on it",
    "run: python -m pip install -c constraints.txt -e '.[course]'",
)


class MachineError(RuntimeError):
    """Something that the course needs does not work; the message says how to mend it."""


def check_torch_pair(*, python: str = sys.executable, code: str = PAIR_TEST) -> None:
    """Check that torchvision loads with this torch and that its compiled operators work.

    Args:
        python: The interpreter to check.
        code: What has to run in it.

    Raises:
        MachineError: In one sentence, what does not load and the command that mends it.
    """
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    if done.returncode == 0:
        return
    lines = done.stderr.strip().splitlines()
    reason = lines[-1] if lines else f"exit code {done.returncode}"
    raise MachineError(
        f"torch {installed('torch')} and torchvision {installed('torchvision')} do not load "
        f"together ({reason}); in the course's folder and environment run: {REMEDY}"
    )


def installed(package: str) -> str:
    """Version of an installed package, or 'missing'.

    >>> installed("no-such-package")
    'missing'
    """
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def usable_cores() -> int:
    """Cores that this process may use: containers and schedulers may grant fewer than there are."""
    return joblib.cpu_count()


def machine_report(folder: Path | str = ".") -> pd.DataFrame:
    """List what the course needs and what this machine has.

    Args:
        folder: Where data and results will lie; its disk's free space is listed.

    Returns:
        One row for each item, the index; columns `found` (text), `ok` (bool) and `why` (what it is
        needed for, and what to do where `ok` is False).
    """
    cores = usable_cores()
    memory, free = psutil.virtual_memory(), shutil.disk_usage(folder).free
    (gpu, gpu_ok), (fast, fast_ok) = _try(accelerator), _try(bf16_is_fast)
    has = {
        "Python": (platform.python_version(), sys.version_info >= MIN_PYTHON),
        "CPU cores": (str(cores), cores >= 2),
        "memory": (
            f"{memory.total / GIB:.0f} GB, {memory.available / GIB:.0f} GB free",
            memory.total >= MIN_MEMORY_GB * GIB,
        ),
        "free disk": (f"{free / GIB:.0f} GB", free >= MIN_DISK_GB * GIB),
        "GPU": (gpu or ("none (not needed)" if gpu_ok else "not known"), gpu_ok),
        "fast bfloat16": ("yes" if fast else "no", fast_ok),
    }
    has |= {name: (installed(name), installed(name) != "missing") for name in PACKAGES}
    rows = []
    for item, (found, ok) in has.items():
        why, remedy = NEEDED.get(item, PACKAGE_NEEDED)
        rows.append((item, found, ok, why if ok else f"{why}; {remedy}"))
    return pd.DataFrame(rows, columns=["item", "found", "ok", "why"]).set_index("item")


def accelerator() -> str | None:
    """Name of the GPU that torch can use, or None."""
    import torch

    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / GIB
        return f"{torch.cuda.get_device_name(0)}, {memory:.0f} GB"
    return "Apple GPU" if torch.backends.mps.is_available() else None


def bf16_is_fast() -> bool:
    """Whether training takes bfloat16: the GPU, or without one the CPU, has instructions for it."""
    from cxr_helpers.course.core import compute

    return compute.bf16_is_fast()


def _try(function: Callable[[], object]) -> tuple[object, bool]:
    try:
        return function(), True
    except (ImportError, OSError, RuntimeError, AttributeError):
        return None, False


def main() -> int:
    """Check the pair and print one sentence where it does not load."""
    try:
        check_torch_pair()
    except MachineError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
