"""The course's stages from a terminal, at any scale and on several machines.

`cxr` and `python -m cxr_helpers.course` are the same command; torchrun takes the second name.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

from cxr_helpers.course.ch02.pretraining import ARMS
from cxr_helpers.course.cli.overrides import with_overrides
from cxr_helpers.course.cli.planning import PLANS
from cxr_helpers.course.cli.stages import COURSE_STAGES, Run, is_first, joined, load
from cxr_helpers.course.core.checkpoints import RESUME
from cxr_helpers.course.core.compute import Compute
from cxr_helpers.course.core.records import run_record, write_record
from cxr_helpers.course.core.results import Results, results_table, show_results
from cxr_helpers.course.core.settings import (
    DATA_SWITCH,
    SCALE_SWITCH,
    SCALES,
    Settings,
    SettingsError,
    load_settings,
)

TOLD = (ValueError, OSError, MemoryError, ArithmeticError)  # errors whose text says what to do


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage, or print its plan; 0 where it ended, 1 with one sentence where it did not."""
    options = parser().parse_args(arguments)
    try:
        settings = settings_of(options)
        run = Run(
            settings,
            seed=options.seed,
            compute=Compute(
                options.devices,
                options.nodes,
                options.strategy,
                options.accelerator,
                options.precision,
            ),
            resume=options.resume,
            progress=sys.stderr.isatty(),
            arms=tuple(options.arms),
        )
        if options.dry_run:
            if options.stage not in PLANS:
                raise SettingsError(f"--dry-run plans {' and '.join(PLANS)}, the stages that train")
            plan = PLANS[options.stage](run, load(settings, options.stage))
            print("\n".join(plan.lines()))
            return 0
        perform(options.stage, run)
    except TOLD as error:
        print(error, file=sys.stderr)
        return 1
    return 0


STAGES = """\
the stages, in order:
  pretrain   learn a backbone from radiographs without labels, by Barlow Twins
  probe      how good are its features, at few labels and at all?
  detect     train a detector for each arm, and score it on test images
  explain    where do the detectors look? Ablation-CAM against the readers' boxes
"""
EXAMPLES = """\
examples:
  cxr pretrain --data /data/cxr --scale quick             does everything run?
  cxr pretrain --data /data/cxr --scale paper --dry-run   steps, memory, disk, hours
  cxr detect --seed 1 --set epochs=5
  torchrun --nproc-per-node 4 -m cxr_helpers.course pretrain --accelerator gpu

A run that was stopped goes on when the same command is given again. The notebooks use the same
presets and find the same files. Fields for --set: cxr_helpers/course/core/settings.py.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="cxr",
        usage="cxr STAGE [options]",
        description=STAGES,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("stage", choices=tuple(COURSE_STAGES), metavar="STAGE", help="one of these")
    made.add_argument("--data", help=f"`demo`, or the root of a download; {DATA_SWITCH} otherwise")
    made.add_argument("--scale", choices=SCALES, help=f"which presets; {SCALE_SWITCH} otherwise")
    made.add_argument("--seed", type=int, default=0, help="of weights, order and augmentation")
    made.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="to compare")
    made.add_argument("--devices", type=_devices, default=1, help="processes a machine, or auto")
    made.add_argument("--nodes", type=int, default=1, help="machines")
    made.add_argument("--strategy", default="auto", help="of Lightning's Trainer, such as ddp")
    made.add_argument("--accelerator", choices=("auto", "gpu", "cpu"), default="auto")
    made.add_argument("--precision", help="of Lightning's Trainer, such as bf16-mixed or 32-true")
    made.add_argument(
        "--resume",
        choices=RESUME,
        default="auto",
        help="auto goes on where a checkpoint is, yes insists on one, no starts anew",
    )
    made.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="a field of a preset"
    )
    made.add_argument(
        "--dry-run",
        action="store_true",
        help="of pretrain or detect: print steps, memory, disk and hours, and stop",
    )
    return made


def _devices(text: str) -> int | str:
    return text if text == "auto" else int(text)


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings that the switches and the command line give."""
    switches = {DATA_SWITCH: options.data, SCALE_SWITCH: options.scale}
    environ = dict(os.environ) | {name: value for name, value in switches.items() if value}
    return with_overrides(load_settings(environ), options.set, stage=options.stage)


def perform(stage: str, run: Run) -> None:
    """Run a stage; the first process writes its results and its record."""
    results = Results(f"{stage}_seed{run.seed}", replace(run.settings, seed=run.seed))
    with joined() if stage in ("probe", "explain") else nullcontext():
        outcome = COURSE_STAGES[stage](run)
    if not is_first():
        return
    results.add(**outcome.metrics)
    path = results.save()
    record = run_record(
        run.settings, stage=stage, seed=run.seed, digest=outcome.digest, compute=run.compute
    )
    write_record(record, path.parents[1] / "records" / path.name)
    table = results_table(path.parent)
    print("\n".join([*outcome.made, "", show_results(table[table["notebook"] == path.stem])]))


if __name__ == "__main__":
    sys.exit(main())
