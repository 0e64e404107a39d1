"""What remains of a probe at another site: trained on NIH's labels, scored on VinDr-CXR's."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxr_helpers.course.ch03.linear import (
    MACRO,
    MIN_POSITIVES,
    OURS,
    Arm,
    LabelDraws,
    Scores,
    curves,
    fit_probes,
    frozen_features,
    macro_of,
    probe_scores,
)
from cxr_helpers.course.core.data import BoxData, NihData
from cxr_helpers.course.core.settings import Settings
from cxr_helpers.data import nih
from cxr_helpers.evaluation.feature_cache import FrozenFeatures

HOME_SITE, OTHER_SITE = "NIH, other patients", "VinDr, another site"

# What NIH's and VinDr-CXR's labels share; two NIH labels count as one where VinDr joins them.
SHARED_LABELS = {
    "Atelectasis": ("Atelectasis",),
    "Cardiomegaly": ("Cardiomegaly",),
    "Consolidation": ("Consolidation",),
    "Infiltration": ("Infiltration",),
    "Nodule/Mass": ("Nodule", "Mass"),
    "Pleural effusion": ("Effusion",),
    "Pleural thickening": ("Pleural_Thickening",),
    "Pneumothorax": ("Pneumothorax",),
    "Pulmonary fibrosis": ("Fibrosis",),
}


def shared_labels(data: NihData) -> np.ndarray:
    """(N, 9) of 0 and 1: NIH's labels as far as VinDr-CXR has them, columns as SHARED_LABELS."""
    columns = [[nih.LABELS.index(name) for name in names] for names in SHARED_LABELS.values()]
    return np.stack([data.labels[:, own].max(axis=1) for own in columns], axis=1)


def vindr_labels(data: BoxData) -> np.ndarray:
    """(N, 9) of 0 and 1: whether a reader drew a box of the class, columns as SHARED_LABELS."""
    drawn = set(zip(data.fused["image_id"], data.fused["label"], strict=True))
    return np.array(
        [
            [(image_id, name) in drawn for name in SHARED_LABELS]
            for image_id in data.images.image_ids
        ],
        dtype=np.uint8,
    )


@dataclass(frozen=True)
class SiteChange:
    """Probes trained at one site, scored there and at another.

    Attributes:
        scores: columns arm, site, label (`macro` for the mean), value, low, high.
        gains: each pretrained arm minus random, columns arm, site, value, low, high.
        labels: names that both sites share and that can be scored at both.
        left_out: shared names with too few positives at one of them.
    """

    scores: pd.DataFrame
    gains: pd.DataFrame
    labels: list[str]
    left_out: list[str]


def site_change(
    settings: Settings,
    data: NihData,
    other: BoxData,
    arms: Mapping[str, Arm],
    features: Mapping[str, FrozenFeatures],
) -> SiteChange:
    """Train probes on all NIH labels and score them on NIH's test part and on all of VinDr-CXR.

    Nothing is trained or chosen at the other site, whose files name no patient: there each image
    counts as a patient.
    """
    here, there = shared_labels(data), vindr_labels(other)
    train, test = data.rows("train"), data.rows("test")
    fewest = np.min([part.sum(axis=0) for part in (here[train], here[test], there)], axis=0)
    keep = fewest >= MIN_POSITIVES
    names = [name for name, ok in zip(SHARED_LABELS, keep, strict=True) if ok]
    draws = LabelDraws({1.0: [train]}, [])
    test_ids = data.entries["image_id"].iloc[test].tolist()
    truth = {
        HOME_SITE: (here[test][:, keep], data.patients[test]),
        OTHER_SITE: (there[:, keep], np.array(other.images.image_ids)),
    }
    said: dict[str, dict[str, Scores]] = {site: {} for site in truth}
    for name, arm in arms.items():
        probes = fit_probes(data, features[name], here[:, keep], names, draws)
        said[HOME_SITE][name] = probe_scores(probes, features[name], test_ids)
        elsewhere = frozen_features(settings, arm, other.images)
        said[OTHER_SITE][name] = probe_scores(probes, elsewhere, other.images.image_ids)
    scores, gains = [], []
    for site, (labels, patients) in truth.items():
        table = curves(settings, labels, patients, said[site], names)
        scores.append(table.assign(site=site).drop(columns="fraction"))
        ours = {name: said[site][name] for name in OURS if name in arms}
        minus = said[site]["random"]
        gain = curves(settings, labels, patients, ours, names, minus=minus)
        gains.append(macro_of(gain).assign(site=site).drop(columns="fraction"))
    return SiteChange(
        pd.concat(scores, ignore_index=True),
        pd.concat(gains, ignore_index=True),
        names,
        [name for name in SHARED_LABELS if name not in names],
    )


def shift_of(scores: pd.DataFrame) -> str:
    """What the scores of one arm say of the change of site, in words.

    Args:
        scores: columns site, label, value, low, high, as in `SiteChange.scores`.

    Returns:
        How many labels score higher at the other site, which of their intervals lie apart, and
        which cannot be told from chance there.
    """
    labels = scores[scores["label"] != MACRO]
    here, there = (
        labels[labels["site"] == site].set_index("label") for site in (HOME_SITE, OTHER_SITE)
    )
    there = there.loc[here.index]
    apart = here.index[(there["low"] > here["high"]) | (there["high"] < here["low"])]
    guessed = here.index[(there["low"] <= 0.5) & (there["high"] >= 0.5)]
    return (
        f"{(there['value'] > here['value']).sum()} of {len(here)} labels score higher at the other "
        f"site.\nIntervals of the two sites apart: {', '.join(apart) or 'none'}.\n"
        f"Not to be told from chance at the other site: {', '.join(guessed) or 'none'}."
    )
