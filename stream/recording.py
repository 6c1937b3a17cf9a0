"""One recording of one session: hears what is released, and writes it in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stream.fragment_file import RecordingError
from stream.protocol import FPS, SAMPLE_RATE
from stream.recording_file import Ended, RecordingFile

logger = logging.getLogger(__name__)

SLOT_SAMPLES = SAMPLE_RATE // FPS
PACKET_SAMPLES = 960
PICTURES_QUEUED_MS = 2_000
SOUND_QUEUED_MS = 10_000
CHECK_SLOTS = 5 * FPS
LIMIT_CODES = ("time_limit", "size_limit")

_Item = tuple[int, npt.NDArray[np.uint8] | None, npt.NDArray[np.int16] | None]


class Recording:
    """A `stream.released.Listener`. Slot 0 of the file is the first picture whose sound was heard from its start on.

    The queue is bounded: a disk or a processor that is too slow costs pictures (the last one is repeated in the file),
    long after that sound (silence), counted, but no time of the session and never the sync.

    next_file: where a limit ends a file, makes part n, in which the recording goes on; None: it ends there.
    check: asked every few seconds whether to end. on_closed: told of each closed file. All three are called in the
    thread. on_over: told once, on the event loop, when the last file is closed.

    The thread has the process's priority: one that waits for a core while it holds the interpreter's lock would hold up
    the session.
    """

    def __init__(
        self,
        file: RecordingFile,
        *,
        on_over: Callable[[Recording], None],
        on_closed: Callable[[Path], None] = lambda _: None,
        next_file: Callable[[int], RecordingFile] | None = None,
        check: Callable[[], Ended | None] = lambda: None,
    ) -> None:
        self._file = file
        self._on_over = on_over
        self._on_closed = on_closed
        self._open_next = next_file
        self._check = check
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._first_sound: int | None = None
        self._origin: int | None = None  # position of slot 0
        self._pictures_in = self._pictures_out = 0
        self._sounds_in = self._sounds_out = 0
        self._earlier_seconds = 0.0
        self._stopping = False
        self.paths: list[Path] = [self._file.path]
        self.ended: Ended | None = None
        self.dropped_pictures = 0
        self.dropped_sound_ms = 0
        self.over = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self._thread.start()

    @property
    def seconds(self) -> float:
        return self._earlier_seconds + self._file.seconds

    @property
    def bytes(self) -> int:
        """Of the file that is being written."""
        return self._file.bytes

    @property
    def behind_ms(self) -> float:
        return 1000 * (self._pictures_in - self._pictures_out) / FPS

    # --- on the event loop ---

    def on_picture(self, position: int, yuv: npt.NDArray[np.uint8], fresh: bool) -> None:
        if self._stopping or self._first_sound is None or position < self._first_sound:
            return
        if self._origin is None:
            self._origin = position
        if self.behind_ms >= PICTURES_QUEUED_MS:
            self.dropped_pictures += 1
            return
        self._pictures_in += 1
        self._queue.put((position, yuv, None))

    def on_sound(self, position: int, pcm: npt.NDArray[np.int16]) -> None:
        if self._stopping:
            return
        if self._first_sound is None:
            self._first_sound = position
        packet_ms = 1000 * PACKET_SAMPLES // SAMPLE_RATE
        if (self._sounds_in - self._sounds_out) * packet_ms >= SOUND_QUEUED_MS:
            self.dropped_sound_ms += packet_ms
            return
        self._sounds_in += 1
        self._queue.put((position, None, pcm))

    def on_end(self) -> None:
        self.stop()

    def stop(self) -> None:
        """What was released up to now is still written; `over` is set when the file is closed. Idempotent."""
        if not self._stopping:
            self._stopping = True
            self._queue.put(None)

    # --- in the thread ---

    def _run(self) -> None:
        try:
            self._write()
        except Exception:
            logger.exception("a recording failed")
            self._file.end(
                "write_failed", "The recording ended because of a fault on the server; see its log."
            )
        finally:
            self._file.close()
            self.ended = self._file.ended
            self._stopping = True
            self._closed(self._file.path)
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self.over.set()
        self._on_over(self)

    def _write(self) -> None:
        origin: int | None = None
        early: list[tuple[int, npt.NDArray[np.int16]]] = []  # sound that came before the first picture
        checked = 0
        while (item := self._queue.get()) is not None:
            position, yuv, pcm = item
            if pcm is not None:
                self._sounds_out += 1
                if origin is None:
                    early.append((position, pcm))
                else:
                    self._add_sound(position - origin, pcm)
            elif yuv is not None:
                self._pictures_out += 1
                if origin is None:
                    assert self._origin is not None
                    origin = self._origin
                    for at, sound in early:
                        self._add_sound(at - origin, sound)
                self._file.add_picture((position - origin) // SLOT_SAMPLES, yuv)
                checked += 1
                if checked % CHECK_SLOTS == 0 and (ended := self._check()) is not None:
                    self._file.end(ended.code, ended.message)
            if self._file.ended is not None:
                assert origin is not None
                origin += self._file.pictures * SLOT_SAMPLES
                if not self._goes_on(self._file.ended):
                    return

    def _add_sound(self, sample: int, pcm: npt.NDArray[np.int16]) -> None:
        if sample < 0:
            sample, pcm = 0, pcm[-sample:]
        self._file.add_sound(sample, pcm)

    def _goes_on(self, ended: Ended) -> bool:
        """In another file, without a gap, where only a limit ended the last one."""
        if self._open_next is None or ended.code not in LIMIT_CODES:
            return False
        done = self._file
        try:
            self._file = self._open_next(len(self.paths) + 1)
        except RecordingError as error:
            logger.warning("a recording cannot go on in a new file: %s", error)
            return False
        self._earlier_seconds += done.seconds
        self.paths.append(self._file.path)
        self._file.add_sound(0, done.rest())
        self._closed(done.path)
        return True

    def _closed(self, path: Path) -> None:
        try:
            self._on_closed(path)
        except OSError:
            logger.exception("the recording %s keeps its working name", path)
