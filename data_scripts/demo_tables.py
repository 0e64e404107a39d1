"""What the two halves of the demo share: the real tables, the seeds, and how a text is written."""

from __future__ import annotations

import functools
import gzip
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

Task = tuple[str, dict[str, Any]]


class DemoError(RuntimeError):
    """The demo cannot be made; the message says why and what to do."""


def seeded(*key: int) -> np.random.Generator:
    """The generator of one place in the tree of seeds."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([int(k) for k in key])))


@functools.lru_cache(maxsize=2)
def read_table(name: str) -> pd.DataFrame:
    """A table that torchxrayvision carries."""
    spec = importlib.util.find_spec("torchxrayvision")
    path = Path(spec.origin).parent / "data" / name if spec and spec.origin else None
    if path is None or not path.is_file():
        raise DemoError(f"torchxrayvision's table {name} is missing: pip install torchxrayvision")
    with gzip.open(path, "rt") as file:
        return pd.read_csv(file)


def write_text(path: Path, text: str) -> None:
    """Write a text with the line ends that it has."""
    path.write_bytes(text.encode())
