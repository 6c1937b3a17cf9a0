"""Clients of a server that asks for a token: given, from the environment, missing or wrong; and without a network."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import av
import httpx
import numpy as np
import pytest

from client import devices, talk
from client.api import ServerApi
from client.audio_file import write_wav
from client.errors import DeviceError, ServerRefusedError, ServerUnreachableError
from client.peer import AvatarClient
from client.server_address import TOKEN_VARIABLE
from client.websocket import AvatarSocket
from stream.config import SecurityConfig, ServeConfig
from stream.protocol import FPS, SAMPLE_RATE, SessionConfig
from tests.loopback.conftest import quiet_config, start
from tests.loopback.on_port import on_a_port

TOKEN = "secret-word"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


def guarded() -> ServeConfig:
    return dataclasses.replace(quiet_config(), security=SecurityConfig(token=TOKEN))


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A server that asks for a token, as a person may write its address."""
    async with on_a_port(guarded()) as address:
        yield address.removeprefix("http://")


def half_a_second() -> np.ndarray:
    """12.5 frames."""
    n = np.arange(SAMPLE_RATE // 2)
    return (9_000 * np.sin(2 * np.pi * 220 * n / SAMPLE_RATE)).astype(np.int16)


async def socket_frames(url: str, **options: object) -> int:
    async with AvatarSocket(url, **options) as avatar:  # type: ignore[arg-type]
        await avatar.speak(half_a_second())
        return len([frame async for frame in avatar])


async def client_moments(url: str, **options: object) -> int:
    async with AvatarClient(url, **options) as avatar:  # type: ignore[arg-type]
        moments = aiter(avatar)
        return len([await anext(moments) for _ in range(3)])


@pytest.mark.parametrize("converse", [socket_frames, client_moments])
async def test_a_token_opens_the_server_and_the_one_given_wins(
    url: str, converse: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(converse)
    with pytest.raises(
        ServerRefusedError, match=f"Give its token with --token or.*{TOKEN_VARIABLE}"
    ) as refused:
        await converse(url)
    assert refused.value.status == 401
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert await converse(url) > 0
    with pytest.raises(ServerRefusedError, match=f"{TOKEN_VARIABLE}\\) is not the server's"):
        await converse(url, token="wrong")
    monkeypatch.setenv(TOKEN_VARIABLE, "wrong")
    with pytest.raises(ServerRefusedError, match=f"{TOKEN_VARIABLE}\\) is not the server's"):
        await converse(url)
    assert await converse(url, token=TOKEN) > 0
    assert await converse(f"ws://{url}/", config=SessionConfig(token=TOKEN)) > 0


async def test_a_file_is_spoken_and_recorded_where_nothing_can_be_played(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The command's own options, a machine without PortAudio, and the token in the environment."""

    def missing() -> None:
        raise DeviceError("PortAudio is missing.")

    monkeypatch.setattr(devices, "sound", missing)
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    voice, out = tmp_path / "voice.wav", tmp_path / "out.mp4"
    write_wav(voice, half_a_second())
    parser = argparse.ArgumentParser()
    talk.add_arguments(parser)
    args = parser.parse_args(["--server", url, "--audio", str(voice), "--record", str(out)])
    said: list[str] = []
    frames = await talk.run_talk(talk.TalkOptions(**vars(args)), show=said.append)
    assert frames > FPS / 2
    assert said[0] == "PortAudio is missing. The talk goes on, and nothing is played.\n"
    with av.open(str(out)) as film:
        assert len(list(film.decode(video=0))) > FPS / 2
    with av.open(str(out)) as film:
        loudest = max(np.abs(frame.to_ndarray()).max() for frame in film.decode(audio=0))
    assert loudest > (0.1 if loudest <= 1.0 else 3_000), "the voice is in the recording"


async def test_the_socket_speaks_to_an_application_without_a_network() -> None:
    async with start(guarded()) as running:
        transport = httpx.ASGITransport(running.http._transport.app)  # type: ignore[attr-defined]
        assert await socket_frames("http://testserver", token=TOKEN, transport=transport) == 13
        with pytest.raises(ServerRefusedError, match=TOKEN_VARIABLE):
            await socket_frames("http://testserver", transport=transport)
        with pytest.raises(ServerRefusedError, match="nobody"):
            await socket_frames("testserver", portrait="nobody", token=TOKEN, transport=transport)
        assert not running.server.sockets
        async with ServerApi("testserver", token=TOKEN, transport=transport) as api:
            assert (await api.describe())["token_required"] is True


async def test_what_is_no_websocket_is_a_sentence() -> None:
    async def app(scope: dict[str, object], receive: object, send: object) -> None:
        assert callable(send)
        await send({"type": "websocket.close", "code": 1000})

    with pytest.raises(ServerUnreachableError, match="the application refused the connection"):
        await socket_frames("host", transport=httpx.ASGITransport(app))
    with contextlib.suppress(ServerUnreachableError):
        await socket_frames("127.0.0.1:9")
        pytest.fail("nobody listens there")


async def test_an_upload_may_take_longer_than_other_requests(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A server that answers late, as after megabytes on a slow line: the upload waits, a question does not."""
    monkeypatch.setattr("client.api.TIMEOUT_S", 0.5)
    answers: list[asyncio.Task[None] | None] = []

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers.append(asyncio.current_task())
        await reader.read(1)
        await asyncio.sleep(1.2)
        with contextlib.suppress(ConnectionError):
            writer.write(b'HTTP/1.1 201 Created\r\nConnection: close\r\n\r\n{"id": "up-1"}')
            writer.close()
            await writer.wait_closed()

    picture = tmp_path / "me.jpg"
    picture.write_bytes(b"any")
    server = await asyncio.start_server(late, "127.0.0.1", 0)
    async with server, ServerApi(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as api:
        assert (await api.upload(picture, consent="mine"))["id"] == "up-1"
        with pytest.raises(ServerUnreachableError):
            await api.describe()
        await asyncio.gather(*[answer for answer in answers if answer is not None])
