"""Is this machine ready for the course, and what has it got?

`python -m cxr_helpers.course.core.machine` is the last step of the set-up: it fails with one
sentence where torchvision cannot load. `machine_report` is the table in notebook 00. Neither uses
the network.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd
import psutil

MIN_PYTHON = (3, 11)
MIN_MEMORY_GB = 6
MIN_DISK_GB = 3
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


def machine_report(folder: Path | str = ".") -> pd.DataFrame:
    """List what the course needs and what this machine has.

    Args:
        folder: Where data and results will lie; its disk's free space is listed.

    Returns:
        One row for each item, the index; columns `found` (text), `ok` (bool) and `why` (what it is
        needed for, or what to do where `ok` is False).
    """
    rows = [_python(), _cores(), _memory(), _disk(Path(folder))]
    rows += _accelerator() + [_package(name) for name in PACKAGES]
    return pd.DataFrame(rows, columns=["item", "found", "ok", "why"]).set_index("item")


def accelerator() -> str | None:
    """Name of the GPU that torch can use, or None."""
    import torch

    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return f"{torch.cuda.get_device_name(0)}, {memory:.0f} GB"
    return "Apple GPU" if torch.backends.mps.is_available() else None


def bf16_is_fast() -> bool:
    """Whether training takes bfloat16: the GPU, or without one the CPU, has instructions for it."""
    from cxr_helpers.course.core import compute

    return compute.bf16_is_fast()


def _python() -> tuple[str, str, bool, str]:
    ok = sys.version_info >= MIN_PYTHON
    why = "needed: 3.11 or newer"
    return "Python", platform.python_version(), ok, why if ok else f"{why}; install one"


def _cores() -> tuple[str, str, bool, str]:
    # Containers and schedulers may grant fewer cores than the machine has.
    granted = getattr(os, "sched_getaffinity", None)
    cores = len(granted(0)) if granted else os.cpu_count() or 1
    why = "the stated times are for 2 cores"
    return "CPU cores", str(cores), cores >= 2, why if cores >= 2 else f"{why}; expect twice"


def _memory() -> tuple[str, str, bool, str]:
    memory = psutil.virtual_memory()
    ok = memory.total >= MIN_MEMORY_GB * 2**30
    found = f"{memory.total / 2**30:.0f} GB, {memory.available / 2**30:.0f} GB free"
    why = f"the course stays under {MIN_MEMORY_GB} GB"
    return (
        "memory",
        found,
        ok,
        why if ok else f"{why}; close other programs, one notebook at a time",
    )


def _disk(folder: Path) -> tuple[str, str, bool, str]:
    free = shutil.disk_usage(folder).free / 2**30
    ok = free >= MIN_DISK_GB
    why = f"demo data and results take less than {MIN_DISK_GB} GB"
    return "free disk", f"{free:.0f} GB", ok, why if ok else f"{why}; make room"


def _accelerator() -> list[tuple[str, str, bool, str]]:
    name, name_ok = _try(accelerator)
    fast, fast_ok = _try(bf16_is_fast)
    broken = f"torch does not load; run: {REMEDY}"
    gpu = "not needed at demo scale; the paper's scale needs one"
    bf16 = "used for training where there is; without, training takes about twice as long"
    return [
        (
            "GPU",
            name or ("none (not needed)" if name_ok else "none"),
            name_ok,
            gpu if name_ok else broken,
        ),
        ("fast bfloat16", "yes" if fast else "no", fast_ok, bf16 if fast_ok else broken),
    ]


def _package(name: str) -> tuple[str, str, bool, str]:
    found = installed(name)
    ok = found != "missing"
    return (
        name,
        found,
        ok,
        "installed" if ok else "run: python -m pip install -c constraints.txt -e .",
    )


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
