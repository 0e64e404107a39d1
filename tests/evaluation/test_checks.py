"""What users bring, and what is refused, in one place for the whole room."""

import numpy as np
import pandas as pd
import pytest
import torch

from cxr_helpers.evaluation import checks
from cxr_helpers.evaluation.checks import EvaluationError

Y = np.array([[0, 1, 0], [1, 0, 0], [1, 1, 0]])
KINDS = {
    "bool": lambda a: a > 0,
    "float16": lambda a: a.astype(np.float16),
    "list": np.ndarray.tolist,
    "tensor": torch.from_numpy,
    "list of tensors": lambda a: [torch.from_numpy(row).bfloat16().requires_grad_() for row in a],
    "bfloat16 with gradient": lambda a: torch.from_numpy(a).bfloat16().requires_grad_(),
    "data frame": pd.DataFrame,
    "frame of pandas' own integers": lambda a: pd.DataFrame(a).astype("Int64"),
    "objects": lambda a: a.astype(object),
    "masked, nothing hidden": np.ma.masked_array,
}


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_every_kind_are_the_same(kind):
    assert np.array_equal(checks.numbers(KINDS[kind](Y), "scores"), Y)
    labels = checks.binary_labels(KINDS[kind](Y))
    assert np.array_equal(labels, Y) and labels.dtype.kind in "buif"


@pytest.mark.parametrize("value", ["1", "yes", None, pd.NA, np.nan, -1, 2, 0.5])
def test_labels_other_than_0_and_1_are_refused(value):
    labels = Y.astype(object if value is pd.NA or not isinstance(value, (int, float)) else float)
    labels[2, 1] = value
    with pytest.raises(EvaluationError, match="labels must be 0 or 1, not .*in their order.*leave"):
        checks.binary_labels(labels)


def test_what_is_masked_is_not_known():
    hidden = np.ma.masked_array([0, 1], mask=[False, True])
    assert np.isnan(checks.numbers(hidden, "scores")).tolist() == [False, True]
    with pytest.raises(EvaluationError, match="0 or 1, not nan"):
        checks.binary_labels(hidden)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([["R1"], ["2"]], "<U2, no numbers"),
        (np.array([["R1"], [2]], object), "no table of numbers.*R1"),
        (pd.DataFrame({"patient_id": ["013"], "x": [0.5]}), "no table of numbers: '013' is text"),
        ([[1, 2], [3]], "no table of numbers"),
        (np.array(["2026-11-28"], "datetime64[D]"), r"datetime64\[D\], no numbers"),
    ],
)
def test_what_is_no_number_is_refused_by_name(values, words):
    with pytest.raises(EvaluationError, match=f"the features are {words}"):
        checks.numbers(values, "features")


def test_rows_that_are_not_finite_are_counted_and_named():
    values = np.zeros((6, 2))
    values[[3, 5], 0] = np.nan, np.inf
    for broken in (values, values[:, 0]):
        with pytest.raises(EvaluationError, match=r"x of 2 images .*rows \[3, 5\]; look there"):
            checks.check_finite(broken, "x", "look there")
    for fine in (values[:, 1], values[:0], values[:0, :0]):
        checks.check_finite(fine, "x", "")


FRAME = pd.DataFrame(Y, columns=list("abc"), index=["x", "y", "z"])


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (FRAME[["c", "b", "a"]], "columns of labels and scores differ: 'a' stands .* has 'c'"),
        (FRAME.iloc[::-1], r"index of labels.*'x' stands .* has 'z'.*scores.reindex\(index=...\)"),
    ],
)
def test_tables_in_another_order_are_not_joined(other, words):
    with pytest.raises(EvaluationError, match=words):
        checks.check_order(FRAME, other, ("labels", "scores"), axes=("index", "columns"))


def test_rows_that_pandas_only_numbered_are_taken_in_their_order():
    numbered = FRAME.reset_index(drop=True)
    both = ("labels", "scores")
    for other in (FRAME, Y, FRAME["a"], numbered.iloc[:2], FRAME.set_axis([7, 1, 9])):
        checks.check_order(numbered, other, both, axes=("index",))
    with pytest.raises(EvaluationError, match="0 stands where the other has 2"):
        checks.check_order(numbered, numbered.iloc[::-1], both, axes=("index",))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a", "b"], "2 class names for 3 columns"),
        (["a", "b", "a"], "class 'a' is named 2 times"),
        ("abc", "1 class names for 3 columns"),
        ({"a", "b", "c"}, "a set, which has no order"),
        (["c", "b", "a"], "class 'c' is named where the table's column is 'a'"),
    ],
)
def test_names_that_do_not_fit_the_classes_are_refused(names, words):
    with pytest.raises(EvaluationError, match=words):
        checks.check_class_names(names, FRAME)


def test_names_come_in_any_list():
    assert checks.check_class_names(pd.Index(["a", "b", "c"]), FRAME, Y) == ["a", "b", "c"]
