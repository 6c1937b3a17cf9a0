"""A WebSocket to an ASGI application in this process, without a network: what `httpx.ASGITransport` is to requests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Self
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidHandshake
from websockets.frames import Close, CloseCode

FINE = (CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY)


class AppSocket:
    """What `AvatarSocket` uses of websockets' `ClientConnection`: send, recv, close, iteration; its exceptions too."""

    def __init__(self, app: Callable[..., Any], scope: dict[str, Any]) -> None:
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._closed: Close | None = None
        self._task = asyncio.create_task(self._run(app, scope))

    @classmethod
    async def open(cls, app: Callable[..., Any], url: str, *, headers: Mapping[str, str]) -> Self:
        """Raises `InvalidHandshake` where the application does not accept."""
        place = urlsplit(url)
        raw = [(b"host", place.netloc.encode())]
        raw += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "websocket", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": place.scheme,
            "path": place.path, "raw_path": place.path.encode(), "query_string": b"", "root_path": "",
            "headers": raw, "client": ("127.0.0.1", 1), "server": (place.hostname, place.port), "subprotocols": [],
        }  # fmt: skip
        socket = cls(app, scope)
        socket._to_app.put_nowait({"type": "websocket.connect"})
        if (await socket._from_app.get())["type"] != "websocket.accept":
            await socket.close()
            raise InvalidHandshake("the application refused the connection")
        return socket

    async def send(self, message: str | bytes) -> None:
        self._check()
        kind = "text" if isinstance(message, str) else "bytes"
        self._to_app.put_nowait({"type": "websocket.receive", kind: message})

    async def recv(self) -> str | bytes:
        self._check()
        event = await self._from_app.get()
        if event["type"] == "websocket.close":
            self._closed = Close(event.get("code", CloseCode.NORMAL_CLOSURE), event.get("reason") or "")
            self._check()
        text = event.get("text")
        data: str | bytes = text if text is not None else event["bytes"]
        return data

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        with contextlib.suppress(ConnectionClosedOK):
            while True:
                yield await self.recv()

    async def close(self) -> None:
        """Waits until the application is done with the connection."""
        self._closed = self._closed or Close(CloseCode.NORMAL_CLOSURE, "")
        self._to_app.put_nowait({"type": "websocket.disconnect", "code": self._closed.code})
        await self._task

    def _check(self) -> None:
        if self._closed is not None:
            kind = ConnectionClosedOK if self._closed.code in FINE else ConnectionClosedError
            raise kind(self._closed, None)

    async def _run(self, app: Callable[..., Any], scope: dict[str, Any]) -> None:
        async def say(event: dict[str, Any]) -> None:
            self._from_app.put_nowait(event)

        try:
            await app(scope, self._to_app.get, say)
        finally:
            self._from_app.put_nowait({"type": "websocket.close", "code": CloseCode.ABNORMAL_CLOSURE})
