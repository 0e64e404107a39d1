"""Training end to end."""

import copy

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from cxr_helpers import finetune
from cxr_helpers.course.quiet import quiet_lightning
from cxr_helpers.feature_cache import backbone_key

RECIPE = finetune.Recipe(
    image_size=8, epochs=6, min_steps=5, checks=3, batch_size=16, learning_rate=0.02
)


def tiny_backbone():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layers = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        return nn.Sequential(*layers, nn.Flatten())


def bright_or_dark(n, seed):
    """Images whose first label is their brightness; the second label is a coin."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, size=(n, 2))
    pixels = rng.integers(0, 100, size=(n, 10, 10)) + 100 * labels[:, :1, None]
    return pixels.astype(np.uint8), labels


def train(pixels, labels, *, backbone=None, seed=0, **watched):
    with quiet_lightning():
        return finetune.train(
            backbone or tiny_backbone(),
            pixels,
            labels,
            watched=watched,
            n_features=6,
            recipe=RECIPE,
            seed=seed,
        )


def test_what_can_be_learned_is_and_what_cannot_is_not():
    pixels, truth = bright_or_dark(200, seed=1)
    module, checks = train(*bright_or_dark(160, seed=0), test=pixels)
    assert roc_auc_score(truth[:, 0], checks[-1]["test"][:, 0]) > 0.95
    assert 0.35 < roc_auc_score(truth[:, 1], checks[-1]["test"][:, 1]) < 0.65
    assert np.allclose(finetune.score(module, pixels, batch_size=7), checks[-1]["test"], atol=1e-4)


def test_checks_come_evenly_and_the_last_is_the_end():
    pixels, labels = bright_or_dark(40, seed=0)
    _, steps = finetune.step_count(40, RECIPE)
    _, checks = train(pixels, labels, val=pixels[:5], test=pixels[:7])
    assert steps == 12 and len(checks) == 3
    assert [c["val"].shape for c in checks] == [(5, 2)] * 3
    assert not np.allclose(checks[0]["test"], checks[-1]["test"])


def test_the_seed_decides_and_the_global_state_is_left_alone():
    pixels, labels = bright_or_dark(20, seed=0)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    runs = [train(pixels, labels, seed=s, t=pixels)[1][-1]["t"] for s in (0, 0, 1)]
    assert torch.equal(state, torch.random.get_rng_state())
    assert np.allclose(runs[0], runs[1]) and not np.allclose(runs[0], runs[2])


def test_watched_images_train_nothing():
    pixels, labels = bright_or_dark(20, seed=0)
    other, _ = bright_or_dark(30, seed=9)
    alone, watched = tiny_backbone(), tiny_backbone()
    train(pixels, labels, backbone=alone, t=pixels)
    train(pixels, labels, backbone=watched, t=other)
    assert backbone_key(alone.eval()) == backbone_key(watched.eval())


def test_training_changes_the_backbone_that_is_passed_and_no_copy():
    pixels, labels = bright_or_dark(20, seed=0)
    backbone = tiny_backbone()
    kept = copy.deepcopy(backbone)
    train(pixels, labels, backbone=backbone)
    assert backbone_key(backbone.eval()) != backbone_key(kept.eval())


@pytest.mark.parametrize(("n", "rows"), [(1, 1), (0, 0), (4, 3)])
def test_what_cannot_be_trained_on_is_refused(n, rows):
    with pytest.raises(finetune.FinetuneError, match="at least 2 images and one row of labels"):
        train(np.zeros((n, 10, 10), np.uint8), np.zeros((rows, 2)))
