"""The portraits that come with a model: every picture of its folder, with the credits that lie beside them.

They are prepared once on a machine and kept in the cache of whoever runs the server; `python -m
stream.portraits.bundled` does it beforehand, for the bundled model.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from pipeline import checkpoint
from pipeline.drawing import PreparedPortrait, PreparedPortraitError
from stream.config import ModelConfig
from stream.data_directory import cache_directory
from stream.errors import EngineError, PictureRefusedError
from stream.portraits.entry import Entry
from stream.portraits.picture_files import PictureFiles
from stream.portraits.preparer import Preparer

logger = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
CREDITS_FILE = "portraits.json"


class PreparesPictures(Protocol):
    """Makes a portrait of a picture file, or raises PictureRefusedError; `Preparer.prepare` is one."""

    async def __call__(self, picture: bytes, *, name: str, kept: bool = False) -> PreparedPortrait: ...


class PreparedCache:
    """Prepared portraits by the hashes of picture and model. folder None: nothing is kept."""

    def __init__(self, folder: Path | None, model: str) -> None:
        self._files = PictureFiles(folder) if folder is not None else None
        self._model = model

    def find(self, picture: bytes) -> PreparedPortrait | None:
        if self._files is None:
            return None
        try:
            data = self._files.read(self._name(picture))
            return PreparedPortrait.from_bytes(data, model=self._model)
        except (OSError, PreparedPortraitError):
            return None

    def keep(self, picture: bytes, portrait: PreparedPortrait) -> None:
        """A disk that is full or not to be written to only costs the next start its time."""
        if self._files is None:
            return
        try:
            self._files.create()
            for old in self._files.folder.glob(f"{self._name(picture).partition('-')[0]}-*"):
                old.unlink(missing_ok=True)
            self._files.write(self._name(picture), portrait.to_bytes())
        except OSError as error:
            logger.warning("a prepared portrait cannot be kept in %s: %s", self._files.folder, error)

    def _name(self, picture: bytes) -> str:
        return f"{hashlib.sha256(picture).hexdigest()[:32]}-{self._model[:16]}.safetensors"


async def load_bundled(
    folder: Path,
    prepare: PreparesPictures,
    cache: PreparedCache | None = None,
    progress: Callable[[int, int], None] = lambda done, count: None,
) -> list[Entry]:
    """In the order of the credits file; a bad picture is logged, not fatal. progress: how many of all are ready."""
    entries: list[Entry] = []
    cache = cache or PreparedCache(None, "")
    pictures = _pictures(folder)
    for place, (path, note) in enumerate(pictures):
        progress(place, len(pictures))
        picture = path.read_bytes()
        portrait = await asyncio.to_thread(cache.find, picture)
        name = note.get("name", path.stem.replace("_", " ").capitalize())
        if portrait is None:
            try:
                portrait = await prepare(picture, name=name)
            except PictureRefusedError as error:
                logger.error("the bundled portrait %s cannot be used: %s", path.name, error)
                continue
            await asyncio.to_thread(cache.keep, picture, portrait)
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


async def _prepare_all() -> int:
    """Exit status 1 where a portrait could not be prepared; the server would try again."""
    config = ModelConfig()
    folder = checkpoint.resolve(config.name)
    cache = PreparedCache(cache_directory(), checkpoint.face_sha256(folder))
    missing = [path for path, _ in _pictures(folder / "portraits") if cache.find(path.read_bytes()) is None]
    if not missing:
        return 0
    async with Preparer(config) as preparer:
        with tqdm(total=len(missing), desc="Preparing the bundled portraits", unit="portrait") as bar:
            for path in missing:
                picture = path.read_bytes()
                try:
                    portrait = await preparer.prepare(picture, name=path.stem)
                except (EngineError, PictureRefusedError) as error:
                    print(f"{path.name}: {error}", file=sys.stderr)
                    return 1
                cache.keep(picture, portrait)
                bar.update()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_prepare_all()))
