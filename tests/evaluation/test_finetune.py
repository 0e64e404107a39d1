"""Training end to end."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from cxr_helpers.course.core.quiet import quiet_lightning
from cxr_helpers.evaluation import finetune
from cxr_helpers.evaluation.checks import EvaluationError
from cxr_helpers.evaluation.feature_cache import backbone_key

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
    options = {"watched": watched, "recipe": RECIPE, "seed": seed}
    with quiet_lightning():
        return finetune.train(backbone or tiny_backbone(), pixels, labels, **options)


def test_what_can_be_learned_is_and_what_cannot_is_not():
    pixels, truth = bright_or_dark(200, seed=1)
    module, checks = train(*bright_or_dark(160, seed=0), test=pixels, few=pixels[:5])
    assert roc_auc_score(truth[:, 0], checks[-1]["test"][:, 0]) > 0.95
    assert 0.35 < roc_auc_score(truth[:, 1], checks[-1]["test"][:, 1]) < 0.65
    assert [check["few"].shape for check in checks] == [(5, 2)] * RECIPE.checks
    assert not np.allclose(checks[0]["test"], checks[-1]["test"])
    assert np.allclose(finetune.score(module, pixels, batch_size=7), checks[-1]["test"], atol=1e-4)


def test_the_seed_decides_and_neither_watched_images_nor_the_global_state_change():
    pixels, labels = bright_or_dark(20, seed=0)
    torch.manual_seed(5)
    state, keys = torch.random.get_rng_state(), []
    for seed, watched in ((0, pixels), (0, pixels[:3]), (1, pixels)):
        backbone = tiny_backbone()
        train(pixels, labels, backbone=backbone, seed=seed, t=watched)
        keys.append(backbone_key(backbone.eval()))
    assert torch.equal(state, torch.random.get_rng_state())
    assert keys[0] == keys[1] and len({*keys, backbone_key(tiny_backbone().eval())}) == 3


@pytest.mark.parametrize(
    ("n", "labels", "words"),
    [
        (1, np.zeros((1, 2)), "at least 2 images and one row of labels"),
        (0, np.zeros((0, 2)), "at least 2 images"),
        (4, np.zeros((3, 2)), "one row of labels for each"),
        (2, [[0, 1], [0, -1]], "labels must be 0 or 1, not -1.*leave out"),
        (2, [[0, 1], [0, np.nan]], "labels must be 0 or 1, not nan"),
        (2, [["0", "1"], ["0", "1"]], "labels must be 0 or 1, not '0'"),
    ],
)
def test_labels_that_cannot_be_trained_on_are_refused(n, labels, words):
    with pytest.raises(EvaluationError, match=words):
        train(np.zeros((n, 10, 10), np.uint8), labels)


def as_16_bits(pixels):
    return pixels.astype(np.uint16) * 257


@pytest.mark.parametrize(
    ("kind", "label_kind"),
    [
        (torch.from_numpy, torch.from_numpy),
        (as_16_bits, pd.DataFrame),
        (lambda p: p / 255, lambda a: a > 0),
        (lambda p: torch.from_numpy(p / 255).requires_grad_(), np.ndarray.tolist),
        (lambda p: torch.from_numpy(as_16_bits(p)), np.asarray),
        (lambda p: (p / 255).tolist(), np.asarray),
    ],
    ids=["uint8 tensor", "uint16", "float64", "tensor with gradient", "uint16 tensor", "list"],
)
def test_each_kind_of_image_and_label_is_scored_and_trained_the_same(kind, label_kind):
    pixels, labels = bright_or_dark(20, seed=0)
    module, checks = train(pixels, labels, t=pixels)
    assert np.allclose(finetune.score(module, kind(pixels)), checks[-1]["t"], atol=0.05)
    again = train(kind(pixels), label_kind(labels), t=kind(pixels))[1][-1]["t"]
    assert np.allclose(again, checks[-1]["t"], atol=0.1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.astype(np.int64), "images are int64; give uint8"),
        (lambda p: p.astype(float), "image 0 is float64 with values from .*8 bits come as uint8"),
        (lambda p: p[:, None], r"shape \(6, 1, 10, 10\); expected gray"),
    ],
)
def test_what_is_no_gray_image_is_refused_before_training(change, words):
    pixels, labels = bright_or_dark(6, seed=0)
    with pytest.raises(EvaluationError, match=words):
        train(change(pixels), labels)
    with pytest.raises(EvaluationError, match="watched val image"):
        train(pixels, labels, val=change(pixels))


def gray_backbone(channels):
    layers = nn.Conv2d(channels, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers)


def test_a_backbone_of_one_channel_is_trained():
    pixels, labels = bright_or_dark(20, seed=0)
    module, checks = train(pixels, labels, backbone=gray_backbone(1), t=pixels, none=pixels[:0])
    assert module.head.in_features == 6 and checks[-1]["t"].shape == (20, 2)
    assert checks[-1]["none"].shape == (0, 2)


@pytest.mark.parametrize(
    ("backbone", "norm", "words"),
    [
        (gray_backbone(4), {}, "takes 4 channels"),
        (nn.Conv2d(3, 7, 3), {}, r"gives \(1, 7, 6, 6\) for a batch; expected one \(B, D\)"),
        (
            gray_backbone(1),
            {"mean": (0.4, 0.5, 0.6)},
            "mean has 3 values, and the backbone takes 1",
        ),
        (gray_backbone(1), {"std": 0}, "std 0 cannot normalize"),
    ],
)
def test_a_backbone_that_does_not_fit_the_recipe_is_refused(backbone, norm, words):
    with pytest.raises(EvaluationError, match=words):
        recipe = finetune.Recipe(image_size=8, **norm)
        finetune.Classifier(backbone, n_classes=2, recipe=recipe, total_steps=1)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"checks": 0}, {"epochs": 0, "min_steps": 0}])
def test_a_recipe_that_trains_nothing_is_refused(wrong):
    with pytest.raises(EvaluationError, match=next(iter(wrong))):
        finetune.Recipe(image_size=8, **wrong)
