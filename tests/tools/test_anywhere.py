"""Start anywhere: the set-up cell, Binder's files, and a course that is installed from a clone."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from tools import anywhere
from tools.notebooks import read_source

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "data" / "demo"
BINDER = ROOT / ".binder"
SITE_PACKAGES = sysconfig.get_paths()["purelib"]
# pip takes nothing from the network: the dependencies are those of the environment that tests.
# (To pip's environment, no build isolation is a 'false'.)
OFFLINE = {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
NOTEBOOK_00 = """
import sys
from pathlib import Path
sys.path.append(sys.argv[1])  # for the tools, which are not installed
from tools import notebooks
from cxr_helpers.course.core.settings import project_root
assert project_root() == Path(sys.argv[1]), project_root()
source = project_root() / "notebooks" / "source" / "00_start_here.py"
notebook = notebooks.execute(notebooks.read_source(source), name="00", cwd=Path.cwd())
print(sum(bool(cell.get("outputs")) for cell in notebook.cells), "cells have outputs")
"""


def run(command, folder, **environment):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_"))}
    env |= {"OMP_NUM_THREADS": "1", "CXR_DATA": "demo", "CXR_SCALE": "demo"} | OFFLINE | environment
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A Python that has the course's dependencies and not the course, and an empty folder."""
    folder = tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    (packages,) = (folder / "env").glob("[Ll]ib/**/site-packages")
    (packages / "dependencies.pth").write_text(SITE_PACKAGES + "\n", encoding="utf-8")
    (python,) = [p for p in (folder / "env").glob("*/python*") if p.stem == "python"]
    (folder / "empty").mkdir()
    return python, folder / "empty"


def committed():
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("this is not a git checkout, so there is nothing to clone")


@pytest.mark.slow
def test_the_set_up_cell_fetches_and_installs_the_course(elsewhere):
    committed()
    python, folder = elsewhere
    code, said = run([python, "-c", anywhere.setup_code("")], folder)
    assert code and "write the address of the course's repository into ADDRESS" in said
    cell = anywhere.setup_code(ROOT.as_uri())
    show = "\nimport cxr_helpers.course.core.settings as s\nprint('at', s.project_root())"
    code, said = run([python, "-c", cell + show], folder)
    assert code == 0 and f"at {(folder / 'cxr-course').resolve()}" in said, said
    code, said = run([python, "-c", anywhere.setup_code("")], folder)
    assert (code, said) == (0, ""), "the second run has nothing to do"


@pytest.mark.skipif(not (DEMO / "demo.json").is_file(), reason="needs the demo data: make demo")
@pytest.mark.slow
def test_a_notebook_of_the_clone_runs_from_another_folder(elsewhere):
    committed()
    python, folder = elsewhere
    clone = folder / "cxr-course"
    if not clone.is_dir():
        run([python, "-c", anywhere.setup_code(ROOT.as_uri())], folder)
    (clone / "data").mkdir(exist_ok=True)
    (clone / "data" / "demo").symlink_to(DEMO, target_is_directory=True)
    code, said = run([python, "-c", NOTEBOOK_00, clone.resolve()], folder)
    assert code == 0, said
    assert int(re.search(r"(\d+) cells have outputs", said)[1]) > 5
    assert sorted(path.name for path in folder.iterdir()) == ["cxr-course"]


def test_notebook_00_begins_with_the_set_up_cell():
    notebook = read_source(ROOT / "notebooks" / "source" / "00_start_here.py")
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    expected = anywhere.setup_code(anywhere.repository_address())
    assert first.source == expected, "write it into notebooks/source/00_start_here.py, build 00"


@pytest.mark.parametrize(
    ("line", "address"),
    [
        ('repository-code: "https://github.com/ann/cxr/"', "https://github.com/ann/cxr"),
        ("repository-code: https://example.org/cxr", "https://example.org/cxr"),
        ("# repository-code: https://example.org/cxr", ""),
        ("title: x", ""),
    ],
)
def test_the_address_comes_from_the_citation(tmp_path, line, address):
    (tmp_path / "CITATION.cff").write_text(f"cff-version: 1.2.0\n{line}\n", encoding="utf-8")
    assert anywhere.repository_address(tmp_path) == address


def test_badges_lead_to_binder_and_colab_and_have_pictures():
    text = anywhere.badges("https://github.com/ann/cxr")
    assert text.count("\n") == 1 and "v2/gh/ann/cxr/main" in text and "github/ann/cxr" in text
    assert all((ROOT / path).is_file() for path in re.findall(r"docs/badges/\w+\.svg", text))
    other = anywhere.badges("https://example.org/cxr")
    assert "v2/git/https%3A%2F%2Fexample.org%2Fcxr/main" in other and "Colab" not in other
    assert (ROOT / anywhere.FIRST).is_file() and anywhere.badges("") == ""


@pytest.mark.slow
def test_binder_installs_what_make_installs(elsewhere):
    lines = (BINDER / "requirements.txt").read_text(encoding="utf-8").splitlines()
    expected = ["-c ../constraints.txt", "-e .[course]"]
    assert [line for line in lines if not line.startswith("#")] == expected
    version = (BINDER / "runtime.txt").read_text(encoding="utf-8").strip()
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needs = SpecifierSet(re.search(r'^requires-python = "(.*)"', project, re.MULTILINE)[1])
    assert needs.contains(version.removeprefix("python-"))
    dry = ["-m", "pip", "install", "--dry-run", "-r", ".binder/requirements.txt"]
    code, said = run([elsewhere[0], *dry], ROOT)
    assert code == 0 and "Would install cxr-helpers" in said, said
    script = (BINDER / "postBuild").read_text(encoding="utf-8")
    assert script.splitlines()[-1] == "python data_scripts/make_demo.py"
    assert os.access(BINDER / "postBuild", os.X_OK)
