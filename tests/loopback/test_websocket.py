"""The WebSocket on a real port: a recording in, every frame out, with its media time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import av
import cv2
import numpy as np
import pytest
import uvicorn
import websockets

from stream.protocol import FPS, SAMPLE_RATE, EncodedFrame, SessionConfig
from stream.server import create_app
from tests.loopback.conftest import plain_gallery, quiet_config

READY_TIMEOUT_S = 60
SECONDS = 2.0


@pytest.fixture
async def url() -> AsyncIterator[str]:
    ready = asyncio.Event()
    app = create_app(quiet_config(), gallery=plain_gallery(), on_ready=lambda _: ready.set())
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", ws="websockets-sansio")
    )
    server.install_signal_handlers = lambda: None  # type: ignore[method-assign]
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(READY_TIMEOUT_S):
        await ready.wait()
        while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
            await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"ws://127.0.0.1:{port}/v1/sessions/ws"
    server.should_exit = True
    await task


def recording() -> np.ndarray:
    """Half a second silent, half a second loud, and so on."""
    n = np.arange(int(SECONDS * SAMPLE_RATE))
    loud = (n // (SAMPLE_RATE // 2)) % 2
    return (11_000 * np.sin(2 * np.pi * 220 * n / SAMPLE_RATE) * loud).astype("<i2")


async def converse(
    url: str, config: SessionConfig, packet: int
) -> tuple[list[EncodedFrame], list[dict[str, object]]]:
    """Everything that comes back for the recording, sent as fast as the server takes it."""
    frames: list[EncodedFrame] = []
    messages: list[dict[str, object]] = []
    async with websockets.connect(url, max_size=None) as socket:
        await socket.send(config.to_json())
        data = recording().tobytes()

        async def send() -> None:
            for start in range(0, len(data), packet):
                await socket.send(data[start : start + packet])
            await socket.send(json.dumps({"type": "end"}))

        sender = asyncio.create_task(send())
        async for message in socket:
            if isinstance(message, bytes):
                frames.append(EncodedFrame.unpack(message))
            else:
                messages.append(json.loads(message))
        await sender
    return frames, messages


@pytest.mark.parametrize("packet", [1_920, 60_000, 998])
async def test_every_frame_comes_back_in_order_and_follows_the_sound(url: str, packet: int) -> None:
    frames, messages = await converse(url, SessionConfig(portrait="bob"), packet)
    count = int(SECONDS * FPS)
    assert messages[0]["type"] == "ready"
    assert (messages[0]["width"], messages[0]["height"]) == (64, 64)
    assert messages[-1] == {"type": "end", "frames": count}
    assert [frame.index for frame in frames] == list(range(count))
    assert [frame.media_time_us for frame in frames] == [40_000 * index for index in range(count)]
    levels = [cv2.imdecode(np.frombuffer(frame.data, np.uint8), 0)[40:].mean() for frame in frames]
    for index, level in enumerate(levels):
        expected = 20 if (index / FPS * 2) % 2 < 1 else 20 + 200 * 11_000 / 32_768 / np.sqrt(2) / 0.25
        if (index * 40) % 500 >= 40 and (index + 1) * 40 % 500 >= 40:  # not where the tone begins or ends
            assert level == pytest.approx(expected, abs=6)


async def test_h264_decodes(url: str) -> None:
    frames, _ = await converse(url, SessionConfig(format="h264"), 4_000)
    decoder = av.CodecContext.create("h264", "r")
    decoded = [picture for frame in frames for picture in decoder.decode(av.Packet(frame.data))]
    decoded += decoder.decode(None)
    assert frames[0].key_frame
    assert len(decoded) == len(frames) == int(SECONDS * FPS)


@pytest.mark.parametrize(
    ("first", "code", "close", "word"),
    [
        ("hello", "bad_message", 1003, "JSON"),
        (b"\x00\x01", "bad_message", 1003, "configuration"),
        ('{"portrait": "nobody"}', "portrait_not_found", 1008, "nobody"),
        ('{"format": "gif"}', "bad_message", 1003, "jpeg"),
    ],
)
async def test_refusals_are_sentences(url: str, first: str | bytes, code: str, close: int, word: str) -> None:
    async with websockets.connect(url) as socket:
        await socket.send(first)
        error = json.loads(await socket.recv())
        assert error["type"] == "error"
        assert error["code"] == code
        assert word in error["message"]
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()
        assert socket.close_code == close


async def test_bad_audio_and_foreign_pages_are_refused(url: str) -> None:
    async with websockets.connect(url) as socket:
        await socket.send("{}")
        assert json.loads(await socket.recv())["type"] == "ready"
        await socket.send(b"odd")
        assert "16-bit" in json.loads(await socket.recv())["message"]
    async with websockets.connect(url, origin="http://evil.example") as socket:
        await socket.send("{}")
        assert "evil.example" in json.loads(await socket.recv())["message"]
