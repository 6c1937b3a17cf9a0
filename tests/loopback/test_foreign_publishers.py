"""WHIP clients that are not ours publish, and a viewer hears what they said: FFmpeg's, and GStreamer's webrtcbin."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import wave
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import av
import httpx
import numpy as np
import pytest

from stream.broadcasting.broadcast import SILENT_S
from stream.protocol import SAMPLE_RATE
from tests.loopback.broadcasting import SDP, Source, Watcher, offer_of
from tests.loopback.on_port import on_a_port
from tests.loopback.peer import Speaker
from tests.loopback.test_refusals import check
from tests.loopback.test_session import talk
from tests.network.certificates import Authority

SAID_S = 40
LOUD = 2_000
needs_muxer = pytest.mark.skipif(
    "whip" not in av.formats_available, reason="this PyAV's FFmpeg has no whip muxer"
)


@asynccontextmanager
async def program(*command: str) -> AsyncIterator[Process]:
    """Runs until the end of the block; what it said stands in the failure of a test."""
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        said, _ = await process.communicate()
        print(said.decode(errors="replace"))


async def begun(process: Process) -> float:
    """When the first sound left: the first line that is a number."""
    assert process.stdout is not None
    async with asyncio.timeout(30):
        async for line in process.stdout:
            print(line.decode(errors="replace"), end="")
            try:
                return float(line)
            except ValueError:
                continue
    raise AssertionError("the publisher ended before it was connected")


async def listen(http: httpx.AsyncClient, stream: str, began: float) -> None:
    """A viewer of the stream hears the pattern that began then."""
    source = Source(http)
    source.speaker.started_at, source.whep = began, f"/whep/{stream}"
    try:
        async with Watcher(http, source) as watcher:
            begin, end = await talk(watcher, 4.0)
            assert 0.05 < watcher.lag_of_sound(begin, end) < 1.0
            assert 0.05 < watcher.lag_of_picture(begin, end) < 1.0
    finally:
        await source.pc.close()


def muxer(url: str, folder: Path, *how: str) -> AbstractAsyncContextManager[Process]:
    certificate, key = Authority.create(folder).issue(folder, "localhost")
    files = [f"--certificate={certificate}", f"--key={key}"]
    return program(
        sys.executable, "-m", "tests.loopback.whip_muxer", f"{url}/whip?stream=ffmpeg", *files, *how
    )


@needs_muxer
@pytest.mark.parametrize("how", [[], ["--profile=baseline", "--active"], ["--profile=high"]])
async def test_the_whip_client_of_ffmpeg_is_heard(how: list[str], tmp_path: Path) -> None:
    async with (
        on_a_port() as url,
        httpx.AsyncClient(base_url=url, timeout=30) as http,
        muxer(url, tmp_path, *how) as process,
    ):
        await listen(http, "ffmpeg", await begun(process))


RTP = "application/x-rtp,media={0},encoding-name={1},payload={2}"
SMALL = "video/x-raw,width=64,height=64,framerate=10/1"
VP9 = f"vp9enc deadline=1 ! rtpvp9pay ! {RTP.format('video', 'VP9', 98)}"
PICTURE = f"videotestsrc is-live=true ! {SMALL} ! {VP9} ! webrtc."
SYSTEM_PYTHON = "/usr/bin/python3"
PUBLISHER = Path(__file__).with_name("gstreamer_publisher.py")


def needs_gstreamer() -> None:
    parts = "import gi; gi.require_version('GstWebRTC', '1.0'); from gi.repository import Gst; Gst.init(None)"
    found = (
        f"{parts}; assert all(map(Gst.ElementFactory.find, ['webrtcbin', 'nicesrc', 'opusenc', 'vp9enc']))"
    )
    if (
        not Path(SYSTEM_PYTHON).exists()
        or subprocess.run([SYSTEM_PYTHON, "-c", found], capture_output=True).returncode
    ):
        pytest.skip("no GStreamer with webrtcbin for the system's Python (make gstreamer)")


@pytest.mark.parametrize("picture", [False, True])
async def test_webrtcbin_of_gstreamer_is_heard(picture: bool, tmp_path: Path) -> None:
    """With its candidates in the offer; trickled, with VP9 beside the sound."""
    needs_gstreamer()
    speaker, file = Speaker(seed=1), tmp_path / "said.wav"
    with wave.open(str(file), "wb") as out:
        out.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        out.writeframes(b"".join(speaker.pcm(packet).tobytes() for packet in range(SAID_S * 50)))
    sound = f"filesrc location={file} ! wavparse ! audioconvert ! identity sync=true ! opusenc ! rtpopuspay"
    pipeline = f"{sound} ! {RTP.format('audio', 'OPUS', 100)} ! webrtc. {PICTURE if picture else ''}"
    source = Source(httpx.AsyncClient())  # only as what a watcher looks at
    source.whep = "/whep/gstreamer"
    async with (
        on_a_port() as url,
        httpx.AsyncClient(base_url=url, timeout=30) as http,
        program(
            SYSTEM_PYTHON, str(PUBLISHER), f"{url}/whip?stream=gstreamer", pipeline, *["--trickle"] * picture
        ),
    ):
        async with asyncio.timeout(20):
            while not (await http.get("/healthz")).json()["sessions"]:  # noqa: ASYNC110 - a test polls
                await asyncio.sleep(0.1)
        async with Watcher(http, source) as watcher:
            await watcher.until(lambda: max(level for _, level in watcher.sounds) > LOUD)  # it has begun
            begin, end = await talk(watcher, 6.0)
    await source.pc.close()
    grid = np.arange(begin, end, 0.01)
    at, level = np.array(watcher.sounds).T
    heard = level[np.clip(np.searchsorted(at, grid, side="right") - 1, 0, len(at) - 1)]
    said = speaker.level(np.arange(0, SAID_S, 0.01))
    scores = [np.corrcoef(heard, said[i : i + len(heard)])[0, 1] for i in range(len(said) - len(heard))]
    assert max(scores) > 0.8


@needs_muxer
async def test_a_killed_publisher_leaves_its_name_and_its_viewers_to_the_next(tmp_path: Path) -> None:
    source = Source(httpx.AsyncClient())  # only as what a watcher looks at
    source.whep = "/whep/ffmpeg"
    async with (
        on_a_port() as url,
        httpx.AsyncClient(base_url=url, timeout=30) as http,
        AsyncExitStack() as stack,
    ):
        async with muxer(url, tmp_path) as first:
            source.speaker.started_at = await begun(first)
            watcher = await stack.enter_async_context(Watcher(http, source))
            begin, end = await talk(watcher, 4.0)
            delay = watcher.lag_of_sound(begin, end)
            refused = await publish(http)
            check(refused, 409, "stream_in_use", "ffmpeg", "3 s")
            assert refused.headers["Retry-After"] == "3"
        killed = time.monotonic()
        check(await publish(http), 409, "stream_in_use")  # it may be a gap in the network
        await asyncio.sleep(killed + SILENT_S + 0.2 - time.monotonic())
        async with muxer(url, tmp_path) as second:
            watcher.speaker.started_at = await begun(second)
            begin, end = await talk(watcher, 5.0)
            assert abs(watcher.lag_of_sound(begin + 1, end) - delay) < 0.2
            assert watcher.pc.connectionState == "connected"
            assert (await http.get("/healthz")).json()["sessions"] == 1
            assert (await http.get("/healthz")).json()["status"] == "ready"
    await source.pc.close()


async def publish(http: httpx.AsyncClient) -> httpx.Response:
    """The answer to somebody else who would publish under the same name."""
    other = Source(http)
    try:
        return await http.post("/whip?stream=ffmpeg", content=await offer_of(other.pc), headers=SDP)
    finally:
        await other.pc.close()
