"""The generated parts of the README."""

import pytest

from cxr_helpers.course import readme
from cxr_helpers.course.settings import project_root

COST = {"seconds": 90.0, "peak_memory_mb": 2048}
ALL = {name: COST for name in readme.QUESTIONS if name != "00_start_here"}


def test_the_table_has_a_row_a_notebook_with_its_cost():
    table = readme.measured_table(ALL, machine="2 cores", day="2026-01-02")
    assert table.count("| 1.5 | 2.0 |") == len(ALL)
    assert "on 2 cores, 2026-01-02" in table


def test_a_notebook_without_results_is_named():
    results = {k: v for k, v in ALL.items() if k != "05_ablation_cam"}
    with pytest.raises(readme.ReadmeError, match="no results of 05_ablation_cam: run `make"):
        readme.measured_table(results, machine="", day="")


def test_only_what_is_between_the_markers_changes():
    text = f"above\n{readme.BEGIN}\nold\n{readme.END}\nbelow\n"
    assert readme.replace_between(text, "new") == text.replace("old", "new")
    with pytest.raises(readme.ReadmeError, match="lacks"):
        readme.replace_between("no markers", "new")


def test_a_notebook_without_the_picture_is_told(tmp_path):
    with pytest.raises(readme.ReadmeError, match="make notebooks"):
        readme.tagged_picture(tmp_path)


def test_the_readme_links_only_to_files_that_exist():
    import re

    text = (project_root() / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)\)", text)
    local = [t for t in targets if "://" not in t]
    assert local and all((project_root() / t).is_file() for t in local)
