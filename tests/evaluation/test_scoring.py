"""Scores by hand, against scikit-learn, and on resampled patients."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from cxr_helpers.evaluation import scoring
from cxr_helpers.evaluation.checks import EvaluationError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 3))
Y = (X + RNG.normal(size=(300, 3)) > [0.0, 1.0, 1.5]).astype(int)
TIED = np.round(X, 1)
PATIENTS = np.repeat(np.arange(100), 3)
both_metrics = pytest.mark.parametrize("metric", [scoring.auroc, scoring.average_precision])


@pytest.mark.parametrize(
    ("metric", "reference", "by_hand"),
    [
        (scoring.auroc, roc_auc_score, 3 / 4),
        (scoring.average_precision, average_precision_score, (1 / 1 + 2 / 3) / 2),
    ],
)
def test_a_score_by_hand_and_against_scikit_learn_with_ties(metric, reference, by_hand):
    ranked = np.array([[1], [0], [1], [0]]), np.array([[0.9], [0.8], [0.7], [0.1]])
    assert metric(*ranked)[0] == pytest.approx(by_hand)
    assert np.allclose(metric(Y, TIED), [reference(Y[:, k], TIED[:, k]) for k in range(3)])
    assert np.allclose(metric(Y, X), metric(Y, np.exp(3 * X)))  # the order alone counts


@both_metrics
def test_a_weighted_score_is_that_of_the_repeated_images(metric, monkeypatch):
    monkeypatch.setattr(scoring, "BLOCK", 600)  # two resamples at once, so blocks must fit together
    weights = RNG.integers(0, 4, size=(5, 300)).astype(float)
    for row, weight in zip(metric(Y, TIED, weights), weights.astype(int), strict=True):
        again = np.repeat(np.arange(300), weight)
        assert np.allclose(row, metric(Y[again], TIED[again]))


@both_metrics
def test_a_class_of_one_kind_or_without_scores_is_nan_also_in_a_resample(metric):
    labels = np.array([[0, 1, 1], [0, 1, 0]])
    scores = np.array([[0.1, 0.1, np.nan], [0.2, 0.2, np.nan]])
    assert np.isnan(metric(labels, scores)).all()
    assert np.isnan(metric([1, 0], [0.1, 0.2], [[2.0, 0.0]])).all()
    assert np.isnan(metric([], [])).tolist() == [True]
    assert np.isnan(metric(np.zeros((0, 3)), np.zeros((0, 3)))).tolist() == [True] * 3


@both_metrics
def test_one_class_may_come_as_a_plain_row_and_tables_of_any_kind(metric):
    assert np.array_equal(metric(Y[:, 0], X[:, 0]), metric(Y, X)[:1])
    for labels, scores in ((pd.DataFrame(Y), torch.from_numpy(X)), (Y.tolist(), X.tolist())):
        assert np.array_equal(metric(labels, scores), metric(Y, X))


SOME = X.copy()
SOME[:, 2], SOME[[4, 7], 0] = np.nan, np.inf


@pytest.mark.parametrize(
    ("labels", "scores", "weights", "words"),
    [
        (Y, X[:, :2], None, "do not fit"),
        (Y, X[:-1], None, "do not fit"),
        (Y, X, np.ones(300), "do not fit"),
        (Y, X, -np.ones((1, 300)), "a weight is negative"),
        (Y, X, np.full((1, 300), np.nan), "finite"),
        (Y - 1, X, None, "must be 0 or 1"),
        (Y, Y.astype(str), None, "the scores are <U21, no numbers"),
        (Y, SOME, None, r"scores of 2 images are not finite, in rows \[4, 7\].*untrained"),
        (pd.DataFrame(Y), pd.DataFrame(X).iloc[::-1], None, "index of labels and scores differ"),
    ],
)
def test_what_cannot_be_scored_is_refused(labels, scores, weights, words):
    for metric in (scoring.auroc, scoring.average_precision):
        with pytest.raises(EvaluationError, match=words):
            metric(labels, scores, weights)


def test_classes_that_cannot_be_scored_are_named_with_their_reason():
    labels, scores = Y.copy(), X.copy()
    labels[:, 1], scores[:, 2] = 0, np.nan
    macro = scoring.macro_auroc(labels, scores, ["a", "Hernia", "c"])
    assert macro.left_out == {
        "Hernia": "no positive among 300 scored images",
        "c": "it has no scores: its probe was not trained",
    }
    assert macro.value == pytest.approx(roc_auc_score(labels[:, 0], scores[:, 0]))
    assert scoring.macro_auroc(Y[:, 0], X[:, 0], "Mass").value == scoring.auroc(Y, X)[0]
    with pytest.raises(EvaluationError, match="Hernia: no positive among 300 scored images"):
        scoring.macro_auroc(labels[:, 1:], scores[:, 1:], ["Hernia", "c"])
    with pytest.raises(EvaluationError, match="Mass: no positive among 0 scored"):
        scoring.macro_auroc([], [], ["Mass"])
    with pytest.raises(EvaluationError, match="2 class names for 3 columns"):
        scoring.macro_auroc(Y, X, ["a", "b"])


def macro_resamples(labels, scores, patients, **options):
    """(1 + R,) mean over classes and draws."""
    options = {"resamples": 300, "seed": 0} | options
    values = scoring.resampled_scores(labels, scores, patients, **options)
    return scoring.over_draws(scoring.nan_mean(values, axis=2), seed=0)


@pytest.mark.parametrize("of", [list, torch.tensor, pd.Series, lambda ids: ids.astype(str)])
def test_resamples_draw_patients_not_images(of):
    weights = scoring.patient_weights(of(PATIENTS), resamples=50, seed=0)
    assert (weights[:, 0::3] == weights[:, 1::3]).all() and (weights.sum(axis=1) == 300).all()
    copies = np.repeat(Y[::3], 3, axis=0), np.repeat(X[::3], 3, axis=0)
    clustered = macro_resamples(copies[0], [copies[1]], PATIENTS)
    assert np.allclose(clustered, macro_resamples(Y[::3], [X[::3]], np.arange(100)))


def test_a_difference_of_an_arm_with_itself_is_zero():
    assert (macro_resamples(Y, [X], PATIENTS, minus=[X]) == 0).all()
    gain = macro_resamples(Y, [X], PATIENTS, minus=[RNG.normal(size=(300, 3))])
    assert gain[0] > 0.2 and (gain > 0).all()


def test_resamples_take_other_draws_too():
    noise = np.random.default_rng(3)
    scores = [X + noise.normal(scale=s, size=(300, 3)) for s in (0.1, 1, 3, 9)]
    values = scoring.resampled_scores(Y, scores, PATIENTS, resamples=300, seed=0)
    assert values.shape == (4, 301, 3)
    every = scoring.over_draws(values, seed=0)
    same = scoring.over_draws(np.repeat(values.mean(0, keepdims=True), 4, axis=0), seed=0)
    assert every.shape == (301, 3) and np.allclose(every[0], same[0])
    assert (every.std(axis=0) > 1.5 * same.std(axis=0)).all()


@pytest.mark.parametrize("draws", [[0.0, 1.0], [0.0, 1.0, 5.0], list(range(10))])
def test_draws_vary_their_mean_by_what_their_number_lets_one_expect(draws):
    values = np.repeat(np.array(draws)[:, None], 40_001, axis=1)
    expected = np.std(draws, ddof=1) / len(draws) ** 0.5
    assert scoring.over_draws(values, seed=0)[1:].std() == pytest.approx(expected, rel=0.02)


def test_a_class_that_a_draw_did_not_train_is_averaged_over_the_others():
    values = np.array([[[0.5, np.nan]] * 5, [[0.7, 0.9]] * 5])
    found = scoring.over_draws(values, seed=0)
    assert found[0].tolist() == pytest.approx([0.6, 0.9])
    missing = np.isnan(found[1:, 1])
    assert (found[1:, 1][~missing] == 0.9).all() and not np.isnan(found[:, 0]).any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"patient_ids": np.zeros(300)}, "1 patients cannot be resampled"),
        ({"minus": [X] * 2}, "1 draws cannot be paired with 2"),
        ({"patient_ids": PATIENTS[:7]}, "7 patients for 300 images"),
        ({"scores": []}, "0 draws"),
        ({"resamples": 0}, "resamples must be at least 1, not 0"),
    ],
)
def test_resamples_that_nothing_can_be_said_about_are_refused(change, words):
    asked = {"labels": Y, "scores": [X], "patient_ids": PATIENTS, "resamples": 10, "seed": 0}
    with pytest.raises(EvaluationError, match=words):
        scoring.resampled_scores(**asked | change)


@pytest.mark.parametrize("values", [np.zeros(5), np.zeros((0, 5))])
def test_values_of_no_draw_are_refused(values):
    with pytest.raises(EvaluationError, match=r"expected values \(draws, 1 \+ R\)"):
        scoring.over_draws(values, seed=0)


@pytest.mark.parametrize("missing", [np.nan, None, pd.NA, ""])
def test_an_image_without_a_patient_is_refused_by_its_row(missing):
    ids = PATIENTS.astype(object)
    ids[4] = missing
    with pytest.raises(EvaluationError, match="1 of 300 images name no patient.*row 4"):
        scoring.patient_weights(ids, resamples=5, seed=0)


def test_intervals_name_none_where_a_label_cannot_be_scored():
    labels = Y * [1, 0, 1]
    values = scoring.resampled_scores(labels, [X], PATIENTS, resamples=100, seed=0)
    first, second, third = scoring.class_intervals(values, seed=0)
    assert second is None and first.low < first.value < first.high
    assert third.value == pytest.approx(roc_auc_score(labels[:, 2], X[:, 2]))
    macro = scoring.macro_interval(values, seed=0)
    assert macro.value == pytest.approx((first.value + third.value) / 2)
    with pytest.raises(EvaluationError, match="no class can be scored"):
        scoring.macro_interval(values[..., 1:2], seed=0)


def test_the_interval_of_an_auroc_holds_the_truth_about_as_often_as_it_says():
    rng, held = np.random.default_rng(0), 0
    truth = 0.7602  # of two normal distributions whose means lie one standard deviation apart
    for _ in range(100):
        ill = rng.integers(0, 2, size=(150, 1))
        score = ill + rng.normal(size=(150, 1))
        values = scoring.resampled_scores(ill, [score], np.arange(150), resamples=200, seed=0)
        found = scoring.macro_interval(values, seed=0)
        held += found.low <= truth <= found.high
    assert 86 <= held <= 100
