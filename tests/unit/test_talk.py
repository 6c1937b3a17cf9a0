"""The command line client's own parts: files, microphone pacing, and sentences for what is missing."""

from __future__ import annotations

import argparse
import asyncio
import threading
import time
import types
import wave
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from client import devices, talk
from client.api import ServerApi
from client.audio_file import read_pcm
from client.errors import ClientError, DeviceError, ServerRefusedError, ServerUnreachableError
from client.microphone import PACKET_SAMPLES, MicrophoneTrack, as_pcm16
from client.terminal import Terminal
from stream.protocol import SAMPLE_RATE


def write_wav(path: Path, pcm: np.ndarray, rate: int) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.astype("<i2").tobytes())
    return path


def options(*words: str) -> talk.TalkOptions:
    parser = argparse.ArgumentParser()
    talk.add_arguments(parser)
    return talk.TalkOptions(**vars(parser.parse_args(words)))


def test_any_file_becomes_48_khz_mono(tmp_path: Path) -> None:
    tone = 10_000 * np.sin(2 * np.pi * 200 * np.arange(22_050) / 22_050)
    pcm = np.concatenate(list(read_pcm(write_wav(tmp_path / "a.wav", tone, 22_050))))
    assert abs(len(pcm) - SAMPLE_RATE) < 100
    assert 9_000 < np.abs(pcm).max() < 11_000


@pytest.mark.parametrize(
    ("content", "sentence"), [(None, "There is no sound file"), (b"no sound", "cannot be read")]
)
def test_a_wrong_file_is_a_sentence(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ClientError, match=sentence):
        list(read_pcm(path))


def test_where_nobody_looks_lines_are_few() -> None:
    for live, wanted in (
        (True, ["\rone   ", "\rtwo   ", "\n"]),
        (False, ["one\n", "two\n"]),
    ):
        lines: list[str] = []
        terminal = Terminal(lines.append, live=live, width=6)
        terminal.status("one")
        terminal.status("two")
        terminal.end()
        assert lines == wanted
        assert terminal.status_s >= (1 if live else 10)


def test_pcm_types() -> None:
    assert as_pcm16(np.array([0.0, 0.5, -2.0])).tolist() == [0, 16384, -32768]
    assert as_pcm16(np.array([np.nan, np.inf, -np.inf, 0.25])).tolist() == [0, 0, 0, 8192]
    with pytest.raises(ValueError, match="mono"):
        as_pcm16(np.zeros((2, 10), np.int16))
    with pytest.raises(ValueError, match="int16, or float"):
        as_pcm16(np.zeros(10, np.int64))


async def test_the_microphone_track_is_paced_and_keeps_every_pushed_sample() -> None:
    track = MicrophoneTrack()
    pcm = np.arange(1, 10 * PACKET_SAMPLES + 1, dtype=np.int16)
    pushing = asyncio.create_task(track.push(pcm))
    await asyncio.sleep(0)
    begun = time.monotonic()
    heard = np.concatenate([(await track.recv()).to_ndarray()[0] for _ in range(10)])
    assert 0.15 < time.monotonic() - begun < 0.6
    assert (heard == pcm).all()
    await pushing
    assert not (await track.recv()).to_ndarray().any(), "silence goes on when nothing is pushed"


async def test_push_waits_for_room_and_offer_never_grows() -> None:
    track = MicrophoneTrack()
    pushing = asyncio.create_task(track.push(np.zeros(SAMPLE_RATE, np.int16)))
    await asyncio.sleep(0.01)
    assert not pushing.done()
    assert track.waiting_samples <= SAMPLE_RATE // 2
    pushing.cancel()
    track.offer(np.zeros(SAMPLE_RATE, np.int16))
    assert track.waiting_samples == SAMPLE_RATE // 10
    assert track.dropped_samples > 0


def test_missing_portaudio_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, *args: object, **more: object) -> types.ModuleType:
        if name == "sounddevice":
            raise OSError("PortAudio library not found")
        return original(name, *args, **more)  # type: ignore[arg-type]

    original = __import__
    monkeypatch.setattr("builtins.__import__", broken)
    with pytest.raises(DeviceError, match="apt install libportaudio2"):
        devices.sound()


class FakePortAudio(types.ModuleType):
    class PortAudioError(Exception):
        pass

    default = types.SimpleNamespace(device=(0, 1))
    found: tuple[dict[str, object], ...] = ()

    def query_devices(self, device: object = None, kind: str | None = None) -> tuple[dict[str, object], ...]:
        if kind is not None:
            raise self.PortAudioError("Error querying device -1")
        return self.found

    def InputStream(self, **_: object) -> object:
        raise self.PortAudioError("Error querying device -1")


def test_a_missing_microphone_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "sound", lambda: FakePortAudio("sounddevice"))
    with pytest.raises(DeviceError, match=r"talkalong devices.*--audio FILE"):
        devices.Microphone(lambda pcm: None)


def test_devices_lists_both_kinds_and_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakePortAudio("sounddevice")
    monkeypatch.setattr(devices, "sound", lambda: fake)
    assert "no sound device" in devices.listing()
    fake.found = (
        {"index": 0, "name": "Desk microphone", "max_input_channels": 2, "max_output_channels": 0},
        {"index": 1, "name": "Headphones", "max_input_channels": 0, "max_output_channels": 2},
    )
    lines = devices.listing().splitlines()
    assert lines[1].startswith(" >   0  Desk microphone")
    assert lines[3].startswith(" >   1  Headphones")


class SlowStream:
    """Knows whether it was closed while a write was going on, which is where PortAudio crashes."""

    def __init__(self) -> None:
        self.closed = self.writing = self.closed_under_a_write = False
        self.began, self.go_on = threading.Event(), threading.Event()

    def write(self, pcm: np.ndarray) -> None:
        assert not self.closed
        self.writing = True
        self.began.set()
        self.go_on.wait(10)
        self.writing = False

    def close(self) -> None:
        self.closed, self.closed_under_a_write = True, self.writing


async def test_the_loudspeaker_is_not_closed_under_a_write(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = SlowStream()

    def opened(kind: str, word: str, device: object, options: Callable[[int, int], object]) -> SlowStream:
        options(SAMPLE_RATE, 1)
        return stream

    monkeypatch.setattr(devices, "_open", opened)
    async with talk.Speaker(None, print) as speaker:
        speaker.play(np.zeros(1920, np.int16))
        await asyncio.to_thread(stream.began.wait, 10)
        asyncio.get_running_loop().call_later(0.05, stream.go_on.set)
    assert stream.closed
    assert not stream.closed_under_a_write


async def test_a_photograph_needs_consent(tmp_path: Path) -> None:
    photograph = tmp_path / "me.jpg"
    photograph.write_bytes(b"picture")
    with pytest.raises(ClientError, match="--consent"):
        await talk.find_portrait(options("--portrait", str(photograph)))
    assert await talk.find_portrait(options("--portrait", "astronaut")) == "astronaut"


def test_no_server_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    talk.add_arguments(parser)
    args = parser.parse_args(["--server", "http://127.0.0.1:9", "--mute", "--audio", "none.wav"])
    assert talk.run(args) == 1
    assert "talkalong serve" in capsys.readouterr().err


async def test_the_servers_own_sentence_reaches_the_person() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        body = {"error": {"code": "server_full", "message": "All 2 places are taken."}}
        return httpx.Response(503, json=body, headers={"Retry-After": "7"})

    async with ServerApi("http://test", transport=httpx.MockTransport(answer)) as api:
        with pytest.raises(
            ServerRefusedError, match=r"All 2 places are taken\. Try again in 7 s\."
        ) as caught:
            await api.describe()
    assert caught.value.retry_after_s == 7


async def test_an_address_that_is_none_is_a_sentence() -> None:
    async with ServerApi("http://talkalong.invalid:99") as api:
        with pytest.raises(ServerUnreachableError, match="check the address"):
            await api.describe()
