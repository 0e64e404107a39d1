"""What the README says was found: sentences made from the figures that come with the course.

Each is a paired difference with its 95% interval, read from notebooks/stored. First come up to
three whose interval leaves zero out, then all that are open. Where a table is not there yet, its
sentences are left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from cxr_helpers.course.core.settings import Settings
from cxr_helpers.course.core.stored import read_stored

SHOWN = 3
DETECTORS = {"truth": "readers", "classes": "all", "seed": "all"}
MADE = (
    "Each difference is taken on the same test patients or images for both, with its 95% interval "
    "over these, and over seeds where the file names several; macro is the mean over findings; "
    "the evening's network is one, whatever the seed. How each was measured: {links}. What is not "
    "said to be on real radiographs is on synthetic ones, and says nothing about patients."
)


@dataclass(frozen=True)
class Finding:
    """A difference that the README may show.

    Attributes:
        table: its name in notebooks/stored.
        arm: that is compared.
        minus: with this one.
        fraction: share of the labels or boxes.
        text: with `{arm}` and `{minus}` for the two scores.
        short: the same in a list, without scores, for an interval that covers zero.
    """

    table: str
    arm: str
    minus: str
    fraction: float
    text: str
    short: str


FINDINGS = (
    Finding(
        "label_curves", "evening", "random", 0.1,
        "**Few labels.** With a tenth of the labels a "
        "[linear probe](docs/glossary.md#linear-probe) reaches a macro "
        "[AUROC](docs/glossary.md#auroc) of {arm} on features that an evening's pretraining "
        "learned without any label (an hour or less of computing), and {minus} on those of "
        "random weights",
        "with a tenth of the labels, the evening's features against random weights",
    ),
    Finding(
        "label_curves", "evening", "pixels", 0.1,
        "**More than pixels.** With the same labels the gray values of a thumbnail, without any "
        "network, reach {minus}, the evening's features {arm}",
        "with a tenth of the labels, the evening's features against the gray values of a thumbnail",
    ),
    Finding(
        "detectors", "evening", "random", 0.3,
        "**Boxes.** With three tenths of the images and minutes of training a pretrained detector "
        "reaches a [mAP50](docs/glossary.md#map50) of {arm}, one trained from scratch {minus}",
        "with three tenths of the images, a pretrained detector against one from scratch (mAP50)",
    ),
    Finding(
        "detectors_long", "evening", "random", 1.0,
        "**More time.** With all images and a longer training a pretrained detector reaches a "
        "mAP50 of {arm}, one trained from scratch {minus}",
        "with all images and a longer training of detectors, the evening's weights against from "
        "scratch (mAP50, one training each)",
    ),
    Finding(
        "label_curves_real", "evening", "random", 1.0,
        "**Real radiographs.** On real ones of NIH ChestX-ray14 the evening's features, learned "
        "from synthetic ones alone, reach a macro AUROC of {arm}, those of random weights {minus}",
        "on real radiographs of NIH ChestX-ray14, the evening's features against random weights",
    ),
    Finding(
        "label_curves_real", "evening", "pixels", 1.0,
        "**A thumbnail.** On real radiographs the evening's features reach a macro AUROC of "
        "{arm}, the gray values of a thumbnail, without any network, {minus}",
        "on real radiographs, the evening's features against the gray values of a thumbnail",
    ),
    Finding(
        "label_curves_real", "pretrained", "random", 1.0,
        "**Minutes.** After minutes of pretraining instead of an evening the features reach a "
        "macro AUROC of {arm} on real radiographs, those of random weights {minus}",
        "on real radiographs, features of minutes of pretraining against random weights",
    ),
    Finding(
        "label_curves", "evening", "from scratch", 0.1,
        "**Without pretraining.** With a tenth of the labels a probe on the evening's features "
        "reaches a macro AUROC of {arm}, a network trained from scratch {minus}",
        "with a tenth of the labels of synthetic ones, the evening's features against training "
        "from scratch",
    ),
)  # fmt: skip


def sentence(finding: Finding, rows: pd.DataFrame) -> tuple[str, bool] | None:
    """A finding in words, the short ones where its interval covers zero, and whether it does not.

    None if it was not measured.

    Args:
        finding: to look for.
        rows: columns arm, minus, fraction, value, low, high, of its table.

    >>> columns = ["arm", "minus", "fraction", "value", "low", "high"]
    >>> lines = [["a", "", 1, 0.7, 0.6, 0.8], ["b", "", 1, 0.6, 0.5, 0.7]]
    >>> rows = pd.DataFrame([*lines, ["a", "b", 1, 0.1, -0.02, 0.2]], columns=columns)
    >>> sentence(Finding("t", "a", "b", 1.0, "{arm} and {minus}", "a against b"), rows)
    ('a against b: +0.100 (-0.020 to 0.200)', False)
    """
    at = rows[rows["fraction"] == finding.fraction].set_index(["arm", "minus"])
    keys = [(finding.arm, ""), (finding.minus, ""), (finding.arm, finding.minus)]
    if any(key not in at.index for key in keys):
        return None
    arm, minus, gain = (at.loc[key] for key in keys)
    text = finding.text.format(arm=f"{arm['value']:.3f}", minus=f"{minus['value']:.3f}")
    interval = f"{gain['low']:.3f} to {gain['high']:.3f}"
    clear = bool(gain["low"] > 0 or gain["high"] < 0)
    text = text if clear else finding.short
    return f"{text}: {gain['value']:+.3f} ({interval})", clear


def told(settings: Settings) -> Iterator[tuple[str, str, bool]]:
    """Of each finding that was measured its table, its sentence, and whether it is clear."""
    for finding in FINDINGS:
        stored = read_stored(finding.table, settings)
        if stored is None:
            continue
        rows = stored.table
        if "truth" in rows:
            rows = rows[(rows[list(DETECTORS)] == pd.Series(DETECTORS)).all(axis=1)]
        if said := sentence(finding, rows):
            yield finding.table, *said


def findings_text(settings: Settings) -> str:
    """The README's list of what was found; '' where nothing is stored."""
    found = list(told(settings))
    clear = [one for one in found if one[2]][:SHOWN]
    open_ones = [one for one in found if not one[2]]
    lines = [f"- {text}." for _, text, _ in clear]
    if open_ones:
        lines.append("- **Open**: the interval covers zero, so neither a gain nor a loss is shown.")
        lines += [f"  - {text[0].upper()}{text[1:]}." for _, text, _ in open_ones]
    if not lines:
        return ""
    tables = dict.fromkeys(table for table, _, _ in clear + open_ones)
    links = ", ".join(f"[{table}](notebooks/stored/{table}.json)" for table in tables)
    return "\n".join([*lines, "", MADE.format(links=links)])
