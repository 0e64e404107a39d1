"""course/tables.py: the real tables are found without importing torch."""

import subprocess
import sys

import pytest

from cxr_helpers.course.core import tables


@pytest.mark.parametrize("name", tables.PACKAGED_TABLES)
def test_every_table_is_there(name):
    assert tables.packaged_table(name).stat().st_size > 10_000


def test_torch_is_not_imported():
    code = (
        "import sys; from cxr_helpers.course.core.tables import packaged_table; "
        "packaged_table('nih_entries'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr


def test_unknown_name():
    with pytest.raises(KeyError, match="no table 'chexpert'; there are nih_entries"):
        tables.packaged_table("chexpert")


def test_missing_package_names_the_remedy(monkeypatch):
    monkeypatch.setattr(tables.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install torchxrayvision"):
        tables.packaged_table("nih_entries")
