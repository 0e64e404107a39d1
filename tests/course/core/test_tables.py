"""The real tables are found without importing torch."""

import subprocess
import sys

import pytest

from cxr_helpers.course.core import tables


def test_every_table_is_there_and_torch_is_not_imported():
    code = (
        "import sys; from cxr_helpers.course.core.tables import PACKAGED_TABLES, packaged_table; "
        "sizes = [packaged_table(name).stat().st_size for name in PACKAGED_TABLES]; "
        "print(len(sizes), min(sizes) > 10_000, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "4 True False", done.stderr


def test_unknown_name():
    with pytest.raises(KeyError, match="no table 'chexpert'; there are nih_entries"):
        tables.packaged_table("chexpert")


@pytest.mark.parametrize("installed", [False, True])
def test_a_missing_package_or_file_names_the_remedy(monkeypatch, tmp_path, installed):
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]}) if installed else None
    monkeypatch.setattr(tables.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(FileNotFoundError, match="Data_Entry.*pip install torchxrayvision==1.5.7"):
        tables.packaged_table("nih_entries")
