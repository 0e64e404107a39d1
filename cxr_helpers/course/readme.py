"""Put measured times and a picture of the course into the README.

    python -m cxr_helpers.course.readme [--busy]

The times come from the results that the notebooks left in runs/demo/results, the picture from the
cell tagged `readme-picture` in one of the built notebooks. Nothing in that table is typed by hand.
"""

import argparse
import base64
import json
import os
import platform
import sys
from datetime import date
from pathlib import Path

from cxr_helpers.course.results import read_results
from cxr_helpers.course.settings import load_settings

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
QUESTIONS = {
    "00_start_here": "Does my machine work, what will I build, where are my results?",
    "01_data_exploration": "What is in these two data sets, and how do they differ?",
    "02_barlow_twins_pretraining": "What can be learned without labels?",
    "03_linear_evaluation": "How good are the features, and at how many labels?",
    "04_faster_rcnn_finetuning": "Does it find abnormalities better?",
    "05_ablation_cam": "Where does it look?",
}


class ReadmeError(ValueError):
    """The README lacks its markers, or there are no results to put there."""


def measured_table(results: dict[str, dict], *, machine: str, day: str) -> str:
    """The notebooks as a markdown table with the minutes and memory of their last run.

    Args:
        results: content of the results files by notebook name.
        machine: what they ran on.
        day: when.

    Raises:
        ReadmeError: a notebook has no results.
    """
    absent = [name for name in QUESTIONS if name != "00_start_here" and name not in results]
    if absent:
        raise ReadmeError(f"no results of {', '.join(absent)}: run `make course` first")
    lines = ["| notebook | the question | minutes | memory (GB) |", "|---|---|---|---|"]
    for name, question in QUESTIONS.items():
        cost = results.get(name)
        minutes = f"{cost['seconds'] / 60:.1f}" if cost else ""
        memory = f"{cost['peak_memory_mb'] / 1024:.1f}" if cost else ""
        lines.append(f"| [{name}](notebooks/{name}.ipynb) | {question} | {minutes} | {memory} |")
    lines += ["", f"Measured on {machine}, {day}, from an empty `runs` folder."]
    return "\n".join(lines)


def replace_between(text: str, content: str) -> str:
    """Put `content` between the two markers.

    >>> replace_between(f"a {BEGIN} old {END} z", "new").splitlines()[1]
    'new'

    Raises:
        ReadmeError: the markers are not there.
    """
    if BEGIN not in text or END not in text:
        raise ReadmeError(f"the README lacks {BEGIN} or {END}")
    head, rest = text.split(BEGIN, 1)
    return f"{head}{BEGIN}\n{content}\n{END}{rest.split(END, 1)[1]}"


def tagged_picture(notebooks: Path) -> bytes:
    """The PNG of the cell tagged `readme-picture`.

    Raises:
        ReadmeError: no built notebook has such a cell with a picture.
    """
    for path in sorted(notebooks.glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if "readme-picture" not in cell["metadata"].get("tags", []):
                continue
            for output in cell["outputs"]:
                if "image/png" in output.get("data", {}):
                    return base64.b64decode(output["data"]["image/png"])
    raise ReadmeError("no cell tagged readme-picture with a picture: run `make notebooks` first")


def write(path: Path, content: bytes) -> None:
    """Write under a temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def main(arguments: list[str] | None = None) -> int:
    """Update README.md and docs/course.png; the exit status is 1 where something is missing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--busy", action="store_true", help="say that other programs were running")
    options = parser.parse_args(arguments)
    settings = load_settings({})
    readme = settings.project / "README.md"
    machine = f"{os.cpu_count()} cores ({platform.machine()}), no GPU"
    machine += ", while other programs were running" if options.busy else ""
    try:
        results = read_results(settings.runs / "results")
        table = measured_table(results, machine=machine, day=date.today().isoformat())
        picture = tagged_picture(settings.project / "notebooks")
        text = replace_between(readme.read_text(encoding="utf-8"), table)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    write(readme, text.encode("utf-8"))
    write(settings.project / "docs" / "course.png", picture)
    print(f"{readme.name} and docs/course.png are up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
