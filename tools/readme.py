"""Put into the README and the teacher's pages what is measured or counted.

    python -m tools.readme [--busy]
    python -m tools.readme --no-results    what needs no run of the notebooks

Times, picture and its caption come from the results that the notebooks left in runs/demo/results,
and from the cell tagged `readme-picture` in one of the built notebooks; what was found from
notebooks/stored; the badges from the address in CITATION.cff; the minutes of the exercises from the
exercises. Nothing of that is typed by hand.
"""

import argparse
import base64
import json
import os
import platform
import sys
from datetime import date
from pathlib import Path

from cxr_helpers.course.core.compute import bf16_is_fast
from cxr_helpers.course.core.files import whole, write_text
from cxr_helpers.course.core.results import read_results
from cxr_helpers.course.core.settings import load_settings
from cxr_helpers.course.exercises import EXERCISES
from tools.anywhere import badges, repository_address
from tools.findings import findings_text

EXERCISE_PAGE = Path("docs", "teaching", "exercises.md")
IN_CLASS = ("1.1", "1.2", "1.3", "2.1", "2.5", "3.4", "4.1", "5.3")  # docs/teaching/plans.md

QUESTIONS = {  # of each notebook, and what one finds there
    "00_start_here": (
        "Does my machine work, and what will I build?",
        "the most similar radiographs, by features that no label taught",
    ),
    "01_data_exploration": (
        "What is in these two data sets, and how do they differ?",
        "readers' names that give the abnormal images away; 'No Finding' that is none; three "
        "readers and one truth",
    ),
    "02_barlow_twins_pretraining": (
        "What can be learned without labels?",
        "a loss by hand, a real run, and four runs that fail, and how a log shows it",
    ),
    "03_linear_evaluation": (
        "How good are the features, and at how many labels?",
        "label curves over several seeds, beside pixels alone; five traps that may flatter a score",
    ),
    "04_faster_rcnn_finetuning": (
        "Does it find abnormalities better?",
        "what frozen features know of a box, what a detector makes of it, and which intervals "
        "hold zero",
    ),
    "05_ablation_cam": (
        "Where does it look?",
        "a network that reads a letter instead of the heart, and which maps can show it",
    ),
    "06_your_data_and_paper_scale": (
        "How do I run this on my data?",
        "your own folder of images; a killed run that ends in the same bits; what the paper's "
        "scale costs",
    ),
}
SHORTCUT = "05_ablation_cam"  # whose results the caption tells
ALT = (
    "Radiographs with a bright letter in a corner: the network's heat map lights up there, and its "
    "AUROC falls when the letter moves to other images"
)


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
    lines = ["| notebook | the question | what you find | minutes | GB |", "|---|---|---|---|---|"]
    for name, (question, found) in QUESTIONS.items():
        link = f"[{name}](notebooks/{name}.ipynb)"
        minutes = f"{results[name]['seconds'] / 60:.1f}"
        memory = f"{results[name]['peak_memory_mb'] / 1024:.1f}"
        lines.append(f"| {link} | {question} | {found} | {minutes} | {memory} |")
    lines += ["", f"Minutes of computing, measured on {machine}, {day}, from an empty `runs`."]
    return "\n".join(lines)


def picture_text(results: dict[str, dict]) -> str:
    """The picture, its alternative text, and a caption with the fall of the AUROC.

    Raises:
        ReadmeError: notebook 05 has saved no AUROC of the letter.
    """
    try:
        auroc = results[SHORTCUT]["metrics"]["shortcut"]["marker"]
        stays, moves = auroc["as in training"], auroc["swapped"]
    except KeyError as error:
        raise ReadmeError(f"{SHORTCUT} has saved no {error} of the letter: run it first") from error
    return (
        f"![{ALT}](docs/course.png)\n\n"
        "*Is the heart enlarged? This network was trained where a letter stood beside most "
        f"enlarged hearts. Its AUROC is {stays:.2f} while the letter stays with them, and "
        f"{moves:.2f} when it moves to the other images. Notebook 05 shows when a heat map gives "
        "that away, and when not.*"
    )


def exercise_table() -> str:
    """The exercises with the authors' minutes and place, and the sum of each notebook."""
    lines = ["| exercise | what | minutes | where |", "|---|---|---|---|"]
    minutes: dict[str, int] = {}
    for number, exercise in sorted(EXERCISES.items()):
        where = "class" if number in IN_CLASS else "home"
        lines.append(f"| {number} | {exercise.title} | {exercise.minutes} | {where} |")
        notebook = f"0{number[0]}"
        minutes[notebook] = minutes.get(notebook, 0) + exercise.minutes
    sums = ", ".join(f"{one} in {name}" for name, one in minutes.items())
    in_class = sum(EXERCISES[number].minutes for number in IN_CLASS)
    told = f"Together {sum(minutes.values())} minutes: {sums}. In class {in_class} of them."
    return "\n".join([*lines, "", told])


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
    """Update pages and docs/course.png; the exit status is 1 where something is missing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--busy", action="store_true", help="say that other programs were running")
    parser.add_argument("--no-results", action="store_true", help="leave times and picture alone")
    options = parser.parse_args(arguments)
    settings = load_settings({})
    readme, exercises = settings.project / "README.md", settings.project / EXERCISE_PAGE
    kind = "with" if bf16_is_fast(gpu=False) else "without"
    machine = f"{os.cpu_count()} cores ({platform.machine()}) {kind} fast bfloat16, no GPU"
    machine += ", while other programs were running" if options.busy else ""
    try:
        text = readme.read_text(encoding="utf-8")
        text = replace_between(text, badges(repository_address(settings.project)), name="badges")
        text = replace_between(text, findings_text(settings), name="found")
        page = exercises.read_text(encoding="utf-8")
        page = replace_between(page, exercise_table(), name="exercises")
        if not options.no_results:
            results = read_results(settings.results)
            table = measured_table(results, machine=machine, day=date.today().isoformat())
            text = replace_between(text, table, name="measured")
            text = replace_between(text, picture_text(results), name="picture")
            picture = tagged_picture(settings.project / "notebooks")
            with whole(settings.project / "docs" / "course.png") as unfinished:
                unfinished.write_bytes(picture)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    write_text(text, readme)
    write_text(page, exercises)
    print(f"{readme.name} and {exercises.name} are up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
