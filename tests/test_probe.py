"""Probes, AUROC and intervals."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

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


def test_weighted_auroc_is_auroc_of_the_repeated_images():
    weights = RNG.integers(0, 4, size=(5, 300)).astype(float)
    scores = np.round(X[:, :3], 1)
    found = probe.weighted_auroc(Y, scores, weights)
    for row, weight in zip(found, weights.astype(int), strict=True):
        again = np.repeat(np.arange(300), weight)
        assert np.allclose(row, probe.auroc(Y[again], scores[again]))


def test_a_monotone_change_of_the_scores_does_not_matter():
    assert np.allclose(probe.auroc(Y, X[:, :3]), probe.auroc(Y, np.exp(3 * X[:, :3])))


def test_classes_that_cannot_be_scored_are_named_and_left_out():
    labels = Y.copy()
    labels[:, 1] = 0
    scores = X[:, :3].copy()
    scores[:, 2] = np.nan
    macro = probe.macro_auroc(labels, scores, ["a", "b", "c"])
    assert macro.left_out == ["b", "c"]
    assert macro.value == pytest.approx(roc_auc_score(labels[:, 0], scores[:, 0]))
    with pytest.raises(probe.ProbeError, match="no class can be scored"):
        probe.macro_auroc(labels[:, 1:], scores[:, 1:], ["b", "c"])


@pytest.mark.parametrize("shape", [(300, 2), (299, 3)])
def test_shapes_that_do_not_fit_are_refused(shape):
    with pytest.raises(probe.ProbeError, match="do not fit"):
        probe.auroc(Y, np.zeros(shape))


def sgd_probe(features, labels, strength):
    """The same logistic regression as a plain torch layer, trained by gradient descent."""
    x = (features - features.mean(0)) / features.std(0)
    x, y = torch.tensor(x).float(), torch.tensor(labels).float()
    layer = nn.Linear(x.shape[1], 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    for _ in range(500):
        optimizer.zero_grad()
        fit = nn.functional.binary_cross_entropy_with_logits(layer(x)[:, 0], y, reduction="sum")
        (fit + layer.weight.pow(2).sum() / (2 * strength)).div(len(x)).backward()
        optimizer.step()
    return layer(x)[:, 0].detach().numpy()


def test_the_probe_agrees_with_a_linear_layer_trained_by_sgd():
    fitted = probe.fit_probe(X, Y, X, Y, strengths=[0.1])
    for k in range(3):
        assert np.allclose(fitted.scores(X)[:, k], sgd_probe(X, Y[:, k], 0.1), atol=0.05)


def test_the_strength_is_chosen_on_validation():
    noise = np.concatenate([X, RNG.normal(size=(300, 200))], axis=1)
    half = slice(0, 150), slice(150, 300)
    chosen = probe.fit_probe(noise[half[0]], Y[half[0]], noise[half[1]], Y[half[1]])
    values = {}
    for strength in probe.REGULARIZATION:
        one = probe.LinearProbe.fit(noise[half[0]], Y[half[0]], range(3), strength)
        values[strength] = probe.auroc(Y[half[1]], one.scores(noise[half[1]])).mean()
    assert chosen.strength == max(values, key=values.get)


def test_a_class_without_positives_is_not_trained():
    labels = Y.copy()
    labels[:, 1] = 0
    scores = probe.fit_probe(X, labels, X, Y).scores(X)
    assert np.isnan(scores[:, 1]).all() and np.isfinite(scores[:, [0, 2]]).all()
    with pytest.raises(probe.ProbeError, match="none of 3 classes"):
        probe.fit_probe(X, labels * 0, X, Y)


def test_features_that_are_not_finite_are_counted():
    broken = X.copy()
    broken[[3, 5], 0] = np.nan
    with pytest.raises(probe.ProbeError, match="features of 2 images"):
        probe.fit_probe(broken, Y, X, Y)
    with pytest.raises(probe.ProbeError, match="features of 2 images"):
        probe.knn_scores(X, Y, broken, neighbors=3)


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


def test_the_interval_of_repeats_needs_repeats():
    found = probe.mean_interval([1.0, 2.0, 3.0], resamples=500, seed=0)
    assert found.low < found.value == 2 < found.high
    with pytest.raises(probe.ProbeError, match="at least two"):
        probe.mean_interval([1.0], resamples=10, seed=0)


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
