"""Several processes with their shares of a batch do what one process does with the whole batch."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightly.loss import BarlowTwinsLoss
from torch.nn.parallel import DistributedDataParallel

from cxr_helpers.pretraining import barlow, processes

BATCH = 12


def make_module(*, synchronized=True, dtype=torch.float32):
    backbone = barlow.build_backbone("resnet18", seed=0)
    torch.manual_seed(0)
    made = barlow.BarlowTwins(backbone, projector=(32, 32, 16), batch_size=BATCH)
    made.log_dict = lambda *args, **kwargs: None  # there is no trainer to log to
    made = made.to(dtype)
    return processes.synchronize_batch_norm(made).to(dtype) if synchronized else made


def views(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, BATCH, 1, 32, 32, generator=generator).to(dtype)


class Step(torch.nn.Module):
    """The training step as a forward pass, which is what DistributedDataParallel wraps."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, a, b):
        return self.module.training_step((a, b), 0)


def work(rank, folder, world, dtype, synchronized, theirs):
    """One of several processes: its share of the images, one step, gradients averaged by torch."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world)}
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world
    )
    made = make_module(synchronized=synchronized, dtype=dtype)
    if theirs:
        made.criterion = BarlowTwinsLoss(gather_distributed=True)
        made.hparams.gather_distributed = False
    parallel = DistributedDataParallel(Step(made))  # averages gradients only while it lives
    loss = parallel(*views(dtype)[:, rank * BATCH // world : (rank + 1) * BATCH // world])
    loss.backward()
    if rank == 0:
        torch.save(outcome(made, loss), f"{folder}/outcome.pt")
    dist.destroy_process_group()


def outcome(made, loss):
    gradients = {name: p.grad for name, p in made.named_parameters()}
    statistics = {k: v for k, v in made.state_dict().items() if "running" in k}
    return {"loss": loss.detach(), "gradients": gradients, "statistics": statistics}


def several(folder, world=2, *, dtype=torch.float32, synchronized=True, theirs=False):
    mp.spawn(work, (str(folder), world, dtype, synchronized, theirs), nprocs=world)
    return torch.load(folder / "outcome.pt", weights_only=True)


def one_process(dtype=torch.float32, order=slice(None)):
    made = make_module(dtype=dtype)
    loss = made.training_step(views(dtype)[:, order], 0)
    loss.backward()
    return outcome(made, loss)


def distance(a, b):
    """Norm of the difference of all gradients, over their norm."""
    gaps = torch.stack([(a[k] - b[k]).norm() for k in b])
    return (gaps.norm() / torch.stack([b[k].norm() for k in b]).norm()).item()


@pytest.fixture(scope="module")
def whole():
    return one_process()


@pytest.mark.parametrize("world", [2, 4])
def test_loss_gradients_and_running_statistics_are_those_of_one_process(tmp_path, world):
    """In float64, where the order of a sum does not hide an error."""
    found, whole = several(tmp_path, world, dtype=torch.float64), one_process(torch.float64)
    assert torch.isclose(found["loss"], whole["loss"], rtol=1e-9)
    assert distance(found["gradients"], whole["gradients"]) < 1e-7
    for name, value in whole["statistics"].items():
        assert torch.allclose(found["statistics"][name], value, rtol=1e-6, atol=1e-8), name


def test_in_float32_they_differ_no_more_than_one_process_from_its_shuffled_batch(whole, tmp_path):
    """Batch norm of few values makes gradients of float32 depend on the order of a sum."""
    found = several(tmp_path)
    assert torch.isclose(found["loss"], whole["loss"], rtol=1e-5)
    shuffled = [
        one_process(order=torch.randperm(BATCH, generator=torch.Generator().manual_seed(seed)))
        for seed in range(4)
    ]
    noise = max(distance(one["gradients"], whole["gradients"]) for one in shuffled)
    assert distance(found["gradients"], whole["gradients"]) < max(1e-5, 3 * noise)


def test_without_synchronized_batch_norm_or_by_lightlys_gathering_they_differ(whole, tmp_path):
    for name in ("without", "theirs"):
        (tmp_path / name).mkdir()
    without = several(tmp_path / "without", synchronized=False)
    assert distance(without["gradients"], whole["gradients"]) > 0.05
    theirs = several(tmp_path / "theirs", theirs=True)  # standardizes in each process
    assert not torch.isclose(theirs["loss"], whole["loss"], rtol=1e-3)


def test_in_one_process_the_synchronized_batch_norm_is_torchs():
    plain, synced = make_module(synchronized=False), make_module()
    assert plain.state_dict().keys() == synced.state_dict().keys()
    a, _ = views()
    assert torch.allclose(plain(a), synced(a), atol=1e-5)
    assert torch.allclose(plain.eval()(a), synced.eval()(a), atol=1e-5)
    with pytest.raises(ValueError, match="expected"):
        processes.ProcessBatchNorm(3)(torch.zeros(2, 3, 4))
