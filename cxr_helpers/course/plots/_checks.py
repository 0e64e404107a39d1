"""What the figures read, and what they refuse: arrays, gray images, boxes, tables.

Needs: numpy, pandas.
"""

from collections.abc import Sequence, Sized

import numpy as np
import pandas as pd

from cxr_helpers.detection.boxes import as_boxes

CORNERS = ["x_min", "y_min", "x_max", "y_max"]


def array(values) -> np.ndarray:
    """An array of a list, or of a tensor of any device and type."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if "bfloat16" in str(values.dtype) else values
    return np.asarray(values)


def floats(values, name: str) -> np.ndarray:
    """An array of float64 of what holds numbers; text that looks like a number is none."""
    try:
        found = array(values)
        if found.dtype.kind not in "buifO":
            raise TypeError(f"they are {found.dtype}")
        return found.astype(float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the {name} holds no plain numbers: {error}") from None


def gray(image, name: str = "image") -> tuple[np.ndarray, int]:
    """A gray image (H, W) and its value of white: 255, 65535, or 1 for floats."""
    image = array(image)
    if image.ndim != 2 or not image.size:
        raise ValueError(f"{name} of shape {image.shape}; expected gray (H, W)")
    if image.dtype.kind != "f" and image.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"{name} is {image.dtype}; give uint8, uint16 of the full range, or float in [0, 1]"
        )
    low, top = image.min(), image.max()
    if image.dtype == np.uint16 and 0 < top < 32768:
        raise ValueError(
            f"{name} is uint16 up to {top}, so it holds {int(top).bit_length()} bits only; scale "
            "it to 65535, or give floats in [0, 1]"
        )
    if image.dtype.kind == "u":
        return image, np.iinfo(image.dtype).max
    if not (low >= -1e-3 and top <= 1 + 1e-3):
        raise ValueError(f"{name} has values from {low} to {top}; floats must lie in [0, 1]")
    return image, 1


def box_array(boxes) -> np.ndarray:
    """float64 (n, 4) of a table with a box a row, of one box, or of any array or list of boxes."""
    if isinstance(boxes, pd.DataFrame):
        check_table(boxes, numbers=CORNERS, empty=True)
        boxes = boxes[CORNERS]
    elif isinstance(boxes, (list, tuple)):
        boxes = [array(box) for box in boxes]
    found = array(boxes)
    return as_boxes(found[None] if found.shape == (4,) else found)


def check_table(
    table: pd.DataFrame,
    *texts: str,
    numbers: Sequence[str] = (),
    once: Sequence[str] = (),
    empty: bool = False,
) -> None:
    """Refuse a table without a column, with text where numbers belong, or with a row twice.

    Args:
        table: to look at.
        texts: columns of any kind.
        numbers: columns that must hold no text.
        once: columns whose values together may stand in one row only.
        empty: whether it may have no row.
    """
    missing = [name for name in (*texts, *numbers) if name not in table]
    if missing:
        raise ValueError(f"the table has no column {missing[0]!r}; it has {list(table)}")
    if not len(table) and not empty:
        raise ValueError("the table has no rows, so there is nothing to show")
    for name in numbers:
        text = next((value for value in table[name] if isinstance(value, str)), None)
        if text is not None:
            raise ValueError(f"column {name!r} holds the text {text!r}; make it numbers")
    twice = table[table.duplicated(list(once))] if once else ()
    if len(twice):
        raise ValueError(f"more than one row for {list(once)} {twice[list(once)].iloc[0].tolist()}")


def some(things: Sized, what: str) -> None:
    """Refuse to show nothing."""
    if not len(things):
        raise ValueError(f"there is no {what} to show")


def pair(first, second, name: str, *, columns: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays that belong together, each (N,), or (N, columns) where that is given."""
    first, second = array(first), array(second)
    wanted = first.shape[:1] + (() if columns is None else (columns,))
    if not first.shape == second.shape == wanted or not first.size:
        kind = "(N,)" if columns is None else f"(N, {columns})"
        raise ValueError(
            f"{name} has shapes {first.shape} and {second.shape}; expected {kind} twice, not empty"
        )
    return first, second
