"""Rules for every stored notebook, so that `pytest --nbval` fails only where something is wrong.

Each rule yields a sentence for what breaks it. That a notebook agrees with its source in cells,
ids and tags is tested with the builder.
"""

import json
import re
import statistics
import subprocess
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
IGNORE = "nbval-ignore-output"
MAX_IGNORED = 8
MAX_LINES, MAX_MEDIAN_LINES = 15, 6
MAX_BYTES = 1_000_000

# Written in pieces, so that this file does not break its own rule.
FOLDERS = "|".join(["home", "Users", "root", "tmp", "work", "opt", "mnt", "private", "var"])
MACHINE_PATH = re.compile(rf"(?<![\w.~:/\-}}])/(?:{FOLDERS})/\w|\b[A-Z]:\\\w")
ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+|\b0x[0-9a-fA-F]{9,}")
REGISTRY = re.compile(
    "|".join([r"py" + r"pi\.org", r"files\.python" + "hosted", "extra-" + "index"])
)
FORBIDDEN = {
    "%%time and %time differ from run to run": re.compile(r"^\s*%{1,2}time", re.MULTILINE),
    "clear_output fails under nbval": re.compile(r"\bclear_output\b"),
    "interact fails under nbval": re.compile(r"\binteract(ive)?\("),
    "NBVAL comments: use the tag": re.compile(r"#\s*NBVAL_"),
    "a trailing ';' hides nothing from nbval": re.compile(r";[ \t]*$", re.MULTILINE),
}


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def is_ignored(cell):
    return IGNORE in cell.metadata.get("tags", ())


def texts(cell):
    """Source and every text of a cell's outputs; pictures are left out."""
    yield cell.source
    for output in cell.get("outputs", ()):
        yield output.get("text", "")
        for kind, value in output.get("data", {}).items():
            if not kind.startswith("image/"):
                yield value if isinstance(value, str) else json.dumps(value)


def executed_without_trouble(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts are {counts}: run  make notebooks"
    for number, cell in enumerate(code_cells(notebook), start=1):
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                text = output.get("text") or output.get("evalue")
                yield f"code cell {number} wrote to stderr or raised: {text[:200]}"
            if any("widget" in kind for kind in output.get("data", {})):
                yield f"code cell {number} stores a widget"


def sources_are_stable(notebook):
    for number, cell in enumerate(code_cells(notebook), start=1):
        for why, pattern in FORBIDDEN.items():
            if pattern.search(cell.source):
                yield f"code cell {number}: {why}"


def nothing_names_a_machine(notebook):
    for number, cell in enumerate(notebook.cells, start=1):
        for text in texts(cell):
            for match in filter(None, (MACHINE_PATH.search(text), ADDRESS.search(text))):
                yield f"cell {number} holds {text[max(0, match.start() - 20) : match.end() + 20]!r}"


def headings_are_in_order(notebook):
    """One title, which comes first; no level is left out on the way down."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"^(#+)\s+(.*)$", text, re.MULTILINE)
    levels = [len(marks) for marks, _ in found]
    if levels[0] != 1 or levels.count(1) != 1:
        yield "there must be one title (H1), before all other headings"
    for before, level, (_, title) in zip(levels, levels[1:], found[1:], strict=False):
        if level > before + 1:
            yield f"heading {title!r} is {level - before} levels below the one before"


def cells_are_short(notebook):
    """Lines of code a cell; imports and blank lines do not count."""
    code = [cell.source.splitlines() for cell in code_cells(notebook)]
    code = [[line for line in of_cell if line] for of_cell in code]
    lines = [sum(not line.startswith(("import ", "from ")) for line in one) for one in code]
    yield from (f"code cell {i} has {n} lines" for i, n in enumerate(lines, 1) if n > MAX_LINES)
    if statistics.median(lines) > MAX_MEDIAN_LINES:
        yield f"the median cell has {statistics.median(lines)} lines"


def ignored_outputs_are_claimed(notebook):
    """What depends on training is not compared, but the next cell says what must hold."""
    cells = code_cells(notebook)
    for number, cell in enumerate(cells, start=1):
        follower = cells[number] if number < len(cells) else None
        if is_ignored(cell) and (follower is None or is_ignored(follower)):
            yield f"code cell {number} is tagged {IGNORE}; no untagged cell follows it"
        elif is_ignored(cell) and not re.search(
            r"\bclaim\(|^\s*assert\b", follower.source, re.MULTILINE
        ):
            yield f"code cell {number} is tagged {IGNORE}; the next claims nothing"
    if sum(map(is_ignored, cells)) > MAX_IGNORED:
        yield f"more than {MAX_IGNORED} cells are tagged {IGNORE}"


def size_is_small(notebook):
    size = len(nbformat.writes(notebook).encode())
    if size >= MAX_BYTES:
        yield f"{size / 1e6:.2f} MB; below {MAX_BYTES / 1e6:.0f} MB"


RULES = [
    executed_without_trouble,
    sources_are_stable,
    nothing_names_a_machine,
    headings_are_in_order,
    cells_are_short,
    ignored_outputs_are_claimed,
    size_is_small,
]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_notebook(path):
    notebook = nbformat.read(path, as_version=4)
    problems = [problem for rule in RULES for problem in rule(notebook)]
    assert not problems, "\n".join([path.name, *problems])


GOOD = nbformat.v4.new_notebook(
    cells=[
        nbformat.v4.new_markdown_cell("# Title\n\n## Part\n\n```\n# no heading\n```"),
        nbformat.v4.new_code_cell("train()", execution_count=1, metadata={"tags": [IGNORE]}),
        nbformat.v4.new_code_cell("claim(auroc > 0.6, 'it holds', settings)", execution_count=2),
        nbformat.v4.new_code_cell("'a/tmp/b 0x00280010 and/or data/work/x'", execution_count=3),
    ]
)
BAD = {
    "stderr": {"outputs": [nbformat.v4.new_output("stream", text="careful", name="stderr")]},
    "a widget": {"outputs": [nbformat.v4.new_output("display_data", data={"x/widget": "x"})]},
    "not executed": {"execution_count": None},
    "timed": {"source": "%%time\nf()"},
    "hidden": {"source": "plt.plot(x);\nf()"},
    "machine": {"source": "open('/" + "tmp/x')"},
    "address": {"outputs": [nbformat.v4.new_output("stream", text="<f at 0x7f12ab>")]},
    "long": {"source": "\n".join(["x = 1"] * 16)},
    "unclaimed": {"metadata": {"tags": [IGNORE]}},
    "large": {"source": "#" + "A" * MAX_BYTES},
}


@pytest.mark.parametrize("bad", [None, *BAD])
def test_the_rules_find_what_they_look_for(bad):
    notebook = nbformat.from_dict(json.loads(json.dumps(GOOD)))
    notebook.cells[-1].update(nbformat.from_dict(BAD.get(bad, {})))
    assert len([problem for rule in RULES for problem in rule(notebook)]) == (bad is not None)


def test_no_tracked_file_names_a_registry_or_a_machine_path():
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("this is not a git checkout")
    found = []
    for path in (ROOT / name for name in done.stdout.split("\0") if name):
        if path.suffix == ".ipynb" or not path.is_file() or b"\0" in path.read_bytes():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if REGISTRY.search(line) or MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)
