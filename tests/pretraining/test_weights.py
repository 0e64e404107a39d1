"""A backbone's weights in and out: every key in its place, and no code from a file."""

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from cxr_helpers.pretraining import barlow, weights
from cxr_helpers.pretraining.weights import WeightsError, load_weights, read_weights, save_weights

SMALL = {"conv1.weight": torch.ones(1000)}
LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


def backbone(seed=0, arch="resnet18"):
    return barlow.build_backbone(arch, seed=seed)


def test_saving_and_reading_back_is_exact_and_takes_text_and_numbers_of_numpy(tmp_path):
    made, path = backbone(), tmp_path / "new" / "backbone.safetensors"
    told = {"seed": np.int64(3), "rate": np.float32(0.5), "loss": torch.tensor(2.0)}
    save_weights(made.state_dict(), str(path), settings=told)
    state, settings = read_weights(str(path))
    assert settings == {"seed": 3, "rate": 0.5, "loss": 2.0}
    assert all(torch.equal(v, state[k]) for k, v in made.state_dict().items())
    assert [p.name for p in path.parent.iterdir()] == ["backbone.safetensors"]
    torchvision.models.resnet18().load_state_dict(state, strict=False)  # raises on wrong shapes
    load_weights(backbone(seed=1), {name: value.numpy() for name, value in state.items()})


@pytest.mark.parametrize(
    ("name", "changes", "settings", "message"),
    [
        ("c.pth", {}, {}, r"c\.pth must end in \.safetensors"),
        ("c.safetensors", {"a": torch.tensor(np.nan)}, {}, "1 weights are not finite, such as a"),
        ("c.safetensors", {}, {"folder": Path("made")}, "setting .*made.* is no number, text"),
    ],
)
def test_what_must_not_be_saved_is_refused(tmp_path, name, changes, settings, message):
    with pytest.raises(ValueError, match=message):
        save_weights(SMALL | changes, tmp_path / name, settings=settings)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_weights(SMALL, path, settings={"seed": 0})

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights.os, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_weights(SMALL, path, settings={"seed": 1})
    assert read_weights(path)[1] == {"seed": 0} and len(list(tmp_path.iterdir())) == 1


def original_code(state):
    """A checkpoint of the original Barlow Twins: a wrapped model with projector and optimizer."""
    model = {f"module.backbone.{k}": v for k, v in state.items()}
    heads = {
        "module.projector.0.weight": torch.zeros(4, 4),
        "module.bn.running_mean": torch.ones(4),
    }
    return {"epoch": 3, "model": model | heads, "optimizer": {"state": {}, "param_groups": []}}


@pytest.mark.parametrize(
    ("arch", "wrap"),
    [
        ("resnet50", lambda s: s),  # as the original Barlow Twins released it
        ("resnet50", original_code),
        ("resnet18", lambda s: s | {"fc.weight": torch.zeros(5, 512), "fc.bias": torch.zeros(5)}),
        ("resnet18", lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}}),
        ("resnet18", lambda s: {"state_dict": {f"module.backbone.{k}": v for k, v in s.items()}}),
    ],
)
def test_whatever_a_checkpoint_calls_its_weights_they_load(tmp_path, arch, wrap):
    source, loaded = backbone(seed=1, arch=arch), backbone(seed=5, arch=arch)
    torch.save(wrap(source.state_dict()), tmp_path / "a.pth")
    load_weights(loaded, read_weights(tmp_path / "a.pth")[0])
    own = source.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in loaded.state_dict().items())


def test_our_own_training_checkpoint_loads_as_a_backbone(tmp_path):
    made = barlow.BarlowTwins(backbone(), projector=(32, 32, 16))
    torch.save({"state_dict": made.state_dict(), "epoch": 2}, tmp_path / "last.ckpt")
    loaded = backbone(seed=5)
    load_weights(loaded, read_weights(tmp_path / "last.ckpt")[0])
    assert torch.equal(loaded.conv1.weight, made.backbone.conv1.weight)


def test_weights_of_another_architecture_name_every_key():
    made, other = backbone(), backbone(arch="resnet50").state_dict()
    with pytest.raises(WeightsError, match="another architecture") as caught:
        load_weights(made, other)
    own = made.state_dict()
    wrong = own.keys() ^ other.keys()
    wrong |= {k for k in own.keys() & other.keys() if own[k].shape != other[k].shape}
    assert len(wrong) > 200 and all(key in str(caught.value) for key in wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("layer1.0.conv1.weight"), r"1 missing: layer1\.0\.conv1\.weight"),
        (lambda s: s.update(head=torch.zeros(1)), "1 not known here: head"),
        (lambda s: s.update({"bn1.bias": torch.full((64,), torch.nan)}), r"such as bn1\.bias"),
        (lambda s: s.update({"backbone.bn1.bias": torch.zeros(64)}), r"bn1\.bias is there twice"),
    ],
)
def test_weights_that_do_not_fit_are_named(change, message):
    state = dict(backbone().state_dict())
    change(state)
    with pytest.raises(WeightsError, match=message):
        load_weights(backbone(), state)


def test_a_prefix_that_all_names_share_is_named_in_one_line():
    other = {f"encoder.{key}": value for key, value in backbone().state_dict().items()}
    with pytest.raises(WeightsError, match="all 120 names begin with `encoder.`") as caught:
        load_weights(backbone(), other)
    assert len(str(caught.value)) < 200


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_loading_never_runs_code_and_names_what_would(tmp_path):
    content = {"state_dict": Malicious(tmp_path / "ran")}
    torch.save(content, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(content))
    for name in ("a.pth", "b.pth"):
        with pytest.raises(WeightsError, match=name):
            read_weights(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(WeightsError, match=r"more than tensors \(torch\.nn\..*Linear\).*trust it"):
        read_weights(tmp_path / "module.pth")


def cut(path):
    path.write_bytes(path.read_bytes()[:-300])


@pytest.mark.parametrize(
    ("name", "make", "told"),
    [
        ("a.pth", lambda p: None, "does not exist"),
        ("a.pth", lambda p: p.write_bytes(b""), "is empty; fetch it again"),
        ("a.safetensors", lambda p: p.write_bytes(b""), "is empty; fetch it again"),
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
        ("a.safetensors", lambda p: p.write_bytes(b"\0" * 100), "cannot be read as safetensors"),
        ("a.pth", lambda p: p.write_text("hello"), "is no file that torch.save wrote"),
        ("a.pth", lambda p: p.write_bytes(b"\x80" * 100), "a.pth"),
        ("a.pth", lambda p: p.mkdir(), "cannot be read: Is a directory"),
        ("a.pth", lambda p: torch.save({}, p), "holds no state dict"),
        ("a.pth", lambda p: torch.save({0: torch.zeros(1)}, p), "holds no state dict"),
        ("a.pth", lambda p: torch.save([torch.zeros(1)], p), "holds no state dict.* but list"),
        ("a.pth", lambda p: torch.save({"net": {}, "step": 3}, p), "dict.*'net', 'step'.*alone"),
    ],
)
def test_what_is_no_weights_is_called_what_it_is(tmp_path, name, make, told):
    make(tmp_path / name)
    with pytest.raises(WeightsError, match=told) as caught:
        read_weights(tmp_path / name)
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
        assert read_weights(path) == ({"conv1.weight": torch.ones(1)}, {})


@pytest.mark.parametrize("settings", ["not JSON", "[1, 2]", "3"])
def test_what_another_program_wrote_beside_the_weights_is_passed_over(tmp_path, settings):
    save_file(SMALL, tmp_path / "a.safetensors", metadata={"settings": settings})
    state, told = read_weights(tmp_path / "a.safetensors")
    assert told == {} and torch.equal(state["conv1.weight"], SMALL["conv1.weight"])


def test_imagenet_weights_are_left_out_within_seconds_where_they_cannot_be_had(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    nowhere = type("W", (), {"url": "https://host.invalid/resnet18.pth"})
    monkeypatch.setitem(weights.IMAGENET, "resnet18", nowhere)
    state, sentence = weights.imagenet_state("resnet18", timeout=1.0)
    assert state is None and "resnet18.pth) are neither cached nor" in sentence
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet18.pth").write_text("<html>")
    state, sentence = weights.imagenet_state("resnet18")
    assert state is None and "resnet18.pth is a web page" in sentence
    with pytest.raises(ValueError, match="no ImageNet weights of 'vgg'"):
        weights.imagenet_state("vgg")


def test_the_distance_moved_is_that_of_kernels_by_stage():
    before = {"conv1.weight": torch.ones(4, 1), "layer1.0.bn1.weight": torch.ones(4)}
    before |= {"layer1.0.conv1.weight": torch.full((2, 2), 2.0)}
    after = {key: value.clone() for key, value in before.items()}
    after["layer1.0.bn1.weight"] += 5  # no kernel
    after["layer1.0.conv1.weight"][0, 0] += 1
    assert weights.distance_moved(before, after) == {"conv1": 0.0, "layer1": 0.25}
    with pytest.raises(weights.WeightsError, match="conv1.weight is in one of them only"):
        weights.distance_moved(before, {k: v for k, v in after.items() if k != "conv1.weight"})
