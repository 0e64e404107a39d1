"""Linear evaluation and the leakage lab, on made-up features."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cxr_helpers import nih
from cxr_helpers.course import evaluation
from cxr_helpers.course.data import NihData
from cxr_helpers.course.settings import ProbePreset, load_settings
from cxr_helpers.splits import split_by_patient

SETTINGS = replace(
    load_settings({}), probe=ProbePreset(fractions=(0.2, 1.0), draws=2, resamples=50, neighbors=3)
)


@pytest.fixture(scope="module")
def data():
    """120 patients with 3 images; two labels that belong to the patient, one very rare."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(120), 3)
    sick = rng.random((120, 2)) < 0.4
    findings = ["|".join(np.array(nih.LABELS[:2])[s]) or "No Finding" for s in sick[patients]]
    findings[0] = "Hernia"
    ids = [f"{p:08d}_{i % 3:03d}.png" for i, p in enumerate(patients)]
    entries = pd.DataFrame({"image_id": ids, "patient_id": patients, "findings": findings})
    return NihData(entries, None, split_by_patient(patients, seed=0), "made up")


def person_features(data, informative):
    """Features that know the person, and the labels if `informative`."""
    rng = np.random.default_rng(1)
    person = rng.normal(size=(120, 16))[data.patients]
    noise = 0.2 * rng.normal(size=person.shape)
    return person + noise + informative * 3 * np.pad(data.labels[:, :2], ((0, 0), (0, 14)))


def test_rare_labels_are_not_scored(data):
    assert evaluation.label_names(evaluation.scorable_labels(data)) == list(nih.LABELS[:2])


def test_informative_features_win_and_the_difference_says_so(data):
    columns = evaluation.scorable_labels(data)
    scores = {
        arm: evaluation.probe_scores(SETTINGS, data, person_features(data, know), columns)
        for arm, know in {"pretrained": True, "random": False}.items()
    }
    assert [len(draws) for draws in scores["random"].values()] == [2, 1]
    curve = evaluation.label_curve(SETTINGS, data, scores, columns)
    assert len(curve) == 4 and (curve["low"] <= curve["value"]).all()
    gains = evaluation.differences(SETTINGS, data, scores["pretrained"], scores["random"], columns)
    assert (gains["low"] > 0).all()


def test_only_the_split_by_image_leaks(data):
    lab = evaluation.leakage_lab(SETTINGS, data, person_features(data, False), repeats=4)
    assert (lab["overlap_by_patient"] == 0).all() and (lab["overlap_by_image"] > 0.8).all()
    assert (lab["inflation"] > 0.2).all()
