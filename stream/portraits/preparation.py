"""Pictures to portraits, in a thread of the model process: torch and decoders of foreign files stay out of
the server's own process, and a picture that brings its decoder down costs a model restart, not the server.
"""

from __future__ import annotations

import hashlib
import logging
import os
import queue
import re
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, Literal

import numpy as np

from pipeline.face_search import find_upright_face, turned
from pipeline.picture import clean_picture, cleaned, opaque, stored_picture
from pipeline.portrait import Portrait, PortraitError, find_face, frame_portrait, prepare_portrait
from pipeline.portrait_findings import find
from stream.portraits.preview import make_preview

logger = logging.getLogger("stream.model_process")

ARRAYS = ("canvas", "matrix", "crop", "alpha", "opacity")
LOWEST_PRIORITY = 19

Want = Literal["portrait", "kept", "upload"]
"""portrait: of a file as given. kept: of a file that an upload made, sha256 included. upload: a `PreparedUpload`."""
Answer = Callable[[dict[str, Any], list[int]], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedUpload:
    """A foreign picture made safe, its portrait, and what to show before it may be used.

    portrait: its sha256 is that of picture. picture: the file to keep, upright, without metadata, transparency kept.
    found: `pipeline.portrait_findings.Findings` as JSON. images: WebP files by view, see `stream.portraits.preview`.
    """

    portrait: Portrait
    picture: bytes
    media_type: str
    found: dict[str, Any]
    images: dict[str, bytes]


def error_code(error: PortraitError) -> str:
    """NoFaceError -> no_face."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__.removesuffix("Error")).lower()


def prepare_kept(data: bytes, *, name: str) -> Portrait:
    """The portrait of a file that `prepare_upload` made, the same as then."""
    picture = stored_picture(data)
    _, square = find_face(np.asarray(opaque(picture)))
    return frame_portrait(picture, square, name=name, sha256=hashlib.sha256(data).hexdigest())


def prepare_upload(data: bytes, *, name: str, pipe: Any) -> PreparedUpload:
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
    return PreparedUpload(
        portrait=portrait,
        picture=clean.data,
        media_type=clean.media_type,
        found=found.to_dict(),
        images=make_preview(pipe, portrait),
    )


def _arrays(portrait: Portrait) -> dict[str, Any]:
    """Those that there are: most portraits are opaque."""
    values = {name: getattr(portrait, name) for name in ARRAYS}
    return {name: value for name, value in values.items() if value is not None}


def write_portrait(portrait: Portrait, file: IO[bytes]) -> None:
    """The portrait's arrays into `file`, which is left at its start."""
    np.savez(file, **_arrays(portrait))
    file.seek(0)


def read_portrait(descriptor: int, *, name: str, sha256: str) -> Portrait:
    """What `write_portrait` wrote; closes the descriptor."""
    with os.fdopen(descriptor, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        return Portrait(
            name=name, sha256=sha256, **{key: arrays[key] for key in ARRAYS if key in arrays.files}
        )


def write_upload(upload: PreparedUpload, file: IO[bytes]) -> dict[str, Any]:
    """Portrait and files into `file`; returns what else `read_upload` needs to know."""
    files = {"file_picture": upload.picture} | {f"file_{view}": data for view, data in upload.images.items()}
    arrays = _arrays(upload.portrait)
    arrays |= {name: np.frombuffer(data, np.uint8) for name, data in files.items()}
    np.savez(file, **arrays)
    file.seek(0)
    return {
        "sha256": upload.portrait.sha256,
        "media_type": upload.media_type,
        "found": upload.found,
        "views": list(upload.images),
    }


def read_upload(descriptor: int, message: dict[str, Any]) -> PreparedUpload:
    """What `write_upload` wrote; closes the descriptor."""
    with os.fdopen(descriptor, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        return PreparedUpload(
            portrait=Portrait(
                name=message["name"],
                sha256=message["sha256"],
                **{key: arrays[key] for key in ARRAYS if key in arrays.files},
            ),
            picture=arrays["file_picture"].tobytes(),
            media_type=message["media_type"],
            found=message["found"],
            images={view: arrays[f"file_{view}"].tobytes() for view in message["views"]},
        )


@dataclass(frozen=True)
class _Request:
    number: int
    name: str
    want: Want
    descriptor: int


class Preparation:
    """One thread, started at the first picture; answers through `answer(message, descriptors)`."""

    def __init__(self, answer: Answer, pipe: Any) -> None:
        self._answer = answer
        self._pipe = pipe
        self._requests: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def add(self, number: int, name: str, want: Want, descriptor: int) -> None:
        """descriptor: an open file with the picture; it is closed here."""
        self._requests.put(_Request(number, name, want, descriptor))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="preparation", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        if hasattr(os, "setpriority"):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
        while True:
            request = self._requests.get()
            message: dict[str, Any] = {"type": "prepared", "number": request.number, "name": request.name}
            try:
                with os.fdopen(request.descriptor, "rb") as file:
                    data = file.read()
                with tempfile.TemporaryFile() as file:
                    message |= self._prepare(request, data, file)
                    self._answer(message, [file.fileno()])
            except PortraitError as error:
                self._answer(message | {"code": error_code(error), "message": str(error)}, [])
            except Exception:
                logger.exception("a picture could not be prepared")
                text = "The picture could not be read on the server; please try another one."
                self._answer(message | {"code": "not_an_image", "message": text}, [])

    def _prepare(self, request: _Request, data: bytes, file: IO[bytes]) -> dict[str, Any]:
        if request.want == "upload":
            return write_upload(prepare_upload(data, name=request.name, pipe=self._pipe), file)
        if request.want == "kept":
            portrait = prepare_kept(data, name=request.name)
        else:
            portrait = prepare_portrait(data, name=request.name)
        write_portrait(portrait, file)
        return {"sha256": portrait.sha256}
