"""What a run was made of: settings, versions, commit, seed and a digest of its data."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from cxr_helpers import __version__
from cxr_helpers.course.core.compute import ONE_PROCESS, Compute
from cxr_helpers.course.core.files import write_text
from cxr_helpers.course.core.results import versions
from cxr_helpers.course.core.settings import Settings


def commit(project: Path) -> str | None:
    """The course's commit, with `+changes` where files differ from it; None outside of git."""

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(project), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    found = git("rev-parse", "HEAD")
    if found is None:
        return None
    return f"{found}+changes" if git("status", "--porcelain", "--untracked-files=no") else found


def run_record(
    settings: Settings, *, stage: str, seed: int, digest: str, compute: Compute = ONE_PROCESS
) -> dict[str, object]:
    """All that is needed to make a run again.

    Args:
        settings: of the run.
        stage: `pretrain`, `probe`, `detect` or `explain`.
        seed: of weights, order and augmentation.
        digest: of the data, see `data.data_digest`.
        compute: the machines.

    Returns:
        Plain JSON values, without any absolute path.
    """
    return {
        "stage": stage,
        "settings": settings.summary() | {"seed": seed},
        "compute": asdict(compute) | {"processes": compute.processes},
        "data_digest": digest,
        "commit": commit(settings.project),
        "course_version": __version__,
        "versions": versions(),
        "python": sys.version.split()[0],
    }


def write_record(record: dict, path: str | os.PathLike[str]) -> Path:
    """Write a record as JSON, the whole file or nothing, and return its path."""
    return write_text(json.dumps(record, indent=1) + "\n", path)
