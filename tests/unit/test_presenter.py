"""A presenter's call goes on through lost connections; the delay that it shows is measured."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from client import presenter as presenter_module
from client.camera import CameraOptions, parse_rate, parse_size, run_camera
from client.delay_meter import DelayMeter
from client.errors import ClientError, ConnectionLostError, ServerRefusedError, ServerUnreachableError
from client.presentation import Presentation
from client.presenter import Presenter
from client.terminal import Terminal
from client.timeline import Moment
from stream.protocol import SAMPLE_RATE

BLOCK = SAMPLE_RATE // 50


class FakeAvatar:
    """A session that gives `moments` moments and then ends as told."""

    level_samples = 1_440.0

    def __init__(self, moments: int = 0, error: Exception | None = None, *, hangs: bool = False) -> None:
        self.stats: dict[str, Any] = {"fps_sent": 25.0}
        self.offered: list[np.ndarray] = []
        self.closed = False
        self._moments, self._error, self._hangs = moments, error, hangs

    async def __aenter__(self) -> FakeAvatar:
        if self._error is not None and not isinstance(self._error, ConnectionLostError):
            raise self._error
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closed = True

    async def __aiter__(self) -> AsyncIterator[Moment]:
        for index in range(self._moments):
            yield Moment(index=index, picture=np.zeros((2, 2, 3), np.uint8), pcm=np.zeros(1_920, np.int16))
        if self._hangs:
            await asyncio.sleep(60)
        if self._error:
            raise self._error

    def offer(self, pcm: np.ndarray) -> None:
        self.offered.append(pcm)


async def present(sessions: list[FakeAvatar], *, until: int) -> tuple[Presenter, list[str], int]:
    """Runs through `sessions` until so many were asked for; what was said, and how many were."""
    said: list[str] = []
    asked = 0
    done = asyncio.Event()

    async def connect() -> FakeAvatar:
        nonlocal asked
        asked += 1
        if asked > until:
            done.set()
            await asyncio.sleep(60)
        return sessions[min(asked, len(sessions)) - 1]

    presenter = Presenter(connect, presentation=Presentation(), say=said.append)  # type: ignore[arg-type]
    running = asyncio.create_task(presenter.run())
    waiting = asyncio.create_task(done.wait())
    await asyncio.wait({running, waiting}, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    failed = running.done()
    for task in (running, waiting):
        task.cancel()
    results = await asyncio.gather(running, waiting, return_exceptions=True)
    if failed and isinstance(results[0], Exception):
        raise results[0]
    return presenter, said, asked - 1


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presenter_module, "RETRY_S", (0.0, 0.01))


async def test_a_lost_connection_is_made_again_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = ConnectionLostError("The session ended: the network path broke.")
    away = ServerUnreachableError("http://here", "refused")
    sessions = [FakeAvatar(error=away), FakeAvatar(3, lost), FakeAvatar(error=away), FakeAvatar(2)]
    presenter, said, _ = await present(sessions, until=4)
    assert presenter.connections == 2
    assert presenter.moments == 5
    assert [line for line in said if line.startswith("Live")] == ["Live.", "Live again."]
    assert sum("trying again" in line for line in said) == 4
    assert all(item.closed for item in sessions if item._moments)


async def test_a_server_that_says_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presenter_module, "SILENT_S", 0.05)
    _, said, _ = await present([FakeAvatar(2, hangs=True)], until=1)
    assert any("Nothing has come" in line for line in said)


async def test_what_waiting_cannot_mend_ends_it_but_never_in_mid_call() -> None:
    refused = ServerRefusedError("Give its token with --token.", status=401)
    with pytest.raises(ServerRefusedError, match="--token"):
        await present([FakeAvatar(error=refused)], until=3)
    with pytest.raises(ClientError, match="--consent"):
        await present([FakeAvatar(error=ClientError("say who agreed: --consent"))], until=3)
    _, said, asked = await present([FakeAvatar(2), FakeAvatar(error=refused)], until=3)
    assert asked == 3
    assert any("--token" in line for line in said)


async def test_a_full_server_is_asked_again() -> None:
    full = ServerRefusedError("All places are taken.", status=503)
    presenter, said, _ = await present([FakeAvatar(error=full), FakeAvatar(1)], until=2)
    assert presenter.connections == 1
    assert "All places are taken." in said[0]


async def test_the_voice_goes_to_the_session_and_nowhere_without_one() -> None:
    avatar = FakeAvatar(1, hangs=True)

    async def connect() -> FakeAvatar:
        return avatar

    presenter = Presenter(connect, presentation=Presentation(), say=lambda _: None)  # type: ignore[arg-type]
    presenter.heard(np.zeros(BLOCK, np.int16))
    running = asyncio.create_task(presenter.run())
    while not presenter.moments:  # noqa: ASYNC110 - a test polls
        await asyncio.sleep(0.001)
    for _ in range(10):
        presenter.heard(np.zeros(BLOCK, np.int16))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert abs(sum(map(len, avatar.offered)) - 10 * BLOCK) < 40
    assert not presenter.connected


@pytest.mark.parametrize("delay_ms", [120.0, 347.0, 900.0])
def test_the_delay_is_found_by_what_is_heard(delay_ms: float) -> None:
    rng = np.random.default_rng(3)
    loud = np.repeat(rng.uniform(0, 8_000, 120), BLOCK * 5)
    voice = (loud * rng.standard_normal(len(loud))).clip(-32_000, 32_000).astype(np.int16)
    meter = DelayMeter()
    assert meter.delay_ms() is None
    for number in range(len(voice) // BLOCK):
        block = voice[number * BLOCK : (number + 1) * BLOCK]
        meter.said(block, 100 + (number + 1) * 0.02)
        meter.heard(block, 100 + number * 0.02 + delay_ms / 1000)
    assert meter.delay_ms() == pytest.approx(delay_ms, abs=3)


def test_silence_has_no_delay() -> None:
    meter = DelayMeter()
    for number in range(700):
        meter.said(np.zeros(BLOCK, np.int16), number * 0.02)
        meter.heard(np.zeros(BLOCK, np.int16), number * 0.02)
    assert meter.delay_ms() is None


def test_sizes_are_read_or_refused() -> None:
    assert parse_size("640x360") == (640, 360)
    for text in ("640", "640x", "641x360", "0x0", "axb"):
        with pytest.raises(argparse.ArgumentTypeError, match=text):
            parse_size(text)


def test_frame_rates_are_read_or_refused() -> None:
    assert parse_rate("29.97") == 29.97
    for text in ("0", "-5", "nan", "many", "1000"):
        with pytest.raises(argparse.ArgumentTypeError, match="between 1 and 120"):
            parse_rate(text)


async def test_nothing_to_do_is_a_sentence() -> None:
    options = CameraOptions(server="http://127.0.0.1:9", camera=False, voice=False)
    with pytest.raises(ClientError, match="nothing to do"):
        await run_camera(options)


def test_a_sentence_is_not_written_over() -> None:
    written: list[str] = []
    screen = Terminal(written.append, live=True)
    screen.status("figures")
    screen.say("Live.")
    screen.status("figures")
    assert written[1].startswith("\rLive. ")
    assert written[1].endswith("\n")
    assert not written[2].endswith("\n")
