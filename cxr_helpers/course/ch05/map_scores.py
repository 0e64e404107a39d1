"""Scores of notebook 05's maps and of three that need no network, against the readers' boxes.

The baselines are a bell in the middle, how often the class's training boxes cover a pixel, and the
detected box itself, filled.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from torch import nn

from cxr_helpers.course.ch05.explained import Finding, ablations, on_image
from cxr_helpers.course.core.data import BoxData
from cxr_helpers.evaluation.intervals import bootstrap
from cxr_helpers.explanation import heatmaps
from cxr_helpers.explanation.layers import LAYERS

POINTING, ENERGY = "pointing game", "energy in the box"
IOU, BEST_IOU = "IoU, validation's threshold", "IoU, own best threshold"
MEASURES = (POINTING, ENERGY, IOU, BEST_IOU)
ABLATION, PRIOR, BELL, BOX = "ablation", "class prior", "centered bell", "detected box"


def class_priors(data: BoxData) -> dict[int, np.ndarray]:
    """For each class how often a pixel lies in a box of it, over the training images."""
    shape = (data.images.size, data.images.size)
    truths = data.truths(data.rows("train", abnormal_only=True))
    return {
        label: heatmaps.box_prior(
            [t["boxes"][t["labels"] == label] for t in truths if label in t["labels"]], shape
        )
        for label in range(1, len(data.class_names) + 1)
    }


def score_maps(
    detector: nn.Module,
    data: BoxData,
    validation: Sequence[Finding],
    test: Sequence[Finding],
    *,
    layer: str,
) -> pd.DataFrame:
    """Scores of the detector's maps and of the baselines, against readers' boxes.

    Each kind of map gets the threshold at which its mean IoU is highest on the validation findings.

    Args:
        detector: in eval mode.
        data: images, and training boxes for the prior.
        validation: findings that choose the thresholds.
        test: findings that are scored.
        layer: of `layers.LAYERS`.

    Returns:
        A row for each test finding and map: row, label, class (its name), map, the measures, and
        `level` (the threshold). The last measure takes the threshold that is best for this very
        map and its boxes: no honest score, but an upper bound.

    Raises:
        ValueError: there is no finding to choose by, or none to score.
    """
    if not len(validation) or not len(test):
        raise ValueError(
            f"{len(validation)} findings to choose the threshold by, {len(test)} to score: the "
            "detector finds too little; lower the score threshold or train it longer"
        )
    priors = class_priors(data)
    chosen, scored = (
        pd.DataFrame(_measured(detector, data, items, priors, layer))
        for items in (validation, test)
    )
    tables = []
    for name, part in scored.groupby("map", sort=False):
        best = np.mean(chosen.loc[chosen["map"] == name, "ious"].tolist(), axis=0).argmax()
        ious = np.stack(part["ious"])
        columns = {IOU: ious[:, best], BEST_IOU: ious.max(axis=1), "level": heatmaps.LEVELS[best]}
        tables.append(part.drop(columns="ious").assign(**columns))
    return pd.concat(tables, ignore_index=True)


def _measured(
    detector: nn.Module,
    data: BoxData,
    items: Sequence[Finding],
    priors: Mapping[int, np.ndarray],
    layer: str,
) -> Iterator[dict]:
    """A row for each finding and map; `ious` holds the IoU at each of `heatmaps.LEVELS`."""
    square = (data.images.size, data.images.size)
    for item, ablation in ablations(detector, data, items, layer=layer):
        height, width = data.images.filled_hw[item.row]
        maps = {
            ABLATION: on_image(ablation, data.images, item.row),
            PRIOR: priors[item.label][:height, :width],
            BELL: heatmaps.centered_gaussian((height, width)),
            # A detected box may reach into what makes the image square.
            BOX: heatmaps.box_mask(item.box[None], square)[:height, :width],
        }
        for name, heatmap in maps.items():
            asked = {"boxes_xyxy": item.readers, "image_hw": (height, width)}
            yield {
                "row": item.row,
                "label": item.label,
                "class": item.name,
                "map": name,
                POINTING: heatmaps.pointing_game(heatmap, **asked),
                ENERGY: heatmaps.energy_in_box(heatmap, **asked),
                "ious": heatmaps.iou_at_levels(heatmap, **asked),
            }


def score_table(
    scores: Mapping[str, pd.DataFrame], *, reference: str, resamples: int, seed: int
) -> pd.DataFrame:
    """Means with intervals: each arm's maps, and the baselines on the boxes of one arm.

    Args:
        scores: `score_maps` of each arm.
        reference: the arm whose boxes the baselines are scored on.
        resamples: of images.
        seed: of the resamples.

    Returns:
        Columns measure, map, value, low, high.
    """
    baselines = scores[reference]
    lines = {name: baselines[baselines["map"] == name] for name in (PRIOR, BELL, BOX)}
    drawn = {"resamples": resamples, "seed": seed}
    return pd.DataFrame(
        {"measure": measure, "map": name, **_mean(table, measure, **drawn)}
        for measure in MEASURES
        for name, table in (_own_maps(scores) | lines).items()
    )


def class_table(
    scores: Mapping[str, pd.DataFrame],
    measures: Sequence[str],
    *,
    at_least: int,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Scores class by class and arm by arm, with intervals over images.

    Args:
        scores: `score_maps` of each arm.
        measures: of `MEASURES`.
        at_least: findings that each arm must have of a class; other classes are left out.
        resamples: of images.
        seed: of the resamples.

    Returns:
        Columns measure, class, n, arm, value, low, high, the most frequent class first.
    """
    own, drawn = _own_maps(scores), {"resamples": resamples, "seed": seed}
    counts = pd.DataFrame({arm: t["class"].value_counts() for arm, t in own.items()}).fillna(0)
    enough = counts[counts.min(axis=1) >= at_least].sum(axis=1).sort_values(ascending=False)
    rows = []
    for measure in measures:
        for name in enough.index:
            for arm, table in own.items():
                part = table[table["class"] == name]
                at = {"measure": measure, "class": name, "n": len(part), "arm": arm}
                rows.append({**at, **_mean(part, measure, **drawn)})
    return pd.DataFrame(rows, columns=["measure", "class", "n", "arm", "value", "low", "high"])


def paired_difference(
    first: pd.DataFrame, second: pd.DataFrame, *, resamples: int, seed: int
) -> pd.DataFrame:
    """Second minus first on the findings that both explain, with intervals over images.

    Args:
        first: `score_maps` of one arm.
        second: of the other.
        resamples: of images.
        seed: of the resamples.

    Returns:
        Columns measure, n (findings), value, low, high.
    """
    own = _own_maps({"first": first, "second": second}).values()
    before, after = (table.set_index(["row", "label"])[list(MEASURES)] for table in own)
    both = before.index.intersection(after.index)
    change = (after.loc[both] - before.loc[both]).reset_index()
    drawn = {"resamples": resamples, "seed": seed}
    return pd.DataFrame(
        {"measure": measure, "n": len(both), **_mean(change, measure, **drawn)}
        for measure in MEASURES
    )


def pointing_by_layer(detector: nn.Module, data: BoxData, items: Sequence[Finding]) -> pd.Series:
    """Share of the findings whose map points into a reader's box, for each layer."""
    shares = {}
    for layer in LAYERS:
        made = ablations(detector, data, items, layer=layer)
        maps = (
            (on_image(ablation, data.images, item.row), item.readers) for item, ablation in made
        )
        shares[layer] = np.mean([heatmaps.pointing_game(*one) for one in maps])
    return pd.Series(shares)


def _own_maps(scores: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    return {arm: table[table["map"] == ABLATION] for arm, table in scores.items()}


def _mean(scores: pd.DataFrame, measure: str, *, resamples: int, seed: int) -> dict[str, float]:
    """Mean over findings, with an interval over images."""
    by_image = scores.groupby("row")[measure].agg(["sum", "count"]).to_numpy(float)

    def mean(weights: np.ndarray) -> np.ndarray:
        return (weights @ by_image[:, 0]) / np.maximum(weights @ by_image[:, 1], 1)

    return bootstrap(mean, len(by_image), resamples=resamples, seed=seed).as_dict()
