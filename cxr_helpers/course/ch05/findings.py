"""What notebook 05 asks of its detectors: which boxes to explain, their maps, scores and checks.

All boxes are xyxy in pixels of the packed images. Maps have the size of the radiograph in them,
without the black that makes it square: nothing is to be seen there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pandas as pd
from torch import nn

from cxr_helpers.course.core.data import BoxData
from cxr_helpers.data.packed import PackedImages
from cxr_helpers.detection.boxes import box_iou
from cxr_helpers.detection.prediction import gray_to_tensor
from cxr_helpers.evaluation.intervals import Interval, bootstrap
from cxr_helpers.explanation import ablation_fast, heatmaps

POINTING, ENERGY = "pointing game", "energy in the box"
IOU, BEST_IOU = "IoU, validation's threshold", "IoU, own best threshold"
MEASURES = (POINTING, ENERGY, IOU, BEST_IOU)
ABLATION, PRIOR, BELL, BOX = "ablation", "class prior", "centered bell", "detected box"


@dataclass(frozen=True)
class Finding:
    """A detection to explain, and the readers' boxes of its class in that image.

    Attributes:
        row: of the image.
        label: class from 1.
        score: of the detection.
        box: (4,) as detected.
        readers: (n, 4) the readers' fused boxes of the class.
        name: of the class.
    """

    row: int
    label: int
    score: float
    box: np.ndarray
    readers: np.ndarray
    name: str

    @property
    def placed(self) -> bool:
        """Whether the detection overlaps a reader's box by half (IoU)."""
        return bool(box_iou([self.box], self.readers).max() >= 0.5)


def findings(
    data: BoxData,
    rows: np.ndarray,
    found: Sequence[Mapping[str, np.ndarray]],
    *,
    threshold: float,
    max_images: int,
) -> list[Finding]:
    """In each image the best detection of each class that the readers saw there, if any.

    Args:
        data: gives the truth.
        rows: images.
        found: detections in each of them.
        threshold: least score.
        max_images: the first so many rows are used.
    """
    chosen = []
    pairs = zip(rows, data.truths(rows), found, strict=True)
    for row, truth, one in list(pairs)[:max_images]:
        for label in np.unique(truth["labels"]):
            candidates = np.flatnonzero((one["labels"] == label) & (one["scores"] >= threshold))
            if len(candidates):
                best = candidates[one["scores"][candidates].argmax()]
                readers = truth["boxes"][truth["labels"] == label]
                score, box = float(one["scores"][best]), one["boxes"][best]
                name = data.class_names[label - 1]
                chosen.append(Finding(int(row), int(label), score, box, readers, name))
    return chosen


def shared_findings(
    first: Sequence[Finding], second: Sequence[Finding], *, placed: bool = True
) -> list[tuple[Finding, Finding]]:
    """The same class in the same image, explained by two detectors.

    Args:
        first: of one detector.
        second: of the other.
        placed: only where both overlap a reader's box by half.

    Returns:
        Pairs; the pair whose less sure detection is surest comes first.
    """
    theirs = {(f.row, f.label): f for f in second}
    pairs = [(f, theirs[f.row, f.label]) for f in first if (f.row, f.label) in theirs]
    if placed:
        pairs = [(a, b) for a, b in pairs if a.placed and b.placed]
    return sorted(pairs, key=lambda p: (-min(p[0].score, p[1].score), p[0].row, p[0].label))


def ablations(
    detector: nn.Module, data: BoxData, items: Sequence[Finding], *, layer: str
) -> Iterator[tuple[Finding, ablation_fast.BoxAblation]]:
    """The fast Ablation-CAM of each finding; the findings of one image share its computation.

    Yields:
        Finding and ablation, image by image.
    """
    device = next(detector.parameters()).device
    for row, group in groupby(sorted(items, key=lambda f: f.row), key=lambda f: f.row):
        here = list(group)
        image = gray_to_tensor(np.asarray(data.images.pixels[row])).to(device)
        made = ablation_fast.ablate_boxes(
            detector, image, [f.box for f in here], [f.label for f in here], layer=layer
        )
        yield from zip(here, made, strict=True)


def on_image(ablation: ablation_fast.BoxAblation, images: PackedImages, row: int) -> np.ndarray:
    """A map scaled to [0, 1] and to the radiograph in this row, (h, w) of its `filled_hw`.

    A cell is drawn over the pixels that the pyramid's nearest upsampling spreads it to, and not
    around the first of them, half a cell further up and left, where a strided convolution looks.
    """
    shape = tuple(images.filled_hw[row])
    covered = tuple(c * n / images.size for c, n in zip(ablation.covered, shape, strict=True))
    resized = heatmaps.resize_map(ablation.heatmap, shape, covered=covered)
    return heatmaps.normalize_map(resized)


def heatmap_of(detector: nn.Module, data: BoxData, item: Finding, *, layer: str) -> np.ndarray:
    """The fast Ablation-CAM of one finding, in [0, 1] and of the radiograph's size."""
    ((_, ablation),) = ablations(detector, data, [item], layer=layer)
    return on_image(ablation, data.images, item.row)


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
    """Scores of the detector's maps and of three that need no network, against readers' boxes.

    The baselines are a bell in the middle, how often the class's training boxes cover a pixel, and
    the detected box itself, filled. Each kind of map gets the threshold at which its mean IoU is
    highest on the validation findings.

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
    chosen, _ = _measure(detector, data, validation, priors, layer)
    scored, names = _measure(detector, data, test, priors, layer)
    tables = []
    for name, values in scored.items():
        best = int(np.argmax(chosen[name][:, 2:].mean(axis=0)))
        ious = values[:, 2:]
        measured = (values[:, 0], values[:, 1], ious[:, best], ious.max(axis=1))
        columns = dict(zip(MEASURES, measured, strict=True))
        tables.append(
            pd.DataFrame({**names, "map": name, **columns, "level": heatmaps.LEVELS[best]})
        )
    return pd.concat(tables, ignore_index=True)


def _measure(
    detector: nn.Module,
    data: BoxData,
    items: Sequence[Finding],
    priors: Mapping[int, np.ndarray],
    layer: str,
) -> tuple[dict[str, np.ndarray], dict[str, list]]:
    """For each kind of map (n, 2 + levels): pointing, energy, IoUs; and each row's image, class."""
    values: dict[str, list] = {}
    names: dict[str, list] = {"row": [], "label": [], "class": []}
    square = (data.images.size, data.images.size)
    for item, ablation in ablations(detector, data, items, layer=layer):
        shape = height, width = tuple(data.images.filled_hw[item.row])
        maps = {
            ABLATION: on_image(ablation, data.images, item.row),
            PRIOR: priors[item.label][:height, :width],
            BELL: heatmaps.centered_gaussian(shape),
            # A detected box may reach into what makes the image square.
            BOX: heatmaps.box_mask(item.box[None], square)[:height, :width].astype(float),
        }
        for column, value in zip(names, (item.row, item.label, item.name), strict=True):
            names[column].append(value)
        for name, one in maps.items():
            pointing = heatmaps.pointing_game(one, item.readers)
            energy = heatmaps.energy_in_box(one, item.readers)
            ious = heatmaps.iou_at_levels(one, item.readers)
            values.setdefault(name, []).append([pointing, energy, *ious])
    return {k: np.array(v) for k, v in values.items()}, names


def mean_over_findings(
    scores: pd.DataFrame, measure: str, *, resamples: int, seed: int
) -> Interval:
    """Mean over findings, with an interval over images.

    Args:
        scores: columns row (the image) and `measure`.
        measure: column to average.
        resamples: of images.
        seed: of the resamples.
    """
    by_image = scores.groupby("row")[measure].agg(["sum", "count"]).to_numpy(float)
    return bootstrap(
        lambda weights: (weights @ by_image[:, 0]) / np.maximum(weights @ by_image[:, 1], 1),
        len(by_image),
        resamples=resamples,
        seed=seed,
    )


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
    lines = {arm: table[table["map"] == ABLATION] for arm, table in scores.items()}
    baselines = scores[reference]
    lines |= {name: baselines[baselines["map"] == name] for name in (PRIOR, BELL, BOX)}
    options = {"resamples": resamples, "seed": seed}
    return pd.DataFrame(
        {"measure": m, "map": name, **mean_over_findings(table, m, **options).as_dict()}
        for m in MEASURES
        for name, table in lines.items()
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
    own = {arm: t[t["map"] == ABLATION] for arm, t in scores.items()}
    counts = pd.DataFrame({arm: t["class"].value_counts() for arm, t in own.items()}).fillna(0)
    enough = counts[counts.min(axis=1) >= at_least].sum(axis=1).sort_values(ascending=False)
    options = {"resamples": resamples, "seed": seed}
    rows = []
    for measure in measures:
        for name in enough.index:
            for arm, table in own.items():
                part = table[table["class"] == name]
                interval = mean_over_findings(part, measure, **options).as_dict()
                at = {"measure": measure, "class": name, "n": len(part), "arm": arm}
                rows.append({**at, **interval})
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
    own = [t[t["map"] == ABLATION].set_index(["row", "label"]) for t in (first, second)]
    both = own[0].index.intersection(own[1].index)
    change = own[1].loc[both, list(MEASURES)] - own[0].loc[both, list(MEASURES)]
    change = change.reset_index()
    options = {"resamples": resamples, "seed": seed}
    return pd.DataFrame(
        {"measure": m, "n": len(both), **mean_over_findings(change, m, **options).as_dict()}
        for m in MEASURES
    )


def pointing_by_layer(detector: nn.Module, data: BoxData, items: Sequence[Finding]) -> pd.Series:
    """Share of the findings whose map points into a reader's box, for each layer."""
    return pd.Series(
        {
            layer: np.mean(
                [
                    heatmaps.pointing_game(on_image(ablation, data.images, item.row), item.readers)
                    for item, ablation in ablations(detector, data, items, layer=layer)
                ]
            )
            for layer in ablation_fast.LAYERS
        }
    )
