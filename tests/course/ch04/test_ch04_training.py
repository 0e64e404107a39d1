"""Training a detector: kill and resume, several processes, what lies beside the result."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from own_process import finish, start
from safetensors.torch import load_file
from tiny_detection import long_settings, train, vindr_data

from cxr_helpers.course.ch04 import experiment, training
from cxr_helpers.course.core import checkpoints
from cxr_helpers.course.core.compute import Compute, ComputeError
from cxr_helpers.detection import detector as det
from cxr_helpers.detection.augmentation import CountedPipeline, detection_pipeline
from cxr_helpers.detection.training import DetectorModule

SCRIPT = Path(__file__).parents[2] / "tiny_detection.py"
ROOT = Path(__file__).resolve().parents[3]


def path_in(folder):
    return experiment.detector_path(long_settings(folder), vindr_data(), "random", seed=0)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    finish(start(SCRIPT, folder))
    return path_in(folder)


def test_log_counts_and_record_lie_beside_the_detector_and_no_checkpoint(unbroken):
    folder = unbroken.with_suffix("")
    assert sorted(p.name for p in folder.iterdir()) == ["boxes.csv", "log.csv", "record.json"]
    log = experiment.training_log(unbroken)
    assert log["epoch"].tolist() == [1, 2, 3] and log["val_map50"].between(0, 1).all()
    record = json.loads((folder / "record.json").read_text())
    assert record["arm"] == "random" and record["data_digest"] == vindr_data().digest
    assert record["settings"]["detect"]["epochs"] == 3 and "torch" in record["versions"]
    assert str(ROOT) not in json.dumps(record)


@pytest.mark.slow
def test_a_killed_training_goes_on_and_ends_as_an_unbroken_one(unbroken, tmp_path):
    path = path_in(tmp_path)
    checkpoint = path.with_suffix("") / "last.ckpt"
    process = start(SCRIPT, tmp_path)
    deadline = time.monotonic() + 240
    while not checkpoint.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL and not path.exists()
    finish(start(SCRIPT, tmp_path))
    expected, got = load_file(unbroken), load_file(path)
    assert all((expected[k] == got[k]).all() for k in expected)
    pd.testing.assert_frame_equal(experiment.training_log(path), experiment.training_log(unbroken))
    assert experiment.lost_boxes(path).equals(experiment.lost_boxes(unbroken))


def test_a_detector_that_could_not_be_saved_is_not_trained_again(unbroken, tmp_path, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError("No space left on device")

    path = path_in(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(det, "save_detector", full_disk)
        with pytest.raises(OSError, match="No space left"):
            train(tmp_path)
    assert (path.with_suffix("") / "last.ckpt").is_file() and not path.exists()
    with monkeypatch.context() as patch:
        patch.setattr(DetectorModule, "training_step", full_disk)  # no step is taken again
        train(tmp_path)
    expected, got = load_file(unbroken), load_file(path)
    assert all(np.allclose(expected[k], got[k], atol=1e-5) for k in expected)
    assert experiment.lost_boxes(path).equals(experiment.lost_boxes(unbroken))
    assert not (path.with_suffix("") / "last.ckpt").exists()


@pytest.mark.slow
def test_two_processes_train_one_detector_and_agree_on_its_detections(tmp_path):
    finish(start(SCRIPT, tmp_path, "2"))
    path = path_in(tmp_path)
    log = experiment.training_log(path)
    assert log["epoch"].tolist() == [1, 2, 3] and np.isfinite(log["loss"]).all()
    with np.load(path.with_name("found_by_0.npz")) as first:
        with np.load(path.with_name("found_by_1.npz")) as second:
            assert len(first["scores"])
            np.testing.assert_array_equal(first["scores"], second["scores"])
            np.testing.assert_array_equal(first["boxes"], second["boxes"])


def test_a_batch_that_the_processes_cannot_share_is_refused(tmp_path):
    with pytest.raises(ComputeError, match=r"batch of 4 .* 3 processes: set batch_size to 3 or 6"):
        train(tmp_path, compute=Compute(3, accelerator="cpu"))


def test_the_best_epoch_needs_boxes_in_validation():
    empty = [{"boxes": np.zeros((0, 4)), "labels": np.zeros(0, int)}] * 3
    with pytest.raises(ValueError, match="none of the 3 validation images has a box.*'last'"):
        training.KeepBest(np.zeros((3, 8, 8), np.uint8), empty, ["mass"])


def test_a_checkpoint_of_other_data_is_refused(tmp_path, monkeypatch):
    class StoppedError(Exception):
        pass

    step = DetectorModule.training_step

    def fail_in_the_second_epoch(self, batch, batch_index):
        if self.current_epoch == 1:
            raise StoppedError
        return step(self, batch, batch_index)

    monkeypatch.setattr(DetectorModule, "training_step", fail_in_the_second_epoch)
    with pytest.raises(StoppedError):
        train(tmp_path)
    assert (path_in(tmp_path).with_suffix("") / "last.ckpt").is_file()
    monkeypatch.setattr(type(vindr_data()), "digest", "of another root")
    with pytest.raises(checkpoints.CheckpointError, match="belongs to another run .*digest"):
        train(tmp_path)


class Recorder(pl.LightningModule):
    """Keeps what each step of a fit has seen, and a random number that torch would give it."""

    def __init__(self):
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(torch.zeros(1)), []

    def training_step(self, batch, batch_idx):
        images, targets = batch
        places = [int(one["image_id"]) for one in targets]
        sums = [float(image.double().sum()) for image in images]
        self.seen.append((self.current_epoch, places, sums, float(torch.rand(()))))
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def seen_in(folder, workers, *, epochs, resume=None):
    """What a fit sees; torch's state is another before each, as it is in another process."""
    data = vindr_data()
    counted = CountedPipeline(detection_pipeline("demo", seed=0))
    images = training._dataset(data, data.rows("train", abnormal_only=True), counted)
    torch.manual_seed(0 if resume is None else 99)
    module = Recorder()
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, log_every_n_steps=1,
        callbacks=[training.RandomStates(counted)],
    )  # fmt: skip
    batches = training.EpochBatches(images, batch_size=4, seed=0, workers=workers)
    trainer.fit(module, batches, ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(folder / "last.ckpt")
    return module.seen


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [0, 2, 3])
@pytest.mark.slow
def test_a_resumed_fit_sees_what_an_unbroken_one_sees(tmp_path, workers):
    unbroken = seen_in(tmp_path, 0, epochs=3)
    half = seen_in(tmp_path, workers, epochs=1)
    rest = seen_in(tmp_path, workers, epochs=3, resume=tmp_path / "last.ckpt")
    assert half + rest == unbroken
    sums = [tuple(sums) for _, _, sums, _ in unbroken]
    assert len(set(sums)) == len(sums) and {epoch for epoch, *_ in rest} == {1, 2}
