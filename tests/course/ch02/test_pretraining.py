"""Pretraining as a whole: log, kill and resume, several processes, and what can go wrong."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from own_process import finish, start
from tiny_pretraining import PRESET, run, tiny_data, tiny_settings

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.course.core import checkpoints
from cxr_helpers.course.core.settings import load_settings
from cxr_helpers.data.packed import PackedImages
from cxr_helpers.pretraining import barlow, weights
from tools import evening
from tools.notebooks import WIDGET_VIEW, _OwnKernelManager

SCRIPT = Path(__file__).parents[2] / "tiny_pretraining.py"
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    finish(start(SCRIPT, folder))
    return pretraining.backbone_path(tiny_settings(folder), seed=0)


def test_the_log_has_a_row_for_each_epoch_and_one_before(unbroken):
    log = pretraining.training_log(unbroken)
    assert log["epoch"].tolist() == list(range(PRESET.epochs + 1))
    assert log.loc[1:, "loss"].notna().all() and np.isnan(log.loc[0, "loss"])
    measured = log["knn_view"].notna()
    assert log.loc[measured, "epoch"].tolist() == [0, 2, 3, 4, 6]
    terms = log["invariance"] + PRESET.redundancy_weight * log["redundancy"]
    assert (terms - log["loss"]).abs().max() < 1e-3


def test_the_log_says_how_far_the_weights_moved(unbroken):
    log = pretraining.training_log(unbroken).set_index("epoch")
    moved = [f"moved_{stage}" for stage in ("conv1", "layer1", "layer2", "layer3", "layer4")]
    assert (log.loc[0, moved] == 0).all() and (log.loc[6, moved] > 0.001).all()
    first = barlow.build_backbone("resnet18", seed=0).state_dict()
    expected = weights.distance_moved(first, weights.read_weights(unbroken)[0])
    assert log.loc[6, moved].tolist() == pytest.approx(list(expected.values()), rel=1e-4)


def test_an_image_is_found_again_where_its_outputs_are_steady_and_its_own():
    z_a, other = torch.randn(2, 400, 8, generator=torch.Generator().manual_seed(0))
    assert pretraining.found_again(z_a, z_a) == 1
    assert pretraining.found_again(z_a, other) == pytest.approx(0.1, abs=0.03)
    assert pretraining.found_again(z_a, other, among=4) == pytest.approx(0.25, abs=0.04)
    assert pretraining.found_again(torch.ones(20, 8), torch.ones(20, 8)) == 0


def test_phantoms_take_the_place_of_the_training_part(tmp_path, monkeypatch):
    """The run learns from them, says how many and which, and its views are of them alone."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 255, (16, 48, 48), dtype=np.uint8)
    made = PackedImages(pixels, [f"p{i}" for i in range(16)], np.full((16, 2), 48), {})
    monkeypatch.setattr(pretraining, "load_phantoms", lambda settings: made)
    fed, feeder = [], pretraining.pairs.ViewPairs
    monkeypatch.setattr(
        pretraining.pairs,
        "ViewPairs",
        lambda images, rows, *rest, **options: (
            fed.append((images, rows)) or feeder(images, rows, *rest, **options)
        ),
    )
    path = run(tmp_path, changes={"phantoms": 16, "epochs": 1})
    told = weights.read_weights(path)[1]
    assert told["images"] == 16 and told["steps"] == 2 and len(told["phantoms"]) == 16
    assert fed[0][0] is pixels and fed[0][1].tolist() == list(range(16))


def test_the_evening_arm_is_left_out_with_a_sentence_where_its_file_is_not(tmp_path):
    state, sentence = pretraining.arm_state(tiny_settings(tmp_path), "evening", seed=0)
    assert state is None and "python -m tools.evening" in sentence


def test_the_evening_arm_is_read_in_full_precision_and_only_for_its_network(tmp_path):
    settings = tiny_settings(tmp_path)
    state = barlow.build_backbone("resnet18", seed=3).state_dict()
    told = {"preset": {"arch": "resnet18"}, "images": 6000, "steps": 1600}
    path = pretraining.evening_path(settings)
    weights.save_weights(evening.half(state), path, settings=told)
    read, sentence = pretraining.arm_state(settings, "evening", seed=0)
    assert read["conv1.weight"].dtype == torch.float32
    assert torch.allclose(read["conv1.weight"], state["conv1.weight"], atol=1e-3)
    assert "1,600 steps on 6,000 phantoms" in sentence
    other = tiny_settings(tmp_path, arch="resnet50")
    state, sentence = pretraining.arm_state(other, "evening", seed=0)
    assert state is None and "takes a resnet50" in sentence


def test_matrices_are_kept_before_halfway_and_after(unbroken):
    matrices = pretraining.correlations(unbroken)
    assert list(matrices) == [0, 3, 6]
    assert all(m.shape == (16, 16) and np.abs(m).max() < 1.001 for m in matrices.values())
    log = pretraining.training_log(unbroken).set_index("epoch")
    assert np.diag(matrices[6]).mean() == pytest.approx(log.loc[6, "heldout_diagonal"], abs=1e-5)


def test_nothing_but_results_is_left(unbroken):
    names = sorted(p.name for p in unbroken.with_suffix("").iterdir())
    assert names == [*(f"correlation_{e}.npy" for e in (0, 3, 6)), "log.csv", "record.json"]
    assert [p.name for p in unbroken.parent.iterdir() if p.is_file()] == [unbroken.name]


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_as_an_unbroken_one(unbroken, tmp_path):
    path = pretraining.backbone_path(tiny_settings(tmp_path), seed=0)
    checkpoint = path.with_suffix("") / "last.ckpt"
    process = start(SCRIPT, tmp_path)
    deadline = time.monotonic() + 240
    while not checkpoint.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL and not path.exists()
    killed_at = torch.load(checkpoint, weights_only=True, mmap=True)["epoch"] + 1
    assert killed_at < PRESET.epochs
    finish(start(SCRIPT, tmp_path))
    expected, got = weights.read_weights(unbroken)[0], weights.read_weights(path)[0]
    assert all(torch.equal(expected[k], got[k]) for k in expected)
    assert pretraining.training_log(path).equals(pretraining.training_log(unbroken))
    for epoch, matrix in pretraining.correlations(unbroken).items():
        assert np.array_equal(matrix, pretraining.correlations(path)[epoch])


def test_a_backbone_that_could_not_be_saved_is_not_trained_again(tmp_path, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError("No space left on device")

    path = pretraining.backbone_path(tiny_settings(tmp_path), seed=0)
    with monkeypatch.context() as patch:
        patch.setattr(weights, "save_weights", full_disk)
        with pytest.raises(OSError, match="No space left"):
            run(tmp_path)
    assert (path.with_suffix("") / "last.ckpt").is_file() and not path.exists()
    with monkeypatch.context() as patch:
        patch.setattr(barlow.BarlowTwins, "training_step", full_disk)  # no step is taken again
        assert run(tmp_path) == path
    assert len(pretraining.training_log(path)) == PRESET.epochs + 1
    assert not (path.with_suffix("") / "last.ckpt").exists()


@pytest.mark.slow
def test_two_processes_begin_as_one_does_and_train_as_well(tmp_path):
    """All images are one batch, so the first epoch is a step that has met no rounding yet."""
    logs = []
    for count in (1, 2):
        folder = tmp_path / str(count)
        finish(start(SCRIPT, folder, str(count), "24"))
        path = pretraining.backbone_path(tiny_settings(folder, batch_size=24), seed=0)
        logs.append(pretraining.training_log(path))
    alone, log = logs
    assert log["epoch"].tolist() == list(range(PRESET.epochs + 1))
    assert log["loss"].iloc[-1] < log["loss"].iloc[1]
    assert log["loss"].iloc[1] == pytest.approx(alone["loss"].iloc[1], rel=1e-5)
    weights.load_weights(barlow.build_backbone("resnet18", seed=1), weights.read_weights(path)[0])


def test_the_saved_settings_say_how_the_weights_were_made(unbroken):
    settings = weights.read_weights(unbroken)[1]
    assert settings["seed"] == 0 and settings["images"] == 24
    assert settings["preset"]["batch_size"] == PRESET.batch_size


@pytest.mark.slow
def test_in_jupyter_the_progress_bar_is_a_widget(tmp_path):
    cell = (
        f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
        "from tiny_pretraining import run\n"
        f"path = run({str(tmp_path)!r}, progress=True)"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    NotebookClient(notebook, kernel_manager_class=_OwnKernelManager, timeout=200).execute(
        env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    outputs = notebook.cells[0].outputs
    assert any(WIDGET_VIEW in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.output_type in ("stream", "error")]


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"batch_size": 1}, ValueError, "batch_size 1 does not fit 24 images"),
        ({"batch_size": 25}, ValueError, "batch_size 25 does not fit 24 images"),
        ({"projector": (0, 0, 0)}, ValueError, "projector is"),
        ({"views": "none"}, ValueError, "no views preset 'none'"),
        ({"initial_weights": "absent.pth"}, weights.WeightsError, "absent.pth does not exist"),
    ],
)
def test_wrong_settings_are_named_before_training(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        pretraining.pretrain(
            tiny_settings(tmp_path, **changes), tiny_data(), seed=0, progress=False
        )


def test_weights_of_another_architecture_are_refused(tmp_path):
    other = tmp_path / "other.safetensors"
    weights.save_weights(barlow.build_backbone("resnet50", seed=0).state_dict(), other, settings={})
    settings = tiny_settings(tmp_path, initial_weights=str(other))
    with pytest.raises(weights.WeightsError, match="another architecture"):
        pretraining.pretrain(settings, tiny_data(), seed=0, progress=False)


def test_a_run_that_diverges_says_the_step_and_what_to_try(tmp_path):
    settings = tiny_settings(tmp_path, learning_rate=1e30, warmup_fraction=0.0)
    with pytest.raises(FloatingPointError, match=r"at step \d+; lower the learning rate"):
        pretraining.pretrain(settings, tiny_data(), seed=0, progress=False)


def test_out_of_memory_says_what_to_halve(tmp_path, monkeypatch):
    def too_much(self, batch, batch_idx):
        torch.empty(2**58)  # a real failure of torch's own allocator

    monkeypatch.setattr(barlow.BarlowTwins, "training_step", too_much)
    with pytest.raises(MemoryError, match=r"halve batch_size \(now 8\)"):
        run(tmp_path)


def test_another_runtime_error_passes_as_it_is(tmp_path, monkeypatch):
    def broken(self, batch, batch_idx):
        raise RuntimeError("something else")

    monkeypatch.setattr(barlow.BarlowTwins, "training_step", broken)
    with pytest.raises(RuntimeError, match="something else"):
        run(tmp_path)


def test_a_folder_that_cannot_be_written_is_named_before_training(tmp_path):
    (tmp_path / "runs").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="runs.* cannot be written"):
        run(tmp_path)


def test_a_damaged_checkpoint_is_named(tmp_path):
    path = pretraining.backbone_path(tiny_settings(tmp_path), seed=0)
    path.with_suffix("").mkdir(parents=True)
    (path.with_suffix("") / "last.ckpt").write_bytes(b"cut off")
    with pytest.raises(
        checkpoints.CheckpointError, match=r"last\.ckpt cannot be read.*resume `no`"
    ):
        run(tmp_path)


def test_small_data_trains_for_more_epochs():
    settings = tiny_settings(".", epochs=2, min_steps=10)
    assert pretraining.epoch_count(settings.pretrain, 24) == 4
    assert pretraining.epoch_count(settings.pretrain, 800) == 2


def test_a_finished_run_is_read_and_not_made_again(unbroken, monkeypatch):
    monkeypatch.setattr(pretraining, "pretrain", lambda *a, **k: pytest.fail("it trains"))
    settings, data = tiny_settings(unbroken.parents[3]), tiny_data()
    assert pretraining.backbone_path(settings, seed=0) == unbroken
    assert pretraining.pretrain_once(settings, data, seed=0) == unbroken
    with pytest.raises(weights.WeightsError, match="on other images or another split"):
        pretraining.pretrain_once(settings, replace(data, digest="another"), seed=0)
    monkeypatch.setattr(pretraining, "pretrain", lambda *a, seed, **k: (seed, k))
    assert pretraining.pretrain_once(settings, data, seed=1, resume="no") == (1, {"resume": "no"})


def test_the_evening_is_not_made_anew_unasked(capsys, monkeypatch, tmp_path):
    """Weights that ship are not replaced by a command that was only tried."""
    monkeypatch.setattr(evening.pretraining, "evening_path", lambda settings: tmp_path / "it")
    monkeypatch.setattr(evening.pretraining, "pretrain", lambda *a, **k: pytest.fail("it trains"))
    monkeypatch.setattr(
        evening, "load_settings", lambda _: replace(load_settings({}), project=tmp_path)
    )
    (tmp_path / "it").touch()
    assert evening.main([]) == 2 and "--replace" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evening.main(["--help"])
