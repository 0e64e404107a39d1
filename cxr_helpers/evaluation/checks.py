"""What this room takes from its users: numbers, labels of 0 and 1, class names, tables in order.

Arrays, lists, tensors of any device and type, masked arrays and pandas' tables are all taken. What
cannot be used is refused with the row, the value or the name that is wrong, and what to do.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy.
"""

from collections.abc import Sequence
from numbers import Number

import numpy as np


class EvaluationError(ValueError):
    """Images, features, labels or scores that nothing can be computed from."""


def as_array(values) -> np.ndarray:
    """An array of what users bring; a masked value is not known, so it becomes NaN.

    >>> as_array(np.ma.masked_equal([0, 1, -1], -1))
    array([ 0.,  1., nan])
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if "bfloat16" in str(values.dtype) else values
    elif isinstance(values, list | tuple) and any(hasattr(one, "detach") for one in values):
        values = [as_array(one) for one in values]
    if isinstance(values, np.ma.MaskedArray):
        values = values.astype(float).filled(np.nan)
    return np.asarray(values)


def numbers(values, name: str) -> np.ndarray:
    """Values as an array of numbers; `name` is what they are, for the text.

    Raises:
        EvaluationError: text, or rows of different lengths.

    >>> numbers([1, None], "scores")
    array([ 1., nan])
    """
    try:
        array = as_array(values)
        if array.dtype == object:
            text = next((value for value in array.ravel() if isinstance(value, str)), None)
            if text is not None:  # which float() might read as a number
                raise TypeError(f"{text!r} is text")
            array = array.astype(float)
    except (TypeError, ValueError) as error:
        raise EvaluationError(f"the {name} are no table of numbers: {error}") from None
    if array.dtype.kind not in "buif":
        raise EvaluationError(f"the {name} are {array.dtype}, no numbers")
    return array


def binary_labels(values) -> np.ndarray:
    """Labels as an array of 0 and 1, of any type of number or of bool.

    Raises:
        EvaluationError: a label is something else, also where it is not known (NaN, None, -1).

    >>> binary_labels([True, False]).tolist()
    [True, False]
    """
    try:
        labels = as_array(values)
    except (TypeError, ValueError) as error:
        raise EvaluationError(f"the labels are no table (N, K): {error}") from None
    numeric = labels.dtype.kind in "buif"
    if numeric:
        wrong = labels[~np.isin(labels, (0, 1))].tolist()
    else:  # text and missing values are told by their own type
        plain = (Number, np.bool_)
        wrong = [v for v in labels.ravel().tolist() if not isinstance(v, plain) or v not in (0, 1)]
    if wrong:
        raise EvaluationError(
            f"labels must be 0 or 1, not {wrong[0]!r}; give labels and scores in their order, and "
            "leave out images of which a label is not known"
        )
    return labels if numeric else labels.astype(float)


def check_finite(values: np.ndarray, name: str, remedy: str) -> None:
    """Refuse rows, (N,) or (N, D), that hold NaN or infinity.

    Raises:
        EvaluationError: says how many images that are, which rows the first have, and the remedy.

    >>> check_finite(np.array([0.5, np.nan]), "scores", "look at these images")
    Traceback (most recent call last):
    cxr_helpers.evaluation.checks.EvaluationError: the scores of 1 images are not finite, in rows
    [1]; look at these images
    """
    bad = np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
    if len(bad):
        raise EvaluationError(
            f"the {name} of {len(bad)} images are not finite, in rows {bad[:5].tolist()}; {remedy}"
        )


def check_order(first, second, names: Sequence[str], *, axes: Sequence[str]) -> None:
    """Refuse two of pandas' tables whose ids or classes stand in another order.

    Rows and columns that were only numbered by pandas are taken in their order, unless the other
    table has the same numbers in another.

    Args:
        first: anything; what is no table of pandas passes.
        second: as `first`.
        names: what both are, for the text.
        axes: `index`, `columns` or both, as far as they must agree.

    Raises:
        EvaluationError: names the first ids or columns that differ.

    >>> import pandas as pd
    >>> labels = pd.DataFrame({"Mass": [0, 1]}, index=["a", "b"])
    >>> check_order(labels, labels[::-1], ["labels", "scores"], axes=["index"])
    Traceback (most recent call last):
    cxr_helpers.evaluation.checks.EvaluationError: the index of labels and scores differ: 'a' stands
    where the other has 'b'; bring both into one order, as by scores.reindex(index=...)
    """
    if not (hasattr(first, "iloc") and hasattr(second, "iloc")):
        return
    for axis in axes:
        one, two = (getattr(table, axis, None) for table in (first, second))
        if one is None or two is None or len(one) != len(two) or one.equals(two):
            continue
        numbered = any(type(k).__name__ == "RangeIndex" for k in (one, two))
        if numbered and set(one) != set(two):
            continue
        x, y = next(((x, y) for x, y in zip(one, two, strict=True) if x != y), (None, None))
        raise EvaluationError(
            f"the {axis} of {names[0]} and {names[1]} differ: {x!r} stands where the other has "
            f"{y!r}; bring both into one order, as by {names[1].split()[-1]}.reindex({axis}=...)"
        )


def check_class_names(class_names: Sequence[str], *tables) -> list[str]:
    """K different names that fit the columns of tables (N, K) or (N,).

    Raises:
        EvaluationError: the names are a set, which has no order; a name stands twice; or names
            and columns differ in number or order.

    >>> check_class_names("Mass", np.zeros(5))
    ['Mass']
    """
    if isinstance(class_names, set | frozenset):
        raise EvaluationError(
            f"class_names are a set, which has no order: {class_names}; give a list"
        )
    names = [class_names] if isinstance(class_names, str) else [str(name) for name in class_names]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise EvaluationError(
            f"class {twice[0]!r} is named {names.count(twice[0])} times; name it once"
        )
    for table in tables:
        shape = np.shape(table)
        if len(shape) in (1, 2) and (*shape, 1)[1] != len(names):
            raise EvaluationError(f"{len(names)} class names for {(*shape, 1)[1]} columns: {names}")
        columns = [str(c) for c in getattr(table, "columns", [])]
        if columns != names and set(columns) & set(names):
            x, y = next((x, y) for x, y in zip(names, columns, strict=True) if x != y)
            raise EvaluationError(
                f"class {x!r} is named where the table's column is {y!r}; give the names in the "
                "table's order"
            )
    return names
