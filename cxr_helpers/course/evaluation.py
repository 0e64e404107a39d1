"""Linear evaluation and the leakage lab as notebook 03 runs them."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cxr_helpers import nih, probe, splits
from cxr_helpers.course.data import NihData
from cxr_helpers.course.settings import Settings

MIN_POSITIVES = 5


def scorable_labels(data: NihData, *, minimum: int = MIN_POSITIVES) -> list[int]:
    """Columns of the labels with at least `minimum` positives in training and in test."""
    enough = [data.labels[data.rows(part)].sum(axis=0) >= minimum for part in ("train", "test")]
    return np.flatnonzero(np.logical_and.reduce(enough)).tolist()


def label_names(columns: Sequence[int]) -> list[str]:
    """Names of label columns."""
    return [nih.LABELS[k] for k in columns]


def probe_scores(
    settings: Settings, data: NihData, features: np.ndarray, columns: Sequence[int]
) -> dict[float, list[np.ndarray]]:
    """Test scores of linear probes for each label fraction, a list of draws each.

    Args:
        settings: fractions, draws and seed.
        data: gives labels, patients and the split.
        features: (N, D) of all images, in the order of `data`.
        columns: label columns to probe.

    Returns:
        For each fraction, for each draw of the training images, (test images, columns) scores.
        At fraction 1 there is one draw, since all would be the same.
    """
    labels = data.labels[:, columns]
    train, val, test = (data.rows(part) for part in ("train", "val", "test"))
    scores: dict[float, list[np.ndarray]] = {f: [] for f in settings.probe.fractions}
    for draw in range(settings.probe.draws):
        chosen = splits.nested_fractions(
            labels[train],
            data.patients[train],
            fractions=settings.probe.fractions,
            seed=settings.seed + draw,
        )
        for fraction, index in chosen.items():
            if fraction == 1 and draw:
                continue
            rows = train[index]
            fitted = probe.fit_probe(features[rows], labels[rows], features[val], labels[val])
            scores[fraction].append(fitted.scores(features[test]))
    return scores


def label_curve(
    settings: Settings,
    data: NihData,
    scores: Mapping[str, Mapping[float, list[np.ndarray]]],
    columns: Sequence[int],
) -> pd.DataFrame:
    """Macro AUROC on the test part for each arm and fraction.

    Returns:
        Columns arm, fraction, value, low, high; intervals by bootstrap over test patients.
    """
    rows = [
        {"arm": arm, "fraction": fraction, **_interval(settings, data, columns, draws).as_dict()}
        for arm, by_fraction in scores.items()
        for fraction, draws in by_fraction.items()
    ]
    return pd.DataFrame(rows)


def differences(
    settings: Settings,
    data: NihData,
    scores: Mapping[float, list[np.ndarray]],
    baseline: Mapping[float, list[np.ndarray]],
    columns: Sequence[int],
) -> pd.DataFrame:
    """Paired difference of two arms at each fraction: same draws, same resampled patients.

    Returns:
        Columns fraction, value, low, high.
    """
    rows = [
        {
            "fraction": fraction,
            **_interval(settings, data, columns, draws, minus=baseline[fraction]).as_dict(),
        }
        for fraction, draws in scores.items()
    ]
    return pd.DataFrame(rows)


def _interval(settings, data, columns, draws, minus=None) -> probe.Estimate:
    test = data.rows("test")
    return probe.macro_auroc_interval(
        data.labels[test][:, columns],
        draws,
        data.patients[test],
        minus=minus,
        resamples=settings.probe.resamples,
        seed=settings.seed,
    )


def leakage_trial(
    settings: Settings, data: NihData, features: np.ndarray, *, by_patient: bool, seed: int
) -> tuple[float, float]:
    """One random split of all images, by patient or by image, and the AUROC it reports.

    Args:
        settings: the number of neighbors of the probe.
        data: labels and patients.
        features: (N, D) of all images.
        by_patient: keep each patient's images together (right), or not (the leak).
        seed: of the split.

    Returns:
        Share of the test images whose patient is in training, and the macro AUROC of a k-NN
        probe on the test images, over the labels with enough positives.
    """
    shares = {"train": 0.8, "test": 0.2}
    if by_patient:
        parts = splits.split_by_patient(data.patients, parts=shares, seed=seed)
    else:
        parts = splits.split_by_image(data.patients, parts=shares, seed=seed, leak=True)
    train, test = np.flatnonzero(parts == "train"), np.flatnonzero(parts == "test")
    columns = scorable_labels(data)
    labels = data.labels[:, columns]
    scores = probe.knn_scores(
        features[train], labels[train], features[test], neighbors=settings.probe.neighbors
    )
    value = probe.macro_auroc(labels[test], scores, label_names(columns)).value
    return splits.patient_overlap(data.patients[train], data.patients[test]), value


def leakage_lab(
    settings: Settings, data: NihData, features: np.ndarray, *, repeats: int = 20
) -> pd.DataFrame:
    """Repeat both kinds of split.

    Returns:
        A row a repeat: overlap_by_patient, auroc_by_patient, overlap_by_image, auroc_by_image and
        the inflation, which is the difference of the two AUROCs.
    """
    rows = []
    for repeat in range(repeats):
        seed = settings.seed + repeat
        right = leakage_trial(settings, data, features, by_patient=True, seed=seed)
        leaky = leakage_trial(settings, data, features, by_patient=False, seed=seed)
        rows.append([*right, *leaky, leaky[1] - right[1]])
    columns = ["overlap_by_patient", "auroc_by_patient", "overlap_by_image", "auroc_by_image"]
    return pd.DataFrame(rows, columns=[*columns, "inflation"])
