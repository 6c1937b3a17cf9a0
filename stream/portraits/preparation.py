"""From a picture to a portrait that sessions can use, and what to show of it before it may be used."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.drawing import PreparedPortrait
from pipeline.face_search import find_upright_face, turned
from pipeline.picture import clean_picture, cleaned, opaque, stored_picture
from pipeline.portrait import PortraitError, find_face, frame_portrait, prepare_portrait
from pipeline.portrait_findings import find
from stream.portraits.preview import make_preview

Progress = Callable[[float], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedUpload:
    """A foreign picture made safe, its portrait, and what to show before it may be used.

    portrait: its sha256 is that of picture. picture: the file to keep, upright, without metadata, transparency kept.
    found: `pipeline.portrait_findings.Findings` as JSON. images: WebP files by view, see `stream.portraits.preview`.
    """

    portrait: PreparedPortrait
    picture: bytes
    media_type: str
    found: dict[str, Any]
    images: dict[str, bytes]


def error_code(error: PortraitError) -> str:
    """NoFaceError -> no_face."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__.removesuffix("Error")).lower()


def prepare_given(data: bytes, *, name: str, pipe: Any, progress: Progress) -> PreparedPortrait:
    """The portrait of a picture file. Raises PortraitError."""
    prepared: PreparedPortrait = pipe.prepare(prepare_portrait(data, name=name), progress)
    return prepared


def prepare_kept(data: bytes, *, name: str, pipe: Any, progress: Progress) -> PreparedPortrait:
    """The portrait of a file that `prepare_upload` made, the same as then."""
    picture = stored_picture(data)
    _, square = find_face(np.asarray(opaque(picture)))
    portrait = frame_portrait(picture, square, name=name, sha256=hashlib.sha256(data).hexdigest())
    prepared: PreparedPortrait = pipe.prepare(portrait, progress)
    return prepared


def prepare_upload(data: bytes, *, name: str, pipe: Any, progress: Progress) -> PreparedUpload:
    """Raises PortraitError. The portrait is made of the file that is kept, so that it is the same after a restart.

    data: the server has judged its size.
    """
    clean = clean_picture(data, limits=None)
    picture = stored_picture(clean.data)
    pixels = opaque(picture)
    turns, face, square = find_upright_face(np.asarray(pixels))
    if turns:
        clean = cleaned(turned(clean.pixels, turns), frames=clean.frames)
        picture = stored_picture(clean.data)
        pixels = opaque(picture)
        face, square = find_face(np.asarray(pixels))
    portrait = frame_portrait(picture, square, name=name, sha256=clean.sha256)
    found = find(
        np.asarray(pixels), face, square, portrait,
        transparent=clean.has_alpha, frames=clean.frames, turns=turns,
    )  # fmt: skip
    prepared = pipe.prepare(portrait, progress)
    return PreparedUpload(
        portrait=prepared,
        picture=clean.data,
        media_type=clean.media_type,
        found=found.to_dict(),
        images=make_preview(pipe, prepared),
    )
