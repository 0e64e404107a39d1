"""Probes, AUROC and intervals."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cxr_helpers import probe

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 8))
Y = (X[:, :3] + RNG.normal(size=(300, 3)) > [0.0, 1.0, 1.5]).astype(int)
PATIENTS = np.repeat(np.arange(100), 3)


def test_auroc_by_hand_and_against_scikit_learn_with_ties():
    assert probe.auroc(np.array([[0], [1]]), np.array([[0.3], [0.3]])).tolist() == [0.5]
    scores = np.round(X[:, :3], 1)
    expected = [roc_auc_score(Y[:, k], scores[:, k]) for k in range(3)]
    assert np.allclose(probe.auroc(Y, scores), expected)


def test_average_precision_by_hand_and_against_scikit_learn_with_ties():
    ranked = np.array([[1], [0], [1], [0]]), np.array([[0.9], [0.8], [0.7], [0.1]])
    assert probe.average_precision(*ranked)[0] == pytest.approx((1 / 1 + 2 / 3) / 2)
    scores = np.round(X[:, :3], 1)
    expected = [average_precision_score(Y[:, k], scores[:, k]) for k in range(3)]
    assert np.allclose(probe.average_precision(Y, scores), expected)


@pytest.mark.parametrize(
    ("weighted", "plain"),
    [
        (probe.weighted_auroc, probe.auroc),
        (probe.weighted_average_precision, probe.average_precision),
    ],
)
def test_a_weighted_score_is_that_of_the_repeated_images(weighted, plain, monkeypatch):
    monkeypatch.setattr(probe, "BLOCK", 600)  # two resamples at once, so blocks must fit together
    weights = RNG.integers(0, 4, size=(5, 300)).astype(float)
    scores = np.round(X[:, :3], 1)
    for row, weight in zip(weighted(Y, scores, weights), weights.astype(int), strict=True):
        again = np.repeat(np.arange(300), weight)
        assert np.allclose(row, plain(Y[again], scores[again]))


def test_a_monotone_change_of_the_scores_does_not_matter():
    for metric in (probe.auroc, probe.average_precision):
        assert np.allclose(metric(Y, X[:, :3]), metric(Y, np.exp(3 * X[:, :3])))


@pytest.mark.parametrize("metric", [probe.auroc, probe.average_precision])
def test_a_class_of_one_kind_or_without_scores_is_nan_also_in_a_resample(metric):
    labels = np.array([[0, 1, 1], [0, 1, 0]])
    scores = np.array([[0.1, 0.1, np.nan], [0.2, 0.2, np.nan]])
    assert np.isnan(metric(labels, scores)).all()
    weighted = getattr(probe, f"weighted_{metric.__name__}")
    only_first = weighted(np.array([[1], [0]]), np.array([[0.1], [0.2]]), np.array([[2.0, 0.0]]))
    assert np.isnan(only_first).all()


def test_classes_that_cannot_be_scored_are_named_with_their_reason():
    labels = Y.copy()
    labels[:, 1] = 0
    scores = X[:, :3].copy()
    scores[:, 2] = np.nan
    macro = probe.macro_auroc(labels, scores, ["a", "Hernia", "c"])
    assert macro.left_out == {
        "Hernia": "no positive among 300 scored images",
        "c": "it has no scores: its probe was not trained",
    }
    assert macro.value == pytest.approx(roc_auc_score(labels[:, 0], scores[:, 0]))
    precision = probe.macro_average_precision(labels, scores, ["a", "Hernia", "c"])
    assert precision.left_out == macro.left_out
    with pytest.raises(probe.ProbeError, match="Hernia: no positive among 300 scored images"):
        probe.macro_auroc(labels[:, 1:], scores[:, 1:], ["Hernia", "c"])


@pytest.mark.parametrize("shape", [(300, 2), (299, 3)])
def test_shapes_that_do_not_fit_are_refused(shape):
    for metric in (probe.auroc, probe.average_precision):
        with pytest.raises(probe.ProbeError, match="do not fit"):
            metric(Y, np.zeros(shape))


@pytest.mark.parametrize("value", [np.nan, -1, 2])
def test_labels_that_are_not_0_or_1_are_not_scored(value):
    labels = Y.astype(float)
    labels[5, 1] = value
    for call in (
        lambda: probe.auroc(labels, X[:, :3]),
        lambda: probe.macro_average_precision(labels, X[:, :3], ["a", "b", "c"]),
        lambda: probe.knn_scores(X, labels, X, neighbors=3),
    ):
        with pytest.raises(probe.ProbeError, match=rf"must be 0 or 1, not {value}.*leave out"):
            call()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_class_with_some_scores_is_no_untrained_class(value):
    scores = X[:, :3].copy()
    scores[:, 2], scores[[4, 7], 0] = np.nan, value
    for call in (
        lambda: probe.auroc(Y, scores),
        lambda: probe.macro_auroc(Y, scores, ["a", "b", "c"]),
    ):
        with pytest.raises(probe.ProbeError, match=r"of 2 images are not finite, in rows \[4, 7\]"):
            call()


def test_a_data_frame_of_labels_is_taken():
    labels = pd.DataFrame(Y, columns=["a", "b", "c"]).assign(b=0)
    plain = probe.fit_probe(X, labels.to_numpy(), X, Y, strengths=[0.1])
    fitted = probe.fit_probe(X, labels, X, pd.DataFrame(Y), strengths=[0.1])
    assert np.array_equal(fitted.weights, plain.weights, equal_nan=True)
    macro = probe.macro_auroc(labels, X[:, :3], list(labels))
    assert macro.left_out == {"b": "no positive among 300 scored images"}


def sgd_probe(features, labels, strength):
    """The same logistic regression as a plain torch layer, trained by SGD on batches."""
    x = (features - features.mean(0)) / features.std(0)
    data = TensorDataset(torch.tensor(x).float(), torch.tensor(labels).float())
    layer = nn.Linear(x.shape[1], labels.shape[1])
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=300)
    loader = DataLoader(data, 100, shuffle=True, generator=torch.Generator().manual_seed(0))
    for _ in range(300):
        for images, truth in loader:
            optimizer.zero_grad()
            fit = nn.functional.binary_cross_entropy_with_logits(
                layer(images), truth, reduction="none"
            )
            decay = layer.weight.pow(2).sum() / (2 * strength * len(x))
            (fit.sum(dim=1).mean() + decay).backward()
            optimizer.step()
        schedule.step()
    return layer(data.tensors[0]).detach().numpy()


@pytest.mark.parametrize("strength", [0.001, 0.1])
def test_the_probe_agrees_with_a_linear_layer_trained_by_sgd(strength):
    fitted = probe.fit_probe(X, Y, X, Y, strengths=[strength])
    by_sgd = sgd_probe(X, Y, strength)
    assert np.allclose(fitted.scores(X), by_sgd, atol=0.05)
    assert np.allclose(probe.auroc(Y, fitted.scores(X)), probe.auroc(Y, by_sgd), atol=0.002)


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
    assert np.allclose(plain.probabilities(X), 1 / (1 + np.exp(-plain.scores(X))))


def test_the_strength_is_chosen_on_validation():
    noise = np.concatenate([X, RNG.normal(size=(300, 200))], axis=1)
    train, val = slice(0, 150), slice(150, 300)
    chosen = probe.fit_probe(noise[train], Y[train], noise[val], Y[val])
    values = {
        one.strength: probe.auroc(Y[val], one.scores(noise[val])).mean()
        for one in probe.fit_path(noise[train], Y[train], probe.REGULARIZATION)
    }
    assert chosen.strength == max(values, key=values.get)
    assert len(set(values.values())) > 1


def test_a_strength_that_cannot_be_chosen_is_refused_unless_given():
    empty = np.zeros_like(Y)
    with pytest.raises(probe.ProbeError, match="regularization cannot be chosen.*300 validation"):
        probe.fit_probe(X, Y, X, empty)
    assert probe.fit_probe(X, Y, X, empty, strengths=[0.1]).strength == 0.1


def test_a_class_without_positives_is_not_trained_and_named():
    labels = Y.copy()
    labels[:, 1] = 0
    fitted = probe.fit_probe(X, labels, X, Y, names=["a", "Hernia", "c"])
    assert fitted.untrained == {"Hernia": "no positive among 300 training images"}
    scores = fitted.scores(X)
    assert np.isnan(scores[:, 1]).all() and np.isfinite(scores[:, [0, 2]]).all()
    with pytest.raises(probe.ProbeError, match="Hernia: no positive among 300 training images"):
        probe.fit_probe(X, labels[:, [1]], X, Y[:, [1]], names=["Hernia"])
    with pytest.raises(probe.ProbeError, match="no negative among 300"):
        probe.fit_probe(X, 1 - labels[:, [1]], X, Y[:, [1]])


def test_features_that_are_not_finite_are_named_by_row():
    broken = X.copy()
    broken[[3, 5], 0] = np.nan, np.inf
    with pytest.raises(probe.ProbeError, match=r"features of 2 images.*rows \[3, 5\]"):
        probe.fit_probe(broken, Y, X, Y)
    with pytest.raises(probe.ProbeError, match="features of 2 images"):
        probe.fit_probe(X, Y, broken, Y)
    with pytest.raises(probe.ProbeError, match="features of 2 images"):
        probe.knn_scores(X, Y, broken, neighbors=3)
    with pytest.raises(probe.ProbeError, match="features of 2 images"):
        probe.fit_probe(X, Y, X, Y).scores(broken)


def test_features_or_labels_that_do_not_fit_are_refused():
    fitted = probe.fit_probe(X, Y, X, Y)
    for call in (
        lambda: fitted.scores(X[:, :5]),
        lambda: probe.fit_probe(X, Y, X[:, :5], Y),
        lambda: probe.knn_scores(X, Y, X[:, :5], neighbors=3),
    ):
        with pytest.raises(probe.ProbeError, match="5 features and the others 8"):
            call()
    with pytest.raises(probe.ProbeError, match="one row an image"):
        probe.fit_probe(X, Y[:-1], X, Y)
    with pytest.raises(probe.ProbeError, match="N > 0"):
        probe.fit_probe(X[:0], Y[:0], X, Y)
    with pytest.raises(probe.ProbeError, match="must be 0 or 1"):
        probe.fit_probe(X, Y - 1, X, Y)


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


def test_the_interval_resamples_patients_not_images():
    weights = probe.patient_weights(PATIENTS, resamples=50, seed=0)
    assert (weights[:, 0::3] == weights[:, 1::3]).all() and (weights.sum(axis=1) == 300).all()
    copies = np.repeat(Y[::3], 3, axis=0), np.repeat(X[::3, :3], 3, axis=0)
    clustered = probe.macro_auroc_interval(copies[0], [copies[1]], PATIENTS, resamples=300, seed=0)
    single = probe.macro_auroc_interval(Y[::3], [X[::3, :3]], np.arange(100), resamples=300, seed=0)
    assert clustered == single


def test_a_difference_of_an_arm_with_itself_is_zero():
    scores = [X[:, :3]]
    same = probe.macro_auroc_interval(Y, scores, PATIENTS, minus=scores, resamples=100, seed=0)
    assert same == probe.Estimate(0, 0, 0)
    worse = [RNG.normal(size=(300, 3))]
    gain = probe.macro_auroc_interval(Y, scores, PATIENTS, minus=worse, resamples=200, seed=0)
    assert 0 < gain.low < gain.value < gain.high


def test_the_interval_covers_draws_too():
    noise = np.random.default_rng(3)
    scores = [X[:, :3] + noise.normal(scale=s, size=(300, 3)) for s in (0.1, 1, 3, 9)]
    values = probe.resampled_scores(Y, scores, PATIENTS, resamples=300, seed=0)
    assert values.shape == (4, 301, 3)
    every = probe.macro_interval(values, seed=0)
    same = probe.macro_interval(np.repeat(values.mean(0, keepdims=True), 4, axis=0), seed=0)
    assert every.value == pytest.approx(same.value)
    assert every.high - every.low > 1.5 * (same.high - same.low)


def test_class_intervals_name_none_where_a_class_cannot_be_scored():
    labels = Y.copy()
    labels[:, 1] = 0
    values = probe.resampled_scores(labels, [X[:, :3]], PATIENTS, resamples=100, seed=0)
    first, second, third = probe.class_intervals(values, seed=0)
    assert second is None and first.low < first.value < first.high
    assert third.value == pytest.approx(roc_auc_score(Y[:, 2], X[:, 2]))
    macro = probe.macro_interval(values, seed=0)
    assert macro.value == pytest.approx((first.value + third.value) / 2)
    assert str(probe.Estimate(0.1, -0.05, 0.25)) == "+0.100 (-0.050 to +0.250)"


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng, held = np.random.default_rng(0), 0
    truth = 0.7602  # of two normal distributions whose means lie one standard deviation apart
    for _ in range(100):
        ill = rng.integers(0, 2, size=(150, 1))
        score = ill + rng.normal(size=(150, 1))
        found = probe.macro_auroc_interval(ill, [score], np.arange(150), resamples=200, seed=0)
        held += found.low <= truth <= found.high
    assert 86 <= held <= 100


def test_intervals_that_nothing_can_be_said_about_are_refused():
    with pytest.raises(probe.ProbeError, match="1 patients cannot be resampled"):
        probe.macro_auroc_interval(Y, [X[:, :3]], np.zeros(300), resamples=10, seed=0)
    with pytest.raises(probe.ProbeError, match="1 draws cannot be paired with 2"):
        probe.resampled_scores(Y, [X[:, :3]], PATIENTS, minus=[X[:, :3]] * 2, resamples=10, seed=0)
    with pytest.raises(probe.ProbeError, match="no class can be scored"):
        probe.macro_auroc_interval(0 * Y, [X[:, :3]], PATIENTS, resamples=10, seed=0)


class Mean(nn.Module):
    """A 'backbone' that gives the mean of each channel."""

    def forward(self, x):
        return x.mean(dim=(2, 3))


def test_features_are_normalized_gray_and_the_mode_is_restored():
    pixels = np.stack([np.full((10, 10), v, np.uint8) for v in (0, 255, 51)])
    backbone = Mean().train()
    found = probe.extract_features(backbone, pixels, image_size=5, batch_size=2)
    assert np.allclose(found, np.repeat([[-2.0], [2.0], [-1.2]], 3, axis=1), atol=1e-6)
    assert backbone.training
    by_channel = probe.extract_features(
        Mean(), pixels, image_size=5, mean=(0, 0.5, 1), std=(1, 1, 1)
    )
    assert np.allclose(by_channel[1], [1, 0.5, 0], atol=1e-6)
    with pytest.raises(probe.ProbeError, match="uint8"):
        probe.extract_features(Mean(), pixels.astype(float), image_size=5)
