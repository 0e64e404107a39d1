"""Run the notebooks in order, without a browser, and show their results: `make course`.

The notebooks are executed as copies in runs/<data>/notebooks/, so that the stored ones stay as they
are. CXR_DATA and CXR_SCALE choose data and scale, as everywhere.

    python -m cxr_helpers.course.run [name ...]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
import pandas as pd

from cxr_helpers.course.notebooks import NotebookError, execute, select_paths, write
from cxr_helpers.course.results import results_table
from cxr_helpers.course.settings import SettingsError, load_settings
from cxr_helpers.course.ticker import Ticker


def notebook_paths(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """List the numbered notebooks in order, or those that are named ('02' is enough).

    Raises:
        FileNotFoundError: If there are none, or a name fits none; it lists what there is.
    """
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise FileNotFoundError(f"no notebooks in {folder}: run  make notebooks")
    return select_paths(paths, names)


def run_notebooks(
    paths: Sequence[Path], out: Path, *, env: dict[str, str] | None = None
) -> dict[str, float]:
    """Execute copies of the notebooks in order, each in the folder that its original lies in.

    Args:
        paths: The notebooks.
        out: Where the executed copies go; that of a notebook that fails too, as far as it came.
        env: The kernels' environment; this process's by default.

    Returns:
        Seconds by notebook.

    Raises:
        NotebookError: At the first failing cell; names the notebook, the cell and the error.
    """
    out.mkdir(parents=True, exist_ok=True)
    seconds = {}
    for number, path in enumerate(paths, start=1):
        notebook = nbformat.read(path, as_version=4)
        with Ticker(f"[{number}/{len(paths)}] {path.stem}") as ticker:
            try:
                execute(notebook, name=path.stem, cwd=path.parent, env=env, ticker=ticker)
            finally:
                write(notebook, out / path.name)
        seconds[path.stem] = ticker.seconds
    return seconds


def show_results(table: pd.DataFrame) -> str:
    """The results table as text: under each notebook its figures, with their intervals.

    Args:
        table: As `results_table` gives it.

    >>> row = {"notebook": "04_x", "metric": "map50 / random", "value": 0.25, "low": 0.2}
    >>> row |= {"high": 0.31, "minutes": 2.5, "memory_mb": 900}
    >>> print(show_results(pd.DataFrame([row])))
    04_x (2.5 minutes, 900 MB)
      map50 / random  0.250  [0.200, 0.310]
    """
    if table.empty:
        return "No results yet."
    width = table["metric"].str.len().max()
    lines = []
    for name, rows in table.groupby("notebook"):
        first = rows.iloc[0]
        lines.append(f"{name} ({first['minutes']:.1f} minutes, {first['memory_mb']:.0f} MB)")
        for row in rows.itertuples():
            interval = "" if pd.isna(row.low) else f"  [{row.low:.3f}, {row.high:.3f}]"
            lines.append(f"  {row.metric:<{width}}  {_figure(row.value)}{interval}")
    return "\n".join(lines)


def _figure(value: object) -> str:
    if isinstance(value, float):
        return "not known" if pd.isna(value) else f"{value:.3f}"
    return "not known" if value is None else str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 where every notebook ended."""
    parser = argparse.ArgumentParser(
        prog="python -m cxr_helpers.course.run", description=__doc__.splitlines()[0]
    )
    parser.add_argument("names", nargs="*", help="notebooks, for instance 02; all if none is named")
    options = parser.parse_args(arguments)
    try:
        settings = load_settings()
        paths = notebook_paths(settings.project / "notebooks", options.names)
        shown = settings.runs.relative_to(settings.project)
        print(f"Data: {settings.data}; scale: {settings.scale}; results: {shown}", flush=True)
        seconds = run_notebooks(paths, settings.runs / "notebooks")
    except (SettingsError, FileNotFoundError, NotebookError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    try:
        print(f"\n{show_results(results_table(settings.runs / 'results'))}")
    except ValueError as error:  # a file of another kind among the results
        print(f"\n{error}", file=sys.stderr)
        return 1
    print(f"\n{len(paths)} notebooks in {sum(seconds.values()) / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
