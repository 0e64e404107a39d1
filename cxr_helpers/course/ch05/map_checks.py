"""The sanity checks of notebook 05: weights at random, pixels deleted and inserted."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn

from cxr_helpers.course.ch05 import explaining
from cxr_helpers.course.core.data import BoxData
from cxr_helpers.explanation import ablation_fast, heatmaps, sanity


def randomization_check(
    detector: nn.Module,
    data: BoxData,
    items: Sequence[explaining.Finding],
    *,
    layer: str,
    seed: int,
) -> pd.DataFrame:
    """Rank correlation of each finding's map with its map as the detector is randomized.

    The maps are taken before the cut at zero, so that all of their values are compared.

    Returns:
        A row for each finding; a column for each step, which randomizes one part more, from the
        output down.
    """
    columns = {"as trained": signed_maps(detector, data, items, layer=layer)}
    for name, changed in sanity.cascade(detector, sanity.DETECTOR_PARTS, seed=seed):
        columns[f"+ {name}"] = signed_maps(changed, data, items, layer=layer)
    return agreement(columns, "as trained")


def signed_maps(
    detector: nn.Module, data: BoxData, items: Sequence[explaining.Finding], *, layer: str
) -> list[np.ndarray]:
    """Maps before the cut at zero, in the order of the images."""
    return [a.signed_map for _, a in explaining.ablations(detector, data, items, layer=layer)]


def agreement(columns: Mapping[str, Sequence[np.ndarray]], reference: str) -> pd.DataFrame:
    """Rank correlation of maps with those of one column.

    Args:
        columns: name -> one map for each finding.
        reference: the name to compare with.

    Returns:
        A row for each finding, a column for each name.
    """
    return pd.DataFrame(
        {
            name: [
                sanity.rank_correlation(a, b) for a, b in zip(columns[reference], maps, strict=True)
            ]
            for name, maps in columns.items()
        }
    )


def pixel_curves(
    detector: nn.Module,
    data: BoxData,
    items: Sequence[explaining.Finding],
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
        layer: of `ablation_fast.LAYERS`.
        steps: of each curve.
        seed: of the random maps.

    Returns:
        Mean curves, kind -> order -> (share, score); and the areas: a row for each finding, a
        column for each (kind, order).
    """
    rng = np.random.default_rng(seed)
    kinds = {"deletion": sanity.deletion_curve, "insertion": sanity.insertion_curve}
    scores: dict[tuple[str, str], list[sanity.Curve]] = {}
    for item, ablation in explaining.ablations(detector, data, items, layer=layer):
        image = np.asarray(data.images.pixels[item.row], dtype=np.float32) / 255
        height, width = data.images.filled_hw[item.row]
        maps = {
            explaining.ABLATION: explaining.on_image(ablation, data.images, item.row),
            "bell on the box": box_bell(item.box, (height, width)),
            "random map": heatmaps.resize_map(rng.random(ablation.heatmap.shape), (height, width)),
        }
        # Below all evidence, so what makes the image square comes last in all orders.
        beyond = [(0, image.shape[0] - height), (0, image.shape[1] - width)]
        orders = {k: np.pad(heatmap, beyond, constant_values=-1) for k, heatmap in maps.items()}
        for kind, make in kinds.items():
            for name, heatmap in orders.items():
                curve = make(_box_scorer(detector, item), image, heatmap, steps=steps, seed=seed)
                scores.setdefault((kind, name), []).append(curve)
    means: dict[str, dict] = {kind: {} for kind in kinds}
    for (kind, name), curves in scores.items():
        means[kind][name] = curves[0].share, np.mean([c.score for c in curves], axis=0)
    areas = pd.DataFrame({key: [c.area for c in curves] for key, curves in scores.items()})
    return means, areas


def box_bell(box_xyxy: np.ndarray, shape_hw: tuple[int, int]) -> np.ndarray:
    """A Gaussian on a box, its sides two standard deviations to each side, maximum near 1."""
    x_min, y_min, x_max, y_max = np.asarray(box_xyxy, dtype=float)
    y, x = (np.arange(n) + 0.5 for n in shape_hw)
    down = (y - (y_min + y_max) / 2) / max(1.0, (y_max - y_min) / 4)
    across = (x - (x_min + x_max) / 2) / max(1.0, (x_max - x_min) / 4)
    return np.exp(-0.5 * (down[:, None] ** 2 + across**2))


def _box_scorer(
    detector: nn.Module, item: explaining.Finding
) -> Callable[[np.ndarray], np.ndarray]:
    device = next(detector.parameters()).device

    def score(images: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(images.astype(np.float32))[:, None].expand(-1, 3, -1, -1)
        return ablation_fast.score_box(detector, batch.to(device), item.box, item.label)

    return score
