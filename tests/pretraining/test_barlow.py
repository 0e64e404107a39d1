"""Barlow Twins: loss terms, backbone, training module, what tells collapse."""

import re

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
import torchvision
from lightly.loss import BarlowTwinsLoss
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from cxr_helpers.pretraining import barlow, pairs, views, weights

Z_A = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
Z_B = Z_A + 0.5 * torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
IMAGES = torch.randn(16, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_correlation_worked_out_by_hand():
    z_a = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    z_b = np.array([[2, 5], [2, 5], [0, 5], [0, 5]])
    expected = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert torch.allclose(barlow.cross_correlation(z_a, z_b), expected, atol=1e-4)


def test_the_terms_make_lightlys_loss():
    invariance, redundancy = barlow.loss_terms(barlow.cross_correlation(Z_A, Z_B))
    for weight in (0.0, 5e-3, 1.0):
        expected = BarlowTwinsLoss(weight)(Z_A, Z_B)
        assert torch.isclose(invariance + weight * redundancy, expected, rtol=1e-4)


def test_scale_and_shift_of_a_feature_do_not_matter():
    moved = Z_B * torch.linspace(0.1, 9, 16) + 3
    a, b = barlow.cross_correlation(Z_A, Z_B), barlow.cross_correlation(Z_A, moved)
    assert torch.allclose(a, b, atol=1e-3)


@pytest.mark.parametrize("shapes", [((1, 4), (1, 4)), ((4, 4), (4, 5)), ((4,), (4,))])
def test_batches_that_cannot_be_correlated_are_refused(shapes):
    with pytest.raises(ValueError, match="at least 2 images"):
        barlow.cross_correlation(*(torch.zeros(s) for s in shapes))


def test_measures_of_arrays_and_of_edge_cases():
    matrix = np.array([[0.5, 0.1], [0.0, 1.0]])
    assert barlow.offdiagonal_abs_mean(matrix) == pytest.approx(0.05)
    assert [round(x.item(), 4) for x in barlow.loss_terms(matrix)] == [0.25, 0.01]
    assert barlow.offdiagonal_abs_mean(torch.ones(1, 1)) == 0
    assert barlow.offdiagonal_abs_mean(torch.eye(4)) == 0
    assert barlow.effective_rank(np.eye(4)) == pytest.approx(3)


@pytest.mark.parametrize("wrong", [torch.ones(2, 3), torch.ones(3), torch.ones(0, 0)])
@pytest.mark.parametrize("measure", [barlow.offdiagonal_abs_mean, barlow.loss_terms])
def test_what_is_no_correlation_is_refused(measure, wrong):
    with pytest.raises(ValueError, match=r"expected a correlation \(D, D\)"):
        measure(wrong)


def test_the_effective_rank_tells_a_line_from_a_cloud():
    generator = torch.Generator().manual_seed(0)
    cloud = torch.randn(500, 32, generator=generator)
    line = torch.randn(500, 1, generator=generator) @ torch.randn(1, 32, generator=generator)
    assert barlow.effective_rank(cloud) > 25 and barlow.effective_rank(line) < 1.1
    for wrong in (torch.ones(1, 3), torch.ones(3), torch.full((3, 2), torch.nan)):
        with pytest.raises(ValueError, match=r"expected finite features \(N, D\)"):
            barlow.effective_rank(wrong)


@pytest.mark.parametrize("arch, features", [("resnet18", 512), ("resnet50", 2048)])
def test_backbones_keep_torchvisions_names(arch, features):
    backbone = barlow.build_backbone(arch, seed=0)
    theirs = torchvision.models.get_model(arch).state_dict()
    assert backbone.state_dict().keys() == {k for k in theirs if not k.startswith("fc.")}
    assert barlow.feature_count(backbone) == features


def test_features_of_wide_bottlenecks_are_counted_and_of_another_network_refused():
    assert barlow.feature_count(torchvision.models.resnext50_32x4d()) == 2048
    without = torchvision.models.resnet18()
    without.layer4 = torch.nn.Identity()
    for other in (torch.nn.Linear(2, 2), torchvision.models.squeezenet1_1(), without):
        with pytest.raises(ValueError, match=f"a {type(other).__name__} is no ResNet.*build_back"):
            barlow.feature_count(other)


def test_the_seed_fixes_the_weights_and_leaves_global_state_and_gpus_alone(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    before = torch.random.get_rng_state()
    a, b, c = (barlow.build_backbone("resnet18", seed=s).conv1.weight for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(before, torch.random.get_rng_state()) and seeded == []
    with pytest.raises(ValueError, match="no backbone 'vgg'"):
        barlow.build_backbone("vgg", seed=0)


def module(**changes):
    backbone = barlow.build_backbone("resnet18", seed=0)
    pl.seed_everything(0, verbose=False)
    return barlow.BarlowTwins(backbone, **{"projector": (32, 32, 16), "batch_size": 8, **changes})


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"projector": (0, 0, 0)}, "projector"),
        ({"projector": (8, 16, 16)}, "projector"),
        ({"batch_size": 1}, "batch_size 1"),
        ({"total_steps": 0}, "total_steps 0"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd'"),
    ],
)
def test_wrong_settings_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        module(**wrong)


@pytest.mark.parametrize("optimizer, rate", [("adamw", 0.1), ("lars", 0.1 * 8 / 256)])
def test_norms_and_biases_have_no_weight_decay(optimizer, rate):
    made = module(optimizer=optimizer, learning_rate=0.1, weight_decay=0.5)
    groups = made.configure_optimizers()["optimizer"].param_groups
    assert [g["weight_decay"] for g in groups] == [0.5, 0.0]
    assert groups[0]["initial_lr"] == pytest.approx(rate)
    assert all(p.ndim == 1 for p in groups[1]["params"])
    assert sum(len(g["params"]) for g in groups) == len(list(made.parameters()))


def test_the_rate_rises_then_falls_to_zero_after_the_last_step():
    schedule = module(total_steps=6, warmup_fraction=1 / 3).configure_optimizers()["lr_scheduler"]
    shares = [schedule["scheduler"].scale_lr(step) for step in range(8)]
    assert np.round(shares, 2).tolist() == [0.5, 1.0, 1.0, 0.85, 0.5, 0.15, 0.0, 0.0]
    assert schedule["interval"] == "step"


def fit(made, **options):
    loader = DataLoader(TensorDataset(IMAGES, IMAGES + 0.1), batch_size=8, drop_last=True)
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = pl.Trainer(accelerator="cpu", **dict.fromkeys(off, False) | options)
    trainer.fit(made, loader)
    return trainer.callback_metrics


def test_training_lowers_the_loss(tmp_path):
    logger = pl.loggers.CSVLogger(tmp_path, name="", version="")
    fit(module(total_steps=12), max_epochs=6, logger=logger, log_every_n_steps=1)
    log = pd.read_csv(tmp_path / "metrics.csv")
    assert log["loss"].iloc[-1] < 0.8 * log["loss"].iloc[0]
    terms = log["invariance"] + 5e-3 * log["redundancy"]
    assert (terms - log["loss"]).abs().max() < 1e-3


class Products(TorchDispatchMode):
    """Counts the matrix products whose result is (16, 16)."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
            self.count += tuple(found.shape) == (16, 16)
        return found


@pytest.mark.filterwarnings("ignore:.*log")
def test_a_step_makes_the_correlation_once_and_its_loss_is_lightlys():
    made = module()
    with Products() as products:
        loss = made.training_step((IMAGES[:8], IMAGES[8:]), 0)
    assert products.count == 1 and loss.requires_grad
    assert isinstance(made.criterion, BarlowTwinsLoss) and made.criterion.lambda_param == 5e-3
    with Products() as products:  # so that the count above means something
        barlow.cross_correlation(Z_A, Z_B)
    assert products.count == 1


@pytest.mark.parametrize(("images", "width"), [(64, 16), (8, 16), (2, 16), (64, 1)])
def test_what_is_logged_without_the_matrix_is_what_the_matrix_says(images, width):
    z_a, z_b = Z_A[:images, :width], Z_B[:images, :width]
    loss, logged = module()._loss_and_log(z_a, z_b)
    matrix = barlow.cross_correlation(z_a, z_b)
    invariance, redundancy = (term.item() for term in barlow.loss_terms(matrix))
    logged = {name: value.item() for name, value in logged.items()}
    assert logged["invariance"] == pytest.approx(invariance, abs=1e-4)
    assert logged["redundancy"] == pytest.approx(redundancy, rel=1e-4, abs=1e-4)
    assert logged["diagonal_mean"] == pytest.approx(matrix.diagonal().mean().item(), abs=1e-5)
    assert loss.item() == pytest.approx(invariance + 5e-3 * redundancy, rel=1e-4)


@pytest.mark.parametrize("limits", [{"max_epochs": 2}, {"max_steps": 3}, {"max_steps": 5}])
def test_the_mean_off_the_diagonal_is_that_of_the_last_step(limits):
    made, kept = module(total_steps=5), []
    step = made._loss_and_log
    made._loss_and_log = lambda *z: kept.append([x.detach().clone() for x in z]) or step(*z)
    logged = fit(made, **limits)
    expected = barlow.offdiagonal_abs_mean(barlow.cross_correlation(*kept[-1]))
    assert logged["offdiagonal_abs_mean"].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("views", "error", "message"),
    [
        (torch.zeros(1, 1, 32, 32), ValueError, "batch of 1 image"),
        (torch.full((8, 1, 32, 32), torch.nan), FloatingPointError, "step 0; lower the learning"),
    ],
)
def test_a_batch_that_cannot_train_stops_with_a_remedy(views, error, message):
    with pytest.raises(error, match=message):
        module().training_step((views, views), 0)


def test_another_criterion_can_be_given():
    def redundancy_only(z_a, z_b):
        return barlow.loss_terms(barlow.cross_correlation(z_a, z_b))[1]

    made = module(criterion=redundancy_only)
    assert made.criterion is redundancy_only
    assert "criterion" not in made.hparams and "backbone" not in made.hparams


@pytest.mark.slow
def test_the_run_in_the_files_head_runs(tmp_path, monkeypatch):
    """As it stands there, but for one epoch instead of forty."""
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"^    (.*)$", barlow.__doc__, re.MULTILINE)
    names = vars(pairs) | vars(views) | vars(weights) | vars(barlow)
    images = np.random.default_rng(0).integers(0, 256, (128, 64, 64), np.uint8)
    exec("\n".join(lines).replace("40", "1"), names | {"pixels": images})
    kept, told = weights.read_weights(tmp_path / "backbone.safetensors")
    assert "layer4.1.bn2.weight" in kept and told["epochs"] == 1
