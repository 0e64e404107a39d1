"""Put measured times, a picture of the course and badges into the README.

    python -m tools.readme [--busy]
    python -m tools.readme --no-results    badges alone

The times come from the results that the notebooks left in runs/demo/results, the picture from the
cell tagged `readme-picture` in one of the built notebooks, the badges from the address in
CITATION.cff. Nothing of that is typed by hand.
"""

import argparse
import base64
import json
import os
import platform
import sys
from datetime import date
from pathlib import Path

from cxr_helpers.course.core.files import whole, write_text
from cxr_helpers.course.core.results import read_results
from cxr_helpers.course.core.settings import load_settings
from tools.anywhere import badges, repository_address

QUESTIONS = {
    "00_start_here": "Does my machine work, what will I build, where are my results?",
    "01_data_exploration": "What is in these two data sets, and how do they differ?",
    "02_barlow_twins_pretraining": "What can be learned without labels?",
    "03_linear_evaluation": "How good are the features, and at how many labels?",
    "04_faster_rcnn_finetuning": "Does it find abnormalities better?",
    "05_ablation_cam": "Where does it look?",
    "06_your_data_and_paper_scale": "How do I run this on my data, at the paper's scale?",
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
    absent = [name for name in QUESTIONS if name not in results]
    if absent:
        raise ReadmeError(f"no results of {', '.join(absent)}: run `make course` first")
    lines = ["| notebook | the question | minutes | memory (GB) |", "|---|---|---|---|"]
    for name, question in QUESTIONS.items():
        minutes = f"{results[name]['seconds'] / 60:.1f}"
        memory = f"{results[name]['peak_memory_mb'] / 1024:.1f}"
        lines.append(f"| [{name}](notebooks/{name}.ipynb) | {question} | {minutes} | {memory} |")
    lines += ["", f"Measured on {machine}, {day}, from an empty `runs` folder."]
    return "\n".join(lines)


def replace_between(text: str, content: str, *, name: str) -> str:
    """Put `content` between the two markers of a name.

    >>> replace_between("a <!-- x: begin --> old <!-- x: end --> z", "new", name="x").splitlines()
    ['a <!-- x: begin -->', 'new', '<!-- x: end --> z']

    Raises:
        ReadmeError: the markers are not there.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if begin not in text or end not in text:
        raise ReadmeError(f"the README lacks {begin} or {end}")
    head, rest = text.split(begin, 1)
    return f"{head}{begin}\n{content}\n{end}{rest.split(end, 1)[1]}"


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


def main(arguments: list[str] | None = None) -> int:
    """Update README.md and docs/course.png; the exit status is 1 where something is missing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--busy", action="store_true", help="say that other programs were running")
    parser.add_argument("--no-results", action="store_true", help="leave times and picture alone")
    options = parser.parse_args(arguments)
    settings = load_settings({})
    readme = settings.project / "README.md"
    machine = f"{os.cpu_count()} cores ({platform.machine()}), no GPU"
    machine += ", while other programs were running" if options.busy else ""
    try:
        text = readme.read_text(encoding="utf-8")
        text = replace_between(text, badges(repository_address(settings.project)), name="badges")
        if not options.no_results:
            results = read_results(settings.results)
            table = measured_table(results, machine=machine, day=date.today().isoformat())
            text = replace_between(text, table, name="measured")
            picture = tagged_picture(settings.project / "notebooks")
            with whole(settings.project / "docs" / "course.png") as unfinished:
                unfinished.write_bytes(picture)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    write_text(text, readme)
    print(f"{readme.name} is up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
