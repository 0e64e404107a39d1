"""What notebook 02 asks: runs that fail on purpose, and what features know without labels."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytorch_lightning as pl
from torch import Tensor

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.course.core.compute import training_precision
from cxr_helpers.course.core.data import NihData
from cxr_helpers.course.core.epoch_log import EpochLog
from cxr_helpers.course.core.quiet import quiet_lightning
from cxr_helpers.course.core.settings import Settings
from cxr_helpers.course.core.threads import SpareCores
from cxr_helpers.evaluation import scoring
from cxr_helpers.evaluation.intervals import Interval
from cxr_helpers.pretraining import barlow, pairs, views

STEPS_A_ROW = 4  # the log of a lab has a row for so many steps, or for an epoch of small data


@dataclass(frozen=True)
class LabRun:
    """A short pretraining run.

    Attributes:
        log: a row for each few steps: epoch, step, loss, invariance, redundancy, diagonal_mean,
            offdiagonal_abs_mean.
        correlation: (D, D) of the outputs on validation patients at the end.
        figures: what `pretraining.watch` measures at the end.
    """

    log: pd.DataFrame
    correlation: Tensor
    figures: dict[str, float]


def short_run(
    settings: Settings,
    pixels: np.ndarray,
    *,
    steps: int,
    measure: Callable[[barlow.BarlowTwins], tuple[dict[str, float], Tensor]],
    criterion: Callable[[Tensor, Tensor], Tensor] | None = None,
    make_views: Callable | None = None,
) -> LabRun:
    """Pretrain for a few steps.

    Args:
        settings: preset and seed.
        pixels: (N, H, W) uint8 to pretrain on.
        steps: optimizer steps; at the scale `quick` no more than `STEPS_A_ROW`.
        measure: figures and correlation matrix of a module, as `pretraining.watch` makes it.
        criterion: instead of lightly's loss.
        make_views: instead of the preset's views.
    """
    preset, log = settings.pretrain, EpochLog()
    steps = min(steps, STEPS_A_ROW) if settings.scale == "quick" else steps
    fed = pairs.ViewPairs(
        pixels,
        range(len(pixels)),
        make_views or pretraining.two_views(preset),
        batch_size=preset.batch_size,
        seed=settings.seed,
    )
    module = pretraining.build_module(
        preset, seed=settings.seed, total_steps=steps, criterion=criterion
    )
    with quiet_lightning():
        trainer = pl.Trainer(
            max_steps=steps,
            limit_train_batches=min(STEPS_A_ROW, len(pixels) // preset.batch_size),
            precision=training_precision(),
            accelerator="auto",
            devices=1,
            logger=False,
            callbacks=[log, SpareCores()],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, fed)
    figures, correlation = measure(module)
    return LabRun(log.table(), correlation, figures)


def collapse_lab(
    settings: Settings, data: NihData, *, steps: int, batch_size: int = 4
) -> dict[str, LabRun]:
    """One healthy run and four that fail, each for a reason of its own.

    Args:
        settings: preset and seed.
        data: its training part is used, and its validation part to measure.
        steps: of each run.
        batch_size: of the run whose batch is too small.

    Returns:
        Runs by name: `healthy`, `no redundancy term`, `no invariance term`, `no augmentation`,
        and the one with the small batch.
    """
    weight = settings.pretrain.redundancy_weight
    small = replace(settings, pretrain=replace(settings.pretrain, batch_size=batch_size))

    def terms(z_a: Tensor, z_b: Tensor) -> tuple[Tensor, Tensor]:
        return barlow.loss_terms(barlow.cross_correlation(z_a, z_b))

    unchanged = views.TwoViews((views.NOTHING, views.NOTHING), settings.pretrain.image_size)

    recipes: dict[str, tuple[Settings, dict]] = {
        "healthy": (settings, {}),
        "no redundancy term": (settings, {"criterion": lambda a, b: terms(a, b)[0]}),
        "no invariance term": (settings, {"criterion": lambda a, b: weight * terms(a, b)[1]}),
        "no augmentation": (settings, {"make_views": unchanged}),
        f"batch of {batch_size}": (small, {}),
    }
    pixels = np.array(data.images.pixels[data.rows("train")])
    measure = pretraining.watch(settings, data)
    return {
        name: short_run(chosen, pixels, steps=steps, measure=measure, **options)
        for name, (chosen, options) in recipes.items()
    }


def label_free_targets(data: NihData) -> dict[str, np.ndarray]:
    """What each image shows besides findings: (N, 1) of 0 and 1 for AP view and for sex.

    Raises:
        ValueError: the table does not say one of them of every image.
    """
    for column in ("view", "sex"):
        if unknown := data.entries["image_id"][data.entries[column].isna()].tolist():
            raise ValueError(
                f"the table has no {column} for {len(unknown)} images, {unknown[0]} among them: "
                "fill the cells in, or leave these rows out"
            )
    return {
        "AP view": (data.entries["view"] == "AP").to_numpy(int)[:, None],
        "female": (data.entries["sex"] == "F").to_numpy(int)[:, None],
    }


def paired_gain(
    settings: Settings, data: NihData, labels: np.ndarray, votes: np.ndarray, minus: np.ndarray
) -> Interval:
    """Difference of the macro AUROC of two sets of votes, with its interval over test patients.

    Args:
        settings: resamples and seed.
        data: the split and the patients.
        labels: (N, K) of 0 and 1.
        votes: (test images, K) in [0, 1].
        minus: (test images, K) of the other network.
    """
    test = data.rows("test")
    values = scoring.resampled_scores(
        labels[test],
        [votes],
        data.patients[test],
        minus=[minus],
        resamples=settings.probe.resamples,
        seed=settings.seed,
    )
    return scoring.macro_interval(values, seed=settings.seed)


def same_patient_share(features: np.ndarray, patients: np.ndarray) -> tuple[float, float]:
    """How often the nearest image is of the same patient, and how often it would be by chance.

    Args:
        features: (N, D).
        patients: (N,) patient of each image.

    Returns:
        Both shares, over the images whose patient has another image.

    Raises:
        ValueError: images and patients differ in number, or no patient has two images.

    >>> x = np.array([[1.0, 0.1], [1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
    >>> same_patient_share(x, np.array(["a", "a", "b", "b"]))[0]
    1.0
    """
    features, patients = np.asarray(features), np.asarray(patients)
    if len(features) != len(patients):
        raise ValueError(f"{len(features)} images, but {len(patients)} patients")
    unit = _directions(features, features.mean(axis=0))
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    same = patients[:, None] == patients[None, :]
    others = same.sum(axis=1) - 1
    asked = others > 0
    if not asked.any():
        raise ValueError("no patient has two images, so none can be found again")
    found = same[np.arange(len(patients)), similarity.argmax(axis=1)]
    return float(found[asked].mean()), float((others[asked] / (len(patients) - 1)).mean())


def nearest(features: np.ndarray, query: int, pool: np.ndarray, *, count: int) -> np.ndarray:
    """Rows of the images nearest to a query by cosine similarity, the nearest first.

    Args:
        features: (N, D) of all images.
        query: row of the query; it is not among the answers.
        pool: rows to search.
        count: how many to find.
    """
    features, pool = np.asarray(features), np.asarray(pool)
    unit = _directions(features, features[pool].mean(axis=0))
    candidates = pool[pool != query]
    return candidates[np.argsort(-(unit[candidates] @ unit[query]))[:count]]


def _directions(features: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Features as unit vectors from a center; one that lies on it has no direction and stays 0."""
    moved = features - center
    length = np.linalg.norm(moved, axis=1, keepdims=True)
    return moved / np.where(length > 0, length, 1)
