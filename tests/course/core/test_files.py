"""A file is written whole or not at all."""

import pandas as pd
import pytest

from cxr_helpers.course.core.files import whole, write_text


def test_a_file_is_made_with_its_folder_and_replaced(tmp_path):
    path = tmp_path / "new" / "a.txt"
    assert write_text("first Ä", path) == path
    write_text("second", str(path))
    with whole(tmp_path / "b.csv") as unfinished:
        pd.DataFrame({"epoch": [1]}).to_csv(unfinished, index=False)
    assert path.read_text(encoding="utf-8") == "second"
    assert (tmp_path / "b.csv").read_text().split() == ["epoch", "1"]
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.txt", "b.csv", "new"]


def test_an_error_leaves_what_was_there(tmp_path):
    path = write_text("good", tmp_path / "a.txt")
    with pytest.raises(ValueError, match="half way"), whole(path) as unfinished:
        unfinished.write_text("ha")
        raise ValueError("half way")
    assert path.read_text() == "good" and list(tmp_path.iterdir()) == [path]


def test_a_rename_that_fails_leaves_what_was_there(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="a"):
        write_text("text", tmp_path / "a")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
