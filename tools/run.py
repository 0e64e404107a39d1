"""Run the notebooks in order, without a browser, and show their results: `make course`.

The notebooks are executed as copies in runs/<data>/notebooks/, at the scale `quick` in
runs/<data>/quick/notebooks/, so that the stored ones stay as they are. CXR_DATA and CXR_SCALE
choose data and scale, as everywhere.

    python -m tools.run [name ...]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat

from cxr_helpers.course.core.results import results_table, show_results
from cxr_helpers.course.core.settings import load_settings
from tools.notebooks import NotebookError, execute, select_paths, write


def notebook_paths(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """List the numbered notebooks in order, or those that are named ('02' is enough).

    Raises:
        FileNotFoundError: If there are none, or a name fits none; it lists what there is.
    """
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise FileNotFoundError(f"no notebooks in {folder}: run  make notebooks")
    return select_paths(paths, names)


def run_notebooks(paths: Sequence[Path], out: Path, *, env: dict[str, str] | None = None) -> None:
    """Execute copies of the notebooks in order, each in the folder that its original lies in.

    Args:
        paths: The notebooks.
        out: Where the executed copies go; that of a notebook that fails too, as far as it came.
        env: The kernels' environment; this process's by default.

    Raises:
        NotebookError: At the first failing cell; names the notebook, the cell and the error.
    """
    for number, path in enumerate(paths, start=1):
        notebook = nbformat.read(path, as_version=4)
        label = f"[{number}/{len(paths)}] {path.stem}"
        try:
            execute(notebook, name=path.stem, cwd=path.parent, env=env, label=label)
        finally:
            write(notebook, out / path.name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 where every notebook ended."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.run", description=__doc__.splitlines()[0]
    )
    parser.add_argument("names", nargs="*", help="notebooks, for instance 02; all if none is named")
    options = parser.parse_args(arguments)
    try:
        settings = load_settings()
        paths = notebook_paths(settings.project / "notebooks", options.names)
        shown = settings.results.parent.relative_to(settings.project)
        print(f"Data: {settings.data}; scale: {settings.scale}; results: {shown}", flush=True)
        start = time.perf_counter()
        run_notebooks(paths, settings.results.parent / "notebooks")
        minutes = (time.perf_counter() - start) / 60
        print(f"\n{show_results(results_table(settings.results))}")
    except (FileNotFoundError, NotebookError, ValueError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    print(f"\n{len(paths)} notebooks in {minutes:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
