"""Scores of notebook 05's maps and of four that explain nothing, against boxes.

The baselines are a bell in the middle, how often the class's training boxes cover a pixel, and the
detected box itself, filled and with a bell in it. The boxes are the readers' and, where it is
known, where the finding really lies.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from torch import nn

from cxr_helpers.course.ch05.explained import (
    CHANNELS,
    PROBE,
    WAYS,
    Finding,
    Layers,
    maps_of,
    on_image,
    ways,
)
from cxr_helpers.course.core.data import BoxData
from cxr_helpers.evaluation.intervals import bootstrap
from cxr_helpers.explanation import heatmaps
from cxr_helpers.explanation.layers import LAYER_NAMES, LAYERS
from cxr_helpers.explanation.probe_map import ProbeMaps

POINTING, ENERGY = "pointing game", "energy in the box"
IOU, BEST_IOU = "IoU, validation's threshold", "IoU, own best threshold"
MEASURES = (POINTING, ENERGY, IOU, BEST_IOU)
PRIOR, BELL = "class prior", "centered bell"
BOX, BOX_BELL = "detected box", "bell on the box"
BASELINES = (PRIOR, BELL, BOX, BOX_BELL)
READERS, EXACT = "readers", "exact"


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
    layer: Layers,
    probe: ProbeMaps | None = None,
    names: Sequence[str] = (*WAYS, *BASELINES),
) -> pd.DataFrame:
    """Scores of the detector's maps and of the baselines, against readers' and exact boxes.

    Each kind of map gets the threshold at which its mean IoU with the readers' boxes is highest on
    the validation findings.

    Args:
        detector: in eval mode.
        data: images, and training boxes for the prior.
        validation: findings that choose the thresholds.
        test: findings that are scored.
        layer: of `layers.LAYERS`, or one for each way.
        probe: adds its maps.
        names: ways and baselines that are scored, one way at least; fewer take less time.

    Returns:
        A row for each test finding, map and truth: row, label, class (its name), map, truth
        (`readers` or `exact`; the latter where a finding is known to lie), the measures, and
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
    priors, known = class_priors(data), ways(detector, probe, layer=layer)
    makers = {name: explain for name, explain in known.items() if name in names}
    chosen, scored = (
        pd.DataFrame(
            row
            for item, maps in all_maps(makers, data, items, priors)
            for row in _measured(item, {n: m for n, m in maps.items() if n in names}, truths)
        )
        for items, truths in ((validation, (READERS,)), (test, (READERS, EXACT)))
    )
    tables = []
    for name, part in scored.groupby("map", sort=False):
        best = np.mean(chosen.loc[chosen["map"] == name, "ious"].tolist(), axis=0).argmax()
        ious = np.stack(part["ious"])
        columns = {IOU: ious[:, best], BEST_IOU: ious.max(axis=1), "level": heatmaps.LEVELS[best]}
        tables.append(part.drop(columns="ious").assign(**columns))
    return pd.concat(tables, ignore_index=True)


def all_maps(
    makers: Mapping, data: BoxData, items: Sequence[Finding], priors: Mapping[int, np.ndarray]
) -> Iterator[tuple[Finding, dict[str, np.ndarray]]]:
    """Each finding with its maps of every way and those of the baselines, of the radiograph's size.

    Args:
        makers: as `explained.ways` gives them.
        data: images.
        items: findings.
        priors: as `class_priors` gives them.
    """
    square = (data.images.size, data.images.size)
    made = {name: maps_of(explain, data, items) for name, explain in makers.items()}
    for together in zip(*made.values(), strict=True):
        item = together[0][0]
        height, width = data.images.filled_hw[item.row]
        drawn = zip(made, together, strict=True)
        yield (
            item,
            {
                **{name: on_image(one, data.images, item.row) for name, (_, one) in drawn},
                PRIOR: priors[item.label][:height, :width],
                BELL: heatmaps.centered_gaussian((height, width)),
                # A detected box may reach into what makes the image square.
                BOX: heatmaps.box_mask(item.box[None], square)[:height, :width],
                BOX_BELL: heatmaps.centered_gaussian((height, width), box_xyxy=item.box),
            },
        )


def _measured(
    item: Finding, maps: Mapping[str, np.ndarray], truths: Sequence[str]
) -> Iterator[dict]:
    """A row for each map and truth; `ious` holds the IoU at each of `heatmaps.LEVELS`."""
    boxes = {READERS: item.readers, EXACT: item.exact}
    for truth in truths:
        if boxes[truth] is None or not len(boxes[truth]):
            continue
        for name, heatmap in maps.items():
            asked = {"boxes_xyxy": boxes[truth], "image_hw": heatmap.shape}
            yield {
                "row": item.row,
                "label": item.label,
                "class": item.name,
                "map": name,
                "truth": truth,
                POINTING: heatmaps.pointing_game(heatmap, **asked),
                ENERGY: heatmaps.energy_in_box(heatmap, **asked),
                "ious": heatmaps.iou_at_levels(heatmap, **asked),
            }


def score_table(
    scores: Mapping[str, pd.DataFrame],
    *,
    reference: str,
    resamples: int,
    seed: int,
    truth: str = READERS,
) -> pd.DataFrame:
    """Means with intervals: each arm's maps, and the baselines on the boxes of one arm.

    Args:
        scores: `score_maps` of each arm.
        reference: the arm whose boxes the baselines are scored on.
        resamples: of images.
        seed: of the resamples.
        truth: `readers` or `exact`.

    Returns:
        Columns measure, map, value, low, high; an arm's map is called `arm: way`.
    """
    asked = {arm: table[table["truth"] == truth] for arm, table in scores.items()}
    lines = {
        f"{arm}: {name}": table[table["map"] == name]
        for arm, table in asked.items()
        for name in WAYS
        if name in set(table["map"])
    }
    own = asked[reference]
    lines |= {name: own[own["map"] == name] for name in BASELINES if name in set(own["map"])}
    drawn = {"resamples": resamples, "seed": seed}
    return pd.DataFrame(
        {"measure": measure, "map": name, **_mean(table, measure, **drawn)}
        for measure in MEASURES
        for name, table in lines.items()
    )


def over_baselines(
    scores: pd.DataFrame,
    *,
    resamples: int,
    seed: int,
    measure: str = POINTING,
    minus: Sequence[str] = (BELL, PRIOR, BOX_BELL),
) -> pd.DataFrame:
    """Each map minus each baseline on the same findings, with intervals over images.

    Args:
        scores: `score_maps` of one arm.
        resamples: of images.
        seed: of the resamples.
        measure: of `MEASURES`.
        minus: of `BASELINES`.

    Returns:
        Columns truth, map, minus, n (findings), value, low, high.
    """
    rows = []
    for truth, table in scores.groupby("truth", sort=False):
        wide = table.pivot(index=["row", "label"], columns="map", values=measure)
        for name in (name for name in WAYS if name in wide):
            for baseline in minus:
                change = (wide[name] - wide[baseline]).rename(measure).reset_index()
                mean = _mean(change, measure, resamples=resamples, seed=seed)
                at = {"truth": truth, "map": name, "minus": baseline, "n": len(change)}
                rows.append({**at, **mean})
    return pd.DataFrame(rows)


def paired_difference(
    first: pd.DataFrame, second: pd.DataFrame, *, resamples: int, seed: int, way: str = CHANNELS
) -> pd.DataFrame:
    """Second minus first on the findings that both explain, against the readers.

    Args:
        first: `score_maps` of one arm.
        second: of the other.
        resamples: of images.
        seed: of the resamples.
        way: whose maps.

    Returns:
        Columns measure, n (findings), value, low, high; the intervals are over images.
    """
    own = _own_maps({"first": first, "second": second}, way).values()
    before, after = (table.set_index(["row", "label"])[list(MEASURES)] for table in own)
    both = before.index.intersection(after.index)
    change = (after.loc[both] - before.loc[both]).reset_index()
    drawn = {"resamples": resamples, "seed": seed}
    return pd.DataFrame(
        {"measure": measure, "n": len(both), **_mean(change, measure, **drawn)}
        for measure in MEASURES
    )


def pointing_by_layer(
    detector: nn.Module,
    data: BoxData,
    items: Sequence[Finding],
    *,
    probe: ProbeMaps | None = None,
    layers: Sequence[str] = LAYERS,
) -> pd.DataFrame:
    """Share of the findings whose map points into a reader's box, for each layer and way.

    Args:
        detector: in eval mode.
        data: images.
        items: findings, of validation images where something is chosen by them.
        probe: scored at its own layer alone.
        layers: of `layers.LAYERS`.

    Returns:
        A row for each layer, a column for each way; NaN where a way has no such map.
    """
    shares: dict[str, dict[str, float]] = {}
    for layer in layers:
        for name, explain in ways(detector, probe, layer=layer).items():
            if name == PROBE and probe.layer != layer:
                continue
            hits = [
                heatmaps.pointing_game(on_image(made, data.images, item.row), item.readers)
                for item, made in maps_of(explain, data, items)
            ]
            shares.setdefault(name, {})[layer] = float(np.mean(hits))
    return pd.DataFrame(shares).reindex(list(layers))


def reported_map(pointing: pd.DataFrame) -> tuple[str, dict[str, str]]:
    """The rule: of each way the layer that points best on validation, and of these the best way.

    Args:
        pointing: `pointing_by_layer` of validation findings; of equals the first counts.

    Returns:
        The way that is reported, and the layer of each way.

    >>> shares = {"channel ablation": [0.3, 0.2], "cell ablation": [0.3, 0.5]}
    >>> reported_map(pd.DataFrame(shares, index=["layer3", "layer4"]))
    ('cell ablation', {'channel ablation': 'layer3', 'cell ablation': 'layer4'})
    """
    return str(pointing.max().idxmax()), {way: str(pointing[way].idxmax()) for way in pointing}


def answer(scores: pd.DataFrame, gains: pd.DataFrame, reach: float, *, way: str, layer: str) -> str:
    """Where does it look? In three sentences; the last holds it against the detected box alone.

    Args:
        scores: `score_maps` of the arm.
        gains: its `over_baselines`.
        reach: mean share of the cells that change a score.
        way: that is reported.
        layer: its layer.
    """
    own = scores[(scores["truth"] == READERS) & (scores["map"] == way)]
    at = gains[(gains["truth"] == READERS) & (gains["map"] == way)].set_index("minus")

    def over(name: str) -> str:
        one = at.loc[name]
        return f"{one['value']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f})"

    usual = at.loc[[BELL, PRIOR], "low"].min() > 0
    where = "more often than the finding's usual place" if usual else "not known"
    box = at.loc[BOX_BELL]
    says = "so the score says that the box lies well, not that the map explains anything"
    if box["low"] > 0:
        says = "so the map knows more than the box"
    name = LAYER_NAMES[layer].split(",")[0]
    return (
        f"The reported map ({way}, {name}; {reach:.0%} of the cells can change a score)\n"
        f"points into a reader's box for {own[POINTING].mean():.0%} of {len(own)} findings.\n"
        f"On the finding: {where}, {over(BELL)} against a bell in the middle,\n"
        f"{over(PRIOR)} against the class prior.\n"
        f"Against a bell in the detected box, which explains nothing: {over(BOX_BELL)},\n"
        f"{says}."
    )


def _own_maps(scores: Mapping[str, pd.DataFrame], way: str) -> dict[str, pd.DataFrame]:
    return {
        arm: table[(table["map"] == way) & (table["truth"] == READERS)]
        for arm, table in scores.items()
    }


def _mean(scores: pd.DataFrame, measure: str, *, resamples: int, seed: int) -> dict[str, float]:
    """Mean over findings, with an interval over images."""
    by_image = scores.groupby("row")[measure].agg(["sum", "count"]).to_numpy(float)

    def mean(weights: np.ndarray) -> np.ndarray:
        return (weights @ by_image[:, 0]) / np.maximum(weights @ by_image[:, 1], 1)

    return bootstrap(mean, len(by_image), resamples=resamples, seed=seed).as_dict()
