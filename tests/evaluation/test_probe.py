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

from cxr_helpers.evaluation import probe

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


def macro_resamples(labels, scores, patients, **options):
    """(1 + R,) mean over classes and draws."""
    options = {"resamples": 300, "seed": 0} | options
    values = probe.resampled_scores(labels, scores, patients, **options)
    return probe.over_draws(probe.nan_mean(values, axis=2), seed=0)


def test_resamples_draw_patients_not_images():
    weights = probe.patient_weights(PATIENTS, resamples=50, seed=0)
    assert (weights[:, 0::3] == weights[:, 1::3]).all() and (weights.sum(axis=1) == 300).all()
    copies = np.repeat(Y[::3], 3, axis=0), np.repeat(X[::3, :3], 3, axis=0)
    clustered = macro_resamples(copies[0], [copies[1]], PATIENTS)
    single = macro_resamples(Y[::3], [X[::3, :3]], np.arange(100))
    assert np.allclose(clustered, single)


@pytest.mark.parametrize("of", [list, torch.tensor, pd.Series, lambda ids: ids.astype(str)])
def test_patients_come_as_any_column(of):
    weights = probe.patient_weights(of(PATIENTS), resamples=20, seed=0)
    assert weights.shape == (20, 300) and (weights[:, 0::3] == weights[:, 2::3]).all()


def test_a_difference_of_an_arm_with_itself_is_zero():
    scores = [X[:, :3]]
    assert (macro_resamples(Y, scores, PATIENTS, minus=scores) == 0).all()
    worse = [RNG.normal(size=(300, 3))]
    gain = macro_resamples(Y, scores, PATIENTS, minus=worse)
    assert gain[0] > 0.2 and (gain > 0).all()


def test_resamples_take_other_draws_too():
    noise = np.random.default_rng(3)
    scores = [X[:, :3] + noise.normal(scale=s, size=(300, 3)) for s in (0.1, 1, 3, 9)]
    values = probe.resampled_scores(Y, scores, PATIENTS, resamples=300, seed=0)
    assert values.shape == (4, 301, 3)
    every = probe.over_draws(values, seed=0)
    same = probe.over_draws(np.repeat(values.mean(0, keepdims=True), 4, axis=0), seed=0)
    assert every.shape == (301, 3) and np.allclose(every[0], same[0])
    assert (every.std(axis=0) > 1.5 * same.std(axis=0)).all()


@pytest.mark.parametrize("draws", [[0.0, 1.0], [0.0, 1.0, 5.0], list(range(10))])
def test_draws_vary_their_mean_by_what_their_number_lets_one_expect(draws):
    values = np.repeat(np.array(draws)[:, None], 40_001, axis=1)
    found = probe.over_draws(values, seed=0)
    expected = np.std(draws, ddof=1) / len(draws) ** 0.5
    assert found[1:].std() == pytest.approx(expected, rel=0.02)


def test_a_class_that_a_draw_did_not_train_is_averaged_over_the_others():
    values = np.array([[[0.5, np.nan]] * 5, [[0.7, 0.9]] * 5])
    found = probe.over_draws(values, seed=0)
    assert found[0].tolist() == pytest.approx([0.6, 0.9])
    missing = np.isnan(found[1:, 1])
    assert (found[1:, 1][~missing] == 0.9).all() and not np.isnan(found[:, 0]).any()


def test_resamples_that_nothing_can_be_said_about_are_refused():
    ask = probe.resampled_scores
    with pytest.raises(probe.ProbeError, match="1 patients cannot be resampled"):
        ask(Y, [X[:, :3]], np.zeros(300), resamples=10, seed=0)
    with pytest.raises(probe.ProbeError, match="1 draws cannot be paired with 2"):
        ask(Y, [X[:, :3]], PATIENTS, minus=[X[:, :3]] * 2, resamples=10, seed=0)
    with pytest.raises(probe.ProbeError, match="7 patients for 300 images"):
        ask(Y, [X[:, :3]], PATIENTS[:7], resamples=10, seed=0)
    with pytest.raises(probe.ProbeError, match="0 draws"):
        ask(Y, [], PATIENTS, resamples=10, seed=0)
    with pytest.raises(probe.ProbeError, match="resamples must be at least 1, not 0"):
        ask(Y, [X[:, :3]], PATIENTS, resamples=0, seed=0)
    for values in (np.zeros(5), np.zeros((0, 5))):
        with pytest.raises(probe.ProbeError, match=r"expected values \(draws, 1 \+ R\)"):
            probe.over_draws(values, seed=0)


@pytest.mark.parametrize("missing", [np.nan, None, pd.NA, ""])
def test_an_image_without_a_patient_is_refused_by_its_row(missing):
    ids = PATIENTS.astype(object)
    ids[4] = missing
    with pytest.raises(probe.ProbeError, match="1 of 300 images name no patient.*row 4"):
        probe.patient_weights(ids, resamples=5, seed=0)


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


GRAY = np.arange(100, dtype=np.uint8).reshape(1, 10, 10)
KINDS = {
    "uint8 tensor": torch.from_numpy(GRAY),
    "uint16 of the full range": GRAY.astype(np.uint16) * 600,  # 0 to 59400 of 65535
    "float64": GRAY / 255,
    "float16": (GRAY / 255).astype(np.float16),
    "tensor with gradient": torch.from_numpy(GRAY / 255).requires_grad_(),
    "list": (GRAY / 255).tolist(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_image_is_the_same_image(kind):
    gray = 600 * GRAY.mean() / 65535 if kind.startswith("uint16") else GRAY.mean() / 255
    expected = (gray - 0.5) / 0.25
    found = probe.extract_features(Mean(), KINDS[kind], image_size=10)
    assert found.shape == (1, 3) and np.allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (GRAY.astype(np.int64), "pixels are int64; give uint8"),
        (GRAY > 5, "pixels are bool"),
        (GRAY.astype(object), "pixels are object"),
        (GRAY.astype(np.uint16), "uint16 up to 99, so they hold 7 bits only"),
        (np.full((1, 4, 4), np.nan), "image 0 is float64 with values from nan"),
        (torch.full((1, 4, 4), 2.0), "image 0 is float32 with values from 2 to 2"),
        (GRAY[0], r"pixels \(N, H, W\)"),
        (np.zeros((2, 0, 4), np.uint8), r"pixels \(N, H, W\)"),
        ([np.zeros((2, 2)), np.zeros((3, 3))], r"no one array \(N, H, W\)"),
    ],
)
def test_what_is_no_gray_image_is_refused(pixels, words):
    with pytest.raises(probe.ProbeError, match=words):
        probe.extract_features(Mean().train(), pixels, image_size=5)


def convolution(channels):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_a_backbone_gets_as_many_channels_as_its_first_convolution_takes():
    three, one = convolution(3), convolution(1)
    with torch.no_grad():
        one[0].weight.copy_(three[0].weight.sum(dim=1, keepdim=True))
        one[0].bias.copy_(three[0].bias)
    found = [probe.extract_features(b, GRAY, image_size=10) for b in (three, one)]
    assert np.allclose(*found, atol=1e-5)
    with pytest.raises(probe.ProbeError, match="takes 4 channels"):
        probe.extract_features(convolution(4), GRAY, image_size=10)
    with pytest.raises(probe.ProbeError, match="mean has 3 values, and the backbone takes 1"):
        probe.extract_features(one, GRAY, image_size=10, mean=(0.4, 0.5, 0.6))
    with pytest.raises(probe.ProbeError, match="std 0 cannot normalize"):
        probe.extract_features(one, GRAY, image_size=10, std=0)


def test_what_is_no_backbone_here_is_refused_and_its_mode_is_restored():
    flat = nn.Sequential(nn.Conv2d(3, 4, 3)).train()
    with pytest.raises(probe.ProbeError, match=r"gives \(1, 4, 8, 8\) for a batch"):
        probe.extract_features(flat, GRAY, image_size=10)
    assert flat.training
    with pytest.raises(probe.ProbeError, match="on meta, not on cpu"):
        probe.extract_features(convolution(3).to("meta"), GRAY, image_size=10)
    with pytest.raises(probe.ProbeError, match="batch_size 0"):
        probe.extract_features(Mean(), GRAY, image_size=5, batch_size=0)
    half = probe.extract_features(convolution(3).bfloat16(), GRAY, image_size=10)
    whole = probe.extract_features(convolution(3), GRAY, image_size=10)
    assert np.allclose(half, whole, atol=0.02)


SCORES = X[:, :3]
LABEL_KINDS = {
    "bool": Y.astype(bool),
    "float16": Y.astype(np.float16),
    "list": Y.tolist(),
    "tensor": torch.from_numpy(Y),
    "tensor with gradient": torch.from_numpy(Y).float().requires_grad_(),
    "bfloat16": torch.from_numpy(Y).bfloat16(),
    "data frame": pd.DataFrame(Y, columns=list("abc")),
    "frame of pandas' own integers": pd.DataFrame(Y).astype("Int64"),
    "objects": Y.astype(object),
}


@pytest.mark.parametrize("kind", LABEL_KINDS)
def test_labels_of_every_kind_give_the_same_scores(kind):
    labels = LABEL_KINDS[kind]
    for metric in (probe.auroc, probe.average_precision):
        assert np.array_equal(metric(labels, torch.from_numpy(SCORES)), metric(Y, SCORES))
    macro = probe.macro_auroc(labels, SCORES.tolist(), pd.Index(["a", "b", "c"]))
    assert macro.value == probe.auroc(Y, SCORES).mean()
    plain = probe.fit_probe(X, Y, X, Y, strengths=[0.1])
    fitted = probe.fit_probe(X, labels, torch.from_numpy(X), labels, strengths=[0.1])
    assert np.allclose(fitted.weights, plain.weights)
    votes = probe.knn_scores(X, labels, pd.DataFrame(X), neighbors=np.int64(3))
    assert np.array_equal(votes, probe.knn_scores(X, Y, X, neighbors=3))


@pytest.mark.parametrize("value", ["1", None, pd.NA, "yes", np.nan])
def test_labels_that_are_text_or_missing_are_refused(value):
    labels = Y.astype(object)
    labels[5, 1] = value
    for call in (
        lambda: probe.auroc(labels, SCORES),
        lambda: probe.one_sided(labels[:, 1], "training"),
        lambda: probe.fit_probe(X, labels, X, Y),
    ):
        with pytest.raises(probe.ProbeError, match="labels must be 0 or 1, not"):
            call()


@pytest.mark.parametrize("metric", [probe.auroc, probe.average_precision])
def test_one_class_may_come_as_a_plain_row_and_nothing_is_nan(metric):
    assert np.array_equal(metric(Y[:, 0], SCORES[:, 0]), metric(Y, SCORES)[:1])
    assert np.isnan(metric([], [])).tolist() == [True]
    assert np.isnan(metric(np.zeros((0, 3)), np.zeros((0, 3)))).tolist() == [True] * 3
    macro = probe.macro_auroc(Y[:, 0], SCORES[:, 0], ["Mass"])
    assert macro.value == probe.auroc(Y, SCORES)[0]
    with pytest.raises(probe.ProbeError, match="Mass: no positive among 0 scored"):
        probe.macro_auroc([], [], ["Mass"])


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a", "b"], "2 class names for 3 columns"),
        (["a", "b", "a"], "class 'a' is named 2 times"),
        ("abc", "1 class names for 3 columns"),
    ],
)
def test_names_that_do_not_fit_the_classes_are_refused(names, words):
    with pytest.raises(probe.ProbeError, match=words):
        probe.macro_auroc(Y, SCORES, names)
    with pytest.raises(probe.ProbeError, match=words):
        probe.fit_probe(X, Y, X, Y, names=names)


def test_tables_in_another_order_are_not_joined():
    ids = [f"image {i}" for i in range(300)]
    labels = pd.DataFrame(Y, columns=list("abc"), index=ids)
    scores = pd.DataFrame(SCORES, columns=list("abc"), index=ids)
    assert np.array_equal(probe.auroc(labels, scores), probe.auroc(Y, SCORES))
    with pytest.raises(probe.ProbeError, match="columns of labels and scores differ: 'a'.*'c'"):
        probe.auroc(labels, scores[["c", "b", "a"]])
    with pytest.raises(probe.ProbeError, match="index of labels.*'image 0' stands.*'image 299'"):
        probe.auroc(labels, scores.iloc[::-1])
    with pytest.raises(probe.ProbeError, match="class 'c' is named where.*column is 'a'"):
        probe.macro_auroc(labels, scores, ["c", "b", "a"])
    features = pd.DataFrame(X, index=ids)
    with pytest.raises(probe.ProbeError, match="index of features and labels differ"):
        probe.fit_probe(features, labels.iloc[::-1], X, Y)
    with pytest.raises(probe.ProbeError, match="columns of training labels and validation labels"):
        probe.fit_probe(X, labels, X, labels[["b", "a", "c"]])
    with pytest.raises(probe.ProbeError, match="3 classes in training and 2 in validation"):
        probe.fit_probe(X, Y, X, Y[:, :2])


def test_features_of_every_kind_give_the_same_probe():
    plain = probe.fit_path(X, Y, [0.1])[0]
    for features in (X.tolist(), torch.from_numpy(X).requires_grad_(), pd.DataFrame(X)):
        assert np.allclose(probe.fit_path(features, Y, [0.1])[0].weights, plain.weights)
        assert np.allclose(plain.scores(features), plain.scores(X))
    whole = np.round(4 * X)  # whole numbers, once as float and once as such
    expected = probe.fit_path(whole, Y, [0.1])[0].weights
    assert np.allclose(probe.fit_path(whole.astype(int), Y, [0.1])[0].weights, expected)
    half = probe.fit_path(X.astype(np.float16), Y, [0.1])[0]
    assert np.allclose(half.weights, plain.weights, atol=1e-3)


def test_what_is_no_number_is_refused_by_name():
    text = X.astype(str).astype(object)
    text[0, 0] = "R1"
    with pytest.raises(probe.ProbeError, match="the features are no table of numbers.*R1"):
        probe.fit_probe(text, Y, X, Y)
    with pytest.raises(probe.ProbeError, match="the scores are <U21, no numbers"):
        probe.auroc(Y, Y.astype(str))
    with pytest.raises(probe.ProbeError, match="0 neighbors cannot vote"):
        probe.knn_scores(X, Y, X, neighbors=0)
    for strengths in ([], [0], [np.nan]):
        with pytest.raises(probe.ProbeError, match="finite numbers above 0"):
            probe.fit_path(X, Y, strengths)
    with pytest.raises(probe.ProbeError, match="column 1 of the labels: no negative among 300"):
        probe.fit_path(X, np.maximum(Y, [0, 1, 0]), [0.1])
    for weights in (np.ones(300), -np.ones((1, 300)), np.full((1, 300), np.nan)):
        with pytest.raises(probe.ProbeError, match="do not fit|negative or not finite"):
            probe.weighted_auroc(Y, SCORES, weights)
