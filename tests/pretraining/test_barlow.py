"""Barlow Twins: loss terms, training module, weights in and out."""

import gzip
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torchvision
from lightly.loss import BarlowTwinsLoss
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from cxr_helpers.pretraining import barlow

Z_A = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
Z_B = Z_A + 0.5 * torch.randn(64, 16, generator=torch.Generator().manual_seed(1))


def test_a_correlation_worked_out_by_hand():
    z_a = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    z_b = torch.tensor([[2.0, 5.0], [2.0, 5.0], [0.0, 5.0], [0.0, 5.0]])
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


def test_diagnostics_tell_collapse_from_spread():
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(500, 32, generator=generator)
    collapsed = torch.ones(500, 32) + 1e-3 * spread
    assert barlow.feature_spread(spread) > 0.9 > 0.1 > barlow.feature_spread(collapsed)
    line = torch.randn(500, 1, generator=generator) @ torch.randn(1, 32, generator=generator)
    assert barlow.effective_rank(spread) > 25 and barlow.effective_rank(line) < 1.1
    identity = torch.eye(4)
    assert barlow.diagonal_mean(identity) == 1 and barlow.offdiagonal_abs_mean(identity) == 0
    assert barlow.offdiagonal_abs_mean(torch.ones(4, 4)) == 1


@pytest.mark.parametrize("arch, features", [("resnet18", 512), ("resnet50", 2048)])
def test_backbones_keep_torchvisions_names(arch, features):
    backbone = barlow.build_backbone(arch, seed=0)
    theirs = torchvision.models.get_model(arch).state_dict()
    assert backbone.state_dict().keys() == {k for k in theirs if not k.startswith("fc.")}
    assert barlow.feature_count(backbone) == features


def test_features_of_wide_bottlenecks_are_counted_too():
    assert barlow.feature_count(torchvision.models.resnext50_32x4d()) == 2048


def without_layer4():
    network = torchvision.models.resnet18()
    network.layer4 = torch.nn.Identity()
    return network


@pytest.mark.parametrize(
    "other", [torch.nn.Linear(2, 2), torchvision.models.squeezenet1_1(), without_layer4()]
)
def test_features_of_another_network_are_not_counted(other):
    with pytest.raises(ValueError, match=f"a {type(other).__name__} is no ResNet.*build_backbone"):
        barlow.feature_count(other)


def test_the_seed_fixes_the_weights_and_leaves_the_global_state():
    before = torch.random.get_rng_state()
    a, b, c = (barlow.build_backbone("resnet18", seed=s).conv1.weight for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(before, torch.random.get_rng_state())
    with pytest.raises(ValueError, match="no backbone 'vgg'"):
        barlow.build_backbone("vgg", seed=0)


def test_the_seed_of_the_weights_does_not_reach_a_gpu(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    barlow.build_backbone("resnet18", seed=7)
    assert seeded == []


def test_one_channel_gives_the_features_of_three(tmp_path):
    one = barlow.build_backbone("resnet18", seed=0, channels=1).eval()
    three = barlow.build_backbone("resnet18", seed=0).eval()
    gray = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(one(gray), three(gray.expand(-1, 3, -1, -1)), atol=1e-4)
    barlow.save_backbone(one, tmp_path / "one.safetensors", settings={})
    state = barlow.read_weights(tmp_path / "one.safetensors")[0]
    torchvision.models.resnet18().load_state_dict(state, strict=False)  # raises on wrong shapes
    for channels in (1, 3):
        loaded = barlow.build_backbone("resnet18", seed=9, channels=channels).eval()
        barlow.load_weights(loaded, state)
        shown = gray.expand(-1, channels, -1, -1)
        assert torch.allclose(loaded(shown), one(gray), atol=1e-4)
    with pytest.raises(ValueError, match="channels is 2"):
        barlow.build_backbone("resnet18", seed=0, channels=2)


def test_one_channel_trains_like_three():
    images = torch.randn(2, 8, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    losses = []
    for channels in (1, 3):
        backbone = barlow.build_backbone("resnet18", seed=0, channels=channels)
        torch.manual_seed(0)
        made = barlow.BarlowTwins(backbone, projector=(32, 32, 16))
        losses.append(made.criterion(made(images[0]), made(images[1])).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match=r"file/new cannot be written .*; choose a folder"):
        barlow.save_backbone(
            barlow.build_backbone("resnet18", seed=0),
            tmp_path / "file" / "new" / "b.safetensors",
            settings={},
        )
    barlow.check_writable(tmp_path / "fresh")
    assert os.listdir(tmp_path / "fresh") == []


def test_saving_and_reading_back_is_exact(tmp_path):
    backbone = barlow.build_backbone("resnet18", seed=0)
    path = tmp_path / "new" / "backbone.safetensors"
    barlow.save_backbone(backbone, path, settings={"epochs": 3})
    state, settings = barlow.read_weights(path)
    assert settings == {"epochs": 3}
    assert all(torch.equal(v, state[k]) for k, v in backbone.state_dict().items())
    assert os.listdir(path.parent) == ["backbone.safetensors"]


def test_weights_are_not_saved_under_another_suffix(tmp_path):
    backbone = barlow.build_backbone("resnet18", seed=0)
    with pytest.raises(ValueError, match=r"c\.pth must end in \.safetensors"):
        barlow.save_backbone(backbone, tmp_path / "c.pth", settings={})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone."])
def test_torch_files_load_with_any_prefix_and_classifier(tmp_path, prefix):
    source = torchvision.models.resnet18()
    path = tmp_path / "weights.pth"
    state = {prefix + k: v for k, v in source.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, path)
    backbone = barlow.build_backbone("resnet18", seed=5)
    barlow.load_weights(backbone, barlow.read_weights(path)[0])
    assert torch.equal(backbone.layer4[1].conv2.weight, source.layer4[1].conv2.weight)


def original_state(prefix=""):
    """The names of the original Barlow Twins: its released ResNet-50, or its whole model."""
    state = {k: v for k, v in torchvision.models.resnet50().state_dict().items() if k[:3] != "fc."}
    if not prefix:
        return state
    heads = {
        "module.projector.0.weight": torch.zeros(4, 4),
        "module.bn.running_mean": torch.ones(4),
    }
    return {f"{prefix}{k}": v for k, v in state.items()} | heads


@pytest.mark.parametrize("prefix", ["", "module.backbone."], ids=["released", "whole model"])
def test_the_original_resnet50_loads(tmp_path, prefix):
    path, state = tmp_path / "resnet50.pth", original_state(prefix)
    torch.save({"epoch": 1000, "model": state} if prefix else state, path)
    backbone = barlow.build_backbone("resnet50", seed=5)
    barlow.load_weights(backbone, barlow.read_weights(path)[0])
    expected = state[f"{prefix}layer4.2.conv3.weight"]
    assert torch.equal(backbone.layer4[2].conv3.weight, expected)


def test_our_own_training_checkpoint_loads_as_a_backbone(tmp_path):
    made = module()
    torch.save({"state_dict": made.state_dict(), "epoch": 2}, tmp_path / "last.ckpt")
    backbone = barlow.build_backbone("resnet18", seed=5)
    barlow.load_weights(backbone, barlow.read_weights(tmp_path / "last.ckpt")[0])
    assert torch.equal(backbone.conv1.weight, made.backbone.conv1.weight)


def test_weights_of_another_architecture_name_every_key():
    backbone = barlow.build_backbone("resnet18", seed=0)
    other = barlow.build_backbone("resnet50", seed=0).state_dict()
    with pytest.raises(barlow.WeightsError, match="another architecture") as caught:
        barlow.load_weights(backbone, other)
    own = backbone.state_dict()
    wrong = {k for k in own.keys() | other.keys() if k not in own or k not in other}
    wrong |= {k for k in own.keys() & other.keys() if own[k].shape != other[k].shape}
    assert len(wrong) > 200 and all(key in str(caught.value) for key in wrong)


def test_weights_that_do_not_fit_are_named():
    backbone = barlow.build_backbone("resnet18", seed=0)
    state = dict(backbone.state_dict())
    del state["layer1.0.conv1.weight"]
    with pytest.raises(barlow.WeightsError, match=r"1 missing: layer1\.0\.conv1\.weight"):
        barlow.load_weights(backbone, state)
    with pytest.raises(barlow.WeightsError, match="1 not known here: head"):
        barlow.load_weights(backbone, {**backbone.state_dict(), "head": torch.zeros(1)})


def test_a_prefix_that_all_names_share_is_named_in_one_line():
    backbone = barlow.build_backbone("resnet18", seed=0)
    other = {f"encoder.{key}": value for key, value in backbone.state_dict().items()}
    with pytest.raises(barlow.WeightsError, match="all 120 names begin with `encoder.`") as caught:
        barlow.load_weights(backbone, other)
    assert len(str(caught.value)) < 200
    with pytest.raises(barlow.WeightsError, match="1 not known here: bn9"):
        barlow.load_weights(backbone, {"bn9": torch.zeros(1), **backbone.state_dict()})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {"model_state_dict": {"conv1.weight": torch.zeros(1)}, "epoch": 3},
            "'model_state_dict', ",
        ),
        ([torch.zeros(1)], "but list"),
    ],
)
def test_a_file_without_a_state_dict_says_what_it_holds(tmp_path, content, words):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(barlow.WeightsError, match=f"w.pth holds no state dict.*{words}"):
        barlow.read_weights(tmp_path / "w.pth")


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_loading_never_runs_code_from_the_file(tmp_path):
    proof = tmp_path / "ran"
    for name, write in {
        "a.pth": torch.save,
        "b.pth": lambda x, p: p.write_bytes(pickle.dumps(x)),
    }.items():
        write({"state_dict": Malicious(proof)}, tmp_path / name)
        with pytest.raises(barlow.WeightsError, match=name):
            barlow.read_weights(tmp_path / name)
    assert not proof.exists()


def cut(path):
    path.write_bytes(path.read_bytes()[:-300])


SMALL = {"conv1.weight": torch.ones(1000)}
LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.mark.parametrize(
    ("name", "make", "told"),
    [
        ("a.pth", lambda p: p.write_bytes(b""), "is empty; fetch it again"),
        ("a.pth", lambda p: p.write_text("<!DOCTYPE html><p>log in"), "is a web page"),
        ("a.safetensors", lambda p: p.write_text("\ufeff\n <html>log in"), "is a web page"),
        ("a.pth", lambda p: p.write_text(LFS_POINTER), "Git LFS pointer.*run `git lfs pull`"),
        ("a.safetensors", lambda p: p.write_text(LFS_POINTER), "Git LFS pointer"),
        ("a.pth", lambda p: p.write_text('{"error": "no access"}'), r"is text \(JSON\)"),
        ("a.pth", lambda p: p.write_bytes(gzip.compress(b"x")), "packed with gzip; unpack it"),
        ("a.pth", lambda p: save_file(SMALL, p), r"holds safetensors; rename it .*\.safetensors"),
        ("a.safetensors", lambda p: torch.save(SMALL, p), r"torch.save writes it; rename .*\.pth"),
        ("a.pth", lambda p: (torch.save(SMALL, p), cut(p)), "is cut: its end is missing"),
        ("a.safetensors", lambda p: (save_file(SMALL, p), cut(p)), "cannot be read as safetensors"),
        ("a.pth", lambda p: p.write_text("hello"), "is no file that torch.save wrote"),
        ("a.pth", lambda p: p.mkdir(), "cannot be read: Is a directory"),
        ("a.pth", lambda p: torch.save({}, p), "holds no state dict"),
        ("a.pth", lambda p: torch.save({0: torch.zeros(1)}, p), "holds no state dict"),
    ],
)
def test_what_is_no_weights_is_called_what_it_is(tmp_path, name, make, told):
    make(tmp_path / name)
    with pytest.raises(barlow.WeightsError, match=told) as caught:
        barlow.read_weights(tmp_path / name)
    text = str(caught.value)
    assert text.count(name) == 1 and "trust" not in text and "code" not in text


def test_no_length_of_a_header_makes_safetensors_look_like_something_else(tmp_path):
    """A header of safetensors may be padded with spaces; its length is the file's first byte."""
    header = b'{"conv1.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    path = tmp_path / "a.safetensors"
    for first in (*b"<{ \n", 0x1F, 0x50, 0x80, 0xEF):
        padded = header.ljust(len(header) + (first - len(header)) % 256)
        path.write_bytes(len(padded).to_bytes(8, "little") + padded + b"\0\0\x80?")
        assert path.read_bytes()[0] == first
        assert barlow.read_weights(path) == ({"conv1.weight": torch.ones(1)}, {})


def test_code_is_named_and_only_then_trust_is_spoken_of(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(barlow.WeightsError, match=r"more than tensors \(torch\.nn\..*Linear\)"):
        barlow.read_weights(tmp_path / "module.pth")


@pytest.mark.parametrize("settings", ["not JSON", "[1, 2]", "3"])
def test_what_another_program_wrote_beside_the_weights_is_passed_over(tmp_path, settings):
    save_file(SMALL, tmp_path / "a.safetensors", metadata={"settings": settings})
    state, told = barlow.read_weights(tmp_path / "a.safetensors")
    assert told == {} and torch.equal(state["conv1.weight"], SMALL["conv1.weight"])


def test_text_for_a_path_and_numbers_of_numpy_are_taken(tmp_path):
    backbone, path = barlow.build_backbone("resnet18", seed=0), f"{tmp_path}/new/b.safetensors"
    settings = {"seed": np.int64(3), "rate": np.float32(0.5), "loss": torch.tensor(2.0)}
    barlow.save_backbone(backbone, path, settings=settings)
    state, told = barlow.read_weights(path)
    assert told == {"seed": 3, "rate": 0.5, "loss": 2.0}
    barlow.load_weights(
        barlow.build_backbone("resnet18", seed=1),
        {name: value.numpy() for name, value in state.items()},
    )
    with pytest.raises(ValueError, match="setting .*made.* is no number, text, list or dict"):
        barlow.save_backbone(backbone, path, settings={"folder": Path("made")})
    barlow.check_writable(str(tmp_path))


def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path):
    backbone = barlow.build_backbone("resnet18", seed=0)
    torch.nn.init.constant_(backbone.bn1.bias, float("nan"))
    with pytest.raises(barlow.WeightsError, match=r"not finite, such as bn1\.bias"):
        barlow.save_backbone(backbone, tmp_path / "b.safetensors", settings={})
    assert not list(tmp_path.iterdir())
    with pytest.raises(barlow.WeightsError, match=r"not finite, such as bn1\.bias"):
        barlow.load_weights(barlow.build_backbone("resnet18", seed=0), backbone.state_dict())


def test_two_networks_in_one_file_are_not_mixed():
    with pytest.raises(barlow.WeightsError, match=r"conv1\.weight is there twice"):
        barlow.strip_prefixes({"backbone.conv1.weight": 1, "conv1.weight": 2})


def test_channels_that_cannot_be_had_are_refused():
    with pytest.raises(ValueError, match="channels is 2"):
        barlow.with_channels({"conv1.weight": torch.ones(4, 3, 1, 1)}, 2)
    assert [
        barlow.build_backbone("resnet18", seed=0, channels=c).conv1.in_channels for c in (1, 3)
    ] == [1, 3]


def test_arrays_are_measured_as_tensors_are():
    matrix = np.array([[0.5, 0.1], [0.0, 1.0]])
    assert barlow.diagonal_mean(matrix) == 0.75 and barlow.offdiagonal_abs_mean(
        matrix
    ) == pytest.approx(0.05)
    assert [round(x.item(), 4) for x in barlow.loss_terms(matrix)] == [0.25, 0.01]
    assert barlow.offdiagonal_abs_mean(torch.ones(1, 1)) == 0
    assert barlow.effective_rank(np.eye(4)) == pytest.approx(3)
    assert barlow.feature_spread(np.eye(2)) == pytest.approx(1)
    whole = barlow.cross_correlation(np.array([[1], [-1]]), np.array([[3], [1]]))
    assert whole.item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("wrong", [torch.ones(2, 3), torch.ones(3), torch.ones(0, 0)])
def test_what_is_no_correlation_is_refused(wrong):
    for measure in (barlow.diagonal_mean, barlow.offdiagonal_abs_mean, barlow.loss_terms):
        with pytest.raises(ValueError, match=r"expected a correlation \(D, D\)"):
            measure(wrong)


@pytest.mark.parametrize("wrong", [torch.ones(1, 3), torch.ones(3), torch.full((3, 2), torch.nan)])
def test_features_that_cannot_be_measured_are_refused(wrong):
    for measure in (barlow.feature_spread, barlow.effective_rank):
        with pytest.raises(ValueError, match=r"expected finite features \(N, D\)"):
            measure(wrong)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("content", [b"", b"text, not weights", b"\x00" * 100])
def test_damaged_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(barlow.WeightsError, match=name):
        barlow.read_weights(tmp_path / name)
    with pytest.raises(barlow.WeightsError, match="does not exist"):
        barlow.read_weights(tmp_path / f"no_{name}")


def test_a_truncated_file_is_named(tmp_path):
    path = tmp_path / "cut.safetensors"
    save_file({"conv1.weight": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(barlow.WeightsError, match="cut.safetensors"):
        barlow.read_weights(path)


def module(**changes):
    backbone = barlow.build_backbone("resnet18", seed=0)
    pl.seed_everything(0, verbose=False)
    return barlow.BarlowTwins(backbone, projector=(32, 32, 16), batch_size=8, **changes)


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
    backbone = barlow.build_backbone("resnet18", seed=0)
    with pytest.raises(ValueError, match=message):
        barlow.BarlowTwins(backbone, **{"projector": (8, 8, 8), **wrong})


@pytest.mark.parametrize("optimizer, rate", [("adamw", 0.1), ("lars", 0.1 * 8 / 256)])
def test_norms_and_biases_have_no_weight_decay(optimizer, rate):
    made = module(optimizer=optimizer, learning_rate=0.1, weight_decay=0.5)
    groups = made.configure_optimizers()["optimizer"].param_groups
    assert [g["weight_decay"] for g in groups] == [0.5, 0.0]
    assert groups[0]["initial_lr"] == pytest.approx(rate)
    assert all(p.ndim == 1 for p in groups[1]["params"])
    assert sum(len(g["params"]) for g in groups) == len(list(made.parameters()))


def test_training_lowers_the_loss(tmp_path):
    images = torch.randn(16, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(images, images + 0.1), batch_size=8, drop_last=True)
    made = module(total_steps=12, learning_rate=1e-3)
    logger = pl.loggers.CSVLogger(tmp_path, name="", version="")
    trainer = pl.Trainer(
        max_epochs=6,
        accelerator="cpu",
        logger=logger,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(made, loader)
    import pandas as pd

    log = pd.read_csv(tmp_path / "metrics.csv")
    assert log["loss"].iloc[-1] < 0.8 * log["loss"].iloc[0]
    terms = log["invariance"] + 5e-3 * log["redundancy"]
    assert (terms - log["loss"]).abs().max() < 1e-3


class Products(TorchDispatchMode):
    """Counts the matrix products whose result is (side, side)."""

    def __init__(self, side):
        super().__init__()
        self.side, self.count = side, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
            self.count += tuple(found.shape) == (self.side, self.side)
        return found


@pytest.mark.filterwarnings("ignore:.*log")
def test_a_step_makes_the_correlation_once_and_its_loss_is_lightlys():
    made, images = (
        module(),
        torch.randn(2, 8, 1, 32, 32, generator=torch.Generator().manual_seed(0)),
    )
    with Products(16) as products:
        loss = made.training_step((images[0], images[1]), 0)
    assert products.count == 1
    assert isinstance(made.criterion, BarlowTwinsLoss) and made.criterion.lambda_param == 5e-3
    with Products(16) as products:  # so that the count above means something
        barlow.cross_correlation(Z_A, Z_B)
    assert products.count == 1 and loss.requires_grad


@pytest.mark.parametrize(("images", "width"), [(64, 16), (8, 16), (2, 16), (64, 1)])
def test_what_is_logged_without_the_matrix_is_what_the_matrix_says(images, width):
    z_a, z_b = Z_A[:images, :width], Z_B[:images, :width]
    loss, logged = module()._loss_and_log(z_a, z_b)
    matrix = barlow.cross_correlation(z_a, z_b)
    invariance, redundancy = (term.item() for term in barlow.loss_terms(matrix))
    logged = {name: value.item() for name, value in logged.items()}
    assert logged["invariance"] == pytest.approx(invariance, abs=1e-4)
    assert logged["redundancy"] == pytest.approx(redundancy, rel=1e-4, abs=1e-4)
    assert logged["diagonal_mean"] == pytest.approx(barlow.diagonal_mean(matrix), abs=1e-5)
    assert loss.item() == pytest.approx(invariance + 5e-3 * redundancy, rel=1e-4)


def fitted(images, **limits):
    """What a trainer's callbacks see at the end, and the outputs of the last step."""
    made, kept = module(total_steps=5, learning_rate=1e-3), []
    step = made._loss_and_log
    made._loss_and_log = lambda *z: kept.append([x.detach().clone() for x in z]) or step(*z)
    loader = DataLoader(TensorDataset(images, images + 0.1), batch_size=8, drop_last=True)
    options = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = pl.Trainer(**limits, accelerator="cpu", **dict.fromkeys(options, False))
    trainer.fit(made, loader)
    return trainer.callback_metrics, kept[-1]


@pytest.mark.parametrize("limits", [{"max_epochs": 2}, {"max_steps": 3}, {"max_steps": 5}])
def test_the_mean_off_the_diagonal_is_that_of_the_last_step(limits):
    images = torch.randn(16, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    logged, last = fitted(images, **limits)
    expected = barlow.offdiagonal_abs_mean(barlow.cross_correlation(*last))
    assert logged["offdiagonal_abs_mean"].item() == pytest.approx(expected, abs=1e-6)


def test_a_batch_of_one_is_refused():
    view = torch.zeros(1, 1, 32, 32)
    with pytest.raises(ValueError, match="batch of 1 image"):
        module().training_step((view, view), 0)


def test_another_criterion_can_be_given():
    def redundancy_only(z_a, z_b):
        return barlow.loss_terms(barlow.cross_correlation(z_a, z_b))[1]

    made = module(criterion=redundancy_only)
    assert made.criterion is redundancy_only
    assert "criterion" not in made.hparams and "backbone" not in made.hparams


def test_a_loss_that_is_not_finite_stops_with_the_step():
    made = module()
    views = torch.full((8, 1, 32, 32), float("nan"))
    with pytest.raises(FloatingPointError, match="step 0; lower the learning rate"):
        made.training_step((views, views), 0)


def test_imagenet_weights_are_left_out_within_seconds_where_they_cannot_be_had(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(barlow, "_reachable", lambda host, timeout: False)
    state, sentence = barlow.imagenet_state("resnet18")
    assert state is None and "neither cached nor" in sentence


def test_a_damaged_file_in_the_cache_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    name = barlow.IMAGENET["resnet18"].url.rsplit("/", 1)[1]
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / name).write_text("<html>")
    state, sentence = barlow.imagenet_state("resnet18")
    assert state is None and f"{name} is a web page" in sentence
    with pytest.raises(ValueError, match="no ImageNet weights of 'vgg'"):
        barlow.imagenet_state("vgg")


def test_an_unreachable_host_is_told_in_time():
    assert not barlow._reachable("host.invalid", 2.0)
