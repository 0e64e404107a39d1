"""Share a backbone as a folder in the Hugging Face hub's format, push it there, fetch one.

A folder holds `model.safetensors`, `config.json` in timm's form and `README.md`, the model card.
timm and torchvision load it without this file; the card says how, and the lines in it run.

The names inside are torchvision's. timm's ResNets use the same ones, so nothing is renamed.

From cxr-helpers 0.2.0 (MIT license).
Needs: huggingface-hub, torch, torchvision.
Goes with: weights.py.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

import torch
import torchvision
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from torch import Tensor, nn

from .weights import WeightsError, load_weights, read_weights, save_weights, write_whole

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
ARCHITECTURES = {"resnet18": 512, "resnet34": 512, "resnet50": 2048, "resnet101": 2048}
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")


class HubError(ValueError):
    """A folder cannot be written or pushed, or a file not fetched; the text says what to do."""


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


def push(
    folder: str | os.PathLike[str],
    repository: str,
    *,
    private: bool = True,
    endpoint: str | None = None,
) -> str:
    """Upload a folder that `write_folder` made to the hub, as whoever is logged in there.

    Log in once with `hf auth login`, or set HF_TOKEN; the token must be allowed to write.

    Args:
        folder: its weights, configuration and card go there; other files in it stay here.
        repository: `owner/name`, made where it does not exist.
        private: seen by its owner alone; False shows it to everybody.
        endpoint: of the hub or a mirror; by default HF_ENDPOINT, else https://huggingface.co.

    Returns:
        The repository's address.

    Raises:
        HubError: the folder is not complete, no network, no such owner, no token that may write,
            or a repository that was to be private is there already and is public.
    """
    folder, names = Path(folder), [WEIGHTS, CONFIG, CARD]
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise HubError(f"{folder} lacks {', '.join(missing)}; `write_folder` makes such a folder")
    if wrong := _wrong(folder / WEIGHTS):
        raise HubError(f"{folder / WEIGHTS} {wrong}; nothing was uploaded")
    api = HfApi(endpoint=endpoint)
    with _one_sentence(repository):
        made = api.create_repo(repository, private=private, exist_ok=True)
        if private and not api.model_info(made.repo_id).private:
            raise HubError(
                f"{repository} is there already and public, nothing was uploaded: give another "
                "name, or private=False"
            )
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, allow_patterns=names)
    return str(made)


def fetch(
    repository: str,
    file: str,
    folder: str | os.PathLike[str] | None = None,
    *,
    revision: str = "main",
    endpoint: str | None = None,
    timeout: float = 10.0,
) -> Path:
    """Fetch one file of weights from a repository on the hub; nothing in it is run.

    A repository that is private or gated wants `hf auth login` once, or HF_TOKEN.

    Args:
        repository: `owner/name`, for instance `haooyuee/Barlowtwins-CXR`.
        file: its name there, which ends as one of `SUFFIXES`.
        folder: the cache, by default the one that all programs of the hub share; a file of weights
            that is there already is taken without asking the network.
        revision: branch, tag or commit.
        endpoint: of the hub or a mirror; by default HF_ENDPOINT, else https://huggingface.co.
        timeout: seconds that a connection or its silence may last before the download begins.

    Returns:
        The file, which `weights.read_weights` takes.

    Raises:
        HubError: no network, no such repository, revision or file, no right to read it, a name that
            would leave the folder, or what arrived is no file of weights.
        OSError: the folder cannot be written.
    """
    if not file.endswith(SUFFIXES):
        raise HubError(f"{file!r} is no name of a file of weights ({', '.join(SUFFIXES)})")
    if {"", ".", ".."} & {*revision.replace("\\", "/").split("/")}:
        raise HubError(f"revision {revision!r} is no branch, tag or commit")
    where = {"repo_id": repository, "filename": file, "revision": revision, "endpoint": endpoint}
    with _one_sentence(repository, file, revision):
        try:
            path = Path(hf_hub_download(**where, cache_dir=folder, local_files_only=True))
        except LocalEntryNotFoundError:
            path = None
        if path is None or _wrong(path):
            _check_answer(hf_hub_url(**where), timeout)
            path = Path(
                hf_hub_download(
                    **where, cache_dir=folder, etag_timeout=timeout, force_download=path is not None
                )
            )
    if wrong := _wrong(path):
        raise HubError(f"{file} of {repository} {wrong}; before you try again, delete {path}")
    return path


def _wrong(path: Path) -> str:
    """Why a file holds no weights that `read_weights` takes; '' where it does."""
    try:
        read_weights(path)
    except WeightsError as error:
        return str(error).removeprefix(f"{path} ")
    return ""


def _check_answer(url: str, timeout: float) -> None:
    """Ask for a file's head once and in time; `hf_hub_download` alone tries for minutes."""
    pool = ThreadPoolExecutor(1)  # the look-up of a name heeds no timeout
    try:
        pool.submit(get_hf_file_metadata, url, timeout=timeout).result(2 * timeout)
    finally:
        pool.shutdown(wait=False)


@contextmanager
def _one_sentence(repository: str, file: str = "", revision: str = "") -> Iterator[None]:
    """Say what went wrong at the hub as `HubError`; a disk's error stays as it is."""
    try:
        yield
    except HubError:
        raise
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        if getattr(error, "errno", None):
            raise
        raise HubError(_remedy(error, repository, file, revision)) from error


def _remedy(error: Exception, repository: str, file: str, revision: str) -> str:
    login = "log in with `hf auth login`, or set HF_TOKEN"
    remedies = {
        GatedRepoError: f"{repository} is gated: accept its terms on its page, then {login}",
        RepositoryNotFoundError: f"the hub shows you no repository {repository!r}: check owner and "
        f"name; if it is private, {login}",
        RevisionNotFoundError: f"{repository} has no branch, tag or commit {revision!r}; its page "
        "lists them",
        RemoteEntryNotFoundError: f"{repository} has no file {file!r} at {revision!r}; its page "
        "lists them",
        HFValidationError: f"repository {repository!r}: write it as owner/name",
    }
    for kind, told in remedies.items():
        if isinstance(error, kind):
            return told
    said = str(error).split("\n")[0] or "no answer in time"
    if isinstance(error, HfHubHTTPError):
        code = error.response.status_code
        if code not in (401, 403):
            return f"{repository}: the hub answers {code}; try again later"
        return (
            f"the hub does not take your token for {repository} ({code}): make one with the right "
            f"to it in your settings there, then {login}"
        )
    if isinstance(error, UnicodeError):
        return f"your token is none: copy it again from your settings on the hub, then {login}"
    if isinstance(error, ValueError):
        return said
    told = f"{repository} cannot be reached on the hub ({said}); try again"
    if not file:
        return told
    return f"{told}, or fetch {file} on another machine, put it on this one, and give its path"
