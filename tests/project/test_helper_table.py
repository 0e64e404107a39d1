"""The table 'Which helper for what' names files and calls that there are, and every subject."""

import ast
import re
from pathlib import Path

import cxr_helpers

ROOT = Path(cxr_helpers.__file__).parent
PAGE = (ROOT.parent / "docs" / "api" / "index.md").read_text(encoding="utf-8")
TABLE = PAGE.split("## Which helper for what")[1].split("\n## ")[0]
ROWS = [line.strip("| ").split(" | ") for line in TABLE.splitlines() if line.startswith("| ")][1:]
# Parts of others, which their users need not call.
PARTS = {
    "dicom_decoding",
    "dicom_header",
    "tables",
    "gray",
    "workers",
    "checks",
    "inputs",
    "layers",
}
PARTS |= {"features", "feature_cache", "processes", "backbone", "training", "prediction"}
PARTS |= {"fixed_box"}


def defined(path):
    """Public names of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}


def files_of(cell):
    """The files that a row names; the second has its folder from the first."""
    named = re.findall(r"`([\w/]+\.py)`", cell)
    return [ROOT / (name if "/" in name else f"{named[0].split('/')[0]}/{name}") for name in named]


def test_each_row_names_its_file_and_its_call():
    assert len(ROWS) > 25 and all(len(row) == 4 and all(row) for row in ROWS)
    for _, file, call, _ in ROWS:
        if file.startswith("`phantom/`"):
            names = {name for path in (ROOT / "phantom").glob("*.py") for name in defined(path)}
        else:
            names = set().union(*map(defined, files_of(file)))
        calls = re.findall(r"`(?:\w+\.)?(\w+)", call)
        assert calls and {*calls} <= names, (file, call)


def test_no_subject_is_left_out():
    named = {path.stem for _, file, _, _ in ROWS for path in files_of(file)}
    there = {
        p.stem for p in ROOT.glob("[a-z]*/[a-z]*.py") if p.parent.name not in ("course", "phantom")
    }
    assert there - named == PARTS


def test_the_package_names_calls_that_there_are():
    found = re.findall(r"`(\w+)\.(\w+)`", cxr_helpers.__doc__.split("`cxr_helpers.course`")[0])
    assert len(found) > 15
    for file, name in found:
        (path,) = ROOT.glob(f"*/{file}.py")
        assert name in defined(path), f"{file}.{name}"
