"""Exercises whose answer draws on an axis: how they are judged, and what was drawn."""

import copy
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import AxLine, Line2D
from matplotlib.patches import StepPatch

from cxr_helpers.course.exercises.engine import Exercise, UnansweredError, Verdict, verdict

NOTHING = "Nothing is on the axis that the function was given: axis.plot draws there, not plt.plot."


def judge_figure(
    problem: Callable[[Axes], str | None], arguments: Callable[[], tuple] = tuple
) -> Callable[[Exercise, object], Verdict]:
    """Judge a function that draws on an axis.

    Args:
        problem: says what is wrong with what was drawn, None if nothing is.
        arguments: makes what the function gets after the axis.
    """

    def judge_drawing(exercise: Exercise, answer: object) -> Verdict:
        figure = Figure(figsize=(5, 3.2))
        axis = figure.subplots()
        answer(axis, *copy.deepcopy(arguments()))
        if not axis.has_data():
            raise UnansweredError(NOTHING)
        found = problem(axis)
        if found is None and not (axis.get_xlabel().strip() and axis.get_ylabel().strip()):
            found = "The values are right. Now name both axes, with units where there are any."
        return verdict(exercise, found, figure)

    return judge_drawing


def drawn_then(draw: Callable, change: Callable[[Axes], object]) -> Callable:
    """A drawing to which something is done afterwards: for usual mistakes."""

    def drawn(axis: Axes, *arguments: object) -> None:
        draw(axis, *arguments)
        change(axis)

    return drawn


def no_names(axis: Axes) -> None:
    """Take the names off both axes."""
    axis.set(xlabel="", ylabel="")


def drawn_series(axis: Axes) -> list[np.ndarray]:
    """The curves, points and bars of an axis, each as (n, 2) of x and y; bars standing or lying.

    What was drawn one point or bar at a time counts as a series too.
    """
    found = [_line(line) for line in axis.lines]
    found += [np.asarray(c.get_offsets(), float) for c in axis.collections if _is_points(c)]
    found += [_bars(bars) for bars in axis.containers if hasattr(bars, "datavalues")]
    found += [_stairs(patch) for patch in axis.patches if isinstance(patch, StepPatch)]
    single = [series for series in found if len(series) == 1]
    return found + ([np.concatenate(single)] if len(single) > 1 else [])


def _line(line: Line2D) -> np.ndarray:
    if not isinstance(line, AxLine):
        return np.asarray(line.get_xydata(), float)
    (x, y), slope = line.get_xy1(), line.get_slope()
    if slope is None:
        return np.array([line.get_xy1(), line.get_xy2()], float)
    return np.array([[0, y - slope * x], [1, y - slope * x + slope]], float)


def _stairs(patch: StepPatch) -> np.ndarray:
    values, edges, _ = patch.get_data()
    return np.column_stack([(edges[:-1] + edges[1:]) / 2, values]).astype(float)


def _is_points(collection: object) -> bool:
    return isinstance(collection, PathCollection)  # the area of fill_between has an offset too


def _bars(bars: object) -> np.ndarray:
    middle = [
        [patch.get_x() + patch.get_width() / 2, patch.get_y() + patch.get_height() / 2]
        for patch in bars.patches
    ]
    side = 0 if bars.orientation == "horizontal" else 1
    found = np.array(middle, float).reshape(-1, 2)
    found[:, side] = bars.datavalues
    return found


def is_drawn(
    axis: Axes, values: Sequence[float], tolerance: float = 2e-3, *, at: Sequence | None = None
) -> bool:
    """Whether some series has these values, along y or along x, in the order of the other side.

    Args:
        axis: what was drawn on.
        values: what to look for.
        tolerance: relative.
        at: where along the other side; ticks that are named so will do as well.
    """
    wanted = np.asarray(values, float)
    for series in drawn_series(axis):
        for side in (0, 1) if len(series) == len(wanted) else ():
            sorted_ = series[np.argsort(series[:, 1 - side], kind="stable")]
            if np.allclose(sorted_[:, side], wanted, rtol=tolerance) and (
                at is None or _is_at(axis, sorted_[:, 1 - side], at)
            ):
                return True
    return False


def _is_at(axis: Axes, places: np.ndarray, at: Sequence) -> bool:
    ticks = {tick.get_text() for tick in [*axis.get_xticklabels(), *axis.get_yticklabels()]}
    return np.allclose(places, at) or {str(one) for one in at} <= ticks
