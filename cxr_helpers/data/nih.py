"""NIH ChestX-ray14: its tables as tidy data frames, its pictures as gray arrays.

The download's tables have quirks that bite late: headers split at a comma
(`OriginalImage[Width`, `Height]`), three empty columns beside the boxes, `Infiltrate` in one
file and `Infiltration` in the other, about 519 pictures stored as RGBA. The functions here mend
them and refuse, with the file and the line, what they cannot mend. `read_image` is that of
pictures.py.

Source: Wang et al., ChestX-ray8, CVPR 2017; files at https://nihcc.app.box.com/v/ChestXray-NIHCC.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, pandas.
Goes with: pictures.py, tables.py.
"""

from __future__ import annotations

import difflib
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from .pictures import read_image as read_image
from .tables import NOTHING, hint, is_folder, list_files, read_table, read_text, row_error

LABELS: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
NO_FINDING = "No Finding"
REREAD_LABELS: tuple[str, ...] = ("Fracture", "Pneumothorax", "Airspace opacity", "Nodule or mass")

_BOX_TABLE_SIZE = 1024  # BBox_List_2017.csv is written for the 1024 x 1024 PNG files
# What an image can do without: an empty cell there is passed over, and counted.
_OPTIONAL = ("follow_up", "age", "sex", "view", "width", "height", "spacing_x_mm", "spacing_y_mm")
_OLDEST = 120
# Names of a column in the known versions of Data_Entry_2017 and of Kaggle's sample_labels.csv.
_ENTRY_COLUMNS = {
    "image_id": ("Image Index",),
    "patient_id": ("Patient ID",),
    "follow_up": ("Follow-up #",),
    "age": ("Patient Age",),
    "sex": ("Patient Gender", "Patient Sex"),
    "view": ("View Position",),
    "findings": ("Finding Labels",),
    "width": ("OriginalImage[Width", "OriginalImageWidth"),
    "height": ("Height]", "OriginalImageHeight"),
    "spacing_x_mm": ("OriginalImagePixelSpacing[x", "OriginalImagePixelSpacing_x"),
    "spacing_y_mm": ("y]", "OriginalImagePixelSpacing_y"),
}
_BOX_COLUMNS = {
    "image_id": ("Image Index",),
    "label": ("Finding Label",),
    "x": ("Bbox [x",),
    "y": ("y",),
    "w": ("w",),
    "h": ("h]",),
}
_BOX_LABELS = {name.casefold(): name for name in LABELS} | {"infiltrate": "Infiltration"}
_FINDINGS = {name.casefold(): name for name in (*LABELS, NO_FINDING)}


def read_entries(path: str | os.PathLike[str]) -> pd.DataFrame:
    r"""Read Data_Entry_2017_v2020.csv (or .csv.gz, or Kaggle's sample_labels.csv).

    Args:
        path: the table.

    Returns:
        One row per image, in the file's order: `image_id` (str, the PNG's name), `patient_id`
        (int64), `follow_up` (int64), `age` (float64, whole years; NaN where the table says more
        than 120), `sex` ('M' or 'F'), `view` ('PA' or 'AP'), `findings` (str, joined by '|'),
        `width`, `height` (int64, pixels of the image before it was scaled to 1024),
        `spacing_x_mm`, `spacing_y_mm` (float64, mm per pixel of that image). Only image, patient
        and findings must be there: an empty cell elsewhere is missing in the result (NaN, or <NA>
        in whole numbers, which are Int64 then).
        `.attrs['accounting']` says how many rows were read, how many ages were set to NaN, and
        how many cells of which column were empty.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such table; the message names file, line and remedy.

    Example:
        >>> import pathlib, tempfile
        >>> lines = ['Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,'
        ...          'Patient Gender,View Position,OriginalImage[Width,Height],'
        ...          'OriginalImagePixelSpacing[x,y]',
        ...          '00000001_001.png,Cardiomegaly|Emphysema,1,1,58,M,PA,2894,2729,0.143,0.143']
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, 'Data_Entry_2017_v2020.csv')
        ...     _ = path.write_text('\n'.join(lines))
        ...     entries = read_entries(path)
        >>> entries[['patient_id', 'age', 'findings']].values.tolist()
        [[1, 58.0, 'Cardiomegaly|Emphysema']]
    """
    table = _chosen(path, _ENTRY_COLUMNS)
    ages = [_years(value) if value else np.nan for value in table["age"]]
    bad = [i for i, age in enumerate(ages) if age is None]
    if bad:
        raise row_error(path, table, bad, "age", "an age such as 58, 058Y, 013M or 011D")
    entries = pd.DataFrame({"image_id": table["image_id"].array})
    entries["patient_id"] = _integers(path, table, "patient_id")
    entries["follow_up"] = _integers(path, table, "follow_up", optional=True)
    age = np.array(ages, dtype=np.float64)
    entries["age"] = np.where(age > _OLDEST, np.nan, age)
    entries["sex"] = _choice(path, table, "sex", ("M", "F"), optional=True)
    entries["view"] = _choice(path, table, "view", ("PA", "AP"), optional=True)
    entries["findings"] = _findings(path, table)
    for column in ("width", "height"):
        entries[column] = _integers(path, table, column, low=1, optional=True)
    for column in ("spacing_x_mm", "spacing_y_mm"):
        entries[column] = _numbers(path, table, column, above=0, optional=True)
    _check_image_ids(path, table, entries)
    empty = {column: int((table[column] == "").sum()) for column in _OPTIONAL}
    entries.attrs["accounting"] = {
        "rows read": len(entries),
        f"ages over {_OLDEST} set to NaN": int((age > _OLDEST).sum()),
        **{f"empty cells of {column}": n for column, n in empty.items() if n},
    }
    return entries


def label_matrix(entries: pd.DataFrame, labels: Sequence[str] = LABELS) -> pd.DataFrame:
    """Spread the '|'-joined findings over one 0/1 column per label.

    Args:
        entries: a table with `image_id` and `findings`, as `read_entries` returns it.
        labels: the columns wanted, of LABELS and 'No Finding'.

    Returns:
        A data frame (N, len(labels)) of uint8 0 and 1, indexed by `image_id`, in the order of
        `entries`; its `.to_numpy()` is the array of labels that a classifier takes. A finding of
        the table that is none of the data set's, and that nobody asked for, is passed over;
        `.attrs['passed over']` says which and how often, a warning which labels may be meant.

    Raises:
        ValueError: a label is not one of the data set's or comes twice, a column is missing, an
            image has no finding, or a finding is not known and may stand for a wanted label: it is
            spelled like one, or none of the labels occurs in the table.

    Example:
        >>> entries = pd.DataFrame({'image_id': ['a.png'], 'findings': ['Mass|Nodule']})
        >>> label_matrix(entries, ['Edema', 'Mass']).loc['a.png'].tolist()
        [0, 1]
    """
    column = _label_columns(labels)
    absent = [name for name in ("image_id", "findings") if name not in entries]
    if absent:
        raise ValueError(f"the table has no column {', '.join(absent)}, as read_entries makes it")
    matrix = np.zeros((len(entries), len(column)), dtype=np.uint8)
    unknown: Counter[str] = Counter()
    for row, findings in enumerate(entries["findings"]):
        for finding in str(findings).split("|"):
            name = _FINDINGS.get(finding.strip().casefold())
            if name is None:
                finding = finding.strip()
                if finding not in unknown and (
                    not isinstance(findings, str) or not finding or _means(finding, column)
                ):
                    raise ValueError(
                        f"image {entries['image_id'].iloc[row]!r}: {finding!r} is no NIH finding"
                        f"{hint(finding, column)}"
                    )
                unknown[finding] += 1
            elif name in column:
                matrix[row, column[name]] = 1
    absent = [label for label, k in column.items() if unknown and not matrix[:, k].any()]
    if absent and len(absent) == len(column):
        raise ValueError(
            f"none of the labels {', '.join(column)} occurs in the table, which has findings such "
            f"as {next(iter(unknown))!r}; give its findings the data set's names"
        )
    if absent:
        warnings.warn(
            f"passed over as no NIH finding: {', '.join(unknown)}; is one of them another name of "
            f"what never occurs: {', '.join(absent)}?",
            stacklevel=2,
        )
    index = pd.Index(entries["image_id"], name="image_id")
    table = pd.DataFrame(matrix, index=index, columns=list(column))
    table.attrs["passed over"] = dict(unknown)
    return table


def _label_columns(labels: Sequence[str]) -> dict[str, int]:
    """Column of each wanted label."""
    labels = [labels] if isinstance(labels, str) else list(labels)
    for label in labels:
        if label not in (*LABELS, NO_FINDING):
            raise ValueError(f"{label!r} is no NIH label{hint(label, _FINDINGS.values())}")
    column = {str(label): k for k, label in enumerate(labels)}
    if len(column) < len(labels):
        raise ValueError(f"a label occurs twice in {', '.join(labels)}")
    return column


def _means(finding: str, labels: Iterable[str]) -> bool:
    """Whether an unknown finding may be a wanted one: spelled like it, or with a word more."""
    finding, names = finding.casefold(), [label.casefold() for label in labels]
    similar = difflib.get_close_matches(finding, names, n=1, cutoff=0.75)
    return bool(similar) or any(name in finding or finding in name for name in names)


def read_boxes(path: str | os.PathLike[str], *, size: float = 1024) -> pd.DataFrame:
    r"""Read BBox_List_2017.csv: 984 boxes on 880 images, at the scale of 1024 pixels.

    Args:
        path: the table, .csv or .csv.gz.
        size: width in pixels of the images at hand, to which the boxes are scaled.

    Returns:
        One row per box: `image_id`, `label` (as in LABELS: the table's 'Infiltrate' becomes
        'Infiltration'), `x_min`, `y_min`, `x_max`, `y_max` (float64, pixels of an image that is
        `size` pixels wide; origin at the top left).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such table, or a box is empty or outside the image.

    Example:
        >>> import tempfile
        >>> lines = ['Image Index,Finding Label,Bbox [x,y,w,h]', 'a.png,Infiltrate,512,256,100,200']
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, 'BBox_List_2017.csv')
        ...     _ = path.write_text('\n'.join(lines))
        ...     read_boxes(path, size=512).values.tolist()
        [['a.png', 'Infiltration', 256.0, 128.0, 306.0, 228.0]]
    """
    if not size > 0:
        raise ValueError(f"size must be the width of the images in pixels, not {size!r}")
    table = _chosen(path, _BOX_COLUMNS)
    names = table["label"].str.casefold().map(_BOX_LABELS)
    if names.isna().any():
        raise row_error(path, table, np.flatnonzero(names.isna()), "label", "an NIH finding")
    x, y = (_numbers(path, table, column) for column in "xy")
    w, h = (_numbers(path, table, column, above=0) for column in "wh")
    if max((x + w).max(), (y + h).max()) <= 1:
        raise ValueError(
            f"{path}: no box ends above 1, so these are shares of the image; multiply them by "
            f"{_BOX_TABLE_SIZE}, the pixels that the table is written for"
        )
    outside = (np.minimum(x, y) < -1) | (np.maximum(x + w, y + h) > _BOX_TABLE_SIZE + 1)
    if outside.any():
        wanted = f"a box inside an image of {_BOX_TABLE_SIZE} x {_BOX_TABLE_SIZE} pixels"
        raise row_error(path, table, np.flatnonzero(outside), "x", wanted)
    scale = size / _BOX_TABLE_SIZE
    return pd.DataFrame(
        {
            "image_id": table["image_id"].array,
            "label": names.array,
            "x_min": np.clip(x, 0, _BOX_TABLE_SIZE) * scale,
            "y_min": np.clip(y, 0, _BOX_TABLE_SIZE) * scale,
            "x_max": np.clip(x + w, 0, _BOX_TABLE_SIZE) * scale,
            "y_max": np.clip(y + h, 0, _BOX_TABLE_SIZE) * scale,
        }
    )


def read_rereads(path: str | os.PathLike[str]) -> pd.DataFrame:
    r"""Read the radiologists' second look at 4,376 NIH images (google2019 labels).

    Args:
        path: a table with `Image Index` and the columns of REREAD_LABELS, each YES or NO.

    Returns:
        bool (N, 4), indexed by `image_id`, columns as in REREAD_LABELS.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such table.

    Source: Majkowska et al., Radiology 2020, doi 10.1148/radiol.2019191293.

    Example:
        >>> import tempfile
        >>> lines = ['Image Index,' + ','.join(REREAD_LABELS), 'a.png,NO,YES,NO,NO']
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, 'rereads.csv')
        ...     _ = path.write_text('\n'.join(lines))
        ...     read_rereads(path).loc['a.png'].tolist()
        [False, True, False, False]
    """
    columns = {"image_id": ("Image Index",)} | {name: (name,) for name in REREAD_LABELS}
    table = _chosen(path, columns)
    answers = {name: _choice(path, table, name, ("YES", "NO")) == "YES" for name in REREAD_LABELS}
    repeated = table["image_id"].duplicated()
    if repeated.any():
        rows = np.flatnonzero(repeated)
        raise row_error(path, table, rows, "image_id", "each image on one row")
    index = pd.Index(table["image_id"], name="image_id")
    return pd.DataFrame({name: values.to_numpy() for name, values in answers.items()}, index=index)


def read_image_list(path: str | os.PathLike[str]) -> list[str]:
    r"""Read train_val_list.txt or test_list.txt: one PNG name per line.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is no PNG name, a name comes twice, or the file is empty.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, 'test_list.txt')
        ...     _ = path.write_text('a.png\nb.png\n')
        ...     read_image_list(path)
        ['a.png', 'b.png']
    """
    names: dict[str, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        name = line.strip()
        if not name:
            continue
        if not name.endswith(".png") or "," in name:
            raise ValueError(f"{path}, line {number}: {name[:60]!r} is no name of a PNG file")
        if name in names:
            raise ValueError(f"{path}, line {number}: {name} is already on line {names[name]}")
        names[name] = number
    return list(names)


def find_images(root: str | os.PathLike[str]) -> dict[str, Path]:
    """Find the PNG files below a download's root.

    Looks in `images/`, in `images_001/images/` to `images_012/images/` (the unpacked archives)
    and in `root` itself.

    Returns:
        `image_id` (the file's name) to path, sorted by name.

    Raises:
        FileNotFoundError: no such folder, or no PNG in it.
        ValueError: a name occurs in two folders.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, 'images').mkdir()
        ...     Path(folder, 'images', 'a.png').touch()
        ...     list(find_images(folder))
        ['a.png']
    """
    root = Path(root)
    if not is_folder(root):
        raise FileNotFoundError(f"{root}: no such folder; give the root of the NIH download")
    folders = [root, root / "images", *sorted(root.glob("images_*")), *root.glob("images_*/images")]
    found: dict[str, Path] = {}
    for path in (file for folder in folders if is_folder(folder) for file in list_files(folder)):
        if path.suffix.lower() != ".png":
            continue
        if path.name in found:
            raise ValueError(f"{path} is also at {found[path.name]}; keep one of the two")
        found[path.name] = path
    if not found:
        raise FileNotFoundError(
            f"{root}: no PNG in images/ or images_001/images/ ...; unpack the archives "
            "images_001.tar.gz to images_012.tar.gz there"
        )
    return dict(sorted(found.items()))


# --- tables ---------------------------------------------------------------------------------------


def _chosen(path: str | os.PathLike[str], columns: dict[str, tuple[str, ...]]) -> pd.DataFrame:
    """Read the wanted columns, each found by any of its names, ignoring case."""
    table = read_table(path)
    found = {name.casefold(): name for name in table.columns}
    chosen = {}
    for column, aliases in columns.items():
        name = next((a.casefold() for a in aliases if a.casefold() in found), None)
        if name is None:
            raise ValueError(f"{path}: no column {aliases[0]!r} among {', '.join(table.columns)}")
        chosen[column] = table[found[name]]
        if column in _OPTIONAL:
            chosen[column] = chosen[column].mask(chosen[column].str.casefold().isin(NOTHING), "")
    return pd.DataFrame(chosen)


def _numbers(
    path: str | os.PathLike[str],
    table: pd.DataFrame,
    column: str,
    *,
    above: float = -np.inf,
    optional: bool = False,
) -> np.ndarray:
    """A column's numbers; where it is optional, an empty cell is NaN."""
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64)
    bad = ~(np.isfinite(values) & (values > above))
    if optional:
        bad &= table[column].to_numpy() != ""
    if bad.any():
        wanted = "a number" + (f" above {above:g}" if np.isfinite(above) else "")
        raise row_error(path, table, np.flatnonzero(bad), column, wanted)
    return values


def _integers(
    path: str | os.PathLike[str],
    table: pd.DataFrame,
    column: str,
    *,
    low: int = 0,
    optional: bool = False,
) -> np.ndarray | pd.api.extensions.ExtensionArray:
    values = _numbers(path, table, column, optional=optional)
    missing = np.isnan(values)
    bad = ~missing & ((values % 1 != 0) | (values < low))
    if bad.any():
        raise row_error(path, table, np.flatnonzero(bad), column, f"a whole number from {low}")
    return pd.array(values, dtype="Int64") if missing.any() else values.astype(np.int64)


def _choice(
    path: str | os.PathLike[str],
    table: pd.DataFrame,
    column: str,
    allowed: tuple[str, ...],
    *,
    optional: bool = False,
) -> pd.Series:
    values = table[column].str.upper().reset_index(drop=True)
    bad = ~values.isin((*allowed, "") if optional else allowed)
    if bad.any():
        raise row_error(path, table, np.flatnonzero(bad), column, " or ".join(allowed))
    return values.where(values != "")


def _years(value: str) -> int | None:
    """Turn '58', '058Y', '013M' or '011D' into whole years (PS3.5 6.2, age string)."""
    match = re.fullmatch(r"(\d{1,4})([YMWD]?)", value.upper())
    if match is None:
        return None
    per_year = {"": 1, "Y": 1, "M": 12, "W": 52, "D": 365}[match[2]]
    return int(match[1]) // per_year


def _findings(path: str | os.PathLike[str], table: pd.DataFrame) -> list[str]:
    """Check the '|'-joined labels and give each the spelling of LABELS."""
    spelled: dict[str, str] = {}
    for row, text in enumerate(table["findings"]):
        if text in spelled:
            continue
        names = [_FINDINGS.get(name.strip().casefold()) for name in text.split("|")]
        if None in names:
            unknown = text.split("|")[names.index(None)]
            wanted = f"NIH findings joined by '|'{hint(unknown, _FINDINGS.values())}"
            raise row_error(path, table, [row], "findings", wanted)
        if len(names) > 1 and NO_FINDING in names or len(set(names)) < len(names):
            wanted = "each finding once, and 'No Finding' alone"
            raise row_error(path, table, [row], "findings", wanted)
        spelled[text] = "|".join(name for name in names if name)
    return [spelled[text] for text in table["findings"]]


def _check_image_ids(
    path: str | os.PathLike[str], table: pd.DataFrame, entries: pd.DataFrame
) -> None:
    """Each image once, and under the patient that its name carries: a split relies on it."""
    repeated = entries["image_id"].duplicated()
    if repeated.any():
        rows = np.flatnonzero(repeated)
        raise row_error(path, table, rows, "image_id", "each image on one row")
    stem = entries["image_id"].str.extract(r"^(\d{8})_\d{3}\.png$")[0]
    patient = pd.to_numeric(stem).to_numpy(np.float64)
    wrong = np.isfinite(patient) & (patient != entries["patient_id"].to_numpy())
    if wrong.any():
        rows = np.flatnonzero(wrong)
        raise row_error(path, table, rows, "patient_id", "the number that the image's name holds")
