"""The preset `paper` at full size: the networks are built as published and take a step."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.course.core.settings import PRESETS, load_settings
from cxr_helpers.evaluation import probe

PRESET = PRESETS["paper"]["pretrain"]
STEPS = 100_000


@pytest.fixture(scope="module")
def module():
    """ResNet-50 and the projector of 8192; random, since ImageNet's weights need a network."""
    preset = replace(PRESET, initial_weights="random")
    made = pretraining.build_module(preset, seed=0, total_steps=STEPS)
    made.log_dict = lambda logged, **kwargs: made.told.update(logged)
    made.told = {}
    return made


def test_network_and_rates_are_the_published_ones(module):
    widths = [
        layer.out_features
        for layer in module.projector.layers
        if hasattr(layer, "weight") and layer.weight.ndim == 2
    ]
    assert widths == [8192, 8192, 8192]
    made = module.configure_optimizers()
    weights, others = made["optimizer"].param_groups
    warmup = made["lr_scheduler"]["scheduler"]
    scale = PRESET.batch_size / 256
    assert weights["initial_lr"] == pytest.approx(0.2 * scale)
    assert others["initial_lr"] == pytest.approx(0.0048 * scale)
    assert (weights["weight_decay"], others["weight_decay"]) == (1e-6, 0)
    share = warmup.lr_lambdas[0]
    assert share(STEPS // 60 - 1) == pytest.approx(1, abs=1e-3)  # 10 of 600 epochs
    assert share(STEPS) == 0


def test_one_step_at_full_size_moves_the_weights(module):
    images = np.random.default_rng(0).integers(0, 256, (4, 256, 256), dtype=np.uint8)
    make_views = pretraining.two_views(PRESET)
    first, second = map(torch.stack, zip(*map(make_views, images), strict=True))
    assert first.shape == (4, 1, 224, 224)
    optimizer = module.configure_optimizers()["optimizer"]
    before = module.backbone.conv1.weight.detach().clone()
    loss = module.training_step((first, second), 0)
    loss.backward()
    optimizer.step()
    terms = module.told["invariance"] + 0.0051 * module.told["redundancy"]
    assert torch.isclose(loss, terms, rtol=1e-3)
    moved = module.backbone.conv1.weight.detach() - before
    assert torch.isfinite(moved).all() and moved.abs().max() > 0


def test_linear_evaluation_at_full_size_reads_features_and_fits_a_probe():
    settings = replace(load_settings({}), **PRESETS["paper"])
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 256, 256), dtype=np.uint8)
    backbone = pretraining.barlow.build_backbone(settings.pretrain.arch, seed=0)
    features = pretraining.features(settings, backbone, pixels, "pretrained")
    assert features.shape == (12, 2048) and np.isfinite(features).all()
    labels = np.arange(12)[:, None] % 2
    fitted = probe.fit_path(features, labels, probe.REGULARIZATION)
    assert len(fitted) == len(probe.REGULARIZATION)
    assert (fitted[-1].scores(features)[:, 0] > 0).tolist() == labels[:, 0].astype(bool).tolist()
    assert settings.probe.fractions[0] == 0.01 and settings.probe.resamples == 1000
