"""Which machines a training run uses, in Lightning's terms, checked before it starts."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.distributed as dist
from lightly.utils.dist import rank as process_rank
from lightly.utils.dist import world_size as process_count

from cxr_helpers.course.core.machine import usable_cores

LAUNCHED = "TORCHELASTIC_RUN_ID"  # torchrun sets it for its workers
CPU_BF16 = ("avx512_bf16", "amx_bf16")  # instructions that multiply it
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


class ComputeError(ValueError):
    """The machines that were asked for are not there, or do not fit the batch."""


def bf16_is_fast(*, gpu: bool | None = None) -> bool:
    """Whether the hardware multiplies bfloat16; what is emulated costs time and does not count.

    Args:
        gpu: ask the GPU (True) or the processor (False); None asks the GPU where there is one.
    """
    if torch.cuda.is_available() if gpu is None else gpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if not hasattr(torch.cpu, "get_capabilities"):  # an older torch
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in CPU_BF16)


def training_precision(*, gpu: bool | None = None) -> str:
    """Lightning's name for the fastest precision that trains well here.

    Args:
        gpu: as for `bf16_is_fast`.
    """
    if bf16_is_fast(gpu=gpu):
        return "bf16-mixed"
    on_gpu = torch.cuda.is_available() if gpu is None else gpu
    return "16-mixed" if on_gpu else "32-true"


@dataclass(frozen=True)
class Compute:
    """Processes and precision of a run, as Lightning's Trainer takes them.

    Attributes:
        devices: processes on each machine, or `auto` for one a GPU.
        nodes: machines.
        strategy: how the processes work together.
        accelerator: `auto`, `gpu` or `cpu`.
        precision: None takes the fastest that trains well here.
    """

    devices: int | str = 1
    nodes: int = 1
    strategy: str = "auto"
    accelerator: str = "auto"
    precision: str | None = None

    @property
    def processes(self) -> int:
        """How many train together."""
        devices = self.devices
        if devices == "auto":
            devices = max(1, torch.cuda.device_count()) if self.uses_gpu else 1
        return int(devices) * self.nodes

    @property
    def uses_gpu(self) -> bool:
        """Whether the run is on GPUs."""
        return self.accelerator != "cpu" and torch.cuda.is_available()

    def loader_workers(self) -> int:
        """Processes that prepare images for each training process.

        None without a GPU, since the cores train. With GPUs the cores have nothing else to do.
        """
        return max(1, usable_cores() * self.nodes // self.processes) if self.uses_gpu else 0

    def trainer_options(self) -> dict[str, object]:
        """Keyword arguments for Lightning's Trainer."""
        return {
            "accelerator": "gpu" if self.uses_gpu else self.accelerator,
            "devices": 1 if self.devices == "auto" and not self.uses_gpu else self.devices,
            "num_nodes": self.nodes,
            "strategy": self.strategy,
            "precision": self.precision or training_precision(gpu=self.uses_gpu),
            "use_distributed_sampler": False,
        }


ONE_PROCESS = Compute()


def resolved(
    compute: Compute, *, batch_size: int, environ: Mapping[str, str] = os.environ
) -> Compute:
    """The machines as they are: torchrun's own numbers where it started this process.

    Args:
        compute: as asked for.
        batch_size: images a step over all processes.
        environ: the environment.

    Raises:
        ComputeError: there is no such GPU, the numbers contradict torchrun's, or the batch cannot
            be shared evenly.
    """
    if LAUNCHED in environ:
        compute = _as_launched(compute, environ)
    if compute.accelerator == "gpu" and not torch.cuda.is_available():
        raise ComputeError(
            "no GPU can be used: torch sees none. Look whether `nvidia-smi` lists one and whether "
            f"its driver fits torch {torch.__version__}; or take --accelerator cpu, at demo scale"
        )
    if compute.uses_gpu and compute.processes > compute.nodes * torch.cuda.device_count():
        raise ComputeError(
            f"{compute.devices} devices asked for, and this machine has "
            f"{torch.cuda.device_count()} GPUs; set --devices to that, or add --nodes"
        )
    check_batch(batch_size, compute.processes)
    return compute


def _as_launched(compute: Compute, environ: Mapping[str, str]) -> Compute:
    local, nodes = int(environ["LOCAL_WORLD_SIZE"]), int(environ["GROUP_WORLD_SIZE"])
    asked = (compute.devices, compute.nodes)
    if asked not in ((1, 1), ("auto", 1), (local, nodes), ("auto", nodes)):
        raise ComputeError(
            f"--devices {asked[0]} --nodes {asked[1]}, but torchrun started {local} processes on "
            f"{nodes} machines; leave both out, or make them agree"
        )
    return replace(compute, devices=local, nodes=nodes)


def check_batch(batch_size: int, processes: int) -> None:
    """Refuse a batch that the processes cannot share evenly.

    Raises:
        ComputeError: with the nearest numbers that do fit.

    >>> check_batch(768, 8)
    """
    if processes < 1 or batch_size < processes or batch_size % processes:
        below = max(batch_size - batch_size % max(processes, 1), processes)
        fitting = [n for n in range(1, batch_size + 1) if batch_size % n == 0]
        near = min(fitting, key=lambda n: abs(n - processes))
        raise ComputeError(
            f"a batch of {batch_size} images cannot be shared evenly by {processes} processes: "
            f"set batch_size to {below} or {below + processes}, or start {near} processes"
        )


@contextmanager
def memory_is_told(*, batch_size: int, image_size: int) -> Iterator[None]:
    """Say what to halve where memory runs out, on a GPU or not.

    Args:
        batch_size: images a step.
        image_size: their side in pixels.

    Raises:
        MemoryError: memory ran out; any other error passes as it is.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        told = str(error).lower()
        if isinstance(error, RuntimeError) and not any(words in told for words in OUT_OF_MEMORY):
            raise
        raise MemoryError(
            f"memory ran out; halve batch_size (now {batch_size}), or image_size (now "
            f"{image_size}), which takes a quarter; or share the batch among more devices"
        ) from error


def each_once(items: np.ndarray, work: Callable[[np.ndarray], Sequence]) -> list:
    """Share items among the processes; every process gets all results, each item's once.

    A distributed sampler repeats items to make the shares equal, and a repeated image counts twice
    in a metric. Here the shares may differ by one.

    Args:
        items: (N,) what to work on, the same in every process.
        work: gives a result for each item of a share.

    Returns:
        N results in the order of the items.

    >>> each_once(np.arange(3), lambda share: [10 * x for x in share.tolist()])
    [0, 10, 20]
    """
    world, rank = process_count(), process_rank()
    own = list(work(items[rank::world]))
    if world == 1:
        return own
    parts: list = [None] * world
    dist.all_gather_object(parts, own)
    merged: list = [None] * len(items)
    for first, part in enumerate(parts):
        merged[first::world] = part
    return merged
