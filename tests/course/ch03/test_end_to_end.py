"""Networks trained end to end, on made-up images."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cxr_helpers.course.ch03 import end_to_end, linear
from cxr_helpers.evaluation import scoring
from cxr_helpers.evaluation.features import extract_features
from cxr_helpers.pretraining import barlow


def test_training_end_to_end_is_chosen_on_validation(settings, data):
    arm = linear.Arm(barlow.build_backbone("resnet18", seed=0), False, "")
    before = arm.backbone.conv1.weight.clone()
    draws = end_to_end.few_draws(settings, linear.draw_labels(settings, data, [0, 1]))
    assert list(draws.rows) == [1.0]
    run = end_to_end.train_end_to_end(settings, data, arm, [0, 1], draws.rows[1.0][0])
    assert torch.equal(arm.backbone.conv1.weight, before)  # a copy was trained
    assert run.test.shape == (len(run.val), len(data.rows("test")), 2)
    val_labels = data.labels[data.rows("val")][:, :2]
    values = [np.mean(scoring.auroc(val_labels, scores)) for scores in run.val]
    assert run.chosen == np.argmax(values)


def test_a_label_without_positives_is_not_scored_end_to_end(settings, data):
    arm = linear.Arm(barlow.build_backbone("resnet18", seed=0), False, "")
    healthy = [r for r in data.rows("train") if not data.labels[r, 1]][:40]
    run = end_to_end.train_end_to_end(settings, data, arm, [0, 1], np.array(healthy))
    assert np.isnan(run.test[..., 1]).all() and np.isfinite(run.test[..., 0]).all()


def test_shares_that_were_not_drawn_are_not_passed_over_in_silence(settings, data):
    draws = linear.draw_labels(settings, data, [0, 1])
    other = replace(settings, probe=replace(settings.probe, finetune_fractions=(0.5,)))
    with pytest.raises(ValueError, match=r"shares \[0.5\].*there are \[0.2, 1.0\]"):
        end_to_end.few_draws(other, draws)


def test_a_backbone_of_one_channel_is_trained_and_asked_for_features(settings, data):
    gray, three = (barlow.build_backbone("resnet18", seed=0) for _ in range(2))
    gray.conv1 = torch.nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    gray.conv1.weight.data = three.conv1.weight.detach().sum(dim=1, keepdim=True)
    pixels = data.images.pixels[:4]
    features = [extract_features(b, pixels, image_size=32) for b in (gray, three)]
    assert np.allclose(*features, atol=1e-3)  # the same weights, summed over the channels
    rows = data.rows("train")[:40]
    run = end_to_end.train_end_to_end(settings, data, linear.Arm(gray, False, ""), [0, 1], rows)
    assert run.test.shape[1:] == (len(data.rows("test")), 2)
