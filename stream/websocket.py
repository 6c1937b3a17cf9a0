"""Sessions without WebRTC: PCM in, encoded frames with media time out (see protocol.EncodedFrame).

Not paced: a frame goes out as soon as it is made, and the client is read only as fast as the model keeps up,
so a whole recording can be pushed through without loss.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from stream.aiortc_patches import open_h264
from stream.engine_session import EngineFrames
from stream.errors import StreamError, UnauthorizedError, UnavailableError
from stream.figures import Figures
from stream.protocol import (
    FPS,
    SAMPLE_RATE,
    EncodedFrame,
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
    parse_session_config,
    pong_message,
    stats_message,
)
from stream.resample import Downsampler
from stream.security import new_session_id
from stream.server import Server
from stream.tracks import VIDEO_TICKS, VIDEO_TIME_BASE, yuv
from stream.windows import AudioWindower

logger = logging.getLogger(__name__)
router = APIRouter()

MAX_PCM_BYTES = 65_536
CONFIG_TIMEOUT_S = 10.0
OUT_CHUNKS = 16
STATS_S = 1.0
POLICY, BAD_MESSAGE, TRY_LATER = 1008, 1003, 1013


@router.websocket("/v1/sessions/ws")
async def websocket_session(socket: WebSocket) -> None:
    server: Server = socket.app.state.server
    await socket.accept()
    task = asyncio.current_task()
    assert task is not None
    server.sockets.add(task)
    try:
        await _serve(socket, server)
    except WebSocketDisconnect:
        logger.debug("a WebSocket client left")
    except ProtocolError as error:
        await _refuse(socket, "bad_message", str(error), BAD_MESSAGE)
    except StreamError as error:
        code = TRY_LATER if isinstance(error, UnavailableError) else POLICY
        await _refuse(socket, error.code, error.message, code)
    except asyncio.CancelledError:
        await _refuse(socket, "stopping", "The server is shutting down.", TRY_LATER)
    finally:
        server.sockets.discard(task)


async def _refuse(socket: WebSocket, code: str, message: str, close_code: int) -> None:
    try:
        await socket.send_text(json.dumps({"type": "error", "code": code, "message": message}))
        await socket.close(close_code)
    except (RuntimeError, WebSocketDisconnect):
        logger.debug("the client was gone before it could be told: %s", message)


async def _serve(socket: WebSocket, server: Server) -> None:
    try:
        async with asyncio.timeout(CONFIG_TIMEOUT_S):
            text = await socket.receive_text()
    except TimeoutError as error:
        raise ProtocolError("The first message must be the session configuration as JSON text.") from error
    except KeyError as error:  # a binary message
        raise ProtocolError("The first message must be the session configuration as JSON text.") from error
    options = parse_session_config(text)
    server.guard.check_token(socket.headers.get("authorization"), token=options.token)
    _check_origin(socket, server)
    server.check_ready()
    address = socket.client.host if socket.client is not None else "unknown"
    server.gallery.get(options.portrait)
    server.guard.enter(address)
    server.metrics.sessions.inc()
    server.metrics.opened.labels(transport="websocket").inc()
    try:
        await SocketSession(socket, server, options).run()
    finally:
        server.metrics.sessions.dec()
        server.guard.leave(address)


def _check_origin(socket: WebSocket, server: Server) -> None:
    """Browsers do not apply CORS to WebSockets: a page of another origin must be on the list."""
    origin = socket.headers.get("origin")
    host = socket.headers.get("host", "")
    if origin and origin.partition("://")[2] != host and origin not in server.config.network.cors_origins:
        raise UnauthorizedError(f"Pages from {origin} may not use this server; its operator can allow them.")


class SocketSession:
    """One WebSocket client. `run` returns after the last frame or raises what ended it."""

    def __init__(self, socket: WebSocket, server: Server, options: SessionConfig) -> None:
        self.id = new_session_id()
        self._socket = socket
        self._server = server
        self._options = options
        self._controls = options.controls
        self._entry = server.gallery.get(options.portrait)
        self._budget = server.budget(options)
        media = server.config.media
        hop_frames, right_frames = server.chunking(options)
        spec = server.engine.window_spec(hop_frames=hop_frames, right_frames=right_frames)
        self._windower = AudioWindower(spec)
        self._downsampler = Downsampler()
        self._encoder = _FrameEncoder(options.format, media.jpeg_quality, 1000 * media.video_bitrate_kbps)
        self._made: asyncio.Queue[EngineFrames | None] = asyncio.Queue()
        self._figures = Figures()
        self._samples = 0
        self._frames_sent = 0
        self._skipped = 0
        self._answered = 0  # windows that were made or left out
        self._submitted = 0
        self._ended = False
        self._failure: str | None = None
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
                reader = group.create_task(self._read())
                ticker = group.create_task(self._push_stats())
                await self._write()
                reader.cancel()
                ticker.cancel()
        except* WebSocketDisconnect as gone:
            raise gone.exceptions[0] from None
        except* (ProtocolError, StreamError) as failed:
            raise _first(failed) from None
        finally:
            self._line.close()
        if self._failure is not None:
            raise UnavailableError(self._failure, code="session_failed")
        await self._socket.send_text(json.dumps({"type": "end", "frames": self._frames_sent}))
        await self._socket.close()

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
            first = self._windower.spec.frames(window.index).start
            deadline = self._started_at + first / FPS + self._budget.playout_delay_ms / 1000
            self._submitted += 1
            self._line.submit(window, max(deadline, asyncio.get_running_loop().time() + 1.0))

    async def _control(self, text: str) -> None:
        message = parse_client_message(text)
        if isinstance(message, SetControls):
            self._controls = message.values
            self._line.set_controls(message.values)
            await self._socket.send_text(controls_message(message.values))
        elif isinstance(message, Ping):
            await self._socket.send_text(pong_message(message.id))
        elif isinstance(message, SetRecording):
            text = "WebSocket sessions are not recorded here: the client has every frame and can keep them."
            await self._socket.send_text(notice_message("recording_off", text, level="warning"))
        elif isinstance(message, EndOfAudio):
            await self._feed(self._downsampler.flush(), last=True)
            self._ended = True
            self._wake_at_end()

    async def _write(self) -> None:
        while (made := await self._made.get()) is not None:
            encoded = await asyncio.to_thread(self._encoder.encode, made)
            for frame in encoded:
                await self._socket.send_bytes(frame.pack())
                self._frames_sent += 1
            self._server.metrics.frames.inc(len(encoded))

    async def _push_stats(self) -> None:
        while True:
            await asyncio.sleep(STATS_S)
            await self._socket.send_text(stats_message(self.stats()))

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
        self._made.put_nowait(made)
        self._wake_at_end()

    def on_skip(self, index: int) -> None:
        frames = len(self._windower.spec.frames(index))
        self._answered += 1
        self._skipped += frames
        self._server.metrics.skipped.inc(frames)
        self._wake_at_end()

    def on_engine(self, live: bool) -> None:
        logger.info("WebSocket session %s: the model is %s", self.id[:8], "back" if live else "away")

    def on_failure(self, message: str) -> None:
        self._failure = message
        self._made.put_nowait(None)

    def _wake_at_end(self) -> None:
        if self._ended and self._answered >= self._submitted:
            self._made.put_nowait(None)


class _FrameEncoder:
    """Frames to JPEG, each by itself, or H.264 Annex B with a key frame at the start. Used in a thread."""

    def __init__(self, format_name: str, jpeg_quality: int, bit_rate: int) -> None:
        self._format = format_name
        self._jpeg_quality = jpeg_quality
        self._bit_rate = bit_rate
        self._h264: Any = None

    def encode(self, made: EngineFrames) -> list[EncodedFrame]:
        encoded = []
        for index, pixels in enumerate(made.frames, made.first_frame):
            data, key_frame = self._jpeg(pixels) if self._format == "jpeg" else self._video(pixels, index)
            encoded.append(
                EncodedFrame(
                    format=self._format,
                    key_frame=key_frame,
                    index=index,
                    media_time_us=index * 1_000_000 // FPS,
                    data=data,
                )
            )
        return encoded

    def _jpeg(self, pixels: npt.NDArray[np.uint8]) -> tuple[bytes, bool]:
        bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, self._jpeg_quality])
        return data.tobytes(), True

    def _video(self, pixels: npt.NDArray[np.uint8], index: int) -> tuple[bytes, bool]:
        import av

        if self._h264 is None:
            self._h264 = open_h264(pixels.shape[1], pixels.shape[0], self._bit_rate)
        frame = av.VideoFrame.from_ndarray(yuv(pixels), format="yuv420p")
        frame.pts = index * VIDEO_TICKS
        frame.time_base = VIDEO_TIME_BASE
        packets = self._h264.encode(frame)
        return b"".join(bytes(packet) for packet in packets), any(packet.is_keyframe for packet in packets)


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
