"""WHIP clients that are not ours publish, and a viewer hears what they said: FFmpeg's own, and GStreamer."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import av
import httpx
import pytest

from tests.loopback.broadcasting import Source, Watcher
from tests.loopback.on_port import on_a_port
from tests.loopback.test_session import talk
from tests.network.certificates import Authority

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


@needs_muxer
@pytest.mark.parametrize("how", [[], ["--profile=baseline", "--active"], ["--profile=high"]])
async def test_the_whip_client_of_ffmpeg_is_heard(how: list[str], tmp_path: Path) -> None:
    certificate, key = Authority.create(tmp_path).issue(tmp_path, "localhost")
    async with on_a_port() as url, httpx.AsyncClient(base_url=url, timeout=30) as http:
        place = f"{url}/whip?stream=ffmpeg"
        command = [sys.executable, "-m", "tests.loopback.whip_muxer", place, *how]
        async with program(*command, f"--certificate={certificate}", f"--key={key}") as process:
            await listen(http, "ffmpeg", await begun(process))
