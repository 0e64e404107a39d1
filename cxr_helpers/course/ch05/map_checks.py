"""The sanity checks of notebook 05: weights at random, pixels deleted and inserted."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

import numpy as np
import pandas as pd
from torch import nn

from cxr_helpers.course.ch05 import explained, map_scores
from cxr_helpers.course.core.data import BoxData
from cxr_helpers.explanation import fixed_box, heatmaps, sanity
from cxr_helpers.explanation.cells import CellAblation
from cxr_helpers.explanation.probe_map import ProbeMaps, pooled_features

CENTER_IMAGES = 32  # training images whose mean map a randomized probe is centered on


def randomization_check(
    detector: nn.Module,
    data: BoxData,
    items: Sequence[explained.Finding],
    *,
    layer: explained.Layers,
    seed: int,
    probe: ProbeMaps | None = None,
) -> dict[str, pd.DataFrame]:
    """`agreement` of each way with itself as the weights are randomized, from the output down.

    A probe's head is its logistic regressions; there is no pyramid in it, and no stage after its
    own.

    Returns:
        For each way a row for each finding and a column for each step.
    """
    tables = {}
    for way in (explained.CHANNELS, explained.CELLS):
        steps = sanity.cascade(detector, sanity.DETECTOR_PARTS, seed=seed)
        detectors = chain([("as trained", detector)], ((f"+ {n}", d) for n, d in steps))
        explains = ((name, explained.ways(one, layer=layer)[way]) for name, one in detectors)
        tables[way] = agreement(explains, data, items)
    if probe is not None:
        probes = _randomized_probes(probe, data, seed=seed)
        explains = (
            (name, lambda image, boxes, labels, one=one: one.explain(image, labels))
            for name, one in probes
        )
        tables[explained.PROBE] = agreement(explains, data, items)
    return tables


def _randomized_probes(
    probe: ProbeMaps, data: BoxData, *, seed: int
) -> Iterator[tuple[str, ProbeMaps]]:
    """The same steps for a probe: each class gets weights of the same length and random direction.

    Under random features the probe is centered on training images anew, as it would be if it were
    made there.
    """
    yield "as trained", probe
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal(probe.weights.shape)
    length = np.linalg.norm(probe.weights, axis=1) / np.linalg.norm(drawn, axis=1)
    changed = replace(probe, weights=drawn * length[:, None])
    few = data.images.pixels[data.rows("train")[:CENTER_IMAGES]]
    parts = list(sanity.DETECTOR_PARTS)
    reached = parts.index(probe.layer)
    for number, (name, detector) in enumerate(
        sanity.cascade(probe.detector, sanity.DETECTOR_PARTS, seed=seed)
    ):
        if number >= reached:
            center = pooled_features(detector, few, layer=probe.layer)[1]
            changed = replace(changed, detector=detector, center=center)
        yield f"+ {name}", changed


def agreement(
    explains: Iterable[tuple[str, explained.Explain]],
    data: BoxData,
    items: Sequence[explained.Finding],
) -> pd.DataFrame:
    """Rank correlation of each finding's map in the first way with that in each.

    The maps are taken before the cut at zero, so that all of their values are compared. Of a cell
    ablation only the cells that change a score are: all others are zero whatever was learned.

    Args:
        explains: names and ways; only one need be in memory at a time.
        data: images.
        items: findings.

    Returns:
        A row for each finding, a column for each name; NaN where the first map is empty, or fewer
        than two of its cells count.
    """
    first: list[explained.LayerMap] = []
    columns = {}
    for name, explain in explains:
        maps = [made for _, made in explained.maps_of(explain, data, items)]
        first = first or maps
        columns[name] = [_alike(one, other) for one, other in zip(first, maps, strict=True)]
    return pd.DataFrame(columns)


def _alike(one: explained.LayerMap, other: explained.LayerMap) -> float:
    counts = one.reach if isinstance(one, CellAblation) else np.ones(one.signed_map.shape, bool)
    if counts.sum() < 2 or not one.signed_map.any():
        return np.nan
    return sanity.rank_correlation(one.signed_map[counts], other.signed_map[counts])


def pixel_curves(
    detector: nn.Module,
    data: BoxData,
    items: Sequence[explained.Finding],
    makers: Mapping[str, explained.Explain],
    *,
    steps: int = 8,
    seed: int,
) -> tuple[dict[str, dict[str, tuple[np.ndarray, np.ndarray]]], pd.DataFrame]:
    """Deletion and insertion for the findings' maps, for a bell on the box, and for random maps.

    The bell on the box knows the box and nothing else. A random map has as many values as the
    first way's map, so that both take regions of one size.

    Args:
        detector: in eval mode.
        data: images.
        items: findings; the score is the log-odds of the class in the detected box, held fixed.
        makers: ways by name, as `explained.ways` gives them; one or more.
        steps: of each curve.
        seed: of the random maps.

    Returns:
        Mean curves, kind -> order -> (share, score); and the areas: a row for each finding, a
        column for each (kind, order).
    """
    rng = np.random.default_rng(seed)
    kinds = {"deletion": sanity.deletion_curve, "insertion": sanity.insertion_curve}
    scores: dict[tuple[str, str], list[sanity.Curve]] = {}
    made = {name: explained.maps_of(explain, data, items) for name, explain in makers.items()}
    for together in zip(*made.values(), strict=True):
        item, some = together[0]
        image = np.asarray(data.images.pixels[item.row])
        height, width = data.images.filled_hw[item.row]
        drawn = zip(made, together, strict=True)
        maps = {
            **{name: explained.on_image(one, data.images, item.row) for name, (_, one) in drawn},
            map_scores.BOX_BELL: heatmaps.centered_gaussian((height, width), box_xyxy=item.box),
            "random map": heatmaps.resize_map(rng.random(some.heatmap.shape), (height, width)),
        }
        # Below all evidence, so what makes the image square comes last in all orders.
        beyond = [(0, image.shape[0] - height), (0, image.shape[1] - width)]
        orders = {k: np.pad(heatmap, beyond, constant_values=-1) for k, heatmap in maps.items()}
        score = partial(_scores, detector, item)
        for kind, make in kinds.items():
            for name, heatmap in orders.items():
                curve = make(score, image, heatmap, steps=steps, seed=seed)
                scores.setdefault((kind, name), []).append(curve)
    means: dict[str, dict] = {kind: {} for kind in kinds}
    for (kind, name), curves in scores.items():
        means[kind][name] = curves[0].share, np.mean([c.score for c in curves], axis=0)
    areas = pd.DataFrame({key: [c.area for c in curves] for key, curves in scores.items()})
    return means, areas


def _scores(detector: nn.Module, item: explained.Finding, images: np.ndarray) -> np.ndarray:
    return fixed_box.score_box(detector, images[:, None], item.box, item.label)
