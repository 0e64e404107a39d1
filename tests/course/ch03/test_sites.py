"""Another site, on made-up features."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from course_data import person_features

from cxr_helpers.course.ch03 import linear, sites
from cxr_helpers.course.core.data import BoxData
from cxr_helpers.data import nih, vindr
from cxr_helpers.data.packed import PackedImages
from cxr_helpers.evaluation.feature_cache import FrozenFeatures


def test_the_other_site_is_scored_with_probes_of_this_one(settings, data, monkeypatch):
    ids = [f"v{i}" for i in range(40)]
    sick = ids[::2]
    fused = pd.DataFrame({"image_id": sick, "label": "Atelectasis"})
    images = PackedImages(np.zeros((40, 4, 4), np.uint8), ids, np.full((40, 2), 4), {})
    other = BoxData(None, fused, images, np.array(["test"] * 40))
    there = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
    there[::2, 0] += 6  # column 0 is what tells Atelectasis at the first site
    monkeypatch.setattr(
        sites, "frozen_features", lambda settings, arm, images: FrozenFeatures(there, ids)
    )
    features = {"pretrained": person_features(data, informative=True)}
    features["random"] = person_features(data, informative=False)
    arms = {name: linear.Arm(None, False, "") for name in features}
    found = sites.site_change(settings, data, other, arms, features)
    assert found.labels == ["Atelectasis"] and "Cardiomegaly" in found.left_out
    at = found.scores.set_index(["arm", "site", "label"])["value"]
    assert at["pretrained", sites.OTHER_SITE, "macro"] > 0.8
    assert set(found.gains["arm"]) == {"pretrained"}  # the evening's weights are not here
    gain = found.gains.set_index("site").loc[sites.OTHER_SITE]
    expected = at["pretrained", sites.OTHER_SITE, "macro"]
    expected -= at["random", sites.OTHER_SITE, "macro"]
    assert gain["value"] == pytest.approx(expected)


def test_labels_of_both_sites_mean_the_same(data):
    assert set(sites.SHARED_LABELS) <= set(vindr.CLASSES)
    shared = sites.shared_labels(data)
    assert shared.shape == (360, 9)
    assert (shared[:, 0] == data.labels[:, nih.LABELS.index("Atelectasis")]).all()
    entries = data.entries.assign(findings="No Finding")
    entries.loc[0, "findings"], entries.loc[1, "findings"] = "Mass", "Nodule|Fibrosis"
    few = sites.shared_labels(replace(data, entries=entries))
    names = list(sites.SHARED_LABELS)
    assert few[:2, names.index("Nodule/Mass")].tolist() == [1, 1]
    assert few[1, names.index("Pulmonary fibrosis")] == 1 and few.sum() == 3


def test_a_box_makes_a_label():
    fused = pd.DataFrame({"image_id": ["a", "a"], "label": ["Cardiomegaly", "ILD"]})
    images = PackedImages(np.zeros((2, 4, 4), np.uint8), ["a", "b"], np.full((2, 2), 4), {})
    found = sites.vindr_labels(BoxData(None, fused, images, np.array(["test"] * 2)))
    assert found.sum() == 1
    assert found[0, list(sites.SHARED_LABELS).index("Cardiomegaly")] == 1


def test_the_change_of_site_in_words():
    lines = [
        (sites.HOME_SITE, "A", 0.6, 0.5, 0.7),
        (sites.OTHER_SITE, "A", 0.8, 0.75, 0.9),
        (sites.HOME_SITE, "B", 0.6, 0.55, 0.7),
        (sites.OTHER_SITE, "B", 0.5, 0.4, 0.6),
        (sites.HOME_SITE, "macro", 0.6, 0.5, 0.7),
        (sites.OTHER_SITE, "macro", 0.5, 0.4, 0.6),
    ]
    columns = ["site", "label", "value", "low", "high"]
    said = sites.shift_of(pd.DataFrame(lines, columns=columns)).splitlines()
    assert said == [
        "1 of 2 labels score higher at the other site.",
        "Intervals of the two sites apart: A.",
        "Not to be told from chance at the other site: B.",
    ]
    alike = pd.DataFrame([*lines[:1], (sites.OTHER_SITE, *lines[0][1:])], columns=columns)
    assert sites.shift_of(alike.assign(low=0.51)).splitlines()[1:] == [
        "Intervals of the two sites apart: none.",
        "Not to be told from chance at the other site: none.",
    ]
