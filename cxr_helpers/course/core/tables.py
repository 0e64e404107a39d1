"""Where the real tables are that ship inside the package torchxrayvision.

Needs: nothing beyond the standard library (torchxrayvision installed, but not imported).
"""

import importlib.util
from pathlib import Path

PACKAGED_TABLES = {
    "nih_entries": "Data_Entry_2017_v2020.csv.gz",
    "nih_boxes": "BBox_List_2017.csv.gz",
    "vinbigdata": "vinbigdata-train.csv.gz",
    "google2019": "google2019_nih-chest-xray-labels.csv.gz",
}


def packaged_table(name: str) -> Path:
    """Find one of the real tables without importing torchxrayvision (and so torch).

    Args:
        name: one of PACKAGED_TABLES.

    Returns:
        The path of the file.

    Raises:
        KeyError: no table of that name.
        FileNotFoundError: torchxrayvision, or this file of it, is not installed.

    Example:
        >>> packaged_table("nih_boxes").name
        'BBox_List_2017.csv.gz'
    """
    if name not in PACKAGED_TABLES:
        raise KeyError(f"no table {name!r}; there are {', '.join(PACKAGED_TABLES)}")
    spec = importlib.util.find_spec("torchxrayvision")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder, "data", PACKAGED_TABLES[name])
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{PACKAGED_TABLES[name]} comes with the package torchxrayvision, which is not installed "
        "here or does not bring it; run `pip install torchxrayvision==1.5.7`"
    )
