"""What pyproject.toml asks for, what constraints.txt pins and what people are told to install agree."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import lower_bounds

ROOT = Path(__file__).parents[2]
UNPINNED = {"variants"}
"""Extras that nobody's environment here has."""
ALL = [
    pytest.param(requirement, id=f"{group or 'core'}-{requirement.name}")
    for group, requirements in lower_bounds.requirements().items()
    for requirement in requirements
    if group not in UNPINNED
]


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): number for name, number in pins}


@pytest.mark.parametrize("requirement", ALL)
def test_the_tested_version_is_one_that_is_allowed(requirement: Requirement) -> None:
    assert requirement.specifier.contains(pinned()[canonicalize_name(requirement.name)])
    assert requirement.specifier.contains(lower_bounds.lower_bound(requirement))


def test_what_is_installed_is_allowed() -> None:
    groups = lower_bounds.requirements()
    for requirement in groups[""] + groups["test"] + groups["evaluation"]:
        if requirement.marker is None or requirement.marker.evaluate():
            assert requirement.specifier.contains(version(requirement.name)), requirement


def test_every_package_has_one_lower_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pins = [Requirement(pin) for pin in lower_bounds.pins()]
    assert {pin.name.lower() for pin in pins} >= {"torch", "numpy", "diffusers", "pytest", "onnxruntime"}
    assert len({canonicalize_name(pin.name) for pin in pins}) == len(pins)
    assert all([one.operator for one in pin.specifier] == ["=="] for pin in pins)
    project = tmp_path / "pyproject.toml"
    monkeypatch.setattr(lower_bounds, "PYPROJECT", project)
    for extra, words in (
        ('["torch"]', "torch has no lower bound"),
        ('["numpy>=3"]', "numpy has two lower bounds"),
    ):
        project.write_text(
            f'[project]\nname = "x"\ndependencies = ["numpy>=2"]\n[project.optional-dependencies]\na = {extra}\n'
        )
        with pytest.raises(ValueError, match=words):
            lower_bounds.pins()


def test_nobody_is_told_to_install_talkalong_from_an_index() -> None:
    """No index has it: it is installed from its folder, extras too."""
    told = re.compile(r"pip install[^\n`]*[ '\"]talkalong\b")
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    files += [path for room in ("client", "stream", "pipeline") for path in (ROOT / room).rglob("*.py")]
    assert told.search("run `pip install 'talkalong[camera]'`")
    assert [str(path) for path in files if told.search(path.read_text(encoding="utf-8"))] == []
