"""Start the course where nothing is installed: the public address, Binder, Colab.

The address is the line `repository-code:` of CITATION.cff, and nowhere else.
"""

import re
from pathlib import Path

from cxr_helpers.course.settings import project_root


def repository_address(project: Path | None = None) -> str:
    """The repository's public address, without a slash at its end; '' where it has none yet."""
    path = (project or project_root()) / "CITATION.cff"
    match = re.search(
        r"^repository-code: *[\"']?([^\s\"']+)", path.read_text("utf-8"), re.MULTILINE
    )
    return match[1].rstrip("/") if match else ""
