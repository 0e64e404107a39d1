"""`make course`: the notebooks in order on copies, a clear stop, a table at the end."""

import json
from types import SimpleNamespace

import nbformat
import pytest

from tools import run
from tools.notebooks import NotebookError

RESULT = {"metrics": {"map50": {"random": {"value": 0.25, "low": 0.2, "high": 0.31}}}}
RESULT |= {"settings": {}, "seconds": 61, "peak_memory_mb": 900, "versions": {}}


def make_notebook(path, *sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


@pytest.fixture
def course(tmp_path, monkeypatch):
    """The folder of two notebooks, the second of which sees what the first did."""
    folder, runs = tmp_path / "notebooks", tmp_path / "runs"
    for made in (folder, runs / "results"):
        made.mkdir(parents=True)
    make_notebook(folder / "00_start.ipynb", "from pathlib import Path\nPath('seen').touch()")
    make_notebook(folder / "01_next.ipynb", "from pathlib import Path\nPath('seen').exists()")
    (runs / "results" / "04_x.json").write_text(json.dumps(RESULT))
    settings = SimpleNamespace(
        project=tmp_path, results=runs / "results", data="demo", scale="demo"
    )
    monkeypatch.setattr(run, "load_settings", lambda: settings)
    return folder


def test_notebooks_come_in_order_and_by_number(course, tmp_path):
    assert [path.stem for path in run.notebook_paths(course)] == ["00_start", "01_next"]
    assert [path.stem for path in run.notebook_paths(course, ["01"])] == ["01_next"]
    with pytest.raises(FileNotFoundError, match="'09'; there are 00_start, 01_next"):
        run.notebook_paths(course, ["09"])
    with pytest.raises(FileNotFoundError, match="run  make notebooks"):
        run.notebook_paths(tmp_path)


def test_copies_are_executed_where_the_originals_lie_and_the_table_ends_it(course, capsys):
    before = {path.name: path.read_bytes() for path in course.glob("*.ipynb")}
    assert run.main([]) == 0
    assert {path.name: path.read_bytes() for path in course.glob("*.ipynb")} == before
    executed = nbformat.read(course.parent / "runs/notebooks/01_next.ipynb", as_version=4)
    assert executed.cells[0].outputs[0].data["text/plain"] == "True"
    said = capsys.readouterr().out
    assert said.startswith("Data: demo; scale: demo") and "[2/2] 01_next done in " in said
    assert "map50 / random  0.250  [0.200, 0.310]" in said and said.rstrip().endswith("minutes")


def test_a_failure_stops_with_notebook_cell_and_error(course, tmp_path, capsys):
    make_notebook(course / "00_start.ipynb", "x = 1", "x / 0")
    with pytest.raises(NotebookError, match=r"00_start stopped in code cell 2") as caught:
        run.run_notebooks(run.notebook_paths(course), tmp_path / "out")
    assert "ZeroDivisionError: division by zero" in str(caught.value)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["00_start.ipynb"]
    assert run.main([]) == 1
    assert "00_start stopped in code cell 2" in capsys.readouterr().err


def test_a_file_among_the_results_that_is_none_is_named(course, capsys):
    (course.parent / "runs/results/mine.json").write_text("{}")
    assert run.main(["00"]) == 1
    assert "mine.json lacks metrics" in capsys.readouterr().err
