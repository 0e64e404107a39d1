"""Copies of the notebooks for a class that is to predict before it sees: in handout/.

    python -m tools.handout [name ...]

They have no outputs and no answers to the closing questions, and what the text says behind a figure
is folded. The answers of all notebooks, questions included, go to handout/answers.md.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from cxr_helpers.course.core.files import write_text
from tools.notebooks import NOTEBOOKS, ROOT, select_paths, write
from tools.web_pages import has_picture, opens_part

FOLD = re.compile(r"\n*<details>\s*<summary>(.*?)</summary>(.*?)</details>\n*", re.DOTALL)
QUESTIONS = "## Questions to think about"


def folded(text: str) -> str:
    r"""The first paragraph of a cell, folded; the rest as it is.

    >>> folded("It rises.\n\nNow the next.").splitlines()[::2]
    ['<details><summary>What is to be seen</summary>', 'It rises.', '</details>', 'Now the next.']
    """
    seen, _, rest = text.partition("\n\n")
    fold = f"<details><summary>What is to be seen</summary>\n\n{seen}\n\n</details>"
    return f"{fold}\n\n{rest}".rstrip()


def closing(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells from the closing questions on; the first may begin with other parts."""
    begins = [QUESTIONS in cell.source for cell in notebook.cells]
    return notebook.cells[begins.index(True) :] if True in begins else []


def answers(notebook: NotebookNode) -> str:
    """The closing questions of a notebook with their answers unfolded; '' where it has none."""
    text = "\n\n".join(cell.source for cell in closing(notebook) if cell.cell_type == "markdown")
    return FOLD.sub(r"\n\n*\1*\n\2\n\n", text.partition(QUESTIONS)[2]).strip()


def hand_out(notebook: NotebookNode) -> NotebookNode:
    """The notebook without outputs and answers, what stands behind a figure folded; in place."""
    for cell in closing(notebook):
        cell.source = FOLD.sub("\n\n", cell.source).strip()
    shown = [has_picture(cell) for cell in notebook.cells]
    for behind, cell in zip([False, *shown], notebook.cells, strict=False):
        if behind and cell.cell_type == "markdown" and not opens_part(cell):
            cell.source = folded(cell.source)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 1 where a name fits no notebook."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.handout", description=__doc__.splitlines()[0]
    )
    parser.add_argument("names", nargs="*", help="notebooks, for instance 02; all if none is named")
    parser.add_argument("--out", type=Path, default=ROOT / "handout", help="folder for the copies")
    options = parser.parse_args(arguments)
    try:
        paths = select_paths(sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")), options.names)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    pages = ["# Answers\n\nArguments to think against, not the only ones."]
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        pages.append(f"## {path.stem}\n\n{answers(notebook)}")
        write(hand_out(notebook), options.out / path.name)
    write_text("\n\n".join(pages) + "\n", options.out / "answers.md")
    print(f"{len(paths)} notebooks and their answers are in {options.out.name}/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
