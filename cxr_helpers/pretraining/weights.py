"""A backbone's weights in and out: safetensors first, and no code in a file is ever run.

From cxr-helpers 0.2.0 (MIT license).
Needs: safetensors, torch, torchvision.
"""

import json
import os
import pickle
import re
import urllib.request
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException, HTTPResponse
from pathlib import Path

import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

IMAGENET = {
    "resnet18": torchvision.models.ResNet18_Weights.IMAGENET1K_V1,
    "resnet50": torchvision.models.ResNet50_Weights.IMAGENET1K_V2,
}
PREFIXES = ("module.", "backbone.", "state_dict.")
HEADS = ("fc.", "projector.", "bn.")  # what may stand beside a backbone and is left out


class WeightsError(ValueError):
    """Weights cannot be read, or do not fit the network."""


def save_weights(
    state: Mapping[str, Tensor], path: str | os.PathLike[str], *, settings: Mapping
) -> None:
    """Write weights with the settings that made them, as safetensors.

    Args:
        state: a network's `state_dict()`; torchvision takes a backbone's without this package.
        path: ends in `.safetensors`; its folder is made where it is missing.
        settings: JSON values that say how the weights were made.

    Raises:
        ValueError: the path ends otherwise, a weight is not finite, or a setting is no JSON value.
        OSError: the file cannot be written; one that was there is then as it was.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/a.safetensors"
    ...     save_weights(nn.Linear(2, 1).state_dict(), path, settings={"seed": 0})
    ...     state, settings = read_weights(path)
    >>> sorted(state), settings
    (['bias', 'weight'], {'seed': 0})
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} must end in .safetensors: readers tell the format by it")
    told = json.dumps(dict(settings), sort_keys=True, default=_plain)
    _check_finite(state)
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    write_whole(path, save(tensors, {"format": "pt", "settings": told}))


def _plain(value: object) -> object:
    """A number of numpy or torch as Python's own."""
    if getattr(value, "ndim", None) == 0:
        return value.item()
    raise ValueError(f"setting {value!r} is no number, text, list or dict; write it as one")


def _check_finite(state: Mapping[str, Tensor]) -> None:
    if bad := sorted(key for key, value in state.items() if not torch.isfinite(value).all()):
        raise WeightsError(
            f"{len(bad)} weights are not finite, such as {bad[0]}; take a checkpoint from before "
            "training diverged"
        )


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file under a temporary name and rename it: it is there whole or not at all.

    Raises:
        OSError: it cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_whole(f"{folder}/new/a.txt", b"whole")
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's weights under torchvision's names.

    Without the prefixes `module.`, `backbone.` and `state_dict.`, and without the classifier
    `fc.`; any other name stays as it is. Where some names start with `backbone.`, the checkpoint
    holds a whole model, and its projector is left out too.

    Raises:
        WeightsError: two names are the same without their prefixes.

    >>> strip_prefixes({"module.backbone.conv1.weight": 1, "module.projector.0.weight": 2})
    {'conv1.weight': 1}
    >>> strip_prefixes({"conv1.weight": 1, "fc.weight": 2})
    {'conv1.weight': 1}
    """
    left_out = HEADS if any("backbone." in key for key in state) else ("fc.",)
    clean = {}
    for key, value in state.items():
        while key.startswith(PREFIXES):
            key = key.split(".", 1)[1]
        if key in clean:
            raise WeightsError(
                f"{key} is there twice, with and without a prefix; keep the weights of one network"
            )
        if not key.startswith(left_out):
            clean[key] = value
    return clean


def distance_moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, float]:
    """How far training moved the kernels of each stage, in shares of their length before.

    Args:
        before: a backbone's `state_dict()`, torchvision's names.
        after: the same later. Norms and statistics are left out: they move by the data's scale.

    Returns:
        Share by stage, `conv1`, `layer1` and so on.

    Raises:
        WeightsError: the two are not of one network.

    >>> distance_moved({"conv1.weight": torch.ones(2, 2)}, {"conv1.weight": torch.zeros(2, 2)})
    {'conv1': 1.0}
    """
    if before.keys() != after.keys():
        name = min(before.keys() ^ after.keys())
        raise WeightsError(f"the weights are of two networks: {name} is in one of them only")
    squares: dict[str, list[float]] = {}
    for key, old in before.items():
        if old.ndim > 1:
            old, new = (w.detach().cpu().double() for w in (old, after[key]))
            sums = squares.setdefault(key.split(".")[0], [0.0, 0.0])
            sums[0] += (new - old).square().sum().item()
            sums[1] += old.square().sum().item()
    return {stage: (moved / length) ** 0.5 for stage, (moved, length) in squares.items()}


def load_weights(backbone: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put weights into a backbone; every key must find its place.

    Args:
        backbone: without classifier, as `barlow.build_backbone` makes it; changed in place.
        state: torchvision's names, with or without the prefixes that `strip_prefixes` removes.

    Raises:
        WeightsError: names every key that is missing, left over, of another shape or not finite;
            or the prefix that all keys share, such as `encoder.`.

    >>> layer = nn.Linear(2, 1)
    >>> load_weights(layer, {"weight": torch.ones(1, 2), "bias": torch.zeros(1)})
    >>> load_weights(layer, {"weight": torch.ones(1, 2)})
    Traceback (most recent call last):
    cxr_helpers.pretraining.weights.WeightsError: the weights do not fit this backbone. Was the
    checkpoint made by another architecture? 1 missing: bias
    """
    own = backbone.state_dict()
    state = {key: torch.as_tensor(value) for key, value in strip_prefixes(state).items()}
    first = {key.split(".")[0] for key in state}
    if len(state) > len(first) == 1 and first.isdisjoint(key.split(".")[0] for key in own):
        raise WeightsError(
            f"all {len(state)} names begin with `{first.pop()}.`, which torchvision's do not; "
            "take it off, and leave out what is not the backbone"
        )
    optional = {key for key in own if key.endswith("num_batches_tracked")}
    shapes = [
        f"{key} is {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own.keys() & state.keys()
        if own[key].shape != state[key].shape
    ]
    problems = {
        "missing": own.keys() - state.keys() - optional,
        "not known here": state.keys() - own.keys(),
        "of another shape": shapes,
    }
    told = [
        f"{len(keys)} {what}: {', '.join(sorted(keys))}" for what, keys in problems.items() if keys
    ]
    if told:
        raise WeightsError(
            "the weights do not fit this backbone. Was the checkpoint made by another "
            "architecture? " + "; ".join(told)
        )
    _check_finite(state)
    backbone.load_state_dict(state, strict=False)


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict]:
    """Read a checkpoint without running any code from it.

    Args:
        path: a `.safetensors` file, or a torch file that holds tensors only: a state dict, or one
            under the key `state_dict` or `model`.

    Returns:
        State dict as `strip_prefixes` leaves it, and the settings saved with it: an empty dict
        where there are none, or where another program wrote something else under that name.

    Raises:
        WeightsError: the file is missing, damaged, or holds something else than tensors; the text
            says what it is, as far as its bytes show it.

    >>> import tempfile
    >>> content = {"epoch": 3, "state_dict": {"module.conv1.weight": torch.ones(1)}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save(content, f"{folder}/net.pth")
    ...     read_weights(f"{folder}/net.pth")
    ({'conv1.weight': tensor([1.])}, {})
    """
    path = Path(path)
    try:
        if known := _recognized(path):
            raise WeightsError(f"{path} {known}")
    except FileNotFoundError as error:
        raise WeightsError(f"{path} does not exist") from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    content = _load_tensors(path)
    for key in ("state_dict", "model"):
        content = content.get(key, content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not content or not all(map(_is_weight, content.items())):
        keys = list(content)[:5] if isinstance(content, dict) else type(content).__name__
        raise WeightsError(
            f"{path} holds no state dict of tensors, but {keys}; save the state dict alone"
        )
    return strip_prefixes(content), {}


def _is_weight(item: tuple[object, object]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def _recognized(path: Path) -> str:
    """What a file is that is no such weights, with the remedy, if its bytes show it; else ''."""
    with path.open("rb") as file:
        head = file.read(512)
    header = int.from_bytes(head[:8], "little")  # of safetensors: its length, then JSON
    safetensors = head[8:9] == b"{" and header < 100_000_000
    text = b"" if safetensors else head.removeprefix(b"\xef\xbb\xbf").lstrip()
    is_zip, named_so = head.startswith(b"PK\x03\x04"), path.suffix == ".safetensors"
    cases = [
        (not head, "is empty; fetch it again"),
        (
            head.startswith(b"version https://git-lfs"),
            "is a Git LFS pointer, which stands for the weights: run `git lfs pull` in its folder",
        ),
        (text[:1] == b"<", "is a web page, no weights; download the file itself, logged in"),
        (text[:1] == b"{", "is text (JSON), no weights; download the file of weights"),
        (head.startswith(b"\x1f\x8b"), "is packed with gzip; unpack it"),
        (safetensors and not named_so, "holds safetensors; rename it to end in .safetensors"),
        (is_zip and not zipfile.is_zipfile(path), "is cut: its end is missing; fetch it again"),
        (is_zip and named_so, "is an archive as torch.save writes it; rename it to end in .pth"),
        (not (named_so or is_zip or head[:1] == b"\x80"), "is no file that torch.save wrote"),
    ]
    return next((told for found, told in cases if found), "")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}
            told = (file.metadata() or {}).get("settings", "{}")
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors: {error}") from error
    try:
        settings = json.loads(told)
    except ValueError:
        settings = {}
    return strip_prefixes(state), settings if isinstance(settings, dict) else {}


def _load_tensors(path: Path) -> object:
    """What a torch file holds, if that is tensors only; any other file raises WeightsError."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            raise WeightsError(
                f"{path} holds more than tensors ({found[1]}), and loading it would run code. Save "
                "its state dict alone, with safetensors, where you trust it."
            ) from error
        raise WeightsError(f"{path} is no file of tensors that torch.save wrote") from error
    except Exception as error:  # bytes that are no torch file can break the unpickler anywhere
        told = str(error).strip().split("\n")[0] or type(error).__name__
        raise WeightsError(f"{path} cannot be read as a torch file: {told}") from error


def imagenet_state(arch: str, *, timeout: float = 4.0) -> tuple[dict[str, Tensor] | None, str]:
    """Torchvision's ImageNet weights, from its cache or by download.

    Args:
        arch: `resnet18` or `resnet50`.
        timeout: seconds to wait for the server before going on without.

    Returns:
        The state dict without `fc.`, and a sentence that says where it came from. The state is
        None where the weights are neither cached nor to be had, or the cached file cannot be read;
        the sentence then says so.

    Raises:
        ValueError: there is no such architecture here.
    """
    if arch not in IMAGENET:
        raise ValueError(f"no ImageNet weights of {arch!r}; there are {sorted(IMAGENET)}")
    weights = IMAGENET[arch]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[1]
    if not cached.is_file():
        try:
            open_url(weights.url, timeout).close()
        except OSError:
            return None, (
                f"ImageNet weights ({cached.name}) are neither cached nor can they be downloaded "
                "now."
            )
    try:
        if not cached.is_file():
            weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        state, _ = read_weights(cached)
    except (OSError, RuntimeError, WeightsError) as error:
        return None, f"ImageNet weights ({cached.name}) could not be loaded: {error}"
    return state, f"ImageNet weights: torchvision's {cached.name}."


def open_url(url: str, timeout: float) -> HTTPResponse:
    """A server's answer, or an error in time: the look-up of its name counts too.

    Args:
        url: begins with `https://` or `http://`; a proxy of the environment is used.
        timeout: seconds for the name with the connection, and for every silence after it.

    Raises:
        OSError: there is no network, or no answer in time.
    """
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(urllib.request.urlopen, url, timeout=timeout).result(2 * timeout)
    except HTTPException as error:
        raise ConnectionError(f"{url} gives no answer that can be read ({error})") from error
    finally:
        pool.shutdown(wait=False)
