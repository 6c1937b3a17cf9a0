"""What the server and the process that prepares portraits say to each other."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Want = Literal["given", "kept", "upload"]
"""given: of a file as given. kept: of a file that an upload made, sha256 included. upload: a `PreparedUpload`."""


class Prepare(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    number: int
    name: str
    want: Want
    picture: bytes


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """share: of the work that is done, 0 to 1."""

    number: int
    share: float


class Refusal(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The picture makes no portrait; why, a sentence for the person who gave it."""

    number: int
    code: str
    message: str


class Prepared(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """portrait: the file's content (`PreparedPortrait.to_bytes`). The rest is of uploads only."""

    number: int
    portrait: bytes
    picture: bytes = b""
    media_type: str = ""
    found: dict[str, Any] = {}
    images: dict[str, bytes] = {}


FromPreparation = Progress | Refusal | Prepared
