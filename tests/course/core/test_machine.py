"""The set-up's last check and the table in notebook 00."""

import subprocess
import sys

import pytest

from cxr_helpers.course.core import machine


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", "nms does not exist"),
        ("import os; os._exit(3)", "exit code 3"),
    ],
)
def test_a_broken_pair_is_one_sentence_with_a_remedy(monkeypatch, capsys, code, reason):
    assert machine.main() == 0  # here the two load together
    with pytest.raises(machine.MachineError) as caught:
        machine.check_torch_pair(code=code)
    said = str(caught.value)
    assert "\n" not in said and reason in said
    assert said.endswith("pip install -c constraints.txt torch torchvision")
    check = machine.check_torch_pair
    monkeypatch.setattr(machine, "check_torch_pair", lambda: check(code=code))
    assert machine.main() == 1 and capsys.readouterr().err == f"{said}\n"


def test_report_has_a_row_for_each_thing_needed(tmp_path):
    report = machine.machine_report(tmp_path)
    assert list(report.columns) == ["found", "ok", "why"] and not report.isna().any().any()
    assert list(report.index) == [*machine.NEEDED, *machine.PACKAGES]
    assert report.loc["Python", "found"] == ".".join(map(str, sys.version_info[:3]))
    assert report.loc[["Python", "torch", "torchvision"], "ok"].all()


def test_report_says_what_is_missing_and_what_to_do(monkeypatch, tmp_path):
    def no_torch():
        raise OSError("libtorch is not there")

    monkeypatch.setattr(machine, "PACKAGES", ("no-such-package",))
    monkeypatch.setattr(machine, "MIN_DISK_GB", 10**9)
    monkeypatch.setattr(machine, "accelerator", no_torch)
    report = machine.machine_report(tmp_path)
    remedies = {"no-such-package": "pip install", "free disk": "make room", "GPU": "pip install"}
    for item, remedy in remedies.items():
        assert not report.loc[item, "ok"] and remedy in report.loc[item, "why"]


def test_module_does_not_import_torch_by_itself():
    code = "import sys, cxr_helpers.course.core.machine; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
