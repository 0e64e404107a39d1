"""What a run was made of."""

import json
import subprocess
from dataclasses import replace

from cxr_helpers.course.core import records
from cxr_helpers.course.core.compute import Compute
from cxr_helpers.course.core.settings import load_settings


def git(folder, *arguments):
    person = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *person, *arguments], cwd=folder, check=True, capture_output=True)


def test_the_commit_is_told_with_changes_and_none_outside_of_git(tmp_path):
    assert records.commit(tmp_path / "nowhere") is None
    git(tmp_path, "init")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "x")
    commit = records.commit(tmp_path)
    (tmp_path / "b").write_text("not of the course")
    assert records.commit(tmp_path) == commit and len(commit) == 40
    (tmp_path / "a").write_text("2")
    assert records.commit(tmp_path) == f"{commit}+changes"


def test_a_record_is_plain_names_no_path_and_is_written_whole(tmp_path):
    settings = replace(load_settings({}), project=tmp_path)
    record = records.run_record(
        settings, stage="probe", seed=3, digest="abc", compute=Compute(devices=2)
    )
    path = records.write_record(record, tmp_path / "runs" / "record.json")
    assert json.loads(path.read_text()) == record and str(tmp_path) not in path.read_text()
    assert record["settings"]["seed"] == 3 and record["settings"]["split_seed"] == 0
    assert record["compute"]["processes"] == 2 and record["data_digest"] == "abc"
    assert record["commit"] is None and "torch" in record["versions"]
