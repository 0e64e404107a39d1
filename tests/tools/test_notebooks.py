"""The builder, on small sources; and the stored notebooks against their sources."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tools import notebooks as nb

SOURCE = """# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: all
# ---
# %% [markdown]
# # A title

# %%
import matplotlib.pyplot as plt
from tqdm.notebook import tqdm

# %% tags=["nbval-ignore-output"]
for _ in tqdm(range(3)):
    pass
print("one", flush=True)
print("two", flush=True)

# %%
plt.subplots(figsize=(1, 1))
plt.show()

# %%
1 + 1

# %% tags=["hide-input"]
1 + 1
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course") / "notebooks"
    (folder / "source").mkdir(parents=True)
    (folder / "source" / "01_small.py").write_text(SOURCE)
    nb.build(notebooks=folder)
    return folder


def copy_of(built: Path, folder: Path) -> Path:
    (folder / "source").mkdir(parents=True)
    for path in (*built.glob("*.ipynb"), *(built / "source").glob("*.py")):
        (folder / path.relative_to(built)).write_bytes(path.read_bytes())
    return folder


def test_what_is_missing_is_named(built, tmp_path):
    with pytest.raises(FileNotFoundError, match="source"):
        nb.source_paths(notebooks=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"'07'; there are 01_small"):
        nb.source_paths(["07"], notebooks=built)
    path = tmp_path / "01_empty.py"
    path.write_text("")
    with pytest.raises(ValueError, match="01_empty.py has no cells"):
        nb.read_source(path)


@pytest.mark.parametrize("name", ["01", "01_small", "notebooks/source/01_small.py"])
def test_a_notebook_is_found_by_number_name_and_path(built, name):
    assert [path.stem for path in nb.source_paths([name], notebooks=built)] == ["01_small"]


def test_built_notebook_is_executed_and_trimmed(built):
    notebook = nbformat.read(built / "01_small.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4, 5]
    assert notebook.metadata == nb.METADATA
    folded = {"tags": ["hide-input"], "jupyter": {"source_hidden": True}}
    ignored = {"tags": ["nbval-ignore-output"]}
    assert [cell.metadata for cell in code] == [{}, ignored, {}, {}, folded]
    assert [output.text for output in code[1].outputs] == ["one\ntwo\n"]
    assert "image/png" in code[2].outputs[0].data
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


def test_a_rebuild_changes_no_byte(built, tmp_path):
    folder = copy_of(built, tmp_path / "notebooks")
    before = (folder / "01_small.ipynb").read_bytes()
    nb.build(notebooks=folder)
    assert (folder / "01_small.ipynb").read_bytes() == before


def test_ids_stay_when_a_cell_is_put_in_front(built):
    cells = nb.read_source(built / "source" / "01_small.py").cells
    more = [nbformat.v4.new_code_cell("0"), *cells]
    assert nb.cell_ids(more)[1:] == nb.cell_ids(cells)


@pytest.mark.parametrize(
    ("old", "new", "cell"),
    [("1 + 1", "1 + 2", 5), ("# # A title", "# # Another", 1), ("-ignore-", "-check-", 3)],
)
def test_check_names_what_differs(built, tmp_path, capsys, old, new, cell):
    folder = copy_of(built, tmp_path / "notebooks")
    assert nb.main(["check", "--notebooks", str(folder)]) == 0 and not capsys.readouterr().out
    source = folder / "source" / "01_small.py"
    source.write_text(source.read_text().replace(old, new))
    assert nb.main(["check", "--notebooks", str(folder)]) == 1
    said = capsys.readouterr().out
    assert f"01_small.ipynb differs from its source from cell {cell} on" in said


def test_check_finds_a_cell_that_is_no_longer_folded(built, tmp_path):
    folder = copy_of(built, tmp_path / "notebooks")
    path = folder / "01_small.ipynb"
    path.write_text(path.read_text().replace('"source_hidden": true', '"source_hidden": false'))
    found = nb.differences(notebooks=folder)
    assert found == ["01_small.ipynb differs from its source from cell 6 on"]


def test_check_names_the_unbuilt_and_the_orphan(built, tmp_path):
    folder = copy_of(built, tmp_path / "notebooks")
    (folder / "source" / "02_new.py").write_text(SOURCE)
    (folder / "03_orphan.ipynb").write_bytes((folder / "01_small.ipynb").read_bytes())
    assert nb.differences(notebooks=folder) == [
        "02_new.ipynb has not been built",
        "03_orphan.ipynb has no source in notebooks/source",
    ]


def test_without_execution_outputs_of_unchanged_cells_stay(built, tmp_path):
    folder = copy_of(built, tmp_path / "notebooks")
    source = folder / "source" / "01_small.py"
    source.write_text(source.read_text().replace("# # A title", "# # Another"))
    nb.build(notebooks=folder, run=False)
    assert nb.differences(notebooks=folder) == []
    cells = nbformat.read(folder / "01_small.ipynb", as_version=4).cells
    assert cells[2].outputs[0].text == "one\ntwo\n"


def test_a_failing_cell_is_named_and_the_old_notebook_stays(built, tmp_path, capsys):
    folder = copy_of(built, tmp_path / "notebooks")
    before = (folder / "01_small.ipynb").read_bytes()
    source = folder / "source" / "01_small.py"
    source.write_text("# %%\nx = 1\n\n# %%\nimport json\njson.loads('{')\n")
    assert nb.main(["build", "--notebooks", str(folder)]) == 1
    said = capsys.readouterr().err
    assert "01_small stopped in code cell 2:\n    import json\n    json.loads('{')\n" in said
    assert "JSONDecodeError: Expecting property name" in said
    assert "\x1b" not in said
    assert (folder / "01_small.ipynb").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["01_small.ipynb", "source"]


def test_a_dead_kernel_is_named(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import os\nos._exit(1)")])
    with pytest.raises(nb.NotebookError, match="deadly stopped in code cell 1: its kernel died"):
        nb.execute(notebook, name="deadly", cwd=tmp_path)


def test_nbval_passes_whether_or_not_a_progress_bar_appears(built, tmp_path):
    """Cells untagged, so that outputs are compared; the root's conftest leaves widgets out."""
    folder = copy_of(built, tmp_path / "notebooks")
    source = folder / "source" / "01_small.py"
    source.write_text(source.read_text().replace(' tags=["nbval-ignore-output"]', ""))
    nb.build(notebooks=folder, run=False)
    (tmp_path / "pytest.ini").write_text("[pytest]")
    (tmp_path / "conftest.py").write_bytes((nb.ROOT / "conftest.py").read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--nbval", "--nbval-current-env", "notebooks"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout


def test_stored_notebooks_agree_with_their_sources():
    assert nb.differences() == [], "run  make notebooks"
