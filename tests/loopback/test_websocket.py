"""The WebSocket on a real port: a recording in, every frame out, with its media time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace

import av
import cv2
import httpx
import numpy as np
import pytest
import websockets

from stream.config import LimitsConfig
from stream.protocol import FPS, SAMPLE_RATE, EncodedFrame, SessionConfig
from tests.loopback.conftest import quiet_config
from tests.loopback.on_port import on_a_port

PATH = "/v1/sessions/ws"
SECONDS = 2.0


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with on_a_port() as address:
        yield socket_at(address)


def socket_at(address: str) -> str:
    return address.replace("http", "ws", 1) + PATH


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


def id_of(ready: str | bytes) -> str:
    return str(json.loads(ready)["session_id"])


def address_of(url: str) -> str:
    return url.replace("ws://", "http://").removesuffix(PATH)


async def test_what_every_session_answers_a_websocket_session_answers(url: str) -> None:
    async with httpx.AsyncClient(base_url=address_of(url)) as http, websockets.connect(url) as socket:
        await socket.send('{"portrait": "bob"}')
        place = f"/v1/sessions/{id_of(await socket.recv())}"
        for _ in range(2):
            await socket.send(bytes(SAMPLE_RATE))  # half a second
        async with asyncio.timeout(20):
            while (stats := (await http.get(f"{place}/stats")).json())["frames_sent"] < FPS // 2:  # noqa: ASYNC110 - a test polls
                await asyncio.sleep(0.05)
        assert stats["portrait"] == "bob"
        assert stats["media_time_s"] == 1.0
        assert (await http.get("/healthz")).json()["sessions"] == 1
        assert (await http.get(f"{place}/chunks")).json() == {"chunks": []}
        trickle = {"content": "a=mid:0", "headers": {"Content-Type": "application/trickle-ice-sdpfrag"}}
        for refused in (
            await http.patch(place, **trickle),
            await http.post(f"{place}/recording", json={"title": "x"}),
            await http.delete(f"{place}/recording"),
        ):
            assert refused.status_code == 409
            assert "WebSocket" in refused.json()["error"]["message"]
        assert (await http.delete(place)).status_code == 204
        assert (await last_message(socket))["code"] == "session_closed"
        assert (await http.get(f"{place}/stats")).status_code == 404
        assert (await http.get("/healthz")).json()["sessions"] == 0


async def last_message(socket: websockets.ClientConnection) -> dict[str, object]:
    """What the server says last, after all frames."""
    text = "{}"
    async with asyncio.timeout(20):
        with contextlib.suppress(websockets.ConnectionClosedError):  # its code is not 1000
            async for message in socket:
                text = message if isinstance(message, str) else text
    return dict(json.loads(text))


async def test_a_session_ends_when_its_minutes_are_over() -> None:
    config = replace(quiet_config(), limits=LimitsConfig(session_minutes=1 / 60))
    async with on_a_port(config) as address, websockets.connect(socket_at(address)) as socket:
        await socket.send("{}")
        assert json.loads(await socket.recv())["type"] == "ready"
        assert (await last_message(socket))["code"] == "time_limit"


async def test_messages_beyond_those_of_a_second_are_ignored_but_not_the_end() -> None:
    config = replace(quiet_config(), limits=LimitsConfig(messages_per_second=5))
    async with on_a_port(config) as address, websockets.connect(socket_at(address)) as socket:
        await socket.send("{}")
        for number in range(200):
            await socket.send(json.dumps({"type": "ping", "id": number}))
        await socket.send(json.dumps({"type": "end"}))
        async with asyncio.timeout(20):
            kinds = Counter([json.loads(message)["type"] async for message in socket])
    # Usually all of it falls into one second; where a second ends in between, 5 more are answered.
    assert 5 <= kinds["pong"] < 50
    assert kinds["notice"] == kinds["pong"] // 5
    assert kinds["end"] == 1
