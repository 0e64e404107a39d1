"""Files that are whole or not there: what the course writes takes its place when it is ready."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A place beside `path` to write to; when the block ends, that file becomes `path`.

    A kill, a full disk or an error leaves what was there before. The folder is made where it is
    missing. After an error nothing is left beside it; after a kill `.NAME.PID` may be.

    Args:
        path: of the file that is to be made or replaced.

    Raises:
        OSError: the file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole(Path(folder, "log.csv")) as unfinished:
    ...         size = unfinished.write_text("epoch,loss", encoding="utf-8")
    ...     [file.name for file in Path(folder).iterdir()]
    ['log.csv']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield unfinished
        with unfinished.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(text: str, path: str | os.PathLike[str]) -> Path:
    """Write text as UTF-8 with lines as given, the whole file or nothing, and return its path.

    Raises:
        OSError: the file cannot be written; what was there before is unchanged.
    """
    with whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="")
    return Path(path)
