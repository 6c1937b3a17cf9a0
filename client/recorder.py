"""Writes moments into an MP4 that can be played at every moment: nothing is lost if the program or the disk fails."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from client.errors import RecorderError
from client.timeline import SAMPLES_PER_FRAME, Moment
from stream.fragment_file import RecordingError
from stream.recording_file import Ended, RecordingFile, RecordingLimits


class Recorder:
    """H.264 and AAC on one timeline that begins with the first moment written; a context manager.

    Moments must come in order; a hole in their indices repeats the last picture in silence, so that sound and picture
    cannot drift apart. At a limit, or where the disk is full, the recording ends, is kept, and `ended` says why; what
    is written after that is ignored.

    path: must not exist yet (RecorderError): nothing is overwritten.
    """

    def __init__(
        self,
        path: Path,
        *,
        crf: int = 20,
        max_minutes: float | None = None,
        max_megabytes: float | None = None,
        title: str = "",
        portrait: str = "",
    ) -> None:
        self.path = path
        now = datetime.now(UTC)
        tags = {
            "title": title or path.stem,
            "artist": portrait,
            "date": now.strftime("%Y-%m-%d"),
            "creation_time": now.isoformat(timespec="seconds"),
        }
        limits = RecordingLimits(
            max_seconds=None if max_minutes is None else 60 * max_minutes,
            max_bytes=None if max_megabytes is None else round(1e6 * max_megabytes),
        )
        try:
            self._file = RecordingFile(path, tags=tags, limits=limits, pixels="rgb24", crf=crf)
        except RecordingError as error:
            raise RecorderError(str(error)) from error
        self._first: int | None = None
        self._lock = threading.Lock()  # a talk that is cancelled closes while a thread may still write

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def frames_written(self) -> int:
        return self._file.pictures

    @property
    def ended(self) -> Ended | None:
        """Why it ended by itself, if it did."""
        return self._file.ended

    def write(self, moment: Moment) -> None:
        with self._lock:
            if self._first is None:
                self._first = moment.index
            slot = moment.index - self._first
            self._file.add_sound(slot * SAMPLES_PER_FRAME, moment.pcm)
            self._file.add_picture(slot, moment.picture)

    def close(self) -> None:
        """Flushes and closes; may be called more than once."""
        with self._lock:
            self._file.close()
