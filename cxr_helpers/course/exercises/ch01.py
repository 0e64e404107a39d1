"""Exercises of notebook 01: counting, trust in labels, boxes, gray values.

How to add one: the head of engine.py says it.
"""

from functools import cache

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cxr_helpers.course.core.tables import packaged_table
from cxr_helpers.course.exercises.engine import Exercise, arrays, judge_function
from cxr_helpers.course.exercises.figures import drawn_then, is_drawn, judge_figure, no_names
from cxr_helpers.data import nih


def single_image_share(patient_ids):
    """Share of the patients, not of the images, who have exactly one image."""
    images = pd.Series(patient_ids).value_counts()
    return (images == 1).mean()


def ppv_and_sensitivity(labeled, seen):
    """Positive predictive value and sensitivity of labels against what radiologists saw."""
    labeled, seen = np.asarray(labeled, bool), np.asarray(seen, bool)
    both = (labeled & seen).sum()
    return both / labeled.sum(), both / seen.sum()


def _specificity_first(labeled, seen):
    labeled, seen = np.asarray(labeled, bool), np.asarray(seen, bool)
    return (~labeled & ~seen).sum() / (~seen).sum(), (labeled & seen).sum() / seen.sum()


def iou(first, second):
    """Intersection over union of two boxes (x_min, y_min, x_max, y_max)."""
    width = max(0, min(first[2], second[2]) - max(first[0], second[0]))
    height = max(0, min(first[3], second[3]) - max(first[1], second[1]))
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (first, second)]
    return width * height / (sum(areas) - width * height)


def _iou(first, second, *, lowest=(0, 0), divide="union", wider=0):
    sides = [min(first[i + 2], second[i + 2]) - max(first[i], second[i]) + wider for i in (0, 1)]
    shared = max(lowest[0], sides[0]) * max(lowest[1], sides[1])
    areas = [(b[2] - b[0] + wider) * (b[3] - b[1] + wider) for b in (first, second)]
    below = {"union": sum(areas) - shared, "sum": sum(areas), "smaller": min(areas)}
    return shared / below[divide]


def to_gray(stored, center, width, monochrome1):
    """Window stored values into 0 (dark) to 1 (bright); MONOCHROME1 is turned around."""
    gray = np.clip((stored - (center - width / 2)) / width, 0, 1)
    return 1 - gray if monochrome1 else gray


def _to_gray(stored, center, width, monochrome1, *, clip=True, turn=True):
    gray = (stored - (center - width / 2)) / width
    gray = np.clip(gray, 0, 1) if clip else gray
    return 1 - gray if monochrome1 and turn else gray


def ap_by_decade(axis, entries):
    """Percent of AP views in each decade of age, up to 89 years."""
    known = entries[entries["age"] < 90]
    percent = 100 * (known["view"] == "AP").groupby(known["age"] // 10).mean()
    axis.bar(percent.index * 10, percent, width=8, align="edge")
    axis.set(xlabel="age (years)", ylabel="AP views (%)")


def _shares(entries):
    """Share of AP views in each decade, and share of each decade among the AP views."""
    known = entries[entries["age"] < 90]
    is_ap, decade = known["view"] == "AP", known["age"] // 10
    of_ap = decade[is_ap].value_counts(normalize=True).sort_index()
    return is_ap.groupby(decade).mean(), of_ap


def _as_fraction(axis, entries):
    axis.plot(_shares(entries)[0])


def _turned(axis, entries):
    axis.plot(100 * _shares(entries)[1])


@cache
def _entries() -> pd.DataFrame:
    return nih.read_entries(packaged_table("nih_entries"))[["age", "view"]]


def _problem(axis: Axes) -> str | None:
    share, of_ap = _shares(_entries())
    if is_drawn(axis, 100 * share):
        return None
    if is_drawn(axis, share):
        return FRACTION
    return TURNED if is_drawn(axis, of_ap) or is_drawn(axis, 100 * of_ap) else NINE_BARS


FRACTION = "These are shares from 0 to 1; draw them in percent."
TURNED = "This is the age of the AP views. Asked is: of the images of an age, how many are AP?"
NINE_BARS = "Nine values are asked for, one a decade from 0-9 to 80-89, in percent of its images."

EXERCISES = (
    Exercise(
        number="1.1",
        title="a fourth row",
        minutes=2,
        reference=0.5,
        mistakes=(
            (1 / 3, "That is the prevalence before. The new image has edema: count it."),
            (2 / 3, "Two images have edema. But there are now four images, not three."),
            (50, "Right in percent; give it as a share from 0 to 1."),
            (2, "That is the number of images with edema. Divide by all images."),
        ),
        hints=(
            "How many images are there now?",
            "How many of them have edema?",
            "Divide: 2 / 4",
        ),
        why="Two of four images have edema. The prevalence is a mean over all images.",
    ),
    Exercise(
        number="1.2",
        title="patients with one image",
        minutes=5,
        reference=single_image_share,
        mistakes=(
            (
                lambda ids: (pd.Series(ids).value_counts() == 1).sum() / len(ids),
                "That is a share of the images. Divide by the patients.",
            ),
            (
                lambda ids: (pd.Series(ids).value_counts() == 1).sum(),
                "That is how many patients they are. Divide by the number of patients.",
            ),
            (lambda ids: 100 * single_image_share(ids), "Right in percent; give a share, 0 to 1."),
        ),
        hints=(
            "First count the images of each patient.",
            "pd.Series(patient_ids).value_counts() has one row a patient.",
            "The mean of a column of True and False is the share of True.",
        ),
        why="Patients and images are different units; a share needs to say of which.",
        judge=judge_function(
            [(pd.Series(ids),) for ids in ([1, 1, 1, 2, 3], [5], [7, 7, 8, 8, 9], [4, 1, 4, 2, 6])]
        ),
    ),
    Exercise(
        number="1.3",
        title="how far to trust a label",
        minutes=10,
        reference=ppv_and_sensitivity,
        mistakes=(
            (
                lambda a, b: ppv_and_sensitivity(a, b)[::-1],
                "These two are swapped: PPV divides by what was labeled.",
            ),
            (
                _specificity_first,
                "The first is the specificity: it counts images without the finding.",
            ),
            (
                lambda a, b: ((np.asarray(a) == np.asarray(b)).mean(),) * 2,
                "That is the accuracy. The many images with neither hide the rest.",
            ),
        ),
        hints=(
            "Both have the same numerator: images that are labeled and on which it was seen.",
            "PPV divides by the labeled images, sensitivity by those on which it was seen.",
            "both = (labeled & seen).sum(); return both / labeled.sum(), both / seen.sum()",
        ),
        why="One count, two denominators. The images with neither enter in none of the two.",
        judge=judge_function(
            [
                (np.array([1, 1, 0, 0, 0], bool), np.array([1, 0, 1, 1, 0], bool)),
                (np.array([1, 0, 0, 0], bool), np.array([1, 0, 0, 0], bool)),
                (np.array([1, 1, 1, 0, 0, 0], bool), np.array([1, 0, 0, 0, 1, 0], bool)),
            ]
        ),
    ),
    Exercise(
        number="1.4",
        title="IoU",
        minutes=15,
        reference=iou,
        mistakes=(
            (
                lambda a, b: _iou(a, b, divide="sum"),
                "The shared area counts twice in the sum of both areas: take it off once.",
            ),
            (
                lambda a, b: _iou(a, b, divide="smaller"),
                "Divided by the smaller box, a dot inside a large box would score 1.",
            ),
            (
                lambda a, b: _iou(a, b, lowest=(-np.inf, -np.inf)),
                "Right where the boxes touch. Apart, width and height are negative: cut at 0.",
            ),
            (
                lambda a, b: _iou(a, b, lowest=(0, -np.inf)),
                "Of two boxes one above the other the shared height is negative: cut it at 0 too.",
            ),
            (
                lambda a, b: _iou(a, b, lowest=(-np.inf, 0)),
                "Of two boxes side by side the shared width is negative: cut it at 0 too.",
            ),
            (
                lambda a, b: _iou(a, b, wider=1),
                "You add 1 to each side, as for numbers of pixels. Here x_max is an edge.",
            ),
        ),
        hints=(
            "The shared box begins at the larger of the two x_min.",
            "It ends at the smaller of the two x_max. If that is before its begin, it is empty.",
            "width = max(0, min(x_max of both) - max(x_min of both)); the same for the height",
        ),
        why="Boxes that lie apart, in one direction or in both, are what most first versions miss.",
        judge=judge_function(
            [
                arrays([0, 0, 10, 10], [5, 0, 15, 10]),
                arrays([2, 2, 6, 6], [0, 0, 10, 10]),
                arrays([0, 0, 10, 10], [20, 20, 30, 30]),
                arrays([0, 0, 10, 10], [2, 14, 8, 20]),
                arrays([12.5, 3, 20, 6], [0, 0, 10, 10]),
                arrays([-4, -2, 6, 8], [-2, -6, 2, 18]),
                arrays([0, 0, 10, 10], [0, 0, 10, 10]),
            ]
        ),
    ),
    Exercise(
        number="1.5",
        title="from stored numbers to gray",
        minutes=15,
        reference=to_gray,
        mistakes=(
            (
                lambda *a: _to_gray(*a, clip=False),
                "Outside the window the gray leaves 0 to 1: cut it there.",
            ),
            (
                lambda *a: _to_gray(*a, turn=False),
                "MONOCHROME1 means that large is dark: turn the scale around.",
            ),
            (
                lambda s, c, w, m: _to_gray(s, c, w, not m),
                "You turn MONOCHROME2 around. It is MONOCHROME1 where large means dark.",
            ),
        ),
        hints=(
            "The window goes from center - width / 2 to center + width / 2.",
            "Take off its lower end, divide by its width, and cut at 0 and 1.",
            "For MONOCHROME1, return 1 minus that.",
        ),
        why="This is the window LINEAR_EXACT of the DICOM standard (PS3.3, C.11.2.1.3.2).",
        judge=judge_function(
            [
                (np.array([0.0, 100, 200, 300, 400]), 200, 200, False),
                (np.array([0.0, 100, 150, 300, 400]), 200, 200, True),
                (np.array([[10.0, 20], [30, 40]]), 25, 100, False),
                (np.array([10, 20, 30, 41], np.uint16), 27, 25, True),
            ]
        ),
    ),
    Exercise(
        number="1.6",
        title="your figure: age and view",
        minutes=30,
        reference=ap_by_decade,
        mistakes=(
            (drawn_then(ap_by_decade, no_names), "name both axes"),
            (_as_fraction, FRACTION),
            (_turned, TURNED),
            (lambda axis, t: axis.plot([1, 2, 3]), NINE_BARS),
        ),
        hints=(
            "Leave out ages from 90 on, then age // 10 is the decade.",
            "Group the column view == 'AP' by the decade and take the mean.",
            "axis.bar(decades, percent), then axis.set(xlabel=..., ylabel=...)",
        ),
        why="If the share rises or falls with age, a network that reads the view reads the age "
        "too.",
        judge=judge_figure(_problem, lambda: (_entries(),)),
    ),
)
