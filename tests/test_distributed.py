"""Two processes with half a batch each do what one process does with the whole batch."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightly.loss import BarlowTwinsLoss
from torch.nn.parallel import DistributedDataParallel

from cxr_helpers import barlow

BATCH = 12


def make_module(*, synchronized=True):
    backbone = barlow.build_backbone("resnet18", seed=0)
    torch.manual_seed(0)
    made = barlow.BarlowTwins(backbone, projector=(32, 32, 16), batch_size=BATCH)
    made.log_dict = lambda *args, **kwargs: None  # there is no trainer to log to
    return barlow.synchronize_batch_norm(made) if synchronized else made


def views():
    return torch.randn(2, BATCH, 1, 32, 32, generator=torch.Generator().manual_seed(1))


class Step(torch.nn.Module):
    """The training step as a forward pass, which is what DistributedDataParallel wraps."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, a, b):
        return self.module.training_step((a, b), 0)


def work(rank, folder, synchronized, theirs):
    """One of two processes: half of the images, one step, gradients averaged by torch."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    made = make_module(synchronized=synchronized)
    if theirs:
        made.criterion = BarlowTwinsLoss(gather_distributed=True)
        made.hparams.gather_distributed = False
    half = slice(rank * BATCH // 2, (rank + 1) * BATCH // 2)
    a, b = views()
    parallel = DistributedDataParallel(Step(made))  # averages gradients only while it lives
    loss = parallel(a[half], b[half])
    loss.backward()
    if rank == 0:
        torch.save(outcome(made, loss), f"{folder}/outcome.pt")
    dist.destroy_process_group()


def outcome(made, loss):
    gradients = {name: p.grad for name, p in made.named_parameters()}
    statistics = {k: v for k, v in made.state_dict().items() if "running" in k}
    return {"loss": loss.detach(), "gradients": gradients, "statistics": statistics}


def two_processes(folder, *, synchronized=True, theirs=False):
    mp.spawn(work, (str(folder), synchronized, theirs), nprocs=2)
    return torch.load(folder / "outcome.pt", weights_only=True)


def one_process():
    made = make_module()
    loss = made.training_step(tuple(views()), 0)
    loss.backward()
    return outcome(made, loss)


def distance(a, b):
    """Norm of the difference of all gradients, over their norm."""
    gaps = torch.stack([(a[k] - b[k]).norm() for k in b])
    return (gaps.norm() / torch.stack([b[k].norm() for k in b]).norm()).item()


@pytest.fixture(scope="module")
def whole():
    return one_process()


def test_loss_gradients_and_running_statistics_are_those_of_one_process(whole, tmp_path):
    two = two_processes(tmp_path)
    assert torch.isclose(two["loss"], whole["loss"], rtol=1e-5)
    assert distance(two["gradients"], whole["gradients"]) < 1e-3
    for name, value in whole["statistics"].items():
        assert torch.allclose(two["statistics"][name], value, rtol=1e-4, atol=1e-5), name


def test_without_synchronized_batch_norm_they_differ(whole, tmp_path):
    two = two_processes(tmp_path, synchronized=False)
    assert distance(two["gradients"], whole["gradients"]) > 0.05


def test_lightlys_gathering_alone_standardizes_in_each_process(whole, tmp_path):
    two = two_processes(tmp_path, theirs=True)
    assert not torch.isclose(two["loss"], whole["loss"], rtol=1e-3)


def test_in_one_process_the_synchronized_batch_norm_is_torchs():
    plain, synced = make_module(synchronized=False), make_module()
    assert plain.state_dict().keys() == synced.state_dict().keys()
    a, _ = views()
    assert torch.allclose(plain(a), synced(a), atol=1e-5)
    assert torch.allclose(plain.eval()(a), synced.eval()(a), atol=1e-5)
    with pytest.raises(ValueError, match="expected"):
        barlow.ProcessBatchNorm(3)(torch.zeros(2, 3, 4))
