"""Make the course's demo data: synthetic radiographs in the formats of the real downloads.

    python data_scripts/make_demo.py
    python data_scripts/make_demo.py --out data/demo --seed 0 --workers 2

writes nih/ (images/*.png, Data_Entry_2017_v2020.csv, BBox_List_2017.csv, train_val_list.txt,
test_list.txt), vindr/ (train/*.dicom, train.csv) and, last, demo.json. The pictures are phantoms
(cxr_helpers/phantom); nobody was X-rayed for them and no clinical conclusion may be drawn. Two
files that no real download has say what was really drawn: nih/exact_findings.csv and
vindr/exact_boxes.csv.

`--findings teaching`, the default, draws findings larger and plainer than they are in radiographs,
in images of less varied gray, and gets 95% of NIH's labels right: then a thousand images teach what
a thousand real ones do. `--findings realistic` keeps the real sizes and the measured noise
(`LOOKS` in demo_tables.py).

What is real: the rows. Which findings, views, sexes, ages and detector sizes come together in an
NIH-like patient, and which findings which of the 17 VinDr readers marked in an image, are drawn
from the real tables that the package torchxrayvision carries. Patient and image names are new.
Exceptions: at most 25 images a patient and 3 in the test list, which has 45% of the images, Hernia
in at least five patients, and each VinDr class in at least six images, so that a split has some;
75% of the VinDr-like images are abnormal, not 29%. Labels have noise: the finding is drawn on some
of the labelled images only, and on some without the label (`NIH_NOISE` in demo_nih.py holds what
re-reading found of the real labels). In VinDr-like images a finding's contrast depends on how many
readers marked it.

One seed gives the same bytes, whatever the number of workers.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from demo_nih import make_patient, nih_rows, nih_tasks, write_nih
from demo_tables import LOOKS, DemoError, Task, write_text
from demo_vindr import make_image, vindr_rows, vindr_tasks, write_vindr
from tqdm import tqdm

# Each worker is one thread, and glibc keeps freed memory instead of giving it back to the system
# and asking again for every array (a fifth faster).
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_TOP_PAD_": "64000000",
}

# Names the drawing. Whoever changes a byte of the demo gives it another name, so that demos on disk
# are made anew; tests/data_scripts/test_make_demo.py tells when that is due.
VERSION = "b4e2c07d91f6"

PARTS = ("nih", "vindr", "demo.json")  # what lies in a demo
N_NIH, N_VINDR = 2100, 2300


def _work(task: Task) -> list[Any]:
    kind, what = task
    return make_patient(what) if kind == "nih" else make_image(what)


def _run(tasks: list[Task], workers: int, bar: tqdm) -> list[list[Any]]:
    """Results in the order of the tasks, whatever the number of workers."""
    results = []
    if workers <= 1:
        for task in tasks:
            results.append(_work(task))
            bar.update(len(task[1].get("rows", "1")))
        return results
    before = {k: os.environ.get(k) for k in WORKER_ENVIRONMENT}
    os.environ.update(WORKER_ENVIRONMENT)  # children read it as they start
    try:
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            for task, result in zip(tasks, pool.imap(_work, tasks, chunksize=4), strict=True):
                results.append(result)
                bar.update(len(task[1].get("rows", "1")))
    finally:
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.__setitem__(key, value)
    return results


def is_whole(out: Path, *, seed: int, n_nih: int, n_vindr: int, findings: str = "teaching") -> bool:
    """Whether `out` already holds the demo of this seed, version, size and look."""
    try:
        stamp = json.loads((out / "demo.json").read_text())
    except (OSError, ValueError):
        return False
    asked = {"seed": seed, "version": VERSION, "n_nih": n_nih, "n_vindr": n_vindr}
    asked["findings"] = findings
    return all(stamp.get(key) == value for key, value in asked.items())


def _alive(pid: int) -> bool:
    if os.name == "nt":
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sweep(out: Path) -> None:
    """Remove what an interrupted run left beside `out`: its folder's name ends with its process."""
    for left in out.parent.glob(f"{out.name}.partial-*"):
        pid = left.name.removeprefix(f"{out.name}.partial-").removeprefix("old-")
        if not pid.isdigit() or _strangers(left):
            continue
        old = time.time() - left.stat().st_mtime > 3600
        if old or not _alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def _strangers(folder: Path) -> list[str]:
    """Names in a folder that no demo has."""
    names = (p.name for p in folder.iterdir())
    return sorted(name for name in names if name not in PARTS and not name.startswith("."))


def make_demo(
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    n_nih: int = N_NIH,
    n_vindr: int = N_VINDR,
    findings: str = "teaching",
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Make the demo data in the folder `out`, unless they are already there.

    Args:
        out: folder to make; an older demo in it is replaced once the new one is whole.
        seed: not negative; the same seed gives the same bytes.
        n_nih: about how many NIH-like images (patients are drawn whole).
        n_vindr: how many VinDr-like images; none are needed for pretraining.
        findings: `teaching` or `realistic`, see above.
        workers: processes; None takes one per core. 1 works in this process.
        progress: whether to show a progress bar on stderr.

    Returns:
        The folder.

    Raises:
        DemoError: bad numbers, a folder that is no demo, or a disk that cannot be written.
    """
    out = Path(out)
    if seed < 0 or n_nih < 1 or n_vindr < 0 or (workers is not None and workers < 1):
        raise DemoError("seed and n_vindr must be 0 or more, workers and n_nih 1 or more")
    if findings not in LOOKS:
        raise DemoError(f"findings {findings!r} is none of {', '.join(LOOKS)}")
    asked = {"seed": seed, "n_nih": n_nih, "n_vindr": n_vindr, "findings": findings}
    if is_whole(out, **asked):
        return out
    if out.exists() and not out.is_dir():
        raise DemoError(f"{out} is a file: name a folder with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / "demo.json").is_file():
        raise DemoError(f"{out} holds other files than a demo: name another folder with --out")
    if out.is_dir() and (strangers := _strangers(out)):
        raise DemoError(
            f"{out} holds {strangers[0]!r}, which is no part of a demo and would be lost: move it "
            "away, or name another folder with --out"
        )
    part = out.with_name(f"{out.name}.partial-{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        _fill(part, asked, workers or os.cpu_count() or 1, progress)
        if is_whole(out, **asked):
            return out  # another process was faster
        if out.exists():
            old = part.with_name(part.name.replace(".partial-", ".partial-old-"))
            out.rename(old)
            part.rename(out)
            shutil.rmtree(old, ignore_errors=True)
        else:
            part.rename(out)
    except OSError as error:
        raise DemoError(
            f"cannot write the demo to {out} ({error.strerror or error}): "
            "free about 700 MB there or name another folder with --out"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


def _fill(part: Path, asked: dict[str, Any], workers: int, progress: bool) -> None:
    seed, look = asked["seed"], asked["findings"]
    rows, images = nih_rows(seed, asked["n_nih"]), vindr_rows(seed, asked["n_vindr"])
    nih, vindr = part / "nih", part / "vindr"
    tasks = [*nih_tasks(seed, look, rows, nih), *vindr_tasks(seed, look, images, vindr)]
    total = len(rows) + len(images)
    every = 0.3 if sys.stderr.isatty() else 15.0  # seconds; a log gets few lines
    with tqdm(
        total=total, unit="image", desc="demo data", disable=not progress, mininterval=every
    ) as bar:
        results = _run(tasks, workers, bar)
    kinds = [kind for kind, _ in tasks]
    flat = {
        k: [r for kd, rs in zip(kinds, results, strict=True) if kd == k for r in rs]
        for k in ("nih", "vindr")
    }
    write_nih(rows, flat["nih"], nih)
    write_vindr(seed, flat["vindr"], vindr)
    marked = [row for one in flat["vindr"] for row in one["readers"] if row[2] != 14]
    stamp = asked | {
        "version": VERSION,
        "nih_images": len(rows),
        "nih_patients": int(rows["Patient ID"].nunique()),
        "vindr_images": len(images),
        "vindr_abnormal": len({row[0] for row in marked}),
        "vindr_boxes": len(marked),
        "note": "synthetic radiographs; no clinical conclusion may be drawn from them",
    }
    write_text(part / "demo.json", json.dumps(stamp, indent=1) + "\n")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Make synthetic radiographs in the formats of NIH ChestX-ray14 and VinDr-CXR.",
        epilog="example: python data_scripts/make_demo.py --out data/demo --seed 0 --workers 2",
    )
    default = Path(__file__).resolve().parents[1] / "data" / "demo"
    parser.add_argument("--out", type=Path, default=default, help="folder to make (data/demo)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (0)")
    parser.add_argument("--workers", type=int, help="processes (one per core)")
    parser.add_argument("--nih", type=int, default=N_NIH, help=f"NIH-like images (about {N_NIH})")
    parser.add_argument("--vindr", type=int, default=N_VINDR, help=f"VinDr-like images ({N_VINDR})")
    parser.add_argument(
        "--findings",
        choices=tuple(LOOKS),
        default="teaching",
        help="teaching: large, plain, well labelled; realistic: as measured of real radiographs",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return the exit status."""
    args = _parse(arguments)
    sizes = {"seed": args.seed, "n_nih": args.nih, "n_vindr": args.vindr}
    sizes["findings"] = args.findings
    if is_whole(args.out, **sizes):
        os.utime(args.out / "demo.json")  # so that make, which compares times, is content too
        print(f"{args.out} already holds the demo of seed {args.seed}; nothing to do.")
        return 0
    start = time.perf_counter()
    try:
        out = make_demo(args.out, workers=args.workers, **sizes)
    except DemoError as error:
        print(f"make_demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("make_demo: interrupted; nothing was kept", file=sys.stderr)
        return 130
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file()) / 1e6
    print(f"{out}: {size:.0f} MB in {time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
