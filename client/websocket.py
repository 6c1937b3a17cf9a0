"""AvatarSocket: a session for programs without WebRTC. PCM in as fast as you like, encoded frames out.

async with AvatarSocket("http://localhost:8080") as avatar:
    speaking = asyncio.create_task(avatar.speak(pcm))
    async for frame in avatar:                      # ends after the last frame
        save(frame.index, frame.media_time_us, frame.data)
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from client.errors import ConnectionLostError, ServerRefusedError, ServerUnreachableError
from client.microphone import as_pcm16
from stream.protocol import ControlValues, EncodedFrame, SessionConfig, controls_message

logger = logging.getLogger(__name__)

PACKET_SAMPLES = 4_800
PATH = "/v1/sessions/ws"
MAX_FRAME_BYTES = 4 * 1024 * 1024


class AvatarSocket:
    """Async context manager. `ready` holds the server's greeting (session_id, width, height, fps, budget);
    `stats` its latest figures. Frame k shows the sound at k * 40 ms of what was pushed."""

    def __init__(self, url: str, *, config: SessionConfig | None = None, portrait: str | None = None) -> None:
        self.config = config or SessionConfig(portrait=portrait)
        self.ready: dict[str, Any] = {}
        self.stats: dict[str, Any] = {}
        self._url = url.rstrip("/").replace("http", "ws", 1) + PATH
        self._socket: ClientConnection | None = None

    async def __aenter__(self) -> Self:
        try:
            self._socket = await connect(self._url, max_size=MAX_FRAME_BYTES, compression=None)
        except (OSError, InvalidHandshake, InvalidURI) as error:
            raise ServerUnreachableError(self._url, error) from error
        try:
            await self._socket.send(self.config.to_json())
            greeting = json.loads(await self._socket.recv())
        except ConnectionClosed as error:
            raise _lost(error) from error
        if greeting.get("type") != "ready":
            await self._socket.close()
            raise _refusal(greeting)
        self.ready = greeting
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        if self._socket is not None:
            await self._socket.close()

    async def push(self, pcm: npt.NDArray[np.generic]) -> None:
        """pcm: int16 or float32 [N], 48 kHz mono; waits while the server has enough to do."""
        samples = as_pcm16(pcm)
        for start in range(0, len(samples), PACKET_SAMPLES):
            await self._send(samples[start : start + PACKET_SAMPLES].astype("<i2").tobytes())

    async def end(self) -> None:
        """No more sound: the server sends the frames that are left, then the iteration ends."""
        await self._send(json.dumps({"type": "end"}))

    async def speak(self, pcm: npt.NDArray[np.generic]) -> None:
        """`push` and `end` in one."""
        await self.push(pcm)
        await self.end()

    async def set_controls(self, controls: ControlValues) -> None:
        await self._send(controls_message(controls))

    async def __aiter__(self) -> AsyncIterator[EncodedFrame]:
        assert self._socket is not None, "use AvatarSocket as an async context manager"
        try:
            async for message in self._socket:
                if isinstance(message, bytes):
                    yield EncodedFrame.unpack(message)
                elif self._is_end(json.loads(message)):
                    return
        except ConnectionClosed as error:
            raise _lost(error) from error

    def _is_end(self, message: dict[str, Any]) -> bool:
        kind = message.get("type")
        if kind == "stats":
            self.stats = message
        elif kind == "error":
            raise _refusal(message)
        elif kind == "notice":
            logger.info("the server says: %s", message.get("message"))
        return kind == "end"

    async def _send(self, message: str | bytes) -> None:
        assert self._socket is not None, "use AvatarSocket as an async context manager"
        try:
            await self._socket.send(message)
        except ConnectionClosed as error:
            raise _lost(error) from error


def _refusal(message: dict[str, Any]) -> ServerRefusedError:
    text = str(message.get("message", "The server refused the session and did not say why."))
    return ServerRefusedError(text, status=0, code=str(message.get("code", "")))


def _lost(error: ConnectionClosed) -> ConnectionLostError:
    reason = error.rcvd.reason if error.rcvd is not None and error.rcvd.reason else "the connection broke"
    return ConnectionLostError(
        f"The session ended: {reason}. Check the server and the network, then start again."
    )
