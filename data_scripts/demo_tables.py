"""What the two halves of the demo share: the looks, the real tables, the seeds, writing a text."""

from __future__ import annotations

import functools
import gzip
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

Task = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Look:
    """How plain the demo's findings are.

    Attributes:
        size: times the width and height of the real boxes.
        plain: times the contrast of a finding in a radiograph.
        faintest: severity of the faintest finding; the others lie between it and 1.
        variety: times the spread of gray values and the haze that hide findings.
        labels_right: share of NIH labels that are right, and of findings that are labelled; None
            takes what was measured of the real labels.
    """

    size: float
    plain: float
    faintest: float
    variety: float
    labels_right: float | None

    def severity(self, drawn: float) -> float:
        """The severity that is drawn instead of one between 0 and 1."""
        return self.faintest + (1 - self.faintest) * drawn


# Set on the demo of seed 1, so that a thousand images teach a network what a thousand real ones do.
LOOKS = {
    "teaching": Look(size=1.45, plain=3.0, faintest=0.5, variety=0.3, labels_right=0.95),
    "realistic": Look(size=1.0, plain=1.0, faintest=0.0, variety=1.0, labels_right=None),
}


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
