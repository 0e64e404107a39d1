"""Tables that notebook 01 shows."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxr_helpers.data import dicom, nih
from cxr_helpers.data.vindr import Readings
from cxr_helpers.phantom import Radiograph

EXACT = "exact_findings.csv"  # in the demo's folder of NIH-like images
ANY = "any of them"


def label_noise(labels: pd.DataFrame, rereads: pd.DataFrame) -> pd.DataFrame:
    """Labels from reports against the radiologists' second reading, where both name a finding.

    Args:
        labels: 0 and 1, indexed by `image_id`, with the columns of `nih.LABELS`.
        rereads: bool, indexed by `image_id` (see `nih.read_rereads`).

    Returns:
        A row for `Pneumothorax` and for `Nodule/Mass`: `labeled` and `seen` (images), `ppv` (of
        the labeled, the share that the radiologists saw) and `sensitivity` (of the seen, the
        share that was labeled), 0 to 1.

    Raises:
        ValueError: an image of the rereads has no labels.
    """
    labels = _of_rereads(labels, rereads)
    pairs = {
        "Pneumothorax": (labels["Pneumothorax"] == 1, rereads["Pneumothorax"]),
        "Nodule/Mass": ((labels[["Nodule", "Mass"]] == 1).any(axis=1), rereads["Nodule or mass"]),
    }
    rows = {}
    for name, (said, seen) in pairs.items():
        both = int((said & seen).sum())
        rows[name] = {
            "labeled": int(said.sum()),
            "seen": int(seen.sum()),
            "ppv": both / max(int(said.sum()), 1),
            "sensitivity": both / max(int(seen.sum()), 1),
        }
    return pd.DataFrame(rows).T.astype({"labeled": int, "seen": int})


def reread_shares(labels: pd.DataFrame, rereads: pd.DataFrame) -> pd.DataFrame:
    """What radiologists saw on the images of each label.

    Args:
        labels: 0 and 1, indexed by `image_id`, with the columns of `nih.LABELS`.
        rereads: bool, indexed by `image_id` (see `nih.read_rereads`).

    Returns:
        A row a label and one for 'No Finding', a column a finding of the second reading and one
        for any of them: the share of the row's images in percent on which it was seen. A label
        without an image among the rereads has no row.

    Raises:
        ValueError: an image of the rereads has no labels.
    """
    labels = _of_rereads(labels, rereads)[list(nih.LABELS)] == 1
    labels[nih.NO_FINDING] = ~labels.any(axis=1)
    seen = rereads.assign(**{ANY: rereads.any(axis=1)})
    return pd.DataFrame({k: 100 * seen[v].mean() for k, v in labels.items() if v.any()}).T


def _of_rereads(labels: pd.DataFrame, rereads: pd.DataFrame) -> pd.DataFrame:
    """The labels of the images that were read again, in the order of the rereads."""
    absent = rereads.index.difference(labels.index)
    if len(absent):
        raise ValueError(
            f"{len(absent)} of {len(rereads)} images read again have no labels, such as "
            f"{absent[0]!r}; the labels are of images such as {next(iter(labels.index), None)!r}"
        )
    return labels.loc[rereads.index]


def exact_labels(root: str | Path, image_ids: Sequence[str]) -> pd.DataFrame | None:
    """What was really drawn into the demo's NIH-like images, as `nih.label_matrix` has labels.

    Args:
        root: folder of the NIH-like images.
        image_ids: wanted, in this order.

    Returns:
        0 and 1, indexed by `image_id`; None where no file says so: of real radiographs nobody
        knows.

    Raises:
        ValueError: the file lacks its columns, or an image.
    """
    path = Path(root) / EXACT
    if not path.is_file():
        return None
    table = pd.read_csv(path, dtype=str)
    if absent := {"Image Index", "Exact Findings"} - set(table.columns):
        raise ValueError(f"{path} has no column {min(absent)!r}; delete the demo and make it anew")
    table = table.rename(columns={"Image Index": "image_id", "Exact Findings": "findings"})
    labels = nih.label_matrix(table)
    unknown = pd.Index(image_ids).difference(labels.index)
    if len(unknown):
        raise ValueError(
            f"{path} does not name {len(unknown)} of {len(image_ids)} images, such as "
            f"{unknown[0]!r}; delete the demo and make it anew"
        )
    return labels.loc[list(image_ids)]


def marked_examples(
    entries: pd.DataFrame, boxes: pd.DataFrame, names: Sequence[str]
) -> pd.DataFrame:
    """One image for each finding.

    Args:
        entries: `image_id` and `findings`, joined by bars; a row an image.
        boxes: `image_id`.
        names: findings.

    Returns:
        The rows of the images, in the order of the names; none for a finding that no image has. An
        image with exactly one box and no other finding is preferred, then one with no other
        finding. The first images where none has any of the findings.

    Example:
        >>> entries = pd.DataFrame({"image_id": ["a", "b", "c"], "findings": ["Mass"] * 3})
        >>> boxes = pd.DataFrame({"image_id": ["a", "a", "c"]})
        >>> marked_examples(entries, boxes, ["Mass", "Edema"])["image_id"].tolist()
        ['c']
    """
    findings = entries["findings"].str.split("|")
    one_box = entries["image_id"].map(boxes["image_id"].value_counts()) == 1
    rank = 2 * (findings.map(len) > 1) + ~one_box
    chosen: list[int] = []
    for name in names:
        having = rank[findings.map(lambda found, name=name: name in found)].drop(
            chosen, errors="ignore"
        )
        if len(having):
            chosen.append(having.idxmin())
    return entries.loc[chosen] if chosen else entries.head(len(names))


def short_sides(boxes: pd.DataFrame) -> pd.Series:
    """Shorter side of each box, in the unit of its corners x_min, y_min, x_max, y_max."""
    return np.minimum(boxes["x_max"] - boxes["x_min"], boxes["y_max"] - boxes["y_min"])


def compare_areas(boxes: pd.DataFrame) -> str:
    """Say how the largest and the smallest label differ in the median area of their boxes.

    Args:
        boxes: `label` and corners, of one label at least.

    Example:
        >>> rows = [["Mass", 0, 0, 4, 4], ["Nodule", 0, 0, 2, 2]]
        >>> columns = ["label", "x_min", "y_min", "x_max", "y_max"]
        >>> compare_areas(pd.DataFrame(rows, columns=columns))
        'A box of Mass has 4 times the area of one of Nodule'
    """
    areas = (boxes["x_max"] - boxes["x_min"]) * (boxes["y_max"] - boxes["y_min"])
    by_label = areas.groupby(boxes["label"]).median()
    times = by_label.max() / by_label.min()
    large, small = by_label.idxmax(), by_label.idxmin()
    return f"A box of {large} has {times:.0f} times the area of one of {small}"


def reader_table(readings: Readings) -> pd.DataFrame:
    """What each reader read and drew.

    Args:
        readings: of all images.

    Returns:
        A row a reader: `normal_percent` and `abnormal_percent`, the shares of all normal and of
        all abnormal images that this reader read, and `boxes`, how many boxes the reader drew. An
        image is abnormal where any reader drew a box.

    Raises:
        ValueError: a box is of an image or a reader that no reading names.
    """
    _check_boxes_are_read(readings)
    abnormal = set(readings.boxes["image_id"])
    table = readings.readings[["image_id", "reader_id"]]
    table = table.assign(abnormal=table["image_id"].isin(abnormal))
    n_abnormal = len(abnormal)
    n_normal = table["image_id"].nunique() - n_abnormal
    read = table.groupby("reader_id")["abnormal"].agg(["sum", "count"])
    return pd.DataFrame(
        {
            "normal_percent": 100 * (read["count"] - read["sum"]) / max(n_normal, 1),
            "abnormal_percent": 100 * read["sum"] / max(n_abnormal, 1),
            "boxes": readings.boxes["reader_id"].value_counts().reindex(read.index, fill_value=0),
        }
    )


def read_by_all(readings: Readings, names: list[str]) -> pd.Series:
    """Share of the abnormal and of the normal images that every one of these readers read.

    Returns:
        `abnormal` and `normal`, in percent; an image is abnormal where any reader drew a box.

    Raises:
        ValueError: a name is of no reader, or a box is of an image or a reader that no reading
            names.
    """
    _check_boxes_are_read(readings)
    known = readings.readings["reader_id"].unique()
    if isinstance(names, str) or not set(names) <= set(known):
        raise ValueError(f"{names!r} is no list of readers; there are {', '.join(map(str, known))}")
    table = readings.readings[readings.readings["reader_id"].isin(names)]
    images = readings.readings["image_id"].unique()
    by_all = table.groupby("image_id")["reader_id"].nunique() == len(set(names))
    by_all = by_all.reindex(images, fill_value=False).to_numpy()
    abnormal = np.isin(images, readings.boxes["image_id"].unique())
    shares = {"abnormal": by_all[abnormal].mean(), "normal": by_all[~abnormal].mean()}
    return 100 * pd.Series(shares)


def _check_boxes_are_read(readings: Readings) -> None:
    """Readings and boxes of one table name the same images and readers."""
    for column in ("image_id", "reader_id"):
        known = readings.readings[column]
        absent = readings.boxes[column][~readings.boxes[column].isin(known)]
        if len(absent):
            raise ValueError(
                f"{len(absent)} boxes have a {column} that no reading has, such as "
                f"{absent.iloc[0]!r}; the readings have such as {next(iter(known), None)!r}"
            )


def telling_fusion(fused: pd.DataFrame, *, readers: int = 3, most: int = 3) -> str:
    """An image to show what fusion does: one box of all readers, and one of a single reader.

    Args:
        fused: `image_id`, corners and `readers`, at least one row.
        readers: how many agree on some box.
        most: fused boxes on the image.

    Returns:
        Of such images, or of all where there is none, the one whose smallest box is the largest.

    Raises:
        ValueError: there is no box.
    """
    if fused.empty:
        raise ValueError("there is no fused box, so no image shows what fusion does")
    smallest = short_sides(fused).groupby(fused["image_id"]).min()
    by_image = fused.groupby("image_id")["readers"].agg(["min", "max", "size"])
    telling = (by_image["max"] >= readers) & (by_image["min"] == 1) & (by_image["size"] <= most)
    return str((smallest[telling] if telling.any() else smallest).idxmax())


def phantom_boxes(radiograph: Radiograph) -> pd.DataFrame:
    """The boxes of a phantom's findings: label, x_min, y_min, x_max, y_max in pixels."""
    rows = [(box.name, *box.xyxy) for box in radiograph.boxes if box is not None]
    return pd.DataFrame(rows, columns=["label", "x_min", "y_min", "x_max", "y_max"])


def find_dicom(files: Mapping[str, Path], *, photometric: str, at_most: int = 250) -> Path | None:
    """A file with a window and this Photometric Interpretation; None if there is none.

    Of several, the one whose values fill the smallest part of what its bits can hold. A file whose
    pixels cannot be decoded is passed over.

    Args:
        files: image id to path.
        photometric: 'MONOCHROME1' or 'MONOCHROME2'.
        at_most: look into so many files.
    """
    filled = {}
    for path in list(files.values())[:at_most]:
        if _kind(path) == (photometric, True):
            with suppress(dicom.DicomError):
                dataset = dicom.load_dataset(path)
                stored = dicom.stored_values(dataset).astype(np.int64)
                filled[Path(path)] = np.ptp(stored) / 2**dataset.BitsStored
    return min(filled, key=filled.get, default=None)


def _kind(path: str | Path) -> tuple[str, bool]:
    """Photometric Interpretation of a file, and whether it has a window."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        kind = str(header.get("PhotometricInterpretation", "missing"))
    except Exception:  # pydicom's own, and what a broken file raises
        return "unreadable", False
    try:
        width = header.get("WindowWidth")
        return kind, bool(width) and not isinstance(width, str)  # what is no number stays text
    except (ValueError, TypeError):
        return kind, False


def dicom_kinds(files: Mapping[str, Path], *, at_most: int = 2000) -> pd.DataFrame:
    """How many files store the picture in which way.

    Args:
        files: image id to path.
        at_most: look into so many files, taken evenly.

    Returns:
        Files, counted: a row for each Photometric Interpretation ('missing' and 'unreadable' are
        rows too), a column for those with and without a window.
    """
    paths = list(files.values())
    rows = []
    for path in paths[:: max(1, len(paths) // at_most)]:
        kind, windowed = _kind(path)
        rows.append((kind, "with a window" if windowed else "without a window"))
    table = pd.DataFrame(rows, columns=["kind", "window"])
    counted = pd.crosstab(table["kind"], table["window"])
    columns = ["with a window", "without a window"]
    return counted.reindex(columns=columns, fill_value=0).rename_axis(index=None, columns=None)


def center(pixels: np.ndarray, *, share: float = 0.6) -> np.ndarray:
    """The middle of square images (N, S, S), without the bars that fill them up to a square.

    Raises:
        ValueError: `share`, of each side, is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, not {share}")
    edge = round((1 - share) / 2 * pixels.shape[1])
    return np.asarray(pixels[:, edge : pixels.shape[1] - edge, edge : pixels.shape[2] - edge])


def gray_shares(pixels: np.ndarray, *, bins: int = 16) -> np.ndarray:
    """How a picture's pixels share out over the gray values.

    Args:
        pixels: (N, H, W) uint8.
        bins: equal steps from black to white; a divisor of 256.

    Returns:
        float64 (N, bins); each row adds up to 1.

    Raises:
        ValueError: the pixels are no bytes, or `bins` does not divide 256.
    """
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise ValueError(f"expected (N, H, W) uint8, got {pixels.dtype} of shape {pixels.shape}")
    if bins < 1 or 256 % bins:
        raise ValueError(f"bins must divide 256, {bins} does not")
    coarse = (pixels // (256 // bins)).reshape(len(pixels), -1)
    return np.stack([np.bincount(row, minlength=bins) for row in coarse]) / coarse.shape[1]


def site_accuracy(
    shares: Mapping[str, np.ndarray], groups: Mapping[str, np.ndarray], *, folds: int = 5
) -> float:
    """How well a linear model names the site of a picture that it has not seen.

    Args:
        shares: site to features (N, K).
        groups: site to the patient (or image) of each row; a patient stays in one fold.
        folds: of the cross-validation.

    Returns:
        Balanced accuracy, 0 to 1; 0.5 is chance for two sites.

    Raises:
        ValueError: there is one site only, or a site has not as many groups as features.
    """
    counts = {name: (len(shares[name]), len(groups.get(name, ()))) for name in shares}
    if len(shares) < 2 or any(rows != of for rows, of in counts.values()):
        raise ValueError(f"expected two sites or more with a group for each row, got {counts}")
    features = np.concatenate([shares[name] for name in shares])
    site = np.repeat(list(shares), [len(shares[name]) for name in shares])
    names = [f"{name} {group}" for name in shares for group in groups[name]]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    scores = cross_val_score(
        model,
        features,
        site,
        groups=pd.factorize(np.array(names))[0],
        cv=GroupKFold(folds),
        scoring="balanced_accuracy",
    )
    return float(scores.mean())
