"""Start the course where nothing is installed: its public address, Binder, Colab.

The address is the line `repository-code:` of CITATION.cff, and only there. What follows from it in
the README is made by `python -m tools.readme`.
"""

import re
from pathlib import Path
from urllib.parse import quote

from cxr_helpers.course.core.settings import project_root

FIRST = "notebooks/00_start_here.ipynb"
BRANCH = "main"
SETUP = """\
import importlib.util
import os
import subprocess
import sys

ADDRESS = "{address}"  # the course's repository; needed only where the course is not installed
if importlib.util.find_spec("cxr_helpers") is None:
    assert ADDRESS, "write the address of the course's repository into ADDRESS, then run again"
    pip = [sys.executable, "-m", "pip", "install", "-q", "-c", "cxr-course/constraints.txt"]
    subprocess.run(["git", "clone", "-q", "--depth", "1", ADDRESS, "cxr-course"], check=True)
    subprocess.run([*pip, "-e", "cxr-course[course]"], check=True)
    sys.path.insert(0, os.path.abspath("cxr-course"))"""


def repository_address(project: Path | None = None) -> str:
    """The repository's public address, without a slash at its end; '' where it has none yet."""
    text = ((project or project_root()) / "CITATION.cff").read_text(encoding="utf-8")
    match = re.search(r"^repository-code: *[\"']?([^\s\"']+)", text, re.MULTILINE)
    return match[1].rstrip("/") if match else ""


def setup_code(address: str) -> str:
    """The first cell of a notebook that may run where the course is not installed.

    It fetches and installs the course there, and does nothing where `cxr_helpers` is installed.
    """
    return SETUP.format(address=address)


def start_links(address: str) -> dict[str, str]:
    """Where Binder starts the course, and Colab too where its repository is on GitHub.

    >>> start_links("https://github.com/ann/cxr.git")["Colab"]
    'https://colab.research.google.com/github/ann/cxr/blob/main/notebooks/00_start_here.ipynb'
    >>> start_links("https://example.org/cxr").keys()
    dict_keys(['Binder'])
    """
    match = re.fullmatch(r"https://github\.com/([^/]+/[^/]+?)(\.git)?", address)
    place = f"gh/{match[1]}" if match else f"git/{quote(address, safe='')}"
    links = {"Binder": f"https://mybinder.org/v2/{place}/{BRANCH}?urlpath=lab/tree/{FIRST}"}
    if match:
        colab = "https://colab.research.google.com/github"
        links["Colab"] = f"{colab}/{match[1]}/blob/{BRANCH}/{FIRST}"
    return links


def badges(address: str) -> str:
    """The README's badges; '' where there is no address yet."""
    if not address:
        return ""
    return "\n".join(
        f"[![Open in {name}](docs/badges/{name.lower()}.svg)]({link})"
        for name, link in start_links(address).items()
    )
