"""A WebSocket session whose client reads slowly, without the buffers that a real connection has in between."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest
from fastapi import WebSocket

from stream import socket_session
from stream.errors import StreamError
from stream.protocol import FPS, SAMPLE_RATE, SessionConfig
from stream.socket_session import OUT_MS, SocketSession
from tests.loopback.conftest import Running

SECONDS = 12
MESSAGE_MS = 100


class Client:
    """Sends silence as fast as it is read, and takes frames while `reading` is set."""

    def __init__(self) -> None:
        self.reading = asyncio.Event()
        self.sent_ms = 0
        self.frames = 0
        self.end: dict[str, Any] = {}
        sound = [{"bytes": bytes(2 * SAMPLE_RATE * MESSAGE_MS // 1000)}] * (1000 * SECONDS // MESSAGE_MS)
        self._messages = itertools.chain(sound, [{"text": '{"type": "end"}'}])

    async def receive(self) -> dict[str, Any]:
        message = next(self._messages, None)
        if message is None:
            await asyncio.Event().wait()
            raise AssertionError
        self.sent_ms += MESSAGE_MS * ("bytes" in message)
        return {"type": "websocket.receive", **message}

    async def send(self, message: dict[str, Any]) -> None:
        if message.get("bytes"):
            await self.reading.wait()
            self.frames += 1
        elif json.loads(message.get("text", "{}")).get("type") == "end":
            self.end = json.loads(message["text"])


async def session_of(client: Client, running: Running) -> SocketSession:
    connect = [{"type": "websocket.connect"}]

    async def receive() -> dict[str, Any]:
        return connect.pop() if connect else await client.receive()

    socket = WebSocket({"type": "websocket", "headers": []}, receive, client.send)  # type: ignore[arg-type]
    await socket.accept()
    return SocketSession(socket, running.server, SessionConfig(), running.server.gallery.get("bob"))


async def test_a_client_that_does_not_read_is_not_read_either(running: Running) -> None:
    """At most OUT_MS of frames wait for it, and its own sound waits with them; once it reads, nothing is missing."""
    client = Client()
    session = await session_of(client, running)
    life = asyncio.create_task(session.run())
    before = -1
    while before != client.sent_ms:  # until it rests
        before = client.sent_ms
        await asyncio.sleep(1.0)
    spec = session._windower.spec
    ahead_ms = 1000 * (spec.hop_frames + spec.right_frames) / FPS
    assert OUT_MS - ahead_ms <= client.sent_ms <= OUT_MS + 2 * ahead_ms + MESSAGE_MS
    assert session.stats().video_buffer_ms <= OUT_MS
    client.reading.set()
    async with asyncio.timeout(60):
        await life
    assert client.sent_ms == 1000 * SECONDS
    assert client.end == {"type": "end", "frames": SECONDS * FPS}
    assert client.frames == SECONDS * FPS


async def test_a_client_that_never_reads_is_told_so(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_session, "READ_TIMEOUT_S", 0.2)
    session = await session_of(Client(), running)
    with pytest.raises(StreamError, match="read the frames while you send") as refusal:
        async with asyncio.timeout(20):
            await session.run()
    assert refusal.value.code == "not_reading"
    assert running.server.engine.open_sessions == 0
