"""pyproject.toml, constraints.txt, environment.yml and the Makefile say the same."""

import re
import tomllib
from importlib.metadata import requires, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from cxr_helpers import __version__

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8")
LINES = [line for line in CONSTRAINTS.splitlines() if line and not line.startswith("#")]
PINS = dict(line.split("==") for line in LINES if "==" in line)
PINS = {canonicalize_name(name): Version(pin) for name, pin in PINS.items()}
EXTRAS = PROJECT["project"]["optional-dependencies"]
LISTS = [PROJECT["project"]["dependencies"], *EXTRAS.values(), PROJECT["build-system"]["requires"]]
OWN = "cxr-helpers[course]"  # the extra `dev` holds `course`
DIRECT = [Requirement(text) for texts in LISTS for text in texts if text != OWN]
PYTHON = SpecifierSet(PROJECT["project"]["requires-python"])


def test_constraints_are_pins_and_nothing_else():
    odd = [line for line in LINES if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)]
    assert odd == []
    assert list(PINS) == sorted(PINS), "sort constraints.txt"
    assert len(PINS) == len(LINES), "a package is pinned twice"
    assert "cxr-helpers" not in PINS


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_direct_dependency_is_pinned_inside_its_range(requirement):
    name = canonicalize_name(requirement.name)
    assert name in PINS, f"{name} is not in constraints.txt"
    assert requirement.specifier, f"{name} has no range in pyproject.toml"
    assert requirement.specifier.contains(PINS[name])


def test_lower_bounds_are_the_releases_that_make_lowest_tests_with():
    text = (ROOT / "lowest.txt").read_text(encoding="utf-8")
    pins = dict(line.split("==") for line in text.splitlines() if not line.startswith("#"))
    helpers = {Requirement(text).name for text in PROJECT["project"]["dependencies"]}
    assert helpers <= pins.keys() and list(pins) == sorted(pins)
    for requirement in DIRECT:
        if pin := pins.get(requirement.name):
            lower = [one.version for one in requirement.specifier if one.operator == ">="]
            assert [Version(one) for one in lower] == [Version(pin)], requirement.name


def test_torch_and_torchvision_are_a_pair():
    if Version(version("torchvision")) != PINS["torchvision"]:
        pytest.skip(f"torchvision {version('torchvision')} is installed, not the pinned one")
    needs = [Requirement(text) for text in requires("torchvision")]
    torch = next(requirement for requirement in needs if requirement.name == "torch")
    assert torch.specifier.contains(PINS["torch"])
    # A release of torchvision belongs to one minor release of torch: 0.29 to 2.14, one to one.
    lowest = min(Version(spec.version) for spec in torch.specifier)
    assert lowest.release[:2] == PINS["torch"].release[:2]


def test_one_version_and_one_list_of_pythons_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["project"]["version"] == __version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (.+)$", changes, re.MULTILINE)[1] == __version__
    address = PROJECT["project"].get("urls", {}).get("Repository")
    assert address == citation.get("repository-code"), "the address stands in both files or in none"


def test_nothing_holds_an_address():
    for name in ("constraints.txt", "lowest.txt", "environment.yml", "pyproject.toml"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"://|@ |--(index|find|extra|trusted)|file:", text), name


def test_conda_and_make_install_by_the_same_files_and_python():
    python, pip, pip_lines = ENVIRONMENT["dependencies"]
    assert pip == "pip", "versions belong into pyproject.toml and constraints.txt"
    assert pip_lines["pip"] == ["-c constraints.txt", "-e .[course]"]
    assert PYTHON.contains(python.removeprefix("python="))
    lowest = Version(min(spec.version for spec in PYTHON))
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{lowest.major}{lowest.minor}"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "pip install -c constraints.txt -e '.[$*]'" in makefile and OWN in EXTRAS["dev"]
    assert f"({lowest.major}, {lowest.minor})" in makefile
    assert f"not Python {lowest} or newer" in makefile
