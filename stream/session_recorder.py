"""Whether a session is being recorded: starts and stops its recordings, and tells its peer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from stream.errors import NotFoundError, StreamError, UnavailableError
from stream.fragment_file import RecordingError
from stream.metrics import Metrics
from stream.protocol import SetRecording, notice_message, recording_message
from stream.recording import Recording
from stream.recording_file import RecordingFile
from stream.recording_folder import RecordingEntry, RecordingFolder
from stream.released import Released

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 5.0


class SessionRecorder:
    """One recording at a time. `send` reaches the peer, who is always told. Event loop only."""

    def __init__(
        self,
        folder: RecordingFolder,
        released: Released,
        *,
        portrait: str,
        send: Callable[[str], None],
        metrics: Metrics,
    ) -> None:
        self._folder = folder
        self._released = released
        self._portrait = portrait
        self._send = send
        self._metrics = metrics
        self._recording: Recording | None = None
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def ask(self, message: SetRecording) -> None:
        """What the peer wants; a refusal is told as a notice."""
        self._start(self._answer(message))

    def begin(self) -> None:
        """Of its own accord, where every session is recorded; an obstacle is told as a notice."""
        self._start(self._answer(SetRecording(on=True), asked=False))

    async def start(self, title: str = "", *, asked: bool = True) -> RecordingEntry:
        """Begins to record, or goes on with what runs already; raises StreamError."""
        if asked:
            self._folder.check_allowed()
        async with self._lock:
            if self._closed:
                raise NotFoundError(
                    "The session has ended; there is nothing to record.", code="session_not_found"
                )
            if self._recording is None:
                await self._begin(title)
            return await self._entry()

    async def stop(self) -> list[RecordingEntry]:
        """Ends the recording and waits until its files are closed; they, or nothing where none ran."""
        async with self._lock:
            recording = self._recording
            if recording is None:
                return []
            recording.stop()
            await recording.over.wait()
            return await asyncio.to_thread(self._entries, recording)

    async def aclose(self) -> None:
        """Idempotent; what is being recorded is kept."""
        self._closed = True
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await asyncio.gather(*self._tasks, return_exceptions=True)
                await self.stop()
                await asyncio.gather(*self._tasks, return_exceptions=True)
        except TimeoutError:
            logger.warning("a recording did not close within %.0f s; the disk is stuck", CLOSE_TIMEOUT_S)

    def announce(self) -> None:
        """To a peer who has just become reachable."""
        if self._recording is not None:
            self._start(self._tell_begun())

    def stats(self) -> dict[str, Any]:
        recording = self._recording
        if recording is None:
            return {}
        return {
            "id": self._folder.id_of(recording.paths[-1]),
            "seconds": round(recording.seconds, 1),
            "bytes": recording.bytes,
            "behind_ms": round(recording.behind_ms),
            "dropped_pictures": recording.dropped_pictures,
            "dropped_sound_ms": recording.dropped_sound_ms,
        }

    async def _answer(self, message: SetRecording, *, asked: bool = True) -> None:
        try:
            if message.on:
                await self.start(message.title, asked=asked)
            else:
                self._folder.check_allowed()
                await self.stop()
        except StreamError as error:
            self._send(notice_message(error.code, error.message, level="warning"))

    async def _begin(self, title: str) -> None:
        def open_file(part: int) -> RecordingFile:
            return self._folder.create(title=title, portrait=self._portrait, part=part)

        try:
            first = await asyncio.to_thread(open_file, 1)
        except RecordingError as error:
            raise UnavailableError(str(error), code="recording_impossible", retry_after_s=60) from error
        recording = self._recording = Recording(
            first, next_file=open_file if self._folder.config.go_on else None,
            on_closed=self._folder.finish, on_over=self._over, check=self._folder.check,
        )  # fmt: skip
        self._released.add(recording)
        logger.info("a session is being recorded: %s", first.path)
        await self._tell_begun()

    async def _tell_begun(self) -> None:
        entry = await self._entry()
        self._send(notice_message("recording_started", "This session is being recorded on the server."))
        self._send(recording_message(entry.to_dict()))

    async def _entry(self) -> RecordingEntry:
        assert self._recording is not None
        return (await asyncio.to_thread(self._entries, self._recording))[-1]

    def _entries(self, recording: Recording) -> list[RecordingEntry]:
        return [self._folder.get(self._folder.id_of(path)) for path in recording.paths if self._kept(path)]

    def _kept(self, path: Path) -> bool:
        return self._folder.has(self._folder.id_of(path))

    def _over(self, recording: Recording) -> None:
        """The files are closed: asked for, at a limit, or because the session has ended."""
        self._released.remove(recording)
        self._recording = None
        ended = recording.ended
        self._metrics.recordings.labels(reason=ended.code if ended is not None else "stopped").inc()
        self._metrics.recording_drops.inc(recording.dropped_pictures)
        logger.info("a recording has ended (%s): %s", ended.code if ended else "stopped", recording.paths[-1])
        self._start(self._tell_over(recording))

    async def _tell_over(self, recording: Recording) -> None:
        entries, ended = await asyncio.to_thread(self._entries, recording), recording.ended
        if ended is not None:
            self._send(notice_message(f"recording_{ended.code}", ended.message, level="warning"))
        else:
            text = f"The recording has ended after {recording.seconds:.0f} s; it is kept on the server."
            self._send(notice_message("recording_stopped", text))
        self._send(recording_message(entries[-1].to_dict() if entries else None))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
