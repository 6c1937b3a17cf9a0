"""What a session releases, for those who listen beside its own peer: recordings, viewers.

Both kinds carry `position`: 48 kHz samples of the session's one presentation timeline (`stream.clock`), at which
picture and sound belong together. It begins near 0, only grows, and jumps where a stall lost slots or packets.
"""

from __future__ import annotations

import logging
from typing import Protocol

import numpy as np
import numpy.typing as npt

logger = logging.getLogger(__name__)


class Listener(Protocol):
    """Called on the event loop at the time of the release, so it must return within a millisecond or so; the arrays
    are shared and must not be written to. One that raises is heard of in the log and not called again."""

    def on_picture(self, position: int, yuv: npt.NDArray[np.uint8], fresh: bool) -> None:
        """The picture from `position` on, I420 uint8 [H * 3/2, W], 25 a second.

        fresh: it differs from the last one; otherwise the very same array is shown once more."""

    def on_sound(self, position: int, pcm: npt.NDArray[np.int16]) -> None:
        """20 ms of the speaker's sound from `position` on, int16 [960], 48 kHz; AUDIO_LEAD_S earlier than its
        picture."""

    def on_end(self) -> None:
        """The session is over; nothing follows. Not called after `remove`."""


class Released:
    """The listeners of one session. Event loop only."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._ended = False

    def add(self, listener: Listener) -> None:
        """From now on; at once told of the end if that has come already."""
        if self._ended:
            listener.on_end()
        else:
            self._listeners.append(listener)

    def remove(self, listener: Listener) -> None:
        """Idempotent."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def picture(self, position: int, yuv: npt.NDArray[np.uint8], fresh: bool) -> None:
        for listener in list(self._listeners):
            try:
                listener.on_picture(position, yuv, fresh)
            except Exception:
                self._drop(listener)

    def sound(self, position: int, pcm: npt.NDArray[np.int16]) -> None:
        for listener in list(self._listeners):
            try:
                listener.on_sound(position, pcm)
            except Exception:
                self._drop(listener)

    def end(self) -> None:
        """Idempotent."""
        self._ended = True
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            try:
                listener.on_end()
            except Exception:
                self._drop(listener)

    def _drop(self, listener: Listener) -> None:
        """The session goes on without it."""
        logger.exception("%s failed and is not told of this session any more", type(listener).__name__)
        self.remove(listener)
