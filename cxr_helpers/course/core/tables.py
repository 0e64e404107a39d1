"""Where the real tables are that ship inside the package torchxrayvision.

Needs: nothing beyond the standard library (torchxrayvision installed, but not imported).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

PACKAGED_TABLES: dict[str, str] = {
    "nih_entries": "Data_Entry_2017_v2020.csv.gz",
    "nih_boxes": "BBox_List_2017.csv.gz",
    "vinbigdata": "vinbigdata-train.csv.gz",
    "google2019": "google2019_nih-chest-xray-labels.csv.gz",
    "lung_masks": "semantic_masks_v7labs_lungs.zip",
}


def packaged_table(name: str) -> Path:
    """Find one of the real tables without importing torchxrayvision (and so torch).

    Args:
        name: one of PACKAGED_TABLES, e.g. 'nih_entries' or 'vinbigdata'.

    Returns:
        The path of the file.

    Raises:
        KeyError: no table of that name.
        FileNotFoundError: torchxrayvision, or this file of it, is not installed.
    """
    if name not in PACKAGED_TABLES:
        raise KeyError(f"no table {name!r}; there are {', '.join(PACKAGED_TABLES)}")
    spec = importlib.util.find_spec("torchxrayvision")
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        raise FileNotFoundError(
            "the real tables come with the package torchxrayvision, which is not installed here; "
            "run `pip install torchxrayvision`"
        )
    path = Path(folders[0], "data", PACKAGED_TABLES[name])
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: this version of torchxrayvision does not bring the table; "
            "run `pip install torchxrayvision==1.5.7`"
        )
    return path
