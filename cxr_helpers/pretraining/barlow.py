"""Barlow Twins on a torchvision ResNet: backbone, loss terms, training module, weights.

Two views of each image go through backbone and projector. The cross-correlation matrix of the two
outputs, taken over the batch, is pulled towards the identity: ones on the diagonal (a feature says
the same of both views), zeros elsewhere (no two features say the same).

Source: Zbontar et al. 2021, equations 1 and 2 (arXiv 2103.03230).

From cxr-helpers 0.1.0 (MIT license).
Needs: lightly, pytorch-lightning, safetensors, torch, torchvision.
"""

import json
import math
import os
import pickle
import re
import socket
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlparse

import pytorch_lightning as pl
import torch
import torch.distributed as dist
import torchvision
from lightly.loss import BarlowTwinsLoss
from lightly.models.modules import BarlowTwinsProjectionHead
from lightly.utils.dist import gather
from lightly.utils.lars import LARS
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

IMAGENET = {
    "resnet18": torchvision.models.ResNet18_Weights.IMAGENET1K_V1,
    "resnet50": torchvision.models.ResNet50_Weights.IMAGENET1K_V2,
}
PREFIXES = ("module.", "backbone.", "state_dict.")
HEADS = ("fc.", "projector.", "bn.")  # what may stand beside a backbone and is left out
FIRST = "conv1.weight"  # (64, channels, 7, 7), the only weight that depends on the channels


class WeightsError(ValueError):
    """Weights cannot be read, or do not fit the network."""


def build_backbone(arch: str, *, seed: int, channels: int = 3) -> nn.Module:
    """A torchvision ResNet without its classifier, with random weights.

    Args:
        arch: `resnet18` (512 features) or `resnet50` (2048 features).
        seed: of the initialization; the global random state is left as it was.
        channels: 3, where gray is repeated, or 1, where the first convolution takes gray itself.

    Returns:
        A module from (B, channels, H, W) to (B, features). For the same seed, one channel gives
        the same features as three repeated ones. Who is handed the module reads from
        `backbone.conv1.in_channels` how many channels it takes.

    Raises:
        ValueError: there is no such architecture here, or another number of channels.
    """
    if arch not in IMAGENET:
        raise ValueError(f"no backbone {arch!r}; there are {sorted(IMAGENET)}")
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels}; give 1 (gray) or 3 (gray repeated)")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs too
        backbone = torchvision.models.get_model(arch, weights=None)
    backbone.fc = nn.Identity()
    if channels == 1:
        weight = with_channels({FIRST: backbone.conv1.weight.detach()}, 1)[FIRST]
        backbone.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
        backbone.conv1.weight = nn.Parameter(weight)
    return backbone


def with_channels(state: dict[str, Tensor], channels: int) -> dict[str, Tensor]:
    """Weights for another number of gray input channels that give the same features.

    Repeated gray meets the sum of the three kernels, so one channel takes that sum, and three
    channels take a third of it each.

    Args:
        state: torchvision names; the first convolution is (64, 1 or 3, 7, 7), and its second
            dimension says for how many channels the weights are. Any other shape stays as it is.
        channels: 1 or 3; a network's own number is its `conv1.in_channels`.

    Raises:
        ValueError: another number of channels is asked for.

    >>> state = {"conv1.weight": torch.ones(1, 3, 1, 1)}
    >>> with_channels(state, 1)["conv1.weight"].flatten().tolist()
    [3.0]
    """
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels}; give 1 (gray) or 3 (gray repeated)")
    weight = state.get(FIRST)
    if weight is None or weight.ndim != 4 or {weight.shape[1], channels} != {1, 3}:
        return dict(state)
    total = weight.sum(dim=1, keepdim=True)
    return {**state, FIRST: (total / channels).repeat(1, channels, 1, 1)}


def feature_count(backbone: nn.Module) -> int:
    """Number of features that a ResNet backbone gives for each image.

    Raises:
        ValueError: another kind of network.
    """
    stage = getattr(backbone, "layer4", None)
    last = stage[-1] if isinstance(stage, nn.Sequential) and len(stage) else None
    if not hasattr(last, "bn2"):
        raise ValueError(
            f"a {type(backbone).__name__} is no ResNet of torchvision's kind (stages layer1 to "
            "layer4); take one that build_backbone makes"
        )
    return getattr(last, "bn3", last.bn2).num_features


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
    name = Path(urlparse(weights.url).path).name
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not cached.is_file() and not _reachable(urlparse(weights.url).hostname, timeout):
        return None, f"ImageNet weights ({name}) are neither cached nor can they be downloaded now."
    try:
        if not cached.is_file():
            weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        state, _ = read_weights(cached)
    except (OSError, RuntimeError, WeightsError) as error:
        return None, f"ImageNet weights ({name}) could not be loaded: {error}"
    return state, f"ImageNet weights: torchvision's {name}."


def _reachable(host: str, timeout: float) -> bool:
    """Whether a connection to the host opens in time, its name's look-up included."""
    from concurrent.futures import ThreadPoolExecutor
    from concurrent.futures import TimeoutError as WaitTimeoutError

    pool = ThreadPoolExecutor(1)
    attempt = pool.submit(socket.create_connection, (host, 443), timeout)
    try:
        attempt.result(timeout).close()
    except (OSError, WaitTimeoutError):
        return False
    finally:
        pool.shutdown(wait=False)
    return True


def strip_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
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
    whole_model = any("backbone." in key for key in state)
    left_out = HEADS if whole_model else ("fc.",)
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


def load_weights(backbone: nn.Module, state: dict[str, Tensor]) -> None:
    """Put weights into a backbone; every key must find its place.

    Args:
        backbone: as `build_backbone` makes it; changed in place.
        state: torchvision names, with or without the prefixes that `strip_prefixes` removes, for
            one or three channels whatever the backbone takes.

    Raises:
        WeightsError: names every key that is missing, left over, of another shape or not finite;
            or the prefix that all keys share, such as `encoder.`.
    """
    own = backbone.state_dict()
    state = {key: torch.as_tensor(value) for key, value in strip_prefixes(state).items()}
    state = with_channels(state, own[FIRST].shape[1])
    first = {key.split(".")[0] for key in state}
    if len(state) > len(first) == 1 and first.isdisjoint(key.split(".")[0] for key in own):
        raise WeightsError(
            f"all {len(state)} names begin with `{first.pop()}.`, which torchvision's do not; "
            "take it off, and leave out what is not the backbone"
        )
    optional = {key for key in own if key.endswith("num_batches_tracked")}
    missing = sorted(own.keys() - state.keys() - optional)
    extra = sorted(state.keys() - own.keys())
    shapes = [
        f"{key} is {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own.keys() & state.keys()
        if own[key].shape != state[key].shape
    ]
    problems = {"missing": missing, "not known here": extra, "of another shape": sorted(shapes)}
    told = [f"{len(keys)} {what}: {', '.join(keys)}" for what, keys in problems.items() if keys]
    if told:
        raise WeightsError(
            "the weights do not fit this backbone. Was the checkpoint made by another "
            "architecture? " + "; ".join(told)
        )
    _check_finite(state)
    backbone.load_state_dict(state, strict=False)


def _check_finite(state: Mapping[str, Tensor]) -> None:
    if bad := sorted(key for key, value in state.items() if not torch.isfinite(value).all()):
        raise WeightsError(
            f"{len(bad)} weights are not finite, such as {bad[0]}; take a checkpoint from before "
            "training diverged"
        )


def save_backbone(backbone: nn.Module, path: str | os.PathLike[str], *, settings: dict) -> None:
    """Write the weights under torchvision's names, with their settings, as safetensors.

    Args:
        backbone: as `build_backbone` makes it; one with one channel is written with three, so
            that torchvision's ResNet takes it.
        path: ends in `.safetensors`; written under a temporary name and renamed.
        settings: JSON values that say how the weights were made.

    Raises:
        ValueError: the path ends otherwise, a weight is not finite, or a setting is no JSON value.
        OSError: the folder cannot be written; the text names it.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} must end in .safetensors: readers tell the format by it")
    told = json.dumps(settings, sort_keys=True, default=_plain)
    _check_finite(backbone.state_dict())
    check_writable(path.parent)
    state = with_channels(backbone.state_dict(), 3)
    state = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(state, temporary, metadata={"settings": told})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _plain(value: object) -> object:
    """A number of numpy or torch as Python's own."""
    if getattr(value, "ndim", None) == 0:
        return value.item()
    raise ValueError(f"setting {value!r} is no number, text, list or dict; write it as one")


def check_writable(folder: str | os.PathLike[str]) -> None:
    """Make a folder and try to write into it, which tells before hours of training, not after.

    Raises:
        OSError: it cannot be made or written; the text names it.
    """
    proof = Path(folder) / f".writable.{os.getpid()}"
    try:
        proof.parent.mkdir(parents=True, exist_ok=True)
        proof.write_bytes(b"")
        proof.unlink()
    except OSError as error:
        raise OSError(
            f"{folder} cannot be written ({error.strerror}); choose a folder of yours, or mend "
            "its permissions or the disk"
        ) from error


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


def cross_correlation(z_a: Tensor, z_b: Tensor) -> Tensor:
    """Cross-correlation of two batches of outputs, over the batch.

    Args:
        z_a: (B, D) outputs for the first views.
        z_b: (B, D) outputs for the second views of the same images.

    Returns:
        (D, D), entries in [-1, 1]; a feature that does not vary over the batch gives 0.

    Raises:
        ValueError: the shapes differ, or there are fewer than two images.

    Source: Zbontar et al. 2021, equation 2.

    >>> z = torch.tensor([[1.0], [-1.0]])
    >>> round(cross_correlation(z, -z).item(), 3)
    -1.0
    """
    z_a, z_b = torch.as_tensor(z_a), torch.as_tensor(z_b)
    if z_a.shape != z_b.shape or z_a.ndim != 2 or len(z_a) < 2:
        raise ValueError(
            f"expected two batches (B, D) of at least 2 images, got {tuple(z_a.shape)} and "
            f"{tuple(z_b.shape)}"
        )
    return _standardize(z_a).T @ _standardize(z_b) / len(z_a)  # (D, D)


def _standardize(z: Tensor) -> Tensor:
    z = z if z.is_floating_point() else z.float()
    centered = z - z.mean(dim=0)
    variance = centered.pow(2).mean(dim=0)
    return centered / (variance + 1e-5).sqrt()  # the constant of batch norm, and so of lightly


def loss_terms(correlation: Tensor) -> tuple[Tensor, Tensor]:
    """The two terms of the loss, before the redundancy term is weighted.

    Args:
        correlation: (D, D) cross-correlation.

    Returns:
        Invariance, the sum of (1 - c_ii)^2, and redundancy, the sum of c_ij^2 with i != j.

    Raises:
        ValueError: it is no square matrix.

    Source: Zbontar et al. 2021, equation 1.

    >>> [round(x.item(), 4) for x in loss_terms(torch.tensor([[0.5, 0.1], [0.0, 1.0]]))]
    [0.25, 0.01]
    """
    correlation = _square(correlation)
    diagonal = correlation.diagonal()
    invariance = (1 - diagonal).pow(2).sum()
    redundancy = (correlation - diagonal.diag()).pow(2).sum()
    return invariance, redundancy


def diagonal_mean(correlation: Tensor) -> float:
    """Mean of the diagonal of a (D, D) cross-correlation; 1 is the aim.

    Raises:
        ValueError: it is no square matrix.
    """
    return _square(correlation).diagonal().mean().item()


def offdiagonal_abs_mean(correlation: Tensor) -> float:
    """Mean absolute value off the diagonal of a (D, D) cross-correlation; 0 is the aim.

    Raises:
        ValueError: it is no square matrix.
    """
    correlation = _square(correlation)
    d = len(correlation)
    total = correlation.abs().sum() - correlation.diagonal().abs().sum()
    return (total / max(1, d * (d - 1))).item()


def _square(correlation: Tensor) -> Tensor:
    matrix = torch.as_tensor(correlation)
    if matrix.ndim != 2 or len(matrix) != matrix.shape[1] or not len(matrix):
        raise ValueError(f"expected a correlation (D, D), got shape {tuple(matrix.shape)}")
    return matrix


def feature_spread(features: Tensor) -> float:
    """Mean standard deviation of L2-normalized features, times sqrt(D).

    Args:
        features: (N, D).

    Returns:
        Near 1 where the features spread over the sphere, 0 where they have collapsed to a point.

    Raises:
        ValueError: fewer than two images, another shape, or a feature that is not finite.

    Source: Chen and He 2021, figure 2 (arXiv 2011.10566).
    """
    unit = nn.functional.normalize(_features(features), dim=1)
    return (unit.std(dim=0).mean() * math.sqrt(unit.shape[1])).item()


def effective_rank(features: Tensor) -> float:
    """How many directions the features use: exp of the entropy of the singular values.

    Args:
        features: (N, D).

    Returns:
        Between 1 (all features say the same) and min(N, D).

    Raises:
        ValueError: fewer than two images, another shape, or a feature that is not finite.

    Source: Roy and Vetterli 2007, 'The effective rank'.

    >>> round(effective_rank(torch.eye(4)), 1)
    3.0
    """
    features = _features(features)
    values = torch.linalg.svdvals(features - features.mean(dim=0))
    share = values / values.sum().clamp_min(1e-12)
    share = share[share > 1e-12]
    return torch.exp(-(share * share.log()).sum()).item()


def _features(values: Tensor) -> Tensor:
    features = torch.as_tensor(values).float()
    if features.ndim != 2 or len(features) < 2 or not torch.isfinite(features).all():
        raise ValueError(
            f"expected finite features (N, D) of at least 2 images, got {tuple(features.shape)}"
        )
    return features


class ProcessBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the images of all processes, on any device.

    torch's SyncBatchNorm does the same on a GPU only. In evaluation, or with one process, this is
    torch's batch norm.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim not in (2, 4):
            raise ValueError(f"expected (B, C) or (B, C, H, W), got {tuple(x.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) or (B, C, H, W) to the same shape."""
        if not self.training or process_count() == 1:
            return super().forward(x)
        self._check_input_dim(x)
        values, dims = _at_least_float32(x), [d for d in range(x.ndim) if d != 1]
        shape = (1, -1) + (1,) * (x.ndim - 2)
        count = values.numel() / values.shape[1] * process_count()
        mean = _sum_over_processes(values.sum(dims)) / count  # (C,)
        centered = values - mean.view(shape)
        variance = _sum_over_processes(centered.pow(2).sum(dims)) / count  # (C,)
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centered * scale.view(shape) + self.bias.view(shape)).to(x.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def synchronize_batch_norm(module: nn.Module) -> nn.Module:
    """Replace every batch norm of a module, in place, by one over the images of all processes.

    Args:
        module: its BatchNorm1d and BatchNorm2d have weights and running statistics.

    Returns:
        The same module; names and weights stay.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            synced = ProcessBatchNorm(child.num_features, eps=child.eps, momentum=child.momentum)
            synced.load_state_dict(child.state_dict())
            setattr(module, name, synced)
        else:
            synchronize_batch_norm(child)
    return module


def process_count() -> int:
    """Number of processes that train together; 1 where none were started."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _sum_over_processes(x: Tensor) -> Tensor:
    return torch.stack(gather(x)).sum(dim=0)


def gather_outputs(z: Tensor) -> Tensor:
    """Outputs of all processes, in their order; gradients flow back to each.

    Args:
        z: (B, D) of this process.

    Returns:
        (B * processes, D).
    """
    return torch.cat(gather(z.contiguous())) if process_count() > 1 else z


class BarlowTwins(pl.LightningModule):
    """Backbone and projector with the Barlow Twins loss; trains and logs, nothing else.

    With several processes the outputs of all are gathered before lightly's loss, so that loss and
    gradients are those of one process with the whole batch. (lightly's own `gather_distributed`
    averages correlations that each process standardized by its own images.) For this batch norm
    must be synchronized too: `Trainer(sync_batchnorm=True)` on GPUs, `synchronize_batch_norm` on
    any device.

    Args:
        backbone: (B, 1 or 3, H, W) to (B, features), as `build_backbone` makes it.
        projector: widths of the hidden layers and the output, (hidden, hidden, output).
        redundancy_weight: lambda of the paper.
        optimizer: `adamw`, or `lars` (the published code's), its rate scaled by batch / 256.
        learning_rate: of weights; with `lars`, biases and norms get 0.024 of it.
        weight_decay: of weights; biases and norms get none.
        batch_size: images a step over all processes.
        total_steps: optimizer steps of the whole run, for warm-up and cosine.
        warmup_fraction: share of the steps that warm up.
        gather_distributed: take the correlation over the images of all processes.
        criterion: called with z_a and z_b; lightly's loss where None.

    Raises:
        ValueError: a width, the batch or the number of steps is too small.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: tuple[int, int, int] = (512, 512, 512),
        redundancy_weight: float = 5e-3,
        optimizer: str = "adamw",
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        batch_size: int = 128,
        total_steps: int = 1000,
        warmup_fraction: float = 0.1,
        gather_distributed: bool = True,
        criterion: Callable[[Tensor, Tensor], Tensor] | None = None,
    ):
        super().__init__()
        if len(projector) != 3 or min(projector) < 1 or projector[0] != projector[1]:
            raise ValueError(
                f"projector is {tuple(projector)}; lightly's head takes (hidden, hidden, output), "
                "all positive"
            )
        if batch_size < 2 or total_steps < 1:
            raise ValueError(
                f"batch_size {batch_size} and total_steps {total_steps}: correlation over a batch "
                "needs at least 2 images, and training at least 1 step"
            )
        if optimizer not in ("adamw", "lars"):
            raise ValueError(f"optimizer is {optimizer!r}; give `adamw` or `lars`")
        self.save_hyperparameters(ignore=["backbone", "criterion"])
        self.backbone = backbone
        width = feature_count(backbone)
        self.projector = BarlowTwinsProjectionHead(width, projector[0], projector[2])
        self.criterion = criterion or BarlowTwinsLoss(redundancy_weight)
        self._outputs: tuple[Tensor, Tensor] | None = None  # of the last step, for the log

    def forward(self, views: Tensor) -> Tensor:
        """(B, 1, H, W) normalized gray to (B, D) outputs; the projector runs in float32."""
        channels = self.backbone.conv1.in_channels
        images = views.expand(-1, channels, -1, -1).contiguous(memory_format=torch.channels_last)
        features = self.backbone(images)  # (B, features)
        with torch.autocast(features.device.type, enabled=False):
            return self.projector(_at_least_float32(features))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch of view pairs; logs loss, its two terms and the mean diagonal.

        The criterion makes the (D, D) matrix; the log does without one (256 MB at D = 8192).

        Raises:
            ValueError: there is only one image in the batch.
            FloatingPointError: the loss is not finite.
        """
        if len(batch[0]) < 2:
            raise ValueError("a batch of 1 image has no correlation; set batch_size to 2 or more")
        z_a, z_b = self(batch[0]), self(batch[1])  # (B, D) float32
        if self.hparams.gather_distributed:
            z_a, z_b = gather_outputs(z_a), gather_outputs(z_b)
        with torch.autocast(z_a.device.type, enabled=False):
            loss, logged = self._loss_and_log(z_a, z_b)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss.item()} at step {self.global_step}; lower the learning rate "
                f"(now {self.hparams.learning_rate:g}), lengthen the warm-up (now "
                f"{self.hparams.warmup_fraction:g} of the steps), or train in float32"
            )
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=len(z_a))
        return loss

    def _loss_and_log(self, z_a: Tensor, z_b: Tensor) -> tuple[Tensor, dict]:
        loss = self.criterion(z_a, z_b)
        self._outputs = z_a.detach(), z_b.detach()
        a, b = (_standardize(z) for z in self._outputs)  # (B, D)
        diagonal = (a * b).mean(dim=0)  # (D,)
        squares = ((a @ a.T) * (b @ b.T)).sum() / len(a) ** 2  # of all c_ij, by (B, B) products
        return loss, {
            "loss": loss.detach(),
            "invariance": (1 - diagonal).pow(2).sum(),
            "redundancy": (squares - diagonal.pow(2).sum()).clamp_min(0),
            "diagonal_mean": diagonal.mean(),
        }

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        """Log the mean off the diagonal, after the last step of an epoch.

        It takes the whole (D, D) matrix, which is made here once, when the step has let its own go.
        """
        kept, self._outputs = self._outputs, None
        trainer = self.trainer
        if trainer.is_last_batch or trainer.global_step == trainer.max_steps:
            value = offdiagonal_abs_mean(cross_correlation(*kept))
            self.log(
                "offdiagonal_abs_mean", value, on_step=False, on_epoch=True, batch_size=len(kept[0])
            )

    def configure_optimizers(self):
        """AdamW or LARS without decay of biases and norms; warm-up, then cosine to zero."""
        h = self.hparams
        weights = [p for p in self.parameters() if p.ndim > 1]
        others = [p for p in self.parameters() if p.ndim <= 1]
        groups = [
            {"params": weights, "weight_decay": h.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        if h.optimizer == "adamw":
            optimizer = torch.optim.AdamW(groups, lr=h.learning_rate, fused=True)
        else:
            rate = h.learning_rate * h.batch_size / 256
            groups[1]["lr"] = 0.024 * rate
            optimizer = LARS(groups, lr=rate, momentum=0.9, weight_decay=h.weight_decay)
        warmup = max(1, round(h.warmup_fraction * h.total_steps))
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmup_cosine(step, warmup, h.total_steps)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def warmup_cosine(step: int, warmup_steps: int, total_steps: int) -> float:
    """Factor of the learning rate: a linear rise to 1, then a half cosine to 0.

    >>> [round(warmup_cosine(s, 2, 6), 2) for s in range(7)]
    [0.5, 1.0, 1.0, 0.85, 0.5, 0.15, 0.0]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
