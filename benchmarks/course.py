"""Do the notebooks keep their minutes?

    rm -r runs/demo; make course; python benchmarks/course.py

Nothing runs here: it reads what the notebooks' last runs left in runs/demo/results. The aims are
those of two quiet cores, from an empty folder of runs. Status 1 where one is not kept.
benchmarks/README.md says what was measured.
"""

import sys
from collections.abc import Mapping

from cxr_helpers.course.core.results import read_results
from cxr_helpers.course.core.settings import load_settings

MINUTES = {"02": 5, "03": 4, "04": 6, "05": 2}
ALL, NOTEBOOKS = 16, ("00", "01", "02", "03", "04", "05", "06")


def verdicts(minutes: Mapping[str, float]) -> list[str]:
    """A line for each notebook with an aim, and one for all of them.

    Args:
        minutes: of each notebook that has run, by its number.
    """
    figures = {name: (minutes.get(name), most) for name, most in MINUTES.items()}
    whole = sum(minutes[name] for name in NOTEBOOKS) if minutes.keys() >= {*NOTEBOOKS} else None
    lines = []
    for name, (value, most) in (figures | {"all": (whole, ALL)}).items():
        if value is None:
            told = "NOT KEPT: it has not run here"
        else:
            told = f"{value:5.1f}  <= {most:<3} {'kept' if value <= most else 'NOT KEPT'}"
        lines.append(f"aim, minutes of {name:5} {told}")
    return lines


def main() -> int:
    """Print what the last runs took; 1 where an aim is not kept."""
    found = read_results(load_settings({}).results)
    lines = verdicts({name[:2]: one["seconds"] / 60 for name, one in found.items()})
    print("\n".join(lines))
    return int(any("NOT" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
