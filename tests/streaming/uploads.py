"""Uploads without a model, for tests of what is done with them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from pipeline.drawing import PreparedPortrait
from pipeline.picture import PortraitError, clean_picture
from stream.errors import PictureRefusedError
from stream.portraits.consent import Consent, agree
from stream.portraits.portrait_store import KeptPortrait
from stream.portraits.preparation import PreparedUpload
from tests.streaming.portraits import plain_prepared


def picture(
    width: int = 64, height: int = 48, *, level: int = 120, kind: str = "PNG", mode: str = "RGB"
) -> bytes:
    out = io.BytesIO()
    pixels = Image.fromarray(np.full((height, width, 3), level, np.uint8)).convert(mode)
    pixels.save(out, kind)
    return out.getvalue()


def consent(by: str = "Eve Example") -> Consent:
    return agree(by, "1", "api")


def kept(number: int, data: bytes, *, name: str = "Eve", media_type: str = "image/jpeg") -> KeptPortrait:
    return KeptPortrait(
        id=f"up-{number:016x}",
        name=name,
        media_type=media_type,
        sha256_uploaded="a" * 64,
        sha256_stored=hashlib.sha256(data).hexdigest(),
        found={"warnings": []},
        consent=consent(),
        added_at="2026-11-26T20:00:00+00:00",
    )


async def prepare(data: bytes, *, name: str, kept: bool = False) -> PreparedPortrait:
    """Any picture is a portrait here; its hash is the file's."""
    from dataclasses import replace

    return replace(plain_prepared(name=name), sha256=hashlib.sha256(data).hexdigest())


async def prepare_upload(
    data: bytes, *, name: str, progress: Callable[[float], None] = lambda share: None
) -> PreparedUpload:
    """Really cleaned, so that what is stored is what is stored in earnest."""
    try:
        clean = clean_picture(data)
    except PortraitError as error:
        raise PictureRefusedError(str(error)) from error
    return PreparedUpload(
        portrait=await prepare(clean.data, name=name),
        picture=clean.data,
        media_type=clean.media_type,
        found={"warnings": [], "transparent": clean.has_alpha},
        images={"crop": b"webp"},
    )
