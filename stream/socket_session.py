"""One session over a WebSocket: PCM in, encoded frames with media time out (see protocol.EncodedFrame).

Not paced: a frame goes out as soon as it is made. The client is read only as fast as the model makes frames and as
the client takes them: at most OUT_MS of frames wait for it, then its sound waits, too. So a whole recording can be
pushed through without loss, and a client that does not read its frames costs no memory; after READ_TIMEOUT_S it is
told so and its session ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import WebSocket, WebSocketDisconnect

from stream.engine_session import EngineFrames
from stream.errors import StreamError, UnavailableError
from stream.figures import Figures
from stream.frame_encoder import FrameEncoder
from stream.portraits.entry import Entry
from stream.protocol import (
    FPS,
    SAMPLE_RATE,
    ChunkTrace,
    EndOfAudio,
    Ping,
    ProtocolError,
    SessionConfig,
    SessionStats,
    SetControls,
    SetRecording,
    controls_message,
    notice_message,
    parse_client_message,
    pong_message,
    stats_message,
)
from stream.resample import Downsampler
from stream.security import new_session_id
from stream.server import Server
from stream.windows import AudioWindower

logger = logging.getLogger(__name__)

MAX_PCM_BYTES = 65_536
OUT_MS = 480
"""Of frames that are being made or wait to be sent; then no more sound is read."""
READ_TIMEOUT_S = 30.0
STATS_S = 1.0
NOT_READING = "not_reading"
NOT_RECORDED = "WebSocket sessions are not recorded here: the client has every frame and can keep them."


class SocketSession:
    """One WebSocket client, and what every session has (`server.OpenSession`). `run` returns after the last frame or
    raises what ended it."""

    def __init__(self, socket: WebSocket, server: Server, options: SessionConfig, entry: Entry) -> None:
        self.id = new_session_id()
        self._socket = socket
        self._server = server
        self._options = options
        self._controls = options.controls
        self._entry = entry
        self._budget = server.budget(options)
        media = server.config.media
        hop_frames, right_frames = server.chunking(options)
        spec = server.engine.window_spec(hop_frames=hop_frames, right_frames=right_frames)
        self._windower = AudioWindower(spec)
        self._downsampler = Downsampler()
        self._encoder = FrameEncoder(options.format, media.jpeg_quality, 1000 * media.video_bitrate_kbps)
        self._made: asyncio.Queue[EngineFrames | None] = asyncio.Queue()
        self._figures = Figures()
        self._samples = 0
        self._messages = 0  # of the current second
        self._frames_waiting = 0  # made and not sent
        self._room = asyncio.Event()
        self._frames_sent = 0
        self._skipped = 0
        self._answered = 0  # windows that were made or left out
        self._submitted = 0
        self._ended = False
        self._failure: str | None = None
        self._closing, self._closed = asyncio.Event(), asyncio.Event()
        self._started_at = asyncio.get_running_loop().time()
        self._line = server.engine.open(
            self._entry.portrait, spec=spec, seed=options.seed, controls=options.controls, listener=self
        )

    async def run(self) -> None:
        height, width = self._entry.portrait.canvas.shape[:2]
        ready = {
            "type": "ready",
            "session_id": self.id,
            "portrait": self._entry.id,
            "width": width,
            "height": height,
            "fps": FPS,
            "sample_rate": SAMPLE_RATE,
            "format": self._options.format,
            "budget": self._budget.to_dict(),
        }
        try:
            await self._socket.send_text(json.dumps(ready))
            async with asyncio.TaskGroup() as group:
                others = [self._read(), self._push_stats(), self._limit(), self._close_if_asked()]
                tasks = [group.create_task(part) for part in others]
                await self._write()
                for task in tasks:
                    task.cancel()
        except (
            ExceptionGroup
        ) as group:  # what `except*` raises comes as a group in some releases of Python 3.11
            if (gone := group.subgroup(WebSocketDisconnect)) is not None:
                raise _first(gone) from None
            if (refused := group.subgroup((ProtocolError, StreamError))) is not None:
                raise _first(refused) from None
            raise
        finally:
            self._line.close()
            self._closed.set()
        if self._failure is not None:
            raise UnavailableError(self._failure, code="session_failed")
        await self._socket.send_text(json.dumps({"type": "end", "frames": self._frames_sent}))
        await self._socket.close()

    async def aclose(self) -> None:
        """End the session, and wait until it has ended. Idempotent."""
        self._closing.set()
        await self._closed.wait()

    async def _close_if_asked(self) -> None:
        await self._closing.wait()
        raise StreamError("The session was ended by a request to the server.", code="session_closed")

    async def _limit(self) -> None:
        minutes = self._server.config.limits.session_minutes
        await asyncio.sleep(60 * minutes)
        text = f"Sessions end after {minutes:.0f} minutes here; start a new one to go on."
        raise StreamError(text, code="time_limit")

    async def _read(self) -> None:
        while not self._ended:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1006))
            data = message.get("bytes")
            if data is not None:
                await self._audio(data)
            else:
                await self._control(message["text"])

    async def _audio(self, data: bytes) -> None:
        if len(data) % 2 or len(data) > MAX_PCM_BYTES:
            raise ProtocolError(
                f"Audio messages hold 16-bit samples, at most {MAX_PCM_BYTES} bytes of them; "
                f"this one has {len(data)}."
            )
        pcm = np.frombuffer(data, "<i2")
        self._samples += len(pcm)
        await self._feed(self._downsampler.push(pcm))

    async def _feed(self, pcm: npt.NDArray[np.float32], *, last: bool = False) -> None:
        windows = self._windower.push(pcm)
        if last:
            windows += self._windower.flush()
        for window in windows:
            await self._line.room()
            while self._frames_on_their_way * 1000 >= OUT_MS * FPS:
                self._room.clear()
                await self._room.wait()
            first = self._windower.spec.frames(window.index).start
            deadline = self._started_at + first / FPS + self._budget.playout_delay_ms / 1000
            self._submitted += 1
            self._line.submit(window, max(deadline, asyncio.get_running_loop().time() + 1.0))

    @property
    def _frames_on_their_way(self) -> int:
        return self._frames_waiting + self._line.queued * self._windower.spec.hop_frames

    async def _control(self, text: str) -> None:
        message = parse_client_message(text)
        self._messages += 1
        limit = self._server.config.limits.messages_per_second
        if self._messages > limit and not isinstance(message, EndOfAudio):
            if self._messages == limit + 1:
                text = f"More than {limit} messages came within a second; the rest of them is ignored."
                await self._socket.send_text(notice_message("too_many_messages", text, level="warning"))
        elif isinstance(message, SetControls):
            self._controls = message.values
            self._line.set_controls(message.values)
            await self._socket.send_text(controls_message(message.values))
        elif isinstance(message, Ping):
            await self._socket.send_text(pong_message(message.id))
        elif isinstance(message, SetRecording):
            await self._socket.send_text(notice_message("recording_off", NOT_RECORDED, level="warning"))
        elif isinstance(message, EndOfAudio):
            await self._feed(self._downsampler.flush(), last=True)
            self._ended = True
            self._wake_at_end()

    async def _write(self) -> None:
        while (made := await self._made.get()) is not None:
            encoded = await asyncio.to_thread(self._encoder.encode, made)
            for frame in encoded:
                await self._send_frame(frame.pack())
                self._frames_sent += 1
                self._frames_waiting -= 1
                self._room.set()
            self._server.metrics.frames.inc(len(encoded))

    async def _send_frame(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                await self._socket.send_bytes(data)
        except TimeoutError as error:
            raise StreamError(
                f"No frame was read for {READ_TIMEOUT_S:.0f} s, so the session has ended: read the frames while "
                "you send sound.",
                code=NOT_READING,
            ) from error

    async def _push_stats(self) -> None:
        while True:
            await asyncio.sleep(STATS_S)
            self._messages = 0
            await self._socket.send_text(stats_message(self.stats()))

    def chunks(self, after: int) -> list[ChunkTrace]:
        """None: a chunk's way is traced from packet to shown picture, and here is neither."""
        return []

    def stats(self) -> SessionStats:
        return SessionStats(
            session_id=self.id,
            state="live" if self._server.engine.live else "restarting",
            portrait=self._entry.id,
            codec=self._options.format,
            uptime_s=round(asyncio.get_running_loop().time() - self._started_at, 1),
            media_time_s=round(self._samples / SAMPLE_RATE, 2),
            frames_sent=self._frames_sent,
            frames_skipped=self._skipped,
            video_buffer_ms=self._frames_waiting * 1000 / FPS,
            windows_queued=self._line.queued,
            step_ms=self._figures.step_ms(),
            stages_ms=self._figures.stages_ms(),
            denoising_steps=self._figures.denoising_steps,
            engine_restarts=self._server.engine.restarts,
            budget=self._budget.to_dict(),
            controls=asdict(self._controls),
        )

    # --- what the engine says ---

    def on_frames(self, made: EngineFrames) -> None:
        self._answered += made.last
        if made.cost is not None:
            self._figures.step(made.cost)
            self._server.metrics.step_ms.observe(made.cost.step_ms)
        self._frames_waiting += len(made.frames)
        self._made.put_nowait(made)
        self._wake_at_end()

    def on_skip(self, index: int) -> None:
        frames = len(self._windower.spec.frames(index))
        self._answered += 1
        self._skipped += frames
        self._server.metrics.skipped.inc(frames)
        self._room.set()
        self._wake_at_end()

    def on_engine(self, live: bool) -> None:
        logger.info("WebSocket session %s: the model is %s", self.id[:8], "back" if live else "away")

    def on_failure(self, message: str) -> None:
        self._failure = message
        self._made.put_nowait(None)

    def _wake_at_end(self) -> None:
        if self._ended and self._answered >= self._submitted:
            self._made.put_nowait(None)


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
