"""What a run that trains will take, from a trial of some seconds: `--dry-run`.

Two trials, one with twice as many images as the other, give the cost of an image and the cost of a
step whatever its images. With D = 8192 outputs the second is large: a step multiplies and updates
matrices of 8192 by 8192. What the plan says of a full batch is these two put together.
"""

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.course.ch04 import experiment
from cxr_helpers.course.ch04.training import epoch_count
from cxr_helpers.course.cli.stages import Run
from cxr_helpers.course.core import checkpoints
from cxr_helpers.course.core.compute import Compute, resolved
from cxr_helpers.course.core.data import BoxData, NihData
from cxr_helpers.detection import detector as det
from cxr_helpers.detection.prediction import gray_to_tensor

GIB = 2**30
SMALL_TRIAL = 4  # images; a plan for the paper's batch must fit a laptop's memory
SEVERAL = 3  # times a trial is repeated at least


@dataclass(frozen=True)
class Cost:
    """What a step costs on one device: a fixed part, and a part for each of its images."""

    seconds: float
    seconds_per_image: float
    bytes: float
    bytes_per_image: float

    def step_seconds(self, images: float) -> float:
        """Seconds of a step with so many images."""
        return self.seconds + images * self.seconds_per_image

    def step_bytes(self, images: float) -> float:
        """Memory in bytes of a step with so many images."""
        return self.bytes + images * self.bytes_per_image


@dataclass(frozen=True)
class Plan:
    """What a run will take; `lines` shows it.

    Attributes:
        stage: its name.
        facts: sentences without figures that were measured.
        steps: of the optimizer.
        memory_gb: of one device, in GB of 2**30 bytes.
        disk_gb: that the run adds; the packed images are there by then.
        hours: on the machines that were asked for, if data is never waited for.
        trial: on what the trial ran.
    """

    stage: str
    facts: tuple[str, ...]
    steps: int
    memory_gb: float
    disk_gb: float
    hours: float
    trial: str

    def lines(self) -> list[str]:
        """The plan as text."""
        figures = [
            f"steps: {self.steps:,}",
            f"memory of one device: about {self.memory_gb:.1f} GB",
            f"disk: about {self.disk_gb:.2f} GB",
            f"time: about {_duration(self.hours)}",
        ]
        return [f"plan of {self.stage}", *self.facts, *figures, f"measured by {self.trial}"]


def _duration(hours: float) -> str:
    """Hours in words.

    >>> _duration(0.01), _duration(0.5), _duration(42.1), _duration(1000)
    ('36 seconds', '30 minutes', '42.1 hours', '41.7 days')
    """
    if hours < 1 / 30:
        return f"{3600 * hours:.0f} seconds"
    if hours < 1:
        return f"{60 * hours:.0f} minutes"
    return f"{hours:.1f} hours" if hours < 72 else f"{hours / 24:.1f} days"


def seconds_of(work: Callable[[], object], *, least: float) -> float:
    """Median seconds of a piece of work, after one that is not counted."""
    work()
    times = []
    while sum(times) < least or len(times) < SEVERAL:
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def activation_bytes(forward: Callable[[], Tensor]) -> int:
    """Bytes that a forward pass keeps for the backward pass, parameters not counted.

    Args:
        forward: gives a tensor that gradients flow back from.
    """
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        owner = tensor if tensor._base is None else tensor._base
        if not isinstance(owner, nn.Parameter):
            storage = tensor.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        kept = forward()
        total = sum(seen.values())
    del kept
    return total


def trial_cost(
    step: Callable[[int], None], forward: Callable[[int], Tensor], *, images: int, seconds: float
) -> Cost:
    """The cost of a step from trials with `images` and twice as many.

    Args:
        step: takes a whole step with so many images.
        forward: the forward pass alone.
        images: of the smaller trial.
        seconds: least length of each trial.
    """
    times = [seconds_of(lambda n=n: step(n), least=seconds) for n in (images, 2 * images)]
    sizes = [activation_bytes(lambda n=n: forward(n)) for n in (images, 2 * images)]
    each, one = max(0.0, (times[1] - times[0]) / images), max(0.0, (sizes[1] - sizes[0]) / images)
    return Cost(
        seconds=max(0.0, times[0] - images * each),
        seconds_per_image=each or times[1] / (2 * images),
        bytes=max(0.0, sizes[0] - images * one),
        bytes_per_image=one,
    )


def pretrain_cost(run: Run, data: NihData, *, images: int, seconds: float) -> Cost:
    """What a step of pretraining costs, the correlation and its matrices included.

    Args:
        run: gives preset and precision.
        data: its first images are used.
        images: of the smaller trial.
        seconds: least length of each of the two trials.
    """
    module = _pretrain_module(run)
    make_views = pretraining.two_views(run.settings.pretrain)
    ready: dict[int, list[Tensor]] = {}  # with workers the views are made beside the steps
    optimizer = module.configure_optimizers()["optimizer"]

    def forward(count: int) -> Tensor:
        if not (run.compute.loader_workers() and count in ready):
            made = [make_views(np.array(image)) for image in data.images.pixels[:count]]
            ready[count] = [torch.stack(side).to(module.device) for side in zip(*made, strict=True)]
        with _autocast(run.compute), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lightning's note that nothing logs
            return module.training_step(ready[count], 0)

    def step(count: int) -> None:
        forward(count).backward()
        optimizer.step()
        optimizer.zero_grad()

    return trial_cost(step, forward, images=images, seconds=seconds)


def _pretrain_module(run: Run) -> pretraining.barlow.BarlowTwins:
    preset = replace(run.settings.pretrain, initial_weights="random")
    module = pretraining.build_module(preset, seed=run.seed, total_steps=1000)
    return module.to(_device(run.compute))


def plan_pretrain(
    run: Run,
    data: NihData,
    *,
    seconds: float = 3.0,
    cost: Cost | None = None,
    training_images: int | None = None,
) -> Plan:
    """The plan of pretraining, from steps with a few images.

    Args:
        run: gives preset, precision and processes.
        data: its first images are used.
        seconds: least length of each of the two trials.
        cost: of a step, where `pretrain_cost` has measured it already with `SMALL_TRIAL` images.
        training_images: plan for so many instead of those of `data`.
    """
    run, preset = _resolved(run, "pretrain"), run.settings.pretrain
    n = training_images or preset.phantoms or len(data.rows("train"))
    images = min(SMALL_TRIAL, preset.batch_size // 2)
    if cost is None:
        cost = pretrain_cost(run, data, images=images, seconds=seconds)
    epochs = pretraining.epoch_count(preset, n)
    return _plan(run, "pretrain", _pretrain_module(run), cost, n=n, epochs=epochs, images=images)


def plan_detect(run: Run, data: BoxData, *, seconds: float = 3.0) -> Plan:
    """The plan of fine-tuning all arms at all boxes, from steps with two and four images."""
    run, settings = _resolved(run, "detect"), run.settings
    rows = data.rows("train", abnormal_only=True)
    built = det.build_detector(experiment.detector_settings(settings, data, "random"), seed=0)
    built = built.to(_device(run.compute), memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(built.parameters(), 1e-6, momentum=0.9)
    truths = data.truths(rows[:SMALL_TRIAL])

    def forward(images: int) -> Tensor:
        device = next(built.parameters()).device
        batch = [gray_to_tensor(data.images.pixels[row]).to(device) for row in rows[:images]]
        targets = [
            {
                "boxes": torch.as_tensor(one["boxes"]).float().to(device),
                "labels": torch.as_tensor(one["labels"]).to(device),
            }
            for one in truths[:images]
        ]
        with _autocast(run.compute):
            return sum(built(batch, targets).values())

    def step(images: int) -> None:
        forward(images).backward()
        optimizer.step()
        optimizer.zero_grad()

    cost = trial_cost(step, forward, images=2, seconds=seconds)
    n, arms = len(rows), len(run.arms)
    epochs = epoch_count(settings, data, n)
    return _plan(run, "detect", built, cost, n=n, epochs=epochs, images=2, arms=arms)


PLANS = {"pretrain": plan_pretrain, "detect": plan_detect}


def _resolved(run: Run, stage: str) -> Run:
    """The run on machines that are there and share its batch evenly."""
    batch_size = getattr(run.settings, stage).batch_size
    return replace(run, compute=resolved(run.compute, batch_size=batch_size))


def _plan(
    run: Run,
    stage: str,
    module: nn.Module,
    cost: Cost,
    *,
    n: int,
    epochs: int,
    images: int,
    arms: int = 1,
) -> Plan:
    """The plan of so many epochs over `n` images, from the cost of a step of the trial."""
    preset, compute = getattr(run.settings, stage), run.compute
    share, steps = preset.batch_size // compute.processes, n // preset.batch_size
    checkpoint = checkpoints.training_bytes(module, states=2 if preset.optimizer == "adamw" else 1)
    kept = sum(p.numel() * p.element_size() for p in module.parameters())
    each = f" for each of {arms} arms" if arms > 1 else ""
    on = torch.cuda.get_device_name() if compute.uses_gpu else "the processor of this machine"
    return Plan(
        stage=stage,
        facts=(
            f"{n:,} images, {epochs} epochs of {steps} steps{each}",
            f"batch {preset.batch_size}: {share} images on each of {compute.processes} processes",
        ),
        steps=arms * epochs * steps,
        memory_gb=(checkpoint + kept + cost.step_bytes(share)) / GIB,
        disk_gb=(arms * kept + 2 * checkpoint * bool(preset.checkpoint_every)) / GIB,
        hours=arms * epochs * steps * cost.step_seconds(share) / 3600,
        trial=f"steps with {images} and {2 * images} images on {on}; data was at hand",
    )


def _device(compute: Compute) -> str:
    return "cuda" if compute.uses_gpu else "cpu"


def _autocast(compute: Compute) -> torch.autocast:
    precision = compute.trainer_options()["precision"]
    kinds = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    half = kinds.get(precision)
    return torch.autocast(_device(compute), half or torch.bfloat16, enabled=half is not None)
