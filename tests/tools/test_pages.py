"""The site, built once as `make site` builds it: nothing is missing, nothing comes from afar."""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tools import web_pages

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
HELPERS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "cxr_helpers").glob("[a-z]*/[a-z]*.py")
    if path.parent.name != "course"
)
TEXTS = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "docs").rglob("*.md")]
SPHINX = "-m sphinx -W --keep-going -q -c docs -d"


class Page(HTMLParser):
    """What a page holds: ids, links, pictures with their texts, loaded files, headings."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.pictures, self.loaded, self.levels = set(), [], [], [], []
        self.text = path.read_text(encoding="utf-8")
        self.inside = 0  # depth within <article>
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids |= {found[name] for name in ("id", "name") if found.get(name)}
        self.inside += tag == "article"
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        elif tag == "img":
            self.pictures.append((found["src"], found.get("alt") or ""))
        elif tag == "script" and found.get("src"):
            self.loaded.append(found["src"])
        elif tag == "link" and found.get("rel") in ("stylesheet", "preload", "icon"):
            self.loaded.append(found["href"])
        elif re.fullmatch("h[1-6]", tag) and self.inside:
            self.levels.append(int(tag[1]))

    def handle_endtag(self, tag):
        self.inside -= tag == "article"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, *SPHINX.split(), str(folder / "doctrees"), ".", str(folder / "html")]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    shutil.rmtree(ROOT / "docs" / "api" / "generated", ignore_errors=True)  # of an earlier build
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site):
    return {
        path: Page(path) for path in sorted(site.rglob("*.html")) if "_static" not in path.parts
    }


def is_afar(address):
    return bool(urlsplit(address).scheme or urlsplit(address).netloc)


def broken(site, pages, path, address):
    """Why an address on a page leads nowhere; '' where it leads somewhere."""
    parts = urlsplit(address)
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.is_relative_to(site.resolve()) or not target.is_file():
        return f"{path.relative_to(site)}: {address} is missing"
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].ids:
        return f"{path.relative_to(site)}: {address} has no such anchor"
    return ""


def test_make_builds_it_the_same_way():
    assert f"$(PY) {SPHINX} build/doctrees . build/site" in (ROOT / "Makefile").read_text()


def test_links_and_anchors_lead_somewhere(site, pages):
    local = [(p, link) for p, page in pages.items() for link in page.links if not is_afar(link)]
    assert len(local) > 1000
    assert [why for p, link in local if (why := broken(site, pages, p, link))] == []


def test_each_term_of_the_glossary_can_be_linked_to_and_the_notebooks_link_to_no_other(site, pages):
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^- \*\*(.+?)\*\*:", text, re.MULTILINE)
    anchors = {web_pages.term_anchor(term) for term in terms}
    assert len(anchors) == len(terms) >= 60
    assert anchors <= pages[site / "docs" / "glossary.html"].ids
    headings = {web_pages.term_anchor(h) for h in re.findall(r"^## (.+)$", text, re.MULTILINE)}
    for name in NOTEBOOKS:
        notebook = (ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
        linked = set(re.findall(r"glossary\.md#([^)\s]+)\)", notebook))
        assert linked <= anchors | headings, name


def test_pictures_are_there_and_have_a_text(site, pages):
    shown = [(path, *picture) for path, page in pages.items() for picture in page.pictures]
    assert [broken(site, pages, path, source) for path, source, _ in shown if is_afar(source)] == []
    assert [why for path, source, _ in shown if (why := broken(site, pages, path, source))] == []
    short = [(path.stem, source) for path, source, text in shown if len(text) < 20]
    assert len(shown) > 40 and short == []
    for name in NOTEBOOKS:
        stored = (ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
        page = pages[site / "notebooks" / f"{name}.html"]
        assert len(page.pictures) == stored.count('"image/png":'), name


def test_every_page_is_there(site, pages):
    expected = [f"notebooks/{name}" for name in NOTEBOOKS] + [str(path) for path in TEXTS]
    expected += [f"docs/api/generated/{name}" for name in HELPERS]
    expected += ["index", "CONTRIBUTING", "CHANGELOG", "benchmarks/README", "search", "genindex"]
    assert [name for name in expected if site / f"{name}.html" not in pages] == []
    assert site / "README.html" not in pages
    assert "url=docs/index.html" in pages[site / "index.html"].text


def test_the_first_page_is_the_readme(site, pages):
    first = pages[site / "docs" / "index.html"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    headings = {web_pages.term_anchor(h) for h in re.findall(r"^## (.+)$", readme, re.MULTILINE)}
    assert headings and headings <= first.ids
    assert "../notebooks/06_your_data_and_paper_scale.html" in first.links


def test_a_link_to_a_term_says_what_it_means(site, pages):
    text = pages[site / "notebooks" / "06_your_data_and_paper_scale.html"].text
    assert re.search(r'title="the weights of a network on disk;[^"]+"', text)


def test_docstrings_are_shown(site, pages):
    page = pages[site / "docs" / "api" / "generated" / "cxr_helpers.detection.froc.html"]
    assert "cxr_helpers.detection.froc.sensitivity_at" in page.ids
    assert "Share of all truth boxes found" in page.text
    course = pages[site / "docs" / "api" / "course.html"]
    assert {
        f"cxr_helpers.course.exercises.{f}" for f in ("check", "hint", "solution")
    } <= course.ids


def test_nothing_is_loaded_from_afar_or_names_the_machine(pages):
    loaded = {address for page in pages.values() for address in page.loaded}
    loaded |= {source for page in pages.values() for source, _ in page.pictures}
    assert len(loaded) > 40 and [address for address in loaded if is_afar(address)] == []
    assert [path.stem for path, page in pages.items() if str(ROOT) in page.text] == []


def test_headings_are_in_order(site, pages):
    for path, page in pages.items():
        if path.parent == site or "_modules" in path.parts:
            continue
        assert page.levels.count(1) == 1 == page.levels[0], path
        steps = [b - a for a, b in zip(page.levels, page.levels[1:], strict=False)]
        assert max(steps, default=0) <= 1, path


def test_search_knows_pages_and_words(site):
    text = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(re.fullmatch(r"Search\.setIndex\((.*)\);?\s*", text, re.DOTALL)[1])
    assert {f"notebooks/{name}" for name in NOTEBOOKS} <= set(index["docnames"])
    assert {"effus", "redund", "atelectasi"} <= set(index["terms"])


def markdown(text):
    return {"cell_type": "markdown", "source": text}


PICTURE = {"cell_type": "code", "source": "plot()", "metadata": {}}
PICTURE |= {"outputs": [{"data": {"image/png": "AA"}}]}


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ("Look up.", "Why? The *top* is\nbright. So it is. More.", "The top is bright. So it is."),
        ("Two points.", "What next?", "Two points."),
        ("Look.\n\nAt the `top`.", "## Next part\n\nOther things.", "At the top."),
        ("Look.", "| a | b |\n|---|---|\n\nTwo of $c_i$ are large", "Two of c_i are large"),
    ],
)
def test_a_figure_is_described_by_the_prose_beside_it(before, after, text):
    cells = [markdown("# Title"), markdown(before), dict(PICTURE, metadata={}), markdown(after)]
    web_pages.describe_pictures({"cells": cells}, name="x")
    assert cells[2]["metadata"]["mystnb"] == {"image": {"alt": f"Figure: {text}"}}


def test_a_figure_without_prose_is_an_error():
    cells = [markdown("Far away."), markdown("## Part"), PICTURE, markdown("## Next")]
    with pytest.raises(web_pages.SiteError, match=r"x: no sentence .* ends 'plot\(\)'"):
        web_pages.describe_pictures({"cells": cells}, name="x")


def test_formulas_become_mathml():
    below = web_pages.mathml(r"\underbrace{a^2}_{\text{square}} < \log b", block=True)
    assert re.search(r"<munder>\s*<munder>.*</munder>\s*<mtext>square</mtext>", below, re.DOTALL)
    assert 'display="block"' in below and "&lt;" in below and "msub" not in below
    with pytest.raises(web_pages.SiteError, match=r"nosuch.* cannot be shown as MathML"):
        web_pages.mathml(r"\nosuch{a}", block=False)
