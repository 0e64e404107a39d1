"""Linear evaluation as notebook 03 runs it: arms, draws of labels, probes, curves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.course.core.compute import each_once
from cxr_helpers.course.core.data import NihData
from cxr_helpers.course.core.settings import Settings
from cxr_helpers.data import nih, splits
from cxr_helpers.data.packed import PackedImages
from cxr_helpers.evaluation import probe, scoring
from cxr_helpers.evaluation.checks import EvaluationError
from cxr_helpers.evaluation.feature_cache import FrozenFeatures, cached_features
from cxr_helpers.evaluation.features import extract_features
from cxr_helpers.pretraining import barlow, weights

MIN_POSITIVES = 5
MACRO = "macro"
PIXELS = "pixels"  # the arm without a network
OURS = ("pretrained", "evening")  # arms that learned from radiographs without labels
NAMES = pretraining.ARM_NAMES | {PIXELS: "16 x 16 pixels"}

_SIGNS = {"better": "above zero", "worse": "below zero", "open": "open"}

Scores = Mapping[float, list[np.ndarray]]  # label fraction to draws of (images, labels)
Drawn = Mapping[float, np.ndarray]  # label fraction to (draws, 1 + resamples, labels)


def scorable_labels(data: NihData, *, minimum: int = MIN_POSITIVES) -> list[int]:
    """Columns of the labels with at least `minimum` positives in training and in test."""
    enough = [data.labels[data.rows(part)].sum(axis=0) >= minimum for part in ("train", "test")]
    return np.flatnonzero(np.logical_and.reduce(enough)).tolist()


def label_names(columns: Sequence[int]) -> list[str]:
    """Names of label columns."""
    return [nih.LABELS[k] for k in columns]


class Thumbnail(nn.Module):
    """In place of a network: the image itself as a few gray values, row by row.

    Args:
        side: the image is averaged to side x side.

    >>> Thumbnail()(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 256])
    """

    def __init__(self, side: int = 16):
        super().__init__()
        self.shrink = nn.AdaptiveAvgPool2d(side)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) with C equal channels to (B, side * side)."""
        return self.shrink(images[:, :1]).flatten(1)


@dataclass(frozen=True)
class Arm:
    """One way to start: a frozen backbone, how its input is normalized, where it came from."""

    backbone: nn.Module
    imagenet_input: bool
    source: str

    @property
    def normalization(self) -> dict[str, Sequence[float]]:
        """Mean and standard deviation for `features.GrayInput`; the course's own need no word."""
        if not self.imagenet_input:
            return {}
        return {"mean": pretraining.IMAGENET_MEAN, "std": pretraining.IMAGENET_STD}


def load_arms(
    settings: Settings,
    data: NihData,
    *,
    seed: int | None = None,
    checkpoints: Mapping[str, Path] | None = None,
) -> tuple[dict[str, Arm], list[str]]:
    """The arms that can be had here: those of pretraining, and `pixels`, which has no network.

    Args:
        settings: give architecture, preset and folder.
        data: to pretrain on where that has not been done.
        seed: of random weights and of pretraining; the settings' by default.
        checkpoints: name to file of further backbones. Files that this course wrote take its
            normalization; any other takes ImageNet's.

    Returns:
        Arm by name, and a sentence for each arm that is left out.

    Raises:
        weights.WeightsError: a checkpoint cannot be read or does not fit the architecture.
        ValueError: a checkpoint has the name of one of the course's arms.
    """
    seed = settings.seed if seed is None else seed
    arms, left_out = {}, []
    for name in pretraining.ARMS:
        backbone, sentence = pretraining.arm_backbone(settings, name, seed=seed, data=data)
        if backbone is None:
            left_out.append(f"{name}: {sentence}")
        else:
            arms[name] = Arm(backbone, name == "imagenet", sentence)
    arms[PIXELS] = Arm(Thumbnail(), False, "16 x 16 gray values of each image, and no network.")
    for name, path in (checkpoints or {}).items():
        if name in (*pretraining.ARMS, PIXELS):
            raise ValueError(f"the checkpoint {path} needs another name than {name!r}")
        arms[name] = _checkpoint_arm(settings, Path(path))
    return arms, left_out


def _checkpoint_arm(settings: Settings, path: Path) -> Arm:
    state, made_with = weights.read_weights(path)
    backbone = barlow.build_backbone(settings.pretrain.arch, seed=settings.seed)
    weights.load_weights(backbone, state)
    norm = "this course's" if made_with else "ImageNet's"
    return Arm(backbone, not made_with, f"Checkpoint {path.name}, {norm} normalization.")


def frozen_features(settings: Settings, arm: Arm, images: PackedImages) -> FrozenFeatures:
    """Features of all images, from the cache in runs/<data>/features where they are there.

    Where several processes work together, each extracts its share.
    """
    norm = "imagenet" if arm.imagenet_input else "course"
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def extract(net: nn.Module, pixels: np.ndarray) -> np.ndarray:
        def share(rows: np.ndarray) -> np.ndarray:
            scaled = {"image_size": settings.pretrain.image_size, "device": device}
            return extract_features(net.to(device), pixels[rows], **scaled, **arm.normalization)

        return np.stack(each_once(np.arange(len(pixels)), share))

    return cached_features(
        arm.backbone,
        images.pixels,
        images.image_ids,
        extract=extract,
        recipe={"image_size": settings.pretrain.image_size, "normalization": norm},
        folder=settings.runs / "features",
    )


def each_draw(draws: Mapping[float, Sequence], work: Callable) -> dict[float, list]:
    """What `work` gives for each draw of each label fraction.

    >>> each_draw({0.1: [1, 2], 1.0: [3]}, lambda n: 10 * n)
    {0.1: [10, 20], 1.0: [30]}
    """
    return {fraction: [work(one) for one in drawn] for fraction, drawn in draws.items()}


@dataclass(frozen=True)
class LabelDraws:
    """Which training images have their labels used.

    Attributes:
        rows: for each fraction a list of draws, each an array of row numbers in the data. At
            fraction 1 there is one, since all would be the same.
        left_out: a sentence for each draw that no probe can be trained and chosen on.
    """

    rows: dict[float, list[np.ndarray]]
    left_out: list[str]

    def table(self, data: NihData, columns: Sequence[int]) -> pd.DataFrame:
        """Mean images, patients and labels with a positive for each fraction (the index)."""
        found = {
            f"{100 * fraction:g}%": {
                "draws": len(draws),
                "images": np.mean([len(rows) for rows in draws]),
                "patients": np.mean([len(set(data.patients[rows])) for rows in draws]),
                "labels with a positive": np.mean(
                    [data.labels[rows][:, columns].any(axis=0).sum() for rows in draws]
                ),
            }
            for fraction, draws in self.rows.items()
        }
        return pd.DataFrame.from_dict(found, orient="index").round(1)


def draw_labels(settings: Settings, data: NihData, columns: Sequence[int]) -> LabelDraws:
    """Draw nested shares of the training images, patient by patient.

    Args:
        settings: fractions, draws and seed.
        data: gives labels, patients and the split.
        columns: label columns that are probed.

    Raises:
        splits.SplitError: a fraction outside (0, 1].
        EvaluationError: no draw of any fraction can be used.
    """
    train, val = data.rows("train"), data.rows("val")
    rows: dict[float, list[np.ndarray]] = {f: [] for f in settings.probe.fractions}
    left_out = []
    for draw in range(settings.probe.draws):
        chosen = splits.nested_fractions(
            data.labels[train][:, columns],
            data.patients[train],
            fractions=settings.probe.fractions,
            seed=1000 * settings.seed + draw,  # seeds share no draw
        )
        for fraction, index in chosen.items():
            if fraction == 1 and draw:
                continue
            trained, chosen_on = (
                _both_kinds(data.labels[part][:, columns]) for part in (train[index], val)
            )
            if (trained & chosen_on).any():
                rows[fraction].append(train[index])
            else:
                left_out.append(
                    f"{100 * fraction:g}%, draw {draw}: no label has both values among these "
                    f"{len(index)} training images and in validation"
                )
    rows = {fraction: draws for fraction, draws in rows.items() if draws}
    if not rows:
        raise EvaluationError("no draw can be used: " + left_out[0] + "; use larger fractions")
    return LabelDraws(rows, left_out)


def _both_kinds(labels: np.ndarray) -> np.ndarray:
    """(K,) whether a label has both values among (N, K)."""
    return (labels.min(axis=0) == 0) & (labels.max(axis=0) == 1)


def fit_probes(
    data: NihData,
    features: FrozenFeatures,
    labels: np.ndarray,
    class_names: Sequence[str],
    draws: LabelDraws,
) -> dict[float, list[probe.LinearProbe]]:
    """A linear probe for each draw; its regularization is chosen on the validation part.

    Args:
        data: gives images and the split.
        features: of all images of `data`.
        labels: (N, K) of all images of `data`.
        class_names: of the K labels.
        draws: as `draw_labels` gives them.
    """
    values, val = features.of(data.entries["image_id"].tolist()), data.rows("val")
    chosen_on, options = (values[val], labels[val]), {"class_names": class_names}
    return each_draw(
        draws.rows, lambda rows: probe.fit_probe(values[rows], labels[rows], *chosen_on, **options)
    )


def probe_scores(
    probes: Mapping[float, list[probe.LinearProbe]],
    features: FrozenFeatures,
    image_ids: Sequence[str],
) -> dict[float, list[np.ndarray]]:
    """Log-odds of these images by each probe."""
    values = features.of(image_ids)
    return each_draw(probes, lambda one: one.scores(values))


def knn_scores(
    settings: Settings,
    data: NihData,
    features: FrozenFeatures,
    columns: Sequence[int],
    draws: LabelDraws,
) -> dict[float, list[np.ndarray]]:
    """Scores of the test images by the nearest of the drawn training images, for each draw.

    Labels without a positive in a draw get NaN, as in a linear probe.
    """
    values, test = features.of(data.entries["image_id"].tolist()), data.rows("test")
    labels, neighbors = data.labels[:, columns], settings.probe.neighbors

    def scored(rows: np.ndarray) -> np.ndarray:
        votes = probe.knn_scores(values[rows], labels[rows], values[test], neighbors=neighbors)
        return untrained_to_nan(votes, labels[rows])

    return each_draw(draws.rows, scored)


def untrained_to_nan(scores: np.ndarray, train_labels: np.ndarray) -> np.ndarray:
    """(..., K) scores, NaN where a label has only positives or negatives in training."""
    return np.where(_both_kinds(train_labels), scores, np.nan)


def noise_scores(scores: Scores, *, draws: int = 20, seed: int) -> dict[float, list]:
    """Random scores in place of an arm's, to see where chance lies: NaN where the arm has NaN.

    The chance level of average precision is the share of positives only where these are many, and
    labels that a small share cannot train are left out of the mean. So it is simulated.

    Args:
        scores: of the arm, for each fraction.
        draws: at least so many at each fraction, the arm's draws in turn.
        seed: of the noise.

    Raises:
        ValueError: a fraction has no draw.
    """
    if empty := [fraction for fraction, own in scores.items() if not len(own)]:
        raise ValueError(f"no draw at the fraction {empty[0]:g}: leave it out")
    rng = np.random.default_rng(seed)
    repeated = {fraction: own * -(-draws // len(own)) for fraction, own in scores.items()}
    return each_draw(repeated, lambda one: np.where(np.isnan(one), one, rng.random(one.shape)))


def resampled(
    settings: Settings,
    labels: np.ndarray,
    patients: Sequence,
    scores: Sequence[np.ndarray],
    **options,
) -> np.ndarray:
    """`scoring.resampled_scores` with the preset's resamples and the settings' seed."""
    options |= {"resamples": settings.probe.resamples, "seed": settings.seed}
    return scoring.resampled_scores(labels, scores, patients, **options)


def resampled_arms(
    settings: Settings,
    labels: np.ndarray,
    patients: Sequence,
    scores: Mapping[str, Scores],
    **options,
) -> dict[str, dict[float, np.ndarray]]:
    """Each arm's score of each label, at each share, on the same resamples of the patients.

    Args:
        settings: resamples and seed.
        labels: (M, K) of the scored images.
        patients: (M,) their patients.
        scores: for each arm and fraction the draws of (M, K) scores.
        **options: of `scoring.resampled_scores`, such as the metric.
    """
    return {
        arm: {
            fraction: resampled(settings, labels, patients, draws, **options)
            for fraction, draws in by_fraction.items()
        }
        for arm, by_fraction in scores.items()
    }


def curve_table(
    settings: Settings,
    drawn: Mapping[str, Drawn],
    class_names: Sequence[str],
    *,
    minus: Drawn | None = None,
) -> pd.DataFrame:
    """Each arm's score at each share of the labels, for the mean over labels and for each label.

    Args:
        settings: give the seed.
        drawn: as `resampled_arms` gives it.
        class_names: of the K labels.
        minus: one arm of `drawn`, to get paired differences from it: same draws, same resampled
            patients. Shares that it lacks are left out; where one arm has fewer draws, the first
            draws of the other are taken.

    Returns:
        Columns arm, fraction, label (`macro` for the mean), value, low, high: 95% intervals by
        bootstrap over patients and over draws. Labels that cannot be scored have no row.
    """
    rows = []
    for arm, by_fraction in drawn.items():
        for fraction, values in by_fraction.items():
            if minus is not None:
                if fraction not in minus:
                    continue
                both = min(len(values), len(minus[fraction]))
                values = values[:both] - minus[fraction][:both]
            each = scoring.class_intervals(values, seed=settings.seed)
            found = {MACRO: scoring.macro_interval(values, seed=settings.seed)}
            found |= dict(zip(class_names, each, strict=True))
            at = {"arm": arm, "fraction": fraction}
            rows += [at | {"label": k} | v.as_dict() for k, v in found.items() if v is not None]
    return pd.DataFrame(rows)


def curves(
    settings: Settings,
    labels: np.ndarray,
    patients: Sequence,
    scores: Mapping[str, Scores],
    class_names: Sequence[str],
    *,
    minus: Scores | None = None,
    metric: Callable = scoring.auroc,
) -> pd.DataFrame:
    """`curve_table` of scores, minus those of one more arm where these are given.

    Args:
        settings: resamples and seed.
        labels: (M, K) of the scored images.
        patients: (M,) their patients.
        scores: for each arm and fraction the draws of (M, K) scores.
        class_names: of the K labels.
        minus: scores of an arm on the same draws.
        metric: `scoring.auroc` or `scoring.average_precision`.
    """
    known = settings, labels, patients
    drawn = resampled_arms(*known, scores, metric=metric)
    other = None if minus is None else resampled_arms(*known, {"": minus}, metric=metric)[""]
    return curve_table(settings, drawn, class_names, minus=other)


def macro_of(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the mean over labels, without the column that says so."""
    return table[table["label"] == MACRO].drop(columns="label").reset_index(drop=True)


def worth(curve: pd.DataFrame, arm: str, *, baseline: str = "random") -> str:
    """What an arm reaches at each share, and from how few labels on it does what the baseline does.

    Args:
        curve: means over labels, columns arm, fraction, value.
        arm: that is told of.
        baseline: the arm that has all labels.

    >>> curve = pd.DataFrame({"fraction": [0.1, 1.0] * 2, "value": [0.62, 0.7, 0.55, 0.6]})
    >>> print(worth(curve.assign(arm=["evening", "evening", "random", "random"]), "evening"))
    pretrained for an evening: 0.620 at 10%, 0.700 at 100%; with 10% of the labels as good as random
    weights with 100%
    """
    own, other = (curve[curve["arm"] == a].sort_values("fraction") for a in (arm, baseline))
    told = ", ".join(f"{r.value:.3f} at {r.fraction:.0%}" for r in own.itertuples())
    most = other.iloc[-1]
    behind = own["fraction"][own["value"] < most["value"]].max()  # NaN where at no share
    enough = own["fraction"] if np.isnan(behind) else own["fraction"][own["fraction"] > behind]
    name = f"{NAMES.get(baseline, baseline)} with {most['fraction']:.0%}"
    if enough.empty:
        return f"{NAMES.get(arm, arm)}: {told}; at no share as good as {name}"
    return f"{NAMES.get(arm, arm)}: {told}; with {enough.min():.0%} of the labels as good as {name}"


def highest(curve: pd.DataFrame) -> str:
    """Which arm is highest at each share that all arms have, for a figure's title.

    Args:
        curve: means over labels, columns arm, fraction, value.

    >>> curve = pd.DataFrame({"fraction": [0.1, 1.0] * 2, "value": [0.6, 0.7, 0.5, 0.8]})
    >>> highest(curve.assign(arm=["pretrained", "pretrained", "from scratch", "from scratch"]))
    'Highest: pretrained here (10%), from scratch (100%)'
    """
    wide = curve.pivot(index="fraction", columns="arm", values="value").dropna()
    best: dict[str, list[str]] = {}
    for share, arm in wide.idxmax(axis=1).items():
        best.setdefault(NAMES.get(arm, arm), []).append(f"{share:.0%}")
    return "Highest: " + ", ".join(f"{arm} ({', '.join(at)})" for arm, at in best.items())


def answer(differences: pd.DataFrame, arm: str) -> str:
    """How good are an arm's features, and at how many labels? In one sentence.

    Args:
        differences: of means over labels, columns minus, arm, fraction, value, low, high.
        arm: that is told of.

    >>> table = pd.DataFrame({"fraction": [0.1, 1.0], "low": [0.05, -0.1], "high": 0.2})
    >>> table = table.assign(minus="minus random weights", arm="evening", value=0.1)
    >>> print(answer(table, "evening"))
    pretrained for an evening minus random weights: above zero at 10%, open at 100%
    """
    told = []
    for minus, rows in differences[differences["arm"] == arm].groupby("minus", sort=False):
        found: dict[str, list[str]] = {}
        for row in rows.sort_values("fraction").to_dict("records"):
            found.setdefault(_SIGNS[verdict(row)], []).append(f"{row['fraction']:.0%}")
        told.append(f"{minus}: " + ", ".join(f"{w} at {', '.join(at)}" for w, at in found.items()))
    return f"{NAMES.get(arm, arm)} " + "; ".join(told)


def pooled(
    probes: Sequence[probe.LinearProbe], values: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """All predictions of all draws and trained labels in one row, for calibration.

    Args:
        probes: one for each draw.
        values: (M, D) features.
        labels: (M, K) of 0 and 1.

    Returns:
        (P,) labels and (P,) log-odds.
    """
    truth, log_odds = [], []
    for scores in (one.scores(values) for one in probes):
        trained = np.isfinite(scores).all(axis=0)
        truth.append(labels[:, trained].ravel())
        log_odds.append(scores[:, trained].ravel())
    return np.concatenate(truth), np.concatenate(log_odds)


def verdict(estimate: Mapping[str, float]) -> str:
    """What an interval says about a difference, in one word.

    Raises:
        ValueError: an end is not a number: then the interval says nothing, and is not open.

    >>> verdict({"value": 0.02, "low": -0.01, "high": 0.05})
    'open'
    """
    if not estimate["low"] <= estimate["high"]:
        raise ValueError(f"an interval needs two ends, the lower first, not {dict(estimate)}")
    if estimate["low"] > 0:
        return "better"
    return "worse" if estimate["high"] < 0 else "open"


def told(estimates: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """The verdict on each difference, with its size, for a table.

    >>> told({"AUROC": {"value": 0.02, "low": 0.01, "high": 0.05}})
    {'AUROC': 'better (+0.020)'}
    """
    return {name: f"{verdict(one)} ({one['value']:+.3f})" for name, one in estimates.items()}
