"""Checkpoints that a full disk, a kill or a change of data cannot turn against their run.

Lightning writes a checkpoint to the system's temporary folder and moves it. Where that is another
disk, the move is a copy, and a kill or a full disk in the middle of it destroys the last good
checkpoint. Here the new file is written beside the old one and takes its place once it is whole.
"""

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_only

from cxr_helpers import __version__
from cxr_helpers.course.core.files import whole

FORMAT = 2  # raised when an older checkpoint can no longer be gone on from
NAME = "last.ckpt"
RESUME = ("auto", "yes", "no")
# What runs write into their folder; nothing else in it is removed when a run starts anew.
WRITTEN = ("log.csv", "boxes.csv", "record.json", "correlation_*.npy")
WRITTEN += (".log.csv.[0-9]*", f".{NAME}.[0-9]*")  # left by a kill, not whole
ANEW = "start with resume `no` (--resume no): that keeps it under another name and begins anew"


class CheckpointError(ValueError):
    """A run cannot go on from the checkpoint that lies in its folder."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside the old one, then renames it."""

    def save_checkpoint(self, checkpoint: dict, path: str, storage_options=None) -> None:
        """Write the file, whole or not at all.

        Raises:
            OSError: it cannot be written; the last good one still stands. Any other error of torch
                passes as it is.
        """
        try:
            with whole(path) as unfinished, unfinished.open("wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            cause = error if isinstance(error, OSError) else error.__context__
            if not isinstance(cause, OSError):  # torch wraps the stream's error in its own
                raise
            free = shutil.disk_usage(Path(path).parent).free / 2**30
            full = cause.errno in (errno.ENOSPC, errno.EDQUOT)
            raise OSError(
                f"checkpoint {path} cannot be written ({cause}); {free:.1f} GB are free there. "
                f"{'Make room' if full else 'Mend that'} and start the same command: it goes on "
                "from the last good checkpoint"
            ) from error


class Identity(pl.Callback):
    """Keeps in each checkpoint what it belongs to.

    Args:
        told: plain values, such as a digest of the data.
    """

    state_key = "identity"

    def __init__(self, told: Mapping[str, object]):
        self.told = identity(told)

    def state_dict(self) -> dict:
        """What the checkpoint keeps."""
        return self.told


def identity(told: Mapping[str, object]) -> dict[str, object]:
    """What a checkpoint must say of itself to be gone on from."""
    return {"format": FORMAT, "version": __version__, **told}


def checkpoint_to_resume(
    folder: str | os.PathLike[str], told: Mapping[str, object], *, resume: str = "auto"
) -> Path | None:
    """The checkpoint that an unfinished run left; without one the folder is made ready.

    What an earlier run wrote into the folder is removed then. Anything else in it stays.

    Args:
        folder: of the run.
        told: as for `Identity`.
        resume: `auto` goes on where there is a checkpoint; `yes` insists on one; `no` keeps it
            under another name and starts anew.

    Raises:
        CheckpointError: the checkpoint is damaged, of another version, or of other data.
        FileNotFoundError: `resume` is `yes` and there is none.
        ValueError: `resume` is none of the three.
    """
    if resume not in RESUME:
        raise ValueError(f"resume {resume!r} is none of {', '.join(RESUME)}")
    folder = Path(folder)
    checkpoint = folder / NAME
    if checkpoint.is_file() and resume != "no":
        _check(checkpoint, identity(told))
        return checkpoint
    if resume == "yes":
        raise FileNotFoundError(f"{checkpoint} does not exist, so there is no run to go on from")
    if rank_zero_only.rank == 0:
        _make_anew(folder, checkpoint)
    return None


def _make_anew(folder: Path, checkpoint: Path) -> None:
    if checkpoint.is_file():
        number, kept = 1, folder.with_name(f"{folder.name}.before.ckpt")
        while kept.exists():  # another one was kept before
            number += 1
            kept = folder.with_name(f"{folder.name}.before{number}.ckpt")
        os.replace(checkpoint, kept)
    folder.mkdir(parents=True, exist_ok=True)
    for path in (path for pattern in WRITTEN for path in folder.glob(pattern)):
        path.unlink()


def _check(checkpoint: Path, own: Mapping[str, object]) -> None:
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file can break the reader anywhere
        told = str(error).strip().split("\n")[0] or type(error).__name__
        raise CheckpointError(f"{checkpoint} cannot be read ({told}); {ANEW}") from error
    theirs = _identity_in(content)
    if theirs.get("format") != FORMAT:
        raise CheckpointError(
            f"{checkpoint} was written by another version of the course "
            f"({theirs.get('version', 'not known')}; this is {__version__}). Finish the run with "
            f"that version, or {ANEW}"
        )
    differ = {k for k in own.keys() | theirs.keys() if own.get(k) != theirs.get(k)} - {"version"}
    if differ:
        told = "; ".join(f"{k} {theirs.get(k)}, now {own.get(k)}" for k in sorted(differ))
        raise CheckpointError(
            f"{checkpoint} belongs to another run ({told}). Point the switch at the data of that "
            f"run, or {ANEW}"
        )


def _identity_in(content: object) -> Mapping[str, object]:
    """What a checkpoint says of itself; nothing where another program wrote it."""
    for key in ("callbacks", Identity.state_key):
        content = content.get(key, {}) if isinstance(content, dict) else {}
    return content if isinstance(content, dict) else {}


def check_room(folder: str | os.PathLike[str], needed: int) -> None:
    """Refuse, before hours of training, a folder that cannot take a run's checkpoints.

    Args:
        folder: where they go; made where it is missing.
        needed: bytes of one checkpoint. Two must fit, for the new one is written before the old
            one goes.

    Raises:
        OSError: it cannot be written, or they do not fit; the text gives both sizes.
    """
    proof = Path(folder) / f".writable.{os.getpid()}"
    try:
        proof.parent.mkdir(parents=True, exist_ok=True)
        proof.write_bytes(b"")
        proof.unlink()
    except OSError as error:
        raise OSError(
            f"{folder} cannot be written ({error.strerror}); choose a folder of yours, or mend "
            "its permissions or the disk"
        ) from error
    free = shutil.disk_usage(folder).free
    if free < 2 * needed:
        raise OSError(
            f"{folder} has {free / 2**30:.2f} GB free, and two checkpoints take "
            f"{2 * needed / 2**30:.2f} GB; make room, or link `runs` to a larger disk"
        )


def training_bytes(module: torch.nn.Module, *, states: int) -> int:
    """Bytes of a checkpoint: parameters and buffers, and so many optimizer values a parameter."""
    parameters = sum(p.numel() * p.element_size() for p in module.parameters())
    buffers = sum(b.numel() * b.element_size() for b in module.buffers())
    return parameters * (1 + states) + buffers
