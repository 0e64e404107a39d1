"""Which exercises are done, kept in `runs/exercises.json`, never in a notebook."""

import json
from pathlib import Path

from cxr_helpers.course.core.files import write_text
from cxr_helpers.course.core.settings import project_root

DONE, TRIED = "done", "tried"


def progress_path() -> Path:
    """The file that holds the progress; it may not exist yet."""
    return project_root() / "runs" / "exercises.json"


def read_progress(path: Path) -> dict[str, str]:
    """For each exercise that was tried: `tried` or `done`. Empty where there is no file.

    Raises:
        ValueError: the file is no such table; the text names it and says what to do.
    """
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        found = None
    if not isinstance(found, dict) or not set(map(str, found.values())) <= {DONE, TRIED}:
        raise ValueError(
            f"{path} does not hold the progress of exercises; move it elsewhere and go on"
        )
    return found


def record(number: str, state: str, path: Path) -> None:
    """Write down one exercise, the whole file or nothing. What is done stays done.

    Raises:
        ValueError: the file there is not readable as progress.
        OSError: the file cannot be written.
    """
    known = read_progress(path)
    if known.get(number) in (DONE, state):
        return
    write_text(json.dumps(known | {number: state}, indent=1) + "\n", path)
