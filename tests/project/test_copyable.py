"""Each helper file can be copied alone: it imports no sibling, and its header names what it needs.

The files are imported one by one, each alone in an empty folder, by one fresh process that cannot
see the package: the heavy libraries are then loaded once.
"""

import ast
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(p for p in (ROOT / "cxr_helpers").glob("*.py") if p.name != "__init__.py")
COURSE = sorted((ROOT / "cxr_helpers" / "course").glob("*.py"))
UNSEEN = {"coco.py": {"torchvision"}}  # torchmetrics has detection only where that is installed
FOR_MAINTAINERS = {"freshness.py", "web_pages.py"}  # need what `.[dev]` installs

# Imports every folder's only file under its own name, and says what went wrong with which.
IMPORTER = """
import importlib, json, sys, traceback

class NoPackage:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "cxr_helpers":
            raise ImportError("cxr_helpers is not there")

sys.meta_path.insert(0, NoPackage())
failed = {}
for folder, name in json.load(sys.stdin):
    sys.path.insert(0, folder)
    try:
        importlib.import_module(name)
    except BaseException:
        failed[name] = traceback.format_exc(limit=-2)
    sys.path.remove(folder)
    sys.modules.pop(name, None)
print(json.dumps(failed))
"""


def imported_modules(tree: ast.AST) -> set[str]:
    """Top-level names of every absolute import in a file, those inside functions too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." if node.level else node.module.split(".")[0])
    return found


@cache
def installed_modules() -> dict[str, str]:
    """Every importable module's distribution, as pip knows it."""
    return {name: canonicalize_name(dists[0]) for name, dists in packages_distributions().items()}


def distributions(modules: set[str]) -> dict[str, str]:
    """Module to distribution, the standard library left out."""
    known = installed_modules()
    return {m: known.get(m, m) for m in modules if m not in sys.stdlib_module_names}


def third_party(tree: ast.AST) -> set[str]:
    return set(distributions(imported_modules(tree)).values())


def named_backends(tree: ast.AST, needed: set[str]) -> set[str]:
    """Needed distributions that are not imported here but named in a string, as a backend is."""
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return {name for name in needed if name.replace("-", "_") in texts}


def needs(tree: ast.Module) -> set[str] | None:
    """The names on the docstring's line `Needs: a, b (more about b).`; None without that line."""
    found = re.search(r"^Needs: (.*?)\.?$", ast.get_docstring(tree) or "", re.MULTILINE)
    if not found:
        return None
    names = re.sub(r"\([^)]*\)", "", found[1]).strip(" .")
    if names.startswith("nothing"):
        return set()
    return {canonicalize_name(name.strip()) for name in names.split(",")}


@cache
def import_alone() -> dict[str, str]:
    """Import every file alone in a folder; the errors by file."""
    with tempfile.TemporaryDirectory() as temporary:
        jobs = []
        for path in FILES:
            folder = Path(temporary) / path.stem
            folder.mkdir()
            shutil.copy(path, folder)
            jobs.append((str(folder), path.stem))
        done = subprocess.run(
            [sys.executable, "-I", "-c", IMPORTER],
            input=json.dumps(jobs),
            cwd=temporary,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_file_imports_alone(path):
    assert import_alone().get(path.stem) is None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_file_names_no_sibling(path):
    modules = imported_modules(ast.parse(path.read_text(encoding="utf-8")))
    assert not modules & {".", "cxr_helpers"}, "a helper imports no sibling: copy the lines"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_header_names_what_the_file_imports(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = needs(tree)
    assert named is not None, "end the module's docstring with a line 'Needs: numpy, scipy.'"
    imports = third_party(tree) | UNSEEN.get(path.name, set())
    assert named == imports | named_backends(tree, named - imports)


def test_package_imports_nothing():
    tree = ast.parse((ROOT / "cxr_helpers" / "__init__.py").read_text(encoding="utf-8"))
    assert imported_modules(tree) == set()


def test_everything_imported_is_a_direct_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements):
        return {canonicalize_name(Requirement(text).name) for text in requirements}

    direct, dev = names(project["dependencies"]), names(project["optional-dependencies"]["dev"])
    missing = {}
    for path in (*FILES, *COURSE, *(ROOT / "data_scripts").glob("*.py")):
        imports = third_party(ast.parse(path.read_text(encoding="utf-8")))
        allowed = direct | (dev if path.name in FOR_MAINTAINERS else set())
        if unlisted := imports - allowed - {"cxr-helpers"}:
            missing[path.name] = sorted(unlisted)
    assert missing == {}, "list these in pyproject.toml"


def test_needs_line_is_read():
    def read(text):
        return needs(ast.parse(f'"""Title.\n\n{text}\n"""'))

    assert read("Needs: numpy, Pillow.") == {"numpy", "pillow"}
    assert read("Needs: numpy, pydicom (compressed files: pylibjpeg, more).") == {
        "numpy",
        "pydicom",
    }
    assert read("Needs: nothing beyond Python.") == set()
    assert read("It needs numpy.") is None


def test_imports_inside_functions_count():
    tree = ast.parse("def f():\n    import PIL.Image\n    from . import nih\n")
    assert imported_modules(tree) == {"PIL", "."}
    assert distributions({"PIL", "re"}) == {"PIL": "pillow"}
