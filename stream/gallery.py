"""The portraits that sessions can use: bundled ones, and uploads with their consent statement."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, Self

from PIL import Image

from pipeline.portrait import Portrait
from stream.errors import (
    BadRequestError,
    ForbiddenError,
    NotFoundError,
    PictureRefusedError,
    TooLargeError,
    UnavailableError,
)

logger = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
CREDITS_FILE = "portraits.json"
CONSENT_LENGTH = (10, 1000)
NAME_LENGTH = 60
JPEG_QUALITY = 88


class Preparer(Protocol):
    """Makes a portrait of a picture file, or raises PictureRefusedError; `ModelEngine.prepare` is one."""

    async def __call__(self, picture: bytes, *, name: str) -> Portrait: ...


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One portrait of the gallery. consent is set for uploads only."""

    id: str
    portrait: Portrait
    source: str
    credit: str = ""
    consent: str | None = None

    def to_dict(self) -> dict[str, Any]:
        height, width = self.portrait.canvas.shape[:2]
        return {
            "id": self.id,
            "name": self.portrait.name,
            "width": width,
            "height": height,
            "source": self.source,
            "credit": self.credit,
            "thumbnail": f"/v1/portraits/{self.id}/thumbnail",
            "picture": f"/v1/portraits/{self.id}/picture",
        }

    def jpeg(self, *, thumbnail: bool) -> bytes:
        """The crop (256 px) or the whole canvas."""
        out = io.BytesIO()
        pixels = self.portrait.crop if thumbnail else self.portrait.canvas
        Image.fromarray(pixels).save(out, "JPEG", quality=JPEG_QUALITY)
        return out.getvalue()


class Gallery:
    """All portraits by id, bundled ones first. Event loop only."""

    def __init__(
        self,
        entries: list[Entry],
        *,
        prepare: Preparer,
        default: str | None = None,
        uploads_directory: Path | None = None,
        max_uploads: int = 32,
        max_bytes: int = 8_000_000,
        max_pixels: int = 16_000_000,
    ) -> None:
        self._entries = {entry.id: entry for entry in entries}
        self._prepare = prepare
        self._default = default
        self._uploads_directory = uploads_directory
        self._max_uploads = max_uploads
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels

    @classmethod
    async def load(cls, folder: Path, *, prepare: Preparer, **options: Any) -> Self:
        """Every picture in `folder`, and its credits; a bad picture is logged, not fatal."""
        entries = []
        for path, note in _pictures(folder):
            name = note.get("name", path.stem.replace("_", " ").capitalize())
            try:
                portrait = await prepare(path.read_bytes(), name=name)
            except PictureRefusedError as error:
                logger.error("the bundled portrait %s cannot be used: %s", path.name, error)
                continue
            credit = note.get("credit", "")
            entries.append(Entry(id=path.stem, portrait=portrait, source="bundled", credit=credit))
        return cls(entries, prepare=prepare, **options)

    def list(self) -> list[Entry]:
        return list(self._entries.values())

    @property
    def default(self) -> str | None:
        if self._default in self._entries:
            return self._default
        return next(iter(self._entries), None)

    def get(self, portrait_id: str | None) -> Entry:
        """The portrait with this id, or the default one for None."""
        key = portrait_id if portrait_id is not None else self.default
        if key is None:
            raise UnavailableError(
                "The gallery is empty; upload a portrait first.", code="no_portrait", retry_after_s=30
            )
        entry = self._entries.get(key)
        if entry is None:
            known = ", ".join(list(self._entries)[:10])
            raise NotFoundError(
                f"There is no portrait with the id '{key}'; GET /v1/portraits lists them ({known}).",
                code="portrait_not_found",
            )
        return entry

    async def upload(self, data: bytes, *, name: str, consent: str) -> Entry:
        """A new portrait of a person who agreed; raises a StreamError whose text says what to change."""
        consent = consent.strip()
        if not CONSENT_LENGTH[0] <= len(consent) <= CONSENT_LENGTH[1]:
            raise BadRequestError(
                "Please state who is in the picture and that they agreed to this use "
                f"({CONSENT_LENGTH[0]} to {CONSENT_LENGTH[1]} characters); without it none is accepted.",
                code="consent_missing",
            )
        if sum(entry.source == "uploaded" for entry in self._entries.values()) >= self._max_uploads:
            raise UnavailableError(
                f"The server keeps {self._max_uploads} uploaded portraits at most; delete one first.",
                code="gallery_full",
                retry_after_s=60,
            )
        self._check(data)
        name = re.sub(r"\s+", " ", name).strip()[:NAME_LENGTH] or "Uploaded portrait"
        portrait = await self._prepare(data, name=name)
        entry = Entry(id=f"up-{secrets.token_hex(8)}", portrait=portrait, source="uploaded", consent=consent)
        await asyncio.to_thread(self._record, entry, data)
        self._entries[entry.id] = entry
        return entry

    def delete(self, portrait_id: str) -> None:
        """Idempotent for uploads; bundled portraits stay."""
        entry = self._entries.get(portrait_id)
        if entry is not None and entry.source != "uploaded":
            raise ForbiddenError("This portrait is part of the product and cannot be deleted.")
        self._entries.pop(portrait_id, None)
        if self._uploads_directory is not None and entry is not None:
            (self._uploads_directory / f"{entry.id}.picture").unlink(missing_ok=True)

    def _check(self, data: bytes) -> None:
        """Bytes and, from the header, pixels, before anything is decoded."""
        if len(data) > self._max_bytes:
            raise TooLargeError(
                f"The picture has {len(data) / 1e6:.1f} MB; "
                f"{self._max_bytes / 1e6:.0f} MB are accepted at most.",
                code="picture_too_large",
            )
        try:
            with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as opened:
                width, height = opened.size
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise BadRequestError(
                "This file is not a picture that we can read; use a JPEG, PNG or WebP file.",
                code="not_an_image",
            ) from error
        if width * height > self._max_pixels:
            raise TooLargeError(
                f"The picture has {width} x {height} pixels; {self._max_pixels // 10**6} megapixels are "
                "accepted at most. Make it smaller and try again.",
                code="picture_too_large",
            )

    def _record(self, entry: Entry, data: bytes) -> None:
        """Who said what, when, about which picture: in the log, and on disk where a folder is configured."""
        record = {
            "id": entry.id,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "sha256": entry.portrait.sha256,
            "consent": entry.consent,
        }
        logger.info("portrait uploaded: %s", json.dumps(record))
        if self._uploads_directory is not None:
            self._uploads_directory.mkdir(parents=True, exist_ok=True)
            (self._uploads_directory / f"{entry.id}.picture").write_bytes(data)
            (self._uploads_directory / f"{entry.id}.consent.json").write_text(
                json.dumps(record), encoding="utf-8"
            )


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
