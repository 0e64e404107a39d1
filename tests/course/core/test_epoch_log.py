"""The log of a training run."""

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from cxr_helpers.course.core.epoch_log import EpochLog, read_log
from cxr_helpers.course.core.quiet import quiet_lightning


class Line(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch, index):
        loss = self.layer(batch).square().mean()
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def train(log, epochs, **options):
    shown = dict.fromkeys(
        ("enable_progress_bar", "enable_model_summary", "enable_checkpointing", "logger"), False
    )
    with quiet_lightning():
        trainer = pl.Trainer(max_epochs=epochs, callbacks=[log], accelerator="cpu", **shown)
        trainer.fit(Line(), torch.utils.data.DataLoader(torch.rand(6, 1), 2), **options)
    return trainer


@pytest.mark.filterwarnings("ignore")
def test_a_row_for_each_epoch_and_none_is_lost_to_a_kill(tmp_path):
    log = EpochLog(tmp_path / "run")
    train(log, 2).save_checkpoint(tmp_path / "last.ckpt")
    table = read_log(tmp_path / "run.safetensors")
    assert table[["epoch", "step"]].values.tolist() == [[1, 3], [2, 6]]
    assert table["loss"].tolist() == pytest.approx(log.table()["loss"].tolist())
    (tmp_path / "run" / "log.csv").unlink()
    more = EpochLog(tmp_path / "run")
    train(more, 3, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    again = read_log(tmp_path / "run")
    assert again["epoch"].tolist() == [1, 2, 3] and again["loss"][:2].equals(table["loss"])


def test_without_a_folder_rows_are_kept_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = EpochLog()
    train(log, 1, ckpt_path=None)
    assert len(log.table()) == 1 and not list(tmp_path.rglob("*.csv"))
