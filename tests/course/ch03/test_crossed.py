"""Curves of few images, by cross-validation, on made-up features."""

import numpy as np
import pandas as pd
import pytest
from course_data import person_features

from cxr_helpers.course.ch03 import crossed
from cxr_helpers.data import splits
from cxr_helpers.evaluation import probe, scoring


def test_only_labels_with_enough_images_on_both_sides_are_targets(data):
    labels, names = crossed.targets(data.entries)
    assert names == [crossed.ABNORMAL, "Atelectasis", "Cardiomegaly"]  # one Hernia is too few
    assert (labels[:, 0] == data.labels.any(axis=1)).all()
    everyone = data.entries.assign(findings="Mass")
    with pytest.raises(ValueError, match="none of the 360 images' labels has 20"):
        crossed.targets(everyone)


def test_features_that_know_the_labels_win_and_no_patient_teaches_his_own_test(data, monkeypatch):
    labels = data.labels[:, :2]
    seen = []

    def fit(values, own_labels, val_values, val_labels):
        seen.append((values[:, -1], val_values[:, -1]))
        return original(values[:, :-1], own_labels, val_values[:, :-1], val_labels)

    original = probe.fit_probe
    monkeypatch.setattr(probe, "fit_probe", fit)
    monkeypatch.setattr(probe.LinearProbe, "scores", lambda own, x: x[:, :16] @ own.weights.T)
    options = {"fractions": (0.2, 1.0), "draws": 2, "seed": 0}
    macro = {}
    for knows in (True, False):
        features = person_features(data, informative=knows).values
        values = np.c_[features, data.patients].astype(np.float32)  # the last column names patients
        found = crossed.crossed_scores(values, labels, data.patients, **options)
        assert [len(draws) for draws in found.values()] == [2, 2]
        assert all(s.shape == labels.shape for draws in found.values() for s in draws)
        macro[knows] = np.mean(scoring.auroc(labels, found[1.0][0]))
    assert macro[True] > 0.85 > macro[False]
    assert len(seen) == 2 * 2 * 2 * crossed.FOLDS
    assert not any(set(train) & set(val) for train, val in seen)


def test_ranks_let_folds_be_compared_and_ties_share_one():
    ranks = crossed._ranks(np.array([[5.0, np.nan], [5.0, np.nan], [-1.0, np.nan], [9.0, np.nan]]))
    assert ranks[:, 0].tolist() == [0.625, 0.625, 0.25, 1.0] and np.isnan(ranks[:, 1]).all()


def test_a_label_that_a_fold_cannot_train_has_no_score_in_that_draw(data):
    labels = data.labels[:, :2].copy()
    labels[:, 1] = 0
    labels[data.patients == 0, 1] = 1  # a single patient with it, so two folds train without
    values = person_features(data, informative=True).values
    found = crossed.crossed_scores(values, labels, data.patients, fractions=(1.0,), draws=1, seed=0)
    assert np.isnan(found[1.0][0][:, 1]).all() and np.isfinite(found[1.0][0][:, 0]).all()


def test_impossible_requests_are_refused(data):
    values, labels = person_features(data, informative=True).values, data.labels[:, :2]
    with pytest.raises(splits.SplitError, match="must lie in"):
        crossed.crossed_scores(values, labels, data.patients, fractions=(0,), draws=1, seed=0)
    with pytest.raises(splits.SplitError, match="cannot fill 5 parts"):
        crossed.crossed_scores(
            values[:6], labels[:6], data.patients[:6], fractions=(1.0,), draws=1, seed=0
        )


def test_a_record_names_counts_and_labels_and_no_image():
    told = crossed.described(pd.Series([7, 7, 9]), ["any finding"])
    assert told == {"images": 3, "patients": 2, "labels": ["any finding"], "folds": 5}
