"""A source speaks by WHIP, viewers watch by WHEP: together, in sync, encoded once, and all gone afterwards."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import threading

import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection

from stream import aiortc_patches
from stream.broadcasting.publisher import Publisher
from stream.broadcasting.shared_encoder import SharedVideo
from stream.config import LimitsConfig
from stream.protocol import AUDIO_LEAD_S
from tests.loopback.broadcasting import SDP, Source, Watcher, offer_of
from tests.loopback.conftest import Running, StartServer, quiet_config, start
from tests.loopback.peer import Peer
from tests.loopback.real_time import in_real_time
from tests.loopback.test_session import SKEW_S, gone, names, talk

# Sound is sent that much earlier, as its sender reports say; it is measured once its packet of 20 ms is complete.
SENT_LEAD_S = AUDIO_LEAD_S - 0.02


def stats_of(source: Source) -> str:
    """A source's session is like any other: its figures stand where theirs do."""
    return source.location.replace("whip", "v1/sessions") + "/stats"


def shared(running: Running, source: Source, codec: str = "H264") -> SharedVideo:
    return running.server.broadcasts.get(source.whep.removeprefix("/whep/")).video(codec)


@in_real_time
@pytest.mark.parametrize("codec", ["video/H264", "video/VP8"])
async def test_viewers_see_and_hear_the_source_together(running: Running, codec: str) -> None:
    async with Source(running.http, query="?portrait=bob&seed=5", with_picture=True) as source:
        async with Watcher(running.http, source, codec=codec) as early:
            await early.until(lambda: len(early.pictures) > 20)
            async with Watcher(running.http, source, codec=codec) as late:
                first = late.pictures[0][0] - late.offered_at
                begin, end = await talk(late, 6.0)
                stats = (await running.http.get(stats_of(source))).json()
                encoder = shared(running, source, codec.removeprefix("video/"))
                assert stats["viewers"] == 2
                for watcher in (early, late):
                    sound, picture = watcher.lag_of_sound(begin, end), watcher.lag_of_picture(begin, end)
                    assert abs(picture - sound - SENT_LEAD_S) < SKEW_S
                    delay = stats["budget"]["playout_delay_ms"] / 1000
                    assert delay - 0.03 < sound < delay + 0.15
                    tints = [tint for at, _, tint in watcher.pictures if at > begin]
                    assert np.abs(np.array(tints) - 200).max() < 12  # what this seed shows
                received = len(early.pictures)
                # Two viewers, one picture encoder: as many pictures as one of them got.
                assert abs(encoder.encoded - received) < 12
                assert encoder.key_frames <= 6
                assert encoder.dropped <= 3
        assert first < 1.0
        assert stats["reanchors"] == 0
        assert 22 < stats["fps_sent"] < 28
        await gone(lambda: running.server.audience.viewers)
        assert (await running.http.get(stats_of(source))).json()["viewers"] == 0


@in_real_time
async def test_a_lost_picture_is_mended_by_a_key_frame_for_all(running: Running) -> None:
    async with Source(running.http) as source, Watcher(running.http, source) as watcher:
        await watcher.until(lambda: len(watcher.pictures) > 20)
        encoder = shared(running, source)
        before, encoded = encoder.key_frames, encoder.encoded
        ssrc = watcher_ssrc(watcher)
        # A storm of requests makes one key frame, not ten.
        await asyncio.gather(*(watcher.video.receiver._send_rtcp_pli(ssrc) for _ in range(10)))
        await watcher.until(lambda: encoder.key_frames > before)
        await watcher.until(lambda: encoder.encoded > encoded + 15)
        assert before < encoder.key_frames <= before + 2


def watcher_ssrc(watcher: Watcher) -> int:
    remote = watcher.video.receiver
    return int(next(iter(remote._RTCRtpReceiver__remote_streams)))


@in_real_time
async def test_a_session_of_the_page_can_be_watched_too(running: Running) -> None:
    async with Peer(running.http) as peer:
        offered = await running.http.get(f"{peer.location}/stats")
        assert offered.json()["viewers"] == 0
        session = running.server.session(peer.location.rsplit("/", 1)[1])
        assert session.broadcast is not None
        assert session.id not in session.broadcast.name  # who may watch may not end it
        source = Source(running.http)
        source.speaker, source.whep = peer.speaker, f"/whep/{session.broadcast.name}"
        async with Watcher(running.http, source) as watcher:
            begin, end = await talk(watcher, 4.0)
            assert abs(watcher.lag_of_picture(begin, end) - peer.lag_of_picture(begin, end)) < SKEW_S
        await source.pc.close()


async def test_when_the_source_leaves_viewers_end_and_the_name_is_free_again(running: Running) -> None:
    async with Source(running.http, query="?stream=studio-1") as source:
        assert source.whep == "/whep/studio-1"
        async with Watcher(running.http, source) as watcher:
            assert (await running.http.delete(source.location)).status_code == 200
            await watcher.until(lambda: watcher.pc.connectionState == "closed")
            assert running.server.audience.viewers == {}
            assert running.server.sessions == {}
            async with Source(running.http, query="?stream=studio-1") as back, Watcher(running.http, back):
                assert len(running.server.audience.viewers) == 1


async def test_a_killed_source_is_let_go_and_a_muted_one_is_not(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Source(running.http) as source, Watcher(running.http, source) as watcher:
        source.speaker.stop()  # no more sound, but the connection is kept alive
        await asyncio.sleep(Publisher.silent_end_s + 1)
        assert len(running.server.sessions) == 1
        monkeypatch.setattr(Publisher, "silent_end_s", 1.0)  # the next look is at the longer time's end
        cut_off(source.pc)
        await watcher.until(lambda: watcher.pc.connectionState == "closed", timeout_s=20)
        assert running.server.sessions == {}


def cut_off(pc: RTCPeerConnection) -> None:
    """Nothing that it sends arrives any more, as if its program were killed."""
    for transport in aiortc_patches._ice_transports(pc):
        for protocol in transport._connection._protocols:
            protocol.transport.sendto = lambda *_: None


async def test_a_viewer_that_leaves_without_a_word_is_cleaned_up(running: Running) -> None:
    async with Source(running.http) as source, Watcher(running.http, source) as watcher:
        await watcher.pc.close()  # as whip-whep does, before its DELETE
        await watcher.until(lambda: not running.server.audience.viewers, timeout_s=20)
        assert (await running.http.delete(watcher.location)).status_code == 200


async def test_those_who_never_connect_are_let_go() -> None:
    limits = LimitsConfig(connect_timeout_s=0.5, close_timeout_s=1.0)
    async with start(dataclasses.replace(quiet_config(), limits=limits)) as running:
        async with asyncio.timeout(20):
            pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
            pc.addTransceiver("audio", direction="sendonly")
            placed = await running.http.post("/whip?stream=x", content=await offer_of(pc), headers=SDP)
            assert placed.status_code == 201
            viewer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
            viewer.addTransceiver("video", direction="recvonly")
            watched = await running.http.post("/whep/x", content=await offer_of(viewer), headers=SDP)
            assert watched.status_code == 201
            assert len(running.server.audience.viewers) == 1
            while running.server.audience.viewers or running.server.sessions:  # noqa: ASYNC110 - a test polls
                await asyncio.sleep(0.05)
            await asyncio.gather(pc.close(), viewer.close())


@pytest.mark.parametrize("end", ["client", "server"])
async def test_nothing_is_left_of_a_broadcast(start_server: StartServer, end: str) -> None:
    async with start_server(quiet_config()):
        pass  # whatever is made once exists now
    before = len(os.listdir("/proc/self/fd"))
    async with start_server(quiet_config()) as running:
        source = Source(running.http, with_picture=True)
        await source.__aenter__()
        watchers = [Watcher(running.http, source) for _ in range(2)]
        for watcher in watchers:
            await watcher.__aenter__()
        for watcher in watchers:
            await watcher.until(lambda watcher=watcher: len(watcher.pictures) > 10)
        if end == "client":
            for watcher in watchers:
                await watcher.__aexit__(None, None, None)
            await source.__aexit__(None, None, None)
            assert not running.server.audience.viewers
            assert not running.server.sessions
    if end == "server":
        async with asyncio.timeout(10):
            for watcher in watchers:
                await watcher.pc.close()
                await asyncio.gather(*watcher._tasks, return_exceptions=True)
            await source.pc.close()
    del watchers, watcher, source, running
    await gone(lambda: names(asyncio.all_tasks()))
    await gone(lambda: [thread.name for thread in threading.enumerate() if "decoder" in thread.name])
    await gone(lambda: max(0, len(os.listdir("/proc/self/fd")) - before))
