"""The planted-shortcut experiment on made-up images: what is drawn where, and what it does."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from cxr_helpers.course.ch05 import shortcut


def made_up(n, seed):
    """Noise; half of the images have a bright square of 20 pixels, their finding."""
    rng = np.random.default_rng(seed)
    pixels = rng.uniform(0.3, 0.5, size=(n, shortcut.SIZE, shortcut.SIZE)).astype(np.float32)
    labels = (np.arange(n) % 2).astype(int)
    boxes = []
    for i in range(n):
        if labels[i]:
            x, y = rng.integers(18, 40, 2)
            pixels[i, y : y + 20, x : x + 20] += 0.15
            boxes.append(np.array([[x, y, x + 20, y + 20]], dtype=float))
        else:
            boxes.append(np.zeros((0, 4)))
    return shortcut.Images(pixels, labels, boxes)


@pytest.fixture(scope="module")
def images():
    return made_up(16, seed=0)


@pytest.mark.parametrize("kind", shortcut.KINDS)
def test_a_shortcut_is_drawn_where_it_should_be_and_nowhere_else(images, kind):
    before = images.pixels.copy()
    present = np.arange(16) < 5
    planted = shortcut.plant(images, present, kind, seed=0)
    assert planted.masks[~present].sum() == 0
    assert (planted.masks[present].sum(axis=(1, 2)) > 20).all()
    changed = planted.pixels != before
    assert not (changed & ~planted.masks).any() and changed[planted.masks].mean() > 0.99
    assert len({mask.tobytes() for mask in planted.masks[present]}) > 1
    np.testing.assert_array_equal(images.pixels, before)
    again = shortcut.plant(images, present, kind, seed=0)
    np.testing.assert_array_equal(again.pixels, planted.pixels)


def test_an_unknown_shortcut_is_refused(images):
    with pytest.raises(ValueError, match="'hat' is none of marker"):
        shortcut.plant(images, np.ones(16, bool), "hat", seed=0)


def test_presence_follows_its_chances():
    labels = np.repeat([0, 1], 2000)
    present = shortcut.draw_presence(labels, with_finding=0.9, without=0.2, seed=0)
    assert present[labels == 1].mean() == pytest.approx(0.9, abs=0.03)
    assert present[labels == 0].mean() == pytest.approx(0.2, abs=0.03)


def test_the_map_is_the_loss_of_the_logit(images):
    net = shortcut.train(images.pixels, images.labels, epochs=1, seed=0)
    features = net.features(torch.from_numpy(images.pixels[:1, None]) - 0.5)
    without = features.clone()
    without[:, 3] = 0
    lost = (net.head(features) - net.head(without)).item()
    own = (net.head[2].weight[0, 3] * features[0, 3].mean()).item()
    assert lost == pytest.approx(own, abs=1e-5)
    heatmap = shortcut.ablation_heatmap(net, images.pixels[0])
    assert heatmap.shape == images.pixels[0].shape and 0 <= heatmap.min() <= heatmap.max() <= 1


def test_the_seed_decides(images):
    one, two, other = (
        shortcut.scores(
            shortcut.train(images.pixels, images.labels, epochs=2, seed=seed), images.pixels
        )
        for seed in (1, 1, 2)
    )
    np.testing.assert_allclose(one, two)
    assert not np.allclose(one, other)


def test_a_planted_shortcut_is_taken_and_costs_the_score_when_it_is_moved():
    train, test = made_up(96, seed=1), made_up(32, seed=2)
    sick = test.labels == 1
    present = shortcut.draw_presence(train.labels, with_finding=0.95, without=0.05, seed=0)
    planted = shortcut.plant(train, present, "tube", seed=0)
    net = shortcut.train(planted.pixels, train.labels, epochs=6, seed=0)
    learned, moved = (
        roc_auc_score(sick, shortcut.scores(net, shortcut.plant(test, w, "tube", seed=1).pixels))
        for w in (sick, ~sick)
    )
    assert learned > moved + 0.1


def test_the_share_on_the_object_counts_four_pixels_around_it(images, monkeypatch):
    masks = np.zeros(images.pixels.shape, dtype=bool)
    masks[:, 20, 20] = True
    planted = shortcut.Planted(images.pixels, masks)
    maps = iter([np.ones((64, 64)), np.zeros((64, 64))])
    monkeypatch.setattr(shortcut, "ablation_heatmap", lambda net, image: next(maps))
    assert shortcut.share_on_object(None, planted, [0, 1]) == pytest.approx(41 / 64**2 / 2)
