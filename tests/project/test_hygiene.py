"""Rules for every stored notebook, so that `pytest --nbval` fails only where something is wrong.

Each rule is a function from a notebook to a list of sentences, empty where the rule is kept. Below,
each is shown a notebook that keeps all of them and one that breaks it.
"""

import json
import re
import statistics
import subprocess
from pathlib import Path

import nbformat
import pytest

from tools.notebooks import METADATA, WIDGET_VIEW, cell_ids

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
IGNORE = "nbval-ignore-output"
MAX_IGNORED = 8
IMPORTS = ("import ", "from ")
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
}


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def is_ignored(cell):
    return IGNORE in cell.metadata.get("tags", ())


def output_texts(cell):
    """Every text of a cell's outputs; pictures are left out."""
    for output in cell.get("outputs", ()):
        yield output.get("text", "")
        for kind, value in output.get("data", {}).items():
            if not kind.startswith("image/"):
                yield value if isinstance(value, str) else json.dumps(value)


def cells_are_executed(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    expected = list(range(1, len(counts) + 1))
    return [] if counts == expected else [f"execution counts are {counts}: run  make notebooks"]


def outputs_are_clean(notebook):
    found = []
    for number, cell in enumerate(code_cells(notebook), start=1):
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                text = output.get("text") or output.get("evalue")
                found.append(f"code cell {number} wrote to stderr or raised: {text[:200]}")
            if any("widget" in kind for kind in output.get("data", {})):
                found.append(f"code cell {number} stores a widget")
    return found


def sources_are_stable(notebook):
    found = []
    for number, cell in enumerate(code_cells(notebook), start=1):
        found += [
            f"code cell {number}: {why}" for why, p in FORBIDDEN.items() if p.search(cell.source)
        ]
        if any(line.rstrip().endswith(";") for line in cell.source.splitlines()):
            found.append(f"code cell {number}: a trailing ';' hides nothing from nbval")
    return found


def nothing_names_a_machine(notebook):
    found = []
    for number, cell in enumerate(notebook.cells, start=1):
        for text in (cell.source, *output_texts(cell)):
            for match in (MACHINE_PATH.search(text), ADDRESS.search(text)):
                if match:
                    start = max(0, match.start() - 20)
                    found.append(f"cell {number} holds {text[start : match.end() + 20]!r}")
    return found


def metadata_is_trimmed(notebook):
    found = [] if notebook.metadata == METADATA else [f"metadata is {dict(notebook.metadata)}"]
    for number, cell in enumerate(notebook.cells, start=1):
        if set(cell.metadata) - {"tags"}:
            found.append(f"cell {number} has metadata {sorted(cell.metadata)}")
    return found


def ids_follow_the_content(notebook):
    ids = [cell.get("id") for cell in notebook.cells]
    found = [] if len(set(ids)) == len(ids) else ["two cells share an id"]
    return found if ids == cell_ids(notebook.cells) else [*found, "ids: run  make notebooks"]


def headings(notebook):
    """Yield (level, text) of every heading in order, fenced code left out."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"^```.*?^```", "", cell.source, flags=re.MULTILINE | re.DOTALL)
            for match in re.finditer(r"^(#+)\s+(.*)$", text, re.MULTILINE):
                yield len(match[1]), match[2]


def headings_are_in_order(notebook):
    levels = list(headings(notebook))
    titles = [text for level, text in levels if level == 1]
    found = [] if len(titles) == 1 else [f"there must be one title (H1), there are {titles}"]
    if levels and levels[0][0] != 1:
        found.append(f"the first heading is not the title: {levels[0][1]!r}")
    for (before, _), (level, text) in zip(levels, levels[1:], strict=False):
        if level > before + 1:
            found.append(f"heading {text!r} is {level - before} levels below the one before")
    return found


def cells_are_short(notebook):
    """Lines of code a cell; imports and blank lines do not count."""
    code = [
        [line for line in cell.source.splitlines() if line and not line.startswith(IMPORTS)]
        for cell in code_cells(notebook)
    ]
    lines = [len(of_cell) for of_cell in code]
    found = [f"code cell {i} has {n} lines" for i, n in enumerate(lines, 1) if n > MAX_LINES]
    median = statistics.median(lines) if lines else 0
    return found + ([f"the median cell has {median} lines"] if median > MAX_MEDIAN_LINES else [])


def ignored_outputs_are_claimed(notebook):
    """What depends on training is not compared, but the next cell says what must hold."""
    cells = code_cells(notebook)
    found = []
    for number, cell in enumerate(cells, start=1):
        if not is_ignored(cell):
            continue
        follower = cells[number] if number < len(cells) else None
        if follower is None or is_ignored(follower):
            found.append(f"code cell {number} is tagged {IGNORE}; no untagged cell follows it")
        elif not re.search(r"\bclaim\(|^\s*assert\b", follower.source, re.MULTILINE):
            found.append(f"code cell {number} is tagged {IGNORE}; the next claims nothing")
    ignored = sum(map(is_ignored, cells))
    if ignored > MAX_IGNORED:
        found.append(f"{ignored} cells are tagged {IGNORE}, {MAX_IGNORED} at most")
    return found


def size_is_small(notebook):
    size = len(nbformat.writes(notebook).encode())
    return [] if size < MAX_BYTES else [f"{size / 1e6:.2f} MB; below {MAX_BYTES / 1e6:.0f} MB"]


RULES = [
    cells_are_executed,
    outputs_are_clean,
    sources_are_stable,
    nothing_names_a_machine,
    metadata_is_trimmed,
    ids_follow_the_content,
    headings_are_in_order,
    cells_are_short,
    ignored_outputs_are_claimed,
    size_is_small,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_notebook(path, rule):
    problems = rule(nbformat.read(path, as_version=4))
    assert not problems, "\n".join([path.name, *problems])


def small(*cells, metadata=METADATA):
    """A notebook of (source, outputs, tags) cells below a title, as the builder would write it."""
    made = [nbformat.v4.new_markdown_cell("# Title\n\n## Part")]
    for count, (source, outputs, tags) in enumerate(cells, start=1):
        extra = {"metadata": {"tags": tags}} if tags else {}
        made.append(
            nbformat.v4.new_code_cell(source, outputs=outputs, execution_count=count, **extra)
        )
    for cell, cell_id in zip(made, cell_ids(made), strict=True):
        cell.id = cell_id
    return nbformat.v4.new_notebook(cells=made, metadata=nbformat.from_dict(metadata))


def stream(text, name="stdout"):
    return nbformat.v4.new_output("stream", text=text, name=name)


def data(**kinds):
    return nbformat.v4.new_output("display_data", data=kinds["kinds"])


GOOD = [
    ("train()", [stream("0.71\n")], [IGNORE]),
    ("claim(auroc > 0.6, 'the features carry labels', settings)", [stream("Holds.\n")], []),
    ("path = 'runs/demo/02.json'\npath", [stream("a/tmp/b 0x00280010 and/or data/work/x\n")], []),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_accepts_a_clean_notebook(rule):
    assert rule(small(*GOOD)) == []


@pytest.mark.parametrize(
    ("rule", "cell"),
    [
        (outputs_are_clean, ("f()", [stream("careful", "stderr")], [])),
        (outputs_are_clean, ("f()", [data(kinds={WIDGET_VIEW: {}})], [])),
        (sources_are_stable, ("%%time\nf()", [], [])),
        (sources_are_stable, ("plt.plot(x);", [], [])),
        (sources_are_stable, ("from IPython.display import clear_output", [], [])),
        (sources_are_stable, ("interact(f, x=3)", [], [])),
        (nothing_names_a_machine, ("x", [stream("saved /" + "home/ann/x.png")], [])),
        (nothing_names_a_machine, ("open('/" + "tmp/x')", [], [])),
        (nothing_names_a_machine, ("x", [data(kinds={"text/plain": "<f at 0x7f12ab>"})], [])),
        (cells_are_short, ("\n".join(["x = 1"] * 16), [], [])),
        (ignored_outputs_are_claimed, ("train()", [], [IGNORE])),
        (size_is_small, ("x", [data(kinds={"image/png": "A" * MAX_BYTES})], [])),
    ],
)
def test_rule_finds(rule, cell):
    assert rule(small(*GOOD, cell))


def test_rules_find_what_is_not_in_one_cell():
    notebook = small(*GOOD)
    notebook.cells[2].execution_count = None
    notebook.cells[1].id, notebook.cells[2].metadata = "x", {"collapsed": True}
    notebook.cells[0].source = "## Part\n\n#### Deep\n\n```\n# no heading\n```"
    assert cells_are_executed(notebook)
    assert ids_follow_the_content(notebook)
    assert metadata_is_trimmed(notebook)
    assert len(headings_are_in_order(notebook)) == 3
    assert ignored_outputs_are_claimed(small(*GOOD[:2] * (MAX_IGNORED + 1)))
    assert ignored_outputs_are_claimed(small(GOOD[0], GOOD[0], GOOD[1]))
    assert cells_are_short(small(*[("x = 1\n" * 7, [], [])] * 3))


def tracked_files():
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("this is not a git checkout")
    paths = [ROOT / name for name in done.stdout.split("\0") if name]
    return [path for path in paths if path.suffix != ".ipynb" and path.is_file()]


def test_no_tracked_file_names_a_registry_or_a_machine_path():
    found = []
    for path in tracked_files():
        raw = path.read_bytes()
        if b"\0" in raw:
            continue
        for number, line in enumerate(raw.decode("utf-8").splitlines(), start=1):
            if REGISTRY.search(line) or MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)
