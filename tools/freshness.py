"""Does the course still work with the newest releases of what it needs?

    python -m tools.freshness [--dry-run]

clones the last commit into build/freshness/course, makes an environment beside it from the newest
releases that pyproject.toml allows (constraints.txt is left out), runs unit tests and notebooks
there, and writes what broke into build/freshness.md. It needs a network, room for a second
environment, and as long as `make test` with an empty `runs` folder. `--dry-run` shows the commands.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

from packaging.utils import canonicalize_name
from packaging.version import Version

from cxr_helpers.course.core.settings import project_root


@dataclass(frozen=True)
class Step:
    """One command of the check.

    Attributes:
        name: what it does, for the report.
        command: program and arguments.
        folder: where it runs.
        needed: whether the steps behind it are in vain where it fails.
        tests: the file that pytest writes its results to, or None.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    needed: bool = False
    tests: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """How a step ended: its exit status, its last lines, its duration in seconds."""

    step: Step
    status: int
    output: str
    seconds: float


def plan(project: Path, folder: Path) -> list[Step]:
    """List the steps.

    Args:
        project: the course's git checkout; only its last commit is used.
        folder: is emptied; gets clone, environment and the tests' results.
    """
    course, env = folder / "course", folder / "env"
    python = str(env / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    clone = ("git", "clone", "-q", str(project), str(course))
    install = (python, "-m", "pip", "install", "-q", "--upgrade", "-e", ".[dev]")
    units, notebooks = folder / "units.xml", folder / "notebooks.xml"
    pytest = (python, "-m", "pytest", "-q")
    unit_tests = (*pytest, f"--junitxml={units}", "--doctest-modules", "cxr_helpers", "tests")
    nbval = (*pytest, f"--junitxml={notebooks}", "--nbval", "notebooks")
    return [
        Step("clone the last commit", clone, project, needed=True),
        Step("make an environment", (sys.executable, "-m", "venv", str(env)), project, needed=True),
        Step("install the newest releases", install, course, needed=True),
        Step("check that they fit together", (python, "-m", "pip", "check"), course),
        Step("make the demo data", (python, "data_scripts/make_demo.py"), course, needed=True),
        Step("unit tests and doctests", unit_tests, course, tests=units),
        Step("notebooks against their stored outputs", nbval, course, tests=notebooks),
        Step("list what is installed", (python, "-m", "pip", "list", "--format=json"), course),
    ]


def run(steps: Iterable[Step]) -> list[Outcome]:
    """Run the steps in order, up to the first that fails and is needed."""
    outcomes = []
    env = os.environ | {"CXR_DATA": "demo", "CXR_SCALE": "demo"}
    for step in steps:
        print(f"== {step.name}", flush=True)
        start = time.monotonic()
        done = subprocess.run(
            step.command, cwd=step.folder, env=env, capture_output=True, text=True, check=False
        )
        seconds = time.monotonic() - start
        outcomes.append(Outcome(step, done.returncode, done.stdout + done.stderr, seconds))
        if done.returncode and step.needed:
            break
    return outcomes


def failed_tests(path: Path) -> list[tuple[str, str]]:
    """Name and first line of the message of each test that failed, from pytest's JUnit file.

    Empty where the file is missing, as when pytest could not start; the step's status tells that.
    """
    if not path.is_file():
        return []
    found = []
    for case in ElementTree.parse(path).iter("testcase"):
        for problem in (*case.findall("failure"), *case.findall("error")):
            lines = (problem.get("message") or problem.text or "").strip().splitlines()
            name = f"{case.get('classname')}::{case.get('name')}"
            found.append((name, lines[0][:200] if lines else ""))
    return found


def read_pins(text: str) -> dict[str, str]:
    """Versions by package from the text of constraints.txt.

    >>> read_pins("lazy_loader==0.6")
    {'lazy-loader': '0.6'}
    """
    lines = [line.split("==") for line in text.splitlines() if re.match(r"[\w.-]+==", line)]
    return {canonicalize_name(name): version.strip() for name, version in lines}


def changes(pins: dict[str, str], installed: dict[str, str]) -> list[tuple[str, str, str]]:
    """Package, pinned and installed version, where the two differ; '' where one has it not.

    >>> changes({"numpy": "2.4.6", "tqdm": "4.70"}, {"numpy": "2.5.0", "tqdm": "4.70", "new": "1"})
    [('new', '', '1'), ('numpy', '2.4.6', '2.5.0')]
    """
    names = sorted({*pins, *installed} - {"cxr-helpers", "pip"})
    rows = [(name, pins.get(name, ""), installed.get(name, "")) for name in names]
    return [row for row in rows if not row[1] or not row[2] or Version(row[1]) != Version(row[2])]


def report(outcomes: Sequence[Outcome], pins: dict[str, str], *, day: str) -> str:
    """What broke and what is newer, as a page of Markdown."""
    broken = [outcome for outcome in outcomes if outcome.status]
    total = sum(outcome.seconds for outcome in outcomes) / 60
    verdict = "Nothing broke." if not broken else f"{len(broken)} of {len(outcomes)} steps failed."
    lines = [f"# Freshness, {day}", "", f"{verdict} {total:.0f} minutes.", ""]
    lines += ["| step | ended | minutes |", "| --- | --- | --- |"]
    for outcome in outcomes:
        ended = f"failed with {outcome.status}" if outcome.status else "well"
        lines.append(f"| {outcome.step.name} | {ended} | {outcome.seconds / 60:.1f} |")
    for outcome in broken:
        lines += ["", f"## What broke: {outcome.step.name}", ""]
        failed = failed_tests(outcome.step.tests) if outcome.step.tests else []
        lines += [f"- `{name}`: {message}" for name, message in failed]
        if not failed:
            lines += ["```", *outcome.output.strip().splitlines()[-30:], "```"]
    return "\n".join([*lines, "", *_versions(outcomes, pins)]) + "\n"


def _versions(outcomes: Sequence[Outcome], pins: dict[str, str]) -> list[str]:
    listed = [o for o in outcomes if "--format=json" in o.step.command and not o.status]
    if not listed:
        return ["What is installed could not be listed."]
    packages = json.loads(listed[-1].output.splitlines()[0])
    installed = {canonicalize_name(p["name"]): p["version"] for p in packages}
    rows = changes(pins, installed)
    lines = ["## Other than pinned", "", "| package | pinned | here |", "| --- | --- | --- |"]
    lines += [f"| {name} | {pinned} | {here} |" for name, pinned, here in rows]
    return lines if rows else ["Each package is the pinned one."]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check; 0 where nothing broke."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="show the commands, run none")
    options = parser.parse_args(arguments)
    project = project_root()
    folder, page = project / "build" / "freshness", project / "build" / "freshness.md"
    steps = plan(project, folder)
    if options.dry_run:
        for step in steps:
            print(f"# {step.name}\n{shlex.join(step.command)}")
        return 0
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    outcomes = run(steps)
    pins = read_pins((project / "constraints.txt").read_text(encoding="utf-8"))
    temporary = page.with_name(f".{page.name}.{os.getpid()}")
    temporary.write_text(report(outcomes, pins, day=date.today().isoformat()), encoding="utf-8")
    temporary.replace(page)
    print(f"What broke is in {page.relative_to(project)}.")
    return 1 if any(outcome.status for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
