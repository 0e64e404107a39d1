"""Share a backbone as a folder in the Hugging Face hub's format, and fetch one from there.

A folder holds `model.safetensors`, `config.json` in timm's form and `README.md`, the model card.
timm and torchvision load it without this file; the card says how, and the lines in it run.

The names inside are torchvision's. timm's ResNets use the same ones, so nothing is renamed.

From cxr-helpers 0.1.0 (MIT license).
Needs: torch, torchvision.
Goes with: weights.py.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from string import Template
from urllib.error import HTTPError
from urllib.parse import quote

import torch
import torchvision
from torch import Tensor, nn

from .weights import WeightsError, load_weights, open_url, read_weights, save_weights, write_whole

ENDPOINT = "https://huggingface.co"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
ARCHITECTURES = {"resnet18": 512, "resnet34": 512, "resnet50": 2048, "resnet101": 2048}
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")


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
three channels, $image_size x $image_size pixels, scaled to [0, 1], minus $mean, divided by $std.

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
        state: a backbone's weights, as `weights.load_weights` takes them.
        folder: made where it is missing; each file is written under a temporary name and renamed.
        card: what the model card says.
        arch: one of `ARCHITECTURES`.

    Returns:
        The three files.

    Raises:
        HubError: no such architecture, or the card is not complete.
        WeightsError: the weights are not those of that architecture, or not finite.
        ValueError: a setting is no JSON value.
        OSError: the folder cannot be written.

    >>> card = ModelCard(
    ...     name="Tiny", summary="An example.", data="Noise.", settings={"seed": 0},
    ...     metrics={"macro AUROC": {"value": 0.61, "low": 0.5, "high": 0.7}},
    ...     measured_on="noise", limits=["All"], license="mit", image_size=64,
    ... )
    >>> state = torchvision.models.resnet18().state_dict()
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = write_folder(state, folder, card, arch="resnet18")
    >>> [file.name for file in files]
    ['model.safetensors', 'config.json', 'README.md']
    """
    if arch not in ARCHITECTURES:
        raise HubError(f"no architecture {arch!r}; there are {', '.join(ARCHITECTURES)}")
    config, text = _timm_config(card, arch), _model_card(card, arch)
    with torch.random.fork_rng(devices=[]):
        backbone = torchvision.models.get_model(arch, weights=None)
    backbone.fc = nn.Identity()
    load_weights(backbone, state)
    folder = Path(folder)
    save_weights(backbone.state_dict(), folder / WEIGHTS, settings=card.settings)
    write_whole(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
    write_whole(folder / CARD, text.encode())
    return [folder / name for name in (WEIGHTS, CONFIG, CARD)]


def _timm_config(card: ModelCard, arch: str) -> dict:
    """Content of `config.json`, as `save_config_for_hf` in timm/models/_hub.py writes it."""
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


def _model_card(card: ModelCard, arch: str) -> str:
    """The model card as Markdown with the hub's header."""
    parts = ("name", "summary", "data", "settings", "metrics", "measured_on", "limits", "license")
    if empty := [name for name in parts if not getattr(card, name)]:
        raise HubError(f"the model card lacks {', '.join(empty)}; a reader needs each of them")
    for name in ("limits", "tags"):
        if isinstance(text := getattr(card, name), str):
            raise HubError(f"{name} of the model card is one text, not a list: give [{text!r}]")
    told = {
        "arch": arch,
        "features": ARCHITECTURES[arch],
        "weights": WEIGHTS,
        "mean": list(card.mean),
        "std": list(card.std),
        "tags": "\n".join(f"- {tag}" for tag in card.tags),
        "settings": _table(("setting", "value"), _flat(card.settings)),
        "metrics": _table(("metric", "value", "95% interval"), map(_figure, _flat(card.metrics))),
        "limits": "\n".join(f"- {limit}" for limit in card.limits),
    }
    return TEXT.substitute(vars(card) | told)


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
    file: str,
    folder: str | os.PathLike[str],
    *,
    revision: str = "main",
    endpoint: str = ENDPOINT,
    timeout: float = 10.0,
) -> Path:
    """Fetch one file of weights from a repository on the hub; nothing in it is run.

    Args:
        repository: `owner/name`, for instance `haooyuee/Barlowtwins-CXR`.
        file: its name there, which ends as one of `SUFFIXES`.
        folder: where it goes; a whole file of weights that is there already is taken without asking
            the network.
        revision: branch, tag or commit.
        endpoint: of the hub or a mirror.
        timeout: seconds that a name look-up, a connection or a silence may last.

    Returns:
        The file, which `weights.read_weights` takes.

    Raises:
        HubError: no network, no such repository or file, a name that would leave the folder, or
            what arrived is no file of weights.
        OSError: the folder cannot be written.
    """
    parts = PurePosixPath(file).parts
    if not re.fullmatch(r"([\w-][\w.-]*/)?[\w-][\w.-]*", repository):
        raise HubError(f"repository {repository!r}: write it as owner/name")
    if not file.endswith(SUFFIXES) or {"..", "/"} & {*parts} or {*file} & {*"\\:\0"}:
        raise HubError(
            f"{file!r} is no name of a file of weights ({', '.join(SUFFIXES)}) within a "
            "repository; nothing was fetched"
        )
    version = quote(revision, safe="")  # refs/pr/1 is one name to the hub
    if version in ("", ".", ".."):
        raise HubError(f"revision {revision!r} is no branch, tag or commit")
    path = Path(folder) / repository.replace("/", "--") / version / file
    if not path.is_file() or _wrong(path):
        _download(f"{endpoint}/{quote(repository)}/resolve/{version}/{quote(file)}", path, timeout)
    return path


def _wrong(path: Path) -> str:
    """Why a file holds no weights that `read_weights` takes; '' where it does."""
    try:
        read_weights(path)
    except WeightsError as error:
        return str(error).removeprefix(f"{path} ")
    return ""


def _download(url: str, path: Path, timeout: float) -> None:
    """Fetch a file; it gets its name only once it is whole and holds weights."""
    if not url.startswith(("https://", "http://")):
        raise HubError(f"{url} is no address; an endpoint begins with https://")
    try:
        answer = open_url(url, timeout)
    except HTTPError as error:
        raise HubError(f"{url}: the hub answers {error.code} {error.reason}") from error
    except OSError as error:
        raise HubError(
            f"{url} cannot be reached ({error or 'no answer'}); fetch the file on another machine, "
            "put it on this one, and give its path"
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with answer, temporary.open("wb") as target:
            shutil.copyfileobj(answer, target, 1 << 20)
        if answer.length:  # bytes that were announced and did not come
            raise ConnectionError(f"{answer.length} bytes are missing")
        if wrong := _wrong(temporary):
            raise HubError(f"what {url} gave {wrong}; it was not kept")
        os.replace(temporary, path)
    except (TimeoutError, ConnectionError, HTTPException) as error:
        raise HubError(f"{url} broke off ({error}); try again") from error
    finally:
        temporary.unlink(missing_ok=True)
