"""One portrait of the gallery, as the API tells about it: bundled or uploaded, usable or not any more."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from PIL import Image

from pipeline.drawing import PreparedPortrait
from stream.portraits.portrait_store import KeptPortrait

JPEG_QUALITY = 88


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One portrait of the gallery. kept: of uploads only, their place in the store and their consent."""

    id: str
    portrait: PreparedPortrait
    source: str
    credit: str = ""
    origin: str = ""
    licence: str = ""
    kept: KeptPortrait | None = None

    def to_dict(self) -> dict[str, Any]:
        height, width = self.portrait.canvas.shape[:2]
        kept: dict[str, Any] = {} if self.kept is None else _about(self.kept)
        return {
            "id": self.id,
            "name": self.portrait.name,
            "width": width,
            "height": height,
            "source": self.source,
            "credit": self.credit,
            "origin": self.origin,
            "licence": self.licence,
            "thumbnail": f"/v1/portraits/{self.id}/thumbnail",
            "picture": f"/v1/portraits/{self.id}/picture",
        } | kept

    def jpeg(self, *, thumbnail: bool) -> bytes:
        """The crop (256 px) or the whole canvas."""
        return jpeg(self.portrait.crop if thumbnail else self.portrait.canvas)


@dataclass(frozen=True, kw_only=True)
class Unusable:
    """A kept portrait whose picture cannot be used any more; problem: a sentence."""

    kept: KeptPortrait
    problem: str
    thumbnail: bytes | None

    def to_dict(self) -> dict[str, Any]:
        place = f"/v1/portraits/{self.kept.id}/thumbnail" if self.thumbnail else None
        about = {"id": self.kept.id, "name": self.kept.name, "source": "uploaded", "problem": self.problem}
        return about | {"thumbnail": place} | _about(self.kept)


def _about(kept: KeptPortrait) -> dict[str, Any]:
    return {
        "added_at": kept.added_at,
        "sha256": kept.sha256_stored,
        "sha256_uploaded": kept.sha256_uploaded,
        "found": kept.found,
        "consent": kept.consent.to_dict(),
    }


def jpeg(pixels: Any) -> bytes:
    """Of pixels [H,W,3] u8."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()
