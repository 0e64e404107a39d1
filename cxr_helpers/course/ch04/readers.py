"""Readers as the truth: which of their boxes count, and one reader against the others.

Of the demo's phantoms the exact boxes are known too (`data.exact`), as of no real radiograph.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from cxr_helpers.course.core.data import BoxData
from cxr_helpers.data import consensus, vindr
from cxr_helpers.data.datasets import boxes_by_image
from cxr_helpers.detection import metrics

TRUTHS = ("fused", "two readers", "one reader", "any reader", "exact")


def truths_by(choice: str, data: BoxData, rows: np.ndarray) -> list[dict[str, np.ndarray]]:
    """The boxes of these rows as `data.truths` gives them, by one choice of the truth.

    Args:
        choice: `fused`, all readers' boxes fused; `two readers`, of these the ones that at least
            two readers drew; `one reader`, what one reader of each image drew, the first by name
            of those who drew any box; `any reader`, every box of every reader, unfused; `exact`,
            where the findings really are, known of phantoms alone.
        data: gives the boxes.
        rows: images.

    Raises:
        ValueError: there is no such choice, or nobody knows the exact boxes of these data.
    """
    if choice not in TRUTHS:
        raise ValueError(f"truth {choice!r} is none of {', '.join(TRUTHS)}")
    if choice == "exact":
        if data.exact is None:
            raise ValueError("nobody knows the exact boxes of these data; they are no phantoms")
        return data.truths(rows, data.exact)
    drawn = data.readings.boxes
    drawn = drawn[drawn["image_id"].isin(data.images.image_ids)]
    first = drawn.groupby("image_id")["reader_id"].transform("min")
    tables = {
        "fused": data.fused,
        "two readers": data.fused[data.fused["readers"] >= 2],
        "one reader": drawn[drawn["reader_id"] == first],
        "any reader": drawn,
    }
    return data.truths(rows, tables[choice])


def exact_detections(data: BoxData, rows: np.ndarray) -> list[dict[str, np.ndarray]] | None:
    """What a perfect detector would say of these rows, surely; None where nobody knows it."""
    if data.exact is None:
        return None
    exact = truths_by("exact", data, rows)
    return [one | {"scores": np.ones(len(one["labels"]))} for one in exact]


def truth_table(found: Mapping[str, Sequence], data: BoxData, rows: np.ndarray) -> pd.DataFrame:
    """mAP50 of the same detections against each choice of the truth.

    Returns:
        Indexed by choice: `boxes`, and a column for each arm. A choice without boxes has no row.
    """
    table = {}
    for choice in TRUTHS if data.exact is not None else TRUTHS[:-1]:
        truths = truths_by(choice, data, rows)
        boxes = sum(len(one["labels"]) for one in truths)
        if boxes:
            means = {
                arm: metrics.mean_average_precision(
                    metrics.match_detections(one, truths, class_names=data.class_names)
                )
                for arm, one in found.items()
            }
            table[choice] = {"boxes": boxes} | means
    return pd.DataFrame.from_dict(table, orient="index")


def leave_out_readers(
    readings: vindr.Readings,
) -> Iterator[tuple[pd.Index, pd.DataFrame, pd.DataFrame]]:
    """One reader of each image against the others, in turn: the first by name, the second, ...

    Args:
        readings: who read which image, those who drew nothing included.

    Yields:
        The images that have such a reader and others beside, the boxes of the reader who is left
        out, and the fused boxes of the others. Nothing where images have a single reader.
    """
    pairs = ["image_id", "reader_id"]
    who = readings.readings[pairs].drop_duplicates().sort_values(pairs)
    who["turn"] = who.groupby("image_id").cumcount()
    turn = readings.boxes.merge(who, on=pairs, how="left")["turn"].to_numpy()
    count = who.groupby("image_id").size()
    most = count.max() if len(count) else 0
    for left_out in range(most if most > 1 else 0):
        images = count.index[count > max(left_out, 1)]
        here = readings.boxes["image_id"].isin(images).to_numpy()
        own, others = here & (turn == left_out), here & (turn != left_out)
        yield images, readings.boxes[own], consensus.fuse_readings(readings.boxes[others])


def score_readers(readings: vindr.Readings, class_names: Sequence[str]) -> pd.Series:
    """How well one reader does against the fused boxes of the others, for each class.

    Readers give no scores, so theirs is one point of precision and recall; the area below it,
    their product, takes the place of average precision at IoU 0.5.

    Returns:
        Mean over the turns of `leave_out_readers` in which the others drew the class, indexed by
        class; NaN where there is no such turn.
    """
    turns = [
        _precision_times_recall(own, others, class_names)
        for _, own, others in leave_out_readers(readings)
    ]
    return pd.DataFrame(turns, columns=list(class_names)).mean()


def _precision_times_recall(
    own: pd.DataFrame, others: pd.DataFrame, class_names: Sequence[str]
) -> np.ndarray:
    names = sorted({*own["image_id"], *others["image_id"]})
    truths, drawn = (boxes_by_image(table, names, class_names) for table in (others, own))
    drawn = [one | {"scores": np.ones(len(one["labels"]))} for one in drawn]
    matched = metrics.match_detections(drawn, truths, class_names=class_names)
    kinds = np.arange(1, len(class_names) + 1)
    hits = np.array([(matched.hit & (matched.label == k)).sum() for k in kinds])
    said = np.array([(matched.label == k).sum() for k in kinds])
    with np.errstate(invalid="ignore"):  # a class without a box in the truth has no score
        return hits / np.maximum(said, 1) * (hits / matched.truths.sum(axis=0))


def against_other_readers(
    found: Mapping[str, Sequence], data: BoxData, rows: np.ndarray
) -> pd.DataFrame:
    """One reader and each detector against the same truth: the fused boxes of the other readers.

    Returns:
        Indexed by class: `one reader` as `score_readers` gives it, and average precision of each
        detector, all means over the turns; empty where images have a single reader.
    """
    names = np.array([data.images.image_ids[row] for row in rows])
    drawn, seen = data.readings.boxes, data.readings.readings
    readings = replace(
        data.readings,
        boxes=drawn[drawn["image_id"].isin(names)],
        readings=seen[seen["image_id"].isin(names)],
    )
    values = {arm: [] for arm in found}
    for images, _, others in leave_out_readers(readings):
        keep = np.flatnonzero(np.isin(names, images))
        truths = data.truths(rows[keep], others)
        for arm, one in found.items():
            matched = metrics.match_detections(
                [one[i] for i in keep], truths, class_names=data.class_names
            )
            values[arm].append(metrics.average_precision(matched))
    columns = {"one reader": score_readers(readings, data.class_names)}
    columns |= {
        a: pd.DataFrame(v, columns=list(data.class_names)).mean() for a, v in values.items()
    }
    return pd.DataFrame(columns).dropna(how="all")
