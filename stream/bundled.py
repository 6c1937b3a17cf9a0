"""The portraits that come with a model: every picture of its folder, with the credits that lie beside them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Protocol

from pipeline.portrait import Portrait
from stream.entry import Entry
from stream.errors import PictureRefusedError

logger = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
CREDITS_FILE = "portraits.json"


class Preparer(Protocol):
    """Makes a portrait of a picture file, or raises PictureRefusedError; `ModelEngine.prepare` is one."""

    async def __call__(self, picture: bytes, *, name: str, kept: bool = False) -> Portrait: ...


async def load_bundled(folder: Path, prepare: Preparer) -> list[Entry]:
    """In the order of the credits file; a bad picture is logged, not fatal."""
    entries = []
    for path, note in _pictures(folder):
        name = note.get("name", path.stem.replace("_", " ").capitalize())
        try:
            portrait = await prepare(path.read_bytes(), name=name)
        except PictureRefusedError as error:
            logger.error("the bundled portrait %s cannot be used: %s", path.name, error)
            continue
        entries.append(
            Entry(
                id=path.stem,
                portrait=portrait,
                source="bundled",
                credit=note.get("credit", ""),
                origin=note.get("origin", ""),
                licence=note.get("licence", ""),
            )
        )
    return entries


def _pictures(folder: Path) -> list[tuple[Path, dict[str, str]]]:
    """Picture files, each with its entry of the credits file, in its order (others after, by name)."""
    if not folder.is_dir():
        return []
    notes: dict[str, dict[str, str]] = {}
    if (folder / CREDITS_FILE).is_file():
        notes = json.loads((folder / CREDITS_FILE).read_text(encoding="utf-8"))
    order = list(notes)
    paths = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
    paths.sort(key=lambda path: (order.index(path.stem) if path.stem in order else len(order), path.stem))
    return [(path, notes.get(path.stem, {})) for path in paths]
