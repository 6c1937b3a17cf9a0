"""AvatarClient against a small real peer that answers each clap with a flash of the same media time."""

from __future__ import annotations

import asyncio
import fractions
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import av
import httpx
import numpy as np
import pytest
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from client import talk
from client.errors import ConnectionLostError, ServerRefusedError
from client.peer import AvatarClient
from client.timeline import Moment
from stream import aiortc_patches
from stream.protocol import AUDIO_LEAD_S, FPS, SAMPLE_RATE, ControlValues
from tests.loopback.real_time import in_real_time

PACKET = SAMPLE_RATE // 50
PERIOD_FRAMES = 20


class Clock:
    """Both tracks of one session release a media time at the same moment."""

    def __init__(self) -> None:
        self._start_s: float | None = None

    async def due(self, media_time_s: float) -> None:
        if self._start_s is None:
            self._start_s = time.monotonic()
        await asyncio.sleep(max(0.0, self._start_s + media_time_s - time.monotonic()))


class Claps(MediaStreamTrack):
    """A 40 ms tone with every twentieth frame."""

    kind = "audio"

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock, self._position = clock, 0

    async def recv(self) -> av.AudioFrame:
        await self._clock.due(self._position / SAMPLE_RATE - AUDIO_LEAD_S)
        loud = (self._position // (SAMPLE_RATE // FPS)) % PERIOD_FRAMES == 0
        tone = 12_000 * loud * np.sin(2 * np.pi * 1_000 * np.arange(PACKET) / SAMPLE_RATE)
        frame = av.AudioFrame.from_ndarray(tone.astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, self._position
        frame.time_base = fractions.Fraction(1, SAMPLE_RATE)
        self._position += PACKET
        return frame


class Flashes(MediaStreamTrack):
    kind = "video"

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock, self._index = clock, 0

    async def recv(self) -> av.VideoFrame:
        await self._clock.due(self._index / FPS)
        light = 255 if self._index % PERIOD_FRAMES == 0 else 0
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), light, np.uint8), format="rgb24")
        frame.pts, frame.time_base = self._index * 3_600, fractions.Fraction(1, 90_000)
        self._index += 1
        return frame


class FlashServer:
    """Speaks just enough of the server's HTTP to be called through httpx.MockTransport."""

    def __init__(self) -> None:
        self.peers: list[RTCPeerConnection] = []
        self.ended: list[str] = []
        self.messages: list[str] = []
        self.heard: list[np.ndarray] = []
        self.full = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/server":
            return httpx.Response(200, json={"ice_servers": []})
        if request.method == "DELETE":
            self.ended.append(request.url.path)
            return httpx.Response(204)
        if self.full:
            error = {"code": "server_full", "message": "All 2 places of this server are taken."}
            return httpx.Response(503, json={"error": error}, headers={"Retry-After": "5"})
        body = (await request.aread()).decode()
        offer = "v=0" + body.split("v=0", 1)[1].split("\r\n--", 1)[0] + "\r\n"
        return httpx.Response(201, text=await self._connect(offer), headers={"Location": "/v1/sessions/1"})

    async def _connect(self, offer: str) -> str:
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.peers.append(peer)
        clock = Clock()

        @peer.on("track")
        def on_track(track: MediaStreamTrack) -> None:
            task = asyncio.create_task(self._listen(track))
            self._tasks.add(task)

        @peer.on("datachannel")
        def on_channel(channel: object) -> None:
            channel.on("message", self.messages.append)  # type: ignore[attr-defined]
            channel.send('{"type": "stats", "fps_sent": 25.0}')  # type: ignore[attr-defined]

        peer.addTrack(Claps(clock))
        peer.addTrack(Flashes(clock))
        await peer.setRemoteDescription(RTCSessionDescription(sdp=offer, type="offer"))
        await peer.setLocalDescription(await peer.createAnswer())
        return peer.localDescription.sdp

    async def _listen(self, track: MediaStreamTrack) -> None:
        try:
            while True:
                frame = await track.recv()
                assert isinstance(frame, av.AudioFrame)
                self.heard.append(frame.to_ndarray().reshape(-1))
        except MediaStreamError:
            return

    async def aclose(self) -> None:
        for peer in self.peers:
            await asyncio.wait_for(peer.close(), 5)
        for task in self._tasks:
            task.cancel()


@pytest.fixture
async def server() -> AsyncIterator[FlashServer]:
    aiortc_patches.install(loopback=True)
    server = FlashServer()
    yield server
    await server.aclose()


def client(server: FlashServer) -> AvatarClient:
    return AvatarClient("http://test", transport=httpx.MockTransport(server.answer))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - a test polls
            await asyncio.sleep(0.01)


async def collect(avatar: AvatarClient, count: int) -> list[Moment]:
    moments: list[Moment] = []
    async for moment in avatar:
        moments.append(moment)
        if len(moments) == count:
            break
    return moments


@in_real_time
async def test_flash_and_clap_meet_and_the_session_is_ended(server: FlashServer) -> None:
    async with client(server) as avatar:
        moments = await asyncio.wait_for(collect(avatar, 25), 30)
        moments += await asyncio.wait_for(collect(avatar, 125), 30)
        avatar.set_controls(ControlValues(expressiveness=1.5, head_motion=0.0))
        controls = '{"type": "controls", "expressiveness": 1.5, "head_motion": 0.0, "gaze": 1.0}'
        await until(lambda: controls in server.messages)
        assert avatar.stats["fps_sent"] == 25.0
    assert [moment.index for moment in moments] == list(range(moments[0].index, moments[0].index + 150))
    flashes = [moment.index for moment in moments if moment.picture.mean() > 128]
    assert len(flashes) >= 4
    pcm = np.concatenate([moment.pcm for moment in moments]).astype(float)
    origin = moments[0].index
    claps = np.flatnonzero(np.abs(pcm) > 3_000)
    for index in flashes[-4:-1]:
        start = (index - origin) * SAMPLE_RATE // FPS
        nearest = claps[np.argmin(np.abs(claps - start))]
        skew_ms = (nearest - start) * 1_000 / SAMPLE_RATE
        assert abs(skew_ms) < 30, f"clap {skew_ms:.0f} ms after its flash"
    assert server.ended[-1] == "/v1/sessions/1"


async def test_what_is_pushed_arrives(server: FlashServer) -> None:
    tone = (8_000 * np.sin(2 * np.pi * 440 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)).astype(np.int16)
    async with client(server) as avatar:
        await asyncio.wait_for(avatar.push(tone), 30)
        await until(lambda: loud_samples(server) > 0.9 * SAMPLE_RATE)
        heard = len(server.heard)
        await until(lambda: len(server.heard) > heard + 25)
    assert loud_samples(server) < 1.1 * SAMPLE_RATE


def loud_samples(server: FlashServer) -> float:
    return sum(len(piece) for piece in server.heard if np.abs(piece).max() > 4_000) / 2  # stereo


async def test_a_session_that_breaks_says_so(server: FlashServer) -> None:
    async with client(server) as avatar:
        await asyncio.wait_for(collect(avatar, 5), 20)
        await server.peers[0].close()
        with pytest.raises(ConnectionLostError, match="Check the server"):
            await asyncio.wait_for(collect(avatar, 10_000), 20)


async def test_a_full_server_is_a_sentence_and_leaves_nothing_behind(server: FlashServer) -> None:
    server.full = True
    before = set(asyncio.all_tasks())
    with pytest.raises(ServerRefusedError, match="places"):
        async with client(server):
            pytest.fail("a full server must not let anybody in")
    await until(lambda: set(asyncio.all_tasks()) == before)


async def test_talk_plays_a_file_and_records_the_answer(
    server: FlashServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, record = tmp_path / "in.wav", tmp_path / "o.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.full((1, 2 * SAMPLE_RATE), 500, np.int16), layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    monkeypatch.setattr(talk, "AvatarClient", lambda url, **_: client(server))
    lines: list[str] = []
    options = talk.TalkOptions(server="http://test", audio=source, record=record, mute=True)
    frames = await asyncio.wait_for(talk.run_talk(options, show=lines.append), 20)
    assert frames > FPS
    assert any("25.0 fps" in line for line in lines)
    with av.open(str(record)) as container:
        assert sum(1 for _ in container.decode(video=0)) == frames
