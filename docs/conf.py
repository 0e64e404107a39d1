"""Sphinx settings of the site: `make site` builds it into build/site, offline.

The project's root is the source folder, so that links between notebooks, README and docs/ are the
same here and in the repository. Notebooks are shown with their stored outputs, never executed.
"""

from pathlib import Path

from cxr_helpers import __version__
from tools.anywhere import repository_address

project = "Self-supervised learning for chest radiographs"
author = "The cxr-helpers authors"
project_copyright = f"{author}, MIT license"
release = __version__
language = "en"

root_doc = "docs/index"
include_patterns = ["CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"]
include_patterns += ["notebooks/*.ipynb", "docs/**"]
exclude_patterns = [".*", "build", "data", "runs", "*.egg-info", "cxr_helpers", "tests"]
exclude_patterns += ["notebooks/source", "**/.ipynb_checkpoints", "docs/_templates", "docs/lab"]
# Absolute, because autosummary looks below the source folder and Sphinx below this one.
templates_path = [str(Path(__file__).parent / "_templates")]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "tools.web_pages",
]

nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_typehints_format = "short"
# Defaults as they are written: a value may hold a path of this machine, or its whole environment.
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
# What a room's `__init__` offers is shown there; its source is linked to from its own file's page.
viewcode_follow_imported_members = False
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = ["Source", "Needs"]
# In the docstrings `name` is code, as in Markdown.
default_role = "code"
# Cross-references must resolve inside this package; no other project's pages are at hand offline.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!cxr_helpers\b).*")]

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_additional_pages = {"index": "to_first_page.html"}
html_domain_indices = False
html_show_sphinx = False
html_math_renderer = "mathml"
html_theme_options = {
    "navbar_persistent": [],  # the search stands in the side bar
    "primary_sidebar_end": [],
    "use_download_button": True,
    "show_toc_level": 2,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
if repository_address():
    html_theme_options |= {"repository_url": repository_address(), "use_repository_button": True}
