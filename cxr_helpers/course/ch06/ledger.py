"""The ledger: the paper's claims, and each setting of its published code beside the course's.

`docs/ledger.toml` holds it. What the course uses is read from the preset `paper` and from results
files, so that it cannot go stale.

    python -m cxr_helpers.course.ch06.ledger            # with the results of this machine
    python -m cxr_helpers.course.ch06.ledger --write    # docs/ledger.md, without them
"""

import argparse
import math
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from cxr_helpers.course.core.files import write_text
from cxr_helpers.course.core.results import read_results
from cxr_helpers.course.core.settings import PRESETS, SettingsError, load_settings, project_root

SOURCE, RENDERED = Path("docs", "ledger.toml"), Path("docs", "ledger.md")
NOT_KNOWN, SAME = "not known", ""
TO_MEASURE, NOT_MEASURED = "measured: run the command", "not measured here yet"
KINDS = {"preset", "product", "result", "text"}
# The keys that an entry must have, and those that it may have.
KEYS = {
    "claim": ({"what", "paper", "ours"}, set()),
    "row": ({"part", "what", "ours", "command"}, {"code", "why"}),
    "point": ({"number", "theirs", "ours", "link", "at"}, set()),
}
HEAD = """# The ledger

First what the paper (BarlowTwins-CXR) claims in its abstract, then each setting: what the paper's
published code does, what this course does at the paper's scale, and why that differs. Made from
[ledger.toml](ledger.toml) by `python -m cxr_helpers.course.ch06.ledger --write`; without `--write`
it shows the figures that were measured on your machine, too.

The code is the repository [haooyuee/BarlowTwins-CXR](https://github.com/haooyuee/BarlowTwins-CXR).
Code can be read line by line, so its column is nearly full. Whether the paper's text says the same
is for you to look up: this course has its abstract, not the tables of its text. 'Not known' means
that this course does not know it, and a '-' under 'code' marks a result: code holds settings, not
results. The shares of images in points 1 and 2 were computed from NIH's own lists, which the course
does not bring; notebook 01 computes that of point 10.
"""


class LedgerError(ValueError):
    """The ledger's file has a row that cannot be shown."""


def read_ledger(path: Path) -> dict[str, list[dict]]:
    """The paper's claims, the ledger's rows and the protocol's points.

    Returns:
        `claim`, `row` and `point`, lists of dicts with the keys that the file's head explains.

    Raises:
        LedgerError: the file is no TOML, or an entry lacks a key or has one that is not known; the
            text names it.
    """
    try:
        content = tomllib.loads(Path(path).read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise LedgerError(f"{path} is no TOML: {error}") from error
    content = {kind: content.get(kind, []) for kind in KEYS}
    for kind, (needed, optional) in KEYS.items():
        for entry in content[kind]:
            name = f"{path}: {kind} {entry.get('what', entry.get('number'))!r}"
            missing, odd = needed - entry.keys(), entry.keys() - needed - optional
            if missing or odd:
                raise LedgerError(f"{name} lacks {sorted(missing)} and has {sorted(odd)} too many")
            ours = entry["ours"]
            if kind != "point" and not (
                isinstance(ours, dict) and len(ours) == 1 and ours.keys() <= KINDS
            ):
                raise LedgerError(f"{name}: `ours` is one of {sorted(KINDS)}")
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

    Raises:
        LedgerError: the keys lead to several figures instead of one.
    """
    name, *keys = path
    value = results.get(name, {}).get("metrics")
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    if value is None:
        return NOT_MEASURED
    settings = results[name]["settings"]
    where = f"data {settings['data']}, scale {settings['scale']}"
    if isinstance(value, Mapping):
        if not {"value", "low", "high"} <= value.keys():
            raise LedgerError(f"{' / '.join(path)} is no figure, but {sorted(value)}; name one")
        value = f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
    elif isinstance(value, float):
        value = f"{value:.4g}"
    return f"{value}; {where}"


def claims_table(ledger: Mapping, results: Mapping[str, dict] | None = None) -> pd.DataFrame:
    """What the paper claims, as a table.

    Args:
        ledger: as `read_ledger` gives it.
        results: content of the results files by name; None leaves out what is measured.

    Returns:
        Columns what, paper, here, all text.
    """
    return pd.DataFrame(
        {"what": claim["what"], "paper": claim["paper"], "here": _ours(claim["ours"], results)}
        for claim in ledger["claim"]
    )


def ledger_table(ledger: Mapping, results: Mapping[str, dict] | None = None) -> pd.DataFrame:
    """The published code beside the course, as a table.

    Args:
        ledger: as `read_ledger` gives it.
        results: content of the results files by name; None leaves out what is measured.

    Returns:
        Columns part, what, code, ours, why, command, all text.
    """
    return pd.DataFrame(
        {
            "part": row["part"],
            "what": row["what"],
            "code": _text(row.get("code", NOT_KNOWN)),
            "ours": _ours(row["ours"], results),
            "why": row.get("why", SAME),
            "command": row["command"],
        }
        for row in ledger["row"]
    )


def _ours(ours: Mapping[str, object], results: Mapping[str, dict] | None) -> str:
    """What an entry says of the course.

    >>> _ours({"text": "{pretrain.epochs} epochs"}, None)
    '600 epochs'
    """
    if "text" in ours:
        return re.sub(
            r"\{([\w.]+)\}", lambda name: _text(own_value({"preset": name[1]})), ours["text"]
        )
    if "result" in ours:
        return TO_MEASURE if results is None else measured(results, ours["result"])
    return _text(own_value(ours))


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
    path, at = Path(point["link"]), point["at"]
    in_notebook = path.suffix == ".ipynb"
    if base is None:
        return f"{path.stem}: {at}" if in_notebook else f"the code, {path.name}: search for '{at}'"
    anchor = f"#{at.replace(' ', '-')}" if in_notebook else ""
    return f"[{path.name}]({base}/{point['link']}{anchor})"


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
    """The whole ledger as Markdown: claims, a table for each part, then the protocol's points."""
    table = ledger_table(ledger, results)
    parts = [HEAD, f"## What the paper claims\n\n{markdown(claims_table(ledger, results))}\n"]
    for part, rows in table.groupby("part", sort=False):
        rows = rows.drop(columns="part").assign(command="`" + rows["command"] + "`")
        parts.append(f"## {part}\n\n{markdown(rows)}\n")
    points = markdown(points_table(ledger))
    parts.append(f"## What in the published protocol is worth teaching\n\n{points}\n")
    return "\n".join(parts)


def main(arguments: list[str] | None = None) -> int:
    """Show the ledger, or write docs/ledger.md; 1 where a file cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m cxr_helpers.course.ch06.ledger", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--write", action="store_true", help=f"write {RENDERED.as_posix()}")
    options = parser.parse_args(arguments)
    try:
        ledger = read_ledger(project_root() / SOURCE)
        if not options.write:
            print(render(ledger, read_results(load_settings().results)))
            return 0
    except (ValueError, SettingsError) as error:
        print(error, file=sys.stderr)
        return 1
    write_text(render(ledger), project_root() / RENDERED)
    print(f"{RENDERED.as_posix()} is up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
