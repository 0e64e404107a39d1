"""Build the notebooks that learners open from the sources that authors write.

A source is a py:percent file, notebooks/source/NN_name.py. It is executed into
notebooks/NN_name.ipynb. Cell ids come from the cells' content, and nothing is stored that depends
on the moment: a rebuild without a change changes only what was trained.

    python -m tools.notebooks build [name ...]   execute and write
    python -m tools.notebooks check [name ...]   say which differ from their source
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import jupytext
import nbformat
import zmq
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from PIL import Image
from tqdm import tqdm

from cxr_helpers.course.core.files import write_text

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"

PNG = "image/png"
HIDE = "hide-input"  # the tag of a cell whose code is folded, here and on the site
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class NotebookError(RuntimeError):
    """A cell of a notebook raised an error; the message names notebook, cell and error."""


class _OwnKernelSpecs(KernelSpecManager):
    """Always the kernel of the interpreter that runs, whatever kernels the user has installed."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(**get_kernel_dict())


class _OwnKernelManager(AsyncKernelManager):
    """Starts that kernel, encrypted where the libraries can, which spares a warning on stderr."""

    def __init__(self, **options) -> None:
        encryption = "auto" if zmq.has("curve") else "disabled"
        super().__init__(
            kernel_spec_manager=_OwnKernelSpecs(), transport_encryption=encryption, **options
        )


def select_paths(paths: Sequence[Path], names: Sequence[str] = ()) -> list[Path]:
    """Pick the named ones from numbered sources or notebooks; all where no name is given.

    Args:
        paths: Files called NN_name with any ending.
        names: '02', '02_barlow_twins_pretraining', or a path of a source or a notebook.

    Raises:
        FileNotFoundError: If a name fits none; it lists what there is.

    >>> [path.stem for path in select_paths([Path("01_look.py"), Path("02_learn.py")], ["02"])]
    ['02_learn']
    """
    wanted = [Path(name).stem for name in names]
    for name in wanted:
        if not any(name in (path.stem, path.stem[:2]) for path in paths):
            known = ", ".join(path.stem for path in paths)
            raise FileNotFoundError(f"no notebook is called {name!r}; there are {known}")
    return [p for p in paths if not wanted or p.stem in wanted or p.stem[:2] in wanted]


def source_paths(names: Sequence[str] = (), *, notebooks: Path = NOTEBOOKS) -> list[Path]:
    """List the sources in notebooks/source in order, or those that are named.

    Raises:
        FileNotFoundError: If there is no source, or a name fits none.
    """
    paths = sorted((notebooks / "source").glob("[0-9][0-9]_*.py"))
    if not paths:
        raise FileNotFoundError(f"no sources NN_name.py in {notebooks / 'source'}")
    return select_paths(paths, names)


def cell_ids(cells: Sequence[NotebookNode]) -> list[str]:
    """Give each cell an id from its kind and text, and from how often both came before.

    >>> cells = [nbformat.v4.new_code_cell("x = 1") for _ in range(2)]
    >>> first, second = cell_ids(cells)
    >>> first == cell_ids(cells[:1])[0], first == second
    (True, False)
    """
    seen: Counter[tuple[str, str]] = Counter()
    ids = []
    for cell in cells:
        key = (cell.cell_type, cell.source)
        text = f"{cell.cell_type}\n{seen[key]}\n{cell.source}"
        ids.append(hashlib.sha256(text.encode()).hexdigest()[:12])
        seen[key] += 1
    return ids


def read_source(path: Path) -> NotebookNode:
    """Read a py:percent source into a notebook without outputs, with trimmed metadata.

    The code of a cell with the tag hide-input is folded in JupyterLab.

    Raises:
        ValueError: If the file has no cells.
    """
    notebook = jupytext.read(path, fmt="py:percent")
    if not notebook.cells:
        raise ValueError(f"{path} has no cells: start each with a line '# %%' or '# %% [markdown]'")
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for cell, cell_id in zip(notebook.cells, cell_ids(notebook.cells), strict=True):
        tags = cell.metadata.get("tags")
        kept = {"tags": tags} if tags else {}
        if HIDE in kept.get("tags", ()):
            kept["jupyter"] = {"source_hidden": True}
        cell.metadata = nbformat.from_dict(kept)
        cell.id = cell_id
    return notebook


def execute(
    notebook: NotebookNode,
    *,
    name: str,
    cwd: Path,
    env: dict[str, str] | None = None,
    label: str = "",
) -> NotebookNode:
    """Execute a notebook in place, in a new kernel of this interpreter.

    Args:
        notebook: Its outputs are replaced.
        name: Named in the error.
        cwd: The kernel's working folder.
        env: The kernel's environment; this process's by default.
        label: Printed with the time it took; on a terminal a bar counts the cells. Nothing without.

    Raises:
        NotebookError: If a cell raises or the kernel dies.
    """
    count = sum(cell.cell_type == "code" for cell in notebook.cells)
    begun: list[NotebookNode] = []  # the code cells, the last of which is running

    def begin(cell: NotebookNode, cell_index: int) -> None:
        if cell.cell_type == "code":
            begun.append(cell)
            bar.update()

    client = NotebookClient(
        notebook,
        kernel_manager_class=_OwnKernelManager,
        timeout=None,
        record_timing=False,
        resources={"metadata": {"path": str(cwd)}},
        on_cell_start=begin,
    )
    start = time.perf_counter()
    if label:
        print(f"{label} ...", flush=True)
    bar = tqdm(total=count, desc="cells", leave=False, disable=None if label else True)
    try:
        client.execute(env=dict(os.environ if env is None else env))
    except CellExecutionError as error:
        raise NotebookError(describe_failure(name, begun, error)) from None
    except DeadKernelError:
        place = f"{name} stopped in code cell {len(begun)}"
        raise NotebookError(f"{place}: its kernel died, most often for want of memory") from None
    finally:
        bar.close()
    if label:
        print(f"{label} done in {time.perf_counter() - start:.0f} s", flush=True)
    return tidy(notebook)


def describe_failure(name: str, begun: list[NotebookNode], error: CellExecutionError) -> str:
    """Say in a few lines that the last of the code cells begun failed, and with what."""
    source = begun[-1].source.splitlines()
    shown = [f"    {line}" for line in source[:6]] + ["    ..."] * (len(source) > 6)
    message = ANSI.sub("", f"{error.ename}: {error.evalue}").splitlines()
    lines = [f"{name} stopped in code cell {len(begun)}:", *shown, *message[:8]]
    places = re.findall(
        r"^File (\S+:\d+), in ([\w.]+)", ANSI.sub("", error.traceback), re.MULTILINE
    )
    if places:
        lines.append(f"raised at {places[-1][0]}, in {places[-1][1]}")
    return "\n".join(lines)


def tidy(notebook: NotebookNode) -> NotebookNode:
    """Take out what a page cannot show or what differs from run to run; in place.

    Progress bars go, as do the widgets' state and all metadata but the kernel's name; pieces of
    one stream are joined.
    """
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.metadata.pop("execution", None)
        kept: list[NotebookNode] = []
        for output in cell.outputs:
            if WIDGET_VIEW in output.get("data", {}):
                continue
            if PNG in output.get("data", {}):
                output.data[PNG] = shrink_png(output.data[PNG])
            last = kept[-1] if kept else {}
            if output.output_type == "stream" and last.get("name") == output.name:
                last["text"] += output.text
            else:
                kept.append(output)
        cell.outputs = kept
    return notebook


def shrink_png(encoded: str) -> str:
    """A picture with at most 256 colors, which takes a fraction of the room.

    Args:
        encoded: a PNG in base64.

    Returns:
        A PNG in base64; the same where it would not become smaller.
    """
    picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    few = picture.quantize(256, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    few.save(buffer, "PNG", optimize=True)
    smaller = base64.b64encode(buffer.getvalue()).decode("ascii")
    return smaller if len(smaller) < len(encoded) else encoded


def write(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook so that an interruption leaves the old one whole."""
    write_text(nbformat.writes(notebook).rstrip("\n") + "\n", path)


def build(
    names: Sequence[str] = (),
    *,
    notebooks: Path = NOTEBOOKS,
    run: bool = True,
    env: dict[str, str] | None = None,
) -> list[Path]:
    """Build the notebooks from their sources, in order; an old one stays where its cells fail.

    Args:
        names: As in `select_paths`.
        notebooks: The folder to write to, with source/ in it.
        run: Without, the outputs of cells that have not changed are kept and nothing is executed.
        env: The kernels' environment.

    Returns:
        The notebooks written.

    Raises:
        NotebookError: At the first notebook with a failing cell.
    """
    paths = source_paths(names, notebooks=notebooks)
    written = []
    for number, path in enumerate(paths, start=1):
        target = notebooks / f"{path.stem}.ipynb"
        notebook = read_source(path)
        if run:
            label = f"[{number}/{len(paths)}] {path.stem}"
            execute(notebook, name=path.stem, cwd=notebooks, env=env, label=label)
        elif target.exists():
            _keep_outputs(notebook, nbformat.read(target, as_version=4))
        write(notebook, target)
        written.append(target)
    return written


def _keep_outputs(notebook: NotebookNode, old: NotebookNode) -> None:
    old_cells = {cell.get("id"): cell for cell in old.cells if cell.cell_type == "code"}
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.id in old_cells:
            cell.outputs = old_cells[cell.id].outputs
            cell.execution_count = old_cells[cell.id].execution_count


def differences(names: Sequence[str] = (), *, notebooks: Path = NOTEBOOKS) -> list[str]:
    """Say which notebooks no longer agree with their sources; one sentence for each.

    Compared are each cell's kind, text, id, tags and whether its code is folded. A notebook
    without a source is named too.
    """
    found = []
    for path in source_paths(names, notebooks=notebooks):
        target = notebooks / f"{path.stem}.ipynb"
        if not target.exists():
            found.append(f"{target.name} has not been built")
            continue
        new = [_identity(cell) for cell in read_source(path).cells]
        old = [_identity(cell) for cell in nbformat.read(target, as_version=4).cells]
        if new != old:
            same = sum(
                1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(new, old, strict=False))
            )
            found.append(f"{target.name} differs from its source from cell {same + 1} on")
    if not names:
        known = {path.stem for path in source_paths(notebooks=notebooks)}
        orphans = sorted(p.name for p in notebooks.glob("*.ipynb") if p.stem not in known)
        found += [f"{name} has no source in {notebooks.name}/source" for name in orphans]
    return found


def _identity(cell: NotebookNode) -> tuple:
    tags, folded = cell.metadata.get("tags", ()), cell.metadata.get("jupyter")
    return cell.cell_type, cell.source, cell.get("id"), tuple(tags), folded


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 where all is well."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.notebooks", description=__doc__.splitlines()[0]
    )
    parser.add_argument("action", choices=["build", "check"])
    parser.add_argument("names", nargs="*", help="notebooks, for instance 02; all if none is named")
    parser.add_argument(
        "--no-execute", action="store_true", help="build: keep outputs of cells that stay the same"
    )
    parser.add_argument("--notebooks", type=Path, default=NOTEBOOKS, help="folder with source/")
    options = parser.parse_args(arguments)
    try:
        if options.action == "check":
            found = differences(options.names, notebooks=options.notebooks)
            for sentence in found:
                print(f"{sentence}: run  make notebooks")
            return 1 if found else 0
        # What is stored is the demo's; a real folder in the environment must not slip in.
        env = os.environ | {"CXR_DATA": "demo", "CXR_SCALE": "demo"}
        build(options.names, notebooks=options.notebooks, run=not options.no_execute, env=env)
    except (FileNotFoundError, NotebookError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
