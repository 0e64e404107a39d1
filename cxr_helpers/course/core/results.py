"""Results files: what a notebook found, with its settings, time, memory and versions."""

import importlib.metadata
import json
import math
import os
import platform
import sys
import time
from pathlib import Path

import pandas as pd
import psutil

from cxr_helpers.course.core.files import write_text
from cxr_helpers.course.core.settings import Settings

PACKAGES = ("torch", "torchvision", "lightly", "pytorch-lightning", "numpy", "scikit-learn")
KEYS = ("metrics", "settings", "seconds", "peak_memory_mb", "versions")


class ClaimError(AssertionError):
    """A claim that the course makes about its demo did not hold."""


class Results:
    """Collects the figures of one notebook or benchmark and writes them as one JSON file.

    Args:
        name: for example `02_barlow_twins_pretraining`; the file is named after it.
        settings: the settings of this run; the file lies under `settings.results`.
        folder: another folder for the file, for instance `runs/benchmarks`.
    """

    def __init__(
        self, name: str, settings: Settings, *, folder: str | os.PathLike[str] | None = None
    ):
        self.path = Path(folder or settings.results) / f"{name}.json"
        self.settings = settings
        self.metrics: dict = {}
        self._start = time.perf_counter()

    def add(self, **metrics: object) -> None:
        """Add metrics: numbers, arrays of them, or dicts by arm, fraction or class.

        Raises:
            ValueError: a value that JSON cannot hold as a finite number, text, list or dict.
        """
        self.metrics.update({key: _plain(value, key) for key, value in metrics.items()})

    def save(self) -> Path:
        """Write the file (whole or not at all) and return its path."""
        content = {
            "metrics": self.metrics,
            "settings": self.settings.summary(),
            "seconds": round(time.perf_counter() - self._start, 1),
            "peak_memory_mb": round(peak_memory_mb()),
            "versions": versions(),
        }
        return write_text(json.dumps(content, indent=1) + "\n", self.path)


def _plain(value: object, name: str) -> object:
    """The value as plain JSON types; None stays None, for what could not be measured."""
    if isinstance(value, dict):
        if len(set(map(str, value))) < len(value):
            raise ValueError(f"metric {name} has a key twice among {', '.join(map(str, value))}")
        return {str(k): _plain(v, f"{name}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, f"{name}[{i}]") for i, v in enumerate(value)]
    if value is None or isinstance(value, str | bool | int):
        return value
    if hasattr(value, "to_dict"):  # a Series or a frame of pandas
        if not all(axis.is_unique for axis in value.axes):
            raise ValueError(f"metric {name} names a row or column twice; give each its own name")
        return _plain(value.to_dict(), name)
    if hasattr(value, "tolist"):  # a number or an array of numpy or torch
        return _plain(value.tolist(), name)
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ValueError(f"metric {name} is {value!r}; give a finite number, or None where unknown")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that figures depend on."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found}


def peak_memory_mb() -> float:
    """Peak resident memory of this process so far, in MB of 2**20 bytes."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def read_results(folder: str | os.PathLike[str]) -> dict[str, dict]:
    """All results files in a folder, by name, in order.

    Raises:
        ValueError: a file is no results file; the text names it.
    """
    found = {}
    for path in sorted(Path(folder).glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError):
            content = {}
        keys = content.keys() if isinstance(content, dict) else ()
        if missing := [key for key in KEYS if key not in keys]:
            raise ValueError(
                f"{path} lacks {', '.join(missing)}, so it is no results file; move it elsewhere, "
                "or run its notebook again, which writes it anew"
            )
        found[path.stem] = content
    return found


def results_table(folder: str | os.PathLike[str]) -> pd.DataFrame:
    """All results in a folder as one table: a row for each metric of each notebook.

    Returns:
        Columns notebook, metric, value, low, high, and the notebook's minutes and memory (MB).
        Empty where nothing has run yet.
    """
    rows = []
    for name, content in read_results(folder).items():
        for metric, value, low, high in _flatten("", content["metrics"]):
            cost = {"minutes": content["seconds"] / 60, "memory_mb": content["peak_memory_mb"]}
            rows.append(
                {"notebook": name, "metric": metric, "value": value, "low": low, "high": high}
                | cost
            )
    columns = ["notebook", "metric", "value", "low", "high", "minutes", "memory_mb"]
    return pd.DataFrame(rows, columns=columns)


def _flatten(prefix: str, value: object):
    """Yield (name, value, low, high) for each figure in nested metrics."""
    if isinstance(value, dict) and {"value", "low", "high"} <= value.keys():
        yield prefix, value["value"], value["low"], value["high"]
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _flatten(f"{prefix} / {key}" if prefix else key, inner)
    else:
        yield prefix, value, None, None


def show_results(table: pd.DataFrame) -> str:
    """The results table as text: under each notebook its figures, with their intervals.

    Args:
        table: As `results_table` gives it.

    >>> row = {"notebook": "04_x", "metric": "map50 / random", "value": 0.25, "low": 0.2}
    >>> row |= {"high": 0.31, "minutes": 2.5, "memory_mb": 900}
    >>> print(show_results(pd.DataFrame([row])))
    04_x (2.5 minutes, 900 MB)
      map50 / random  0.250  [0.200, 0.310]
    """
    if table.empty:
        return "No results yet."
    width = table["metric"].str.len().max()
    lines = []
    for name, rows in table.groupby("notebook"):
        first = rows.iloc[0]
        lines.append(f"{name} ({first['minutes']:.1f} minutes, {first['memory_mb']:.0f} MB)")
        for row in rows.itertuples():
            interval = "" if pd.isna(row.low) else f"  [{row.low:.3f}, {row.high:.3f}]"
            lines.append(f"  {row.metric:<{width}}  {_figure(row.value)}{interval}")
    return "\n".join(lines)


def _figure(value: object) -> str:
    if isinstance(value, float):
        return "not known" if pd.isna(value) else f"{value:.3f}"
    return "not known" if value is None else str(value)


def claim(holds: bool, text: str, settings: Settings) -> None:
    """Check a claim of the course and print it as one fixed sentence.

    On the demo the claim must hold. On other data it is a finding: the printed sentence says
    whether it held.

    Raises:
        ClaimError: the claim does not hold on the demo.
    """
    if holds:
        print(f"Holds: {text}.")
    elif settings.is_demo:
        raise ClaimError(f"On the demo this should hold, and did not: {text}.")
    else:
        print(f"Does not hold here: {text}.")
