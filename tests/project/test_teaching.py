"""The teacher's pages and the glossary: links lead somewhere, every question has an answer."""

import re

import pytest

from cxr_helpers.course import exercises
from cxr_helpers.course.core.settings import project_root

DOCS = project_root() / "docs"
PAGES = [DOCS / "glossary.md", *sorted((DOCS / "teaching").glob("*.md"))]
SOURCES = sorted((project_root() / "notebooks" / "source").glob("0[0-6]_*.py"))


def anchors(text):
    """The anchors that a page's headings give."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        if "://" in target:
            continue
        path = page.parent / name if name else page
        assert path.is_file(), target
        assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), target


def test_glossary_is_in_order_and_has_no_term_twice():
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    sections = [re.findall(r"^- \*\*(.+?)\*\*:", s, re.MULTILINE) for s in text.split("\n## ")]
    assert all(terms == sorted(terms, key=str.casefold) for terms in sections)
    terms = sum(sections, [])
    assert len(set(terms)) == len(terms) == text.count("\n- ") > 0


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_every_question_to_think_about_is_answered(source):
    asked = source.read_text(encoding="utf-8").split("## Questions to think about")[1]
    count = len(re.findall(r"^# \d\. ", asked, re.MULTILINE))
    pages = (DOCS / "teaching" / "notebooks.md").read_text(encoding="utf-8")
    section = next(s for s in pages.split("\n## ") if s.startswith(source.stem[:2]))
    answered = re.findall(r"^\d\. \*.+?\*", section, re.MULTILINE | re.DOTALL)
    assert len(answered) == count > 0
    assert "**One idea.**" in section and "**Live.**" in section


def test_every_exercise_that_a_page_names_exists():
    text = " ".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r"\b([1-6]\.[1-9A-C])\b(?=[,;.)]| |$)", text))
    assert named and named <= {*exercises.EXERCISES, *exercises.QUIZZES}
