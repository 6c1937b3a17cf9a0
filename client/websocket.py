"""AvatarSocket: a session for programs without WebRTC. PCM in as fast as you like, encoded frames out.

async with AvatarSocket("http://localhost:8080") as avatar:
    speaking = asyncio.create_task(avatar.speak(pcm))
    async for frame in avatar:                      # ends after the last frame
        save(frame.index, frame.media_time_us, frame.data)
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
import numpy.typing as npt
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.http11 import Response

from client.api import choose_config
from client.app_socket import AppSocket
from client.errors import ConnectionLostError, ServerRefusedError, ServerUnreachableError
from client.microphone import as_pcm16
from client.server_address import bearer, socket_address, token_advice, token_or_environment
from stream.protocol import ControlValues, EncodedFrame, SessionConfig, controls_message

logger = logging.getLogger(__name__)

PACKET_SAMPLES = 4_800
MAX_FRAME_BYTES = 4 * 1024 * 1024


class AvatarSocket:
    """Async context manager. `ready` holds the server's greeting (session_id, width, height, fps, budget);
    `stats` its latest figures. Frame k shows the sound at k * 40 ms of what was pushed.

    portrait, config, url, token: as `AvatarClient` has them. transport: an `httpx.ASGITransport`, which calls the
    server's app without a network, for tests.
    """

    def __init__(
        self,
        url: str,
        *,
        portrait: str | None = None,
        config: SessionConfig | None = None,
        token: str | None = None,
        transport: httpx.ASGITransport | None = None,
    ) -> None:
        self.config = choose_config(portrait, config)
        self.ready: dict[str, Any] = {}
        self.stats: dict[str, Any] = {}
        self._url = socket_address(url)
        self._token = token_or_environment(self.config.token if token is None else token)
        self._transport = transport
        self._socket: ClientConnection | AppSocket | None = None

    async def __aenter__(self) -> Self:
        try:
            self._socket = await self._connect()
        except InvalidStatus as error:
            raise self._refused_by(error.response) from error
        except (OSError, InvalidHandshake, InvalidURI, TimeoutError) as error:
            raise ServerUnreachableError(self._url, error or type(error).__name__) from error
        try:
            # The token is in the header; a second one in the configuration would win, and be an older one.
            await self._socket.send(dataclasses.replace(self.config, token=None).to_json())
            greeting = json.loads(await self._socket.recv())
        except ConnectionClosed as error:
            raise _lost(error) from error
        except (ValueError, UnicodeDecodeError) as error:
            raise ServerUnreachableError(self._url, "what answers is no Talkalong server") from error
        if greeting.get("type") != "ready":
            await self._socket.close()
            raise self._refusal(greeting)
        self.ready = greeting
        return self

    async def _connect(self) -> ClientConnection | AppSocket:
        headers = bearer(self._token)
        if self._transport is not None:
            return await AppSocket.open(self._transport.app, self._url, headers=headers)
        # Frames are taken as they come, so `speak` ends also where nobody iterates yet. Pings wait behind sound that
        # the server has not read yet, so a late answer to one means nothing.
        return await connect(
            self._url,
            max_size=MAX_FRAME_BYTES,
            max_queue=None,
            ping_timeout=None,
            compression=None,
            additional_headers=headers,
        )

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
            raise self._refusal(message)
        elif kind == "notice":
            logger.info("the server says: %s", message.get("message"))
        return kind == "end"

    def _refusal(self, message: dict[str, Any]) -> ServerRefusedError:
        text = str(message.get("message", "The server refused the session and did not say why."))
        code = str(message.get("code", ""))
        if code == "unauthorized":
            text += f" {token_advice(given=self._token is not None)}"
        return ServerRefusedError(text, status=401 if code == "unauthorized" else 0, code=code)

    def _refused_by(self, response: Response) -> ServerRefusedError:
        """Whatever stands before the server, in the words of HTTP."""
        text = f"{self._url} answered {response.status_code} {response.reason_phrase}."
        if response.status_code == 401:
            text += f" {token_advice(given=self._token is not None)}"
        return ServerRefusedError(text, status=response.status_code)

    async def _send(self, message: str | bytes) -> None:
        assert self._socket is not None, "use AvatarSocket as an async context manager"
        try:
            await self._socket.send(message)
        except ConnectionClosed as error:
            raise _lost(error) from error


def _lost(error: ConnectionClosed) -> ConnectionLostError:
    reason = error.rcvd.reason if error.rcvd is not None and error.rcvd.reason else "the connection broke"
    return ConnectionLostError(
        f"The session ended: {reason}. Check the server and the network, then start again."
    )
