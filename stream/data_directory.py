"""Where a person's own data are kept on this system, and what configuration and environment say about it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

UPLOADS_VARIABLE = "TALKALONG_UPLOADS"
AUTO = "auto"
MEMORY = "memory"


def data_directory(
    environment: Mapping[str, str] = os.environ, *, platform: str = sys.platform, home: Path | None = None
) -> Path:
    """Linux and others: the XDG base directory; macOS: Application Support; Windows: the local AppData.

    Raises RuntimeError where there is no home directory.
    """
    if platform == "win32":
        local = environment.get("LOCALAPPDATA")
        return (Path(local) if local else (home or Path.home()) / "AppData" / "Local") / "Talkalong"
    if platform == "darwin":
        return (home or Path.home()) / "Library" / "Application Support" / "Talkalong"
    given = environment.get("XDG_DATA_HOME", "")
    # The specification: a path that is not absolute is to be ignored.
    base = Path(given) if os.path.isabs(given) else (home or Path.home()) / ".local" / "share"
    return base / "talkalong"


def cache_directory(
    environment: Mapping[str, str] = os.environ, *, platform: str = sys.platform, home: Path | None = None
) -> Path | None:
    """For what can be made anew, as prepared portraits: the XDG base directory; None where there is no home."""
    try:
        if platform in ("win32", "darwin"):
            base = data_directory(environment, platform=platform, home=home) / "Cache"
        else:
            given = environment.get("XDG_CACHE_HOME", "")
            base = Path(given) if os.path.isabs(given) else (home or Path.home()) / ".cache"
            base = base / "talkalong"
    except RuntimeError:
        return None
    return base / "prepared"


def uploads_directory(configured: str | None, environment: Mapping[str, str] = os.environ) -> Path | None:
    """The folder of uploaded portraits; None keeps them in memory only. The environment variable wins."""
    chosen = environment.get(UPLOADS_VARIABLE) or configured
    if chosen is None or chosen == MEMORY:
        return None
    if chosen == AUTO:
        return data_directory(environment) / "portraits"
    return Path(chosen).expanduser()
