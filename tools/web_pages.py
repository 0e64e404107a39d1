"""A small Sphinx extension for the course's site; docs/conf.py loads it, `make site` runs it.

What happens to a page before Sphinx reads it, or while it is written:

- The first page begins with the README; a link to the README leads to it.
- Figures in notebooks get a text for those who cannot see them, from the prose beside them.
- Links are put into the form that the site knows: a heading of a notebook is linked to in
  JupyterLab's spelling, a helper's file by its path.
- Formulas become MathML, which browsers show without a script and read aloud.
- Each term of the glossary gets an anchor, and a link to it shows its meaning under the pointer.
"""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from myst_parser.slugs import github_slugify

FIRST_PAGE, README = "docs/index", "<!-- README -->"
GLOSSARY = "docs/glossary"
MATHML = "http://www.w3.org/1998/Math/MathML"
README_LINK = re.compile(r"\]\((?:\.\./)+README\.md")
ROOT_LINK = re.compile(r"\]\((?![/#]|\w+:)")
TERM = re.compile(r"^- \*\*(.+?)\*\*: (.*?)(?=^- |^#|\Z)", re.MULTILINE | re.DOTALL)
HELPER = re.compile(r"\]\((?:\.\./)*cxr_helpers/(\w+)/(\w+)\.py\)")
NOTEBOOK_HEADING = re.compile(r"(\.ipynb)#([^\s)]+)\)")
BLOCKS = re.compile(r"\s*(#|\||```|\$\$|<|[-*] |\d+\. )")


class SiteError(ValueError):
    """A page cannot be shown as it is written; the message names page and place."""


def site_links(text: str) -> str:
    """Rewrite links of a page, in Markdown, for the site.

    >>> site_links("[traps](03_x.ipynb#Trap-1:-split-by-image)")
    '[traps](03_x.ipynb#trap-1-split-by-image)'
    >>> site_links("[file](../cxr_helpers/detection/froc.py)")
    '[file](/docs/api/generated/cxr_helpers.detection.froc.rst)'
    >>> site_links("[minutes](../README.md#the-notebooks)")
    '[minutes](/docs/index.md#the-notebooks)'
    """
    text = README_LINK.sub(f"](/{FIRST_PAGE}.md", text)
    text = NOTEBOOK_HEADING.sub(lambda m: f"{m[1]}#{github_slugify(m[2])})", text)
    return HELPER.sub(r"](/docs/api/generated/cxr_helpers.\1.\2.rst)", text)


def from_root(text: str) -> str:
    """A page of the root folder, in Markdown, as it can be shown in any other folder.

    >>> from_root("[words](docs/glossary.md), [afar](https://example.org), [here](#start)")
    '[words](/docs/glossary.md), [afar](https://example.org), [here](#start)'
    """
    return ROOT_LINK.sub("](/", text)


def plain_text(markdown: str) -> str:
    """Take the marks of emphasis, code, links and formulas out of one paragraph.

    >>> plain_text("See [the *map*](x.md): `w` is $w$.")
    'See the map: w is w.'
    """
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    return " ".join(re.sub(r"[`*$\\]", "", text).split())


def paragraphs(cell: dict) -> list[str]:
    """Prose of a Markdown cell by paragraph; headings, tables, lists, formulas are left out."""
    if cell["cell_type"] != "markdown":
        return []
    source = cell["source"]
    source = source if isinstance(source, str) else "".join(source)
    return [part for part in re.split(r"\n\s*\n", source) if part and not BLOCKS.match(part)]


def opens_part(cell: dict) -> bool:
    """Whether a cell is Markdown that begins with a heading."""
    return cell["cell_type"] == "markdown" and "".join(cell["source"]).lstrip().startswith("#")


def statements(paragraph: str) -> str:
    """The first two sentences of a paragraph that state something, in plain text.

    >>> statements("What is *that*? A map. It is sharp. It is old. Now the next:")
    'A map. It is sharp.'
    """
    sentences = re.split(r"(?<=[.!?])\s", plain_text(paragraph))
    return " ".join([text for text in sentences if text[-1:] not in ("?", ":")][:2])


def has_picture(cell: dict) -> bool:
    """Whether a cell's output holds a picture."""
    return any("image/png" in output.get("data", {}) for output in cell.get("outputs", ()))


def takeaway(cells: list[dict], index: int) -> str:
    """What the prose says about the figure of cell `index`, in plain text.

    That is said behind the figure. Where the next figure or part follows without a word, it is what
    stands before the figure.
    """
    for cell in cells[index + 1 :]:
        if opens_part(cell) or has_picture(cell):
            break
        if found := [text for part in paragraphs(cell) if (text := statements(part))]:
            return found[0]
    for cell in reversed(cells[:index]):
        if found := [text for part in paragraphs(cell) if (text := statements(part))]:
            return found[-1]
        if opens_part(cell):
            break
    return ""


def describe_pictures(notebook: dict, *, name: str) -> None:
    """Give each figure of a notebook, as JSON, its takeaway as alternative text; in place.

    Raises:
        SiteError: A figure has no prose beside it.
    """
    cells = notebook["cells"]
    for index, cell in enumerate(cells):
        if not has_picture(cell):
            continue
        text = takeaway(cells, index)
        if not text:
            last = "".join(cell["source"]).strip().splitlines()[-1]
            raise SiteError(f"{name}: no sentence beside the figure of the cell that ends {last!r}")
        cell["metadata"]["mystnb"] = {"image": {"alt": f"Figure: {text}"}}


def prepare_page(app, docname: str, source: list[str]) -> None:
    """Change a page's text when Sphinx has read it from its file."""
    if app.env.doc2path(docname).suffix != ".ipynb":
        if docname == FIRST_PAGE:
            readme = (Path(app.srcdir) / "README.md").read_text(encoding="utf-8")
            source[0] = source[0].replace(README, from_root(readme))
        source[0] = site_links(source[0])
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = site_links("".join(cell["source"]))
    describe_pictures(notebook, name=docname)
    source[0] = json.dumps(notebook)


def term_anchor(term: str) -> str:
    """The anchor of a glossary's term, made as those of headings are.

    >>> term_anchor("Base (of the lung)")
    'base-of-the-lung'
    """
    return github_slugify(term)


def name_terms(app, doctree: nodes.document) -> None:
    """Give each entry of the glossary, a list item that begins in bold, its term's anchor."""
    if app.env.docname != GLOSSARY:
        return
    slugs = app.env.metadata[GLOSSARY].setdefault("myst_slugs", {})
    for item in doctree.findall(nodes.list_item):
        term = next(item.findall(nodes.strong)).astext()
        anchor = term_anchor(term)
        item["ids"].append(anchor)
        slugs[anchor] = (item.line, anchor, term)


def meanings(text: str) -> dict[str, str]:
    r"""Of each term of the glossary, in Markdown, its anchor and its meaning in plain text.

    >>> meanings("## Words\n\n- **Base (of the lung)**: the *lower*\n  end.\n- **B**: b.\n")
    {'base-of-the-lung': 'the lower end.', 'b': 'b.'}
    """
    return {term_anchor(term): plain_text(meaning) for term, meaning in TERM.findall(text)}


def show_meanings(app, doctree: nodes.document, docname: str) -> None:
    """Let each link to a term of the glossary say what the term means."""
    known = meanings(app.env.doc2path(GLOSSARY).read_text(encoding="utf-8"))
    for link in doctree.findall(nodes.reference):
        page, _, anchor = link.get("refuri", "").partition("#")
        if anchor in known and page.endswith("glossary.html"):
            link["reftitle"] = known[anchor]


def mathml(formula: str, *, block: bool) -> str:
    """A TeX formula as MathML, in line or as a block.

    docutils puts the text of a brace beside it; here it is put below.

    Raises:
        SiteError: The formula is not TeX that docutils knows.
    """
    try:
        made = tex2mathml(formula, as_block=block)
    except MathError as error:
        raise SiteError(f"{formula!r} cannot be shown as MathML: {error}") from error
    # The one name in it that HTML knows and XML does not.
    root = ElementTree.fromstring(made.replace("&ApplyFunction;", "\N{FUNCTION APPLICATION}"))
    for node in root.iter(f"{{{MATHML}}}msub"):
        if node[0].tag == f"{{{MATHML}}}munder" and node[0][-1].text == "\N{BOTTOM CURLY BRACKET}":
            node.tag = node[0].tag
    ElementTree.register_namespace("", MATHML)
    return ElementTree.tostring(root, encoding="unicode")


def visit_math(translator, node: nodes.Element) -> None:
    """Write a formula, in a sentence or on its own line."""
    block = isinstance(node, nodes.math_block)
    formula = mathml(node.astext(), block=block)
    translator.body.append(f'<div class="formula">{formula}</div>' if block else formula)
    raise nodes.SkipNode


def setup(app) -> dict:
    """Tell Sphinx what this extension does."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    app.connect("source-read", prepare_page)
    app.connect("doctree-read", name_terms)
    app.connect("doctree-resolved", show_meanings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
