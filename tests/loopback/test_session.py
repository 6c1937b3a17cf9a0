"""A whole conversation over loopback: own voice and picture back, in sync, and nothing left afterwards."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

import av
import numpy as np
import pytest

from stream.config import ServeConfig
from stream.portraits.entry import Entry
from stream.portraits.gallery import Gallery
from stream.protocol import SessionConfig
from tests.loopback.conftest import Running, StartServer, quiet_config, refuse_pictures
from tests.loopback.peer import AMPLITUDE, Peer, Speaker
from tests.loopback.real_time import in_real_time
from tests.streaming.portraits import plain_portrait

# These machines are busy: a quiet one shows a few milliseconds.
SKEW_S = 0.04


async def talk(peer: Peer, seconds: float) -> tuple[float, float]:
    """Let the peer talk; the wall times in between."""
    start = time.monotonic()
    await asyncio.sleep(seconds)
    return start + 1.0, time.monotonic()


@in_real_time
@pytest.mark.parametrize("codec", ["video/H264", "video/VP8"])
async def test_voice_and_picture_come_back_together_after_the_playout_delay(
    running: Running, codec: str
) -> None:
    async with Peer(running.http, codec=codec) as peer:
        first = peer.pictures[0][0] - peer.offered_at
        start, end = await talk(peer, 6.0)
        sound, picture = peer.lag_of_sound(start, end), peer.lag_of_picture(start, end)
        stats = await peer.stats()
    delay = stats["budget"]["playout_delay_ms"] / 1000
    assert first < 1.0  # the portrait is there at once
    assert abs(picture - sound) < SKEW_S
    assert delay - 0.03 < sound < delay + 0.15
    assert stats["codec"] == codec.removeprefix("video/")
    assert stats["state"] == "live"
    assert stats["reanchors"] == 0
    assert stats["audio_underrun_ms"] == 0
    assert 22 < stats["fps_sent"] < 28


class OneSided(Speaker):
    """The same voice on two channels, each times its side."""

    def __init__(self, seed: int, sides: tuple[int, int]) -> None:
        super().__init__(seed)
        self._sides = np.array(sides, np.int16)

    async def recv(self) -> av.AudioFrame:
        mono = await super().recv()
        pcm = mono.to_ndarray()[0][:, None] * self._sides
        frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = mono.sample_rate, mono.pts, mono.time_base
        return frame


@pytest.mark.parametrize("sides", [(1, -1), (0, 1)])
async def test_a_microphone_with_an_inverted_or_a_dead_side_is_heard(
    running: Running, sides: tuple[int, int]
) -> None:
    peer = Peer(running.http)
    peer.speaker = OneSided(1, sides)
    async with peer:
        start, end = await talk(peer, 4.0)
        peer.lag_of_sound(start, end)  # follows the speaker, or this fails
        peer.lag_of_picture(start, end)
    loud = np.percentile([level for at, level in peer.sounds if at > start], 80)
    assert 20 * np.log10(loud / (AMPLITUDE * 2 / np.pi)) == pytest.approx(0, abs=1.5)


async def test_the_portrait_rests_until_someone_speaks(running: Running) -> None:
    async with Peer(running.http) as peer:
        _, brightness, _ = peer.pictures[0]
        assert brightness == pytest.approx(90, abs=6)  # the picture itself


async def test_controls_and_statistics_travel_on_the_data_channel(running: Running) -> None:
    async with Peer(running.http, config=SessionConfig(portrait="bob")) as peer:
        await peer.until(lambda: sum(message["type"] == "stats" for message in peer.messages) >= 2)
        stats = next(message for message in reversed(peer.messages) if message["type"] == "stats")
        assert stats["portrait"] == "bob"
        assert stats["budget"]["mouth_to_photon_ms"] > stats["budget"]["playout_delay_ms"]
        peer.send({"type": "controls", "expressiveness": 0.0, "head_motion": 0.5, "gaze": 1.5})
        peer.send({"type": "ping", "id": 7})
        peer.send({"type": "dance"})
        await peer.until(
            lambda: {"controls", "pong", "notice"} <= {message["type"] for message in peer.messages}
        )
        notice = next(message for message in peer.messages if message["type"] == "notice")
        assert notice["code"] == "bad_message"
        assert "dance" in notice["message"]
        await peer.until(lambda: still_although_it_was_loud(peer))
        assert (await peer.stats())["controls"] == {
            "expressiveness": 0.0,
            "head_motion": 0.5,
            "gaze": 1.5,
        }


def still_although_it_was_loud(peer: Peer) -> bool:
    """The mouth did not move in the last 1.5 s, and heard both silence and voice half a second before."""
    now = time.monotonic()
    mouths = [mouth for at, mouth, _ in peer.pictures if at > now - 1.5]
    said = peer.speaker.level(np.linspace(now - 1.5, now - 0.5, 100))
    return len(mouths) > 10 and np.ptp(mouths) < 8 and np.ptp(said) == 1.0


@in_real_time
async def test_two_sessions_never_mix(running: Running) -> None:
    async with (
        Peer(running.http, seed=1, config=SessionConfig(seed=1)) as a,
        Peer(running.http, seed=2, config=SessionConfig(seed=5)) as b,
    ):
        start, end = await talk(a, 6.0)
        for peer, tint in ((a, 40), (b, 200)):
            peer.lag_of_sound(start, end)  # follows its own speaker, or this fails
            peer.lag_of_picture(start, end)
            tints = [value for at, _, value in peer.pictures if at > start]
            assert np.abs(np.array(tints) - tint).max() < 12
        b.speaker = a.speaker
        with pytest.raises(AssertionError, match="does not follow"):
            b.lag_of_picture(start, end)


@in_real_time
@pytest.mark.parametrize("loss", [0.01, 0.05])
async def test_loss_on_the_uplink_keeps_sync_and_adds_no_lasting_delay(running: Running, loss: float) -> None:
    async with Peer(running.http, seed=3, loss=loss) as peer:
        begin, middle = await talk(peer, 5.0)
        _, end = await talk(peer, 5.0)
        stats = await peer.stats()
        before, after = peer.lag_of_sound(begin, middle), peer.lag_of_sound(middle, end)
        skew = peer.lag_of_picture(begin, end) - peer.lag_of_sound(begin, end)
    assert peer.dropped > 0
    assert stats["packets_lost"] > 0 or loss < 0.02
    assert stats["audio_concealed_ms"] >= 20 * peer.dropped * 0.5
    assert stats["reanchors"] == 0
    assert after - before < 0.03
    assert abs(skew) < SKEW_S
    assert before < stats["budget"]["playout_delay_ms"] / 1000 + 0.15


@in_real_time
async def test_the_model_process_is_killed_in_mid_sentence_and_the_session_lives(running: Running) -> None:
    async with Peer(running.http, seed=6, config=SessionConfig(seed=2)) as peer:
        await peer.until(lambda: len(peer.pictures) > 50)
        restarts = running.server.engine.restarts
        killed_at = time.monotonic()
        pid = running.server.engine.pid
        assert pid is not None
        os.kill(pid, 9)
        await peer.until(lambda: "engine_restarting" in peer.notices())
        health = await running.http.get("/healthz")
        assert health.status_code == 503
        assert health.json()["status"] == "restarting"
        await peer.until(lambda: "engine_back" in peer.notices())
        start, end = await talk(peer, 5.0)
        stats = await peer.stats()
        for events in (peer.pictures, peer.sounds):  # neither stopped while the model was away
            arrivals = np.array([event[0] for event in events])
            assert np.diff(arrivals[arrivals > killed_at]).max() < 0.4
        skew = peer.lag_of_picture(start, end) - peer.lag_of_sound(start, end)
        assert (await running.http.get("/healthz")).status_code == 200
        assert stats["engine_restarts"] == restarts + 1
        assert stats["state"] == "live"
        assert stats["frames_skipped"] > 0
        assert abs(skew) < SKEW_S
        tints = [tint for at, _, tint in peer.pictures if at > start]
        assert np.mean(tints) == pytest.approx(80, abs=12)  # the same session as before


async def test_a_peer_that_leaves_without_a_word_is_cleaned_up(running: Running) -> None:
    async with Peer(running.http) as peer:
        await peer._pc.close()
        async with asyncio.timeout(20):
            while running.server.sessions:  # noqa: ASYNC110 - a test polls
                await asyncio.sleep(0.05)
        assert (await running.http.get(f"{peer.location}/stats")).status_code == 404


async def gone(left: Callable[[], Collection[object] | int]) -> None:
    """What is on its way out gets ten seconds; the assertion names what stays."""
    end = time.monotonic() + 10.0
    while left() and time.monotonic() < end:  # noqa: ASYNC110 - a test polls
        await asyncio.sleep(0.01)
    assert not left()


def names(tasks: set[asyncio.Task[object]]) -> list[str]:
    return sorted(task.get_name() for task in tasks if task is not asyncio.current_task())


@pytest.mark.parametrize("end", ["client", "server"])
async def test_closing_leaves_no_task_thread_process_or_memory(start_server: StartServer, end: str) -> None:
    async with start_server(quiet_config()):
        pass  # whatever is made once (resolvers, executors) exists now
    before = len(os.listdir("/proc/self/fd")), set(os.listdir("/dev/shm"))
    async with start_server(quiet_config()) as running:
        pid = running.server.engine.pid
        peers = [Peer(running.http, seed=seed) for seed in (1, 2)]
        for peer in peers:
            await peer.__aenter__()
        for peer in peers:
            await peer.until(lambda peer=peer: len(peer.pictures) > 20)
        if end == "client":
            for peer in peers:
                await peer.__aexit__(None, None, None)
    if end == "server":
        async with asyncio.timeout(10):  # the server has gone: its peers end on their own
            for peer in peers:
                await peer._pc.close()
                await asyncio.gather(*peer._tasks, return_exceptions=True)
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    del peers, peer, running
    await gone(lambda: names(asyncio.all_tasks()))
    await gone(lambda: [thread.name for thread in threading.enumerate() if "decoder" in thread.name])
    await gone(lambda: set(os.listdir("/dev/shm")) - before[1])
    await gone(lambda: max(0, len(os.listdir("/proc/self/fd")) - before[0]))


async def test_a_real_pipeline_talks(start_server: StartServer) -> None:
    """The untrained tiny model, from its YAML, end to end; it moves, whatever it shows."""
    import dataclasses

    from pipeline import checkpoint
    from stream.config import ModelConfig

    model = ModelConfig(name="configs/model/tiny.yaml", threads=1, nice=0, warm_up_windows=4)
    config: ServeConfig = dataclasses.replace(quiet_config(), model=model)
    portrait = checkpoint.build(Path(model.name)).prepare(plain_portrait())
    gallery = Gallery([Entry(id="ada", portrait=portrait, source="bundled")], prepare=refuse_pictures)
    async with start_server(config, gallery=gallery) as running, Peer(running.http) as peer:
        await peer.until(lambda: len(peer.pictures) > 60)
        stats = await peer.stats()
        assert stats["state"] == "live"
        assert stats["stages_ms"].keys() == {"features", "denoise", "draw"}
        assert stats["step_ms"]["p50"] > 0
        assert stats["denoising_steps"] >= 1
