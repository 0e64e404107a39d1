"""Share a backbone as a folder in the Hugging Face hub's format, and fetch one from there.

A folder holds `model.safetensors`, `config.json` in timm's form and `README.md`, the model card.
timm and torchvision load it without this file; the card says how, and the lines in it run.

The names inside are torchvision's. timm's ResNets use the same ones, so nothing is renamed. Reading
a checkpoint is another matter: whatever it calls its weights, bring them to these names first.

From cxr-helpers 0.1.0 (MIT license).
Needs: safetensors, torch, torchvision.
"""

import http.client
import json
import os
import re
import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as WaitTimeoutError
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from string import Template
from urllib.parse import quote

import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

ENDPOINT = "https://huggingface.co"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
ARCHITECTURES = {"resnet18": 512, "resnet34": 512, "resnet50": 2048, "resnet101": 2048}
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
BLOCK = 1 << 20  # bytes read at once


class HubError(ValueError):
    """A folder cannot be written or a file cannot be fetched; the text says what to do."""


@dataclass(frozen=True)
class ModelCard:
    """What a stranger must know before using the weights.

    Attributes:
        name: of the model, the card's title.
        summary: one or two sentences on what it is.
        data: what it was trained on, and what that data is not.
        settings: how it was trained, plain values by name.
        metrics: figures by name, each a number or a dict with `value`, `low` and `high` (a 95%
            interval), on what they were measured; may be nested.
        measured_on: the data behind the metrics, with the split.
        limits: what the figures do not show, one sentence each; at least one.
        license: of the weights, as the hub abbreviates it, for instance `mit` or `cc-by-4.0`.
        image_size: side of the images in pixels.
        mean: of each channel, subtracted from gray in [0, 1].
        std: divided by.
        tags: by which the hub finds it.
    """

    name: str
    summary: str
    data: str
    settings: Mapping[str, object]
    metrics: Mapping[str, object]
    measured_on: str
    limits: Sequence[str]
    license: str
    image_size: int
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)
    tags: Sequence[str] = field(default=("chest-x-ray", "self-supervised", "timm"))


TEXT = Template("""---
library_name: timm
license: $license
pipeline_tag: image-feature-extraction
tags:
$tags
---

# $name

$summary

`$arch`, $features features for each image, no classifier. Input: gray radiographs repeated to
three channels, $size x $size pixels, scaled to [0, 1], then minus $mean and divided by $std.

## Use

With torchvision:

```python
import torch, torchvision
from safetensors.torch import load_file

folder = "."  # where model.safetensors lies
backbone = torchvision.models.$arch()
backbone.fc = torch.nn.Identity()
backbone.load_state_dict(load_file(f"{folder}/$weights"))
```

With timm, from a folder (a repository on the hub is named `hf-hub:owner/name`):

```python
import timm

folder = "."  # where config.json lies
backbone = timm.create_model(f"local-dir:{folder}", pretrained=True)
```

## Data

$data

## Settings

$settings

## Metrics

Measured on: $measured_on

$metrics

## Limits

$limits
- Not a medical device; no figure here allows a clinical conclusion.

## License

$license
""")


def write_folder(
    state: Mapping[str, Tensor], folder: str | os.PathLike[str], card: ModelCard, *, arch: str
) -> list[Path]:
    """Write weights, timm's configuration and the model card.

    Args:
        state: a backbone's weights under torchvision's names, without classifier, three channels.
        folder: made where it is missing; each file is written under a temporary name and renamed.
        card: what the model card says.
        arch: one of `ARCHITECTURES`.

    Returns:
        The three files.

    Raises:
        HubError: the weights are not those of that architecture, or the card is not complete.
        OSError: the folder cannot be written.
    """
    state = {name: torch.as_tensor(value) for name, value in state.items()}
    _check_state(state, arch)
    text = model_card(card, arch=arch)
    settings = json.dumps(dict(card.settings), sort_keys=True, default=_plain)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    notes = {"format": "pt", "settings": settings}
    config = json.dumps(timm_config(card, arch=arch), indent=2) + "\n"
    writers = {
        WEIGHTS: lambda path: save_file(tensors, path, metadata=notes),
        CONFIG: lambda path: path.write_text(config, encoding="utf-8"),
        CARD: lambda path: path.write_text(text, encoding="utf-8"),
    }
    for name, write in writers.items():
        temporary = folder / f".{name}.{os.getpid()}"
        try:
            write(temporary)
            os.replace(temporary, folder / name)
        finally:
            temporary.unlink(missing_ok=True)
    return [folder / name for name in writers]


def _plain(value: object) -> object:
    """A number of numpy or torch as Python's own, a path or anything else as text."""
    return value.item() if getattr(value, "ndim", None) == 0 else str(value)


def _check_arch(arch: str) -> None:
    if arch not in ARCHITECTURES:
        raise HubError(f"no architecture {arch!r}; there are {', '.join(ARCHITECTURES)}")


def _check_state(state: Mapping[str, Tensor], arch: str) -> None:
    _check_arch(arch)
    with torch.device("meta"):
        expected = torchvision.models.get_model(arch, weights=None).state_dict()
    expected = {k: tuple(v.shape) for k, v in expected.items() if not k.startswith("fc.")}
    found = {k: tuple(v.shape) for k, v in state.items()}
    wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
    if wrong:
        raise HubError(
            f"{len(wrong)} weights are not those of torchvision's {arch} without classifier, such "
            f"as {', '.join(wrong[:3])}; bring the checkpoint to torchvision's names first"
        )
    if bad := sorted(k for k, v in state.items() if not torch.isfinite(v).all()):
        raise HubError(f"{', '.join(bad[:3])}: not finite; did training diverge?")


def timm_config(card: ModelCard, *, arch: str) -> dict:
    """Content of `config.json` as timm writes and reads it.

    Raises:
        HubError: no such architecture.

    Source: timm, `save_config_for_hf` in timm/models/_hub.py.
    """
    _check_arch(arch)
    size = card.image_size
    return {
        "architecture": arch,
        "num_classes": 0,
        "num_features": ARCHITECTURES[arch],
        "global_pool": "avg",
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [3, size, size],
            "fixed_input_size": False,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": list(card.mean),
            "std": list(card.std),
            "num_classes": 0,
            "pool_size": [-(-size // 32)] * 2,
            "first_conv": "conv1",
            "classifier": "fc",
            "license": card.license,
        },
    }


def model_card(card: ModelCard, *, arch: str) -> str:
    """The model card as Markdown with the hub's header.

    Raises:
        HubError: a part of the card is empty, a text stands where a list of texts belongs, or there
            is no such architecture.
    """
    _check_arch(arch)
    parts = ("name", "summary", "data", "settings", "metrics", "measured_on", "limits", "license")
    if empty := [name for name in parts if not getattr(card, name)]:
        raise HubError(f"the model card lacks {', '.join(empty)}; a reader needs each of them")
    for name in ("limits", "tags"):
        if isinstance(text := getattr(card, name), str):
            raise HubError(f"{name} of the model card is one text, not a list: give [{text!r}]")
    return TEXT.substitute(
        license=card.license,
        tags="\n".join(f"- {tag}" for tag in card.tags),
        name=card.name,
        summary=card.summary,
        arch=arch,
        features=ARCHITECTURES[arch],
        size=card.image_size,
        mean=list(card.mean),
        std=list(card.std),
        weights=WEIGHTS,
        data=card.data,
        settings=_table(("setting", "value"), _flat(card.settings)),
        measured_on=card.measured_on,
        metrics=_table(("metric", "value", "95% interval"), map(_figure, _flat(card.metrics))),
        limits="\n".join(f"- {limit}" for limit in card.limits),
    )


def _flat(values: Mapping, prefix: str = ""):
    """Yield (name, value) of nested values; an interval stays whole."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and not {"value", "low", "high"} <= value.keys():
            yield from _flat(value, f"{name} / ")
        else:
            yield name, value


def _figure(item: tuple[str, object]) -> tuple[str, str, str]:
    name, value = item
    if isinstance(value, Mapping):
        return name, f"{value['value']:.3f}", f"{value['low']:.3f} to {value['high']:.3f}"
    if value is None:
        return name, "not known", ""
    return name, f"{value:.4g}" if isinstance(value, float) else str(value), "not estimated"


def _table(header: Sequence[str], rows) -> str:
    lines = [header, ["---"] * len(header), *rows]
    cells = [[str(c).replace("|", "\\|").replace("\n", " ") for c in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def fetch(
    repository: str,
    folder: str | os.PathLike[str],
    *,
    file: str | None = None,
    revision: str = "main",
    endpoint: str = ENDPOINT,
    timeout: float = 10.0,
) -> Path:
    """Fetch one file of weights from a repository on the hub; nothing in it is run.

    Args:
        repository: `owner/name`, for instance `haooyuee/Barlowtwins-CXR`.
        folder: where it goes; a whole file of weights that is there already is taken without asking
            the network.
        file: its name; may be left out where the repository has one file of weights.
        revision: branch, tag or commit.
        endpoint: of the hub or a mirror.
        timeout: seconds that a name look-up, a connection or a silence may last.

    Returns:
        The file, to be read by a function that takes tensors only.

    Raises:
        HubError: no network, no such repository or file, several files to choose from, a name that
            would leave the folder, or what arrived is no file of weights.
        OSError: the folder cannot be written.
    """
    if not re.fullmatch(r"([\w-][\w.-]*/)?[\w-][\w.-]*", repository):
        raise HubError(f"repository {repository!r}: write it as owner/name")
    version = quote(revision, safe="")  # refs/pr/1 is one name to the hub
    if version in ("", ".", ".."):
        raise HubError(f"revision {revision!r} is no branch, tag or commit")
    folder = Path(folder) / repository.replace("/", "--") / version
    if file is None:
        found = (p for p in folder.rglob("[!.]*") if p.suffix in SUFFIXES and p.is_file())
        kept = sorted(p for p in found if not _wrong(p))
        if len(kept) == 1:
            return kept[0]
        file = _only_weights(repository, version, endpoint, timeout)
    path = folder / _inside(file)
    if not path.is_file() or _wrong(path):
        url = f"{endpoint}/{quote(repository)}/resolve/{version}/{quote(file)}"
        _download(url, path, timeout)
    return path


def _inside(file: str) -> str:
    """A file's name in a repository, which must not lead out of the folder.

    >>> _inside("weights/model.safetensors")
    'weights/model.safetensors'
    """
    parts = PurePosixPath(file).parts
    if not parts or {"..", "/"} & {*parts} or set(file) & {*"\\:\0"} or not file.strip(" ./"):
        raise HubError(f"{file!r} is no name of a file within a repository; nothing was fetched")
    return file


def _wrong(path: Path) -> str:
    """Why a file is no whole file of weights, as far as its bytes show it; '' where none does."""
    with path.open("rb") as stream:
        head = stream.read(512)
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, which stands for the file"
    if path.suffix not in SUFFIXES:
        return ""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt"):
                return ""
        except (SafetensorError, OSError) as error:
            return f"no whole safetensors file ({error})"
    if head.startswith(b"PK\x03\x04"):
        return "" if zipfile.is_zipfile(path) else "cut: its end is missing"
    return "" if head[:1] == b"\x80" else "no file that torch.save wrote"


def _only_weights(repository: str, version: str, endpoint: str, timeout: float) -> str:
    url = f"{endpoint}/api/models/{quote(repository)}/revision/{version}"
    try:
        with _open(url, timeout) as answer:
            listed = [entry["rfilename"] for entry in json.load(answer)["siblings"]]
    except (ValueError, KeyError, TypeError, http.client.HTTPException, OSError) as error:
        if isinstance(error, HubError):
            raise
        raise HubError(f"{url} gives no list of files; name the file, or try again") from error
    names = sorted(name for name in listed if name.endswith(SUFFIXES))
    safe = [name for name in names if name.endswith(".safetensors")]
    chosen = safe if len(safe) == 1 else names
    if len(chosen) != 1:
        raise HubError(f"{repository} holds {len(names)} files of weights: {names}; name one")
    return chosen[0]


def _download(url: str, path: Path, timeout: float) -> None:
    """Fetch a file; it gets its name only once it is whole and, as far as seen, weights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with _open(url, timeout) as answer, temporary.open("wb") as target:
            if answer.headers.get_content_type() == "text/html":
                raise HubError(f"{url} answers with a web page, not a file; does it want a login?")
            expected = answer.headers.get("Content-Length")
            shutil.copyfileobj(answer, target, BLOCK)
        if expected is not None and temporary.stat().st_size != int(expected):
            raise HubError(f"{url} broke off; try again")
        if wrong := _wrong(temporary):
            raise HubError(f"{url} gave no weights, but what is {wrong}; it was not kept")
        os.replace(temporary, path)
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise HubError(f"{url} broke off ({error}); try again") from error
    finally:
        temporary.unlink(missing_ok=True)


def _open(url: str, timeout: float):
    """The answer of a server, its name's look-up included in the time that this may take."""
    if not url.startswith(("https://", "http://")):
        raise HubError(f"{url} is no address; an endpoint begins with https://")
    pool = ThreadPoolExecutor(1)
    attempt = pool.submit(urllib.request.urlopen, url, timeout=timeout)
    try:
        return attempt.result(2 * timeout)
    except urllib.error.HTTPError as error:
        raise HubError(f"{url}: the hub answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, WaitTimeoutError) as error:
        raise HubError(
            f"{url} cannot be reached ({error or 'no answer'}); fetch the file on another machine, "
            "put it on this one, and give its path"
        ) from error
    finally:
        pool.shutdown(wait=False)
