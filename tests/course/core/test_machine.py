"""The set-up's last check and the table in notebook 00."""

import subprocess
import sys

import pytest

from cxr_helpers.course.core import machine


def test_torch_and_torchvision_load():
    assert machine.check_torch_pair() is None  # MachineError otherwise


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", "nms does not exist"),
        ("import os; os._exit(3)", "exit code 3"),
    ],
)
def test_a_broken_pair_is_one_sentence_with_a_remedy(code, reason):
    with pytest.raises(machine.MachineError) as caught:
        machine.check_torch_pair(code=code)
    said = str(caught.value)
    assert "\n" not in said
    assert reason in said
    assert said.endswith("pip install -c constraints.txt torch torchvision")


def test_main_says_the_sentence_and_fails(monkeypatch, capsys):
    def broken():
        raise machine.MachineError("torch and torchvision do not load together; run this")

    monkeypatch.setattr(machine, "check_torch_pair", broken)
    assert machine.main() == 1
    assert capsys.readouterr().err == "torch and torchvision do not load together; run this\n"


def test_report_has_a_row_for_each_thing_needed(tmp_path):
    report = machine.machine_report(tmp_path)
    assert list(report.columns) == ["found", "ok", "why"]
    assert list(report.index[:6]) == [
        "Python",
        "CPU cores",
        "memory",
        "free disk",
        "GPU",
        "fast bfloat16",
    ]
    assert list(report.index[6:]) == list(machine.PACKAGES)
    assert report.loc["Python", "found"] == ".".join(map(str, sys.version_info[:3]))
    assert report.loc[["Python", "torch", "torchvision"], "ok"].all()
    assert not report.isna().any().any()


def test_report_says_what_is_missing_and_what_to_do(monkeypatch, tmp_path):
    def no_torch():
        raise OSError("libtorch is not there")

    monkeypatch.setattr(machine, "PACKAGES", ("no-such-package",))
    monkeypatch.setattr(machine, "MIN_DISK_GB", 10**9)
    monkeypatch.setattr(machine, "accelerator", no_torch)
    report = machine.machine_report(tmp_path)
    assert not report.loc["no-such-package", "ok"]
    assert "pip install" in report.loc["no-such-package", "why"]
    assert not report.loc["free disk", "ok"]
    assert "make room" in report.loc["free disk", "why"]
    assert not report.loc["GPU", "ok"]
    assert "pip install" in report.loc["GPU", "why"]


def test_module_does_not_import_torch_by_itself():
    code = "import sys, cxr_helpers.course.core.machine; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
