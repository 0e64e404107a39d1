"""The map of a linear probe: its parts add up to the score, and it knows no box."""

import copy

import numpy as np
import pytest
import torch
from tiny_detector import gray_image, tiny_detector

from cxr_helpers.explanation.inputs import ExplanationError
from cxr_helpers.explanation.probe_map import ProbeMaps, pooled_features

IMAGES = np.stack([gray_image(seed=seed)[0].numpy() for seed in range(5)])


@pytest.fixture(scope="module")
def detector():
    return tiny_detector()


def test_features_are_the_stages_own_whatever_the_batch(detector):
    features, center = pooled_features(detector, IMAGES, layer="layer2", batch_size=2)
    batch, _ = detector.transform([torch.from_numpy(one).expand(3, -1, -1) for one in IMAGES])
    with torch.no_grad():
        maps = detector.backbone.body(batch.tensors)["1"].numpy()
    np.testing.assert_allclose(features, maps.mean(axis=(2, 3)), atol=1e-5)
    np.testing.assert_allclose(center, maps.mean(axis=0), atol=1e-5)


def test_the_cells_add_up_to_what_the_image_has_above_the_mean_one(detector):
    features, center = pooled_features(detector, IMAGES, layer="layer3")
    weights = np.random.default_rng(0).normal(size=(2, features.shape[1]))
    probe = ProbeMaps(detector, "layer3", weights, center)
    above = (features - features.mean(axis=0)) @ weights.T  # log-odds above the mean image's
    for image, expected in zip(IMAGES, above, strict=True):
        made = probe.explain(image, [1, 2])
        means = [one.signed_map.mean() for one in made]
        assert means == pytest.approx(expected, abs=1e-3)
        assert all((one.heatmap >= 0).all() for one in made)


def test_a_class_without_weights_has_an_empty_map(detector):
    _, center = pooled_features(detector, IMAGES)
    weights = np.ones((2, 256))
    weights[1] = np.nan
    full, empty = ProbeMaps(detector, "layer3", weights, center).explain(IMAGES[0], [1, 2])
    assert full.signed_map.any() and not empty.signed_map.any()


def test_padding_is_said(detector):
    wide = np.random.default_rng(0).random((48, 64))
    _, center = pooled_features(detector, [wide])
    (made,) = ProbeMaps(detector, "layer3", np.ones((1, 256)), center).explain(wide, [1])
    assert made.covered == (0.75, 1.0)


def test_what_cannot_be_read_is_refused(detector):
    features, center = pooled_features(detector, IMAGES)
    probe = ProbeMaps(detector, "layer3", np.ones((2, 256)), center)
    cases = [
        (lambda: probe.explain(IMAGES[0], [3]), "label 3 is no class of this probe; they are 1 to"),
        (lambda: probe.explain(np.zeros((96, 32)), [1]), "give images of one size"),
        (lambda: pooled_features(detector, []), "no image to learn from"),
        (lambda: pooled_features(detector, IMAGES, layer="pyramid"), "none of layer1"),
        (lambda: pooled_features(detector, [IMAGES[0], IMAGES[0][:32]]), "several sizes"),
        (lambda: pooled_features(copy.deepcopy(detector).train(), IMAGES), r"call detector.eval"),
    ]
    for ask, words in cases:
        with pytest.raises(ExplanationError, match=words):
            ask()
