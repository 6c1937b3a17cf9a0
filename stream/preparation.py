"""Pictures to portraits, in a thread of the model process: torch and decoders of foreign files stay out of
the server's own process, and a picture that brings its decoder down costs a model restart, not the server.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import tempfile
import threading
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from pipeline.portrait import Portrait, PortraitError, prepare_portrait

logger = logging.getLogger("stream.model_process")

ARRAYS = ("canvas", "matrix", "crop", "alpha")
LOWEST_PRIORITY = 19

Answer = Callable[[dict[str, Any], list[int]], None]


def error_code(error: PortraitError) -> str:
    """NoFaceError -> no_face."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__.removesuffix("Error")).lower()


def write_portrait(portrait: Portrait, file: IO[bytes]) -> None:
    """The portrait's arrays into `file`, which is left at its start."""
    arrays = {name: getattr(portrait, name) for name in ARRAYS}
    if portrait.opacity is not None:
        arrays["opacity"] = portrait.opacity
    np.savez(file, **arrays)
    file.seek(0)


def read_portrait(descriptor: int, *, name: str, sha256: str) -> Portrait:
    """What `write_portrait` wrote; closes the descriptor."""
    with os.fdopen(descriptor, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        return Portrait(name=name, sha256=sha256, **{key: arrays[key] for key in arrays.files})


class Preparation:
    """One thread, started at the first picture; answers through `answer(message, descriptors)`."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._requests: queue.SimpleQueue[tuple[int, str, int]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def add(self, number: int, name: str, descriptor: int) -> None:
        """descriptor: an open file with the picture; it is closed here."""
        self._requests.put((number, name, descriptor))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="preparation", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        if hasattr(os, "setpriority"):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
        while True:
            number, name, descriptor = self._requests.get()
            message: dict[str, Any] = {"type": "prepared", "number": number}
            try:
                with os.fdopen(descriptor, "rb") as file:
                    portrait = prepare_portrait(file.read(), name=name)
            except PortraitError as error:
                self._answer(message | {"code": error_code(error), "message": str(error)}, [])
            except Exception:
                logger.exception("a picture could not be prepared")
                text = "The picture could not be read on the server; please try another one."
                self._answer(message | {"code": "not_an_image", "message": text}, [])
            else:
                with tempfile.TemporaryFile() as file:
                    write_portrait(portrait, file)
                    self._answer(message | {"name": name, "sha256": portrait.sha256}, [file.fileno()])
