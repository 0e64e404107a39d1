"""Folders in the hub's format, which timm and torchvision load; to the hub and from it."""

import contextlib
import http.server
import io
import json
import re
import socket
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import HfApi, RepoUrl
from safetensors.torch import load_file, save

from cxr_helpers.pretraining import barlow, hub
from cxr_helpers.pretraining.weights import WeightsError, load_weights, read_weights

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
    hub.write_folder(backbone.state_dict(), str(tmp_path / "model"), CARD, arch="resnet18")
    return tmp_path / "model"


def run_example(folder, number):
    """Run the Python of the model card, which must work as it stands."""
    text = (folder / hub.CARD).read_text(encoding="utf-8")
    names = {}
    with contextlib.chdir(folder):
        exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[number], names)
    return names["backbone"].eval()


@torch.inference_mode()
def same(first, second):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return torch.allclose(first(images), second(images), atol=1e-5)


def test_torchvision_loads_the_folder_by_the_lines_of_the_card(backbone, folder):
    assert same(run_example(folder, 0), backbone)


def test_timm_loads_the_folder_by_the_lines_of_the_card(backbone, folder):
    pytest.importorskip("timm", reason="timm is not installed")
    loaded = run_example(folder, 1)
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
    assert "| projector | [8, 8, 8] |" in text and "64 x 64 pixels" in text
    assert "- Says nothing about patients\n- Not a medical device" in text


def test_nothing_else_is_left_and_the_course_reads_it_back(backbone, folder):
    assert sorted(p.name for p in folder.iterdir()) == [hub.CARD, hub.CONFIG, hub.WEIGHTS]
    state, settings = read_weights(folder / hub.WEIGHTS)
    assert settings == {"epochs": 3, "projector": [8, 8, 8]}
    other = barlow.build_backbone("resnet18", seed=1).eval()
    load_weights(other, state)
    assert same(other, backbone)


def test_weights_as_a_checkpoint_has_them_reach_the_folder_and_the_global_state_stays(
    backbone, tmp_path
):
    state = {f"backbone.{k}": v.numpy() for k, v in backbone.state_dict().items()}
    before = torch.random.get_rng_state()
    state |= {"projector.0.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(5)}
    hub.write_folder(state, tmp_path, CARD, arch="resnet18")
    assert torch.equal(before, torch.random.get_rng_state())
    assert same(run_example(tmp_path, 0), backbone)


@pytest.mark.parametrize(
    ("changes", "card", "arch", "error", "message"),
    [
        ({}, {}, "vit", hub.HubError, "no architecture 'vit'"),
        ({}, {}, "resnet50", WeightsError, "do not fit this backbone"),
        ({"bn1.bias": torch.full((64,), torch.nan)}, {}, "resnet18", WeightsError, "not finite"),
        ({}, {"limits": [], "license": ""}, "resnet18", hub.HubError, "lacks limits, license"),
        ({}, {"limits": "one"}, "resnet18", hub.HubError, r"limits .* give \['one'\]"),
        ({}, {"tags": "one"}, "resnet18", hub.HubError, r"tags .* give \['one'\]"),
        ({}, {"settings": {"a": object()}}, "resnet18", ValueError, "is no number, text"),
    ],
)
def test_what_must_not_be_shared_is_refused(
    backbone, tmp_path, changes, card, arch, error, message
):
    with pytest.raises(error, match=message):
        hub.write_folder(
            backbone.state_dict() | changes, tmp_path, replace(CARD, **card), arch=arch
        )
    assert not list(tmp_path.iterdir())


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
NOWHERE = {"endpoint": "http://127.0.0.1:9"}
COMMIT = "0123456789" * 4


def torch_bytes():
    stream = io.BytesIO()
    torch.save({"conv1.weight": torch.ones(2000)}, stream)
    return stream.getvalue()


@pytest.fixture
def server(monkeypatch):
    """A hub that gives what a test puts into it, and remembers what it was asked."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    class Answer(http.server.BaseHTTPRequestHandler):
        body, status, missing, headers_told, asked = torch_bytes(), 200, 0, {}, []

        def do_HEAD(self):
            size = len(self.body) + self.missing * (self.command == "HEAD")
            told = {"X-Repo-Commit": COMMIT, "ETag": f'"{size}"', "Content-Length": str(size)}
            self.asked.append((self.command, self.path, self.headers["Authorization"]))
            self.send_response(self.status)
            for name, value in (told | self.headers_told).items():
                if value is not None:
                    self.send_header(name, value)
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            self.wfile.write(self.body)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        Answer.there = {"endpoint": f"http://127.0.0.1:{running.server_port}", "timeout": 5}
        yield Answer
        running.shutdown()


def weights_in(folder):
    return [path for path in folder.rglob("*") if path.suffix in hub.SUFFIXES]


def test_a_file_is_fetched_once_with_the_token_and_a_revision_with_slashes_is_one_name(
    server, tmp_path
):
    asked = {"file": "weights/net.pth", "folder": tmp_path, "revision": "refs/pr/1"}
    path = hub.fetch("a/b", **asked, **server.there)
    where = ("/a/b/resolve/refs%2Fpr%2F1/weights/net.pth", "Bearer hf_secret")
    assert {request[1:] for request in server.asked} == {where}
    assert weights_in(tmp_path) == [path] and path.parts[-2:] == ("weights", "net.pth")
    assert read_weights(path)[0]["conv1.weight"].sum() == 2000
    assert hub.fetch("a/b", **asked, **NOWHERE) == path


def test_a_file_that_was_damaged_in_the_cache_is_fetched_again(server, tmp_path):
    path = hub.fetch("a/b", "net.pth", tmp_path, **server.there)
    path.write_text("<html>log in")
    with pytest.raises(hub.HubError, match="cannot be reached"):
        hub.fetch("a/b", "net.pth", tmp_path, **NOWHERE)
    assert hub.fetch("a/b", "net.pth", tmp_path, **server.there) == path
    assert read_weights(path)[0]["conv1.weight"].sum() == 2000


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("net.safetensors", {"body": b"<!DOCTYPE html>log in"}, "is a web page.* delete "),
        ("net.pth", {"body": LFS_POINTER}, "Git LFS pointer"),
        ("net.pth", {"body": torch_bytes()[:-200]}, "is cut: its end is missing"),
        ("net.safetensors", {"body": save({"a": torch.ones(9)})[:-9]}, "cannot be read as safet"),
        ("net.pth", {"body": b""}, "is empty"),
        ("net.pth", {"missing": 9}, "Consistency check failed.*try again"),
        (
            "net.pth",
            {"headers_told": {"X-Repo-Commit": None}},
            "(does not seem to be served by a|locate the file)",
        ),
        ("net.pth", {"status": 503, "body": b""}, "try again later"),
    ],
)
def test_what_is_no_weights_is_not_given(server, tmp_path, name, changes, told):
    for key, value in changes.items():
        setattr(server, key, value)
    with pytest.raises(hub.HubError, match=f"a/b.*{told}"):
        hub.fetch("a/b", name, tmp_path, **server.there)


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (401, "RepoNotFound", "no repository 'a/b': check owner and name; .* `hf auth login`"),
        (404, "RepoNotFound", "no repository 'a/b': check owner and name"),
        (403, "GatedRepo", "a/b is gated: accept its terms on its page, then log in"),
        (404, "RevisionNotFound", "a/b has no branch, tag or commit 'main'"),
        (404, "EntryNotFound", "a/b has no file 'a.pth' at 'main'"),
        (403, "", r"does not take your token for a/b \(403\): make one .* HF_TOKEN"),
    ],
)
def test_a_wrong_repository_revision_file_or_token_is_one_sentence(
    server, tmp_path, status, code, told
):
    server.status, server.headers_told = status, {"X-Error-Code": code, "Content-Length": "0"}
    with pytest.raises(hub.HubError, match=told) as caught:
        hub.fetch("a/b", "a.pth", tmp_path, **server.there)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"file": f}, "cannot be a") for f in ("/etc/a.pth", "C:a.pth")]
    + [({"file": f}, r"cannot contain a '\.\.'") for f in ("../../a.pth", "a/../../../a.pth")]
    + [({"file": f}, "no name of a file of weights") for f in ("..", "", "notes.txt")]
    + [
        ({"repository": name}, "write it as owner/name")
        for name in ("../b", "a/..", "a/b/c", "a\\b", "", "a b", "/a")
    ]
    + [({"revision": r}, "is no branch, tag or commit") for r in ("..", "", "/etc", "a\\..")]
    + [({"endpoint": "huggingface.co"}, "missing an 'http://' or 'https://'")],
)
def test_names_that_would_leave_the_folder_and_what_is_no_address_are_refused(
    server, tmp_path, changes, message
):
    asked = {"repository": "a/b", "file": "a.pth", "folder": tmp_path / "here", **server.there}
    with pytest.raises(hub.HubError, match=message):
        hub.fetch(**asked | changes)
    assert not list(tmp_path.iterdir()) and not server.asked


def test_a_token_with_an_odd_letter_is_not_sent(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_sécret")
    with pytest.raises(hub.HubError, match="your token is none: copy it again"):
        hub.fetch("a/b", "a.pth", tmp_path, **NOWHERE)


def test_without_a_network_and_where_a_hub_says_nothing_it_is_given_up_in_time(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for there in (endpoint, NOWHERE["endpoint"], "https://host.invalid"):
            start = time.monotonic()
            with pytest.raises(hub.HubError, match="cannot be reached.*give its path"):
                hub.fetch("a/b", "x.pth", tmp_path, endpoint=there, timeout=0.3)
            assert time.monotonic() - start < 5
    assert not list(tmp_path.iterdir())


@pytest.fixture
def api(monkeypatch):
    """In the place of the hub's client: it notes what it is asked to do."""
    done = SimpleNamespace(public=False, calls=[])

    class Client(HfApi):
        def create_repo(self, repo_id, **asked):
            done.calls.append(asked)
            return RepoUrl(f"{self.endpoint}/{repo_id}", endpoint=self.endpoint)

        def model_info(self, repo_id):
            return SimpleNamespace(private=not done.public)

        def upload_folder(self, **asked):
            done.calls.append(asked)

    monkeypatch.setattr(hub, "HfApi", Client)
    return done


@pytest.mark.parametrize("private", [True, False])
def test_a_folder_is_pushed_private_or_public_and_its_three_files_alone(folder, api, private):
    api.public = not private
    address = hub.push(folder, "a/b", endpoint="https://hub.invalid", private=private)
    assert address == "https://hub.invalid/a/b"
    three = [hub.WEIGHTS, hub.CONFIG, hub.CARD]
    assert api.calls == [
        {"private": private, "exist_ok": True},
        {"repo_id": "a/b", "folder_path": folder, "allow_patterns": three},
    ]


def test_nothing_private_goes_to_a_public_repository_and_nothing_damaged_anywhere(folder, api):
    api.public = True
    with pytest.raises(hub.HubError, match="a/b is there already and public, nothing was uploaded"):
        hub.push(folder, "a/b")
    assert len(api.calls) == 1
    (folder / hub.WEIGHTS).write_bytes(LFS_POINTER)
    with pytest.raises(hub.HubError, match="Git LFS pointer.*nothing was uploaded"):
        hub.push(folder, "a/b")
    (folder / hub.CARD).unlink()
    with pytest.raises(hub.HubError, match="lacks README.md; `write_folder` makes"):
        hub.push(folder, "a/b")
    assert len(api.calls) == 1


def test_a_push_without_a_network_or_a_right_is_one_sentence(folder, server):
    with pytest.raises(hub.HubError, match="a/b cannot be reached"):
        hub.push(folder, "a/b", **NOWHERE)
    server.do_POST, server.status, server.body = server.do_GET, 403, b"{}"
    with pytest.raises(hub.HubError, match=r"does not take your token for a/b \(403\)"):
        hub.push(folder, "a/b", endpoint=server.there["endpoint"])
