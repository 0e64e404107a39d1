"""The log of a training run: one row for each epoch, in one form in every chapter."""

from pathlib import Path

import pandas as pd
import pytorch_lightning as pl

from cxr_helpers.course.core.files import whole

NAME = "log.csv"


class EpochLog(pl.Callback):
    """Keeps a row for each epoch in `log.csv`, and in the checkpoint, so that no kill loses one.

    A row has the epochs and the steps that are done by then, and what the module logged.

    Args:
        folder: for the file, which the first process writes; None keeps the rows here alone.
    """

    state_key = "epoch_log"

    def __init__(self, folder: Path | None = None):
        self.folder = folder
        self.rows: list[dict[str, float]] = []

    def state_dict(self) -> dict:
        """What the checkpoint keeps."""
        return {"rows": self.rows}

    def load_state_dict(self, state: dict) -> None:
        """Go on from a checkpoint."""
        self.rows = list(state["rows"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the row of the epoch that ended."""
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.add_row(trainer, trainer.current_epoch + 1, logged)

    def add_row(self, trainer: pl.Trainer, epoch: int, figures: dict[str, float]) -> None:
        """Add a row and write the file anew."""
        self.rows.append({"epoch": epoch, "step": trainer.global_step, **figures})
        if self.folder and trainer.is_global_zero:
            with whole(self.folder / NAME) as unfinished:
                self.table().to_csv(unfinished, index=False)

    def table(self) -> pd.DataFrame:
        """The rows so far."""
        return pd.DataFrame(self.rows)


def read_log(path: Path | str) -> pd.DataFrame:
    """The log of a run, from the path of the weights that it saved."""
    return pd.read_csv(Path(path).with_suffix("") / NAME)
