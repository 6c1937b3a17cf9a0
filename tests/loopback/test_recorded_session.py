"""A real session is recorded on the server: in step, said so, limited, listed, and behind the token."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import io
import os
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest

from client.peer import AvatarClient
from client.recorder import Recorder
from client.timeline import Moment
from stream.config import RecordingConfig, SecurityConfig, ServeConfig
from stream.protocol import FPS, SAMPLE_RATE
from stream.recordings.recording_file import SLOT_SAMPLES
from stream.recordings.recording_folder import RecordingFolder
from tests.loopback.conftest import Running, StartServer, quiet_config
from tests.loopback.peer import AMPLITUDE, STEP_S, TONE_HZ, Peer
from tests.loopback.real_time import in_real_time
from tests.unit.played import Played


def recording_config(folder: Path, **more: Any) -> ServeConfig:
    recording = RecordingConfig(
        **({"allowed": True, "directory": str(folder), "min_free_megabytes": 0.0} | more)
    )
    return dataclasses.replace(quiet_config(), recording=recording)


def skew_ms(played: Played) -> float:
    """How much later the sound is than the picture. The stand-in's picture k is as bright as its 40 ms are loud: the
    shift of the sound at which that fits best, which must be a good fit."""
    slots = np.arange(5, len(played.light) - 5) * SLOT_SAMPLES
    light = played.light[5:-5]
    fits = {}
    for shift_ms in range(-80, 81):
        first = slots + shift_ms * SAMPLE_RATE // 1000
        loud = [np.sqrt(np.mean(np.square(played.pcm[at : at + SLOT_SAMPLES]))) for at in first]
        fits[shift_ms] = float(np.corrcoef(light, loud)[0, 1])
    best = max(fits, key=fits.__getitem__)
    assert fits[best] > 0.95, f"the picture does not follow the sound (r = {fits[best]:.2f})"
    return best


async def recordings(running: Running, **options: Any) -> list[dict[str, Any]]:
    answer = await running.http.get("/v1/recordings", **options)
    assert answer.status_code == 200, answer.text
    entries: list[dict[str, Any]] = answer.json()["recordings"]
    return entries


def one_more(place: Path) -> Path:
    """An empty folder for each attempt."""
    folder = place / str(len(os.listdir(place)))
    folder.mkdir()
    return folder


async def recorded(peer: Peer, seconds: float) -> dict[str, Any]:
    """The recording's figures once it is so long."""
    async with asyncio.timeout(60):
        while (stats := (await peer.stats())["recording"])["seconds"] < seconds:  # noqa: ASYNC110 - a test polls
            await asyncio.sleep(0.1)
    figures: dict[str, Any] = stats
    return figures


@in_real_time
async def test_a_session_is_recorded_in_step_and_its_peer_knows(
    start_server: StartServer, tmp_path: Path
) -> None:
    folder = one_more(tmp_path)
    async with start_server(recording_config(folder)) as running, Peer(running.http, seed=4) as peer:
        peer.send({"type": "recording", "on": True, "title": "Über\nuns"})
        await peer.until(lambda: "recording_started" in peer.notices())
        stats = await recorded(peer, 6.5)
        assert [entry["state"] for entry in await recordings(running)] == ["recording"]
        peer.send({"type": "recording", "on": False})
        await peer.until(lambda: "recording_stopped" in peer.notices())
        told = [message for message in peer.messages if message["type"] == "recording"]
        assert [message["on"] for message in told] == [True, False]
        session_stats = await peer.stats()
        (entry,) = await recordings(running)
        head = await running.http.get(entry["url"], headers={"Range": "bytes=4-7"})
        whole = await running.http.get(entry["url"])
    assert stats["seconds"] > 6
    assert stats["dropped_pictures"] == stats["dropped_sound_ms"] == 0
    assert session_stats["recording"] == {}
    assert entry == told[1]["recording"]
    assert (entry["state"], entry["title"], entry["portrait"]) == ("complete", "Über uns", "Ada")
    assert (head.status_code, head.content) == (206, b"ftyp")
    path = folder / f"{entry['id']}.mp4"
    assert whole.content == path.read_bytes()
    assert len(whole.content) == entry["bytes"]
    with av.open(io.BytesIO(whole.content)) as container:
        assert container.metadata["comment"].startswith("AI generated")
    played = Played(path)
    assert len(played.light) / FPS == pytest.approx(entry["seconds"], abs=0.01)
    assert abs(skew_ms(played)) <= 2


async def test_http_starts_and_stops_and_deletes(start_server: StartServer, tmp_path: Path) -> None:
    config = dataclasses.replace(recording_config(tmp_path), security=SecurityConfig(token="secret"))
    token = {"Authorization": "Bearer secret"}
    async with start_server(config) as running:
        running.http.headers.update(token)
        async with Peer(running.http) as peer:
            del running.http.headers["Authorization"]
            for method, path in (
                ("POST", f"{peer.location}/recording"),
                ("DELETE", f"{peer.location}/recording"),
                ("GET", "/v1/recordings"),
                ("GET", "/v1/recordings/x"),
                ("DELETE", "/v1/recordings/x"),
            ):
                assert (await running.http.request(method, path)).status_code == 401, (method, path)
            running.http.headers.update(token)
            begun = await running.http.post(f"{peer.location}/recording", json={"title": "By hand"})
            again = await running.http.post(f"{peer.location}/recording")
            assert (begun.status_code, again.status_code) == (201, 201)
            assert begun.headers["location"] == again.headers["location"] == begun.json()["url"]
            await peer.until(lambda: "recording_started" in peer.notices())
            refused = await running.http.delete(begun.headers["location"])
            assert refused.json()["error"]["code"] == "recording_running"
            await recorded(peer, 0.5)
            ended = await running.http.delete(f"{peer.location}/recording")
            (entry,) = ended.json()["recordings"]
            assert entry["state"] == "complete"
            assert entry["title"] == "By hand"
            assert (await running.http.delete(f"{peer.location}/recording")).json() == {"recordings": []}
        assert (await running.http.delete(entry["url"])).status_code == 204
        for gone in (entry["url"], "/v1/recordings/..%2f..%2fetc%2fpasswd"):
            assert (await running.http.get(gone)).status_code == 404
        assert os.listdir(tmp_path) == []


async def test_it_is_off_unless_the_operator_allows_it(running: Running) -> None:
    async with Peer(running.http) as peer:
        answer = await running.http.post(f"{peer.location}/recording")
        assert answer.status_code == 403
        assert "allow" in answer.json()["error"]["message"]
        peer.send({"type": "recording", "on": True})
        peer.send({"type": "recording", "on": "yes"})
        await peer.until(lambda: {"recording_off", "bad_message"} <= set(peer.notices()))
    assert (await running.http.get("/v1/server")).json()["recording"] is False


async def test_every_session_can_be_recorded_and_is_kept_when_it_ends(
    start_server: StartServer, tmp_path: Path
) -> None:
    async with start_server(recording_config(tmp_path, allowed=False, every_session=True)) as running:
        async with Peer(running.http) as peer:
            await peer.until(lambda: "recording_started" in peer.notices())
            peer.send({"type": "recording", "on": False})
            assert (await running.http.delete(f"{peer.location}/recording")).status_code == 403
            await peer.until(lambda: "recording_off" in peer.notices())
            await recorded(peer, 1.6)
        async with asyncio.timeout(20):
            while running.server.sessions:  # noqa: ASYNC110 - a test polls
                await asyncio.sleep(0.05)
        (entry,) = await recordings(running)
        assert entry["state"] == "complete"
        assert entry["seconds"] > 1.5


async def test_a_limit_and_an_impossible_folder_are_sentences_and_the_session_goes_on(
    start_server: StartServer, tmp_path: Path
) -> None:
    async with (
        start_server(recording_config(tmp_path, max_minutes=1 / 60)) as running,
        Peer(running.http) as peer,
    ):
        peer.send({"type": "recording", "on": True})
        await peer.until(lambda: "recording_time_limit" in peer.notices())
        notice = next(message for message in peer.messages if message.get("code") == "recording_time_limit")
        assert notice["level"] == "warning"
        assert "1 s" in notice["message"]
        (entry,) = await recordings(running)
        assert entry["seconds"] == pytest.approx(1.0, abs=0.05)
        await _fill_the_disk(running, peer)
        (tmp_path / "file").write_text("in the way")
        running.server.recordings.directory = tmp_path / "file"
        answer = await running.http.post(f"{peer.location}/recording")
        assert answer.status_code == 503
        assert "its operator can name another" in answer.json()["error"]["message"]
        seen = len(peer.pictures)
        await peer.until(lambda: len(peer.pictures) > seen + 10)


class _Full:
    """A file on a disk that has no room any more."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def _fill_the_disk(running: Running, peer: Peer) -> None:
    answer = await running.http.post(f"{peer.location}/recording")
    (session,) = running.server.sessions.values()
    recording = session.recorder._recording
    assert recording is not None
    output = recording._file._output
    output._file = _Full(output._file)
    await peer.until(lambda: "recording_disk_full" in peer.notices())
    notice = next(message for message in peer.messages if message.get("code") == "recording_disk_full")
    assert "No space left on device" in notice["message"]
    assert answer.status_code == 201


async def test_what_a_crash_left_is_found_at_start_up(start_server: StartServer, tmp_path: Path) -> None:
    folder = RecordingFolder(recording_config(tmp_path).recording)
    file = folder.create(title="interrupted", portrait="Ada")
    for slot in range(100):
        file.add_sound(slot * 1920, np.zeros(1920, np.int16))
        file.add_picture(slot, np.full((96, 64), slot, np.uint8))
    torn = file.path.read_bytes()[:-10]
    file.close()
    file.path.write_bytes(torn)
    (tmp_path / "holiday.mp4").write_bytes(b"not ours")
    async with start_server(recording_config(tmp_path)) as running:
        (entry,) = await recordings(running)
        assert (entry["state"], entry["title"]) == ("partial", "interrupted")
        assert 1.0 <= entry["seconds"] <= 4.0
        data = (await running.http.get(entry["url"])).content
        assert len(data) < len(torn)
        assert (await running.http.delete(entry["url"])).status_code == 204
    assert os.listdir(tmp_path) == ["holiday.mp4"]


async def test_without_a_token_only_the_own_machine_sees_the_list(
    start_server: StartServer, tmp_path: Path
) -> None:
    async with start_server(recording_config(tmp_path)) as running:
        app = running.http._transport.app  # type: ignore[attr-defined]
        transport = httpx.ASGITransport(app, client=("192.0.2.7", 4_000))
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as stranger:
            assert (await stranger.get("/v1/recordings")).json()["error"]["code"] == "token_needed"
            assert (await stranger.delete("/v1/recordings/x")).status_code == 403


@in_real_time
async def test_the_client_records_in_step_as_well(start_server: StartServer, tmp_path: Path) -> None:
    """The same session, recorded here and there."""
    steps = np.random.default_rng(9).random(60) < 0.4
    n = np.arange(len(steps) * round(STEP_S * SAMPLE_RATE))
    pcm = (AMPLITUDE * np.sin(2 * np.pi * TONE_HZ * n / SAMPLE_RATE)).astype(np.int16)
    pcm *= np.repeat(steps, round(STEP_S * SAMPLE_RATE))
    folder = one_more(tmp_path)
    path = folder / "talk.mp4"
    async with start_server(recording_config(folder / "there", every_session=True)) as running:
        transport = httpx.ASGITransport(running.http._transport.app)  # type: ignore[attr-defined]
        with Recorder(path) as recorder:
            async with AvatarClient("http://testserver", transport=transport) as avatar:
                speaking = asyncio.create_task(avatar.push(pcm))
                moment: Moment
                async for moment in avatar:
                    await asyncio.to_thread(recorder.write, moment)
                    if moment.index > 11 * FPS:
                        break
                speaking.cancel()
                await asyncio.gather(speaking, return_exceptions=True)
    for file in (path, next((folder / "there").glob("*.mp4"))):
        assert abs(skew_ms(Played(file))) <= 20, file
