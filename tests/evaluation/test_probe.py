"""Linear and k-NN probes."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from cxr_helpers.evaluation import probe
from cxr_helpers.evaluation.checks import EvaluationError
from cxr_helpers.evaluation.scoring import auroc

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 8))
Y = (X[:, :3] + RNG.normal(size=(300, 3)) > [0.0, 1.0, 1.5]).astype(int)
IDS = [f"image {i}" for i in range(300)]
FRAME = pd.DataFrame(Y, columns=list("abc"), index=IDS)


@pytest.mark.parametrize("n", [300, 40])  # more and fewer images than features
def test_every_strength_agrees_with_scikit_learn(n):
    x = np.concatenate([X, 3 + RNG.normal(size=(300, 50)) * 2], axis=1)[:n].astype(np.float32)
    x[:, -1] = 7  # a feature that never varies
    scaled = StandardScaler().fit_transform(x)
    for fitted in probe.fit_path(x, Y[:n], (1e-4, 1e-2, 1.0)):
        for k in range(3):
            theirs = LogisticRegression(C=fitted.strength, max_iter=5000, tol=1e-7)
            theirs.fit(scaled, Y[:n, k])
            expected = theirs.decision_function(scaled)
            assert np.allclose(fitted.scores(x)[:, k], expected, atol=0.03)


def test_scaling_and_shifting_the_features_does_not_matter():
    plain = probe.fit_probe(X, Y, X, Y, strengths=[0.01])
    moved = probe.fit_probe(100 * X + 7, Y, X, Y, strengths=[0.01])
    assert np.allclose(plain.scores(X), moved.scores(100 * X + 7), atol=1e-3)


def test_the_strength_is_chosen_on_validation():
    noise = np.concatenate([X, RNG.normal(size=(300, 200))], axis=1)
    train, val = slice(0, 150), slice(150, 300)
    chosen = probe.fit_probe(noise[train], Y[train], noise[val], Y[val])
    values = {
        one.strength: auroc(Y[val], one.scores(noise[val])).mean()
        for one in probe.fit_path(noise[train], Y[train], probe.REGULARIZATION)
    }
    assert chosen.strength == max(values, key=values.get)
    assert len(set(values.values())) > 1


def test_a_strength_that_cannot_be_chosen_is_refused_unless_given():
    empty = np.zeros_like(Y)
    with pytest.raises(EvaluationError, match="regularization cannot be chosen.*300 validation"):
        probe.fit_probe(X, Y, X, empty)
    assert probe.fit_probe(X, Y, X, empty, strengths=[0.1]).strength == 0.1


def test_a_class_without_positives_is_not_trained_and_named():
    labels = Y.copy()
    labels[:, 1] = 0
    fitted = probe.fit_probe(X, labels, X, Y, class_names=["a", "Hernia", "c"])
    assert fitted.untrained == {"Hernia": "no positive among 300 training images"}
    scores = fitted.scores(X)
    assert np.isnan(scores[:, 1]).all() and np.isfinite(scores[:, [0, 2]]).all()
    with pytest.raises(EvaluationError, match="Hernia: no positive among 300 training images"):
        probe.fit_probe(X, labels[:, [1]], X, Y[:, [1]], class_names=["Hernia"])
    with pytest.raises(EvaluationError, match="no negative among 300"):
        probe.fit_probe(X, 1 - labels[:, [1]], X, Y[:, [1]])


BROKEN = X.copy()
BROKEN[[3, 5], 0] = np.nan, np.inf
fitted_once = probe.fit_probe(X, Y, X, Y, strengths=[0.1])


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (BROKEN, r"features of 2 images.*rows \[3, 5\].*the backbone's weights"),
        (X[:, :5], "5 features and the others 8"),
        (X[:0], "N > 0"),
        (X[0], r"expected features \(N, D\)"),
        (np.full(X.shape, "R1"), "the features are <U2, no numbers"),
    ],
)
def test_features_that_no_probe_can_use_are_refused_everywhere(features, words):
    for call in (
        lambda: probe.fit_probe(X, Y, features, Y),
        lambda: probe.knn_scores(X, Y, features, neighbors=3),
        lambda: fitted_once.scores(features),
    ):
        with pytest.raises(EvaluationError, match=words):
            call()


@pytest.mark.parametrize(
    ("train", "val", "names", "words"),
    [
        (Y[:-1], Y, None, "one row an image"),
        (Y[:, 0], Y, None, "one column a class"),
        (Y - 1, Y, None, "must be 0 or 1, not -1"),
        (Y, Y[:, :2], None, "3 classes in training and 2 in validation"),
        (Y, Y, ["a", "b"], "2 class names for 3 columns"),
        (FRAME, FRAME[["b", "a", "c"]], None, "columns of training labels and validation labels"),
        (FRAME.iloc[::-1], Y, None, "index of features and labels differ"),
    ],
)
def test_labels_or_names_that_do_not_fit_are_refused(train, val, names, words):
    with pytest.raises(EvaluationError, match=words):
        probe.fit_probe(pd.DataFrame(X, index=IDS), train, X, val, class_names=names)


@pytest.mark.parametrize("strengths", [[], [0], [np.nan]])
def test_a_strength_is_above_zero(strengths):
    with pytest.raises(EvaluationError, match="finite numbers above 0"):
        probe.fit_path(X, Y, strengths)


def test_a_path_needs_both_kinds_of_each_class():
    with pytest.raises(EvaluationError, match="column 1 of the labels: no negative among 300"):
        probe.fit_path(X, np.maximum(Y, [0, 1, 0]), [0.1])


@pytest.mark.parametrize(
    "of",
    [
        np.ndarray.tolist,
        pd.DataFrame,
        lambda a: torch.from_numpy(a.astype(float)).requires_grad_(),
        lambda a: a.astype(int),
        lambda a: a.astype(np.float16),
    ],
    ids=["list", "data frame", "tensor with gradient", "whole numbers", "float16"],
)
def test_features_and_labels_of_every_kind_give_the_same_probe(of):
    x = np.round(4 * X)  # whole numbers, which every kind can hold
    plain = probe.fit_probe(x, Y, x, Y, strengths=[0.1])
    again = probe.fit_probe(of(x), of(Y), of(x), of(Y), strengths=[0.1])
    assert np.allclose(again.weights, plain.weights, atol=1e-3)
    assert np.allclose(again.scores(of(x)), plain.scores(x), atol=1e-2)
    votes = probe.knn_scores(of(x), of(Y), of(x), neighbors=np.int64(3))
    assert np.allclose(votes, probe.knn_scores(x, Y, x, neighbors=3), atol=1e-4)


def test_arguments_are_not_changed():
    x, y = X.astype(np.float32), Y.copy()
    before = x.copy(), y.copy()
    probe.fit_probe(x, y, x, y)
    probe.knn_scores(x, y, x, neighbors=3)
    assert (x == before[0]).all() and (y == before[1]).all()


def test_neighbors_vote_with_their_labels():
    train = np.array([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0]])
    labels = np.array([[1], [1], [0]])
    near, far = probe.knn_scores(train, labels, np.array([[1.0, 0.05], [-2.0, 0.0]]), neighbors=1)
    assert near == 1 and far == 0
    everyone = probe.knn_scores(train, labels, train, neighbors=50)
    assert everyone.shape == (3, 1) and everyone[0] > everyone[2]
    with pytest.raises(EvaluationError, match="0 neighbors cannot vote"):
        probe.knn_scores(train, labels, train, neighbors=0)
