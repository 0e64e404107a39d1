"""A CSV table of a download as text, or a message that says what is wrong with which line.

From cxr-helpers 0.2.0 (MIT license).
Needs: pandas.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

NOTHING = ("", "na", "n/a", "nan", "null", "none", "<na>")  # as R, SQL and pandas write it
_SEPARATORS = (";", "\t", "|")


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the file's text, unpacked if gzipped, or say what it is instead.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "table.csv.gz")
    ...     _ = path.write_bytes(gzip.compress(b"image,age"))
    ...     read_text(path)
    'image,age'
    """
    try:
        data = Path(path).read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; is it a part of the download?") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: the gzip file is damaged; download it again") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check its rights") from error
    if not data.strip():
        raise ValueError(f"{path}: the file is empty; download it again")
    if data.startswith(b"PK\x03\x04"):
        raise ValueError(f"{path}: a zip archive (or a spreadsheet); unpack it, or save as CSV")
    if data.lstrip()[:1] == b"<":
        raise ValueError(f"{path}: a web page was saved instead of the table; download it again")
    if b"\x00" in data:
        raise ValueError(f"{path}: no UTF-8 text (zero bytes in it); save the table as UTF-8 CSV")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: no UTF-8; save the table as UTF-8 CSV") from None


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    r"""Read a CSV file.

    Args:
        path: .csv or .csv.gz.

    Returns:
        All columns as stripped text, indexed by the line of the file. Empty names at the header's
        end, as NIH's tables have them, are left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no table; the message names file, line and remedy.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "table.csv")
    ...     _ = path.write_text("image, age\na.png, 58")
    ...     read_table(path).to_dict()
    {'image': {2: 'a.png'}, 'age': {2: '58'}}
    """
    lines, rows = [], []
    reader = csv.reader(io.StringIO(read_text(path)), strict=True)
    try:
        for row in reader:
            if len(row) > 1 or row and row[0].strip():  # no blank line
                lines.append(reader.line_num)
                rows.append([value.strip() for value in row])
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not CSV ({error})") from error
    header, rows, lines = rows[0] if rows else [""], rows[1:], lines[1:]
    while len(header) > 1 and not header[-1]:
        header.pop()
    if other := next((s for s in _SEPARATORS if s in header[0]), None):
        raise ValueError(f"{path}: columns are separated by {other!r}; save the table with ','")
    names = [name.casefold() for name in header if name]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: a column name occurs twice in {', '.join(header)}")
    for line, row in zip(lines, rows, strict=True):
        if len(row) < len(header) or any(row[len(header) :]):
            raise ValueError(
                f"{path}, line {line}: {len(row)} fields where the header has {len(header)}; "
                "the file is cut or edited, download it again"
            )
    if not rows:
        raise ValueError(f"{path}: a header without rows; download it again")
    rows = [row[: len(header)] for row in rows]
    return pd.DataFrame(rows, index=pd.Index(lines, name="line"), columns=header, dtype=str)


def row_error(
    path: str | os.PathLike[str], table: pd.DataFrame, rows: Iterable[int], column: str, wanted: str
) -> ValueError:
    """Describe the first of the bad rows, counted from 0, and how many there are.

    >>> table = pd.DataFrame({"age": ["58", "old"]}, index=[2, 3])
    >>> print(row_error("table.csv", table, [1], "age", "whole years"))
    table.csv, line 3: age is 'old', expected whole years; mend or delete the row, or download the
    table again
    """
    rows = [int(row) for row in rows]
    line, value = table.index[rows[0]], table[column].iloc[rows[0]]
    more = f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else ""
    return ValueError(
        f"{path}, line {line}: {column} is {value!r}, expected {wanted}{more}; "
        "mend or delete the row, or download the table again"
    )


def hint(name: object, known: Iterable[str]) -> str:
    """Name the known one that is spelled most like this one, or all of them.

    >>> hint("Edma", ["Edema", "Mass"])
    "; did you mean 'Edema'?"
    """
    known = list(known)
    spelled = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(str(name).strip().casefold(), spelled, n=1)
    return f"; did you mean {spelled[close[0]]!r}?" if close else f"; they are {', '.join(known)}"


def is_folder(path: Path) -> bool:
    """Tell whether this is a folder; what cannot be asked is none.

    >>> is_folder(Path()), is_folder(Path("no such folder"))
    (True, False)
    """
    try:
        return path.is_dir()
    except OSError:
        return False


def list_files(folder: Path) -> list[Path]:
    """List what lies in a folder and is not hidden.

    Raises:
        ValueError: it cannot be listed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("a.png", ".hidden"):
    ...         Path(folder, name).touch()
    ...     [path.name for path in list_files(Path(folder))]
    ['a.png']
    """
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise ValueError(
            f"{folder}: cannot be listed ({error.strerror}); check its rights"
        ) from error
