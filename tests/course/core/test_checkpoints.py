"""Checkpoints: whole or not at all, and only for the run that they belong to."""

import os

import pytest
import torch

from cxr_helpers.course.core import checkpoints as c

TOLD = {"data": "demo", "images": 24, "digest": "abc"}


def write(folder, **changes):
    """A checkpoint as a run of `TOLD` leaves it, with changes to what it says of itself."""
    content = {"epoch": 3, "callbacks": {c.Identity.state_key: c.identity(TOLD) | changes}}
    c.AtomicCheckpointIO().save_checkpoint(content, folder / c.NAME)
    return folder / c.NAME


def test_a_run_goes_on_from_its_own_checkpoint_and_one_of_a_newer_version(tmp_path):
    assert c.checkpoint_to_resume(tmp_path, TOLD, resume="yes" if write(tmp_path) else "") == (
        tmp_path / c.NAME
    )
    write(tmp_path, version="99.0")
    assert c.checkpoint_to_resume(tmp_path, TOLD) == tmp_path / c.NAME


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"digest": "xyz"}, "belongs to another run .digest xyz, now abc."),
        ({"images": 9, "data": "nih"}, "data nih, now demo; images 9, now 24"),
        ({"format": 0, "version": "0.0.1"}, r"another version of the course .0\.0\.1; this is"),
    ],
)
def test_a_checkpoint_of_other_data_or_an_older_format_is_refused(tmp_path, changes, message):
    write(tmp_path, **changes)
    with pytest.raises(c.CheckpointError, match=message):
        c.checkpoint_to_resume(tmp_path, TOLD)


@pytest.mark.parametrize(
    "content", [{"epoch": 1}, [1, 2], {"callbacks": [1]}, {"callbacks": {"identity": 3}}]
)
def test_a_checkpoint_of_another_program_is_refused_and_not_to_be_deleted(tmp_path, content):
    torch.save(content, tmp_path / c.NAME)
    with pytest.raises(c.CheckpointError, match="another version .*not known.*resume `no`") as e:
        c.checkpoint_to_resume(tmp_path, TOLD)
    assert "delete" not in str(e.value)


def test_what_no_run_wrote_stays(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    ours = ("log.csv", "boxes.csv", "record.json", "correlation_0.npy")
    ours += (".last.ckpt.7", ".log.csv.7")
    theirs = ("notes.txt", "correlation.npy", "log.csv.bak")
    for name in (*ours, *theirs):
        (folder / name).write_text("x")
    (folder / "figures").mkdir()
    assert c.checkpoint_to_resume(str(folder), TOLD) is None
    assert {path.name for path in folder.iterdir()} == {*theirs, "figures"}


def test_to_start_anew_keeps_each_checkpoint_under_a_name_of_its_own(tmp_path):
    kept, folder = [], tmp_path / "run"
    for k in range(3):
        kept.append(write(folder, images=k).read_bytes())
        assert c.checkpoint_to_resume(folder, TOLD, resume="no") is None
        assert list(folder.iterdir()) == []
    names = [f"run.before{number}.ckpt" for number in ("", 2, 3)]
    assert [(tmp_path / name).read_bytes() for name in names] == kept and len({*kept}) == 3


def test_a_damaged_checkpoint_is_named_and_one_that_may_not_be_read_is_not_called_damaged(
    tmp_path, monkeypatch
):
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(c.CheckpointError, match=r"last\.ckpt cannot be read .*resume `no`"):
        c.checkpoint_to_resume(tmp_path, TOLD)

    def locked(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(torch, "load", locked)
    with pytest.raises(PermissionError, match=r"Permission denied: .*last\.ckpt"):
        c.checkpoint_to_resume(tmp_path, TOLD)


def test_an_error_that_is_not_the_disks_is_not_blamed_on_it(tmp_path, monkeypatch):
    def broken(*args):
        raise RuntimeError("CUDA error: an illegal memory access")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(RuntimeError, match="^CUDA error"):
        c.AtomicCheckpointIO().save_checkpoint({}, tmp_path / c.NAME)
    assert not list(tmp_path.iterdir())


def test_to_insist_on_a_checkpoint_needs_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run to go on from"):
        c.checkpoint_to_resume(tmp_path, TOLD, resume="yes")
    with pytest.raises(ValueError, match="'maybe' is none of auto, yes, no"):
        c.checkpoint_to_resume(tmp_path, TOLD, resume="maybe")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    """The temporary file is a link to /dev/full, where every write fails for want of room."""
    path = write(tmp_path)
    good = path.read_bytes()
    (tmp_path / f".{c.NAME}.{os.getpid()}").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"last\.ckpt cannot be written .* GB are free there"):
        c.AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(99_999)}, path)
    assert path.read_bytes() == good
    assert [p.name for p in tmp_path.iterdir()] == [c.NAME]


def test_a_disk_too_small_and_a_folder_that_cannot_be_written_are_named_before_training(tmp_path):
    c.check_room(str(tmp_path / "fresh"), 10)
    assert list((tmp_path / "fresh").iterdir()) == []
    with pytest.raises(OSError, match="GB free, and two checkpoints take"):
        c.check_room(tmp_path, 2**60)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match=r"file/new cannot be written .*; choose a folder"):
        c.check_room(tmp_path / "file" / "new", 10)


def test_the_size_of_a_checkpoint_is_foretold(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(300, 300), torch.nn.BatchNorm1d(300))
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.rand(4, 300)).sum().backward()
    optimizer.step()
    content = {"state_dict": module.state_dict(), "optimizer_states": [optimizer.state_dict()]}
    c.AtomicCheckpointIO().save_checkpoint(content, tmp_path / c.NAME)
    size = (tmp_path / c.NAME).stat().st_size
    assert size == pytest.approx(c.training_bytes(module, states=2), rel=0.02)
