"""Prints pip constraints that pin every direct dependency to the lowest version that pyproject.toml allows.

python -m tests.lower_bounds     # what `make lower-bounds` installs and tests
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def requirements() -> dict[str, list[Requirement]]:
    """Direct requirements by group: "" is what everybody needs, the rest are the extras. Without ourselves."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    return {
        name: [found for found in map(Requirement, lines) if found.name != project["name"]]
        for name, lines in groups.items()
    }


def lower_bound(requirement: Requirement) -> str:
    """The version after `>=`; raises ValueError where there is none."""
    for part in requirement.specifier:
        if part.operator == ">=":
            return part.version
    raise ValueError(f"{requirement} has no lower bound: say which version it was tested with, by '>='.")


def pins() -> list[str]:
    """One line a package, sorted; markers are kept. Two bounds for one package are an error."""
    found: dict[str, str] = {}
    for requirement in (one for group in requirements().values() for one in group):
        marker = f"; {requirement.marker}" if requirement.marker else ""
        line = f"{requirement.name}=={lower_bound(requirement)}{marker}"
        if found.setdefault(requirement.name.lower(), line) != line:
            raise ValueError(f"{requirement.name} has two lower bounds in pyproject.toml; give it one.")
    return sorted(found.values(), key=str.lower)


if __name__ == "__main__":
    print(*pins(), sep="\n")
