"""The commands that need no set-up: what make says, and when it has nothing to do."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    shutil.which("make") is None or sys.platform == "win32", reason="there is no make here"
)


def make(folder, *arguments):
    # A make that runs these tests hands its own options down in these variables.
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return subprocess.run(["make", *arguments], cwd=folder, env=env, capture_output=True, text=True)


@pytest.fixture
def clone(tmp_path):
    """A folder with the Makefile and what its stamps depend on."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_help_is_the_default_and_lists_every_target():
    done = make(ROOT)
    assert done.returncode == 0, done.stderr
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert listed == {*makefile.split(".PHONY: ")[1].splitlines()[0].split()} - {"lint"}


@pytest.mark.parametrize("python", ["no-such-python", "false"])
def test_an_old_or_missing_python_is_one_sentence(clone, python):
    done = make(clone, f"PYTHON={python}", "setup")
    assert done.returncode != 0
    sentence = done.stderr.splitlines()[0]
    assert sentence.startswith(f"{python} is not Python 3.11 or newer: install one")
    assert not (clone / ".venv").exists()


def test_a_finished_setup_is_left_alone(clone):
    (clone / ".venv").mkdir()
    (clone / ".venv" / ".installed-course").touch()
    done = make(clone, "PYTHON=no-such-python", "setup")
    assert done.returncode == 0, done.stderr


def test_learners_get_the_extra_course_and_maintainers_dev_once(clone):
    """By a Python that does nothing but note what it is asked."""
    python, notes = clone / ".venv" / "bin" / "python", clone / "notes"
    for folder in (python.parent, clone / "data" / "demo"):
        folder.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$*" >>{notes}\n')
    python.chmod(0o755)

    def installed(target):
        notes.write_text("")
        done = make(clone, f"PYTHON={sys.executable}", target)
        assert done.returncode == 0, done.stderr
        return re.findall(r"pip install .* -e \.\[(\w+)\]", notes.read_text())

    assert installed("lab") == ["course"] and installed("lab") == []
    assert installed("test") == ["dev"] and installed("lab") == installed("check") == []
    (clone / ".venv" / ".installed-dev").unlink()
    (clone / ".venv" / ".installed-course").unlink()
    assert installed("test") == ["dev"] and installed("lab") == []


def test_clean_keeps_results_on_other_data(clone):
    for name in ("runs/demo/results", "runs/my_data/results", "data/demo", ".venv"):
        (clone / name).mkdir(parents=True)
    assert make(clone, "clean").returncode == 0
    left = sorted(path.name for path in clone.rglob("*") if path.is_dir())
    assert left == ["data", "my_data", "results", "runs"]


@pytest.mark.parametrize("failing", ["none", "test", "test-real"])
def test_ci_fails_where_make_fails(tmp_path, failing):
    fake, real = tmp_path / "bin" / "make", tmp_path / "real"
    for folder in (fake.parent, real, tmp_path / "clone" / ".ci"):
        folder.mkdir(parents=True)
    fake.write_text('#!/bin/sh\necho "ran $*"\n[ "$*" != "$FAIL" ]\n')
    fake.chmod(0o755)
    script = shutil.copy(ROOT / ".ci" / "run", tmp_path / "clone" / ".ci")
    env = {"PATH": f"{fake.parent}:/usr/bin:/bin", "FAIL": failing, "CXR_REAL": str(real)}
    done = subprocess.run([script], cwd="/", env=env, capture_output=True, text=True)
    assert (done.returncode == 0) == (failing == "none")
    assert ("ran test-real" in done.stdout) == (failing != "test")
    real.rmdir()
    done = subprocess.run([script], cwd="/", env=env, capture_output=True, text=True)
    assert (done.returncode == 0) == (failing != "test")
    assert (f"left out: there is no folder {real}" in done.stdout) == (failing != "test")
