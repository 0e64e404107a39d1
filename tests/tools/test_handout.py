"""Copies for a class: nothing that spoils is in them, and they are the notebooks all the same."""

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import handout
from tools.notebooks import NOTEBOOKS

PICTURE = [new_output("display_data", data={"image/png": "AA"})]
CLOSING = """## What you learned

- <details><summary>Kept</summary> x </details>

## Questions to think about

1. Why?

<details><summary>Answers</summary>

1. Because.

</details>
"""


def small():
    return new_notebook(
        cells=[
            new_markdown_cell("# Title\n\nLook at the top."),
            new_code_cell("plot()", outputs=PICTURE, execution_count=1),
            new_markdown_cell("It is bright.\n\nNow count."),
            new_code_cell("count()", outputs=[new_output("stream", text="3")], execution_count=2),
            new_markdown_cell("Three."),
            new_code_cell("plot()", outputs=PICTURE, execution_count=3),
            new_markdown_cell("## Next\n\nA new part."),
            new_markdown_cell(CLOSING),
        ]
    )


def test_outputs_and_answers_are_gone_and_what_stands_behind_a_figure_is_folded():
    made = handout.hand_out(small())
    text = "\n".join(cell.source for cell in made.cells)
    assert "Because" not in text and "1. Why?" in text
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in made.cells)
    assert made.cells[2].source == handout.folded("It is bright.\n\nNow count.")
    assert [made.cells[i].source for i in (0, 4, 6)] == [small().cells[i].source for i in (0, 4, 6)]


def test_answers_stand_under_their_questions():
    told = handout.answers(small())
    assert told.startswith("1. Why?") and told.endswith("1. Because.") and "<details>" not in told
    assert handout.answers(new_notebook(cells=[new_markdown_cell("# Title")])) == ""


def test_all_notebooks_are_handed_out(tmp_path, capsys):
    assert handout.main(["--out", str(tmp_path / "class")]) == 0
    stored = sorted(NOTEBOOKS.glob("*.ipynb"))
    assert f"{len(stored)} notebooks" in capsys.readouterr().out
    for path in stored:
        made, old = (nbformat.read(p, 4) for p in (tmp_path / "class" / path.name, path))
        code = [[c.source for c in n.cells if c.cell_type == "code"] for n in (made, old)]
        assert code[0] == code[1] and "image/png" not in nbformat.writes(made)
    page = (tmp_path / "class" / "answers.md").read_text(encoding="utf-8")
    assert page.count("\n## ") == len(stored)
    assert handout.main(["09", "--out", str(tmp_path)]) == 1
    assert "no notebook is called '09'" in capsys.readouterr().err
