"""A training takes the cores that others leave, and no more."""

import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from cxr_helpers.course.core import threads

BUSY = "while True: pass"


@pytest.mark.parametrize(
    ("logical", "physical", "most", "others", "expected"),
    [
        (2, 2, 2, 0.0, 2),
        (2, 2, 2, 0.3, 2),  # a browser
        (2, 2, 2, 1.0, 1),
        (2, 2, 2, 2.0, 1),
        (8, 4, 4, 0.0, 4),
        (8, 4, 4, 1.0, 3),  # its core is shared by two threads
        (8, 4, 4, 7.5, 1),
        (64, 64, 2, 40.0, 2),  # a hub that grants two
    ],
)
def test_threads_for_the_cores_that_are_left(
    monkeypatch, logical, physical, most, others, expected
):
    counted = {True: logical, False: physical}
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: counted[logical])
    assert threads.spare_threads(others, most=most) == expected


def test_own_work_is_not_that_of_others(monkeypatch):
    """A second of the clock: of two cores 0.4 s were without work, 0.9 s went to this process."""
    clocks = iter([(0.0, 5.0, 1.0), (1.0, 5.4, 1.9), (9.0, 21.4, 1.9)])
    monkeypatch.setattr(threads.OthersLoad, "_clocks", staticmethod(lambda: next(clocks)))
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 2)
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    load = threads.OthersLoad()
    assert load.cores() == pytest.approx(0.7)
    assert load.cores() == pytest.approx(0)  # all idle since
    monkeypatch.setattr(time, "monotonic", lambda: 9.1)
    assert load.cores() == pytest.approx(0)  # too soon: not measured again


def test_a_busy_process_is_seen():
    """Whatever else runs here: a process more cannot be seen as less than half a core less."""
    load = threads.OthersLoad()
    time.sleep(1)
    quiet = load.cores()
    free = psutil.cpu_count() - quiet
    if free < 1:
        pytest.skip(f"no core of this machine is free: {quiet:.1f} are busy")
    other = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        load.cores()
        time.sleep(2)
        seen = load.cores()
    finally:
        other.kill()
        other.wait()
    assert seen > 0.5


class Counted(pl.LightningModule):
    """Writes down with how many threads each step ran."""

    def __init__(self, fails: bool = False):
        super().__init__()
        self.layer, self.seen, self.fails = torch.nn.Linear(2, 1), [], fails

    def training_step(self, batch, batch_idx):
        self.seen.append(torch.get_num_threads())
        if self.fails:
            raise RuntimeError("stopped")
        return self.layer(batch[0]).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def run(module):
    loader = DataLoader(TensorDataset(torch.zeros(2, 2)), batch_size=1)
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[threads.SpareCores()],
    )
    trainer.fit(module, loader)


@pytest.fixture
def two_threads(monkeypatch):
    monkeypatch.delenv(threads.FIXED, raising=False)
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def load_of(monkeypatch, *cores):
    left = iter(cores)
    monkeypatch.setattr(threads, "OthersLoad", lambda: SimpleNamespace(cores=lambda: next(left)))


def test_each_epoch_takes_what_is_free(monkeypatch, two_threads):
    load_of(monkeypatch, 0.0, 1.0, 0.1)
    module = Counted()
    run(module)
    assert module.seen == [2, 2, 1, 1, 2, 2] and torch.get_num_threads() == 2


def test_threads_come_back_after_an_error(monkeypatch, two_threads):
    load_of(monkeypatch, 2.0)
    module = Counted(fails=True)
    with pytest.raises(RuntimeError, match="stopped"):
        run(module)
    assert module.seen == [1] and torch.get_num_threads() == 2


def test_an_error_before_the_training_is_not_covered_by_another(monkeypatch, two_threads):
    class Broken(Counted):
        def prepare_data(self):
            raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data"):
        run(Broken())
    assert torch.get_num_threads() == 2


def test_who_set_the_number_keeps_it(monkeypatch, two_threads):
    monkeypatch.setenv(threads.FIXED, "2")
    load_of(monkeypatch)  # must not be asked
    module = Counted()
    run(module)
    assert set(module.seen) == {2}


def test_a_quota_below_the_cores_counts(monkeypatch, two_threads):
    monkeypatch.setattr(threads, "usable_cores", lambda: 1)
    load_of(monkeypatch, 0.0, 0.0, 0.0)
    module = Counted()
    run(module)
    assert set(module.seen) == {1}
