"""Results files and claims."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from cxr_helpers.course.core import results as r
from cxr_helpers.course.core.settings import load_settings

SETTINGS = load_settings({})


def test_a_results_file_has_the_five_keys(tmp_path):
    made = r.Results("02_x", SETTINGS, folder=tmp_path)
    made.add(diagonal_mean=np.float32(0.5), knn_auroc={"random": 0.5, "imagenet": None}, n=3)
    content = json.loads(made.save().read_text())
    assert tuple(content) == r.KEYS
    assert content["metrics"] == {
        "diagonal_mean": 0.5,
        "knn_auroc": {"random": 0.5, "imagenet": None},
        "n": 3,
    }
    assert content["peak_memory_mb"] > 10 and "torch" in content["versions"]
    assert [p.name for p in tmp_path.iterdir()] == ["02_x.json"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        *((value, r"metric knn is") for value in (math.nan, math.inf, object())),
        ({"a": [1, math.nan]}, r"metric knn\.a\[1\] is nan"),
        (np.array([0.0, np.nan]), r"metric knn\[1\] is nan"),
        ({1: 0.5, "1": 0.6}, "metric knn .*twice"),
        (pd.Series([0.5, 0.6], index=["Mass", "Mass"]), "metric knn .*twice"),
        (pd.DataFrame([[0.5, 0.6]], columns=["Mass", "Mass"]), "metric knn .*twice"),
    ],
)
def test_what_json_cannot_hold_or_would_lose_is_named(tmp_path, value, message):
    made = r.Results("02_x", SETTINGS, folder=tmp_path)
    with pytest.raises(ValueError, match=message):
        made.add(knn=value)


def test_the_table_has_a_row_a_figure(tmp_path):
    assert r.show_results(r.results_table(tmp_path)) == "No results yet."
    made = r.Results("04_y", SETTINGS, folder=tmp_path)
    made.add(map50={"random": {"value": 0.3, "low": 0.2, "high": 0.4}}, boxes=7)
    made.save()
    table = r.results_table(tmp_path)
    assert table["metric"].tolist() == ["map50 / random", "boxes"]
    assert table.loc[0, ["value", "low", "high"]].tolist() == [0.3, 0.2, 0.4]


@pytest.mark.parametrize("content", ["", "[]", '"metrics"', "5", '{"metrics": {}}', "not json"])
def test_a_file_that_is_no_results_file_is_named(tmp_path, content):
    (tmp_path / "03_z.json").write_text(content)
    with pytest.raises(ValueError, match=r"03_z\.json lacks .*move it elsewhere, or run") as e:
        r.results_table(tmp_path)
    assert "delete" not in str(e.value)


def test_text_for_a_folder_and_what_numpy_torch_and_pandas_give_are_taken(tmp_path):
    made = r.Results("05_w", SETTINGS, folder=str(tmp_path))
    made.add(
        curve=np.array([0.5, 1.0]),
        one=torch.tensor(2),
        per=pd.Series({np.int64(3): np.float32(0.25)}),
        flag=np.bool_(True),
    )
    made.save()
    metrics = r.read_results(str(tmp_path))["05_w"]["metrics"]
    assert metrics == {"curve": [0.5, 1.0], "one": 2, "per": {"3": 0.25}, "flag": True}


def test_claims_bind_on_the_demo_and_report_elsewhere(capsys):
    r.claim(True, "two is more than one", SETTINGS)
    with pytest.raises(r.ClaimError, match="did not: pigs fly"):
        r.claim(False, "pigs fly", SETTINGS)
    r.claim(False, "pigs fly", replace(SETTINGS, data="real"))
    out = capsys.readouterr().out
    assert out == "Holds: two is more than one.\nDoes not hold here: pigs fly.\n"
