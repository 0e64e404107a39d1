"""`make course`: the notebooks in order on copies, a clear stop, a table at the end."""

import io
import json
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest

from tools import run
from tools.notebooks import NotebookError
from tools.ticker import Ticker


def make_notebook(path, *sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


@pytest.fixture
def course(tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    make_notebook(folder / "00_start.ipynb", "from pathlib import Path\nPath('seen').touch()")
    make_notebook(folder / "01_next.ipynb", "from pathlib import Path\nPath('seen').exists()")
    return folder


def test_no_notebooks_is_said_with_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="run  make notebooks"):
        run.notebook_paths(tmp_path)


def test_notebooks_come_in_order_and_by_number(course):
    assert [path.stem for path in run.notebook_paths(course)] == ["00_start", "01_next"]
    assert [path.stem for path in run.notebook_paths(course, ["01"])] == ["01_next"]
    with pytest.raises(FileNotFoundError, match="'09'; there are 00_start, 01_next"):
        run.notebook_paths(course, ["09"])


def test_copies_are_executed_in_the_folder_of_the_originals(course, tmp_path, capsys):
    before = {path.name: path.read_bytes() for path in course.glob("*.ipynb")}
    seconds = run.run_notebooks(run.notebook_paths(course), tmp_path / "out")
    assert list(seconds) == ["00_start", "01_next"]
    assert {path.name: path.read_bytes() for path in course.glob("*.ipynb")} == before
    executed = nbformat.read(tmp_path / "out" / "01_next.ipynb", as_version=4)
    assert executed.cells[0].outputs[0].data["text/plain"] == "True"
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "[1/2] 00_start ..."
    assert said[3].startswith("[2/2] 01_next done in ")


def test_a_failure_stops_with_notebook_cell_and_error(course, tmp_path, capsys):
    make_notebook(course / "00_start.ipynb", "x = 1", "x / 0")
    with pytest.raises(NotebookError, match=r"00_start stopped in code cell 2") as caught:
        run.run_notebooks(run.notebook_paths(course), tmp_path / "out")
    assert "ZeroDivisionError: division by zero" in str(caught.value)
    assert "00_start stopped" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["00_start.ipynb"]


def test_main_ends_with_the_table(course, tmp_path, monkeypatch, capsys):
    runs = tmp_path / "runs" / "demo"
    (runs / "results").mkdir(parents=True)
    result = {
        "metrics": {"map50": {"random": {"value": 0.25, "low": 0.2, "high": 0.31}}},
        "settings": {},
        "seconds": 61,
        "peak_memory_mb": 900,
        "versions": {},
    }
    (runs / "results" / "04_faster_rcnn_finetuning.json").write_text(json.dumps(result))
    settings = SimpleNamespace(project=tmp_path, runs=runs, data="demo", scale="demo")
    monkeypatch.setattr(run, "load_settings", lambda: settings)
    assert run.main(["00"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Data: demo; scale: demo")
    assert "map50 / random" in said
    assert "0.250" in said and "0.310" in said
    assert said.rstrip().endswith("minutes")


def test_main_fails_with_the_reason(course, tmp_path, monkeypatch, capsys):
    make_notebook(course / "00_start.ipynb", "1 / 0")
    settings = SimpleNamespace(project=tmp_path, runs=tmp_path / "runs", data="d", scale="demo")
    monkeypatch.setattr(run, "load_settings", lambda: settings)
    assert run.main([]) == 1
    assert "00_start stopped in code cell 1" in capsys.readouterr().err


def test_no_results_is_said():
    assert run.show_results(pd.DataFrame()) == "No results yet."


def test_ticker_moves_on_a_terminal_only():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    plain, terminal = io.StringIO(), Terminal()
    for stream in (plain, terminal):
        with Ticker("training", stream=stream):
            pass
    assert plain.getvalue() == "training ...\ntraining done in 0 s\n"
    assert terminal.getvalue() == "\r\x1b[Ktraining done in 0 s\n"


def test_ticker_says_stopped_after_an_error():
    stream = io.StringIO()
    with pytest.raises(ValueError, match="no"), Ticker("training", stream=stream):
        raise ValueError("no")
    assert "training stopped" in stream.getvalue()


def test_main_names_a_file_among_the_results_that_is_none(course, tmp_path, monkeypatch, capsys):
    make_notebook(course / "00_start.ipynb", "1 + 1")
    settings = SimpleNamespace(project=tmp_path, runs=tmp_path / "runs", data="d", scale="demo")
    monkeypatch.setattr(run, "load_settings", lambda: settings)
    (tmp_path / "runs" / "results").mkdir(parents=True)
    (tmp_path / "runs" / "results" / "mine.json").write_text("{}")
    assert run.main([]) == 1
    assert "mine.json lacks metrics" in capsys.readouterr().err
