"""The pages: links and headings lead somewhere, code runs where it says, questions have answers."""

import ast
import builtins
import re

import pytest

from cxr_helpers.course import exercises
from cxr_helpers.course.core.settings import project_root

DOCS = project_root() / "docs"
TEACHING = sorted((DOCS / "teaching").glob("*.md"))
PAGES = [*sorted(DOCS.glob("*.md")), *TEACHING]
SOURCES = sorted((project_root() / "notebooks" / "source").glob("0[0-6]_*.py"))


def anchors(path):
    """The anchors that the headings of a page, or in JupyterLab of a notebook, give."""
    if path.suffix == ".ipynb":
        text = (path.parent / "source" / f"{path.stem}.py").read_text(encoding="utf-8")
        return {title.replace(" ", "-") for title in re.findall(r"^# #+ (.*)$", text, re.MULTILINE)}
    text = path.read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.*)$|^- \*\*(.+?)\*\*:", text, re.MULTILINE)  # or a glossary's term
    titles = [heading or term for heading, term in titles]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        if "://" in target:
            continue
        path = page.parent / name if name else page
        assert path.is_file(), target
        assert not anchor or anchor in anchors(path), target


def test_glossary_is_in_order_and_has_no_term_twice():
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    sections = [re.findall(r"^- \*\*(.+?)\*\*:", s, re.MULTILINE) for s in text.split("\n## ")]
    assert all(terms == sorted(terms, key=str.casefold) for terms in sections)
    terms = sum(sections, [])
    assert len(set(terms)) == len(terms) == text.count("\n- ") > 0


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_every_question_to_think_about_is_answered_and_folded(source):
    asked = source.read_text(encoding="utf-8").split("## Questions to think about")[1]
    folds = asked.count("<details><summary>")
    questions = re.sub(r"<details>.*?</details>", "", asked, flags=re.DOTALL)
    count = len(re.findall(r"^# \d\. ", questions, re.MULTILINE))
    assert count > 0 and folds in (1, count) and folds == asked.count("</details>")


def section(source):
    """What the teacher's page says of a notebook."""
    pages = (DOCS / "teaching" / "notebooks.md").read_text(encoding="utf-8")
    return next(part for part in pages.split("\n## ") if part.startswith(source.stem[:2]))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_teacher_knows_what_to_show_and_her_code_finds_its_names(source):
    text = section(source)
    assert all(f"**{part}.**" in text for part in ("One idea", "Show", "Live"))
    assert re.search(rf"^- \[.+\]\(../../notebooks/{source.stem}\.ipynb#", text, re.MULTILINE)
    known = set(dir(builtins)) | bound(ast.parse(source.read_text(encoding="utf-8")))
    for code in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        tree = ast.parse(code)
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert used <= known | bound(tree), used - known


def bound(tree):
    """The names that code imports or assigns."""
    names = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return names | {one.asname or one.name for node in imports for one in node.names}


def test_every_exercise_that_a_page_names_exists():
    text = " ".join(page.read_text(encoding="utf-8") for page in TEACHING)
    named = set(re.findall(r"\b([1-6]\.[1-9A-C])\b(?=[,;.)]| |$)", text))
    assert named and named <= {*exercises.EXERCISES, *exercises.QUIZZES}
