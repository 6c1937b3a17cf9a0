"""Where uploads are kept, on each system and as configured."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.data_directory import data_directory, uploads_directory

HOME = Path("/home/eve")


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {}, "/home/eve/.local/share/talkalong"),
        ("linux", {"XDG_DATA_HOME": "/data"}, "/data/talkalong"),
        ("linux", {"XDG_DATA_HOME": "relative/is/ignored"}, "/home/eve/.local/share/talkalong"),
        ("freebsd14", {}, "/home/eve/.local/share/talkalong"),
        ("darwin", {"XDG_DATA_HOME": "/data"}, "/home/eve/Library/Application Support/Talkalong"),
        ("win32", {"LOCALAPPDATA": "/eve/AppData/Local"}, "/eve/AppData/Local/Talkalong"),
        ("win32", {}, "/home/eve/AppData/Local/Talkalong"),
    ],
)
def test_each_system_has_its_place(platform: str, environment: dict[str, str], expected: str) -> None:
    assert data_directory(environment, platform=platform, home=HOME).as_posix() == expected


def test_the_environment_wins_over_the_configuration() -> None:
    data = {"XDG_DATA_HOME": "/data", "LOCALAPPDATA": "/data"}
    assert uploads_directory(None, data) is None
    assert uploads_directory("/srv/portraits", data) == Path("/srv/portraits")
    assert uploads_directory("/srv/portraits", data | {"TALKALONG_UPLOADS": "memory"}) is None
    assert uploads_directory(None, data | {"TALKALONG_UPLOADS": "/mnt/p"}) == Path("/mnt/p")
    chosen = uploads_directory("auto", data | {"TALKALONG_UPLOADS": ""})
    assert chosen is not None
    assert chosen.name == "portraits"
    assert chosen.parent.name.lower() == "talkalong"
