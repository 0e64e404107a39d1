"""VinDr-CXR: the readers' boxes and verdicts as tidy data frames, and where the DICOM files are.

Two distributions hold the same images. Kaggle's `train.csv` (VinBigData) has one row per box, 14
classes and 'No finding' rows. PhysioNet's `annotations_train.csv` has 22 local labels, its
`image_labels_train.csv` one row per image and reader; the test files are a consensus without a
reader's name. All become the same three tables, and every row that is left out is listed.

Source: Nguyen et al., VinDr-CXR, Scientific Data 2022, doi 10.1038/s41597-022-01498-w.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, pandas.
Goes with: tables.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from .tables import NOTHING, hint, is_folder, list_files, read_table, row_error

CLASSES: tuple[str, ...] = (
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Consolidation",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Nodule/Mass",
    "Other lesion",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
)
RARE_CLASSES: tuple[str, ...] = (  # local labels that only PhysioNet's files have
    "Clavicle fracture",
    "Edema",
    "Emphysema",
    "Enlarged PA",
    "Lung cavity",
    "Lung cyst",
    "Mediastinal shift",
    "Rib fracture",
)
GLOBAL_LABELS: tuple[str, ...] = ("COPD", "Lung tumor", "Pneumonia", "Tuberculosis")
OTHER_DISEASES = "Other diseases"
NO_FINDING = "No finding"
CONSENSUS_READER = "consensus"

_BOX = ["x_min", "y_min", "x_max", "y_max"]
_KNOWN = {name.casefold(): name for name in (*CLASSES, *RARE_CLASSES, NO_FINDING)}
_IMAGE_LABELS = {
    name.casefold(): name
    for name in (*CLASSES, *RARE_CLASSES, *GLOBAL_LABELS, OTHER_DISEASES, NO_FINDING)
} | {"other disease": OTHER_DISEASES}  # the test file's spelling
_SUFFIXES = {".dicom", ".dcm", ".dicm"}


@dataclass(frozen=True)
class Readings:
    """What the readers drew and said.

    Attributes:
        boxes: one row per reader's box, indexed by its row in the file (the header is 1):
            `image_id`, `reader_id`, `label` (str), `x_min`, `y_min`, `x_max`, `y_max` (float64,
            pixels of the stored DICOM image, origin at the top left).
        readings: one row per image and reader: `image_id`, `reader_id`, `normal` (bool: the
            reader found nothing).
        dropped: one row per table row left out: `row` (of the file), `image_id`, `reason`.
    """

    boxes: pd.DataFrame
    readings: pd.DataFrame
    dropped: pd.DataFrame


def read_readings(
    path: str | os.PathLike[str],
    *,
    image_labels: str | os.PathLike[str] | None = None,
    rare: Literal["fold", "keep"] = "fold",
) -> Readings:
    r"""Read Kaggle's train.csv or PhysioNet's annotations_train.csv / annotations_test.csv.

    Args:
        path: the table, .csv or .csv.gz. Without a reader column every box is the consensus'.
        image_labels: PhysioNet's image_labels_*.csv, for the readings that drew no box.
        rare: 'fold' calls PhysioNet's eight rarer local labels 'Other lesion', so that both
            distributions have the same 14 classes; 'keep' keeps their names.

    Returns:
        Boxes, readings and the rows left out, among them boxes with a corner below zero.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such table, or names a class that is not known; or the image
            labels name none of its images or none of its readers.

    Example:
        >>> import pathlib, tempfile
        >>> lines = ['image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max',
        ...          'a,No finding,14,R7,,,,', 'b,Cardiomegaly,3,R9,10,20,30,40',
        ...          'b,Cardiomegaly,3,R8,30,20,10,40']
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, 'train.csv')
        ...     _ = path.write_text('\n'.join(lines))
        ...     found = read_readings(path)
        >>> found.boxes[['image_id', 'reader_id', 'x_max']].values.tolist()
        [['b', 'R9', 30.0]]
        >>> found.dropped.values.tolist()
        [[4, 'b', 'x_max is not above x_min']]
    """
    if rare not in ("fold", "keep"):
        raise ValueError(f"rare must be 'fold' or 'keep', not {rare!r}")
    table, has_reader = _annotations(path)
    _check_class_ids(path, table)
    table["label"] = _class_names(path, table, fold=rare == "fold")
    table[_BOX], reasons = _box_reasons(path, table)
    _name_repeats(table, reasons)
    drawn = (table["label"] != NO_FINDING).to_numpy()
    _name_contradictions(table, drawn, reasons)
    keep = reasons == ""
    readings = _verdicts(table, drawn, reasons)
    if image_labels is not None:
        labels = read_image_labels(image_labels)
        if not has_reader and (labels["reader_id"] != CONSENSUS_READER).any():
            raise ValueError(
                "the image labels name readers and the boxes do not; take one split's two"
            )
        for column, named in (("image_id", "images"), ("reader_id", "readers")):
            _check_meet(table[column], labels[column], f"{path}: {image_labels} names {named}")
        readings = _add_readings(readings, labels)
    boxes = table.loc[keep & drawn, ["image_id", "reader_id", "label", *_BOX]]
    dropped = {"row": table.index[~keep].to_numpy(np.int64)}
    dropped |= {"image_id": table["image_id"].to_numpy()[~keep], "reason": reasons[~keep]}
    return Readings(boxes.rename_axis("row"), readings, pd.DataFrame(dropped))


def clip_boxes(readings: Readings, image_hw: Mapping[str, tuple[int, int]]) -> Readings:
    r"""Clip the boxes at the right and lower border of their images, now that these are known.

    Args:
        readings: as `read_readings` returns them.
        image_hw: height and width of the stored images where known; boxes of images that it does
            not name stay as they are.

    Returns:
        The same readings; boxes wholly beyond a border are among the rows left out.

    Raises:
        ValueError: `image_hw` names none of the images, or a size in it is none.

    Example:
        >>> import tempfile
        >>> lines = ['image_id,class_name,x_min,y_min,x_max,y_max', 'a,Cardiomegaly,2,4,70,90']
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, 'train.csv').write_text('\n'.join(lines))
        ...     readings = read_readings(Path(folder, 'train.csv'))
        >>> clip_boxes(readings, {'a': (80, 64)}).boxes[['x_max', 'y_max']].values.tolist()
        [[64.0, 80.0]]
    """
    image_hw = dict(image_hw)  # also of a pandas column
    _check_meet(readings.readings["image_id"], image_hw, "image_hw names images")
    for name, size in image_hw.items():
        if np.shape(size) != (2,) or not all(0 < side < np.inf for side in size):
            raise ValueError(
                f"image_hw of {name!r} is {size!r}, not a height and a width in pixels"
            )
    names, corners = readings.boxes["image_id"], readings.boxes[_BOX].to_numpy(np.float64)
    hw = np.array([image_hw.get(name, (np.inf, np.inf)) for name in names], np.float64)
    hw = hw.reshape(-1, 2)
    outside = (corners[:, 0] >= hw[:, 1]) | (corners[:, 1] >= hw[:, 0])
    boxes = readings.boxes.copy()
    boxes[_BOX] = np.minimum(corners, hw[:, [1, 0, 1, 0]])
    beyond = boxes[outside].reset_index()[["row", "image_id"]]
    dropped = pd.concat([readings.dropped, beyond.assign(reason="a box outside the image")])
    dropped = dropped.sort_values("row", ignore_index=True)
    return Readings(boxes[~outside], readings.readings, dropped)


def read_image_labels(path: str | os.PathLike[str]) -> pd.DataFrame:
    r"""Read PhysioNet's image_labels_train.csv or image_labels_test.csv.

    Returns:
        One row per image and reader: `image_id`, `reader_id` ('consensus' where the file names
        none), then one uint8 column of 0 and 1 per label, spelled as in CLASSES, RARE_CLASSES,
        GLOBAL_LABELS, 'Other diseases' and 'No finding'. Empty cells count as 0.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such table.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, 'image_labels_train.csv')
        ...     _ = path.write_text('image_id,rad_id,Edema,No finding\na,R8,1,0')
        ...     read_image_labels(path).values.tolist()
        [['a', 'R8', 1, 0]]
    """
    table = read_table(path)
    names = {name.casefold(): name for name in table.columns}
    if "image_id" not in names or NO_FINDING.casefold() not in names:
        raise ValueError(
            f"{path}: expected the columns image_id, rad_id and one per label, "
            f"among them {NO_FINDING!r}; found {', '.join(table.columns)}"
        )
    labels = pd.DataFrame({"image_id": table[names["image_id"]]})
    has_reader = "rad_id" in names
    labels["reader_id"] = table[names["rad_id"]] if has_reader else CONSENSUS_READER
    for folded, name in names.items():
        if folded in ("image_id", "rad_id", "", "unnamed: 0"):  # the last two: pandas' row numbers
            continue
        if folded not in _IMAGE_LABELS:
            known = _IMAGE_LABELS.values()
            raise ValueError(f"{path}: label {name!r} is not known{hint(name, known)}")
        values = pd.to_numeric(table[name].replace("", "0"), errors="coerce")
        bad = ~values.isin([0, 1])
        if bad.any():
            raise row_error(path, table, np.flatnonzero(bad), name, "0 or 1")
        labels[_IMAGE_LABELS[folded]] = values.astype(np.uint8)
    for column, named in (("image_id", "an image"), ("reader_id", "a reader")):
        if (labels[column] == "").any():
            raise row_error(path, labels, np.flatnonzero(labels[column] == ""), column, named)
    repeated = labels.duplicated(["image_id", "reader_id"])
    if repeated.any():
        rows = np.flatnonzero(repeated)
        raise row_error(path, labels, rows, "image_id", "each image and reader on one row")
    return labels.reset_index(drop=True)


def find_images(
    root: str | os.PathLike[str], *, part: Literal["train", "test"] = "train"
) -> dict[str, Path]:
    """Find the DICOM files of a download: `train/*.dicom` (or .dcm), or files in `root` itself.

    Args:
        root: the folder above `train/` and `test/`, or one that holds the files of the part.
        part: which files.

    Returns:
        `image_id` (the file's name without suffix) to path, sorted by name.

    Raises:
        FileNotFoundError: no such folder, or no DICOM file in it.
        ValueError: one image has two files, or `root` is the other part's folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, 'train').mkdir()
        ...     Path(folder, 'train', 'a.dicom').touch()
        ...     list(find_images(folder))
        ['a']
    """
    root = Path(root)
    if not is_folder(root):
        raise FileNotFoundError(f"{root}: no such folder; give the root of the VinDr-CXR download")
    folder = root / part if is_folder(root / part) else root
    here = folder.absolute().name
    if here in ("train", "test") and here != part:
        raise ValueError(
            f"{folder}: the files of part {here!r}, not {part!r}; give the root above, or pass "
            f"part={here!r}"
        )
    found: dict[str, Path] = {}
    for path in list_files(folder):
        if path.suffix.lower() not in _SUFFIXES:
            continue
        if path.stem in found:
            raise ValueError(f"{path} and {found[path.stem].name} are one image; keep one")
        found[path.stem] = path
    if not found:
        raise FileNotFoundError(
            f"{folder}: no .dicom or .dcm file; unpack the download so that {part}/*.dicom is there"
        )
    return dict(sorted(found.items()))


# --- rows -----------------------------------------------------------------------------------------


def _annotations(path: str | os.PathLike[str]) -> tuple[pd.DataFrame, bool]:
    """Read the columns that a table of boxes must have, under fixed names."""
    table = read_table(path)
    names = {name.casefold(): name for name in table.columns}
    missing = [name for name in ("image_id", "class_name", *_BOX) if name not in names]
    if missing:
        hint = ""
        if NO_FINDING.casefold() in names:
            hint = "; this is a table of image labels, give it as image_labels"
        raise ValueError(
            f"{path}: no column {', '.join(missing)} among {', '.join(table.columns)}{hint}"
        )
    columns = {"image_id": table[names["image_id"]], "class_name": table[names["class_name"]]}
    has_reader = "rad_id" in names
    columns["reader_id"] = table[names["rad_id"]] if has_reader else CONSENSUS_READER
    columns |= {name: table[names[name]] for name in _BOX}
    if "class_id" in names:
        columns["class_id"] = table[names["class_id"]]
    return pd.DataFrame(columns, index=table.index), has_reader


def _check_class_ids(path: str | os.PathLike[str], table: pd.DataFrame) -> None:
    """A class_id that does not fit its class_name would silently shift the labels."""
    if "class_id" not in table:
        return
    known = {name.casefold(): str(k) for k, name in enumerate((*CLASSES, NO_FINDING))}
    expected = table["class_name"].str.casefold().map(known)
    number = table["class_id"].str.casefold().str.removesuffix(".0")
    bad = expected.notna() & (number != expected) & ~number.isin(NOTHING)
    if bad.any():
        rows = np.flatnonzero(bad)
        wanted = f"{expected.iloc[rows[0]]} for {table['class_name'].iloc[rows[0]]!r}"
        raise row_error(path, table, rows, "class_id", wanted)


def _class_names(path: str | os.PathLike[str], table: pd.DataFrame, *, fold: bool) -> pd.Series:
    """Give each class the spelling of CLASSES; `fold` calls the rare ones 'Other lesion'."""
    names = table["class_name"].str.casefold().map(_KNOWN)
    if names.isna().any():
        rows = np.flatnonzero(names.isna())
        name = table["class_name"].iloc[rows[0]]
        raise row_error(path, table, rows, "class_name", f"a class{hint(name, _KNOWN.values())}")
    return names.where(~names.isin(RARE_CLASSES), "Other lesion") if fold else names


def _verdicts(table: pd.DataFrame, drawn: np.ndarray, reasons: np.ndarray) -> pd.DataFrame:
    """One row per image and reader: normal where every usable row of theirs is 'No finding'."""
    usable = ~np.isin(reasons, ["no image_id", "no reader", "a box without a finding"])
    rows = table.loc[usable, ["image_id", "reader_id"]].assign(normal=~drawn[usable])
    return rows.groupby(["image_id", "reader_id"], sort=False)["normal"].all().reset_index()


def _box_reasons(
    path: str | os.PathLike[str], table: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """Parse the coordinates and name, per row, why it cannot be used ('' if it can)."""
    reasons = np.full(len(table), "", dtype=object)
    drawn = (table["label"] != NO_FINDING).to_numpy()
    text = table[_BOX]
    box = text.apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    empty = text.apply(lambda column: column.str.casefold().isin(NOTHING)).to_numpy()
    if (np.isnan(box) & ~empty).any():
        rows, columns = np.nonzero(np.isnan(box) & ~empty)
        raise row_error(path, table, rows, _BOX[columns[0]], "a number")

    if drawn.any() and np.nanmax(box[drawn], initial=0) <= 1 and np.isfinite(box[drawn]).any():
        raise ValueError(
            f"{path}: no box ends above 1, so these are shares of the image; multiply them by its "
            "width and height in pixels"
        )
    # Two corners that many tables carry where there is no box.
    filled = (box[:, :2] == 0).all(axis=1) & (box[:, 2] == box[:, 3]) & np.isin(box[:, 2], (0, 1))
    empty = empty | (~drawn & filled)[:, None]

    def name(bad: np.ndarray, reason: str) -> None:
        reasons[bad & (reasons == "")] = reason

    name((table["image_id"] == "").to_numpy(), "no image_id")
    name((table["reader_id"] == "").to_numpy(), "no reader")
    name(~drawn & ~empty.all(axis=1), "a box without a finding")
    name(drawn & ~np.isfinite(box).all(axis=1), "a finding without a whole box")
    name(drawn & (box[:, :2] < 0).any(axis=1), "a corner below zero")
    name(drawn & ~(box[:, 2] > box[:, 0]), "x_max is not above x_min")
    name(drawn & ~(box[:, 3] > box[:, 1]), "y_max is not above y_min")
    return box, reasons


def _name_repeats(table: pd.DataFrame, reasons: np.ndarray) -> None:
    repeated = table.duplicated(["image_id", "reader_id", "label", *_BOX]).to_numpy()
    reasons[repeated & (reasons == "")] = "the same as a row above"


def _name_contradictions(table: pd.DataFrame, drawn: np.ndarray, reasons: np.ndarray) -> None:
    """'No finding' by a reader who drew a box on the same image: the box stands."""
    key = table["image_id"] + "\0" + table["reader_id"]
    both = key.isin(key[drawn]).to_numpy() & ~drawn
    reasons[both & (reasons == "")] = "'No finding' by a reader who drew a box"


def _check_meet(of_table: pd.Series, others: Iterable[str], what: str) -> None:
    """Raise where the table and another source name nothing in common, or write one otherwise."""
    others, names = list(dict.fromkeys(others)), set(of_table)
    known = {_plain(name): name for name in of_table}
    meet = not names.isdisjoint(others)
    for other in others:
        if meet and other not in names and _plain(other) in known:
            raise ValueError(
                f"{what}, among them {other!r}, which may be {known[_plain(other)]!r} in the "
                "table; write the names alike"
            )
    if others and not meet:
        raise ValueError(
            f"{what} such as {others[0]!r}, the table such as {of_table.iloc[0]!r}, and none is in "
            "both; take those that belong together, and write the names alike"
        )


def _plain(name: object) -> str:
    return re.sub(r"\.(dicom|dcm|dicm)$", "", str(name).strip().casefold())


def _add_readings(readings: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """Add the readings that drew no box; a reading with a box is never normal."""
    others = labels.drop(columns=["image_id", "reader_id", NO_FINDING])
    normal = (labels[NO_FINDING] == 1) & ~others.any(axis=1)
    extra = labels[["image_id", "reader_id"]].assign(normal=normal)
    both = pd.concat([readings, extra], ignore_index=True)
    return both.groupby(["image_id", "reader_id"], sort=False)["normal"].all().reset_index()
