"""A real ramp against the real server with the loudness stand-in, whose limit ends it."""

from __future__ import annotations

import dataclasses

import pytest

from client.errors import ServerRefusedError
from client.latency.ramp import POLL_S, SETTLE_S, Level, Ramp
from stream.config import LimitsConfig
from stream.protocol import FPS, SessionConfig
from tests.loopback.conftest import quiet_config
from tests.loopback.on_port import on_a_port

SECONDS = SETTLE_S + 4 * POLL_S


async def test_two_sessions_are_carried_and_the_servers_limit_is_told() -> None:
    config = dataclasses.replace(quiet_config(), limits=LimitsConfig(sessions=2, close_timeout_s=2.0))
    told: list[Level] = []
    async with on_a_port(config) as url:
        ramp = Ramp(url, sessions=3, seconds=SECONDS, config=SessionConfig(), progress=told.append)
        levels = await ramp.climb()
    assert levels == told
    assert [level.sessions for level in levels] == [1, 2]
    assert ramp.stopped_by.startswith("Session 3 could not be had: ")
    assert "2" in ramp.stopped_by.partition(":")[2], "the server's own sentence names its limit"
    assert ramp.about["limits"]["sessions"] == 2
    if any(level.due < 0.9 * level.sessions * FPS * (level.to_s - level.from_s) for level in levels):
        pytest.skip("this machine is too busy: the server itself could not keep its rate")
    for level in levels:
        assert level.due == pytest.approx(level.sessions * FPS * (level.to_s - level.from_s), rel=0.15)
        assert 0 < level.cpu["server"] < 2
        assert level.cpu["model"] >= 0
        assert level.memory_mb["server"] > 50
        assert level.mouth_to_photon_ms["count"] >= 3 * level.sessions
        assert 100 < level.mouth_to_photon_ms["p50"] < 500
    assert levels[1].memory_mb.keys() == {"server", "model"}


async def test_a_server_without_a_single_place_refuses_loudly() -> None:
    config = dataclasses.replace(quiet_config(), limits=LimitsConfig(sessions=0, close_timeout_s=2.0))
    async with on_a_port(config) as url:
        ramp = Ramp(url, sessions=1, seconds=SECONDS, config=SessionConfig())
        with pytest.raises(ServerRefusedError) as refused:
            await ramp.climb()
    assert refused.value.status == 503
    assert ramp.levels == []


async def test_a_ramp_gives_up_where_most_pictures_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENERGY_MOUTH_STEP_S", "0.5")  # six times as long as its sound
    async with on_a_port() as url:
        ramp = Ramp(url, sessions=2, seconds=SECONDS, config=SessionConfig())
        levels = await ramp.climb()
    assert [level.sessions for level in levels] == [1]
    assert levels[0].miss_ratio > 0.25
    assert ramp.stopped_by.startswith("With 1 session ")
    assert ramp.carried() == 0
