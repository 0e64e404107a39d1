"""The ledger: each setting and claim of the paper beside what the published code and the course do.

`docs/ledger.toml` holds it. What the course uses is read from the preset `paper` and from results
files, so that it cannot go stale.

    python -m cxr_helpers.course.ledger            # with the results of this machine
    python -m cxr_helpers.course.ledger --write    # docs/ledger.md, without them
"""

import argparse
import math
import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from cxr_helpers.course.results import read_results
from cxr_helpers.course.settings import PRESETS, SettingsError, load_settings, project_root

SOURCE, RENDERED = Path("docs", "ledger.toml"), Path("docs", "ledger.md")
NOT_KNOWN, SAME = "not known", ""
KINDS = {"preset", "product", "result", "text"}
ROW_KEYS = {"part", "what", "paper", "code", "ours", "why", "command"}
POINT_KEYS = {"number", "theirs", "ours", "link", "at"}
HEAD = """# The ledger

Each setting and claim of BarlowTwins-CXR: what the paper says, what its published code does, what
this course does at the paper's scale, and why that differs. Made from [ledger.toml](ledger.toml)
by `python -m cxr_helpers.course.ledger --write`; without `--write` it shows the figures that were
measured on your machine, too.

'Not known' means that this course does not know it: its authors had the published code and the
paper's main claim, not the tables of its text. It does not mean that the paper is silent. A '-'
under 'code' marks a result: code holds settings, not results.
"""


class LedgerError(ValueError):
    """The ledger's file has a row that cannot be shown."""


def read_ledger(path: Path) -> dict[str, list[dict]]:
    """The ledger's rows and the protocol's points.

    Returns:
        `row` and `point`, each a list of dicts with the keys that the file's head explains.

    Raises:
        LedgerError: a row lacks a key or has one that is not known; the text names the row.
    """
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    for row in content["row"]:
        ours = row.get("ours", {})
        odd = row.keys() - ROW_KEYS
        if odd or not {"part", "what", "ours", "command"} <= row.keys():
            raise LedgerError(f"{path}: row {row.get('what')!r} lacks a key or has {sorted(odd)}")
        if len(ours) != 1 or not ours.keys() <= KINDS:
            raise LedgerError(f"{path}: row {row['what']!r}: `ours` is one of {sorted(KINDS)}")
    for point in content["point"]:
        if point.keys() != POINT_KEYS:
            raise LedgerError(f"{path}: point {point.get('number')} needs {sorted(POINT_KEYS)}")
    return content


def preset_value(name: str) -> object:
    """A field of the preset `paper`, for instance `pretrain.epochs`.

    >>> preset_value("pretrain.epochs")
    600

    Raises:
        LedgerError: there is no such field.
    """
    stage, _, field = name.partition(".")
    try:
        return getattr(PRESETS["paper"][stage], field)
    except (KeyError, AttributeError) as error:
        raise LedgerError(f"the preset `paper` has no {name!r}") from error


def own_value(ours: Mapping[str, object]) -> object:
    """What a row says of the course, where that is a setting: a preset's value or a product."""
    if "preset" in ours:
        value = preset_value(ours["preset"])
        return list(value) if isinstance(value, tuple) else value
    return round(math.prod(preset_value(name) for name in ours["product"]), 9)


def measured(results: Mapping[str, dict], path: list[str]) -> str:
    """A figure of a results file as text, with the data and the scale it was measured at.

    Args:
        results: content of the results files by name.
        path: name of the file, then keys of its metrics.

    >>> told = {"metrics": {"gain": {"value": 0.02, "low": -0.01, "high": 0.05}}}
    >>> told["settings"] = {"data": "demo", "scale": "demo"}
    >>> measured({"03_x": told}, ["03_x", "gain"])
    '0.020 (-0.010 to 0.050); data demo, scale demo'
    >>> measured({}, ["03_x", "gain"])
    'not measured here yet'
    """
    name, *keys = path
    value = results.get(name, {}).get("metrics")
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    if value is None:
        return "not measured here yet"
    settings = results[name]["settings"]
    where = f"data {settings['data']}, scale {settings['scale']}"
    if isinstance(value, Mapping):
        value = f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
    elif isinstance(value, float):
        value = f"{value:.4g}"
    return f"{value}; {where}"


def ledger_table(ledger: Mapping, results: Mapping[str, dict] | None = None) -> pd.DataFrame:
    """The ledger as a table.

    Args:
        ledger: as `read_ledger` gives it.
        results: content of the results files by name; None leaves out what is measured.

    Returns:
        Columns part, what, paper, code, ours, why, command, all text.
    """
    rows = []
    for row in ledger["row"]:
        ours = row["ours"]
        if "text" in ours:
            own = ours["text"]
        elif "result" in ours:
            own = "measured: run the command"
            own = own if results is None else measured(results, ours["result"])
        else:
            own = _text(own_value(ours))
        shown = {"part": row["part"], "what": row["what"]}
        shown |= {key: _text(row.get(key, NOT_KNOWN)) for key in ("paper", "code")}
        rows.append(shown | {"ours": own, "why": row.get("why", SAME), "command": row["command"]})
    return pd.DataFrame(rows)


def points_table(ledger: Mapping, *, base: str | None = "..") -> pd.DataFrame:
    """The protocol's points as a table.

    Args:
        ledger: as `read_ledger` gives it.
        base: from where the table is shown to the repository's root, for its links; None gives
            words, for an output that is shown in several places.

    Returns:
        Columns point, published code, here, shown in.
    """
    return pd.DataFrame(
        {
            "point": point["number"],
            "published code": point["theirs"],
            "here": point["ours"],
            "shown in": _place(point, base),
        }
        for point in ledger["point"]
    )


def _place(point: Mapping, base: str | None) -> str:
    path = Path(point["link"])
    if base is not None:
        return f"[{path.name}]({base}/{_address(point)})"
    if path.suffix == ".ipynb":
        return f"{path.stem}: {point['at']}"
    return f"the code, {path.name}: search for '{point['at']}'"


def _address(point: Mapping) -> str:
    anchor = f"#{point['at'].replace(' ', '-')}" if point["link"].endswith(".ipynb") else ""
    return point["link"] + anchor


def _text(value: object) -> str:
    """A value as the ledger shows it.

    >>> _text([0.01, 1.0]), _text(1e-06), _text(0.0051), _text("lars")
    ('0.01, 1', '1e-06', '0.0051', 'lars')
    """
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown."""
    lines = [table.columns.tolist(), ["---"] * table.shape[1], *table.values.tolist()]
    cells = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def render(ledger: Mapping, results: Mapping[str, dict] | None = None) -> str:
    """The whole ledger as Markdown: a table for each part, then the protocol's points."""
    table = ledger_table(ledger, results)
    parts = [HEAD]
    for part, rows in table.groupby("part", sort=False):
        rows = rows.drop(columns="part").assign(command="`" + rows["command"] + "`")
        parts.append(f"## {part}\n\n{markdown(rows)}\n")
    points = markdown(points_table(ledger))
    parts.append(f"## What in the published protocol is worth teaching\n\n{points}\n")
    return "\n".join(parts)


def main(arguments: list[str] | None = None) -> int:
    """Show the ledger, or write docs/ledger.md; 1 where a file cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m cxr_helpers.course.ledger", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--write", action="store_true", help=f"write {RENDERED.as_posix()}")
    options = parser.parse_args(arguments)
    try:
        ledger = read_ledger(project_root() / SOURCE)
        if not options.write:
            print(render(ledger, read_results(load_settings().runs / "results")))
            return 0
    except (ValueError, SettingsError) as error:
        print(error, file=sys.stderr)
        return 1
    path = project_root() / RENDERED
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(render(ledger), encoding="utf-8")
    os.replace(temporary, path)
    print(f"{RENDERED.as_posix()} is up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
