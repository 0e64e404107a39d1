"""How many threads a training takes on a machine that is not quiet.

Threads that train together wait for each other at every layer. Where another program holds one of
two cores, two threads can be far slower than one: the first waits while the second has no core. So
`SpareCores` looks at the start of each epoch how many cores others leave, and takes a thread each.
Another number of threads may round the last bit otherwise: where bits must be equal on a machine
that others use, set OMP_NUM_THREADS, which is then kept.
"""

import math
import os
import time

import psutil
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from cxr_helpers.course.core.machine import usable_cores

FIXED = "OMP_NUM_THREADS"  # whoever sets it has chosen
LEAST_SECONDS = 0.25  # the system counts in hundredths of a second


class OthersLoad:
    """How many cores other programs used since the last answer, or since this was made."""

    def __init__(self) -> None:
        self.before, self.found = self._clocks(), None

    @staticmethod
    def _clocks() -> tuple[float, float, float]:
        """Seconds: of the clock, of all cores without work, of this process."""
        machine, own = psutil.cpu_times(), psutil.Process().cpu_times()
        idle = machine.idle + getattr(machine, "iowait", 0.0)
        return time.monotonic(), idle, sum(own[:4])  # user and system, and those of its children

    def cores(self) -> float:
        """The mean number of cores that others kept busy; asked too soon, the answer before."""
        early = self.before[0] + LEAST_SECONDS - time.monotonic()
        if early > 0 and self.found is not None:
            return self.found
        time.sleep(max(0.0, early))
        now = self._clocks()
        elapsed, idle, own = (b - a for a, b in zip(self.before, now, strict=True))
        self.before = now
        busy = (psutil.cpu_count() or 1) - idle / elapsed
        self.found = max(0.0, busy - own / elapsed)
        return self.found


def spare_threads(others: float, *, most: int) -> int:
    """Threads for a training beside others.

    Args:
        others: cores that others keep busy, of all logical ones.
        most: threads to take on a quiet machine.

    Two threads a core share its arithmetic, so physical cores count. More than half a core that
    is taken is a core less.

    >>> import psutil
    >>> spare_threads(0.0, most=1), spare_threads(1e6, most=4)
    (1, 1)
    """
    logical = psutil.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or logical
    free = (logical - others) * physical / logical
    return max(1, min(most, math.ceil(free - 0.5)))


class SpareCores(Callback):
    """Takes as many threads as others leave cores, anew for each epoch of a training.

    Leaves the number alone on a GPU, where one thread was granted, and where OMP_NUM_THREADS is
    set. After the training the number is what it was before.
    """

    def __init__(self) -> None:
        self.granted = torch.get_num_threads()  # an error may come before `setup`

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """See how many threads to take on a quiet machine, and whether to choose at all."""
        self.most = min(self.granted, usable_cores())
        on_cpu = trainer.strategy.root_device.type == "cpu"
        self.chooses = on_cpu and self.granted > 1 and FIXED not in os.environ
        self.load = OthersLoad()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look how many cores are free, and take them."""
        if self.chooses:
            torch.set_num_threads(spare_threads(self.load.cores(), most=self.most))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give back what was granted."""
        torch.set_num_threads(self.granted)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Give it back after an error too, and where the learner stops the cell."""
        torch.set_num_threads(self.granted)
