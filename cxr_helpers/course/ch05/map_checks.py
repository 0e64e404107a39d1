"""The sanity checks of notebook 05: weights at random, pixels deleted and inserted."""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain

import numpy as np
import pandas as pd
from torch import nn

from cxr_helpers.course.ch05 import explained, map_scores
from cxr_helpers.course.core.data import BoxData
from cxr_helpers.explanation import ablation_fast, heatmaps, sanity


def randomization_check(
    detector: nn.Module,
    data: BoxData,
    items: Sequence[explained.Finding],
    *,
    layer: str,
    seed: int,
) -> pd.DataFrame:
    """`agreement` of a detector with itself as its parts are randomized, from the output down."""
    steps = sanity.cascade(detector, sanity.DETECTOR_PARTS, seed=seed)
    randomized = ((f"+ {name}", changed) for name, changed in steps)
    detectors = chain([("as trained", detector)], randomized)
    return agreement(detectors, data, items, layer=layer)


def agreement(
    detectors: Iterable[tuple[str, nn.Module]],
    data: BoxData,
    items: Sequence[explained.Finding],
    *,
    layer: str,
) -> pd.DataFrame:
    """Rank correlation of each finding's map under the first detector with that under each.

    The maps are taken before the cut at zero, so that all of their values are compared.

    Args:
        detectors: names and detectors; only one need be in memory at a time.
        data: images.
        items: findings.
        layer: of `layers.LAYERS`.

    Returns:
        A row for each finding, a column for each detector.
    """
    first: list[np.ndarray] = []
    columns = {}
    for name, detector in detectors:
        maps = [a.signed_map for _, a in explained.ablations(detector, data, items, layer=layer)]
        first = first or maps
        pairs = zip(first, maps, strict=True)
        columns[name] = [sanity.rank_correlation(one, other) for one, other in pairs]
    return pd.DataFrame(columns)


def pixel_curves(
    detector: nn.Module,
    data: BoxData,
    items: Sequence[explained.Finding],
    *,
    layer: str,
    steps: int = 8,
    seed: int,
) -> tuple[dict[str, dict[str, tuple[np.ndarray, np.ndarray]]], pd.DataFrame]:
    """Deletion and insertion for the findings' maps, for a bell on the box, and for random maps.

    The bell on the box knows the box and nothing else. A random map has as many values as the
    heatmap, so that both take regions of one size.

    Args:
        detector: in eval mode.
        data: images.
        items: findings; the score is the class probability in the detected box, held fixed.
        layer: of `layers.LAYERS`.
        steps: of each curve.
        seed: of the random maps.

    Returns:
        Mean curves, kind -> order -> (share, score); and the areas: a row for each finding, a
        column for each (kind, order).
    """
    rng = np.random.default_rng(seed)
    kinds = {"deletion": sanity.deletion_curve, "insertion": sanity.insertion_curve}
    scores: dict[tuple[str, str], list[sanity.Curve]] = {}
    for item, ablation in explained.ablations(detector, data, items, layer=layer):
        image = np.asarray(data.images.pixels[item.row])
        height, width = data.images.filled_hw[item.row]
        maps = {
            map_scores.ABLATION: explained.on_image(ablation, data.images, item.row),
            "bell on the box": heatmaps.centered_gaussian((height, width), box_xyxy=item.box),
            "random map": heatmaps.resize_map(rng.random(ablation.heatmap.shape), (height, width)),
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
    return ablation_fast.score_box(detector, images[:, None], item.box, item.label)
