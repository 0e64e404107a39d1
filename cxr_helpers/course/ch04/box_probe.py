"""The box probe as notebook 04 runs it: all arms judged at the same places of the same images.

The rule, fixed before any test score: strength and stage are chosen on the validation part, for
each network on its own. A network's reported score is that of the stage (`layer1` to `layer4`, or
`all` side by side) with its highest macro AUROC there. Classes are those with enough pairs in
training and validation.

A part of the training images is used (`SHARE`), which leaves a network its seconds. That is as many
as in the trial that the benchmark's aim was set by.

An interval comes from resampled test images. An image brings every place on it, those with their
finding and those that are the counterpart of a box elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.course.ch04 import experiment
from cxr_helpers.course.core.data import PARTS, BoxData, NihData
from cxr_helpers.course.core.settings import Settings
from cxr_helpers.detection import box_probe
from cxr_helpers.detection.box_probe import Places
from cxr_helpers.evaluation import scoring
from cxr_helpers.evaluation.intervals import Interval, bias_corrected, resampled

PIXELS, GEOMETRY = "pixels alone", "size and place alone"
MACRO, CHOSEN = "macro", "chosen"
SHARE = 0.3  # of the abnormal training images


@dataclass(frozen=True)
class ProbePlaces:
    """Where all arms are judged.

    Attributes:
        parts: `train`, `val` and `test` to places; images are numbered by their row in the data.
        test_rows: (N,) abnormal test images, which are resampled.
        labels: classes that are probed, from 1.
        class_names: their names.
        truth: what says where the findings are, for a sentence.
    """

    parts: Mapping[str, Places]
    test_rows: np.ndarray
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    truth: str

    def counts(self) -> pd.DataFrame:
        """Pairs of each probed class (the index) in each part."""
        columns = {part: places.counts() for part, places in self.parts.items()}
        table = pd.DataFrame(columns).reindex(self.labels).fillna(0).astype(int)
        return table.set_axis(list(self.class_names), axis=0)

    def of_class(self, name: str) -> dict[str, Places]:
        """The places of one class in each part.

        Raises:
            ValueError: it is none of the probed classes.
        """
        if name not in self.class_names:
            raise ValueError(f"class {name!r} is not probed; there are {self.class_names}")
        label, found = self.labels[self.class_names.index(name)], {}
        for part, places in self.parts.items():
            own = places.labels == label
            arrays = (places.images, places.boxes_xyxy, places.labels, places.present)
            found[part] = Places(*(array[own] for array in arrays))
        return found


@dataclass(frozen=True)
class Judged:
    """One arm at one stage.

    Attributes:
        arm: which.
        stage: which.
        validation: macro AUROC on validation, which chooses the stage.
        strength: the regularization that validation chose, scikit-learn's C.
        values: (K,) AUROC of each class on the test images.
        drawn: (R, K) the same on R resamples of these, the same for all arms and stages.
    """

    arm: str
    stage: str
    validation: float
    strength: float
    values: np.ndarray
    drawn: np.ndarray

    @property
    def macro(self) -> float:
        """Mean over the classes."""
        return float(np.nanmean(self.values))

    @property
    def macro_drawn(self) -> np.ndarray:
        """(R,) mean over the classes in each resample."""
        return scoring.nan_mean(self.drawn, axis=1)


def draw_places(settings: Settings, data: BoxData, *, fraction: float = SHARE) -> ProbePlaces:
    """Draw the places in the abnormal images of each part; the same for every seed of a network.

    Exact boxes are taken where the data know them, else the readers' boxes, fused.

    Args:
        settings: the seed of the split draws the places too.
        data: gives images, boxes and split.
        fraction: share of the abnormal training images.

    Raises:
        ValueError: a part has no pairs, or no class has enough of them.
    """
    parts = {}
    for number, part in enumerate(PARTS):
        rows = data.rows(part, abnormal_only=True)
        if part == "train":
            seed = settings.split_seed
            rows = experiment.training_rows(settings, data, fraction=fraction, seed=seed)
        drawn = box_probe.draw_places(
            data.truths(rows, data.exact),
            data.images.filled_hw[rows],
            seed=1000 * settings.split_seed + number,
        )
        parts[part] = replace(drawn, images=rows[drawn.images])
    labels = box_probe.probed_labels(parts["train"], parts["val"])
    return ProbePlaces(
        parts,
        data.rows("test", abnormal_only=True),
        labels,
        tuple(data.class_names[k - 1] for k in labels),
        "the readers' boxes, fused" if data.exact is None else "the exact boxes",
    )


def judge(
    settings: Settings,
    places: ProbePlaces,
    features: Mapping[str, np.ndarray],
    *,
    arm: str,
    stage: str,
) -> Judged:
    """Fit a probe on features of the three parts, and score it on the test images.

    Args:
        settings: resamples and their seed.
        places: where.
        features: `train`, `val` and `test` to the features of their places.
        arm: a name for them.
        stage: a name for where they are from.
    """
    parts, labels = places.parts, places.labels
    fitted = box_probe.fit_box_probe(
        features["train"], parts["train"], features["val"], parts["val"], labels=labels
    )
    scores = fitted.scores(features["test"], parts["test"])
    values, drawn = _test_auroc(settings, places, scores)
    return Judged(arm, stage, float(fitted.validation.mean()), fitted.strength, values, drawn)


def _test_auroc(
    settings: Settings, places: ProbePlaces, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(K,) AUROC of each class, and (R, K) on resampled test images."""
    test = places.parts["test"]
    at = np.searchsorted(places.test_rows, test.images)  # (2n,) the place's image among those

    def statistic(counts: np.ndarray) -> np.ndarray:
        found = np.full((len(counts), len(places.labels)), np.nan)
        for k, label in enumerate(places.labels):
            asked = test.labels == label
            if asked.any():
                weights = counts[:, at[asked]]
                found[:, k] = scoring.auroc(test.present[asked], scores[asked], weights)[:, 0]
        return found

    n, options = len(places.test_rows), {"resamples": settings.detect.resamples}
    drawn = resampled(statistic, n, seed=settings.seed, **options)
    return statistic(np.ones((1, n)))[0], drawn


def judge_network(
    settings: Settings,
    data: BoxData,
    places: ProbePlaces,
    arm: str,
    *,
    seed: int | None = None,
    nih: NihData | None = None,
) -> tuple[list[Judged], str]:
    """A frozen network at each stage, its input normalized as it was trained.

    Args:
        settings: give weights, resamples and their seed.
        data: give the images, at the size that the detector sees.
        places: where.
        arm: one of `pretraining.ARMS`.
        seed: of random weights and of pretraining; the settings' by default.
        nih: to pretrain on where that has not been done.

    Returns:
        One for each stage, and a sentence on the weights; none where these are not to be had.
    """
    seed = settings.seed if seed is None else seed
    backbone, sentence = pretraining.arm_backbone(settings, arm, seed=seed, data=nih)
    if backbone is None:
        return [], sentence
    norm = {}
    if arm == "imagenet":
        norm = {"mean": pretraining.IMAGENET_MEAN, "std": pretraining.IMAGENET_STD}
    backbone = backbone.to("cuda" if torch.cuda.is_available() else "cpu")
    found = {
        part: box_probe.stage_features(backbone, data.images.pixels, one, **norm)
        for part, one in places.parts.items()
    }
    judged = [
        judge(settings, places, {p: found[p][stage] for p in found}, arm=arm, stage=stage)
        for stage in found["train"]
    ]
    return judged, sentence


def judge_baselines(settings: Settings, data: BoxData, places: ProbePlaces) -> list[Judged]:
    """What needs no network: the pixels of each place, and its size and place."""
    pixels, hw = data.images.pixels, data.images.filled_hw
    features = {
        PIXELS: {p: box_probe.pixel_features(pixels, one) for p, one in places.parts.items()},
        GEOMETRY: {p: box_probe.geometry_features(one, hw) for p, one in places.parts.items()},
    }
    return [judge(settings, places, one, arm=arm, stage="") for arm, one in features.items()]


def measure(
    settings: Settings,
    data: BoxData,
    places: ProbePlaces,
    *,
    arms: Sequence[str] = pretraining.ARMS,
    seed: int | None = None,
    nih: NihData | None = None,
) -> tuple[list[Judged], list[str]]:
    """All arms that can be had, and what needs no network; arguments as in `judge_network`.

    Returns:
        One for each arm and stage, and a sentence for each arm that is left out.
    """
    judged, left_out = judge_baselines(settings, data, places), []
    for arm in arms:
        found, sentence = judge_network(settings, data, places, arm, seed=seed, nih=nih)
        judged += found
        if not found:
            left_out.append(f"{arm}: {sentence}")
    return judged, left_out


def chosen(judged: Sequence[Judged]) -> dict[str, Judged]:
    """Each arm at the stage that is best on validation, the first of equals.

    >>> early = Judged("random", "layer1", 0.7, 1.0, np.zeros(1), np.zeros((1, 1)))
    >>> late = Judged("random", "layer4", 0.6, 1.0, np.ones(1), np.ones((1, 1)))
    >>> chosen([early, late])["random"].stage
    'layer1'
    """
    found: dict[str, Judged] = {}
    for one in judged:
        if one.arm not in found or one.validation > found[one.arm].validation:
            found[one.arm] = one
    return found


def table(judged: Sequence[Judged], places: ProbePlaces) -> pd.DataFrame:
    """AUROC of each arm, stage and class, and of the mean over classes (`macro`).

    Returns:
        Columns arm, stage, class, value, low, high, and whether the stage is the arm's `chosen`.
    """
    best, lines = chosen(judged), []
    for one in judged:
        what = {"arm": one.arm, "stage": one.stage, CHOSEN: one is best[one.arm]}
        scored = [(MACRO, one.macro, one.macro_drawn)]
        scored += zip(places.class_names, one.values, one.drawn.T, strict=True)
        for name, value, drawn in scored:
            if np.isfinite(value):
                interval = bias_corrected(value, drawn)
                lines.append(what | {"class": name} | interval.as_dict())
    return pd.DataFrame(lines)[["arm", "stage", "class", "value", "low", "high", CHOSEN]]


def difference(one: Judged, other: Judged) -> Interval:
    """Macro AUROC, `one` minus `other`, on the same resampled test images."""
    return bias_corrected(one.macro - other.macro, one.macro_drawn - other.macro_drawn)


def differences(judged: Sequence[Judged], *, minus: str = "random") -> pd.DataFrame:
    """Macro AUROC of each arm minus that of another, paired.

    Args:
        judged: as `measure` gives them.
        minus: the other arm. A network is compared at each stage with the same stage of the other,
            where it has it; and as `chosen`, each at its own best on validation.

    Returns:
        Columns arm, minus, stage, value, low, high.

    Raises:
        ValueError: the other arm was not judged.
    """
    best = chosen(judged)
    if minus not in best:
        raise ValueError(f"arm {minus!r} was not judged; there are {', '.join(best)}")
    other = {one.stage: one for one in judged if one.arm == minus and one.stage}
    pairs = [(CHOSEN, one, best[minus]) for one in best.values()]
    pairs += [(one.stage, one, other[one.stage]) for one in judged if one.stage in other]
    lines = [
        {"arm": one.arm, "minus": minus, "stage": stage} | difference(one, base).as_dict()
        for stage, one, base in pairs
        if one.arm != minus
    ]
    return pd.DataFrame(lines, columns=["arm", "minus", "stage", "value", "low", "high"])
