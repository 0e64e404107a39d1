"""Figures that come with the course since they take long: made by a benchmark, read by notebooks.

Each is a table `<name>.csv` in notebooks/stored, and beside it `<name>.json`, which says by which
command it was made, when, of which demo, and with which versions.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxr_helpers.course.core.files import write_text
from cxr_helpers.course.core.records import commit
from cxr_helpers.course.core.results import versions
from cxr_helpers.course.core.settings import Settings

RECORD = ("command", "date", "demo", "digest", "seeds", "commit", "versions")


@dataclass(frozen=True)
class Stored:
    """A stored table and how it was made.

    Attributes:
        table: as it was written.
        record: the keys of `RECORD`, and what else the benchmark adds.
    """

    table: pd.DataFrame
    record: dict

    @property
    def origin(self) -> str:
        """One sentence: the command, the day, and the seeds."""
        seeds = ", ".join(map(str, self.record["seeds"]))
        return f"Made by `{self.record['command']}` on {self.record['date']}, seeds {seeds}."


def stored_folder(settings: Settings) -> Path:
    """Where the figures lie that come with the course."""
    return settings.project / "notebooks" / "stored"


def write_stored(
    name: str,
    table: pd.DataFrame,
    settings: Settings,
    *,
    command: str,
    digest: str,
    seeds: Sequence[int],
    **more: object,
) -> Path:
    """Write a table and its record, and return the table's path.

    Args:
        name: of both files, without ending.
        table: its index is not written.
        settings: name the course's folder, in which the demo's own record lies.
        command: that makes the table again, without any path of one machine.
        digest: of the images and their split, see `data.data_digest`.
        seeds: that were run.
        more: JSON values for the record.

    Raises:
        ValueError: the table is empty.
        OSError: there is no demo, or the files cannot be written.
    """
    if table.empty:
        raise ValueError(f"the table {name} has no rows, so there is nothing to store")
    demo = json.loads((settings.project / "data/demo/demo.json").read_text(encoding="utf-8"))
    record = {
        "command": command,
        "date": time.strftime("%Y-%m-%d"),
        "demo": {key: demo[key] for key in ("seed", "version", "n_nih", "n_vindr")},
        "digest": digest,
        "seeds": list(seeds),
        "commit": commit(settings.project),
        "versions": versions(),
        **more,
    }
    path = stored_folder(settings) / f"{name}.csv"
    text = table.to_csv(index=False, float_format="%.5f", lineterminator="\n")
    write_text(json.dumps(record, indent=1) + "\n", path.with_suffix(".json"))
    return write_text(text, path)


def read_stored(name: str, settings: Settings) -> Stored | None:
    """A stored table with its record; None where the course has none of this name.

    Raises:
        ValueError: only one of the two files is there, or the record lacks a key.
    """
    path = stored_folder(settings) / f"{name}.csv"
    both = path, path.with_suffix(".json")
    if not any(file.is_file() for file in both):
        return None
    absent = [file.name for file in both if not file.is_file()]
    record = {} if absent else json.loads(both[1].read_text(encoding="utf-8"))
    if absent or (lacks := [key for key in RECORD if key not in record]):
        what = f"lacks {absent[0]}" if absent else f"has a record without {', '.join(lacks)}"
        raise ValueError(f"{path} {what}; make both again with the benchmark's --store")
    return Stored(pd.read_csv(path, keep_default_na=False), record)
