"""The Python clients against the real server on a port, with the loudness stand-in for the model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from client.api import ServerApi
from client.errors import ServerRefusedError
from client.peer import AvatarClient
from client.websocket import AvatarSocket
from stream.protocol import FPS, SAMPLE_RATE, ControlValues
from tests.loopback.on_port import on_a_port
from tests.loopback.real_time import in_real_time

SECONDS = 4


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with on_a_port() as address:
        yield address


def recording() -> np.ndarray:
    """A loud half of each second, and a silent one."""
    n = np.arange(SECONDS * SAMPLE_RATE)
    loud = (n // (SAMPLE_RATE // 2)) % 2
    return (9_000 * np.sin(2 * np.pi * 220 * n / SAMPLE_RATE) * loud).astype(np.int16)


@in_real_time
async def test_the_voice_and_the_picture_it_made_come_back_together(url: str) -> None:
    light: list[float] = []
    loudness: list[float] = []
    async with AvatarClient(url, portrait="bob") as avatar:
        speaking = asyncio.create_task(avatar.push(recording()))
        async with asyncio.timeout(40):
            async for moment in avatar:
                light.append(float(moment.picture[-8:].mean()))
                loudness.append(float(np.sqrt(np.mean(np.square(moment.pcm.astype(float))))))
                if len(light) == (SECONDS + 1) * FPS:
                    break
        await speaking
    rising = [index for index in range(1, len(light)) if light[index - 1] < 60 <= light[index]]
    heard = [index for index in range(1, len(loudness)) if loudness[index - 1] < 2_000 <= loudness[index]]
    assert len(rising) >= 3
    for seen in rising[-2:]:
        assert min(abs(seen - index) for index in heard) <= 2


async def test_every_frame_of_a_recording_comes_over_the_websocket(url: str) -> None:
    async with AvatarSocket(url, portrait="ada") as avatar:
        assert avatar.ready["sample_rate"] == SAMPLE_RATE
        speaking = asyncio.create_task(avatar.speak(recording()))
        frames = [frame async for frame in avatar]
        await speaking
    assert [frame.index for frame in frames] == list(range(SECONDS * FPS))
    assert [frame.media_time_us for frame in frames] == [index * 40_000 for index in range(SECONDS * FPS)]
    assert all(frame.data.startswith(b"\xff\xd8") for frame in frames)


async def test_websocket_controls_reach_the_session(url: str) -> None:
    async with AvatarSocket(url) as avatar:
        await avatar.set_controls(ControlValues(expressiveness=0.0))
        await avatar.speak(recording()[: 2 * SAMPLE_RATE])
        assert len([frame async for frame in avatar]) == 2 * FPS


async def test_an_unknown_portrait_is_a_sentence(url: str) -> None:
    with pytest.raises(ServerRefusedError, match="nobody"):
        async with AvatarClient(url, portrait="nobody"):
            pytest.fail("there is no such portrait")
    with pytest.raises(ServerRefusedError, match="nobody"):
        async with AvatarSocket(url, portrait="nobody"):
            pytest.fail("there is no such portrait")


async def test_the_gallery_is_listed(url: str) -> None:
    async with ServerApi(url) as api:
        assert [portrait["id"] for portrait in await api.portraits()] == ["ada", "bob"]
        assert (await api.describe())["fps"] == FPS
