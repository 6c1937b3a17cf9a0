"""Files that are whole or not there: written beside their place, then moved into it."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

PARTIAL = ".partial"
ORPHAN_AGE_S = 3600.0
"""Younger files that no row names may belong to another server that is just about to write the row."""


class PictureFiles:
    """One folder of files by name. Readable by their owner only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, name: str, data: bytes) -> None:
        """After this returns, the file survives a power cut; before, there is none under its name."""
        descriptor, temporary = tempfile.mkstemp(suffix=PARTIAL, dir=self.folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.folder / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync_folder(self.folder)

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def remove(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    def sweep(self, keep: set[str]) -> list[str]:
        """Remove what a crash left behind: files that are neither named in `keep` nor young. Their names."""
        oldest = time.time() - ORPHAN_AGE_S
        swept = []
        for path in self.folder.iterdir():
            if path.name not in keep and path.is_file() and path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)
                swept.append(path.name)
        return swept


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # a folder cannot be opened there
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
