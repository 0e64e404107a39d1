"""A helper can be copied: with the files beside it that its header names, or with its folder.

The files are imported one by one, each with its companions in a package of their own, by one fresh
process that cannot see `cxr_helpers`: the heavy libraries are then loaded once.
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

from cxr_helpers import __version__

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "cxr_helpers"
ROOMS = sorted(
    path.parent for path in PACKAGE.glob("*/__init__.py") if path.parent.name != "course"
)
FILES = sorted(p for room in ROOMS for p in room.glob("*.py") if p.name != "__init__.py")
ALL = sorted(PACKAGE.rglob("*.py"))
UNSEEN = {"coco.py": {"torchvision"}}  # torchmetrics has detection only where that is installed
EXTRAS = {"course": {"course"}, "data_scripts": {"course"}, "tools": {"course", "dev"}}

# Imports each module by its name in a package of its own, and says what went wrong with which.
IMPORTER = """
import importlib, json, sys, traceback

class NoPackage:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "cxr_helpers":
            raise ImportError("cxr_helpers is not there")

sys.meta_path.insert(0, NoPackage())
sys.path.insert(0, ".")
failed = {}
for name, module in json.load(sys.stdin).items():
    try:
        importlib.import_module(module)
    except BaseException:
        failed[name] = traceback.format_exc(limit=-2)
print(json.dumps(failed))
"""

by_room = pytest.mark.parametrize(
    "path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix()
)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_modules(tree: ast.AST) -> set[str]:
    """Top-level names of every absolute import in a file, those inside functions too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." if node.level else node.module.split(".")[0])
    return found


def siblings(tree: ast.AST) -> set[str]:
    """The files of its own folder that a file imports; `..` for what lies outside it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {f"{name.split('.')[0]}.py" for name in names}
        elif isinstance(node, ast.ImportFrom) and node.level > 1:
            found.add("..")
    return found


@cache
def installed_modules() -> dict[str, str]:
    """Every importable module's distribution, as pip knows it."""
    return {name: canonicalize_name(dists[0]) for name, dists in packages_distributions().items()}


def third_party(tree: ast.AST) -> set[str]:
    """Distributions of what a file imports, the standard library and siblings left out."""
    modules = imported_modules(tree) - {"."} - sys.stdlib_module_names
    return {installed_modules().get(name, name) for name in modules}


def named_backends(tree: ast.AST, needed: set[str]) -> set[str]:
    """Needed distributions that are not imported here but named in a string, as a backend is."""
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return {name for name in needed if name.replace("-", "_") in texts}


def header(tree: ast.Module, word: str) -> set[str] | None:
    """The names on the docstring's line `word: a, b (more about b).`; None without that line."""
    found = re.search(rf"^{word}: (.*?)\.?$", ast.get_docstring(tree) or "", re.MULTILINE)
    if not found:
        return None
    names = re.sub(r"\([^)]*\)", "", found[1]).strip(" .")
    return set() if names.startswith("nothing") else {name.strip() for name in names.split(",")}


def needs(tree: ast.Module) -> set[str] | None:
    named = header(tree, "Needs")
    return None if named is None else {canonicalize_name(name) for name in named}


def goes_with(path: Path) -> set[Path]:
    """The files that a file's header names."""
    return {path.with_name(name) for name in header(parsed(path), "Goes with") or ()}


def must_go_with(path: Path) -> set[Path]:
    """The files of its folder that a file imports, those that these import, and so on."""
    found, todo = set(), [path]
    while todo:
        for name in siblings(parsed(todo.pop())):
            other = path.with_name(name)
            if other not in found | {path}:
                found.add(other)
                todo.append(other)
    return found


@cache
def copied() -> dict[str, str]:
    """Import every file with its companions, and every room, from copies; the errors by name."""
    with tempfile.TemporaryDirectory() as temporary:
        jobs = {}
        for number, path in enumerate(FILES):
            folder = Path(temporary) / f"copied{number}"
            folder.mkdir()
            (folder / "__init__.py").touch()
            for one in {path, *goes_with(path)}:
                shutil.copy(one, folder)
            jobs[str(path)] = f"{folder.name}.{path.stem}"
        for room in ROOMS:
            shutil.copytree(room, Path(temporary) / f"my_{room.name}")
            for path in room.glob("*.py"):
                jobs[f"{path} in its room"] = f"my_{room.name}.{path.stem}"
        done = subprocess.run(
            [sys.executable, "-I", "-c", IMPORTER],
            input=json.dumps(jobs),
            cwd=temporary,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@by_room
def test_file_can_be_copied_with_those_it_names(path):
    assert copied().get(str(path)) is None


def test_folders_can_be_copied():
    assert {name: text for name, text in copied().items() if name.endswith("room")} == {}


@by_room
def test_file_imports_its_own_folder_alone(path):
    tree = parsed(path)
    assert "cxr_helpers" not in imported_modules(tree) and ".." not in siblings(tree), (
        "a helper imports no other room: hand over what it needs, or copy the lines"
    )


@by_room
def test_header_names_what_the_file_imports(path):
    tree = parsed(path)
    named = needs(tree)
    assert named is not None, "end the module's docstring with a line 'Needs: numpy, scipy.'"
    imports = third_party(tree) | UNSEEN.get(path.name, set())
    assert named == imports | named_backends(tree, named - imports)
    wanted = ", ".join(sorted(one.name for one in must_go_with(path)))
    assert goes_with(path) == must_go_with(path), f"write 'Goes with: {wanted}.'"


@by_room
def test_header_says_where_the_file_comes_from(path):
    lines = ast.get_docstring(parsed(path)).splitlines()
    assert f"From cxr-helpers {__version__} (MIT license)." in lines


def test_most_files_travel_with_one_other_at_most():
    outside = [path for path in FILES if path.parent.name != "phantom"]
    companions = {path.name: len(goes_with(path)) for path in outside}
    light = [name for name, count in companions.items() if count <= 1]
    assert len(light) > 2 / 3 * len(outside) and max(companions.values()) <= 3, companions


def rank(parts: tuple[str, ...]) -> int:
    """How late a module comes: it may import what comes earlier, and its own kind."""
    if parts[0] in ("tools", "tests", "benchmarks", "data_scripts", "docs"):
        return 99
    if len(parts) < 2 or parts[1] != "course":
        return 0
    if len(parts) < 3:
        return 0  # the course's docstring
    later = {"core": 1, "plots": 2, "exercises": 3} | {f"ch0{n}": 10 + n for n in range(1, 7)}
    return later.get(parts[2], 20)


def imported_names(path: Path) -> set[tuple[str, ...]]:
    """Every absolute import of the project, as far down as a module can lie."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {(*node.module.split("."), alias.name) for alias in node.names}
    ours = {"cxr_helpers", "tools", "tests", "benchmarks", "data_scripts"}
    return {parts for parts in found if parts[0] in ours}


def test_imports_run_one_way():
    backwards = []
    for path in ALL:
        own = rank(path.relative_to(ROOT).with_suffix("").parts)
        for parts in imported_names(path):
            if rank(parts) > own:
                backwards.append(f"{path.relative_to(ROOT)} imports {'.'.join(parts)}")
    assert backwards == [], "helpers, core, plots, chapters, command line: never back"


def test_package_imports_nothing():
    assert imported_modules(parsed(PACKAGE / "__init__.py")) == set()


def test_everything_imported_is_brought_by_the_extra_that_it_is_for():
    """Helpers import what a plain `pip install` brings; the course, scripts and tools more."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = {"": project["dependencies"], **project["optional-dependencies"]}
    brought = {
        extra: {canonicalize_name(Requirement(text).name) for text in texts}
        for extra, texts in lists.items()
    }
    brought["course"].add("ipython")  # by ipykernel
    folders = {room.name: sorted(room.glob("*.py")) for room in ROOMS}
    folders["course"] = sorted((PACKAGE / "course").rglob("*.py"))
    folders |= {name: sorted((ROOT / name).glob("*.py")) for name in ("data_scripts", "tools")}
    missing = {}
    for folder, paths in folders.items():
        own = {path.stem for path in paths} | {"cxr-helpers", "tools"}
        allowed = own.union(*(brought[extra] for extra in {"", *EXTRAS.get(folder, ())}))
        for path in paths:
            if unlisted := third_party(parsed(path)) - allowed:
                missing[str(path.relative_to(ROOT))] = sorted(unlisted)
    assert missing == {}, "list these in pyproject.toml"


# Imports each module where nothing can be imported of what an extra brings.
WITHOUT_EXTRAS = """
import importlib, json, sys

modules, hidden = json.load(sys.stdin)
sys.modules.update(dict.fromkeys(hidden))
for name in modules:
    importlib.import_module(name)
try:
    import cxr_helpers.course
except ImportError as error:
    print(error)
"""


def test_helpers_need_no_extra_and_the_course_says_which_it_needs():
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES]
    hidden = ["ipywidgets", "jupyterlab", "nbformat", "psutil", "seaborn", "torchxrayvision"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS],
        input=json.dumps([modules, hidden]),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "the course needs ipywidgets, nbformat, psutil" in done.stdout
    assert "'.[course]'" in done.stdout


def test_header_lines_are_read():
    def read(text):
        return needs(ast.parse(f'"""Title.\n\n{text}\n"""'))

    assert read("Needs: numpy, Pillow.") == {"numpy", "pillow"}
    assert read("Needs: numpy, pydicom (compressed files: pylibjpeg, more).") == {
        "numpy",
        "pydicom",
    }
    assert read("Needs: nothing beyond Python.") == set()
    assert read("It needs numpy.") is None
    tree = ast.parse('"""Title.\n\nNeeds: numpy.\nGoes with: boxes.py, coco.py.\n"""')
    assert header(tree, "Goes with") == {"boxes.py", "coco.py"}


def test_imports_inside_functions_count():
    tree = ast.parse(
        "def f():\n    import PIL.Image\n    from . import nih\n    from ..data import x"
    )
    assert imported_modules(tree) == {"PIL", "."}
    assert third_party(tree) == {"pillow"}
    assert siblings(tree) == {"nih.py", ".."}


def test_ranks():
    order = [
        ("cxr_helpers", "data", "nih"),
        ("cxr_helpers", "course", "core", "settings"),
        ("cxr_helpers", "course", "plots", "ch01"),
        ("cxr_helpers", "course", "exercises", "ch01"),
        ("cxr_helpers", "course", "ch01", "exploration"),
        ("cxr_helpers", "course", "ch04", "detection"),
        ("cxr_helpers", "course", "cli", "stages"),
        ("tools", "readme"),
    ]
    ranks = [rank(parts) for parts in order]
    assert ranks == sorted(ranks) and len(set(ranks)) == len(ranks)
