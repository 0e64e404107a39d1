"""Folders in the hub's format: what timm and torchvision load without this package."""

import contextlib
import functools
import http.server
import io
import json
import re
import socket
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file, save, save_file

from cxr_helpers.pretraining import barlow, hub

CARD = hub.ModelCard(
    name="Tiny",
    summary="A network of a test.",
    data="Noise; no patient.",
    settings={"epochs": 3, "projector": [8, 8, 8]},
    metrics={
        "macro_auroc": {"10%": {"value": 0.61234, "low": 0.5, "high": 0.7}},
        "images": 24,
        "pointing": None,
    },
    measured_on="12 images of noise, test part by patient",
    limits=["Says nothing about patients"],
    license="mit",
    image_size=64,
)


@pytest.fixture(scope="module")
def backbone():
    return barlow.build_backbone("resnet18", seed=0).eval()


@pytest.fixture
def folder(backbone, tmp_path):
    hub.write_folder(backbone.state_dict(), tmp_path / "model", CARD, arch="resnet18")
    return tmp_path / "model"


def examples(folder):
    """The Python of the model card, which must run as it stands."""
    text = (folder / hub.CARD).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def run(code, folder):
    names = {}
    with contextlib.chdir(folder):
        exec(code, names)  # our own text, just written
    return names["backbone"].eval()


@torch.inference_mode()
def same(first, second):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return torch.allclose(first(images), second(images), atol=1e-5)


def test_torchvision_loads_the_folder_by_the_lines_of_the_card(backbone, folder):
    assert same(run(examples(folder)[0], folder), backbone)


def test_timm_loads_the_folder_by_the_lines_of_the_card(backbone, folder):
    pytest.importorskip("timm", reason="timm is not installed")
    loaded = run(examples(folder)[1], folder)
    assert same(loaded, backbone)
    assert tuple(loaded.pretrained_cfg["mean"]) == (0.5, 0.5, 0.5)
    assert tuple(loaded.pretrained_cfg["input_size"]) == (3, 64, 64)


def test_the_configuration_has_what_timm_documents(folder):
    config = json.loads((folder / hub.CONFIG).read_text(encoding="utf-8"))
    assert {"architecture", "num_classes", "num_features", "pretrained_cfg"} <= config.keys()
    assert (config["architecture"], config["num_classes"]) == ("resnet18", 0)
    told = {"input_size", "mean", "std", "interpolation", "crop_pct", "first_conv", "classifier"}
    assert told <= config["pretrained_cfg"].keys()
    keys = load_file(folder / hub.WEIGHTS).keys()
    assert config["pretrained_cfg"]["first_conv"] + ".weight" in keys
    assert not [key for key in keys if key.startswith("fc.")]


def test_the_card_says_data_settings_metrics_with_intervals_limits_and_license(folder):
    text = (folder / hub.CARD).read_text(encoding="utf-8")
    assert text.startswith("---\nlibrary_name: timm\nlicense: mit\n")
    assert "| macro_auroc / 10% | 0.612 | 0.500 to 0.700 |" in text
    assert "| images | 24 | not estimated |" in text and "| pointing | not known |  |" in text
    assert "| projector | [8, 8, 8] |" in text
    assert "- Says nothing about patients\n- Not a medical device" in text


def test_nothing_else_is_left_and_the_course_reads_it_back(backbone, folder):
    assert sorted(p.name for p in folder.iterdir()) == [hub.CARD, hub.CONFIG, hub.WEIGHTS]
    state, settings = barlow.read_weights(folder / hub.WEIGHTS)
    assert settings == {"epochs": 3, "projector": [8, 8, 8]}
    other = barlow.build_backbone("resnet18", seed=1).eval()
    barlow.load_weights(other, state)
    assert same(other, backbone)


def original_barlow_twins(state):
    """A checkpoint of the original code: a wrapped model with projector, beside its optimizer."""
    model = {f"module.backbone.{k}": v for k, v in state.items()}
    model |= {"module.projector.0.weight": torch.zeros(2, 2), "module.bn.running_mean": state["x"]}
    del model["module.backbone.x"]
    return {"epoch": 3, "model": model, "optimizer": {"state": {}, "param_groups": []}}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: s | {"fc.weight": torch.zeros(5, 512), "fc.bias": torch.zeros(5)},
        lambda s: original_barlow_twins(s | {"x": torch.zeros(2)}),
        lambda s: {"state_dict": {f"backbone.{k}": v for k, v in s.items()}},
    ],
    ids=["torchvision backbone, timm's names", "with classifier", "original code", "Lightning"],
)
def test_whatever_a_checkpoint_calls_its_weights_they_reach_the_folder(backbone, tmp_path, wrap):
    content, path = wrap(dict(backbone.state_dict())), tmp_path / "given.pth"
    torch.save(content, path)
    state, _ = barlow.read_weights(path)
    if all(isinstance(v, torch.Tensor) for v in content.values()):
        save_file(content, path.with_suffix(".safetensors"))
        assert barlow.read_weights(path.with_suffix(".safetensors"))[0].keys() == state.keys()
    hub.write_folder(state, tmp_path / "out", CARD, arch="resnet18")
    assert same(run(examples(tmp_path / "out")[0], tmp_path / "out"), backbone)


def test_resnet50_names_and_shapes_are_torchvisions(tmp_path):
    state = torchvision.models.resnet50(weights=None).state_dict()
    with pytest.raises(hub.HubError, match=r"2 weights are not those .* such as fc\.bias"):
        hub.write_folder(state, tmp_path, CARD, arch="resnet50")
    state = {k: v for k, v in state.items() if not k.startswith("fc.")}
    assert len(hub.write_folder(state, tmp_path, CARD, arch="resnet50")) == 3


def test_what_must_not_be_shared_is_refused(backbone, tmp_path):
    state = dict(backbone.state_dict())
    with pytest.raises(hub.HubError, match="no architecture 'vit'"):
        hub.write_folder(state, tmp_path, CARD, arch="vit")
    with pytest.raises(hub.HubError, match="not those of torchvision's resnet50"):
        hub.write_folder(state, tmp_path, CARD, arch="resnet50")
    with pytest.raises(hub.HubError, match=r"conv1\.weight: not finite"):
        broken = state | {"conv1.weight": state["conv1.weight"] * torch.nan}
        hub.write_folder(broken, tmp_path, CARD, arch="resnet18")
    empty = hub.ModelCard(**{**CARD.__dict__, "limits": [], "license": ""})
    with pytest.raises(hub.HubError, match="lacks limits, license"):
        hub.write_folder(state, tmp_path, empty, arch="resnet18")
    for name in ("limits", "tags"):
        text = hub.ModelCard(**{**CARD.__dict__, name: "one dataset"})
        with pytest.raises(hub.HubError, match=rf"{name} .* give \['one dataset'\]"):
            hub.write_folder(state, tmp_path, text, arch="resnet18")
    assert not list(tmp_path.iterdir())


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    """A hub of our own: its list of files and one file, over real HTTP."""
    root = tmp_path / "served"
    listing = root / "api" / "models" / "a" / "b" / "revision" / "main"
    listing.parent.mkdir(parents=True)
    names = [{"rfilename": n} for n in ("README.md", "net.pth")]
    listing.write_text(json.dumps({"siblings": names}))
    weights = root / "a" / "b" / "resolve" / "main" / "net.pth"
    weights.parent.mkdir(parents=True)
    torch.save({"conv1.weight": torch.ones(2)}, weights)
    handler = functools.partial(Quiet, directory=root)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", listing
        running.shutdown()


def test_the_only_file_of_weights_is_fetched_and_kept(server, tmp_path):
    endpoint, listing = server
    path = hub.fetch("a/b", tmp_path / "kept", endpoint=endpoint, timeout=5)
    assert path.name == "net.pth" and barlow.read_weights(path)[0]["conv1.weight"].sum() == 2
    again = hub.fetch("a/b", tmp_path / "kept", endpoint="http://127.0.0.1:9", timeout=0.2)
    assert again == path and [p.name for p in path.parent.iterdir()] == ["net.pth"]


def test_a_missing_file_and_a_choice_are_named(server, tmp_path):
    endpoint, listing = server
    with pytest.raises(hub.HubError, match="answers 404"):
        hub.fetch("a/c", tmp_path / "kept", endpoint=endpoint, timeout=5)
    listing.write_text(json.dumps({"siblings": [{"rfilename": "x.pt"}, {"rfilename": "y.pt"}]}))
    with pytest.raises(hub.HubError, match="holds 2 files of weights.*name one"):
        hub.fetch("a/b", tmp_path / "kept", endpoint=endpoint, timeout=5)


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.fixture
def answers():
    """A hub that lists and gives what a test puts into it, and remembers what it was asked."""

    class Answer(Quiet):
        names, body, kind, asked = ["net.pth"], b"", "application/octet-stream", []

        def do_GET(self):
            self.asked.append(self.path)
            listed = json.dumps({"siblings": [{"rfilename": name} for name in self.names]})
            body = listed.encode() if self.path.startswith("/api") else self.body
            self.send_response(200)
            self.send_header("Content-Type", self.kind)
            self.end_headers()
            self.wfile.write(body)

    Answer.asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        Answer.endpoint = f"http://127.0.0.1:{running.server_port}"
        yield Answer
        running.shutdown()


def torch_bytes():
    stream = io.BytesIO()
    torch.save({"conv1.weight": torch.ones(2000)}, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "body", "kind", "told"),
    [
        ("net.pth", torch_bytes(), "text/html; charset=utf-8", "answers with a web page"),
        ("net.pth", b"<!DOCTYPE html>log in", "application/octet-stream", "no file that torch"),
        ("net.safetensors", b"<!DOCTYPE html>log in", "text/plain", "no whole safetensors file"),
        ("net.pth", LFS_POINTER, "application/octet-stream", "Git LFS pointer"),
        ("notes.txt", LFS_POINTER, "text/plain", "Git LFS pointer"),
        ("net.pth", torch_bytes()[:-200], "application/octet-stream", "cut: its end is missing"),
        ("net.safetensors", save({"a": torch.ones(9)})[:-9], "text/plain", "no whole safetensors"),
        ("net.pth", b"", "application/octet-stream", "no file that torch.save wrote"),
    ],
)
def test_what_is_no_weights_is_not_kept(answers, tmp_path, name, body, kind, told):
    answers.body, answers.kind = body, kind
    with pytest.raises(hub.HubError, match=told):
        hub.fetch("a/b", tmp_path, file=name, endpoint=answers.endpoint, timeout=5)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_page_that_was_kept_before_is_replaced_by_the_weights(answers, tmp_path):
    answers.body = torch_bytes()
    old = tmp_path / "a--b" / "main" / "net.pth"
    old.parent.mkdir(parents=True)
    old.write_text("<html>log in")
    assert hub.fetch("a/b", str(tmp_path), endpoint=answers.endpoint, timeout=5) == old
    assert barlow.read_weights(old)[0]["conv1.weight"].sum() == 2000


@pytest.mark.parametrize(
    "name",
    [
        "../../outside.pth",
        "/etc/net.pth",
        "a/../../../net.pth",
        "a\\net.pth",
        "C:net.pth",
        "..",
        "",
    ],
)
def test_a_name_that_leaves_the_folder_is_refused(answers, tmp_path, name):
    folder = tmp_path / "kept" / "here"
    answers.names, answers.body = [name], torch_bytes()
    with pytest.raises(hub.HubError, match="no name of a file within a repository"):
        hub.fetch("a/b", folder, file=name, endpoint=answers.endpoint, timeout=5)
    if name.endswith(".pth"):
        with pytest.raises(hub.HubError, match="no name of a file within a repository"):
            hub.fetch("a/b", folder, endpoint=answers.endpoint, timeout=5)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("repository", ["../b", "a/..", "a/b/c", "a\\b", "", "a b", "/a"])
def test_what_names_no_repository_is_refused(tmp_path, repository):
    with pytest.raises(hub.HubError, match="write it as owner/name"):
        hub.fetch(repository, tmp_path, endpoint="http://127.0.0.1:9", timeout=0.2)


def test_a_revision_with_slashes_is_one_name_and_stays_in_the_folder(answers, tmp_path):
    answers.names, answers.body = ["weights/net.pth"], torch_bytes()
    path = hub.fetch("a/b", tmp_path, revision="refs/pr/1", endpoint=answers.endpoint, timeout=5)
    assert answers.asked == [
        "/api/models/a/b/revision/refs%2Fpr%2F1",
        "/a/b/resolve/refs%2Fpr%2F1/weights/net.pth",
    ]
    assert path == tmp_path / "a--b" / "refs%2Fpr%2F1" / "weights" / "net.pth"
    again = hub.fetch("a/b", tmp_path, revision="refs/pr/1", endpoint="http://127.0.0.1:9")
    assert again == path
    for revision in ("..", ""):
        with pytest.raises(hub.HubError, match="is no branch, tag or commit"):
            hub.fetch("a/b", tmp_path, revision=revision, endpoint=answers.endpoint)


def test_a_page_instead_of_the_list_and_an_endpoint_without_scheme_are_told(server, tmp_path):
    endpoint, listing = server
    for text in ("<html>log in", "[]", '{"siblings": [{}]}'):
        listing.write_text(text)
        with pytest.raises(hub.HubError, match="gives no list of files; name the file"):
            hub.fetch("a/b", tmp_path, endpoint=endpoint, timeout=5)
    with pytest.raises(hub.HubError, match="an endpoint begins with https"):
        hub.fetch("a/b", tmp_path, endpoint="huggingface.co")


def test_arrays_and_numbers_of_numpy_and_text_for_a_path_are_taken(backbone, tmp_path):
    card = replace(CARD, settings={"seed": np.int64(3), "rate": np.float32(0.5)})
    state = {name: value.numpy() for name, value in backbone.state_dict().items()}
    hub.write_folder(state, str(tmp_path / "out"), card, arch="resnet18")
    assert barlow.read_weights(tmp_path / "out" / hub.WEIGHTS)[1] == {"seed": 3, "rate": 0.5}
    with pytest.raises(hub.HubError, match="no architecture 'vit'"):
        hub.model_card(CARD, arch="vit")


def test_a_hub_that_says_nothing_is_given_up_in_time(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(hub.HubError, match="cannot be reached.*give its path"):
            hub.fetch("a/b", tmp_path, file="x.pth", endpoint=endpoint, timeout=0.3)
        assert time.monotonic() - start < 5
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
