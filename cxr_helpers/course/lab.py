"""JupyterLab as a classroom: open the first notebook, with the table of contents beside it.

    python -m cxr_helpers.course.lab [options of JupyterLab]

The settings come from docs/lab/overrides.json, the first layout from docs/lab/workspace.json. What
a learner changes is kept in build/lab. The user's own settings and layouts are neither read nor
changed.
"""

import os
import sys
from pathlib import Path

from jupyterlab.labapp import LabApp
from jupyterlab_server.workspaces_handler import WorkspacesManager

from cxr_helpers.course.core.settings import SettingsError, project_root

FIRST = "notebooks/00_start_here.ipynb"


def lab_options(project: Path, state: Path) -> list[str]:
    """JupyterLab's options: what it shows, which settings it takes, where it keeps changes.

    Args:
        project: the course's folder.
        state: the folder for what a learner changes.
    """
    options = {
        "ServerApp.root_dir": project,
        "ServerApp.log_level": "WARN",
        "KernelManager.transport_encryption": "auto",
        "LabApp.default_url": f"/lab/tree/{FIRST}",
        "LabApp.app_settings_dir": project / "docs" / "lab",
        "LabApp.user_settings_dir": state / "settings",
        "LabApp.workspaces_dir": state / "workspaces",
        "LabApp.news_url": None,
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }
    # JupyterLab refuses to run as root unless told that this is meant.
    as_root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    return as_root + [f"--{name}={value}" for name, value in options.items()]


def place_layout(project: Path, state: Path) -> None:
    """Save the course's first layout as the last one of JupyterLab, unless there is a last one."""
    layouts = WorkspacesManager(str(state / "workspaces"))
    if not layouts.list_workspaces():
        text = (project / "docs" / "lab" / "workspace.json").read_text(encoding="utf-8")
        layouts.save("default", text)


def main(arguments: list[str] | None = None) -> None:
    """Start JupyterLab; it stops with Ctrl-C."""
    try:
        project = project_root()
    except SettingsError as error:
        sys.exit(str(error))
    state = project / "build" / "lab"
    place_layout(project, state)
    print("JupyterLab prints its address below; stop it with Ctrl-C.", flush=True)
    given = sys.argv[1:] if arguments is None else arguments
    LabApp.launch_instance([*lab_options(project, state), *given])


if __name__ == "__main__":
    main()
