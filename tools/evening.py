"""Pretrain for an evening, and put the backbone into weights/ for everybody.

    python -m tools.evening [--replace]

Half an hour on two cores with fast bfloat16, an hour or more without: draws the phantoms, pretrains
at the scale `evening`, writes weights/evening.safetensors in half precision, and beside it the
run's log and record. A run that was stopped goes on. Weights that are there are replaced only with
`--replace`: what was measured with them no longer holds then.
"""

import argparse
import hashlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.course.core import records
from cxr_helpers.course.core.data import load_nih
from cxr_helpers.course.core.settings import PRESETS, Settings, load_settings
from cxr_helpers.pretraining import weights

SEED = 0  # of the first weights, order and views


def half(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights in half precision; counts stay whole numbers.

    >>> import torch
    >>> half({"weight": torch.ones(2)})["weight"].dtype
    torch.float16
    """
    return {key: v.half() if v.is_floating_point() else v for key, v in state.items()}


def ship(settings: Settings, path: Path) -> Path:
    """Write the backbone of `path` where the course looks for it, with log and record."""
    state, told = weights.read_weights(path)
    target, beside = pretraining.evening_path(settings), path.with_suffix("")
    weights.save_weights(half(state), target, settings=told)
    record = json.loads((beside / "record.json").read_text(encoding="utf-8")) | told
    record["sha256"] = hashlib.sha256(target.read_bytes()).hexdigest()
    folder = target.with_suffix("")
    folder.mkdir(exist_ok=True)
    shutil.copyfile(beside / "log.csv", folder / "log.csv")
    records.write_record(record, folder / "record.json")
    return target


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; status 2 where weights are there that are not to be replaced."""
    parser = argparse.ArgumentParser(description="Pretrain for an evening; fills weights/.")
    parser.add_argument("--replace", action="store_true", help="replace the weights that are there")
    options = parser.parse_args(arguments)
    settings = replace(load_settings({}), scale="evening", **PRESETS["evening"])
    shipped = pretraining.evening_path(settings)
    if shipped.is_file() and not options.replace:
        told = (
            f"{shipped.relative_to(settings.project)} is there; --replace makes it anew, in an hour"
        )
        print(told, file=sys.stderr)
        return 2
    path = pretraining.backbone_path(settings, seed=SEED)
    if not path.is_file():
        pretraining.pretrain(settings, load_nih(settings), seed=SEED)
    print(f"{ship(settings, path).relative_to(settings.project)} is written.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
