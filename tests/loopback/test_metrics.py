"""/metrics counts what happened: after real sessions its values are those that the sessions themselves report."""

from __future__ import annotations

import asyncio
import os

import httpx
import pytest
import websockets
from prometheus_client.parser import text_string_to_metric_families

from stream.protocol import FPS, SAMPLE_RATE
from tests.loopback.conftest import Running
from tests.loopback.on_port import on_a_port
from tests.loopback.peer import Peer


async def values(http: httpx.AsyncClient) -> dict[str, float]:
    """The samples by name, without the prefix; labels follow it in braces."""
    text = (await http.get("/metrics")).text
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = "".join(f"{{{value}}}" for value in sample.labels.values())
            found[sample.name.removeprefix("talkalong_") + labels] = sample.value
    return found


async def test_a_session_is_counted_with_what_it_sent_and_missed(running: Running) -> None:
    before = await values(running.http)
    assert before["ready"] == 1
    assert before["sessions"] == before["frames_sent_total"] == before["engine_restarts_total"] == 0
    async with Peer(running.http) as peer:
        await peer.until(lambda: sum(message["type"] == "stats" for message in peer.messages) >= 3)
        during = await values(running.http)
        assert during["sessions"] == during["sessions_opened_total{webrtc}"] == 1
        assert during["step_milliseconds_count"] > FPS // 2
        assert during["step_milliseconds_sum"] >= 0
        session = running.server.session(peer.location.rsplit("/", 1)[1])
    stats, after = session.stats(), await values(running.http)
    assert after["sessions"] == 0
    assert after["sessions_opened_total{webrtc}"] == 1
    assert stats.frames_sent > FPS
    assert after["frames_sent_total"] == stats.frames_sent
    assert after["frames_missed_total"] == stats.frames_missed
    assert after["frames_late_total"] == stats.frames_late
    assert after["frames_skipped_total"] == stats.frames_skipped
    assert after["reanchors_total"] == stats.reanchors
    assert after["audio_concealed_milliseconds_total"] == pytest.approx(stats.audio_concealed_ms, abs=0.1)


async def test_a_restart_of_the_model_is_counted(running: Running) -> None:
    async with Peer(running.http) as peer:
        pid = running.server.engine.pid
        assert pid is not None
        os.kill(pid, 9)
        await peer.until(lambda: "engine_restarting" in peer.notices())
        assert (await values(running.http))["ready"] == 0
        await peer.until(lambda: "engine_back" in peer.notices())
        session = running.server.session(peer.location.rsplit("/", 1)[1])
    after = await values(running.http)
    assert after["ready"] == after["engine_restarts_total"] == running.server.engine.restarts == 1
    assert after["frames_skipped_total"] == session.stats().frames_skipped > 0


async def test_refusals_are_counted_by_their_code(running: Running) -> None:
    for _ in range(2):
        assert (await running.http.get("/v1/sessions/none/stats")).status_code == 404
    assert (await running.http.post("/v1/sessions", content="hello")).status_code == 415
    after = await values(running.http)
    assert after["requests_refused_total{session_not_found}"] == 2
    assert after["requests_refused_total{unsupported_media_type}"] == 1
    assert after["sessions"] == 0


async def test_a_websocket_session_is_counted_as_others_are() -> None:
    async with on_a_port() as address, httpx.AsyncClient(base_url=address) as http:
        place = address.replace("http", "ws", 1) + "/v1/sessions/ws"
        async with websockets.connect(place) as socket:
            await socket.send('{"portrait": "nobody"}')
            await socket.recv()
        async with websockets.connect(place) as socket:
            await socket.send("{}")
            await socket.recv()
            assert (await values(http))["sessions"] == 1
            await socket.send(bytes(SAMPLE_RATE))
            await socket.send('{"type": "end"}')
            async with asyncio.timeout(20):
                frames = sum([isinstance(message, bytes) async for message in socket])
        after = await values(http)
    assert frames == after["frames_sent_total"] == 13  # half a second: 12.5 frames
    assert after["sessions"] == 0
    assert after["sessions_opened_total{websocket}"] == 1
    assert after["requests_refused_total{portrait_not_found}"] == 1
