"""Tables that come with the course, and the record beside each."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from cxr_helpers.course.core import stored
from cxr_helpers.course.core.settings import load_settings

TABLE = pd.DataFrame(
    {"arm": ["random", "pretrained"], "minus": ["", "random"], "value": [0.6, 0.1]}
)
HOW = {"command": "python benchmarks/x.py --store", "digest": "d1", "seeds": [0, 1]}


@pytest.fixture
def settings(tmp_path):
    demo = tmp_path / "data" / "demo"
    demo.mkdir(parents=True)
    told = {"seed": 3, "version": "v1", "n_nih": 9, "n_vindr": 8, "note": "not kept"}
    (demo / "demo.json").write_text(json.dumps(told))
    return replace(load_settings({}), project=tmp_path)


def test_a_table_comes_back_with_the_demo_and_the_command_that_made_it(settings):
    path = stored.write_stored("curves", TABLE, settings, **HOW, images=7)
    assert path == settings.project / "notebooks" / "stored" / "curves.csv"
    found = stored.read_stored("curves", settings)
    pd.testing.assert_frame_equal(found.table, TABLE)  # what is empty stays an empty text
    assert found.record["demo"] == {"seed": 3, "version": "v1", "n_nih": 9, "n_vindr": 8}
    assert found.record["images"] == 7 and found.record["digest"] == "d1"
    assert found.origin.startswith("Made by `python benchmarks/x.py --store` on 2")
    assert found.origin.endswith("seeds 0, 1.")
    assert str(settings.project) not in path.with_suffix(".json").read_text()


def test_what_was_never_stored_is_none_and_half_of_it_an_error(settings):
    assert stored.read_stored("curves", settings) is None
    path = stored.write_stored("curves", TABLE, settings, **HOW)
    record = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(
        json.dumps({k: v for k, v in record.items() if k != "demo"})
    )
    with pytest.raises(ValueError, match="curves.csv has a record without demo.*--store"):
        stored.read_stored("curves", settings)
    path.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match="curves.csv lacks curves.json"):
        stored.read_stored("curves", settings)


def test_an_empty_table_is_not_stored(settings):
    with pytest.raises(ValueError, match="curves has no rows"):
        stored.write_stored("curves", TABLE[:0], settings, **HOW)
