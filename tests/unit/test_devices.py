"""Devices in whatever form they come, and what is said when they are not there or go away."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from client import devices, talk
from client.device_format import Mixdown, Resampler
from client.errors import DeviceError
from client.terminal import Terminal
from client.voice import PortAudioEar, PortAudioVoice
from stream.protocol import SAMPLE_RATE

SECONDS = 1.0
HZ = 440.0
LEVEL = 8_000


class Device(types.ModuleType):
    """As sounddevice with one device, which takes certain rates and numbers of channels only; time is the test's."""

    class PortAudioError(Exception):
        pass

    streams: ClassVar[list[Stream]]

    def __init__(self, *, rates: tuple[int, ...], channels: tuple[int, ...], there: bool = True) -> None:
        super().__init__("sounddevice")
        self.rates, self.channels, self.there = rates, channels, there
        self.streams = []

    def query_devices(self, device: object = None, kind: str | None = None) -> dict[str, Any]:
        if not self.there:
            raise self.PortAudioError("Error querying device -1")
        most = max(self.channels)
        return {
            "name": "Odd", "index": 0, "max_input_channels": most, "max_output_channels": most,
            "default_samplerate": float(self.rates[0]),
        }  # fmt: skip

    def InputStream(self, **options: Any) -> Stream:
        return Stream(self, **options)

    OutputStream = InputStream


class Stream:
    latency = 0.02

    def __init__(
        self,
        module: Device,
        *,
        samplerate: int,
        channels: int,
        dtype: str,
        device: object,
        callback: Callable[..., None] | None = None,
        finished_callback: Callable[[], None] | None = None,
        **_: Any,
    ) -> None:
        if not module.there:
            raise module.PortAudioError("Error querying device -1")
        if samplerate not in module.rates:
            raise module.PortAudioError("Invalid sample rate [PaErrorCode -9997]")
        if channels not in module.channels:
            raise module.PortAudioError("Invalid number of channels [PaErrorCode -9998]")
        assert dtype == "int16"
        self.module, self.rate, self.channels = module, samplerate, channels
        self.callback, self.finished = callback, finished_callback
        self.written: list[np.ndarray] = []
        self.closed = False
        module.streams.append(self)

    def start(self) -> None:
        pass

    def write(self, block: np.ndarray) -> None:
        if not self.module.there:
            raise self.module.PortAudioError("Unanticipated host error [PaErrorCode -9999]")
        assert block.ndim == 2
        assert block.shape[1] == self.channels
        self.written.append(block)

    def close(self) -> None:
        self.closed = True
        if self.finished is not None:
            self.finished()

    def unplug(self) -> None:
        self.module.there = False
        if self.finished is not None:
            self.finished()

    def hear(self, sound: np.ndarray) -> None:
        """float [N, channels], in blocks of an odd length."""
        assert self.callback is not None
        for start in range(0, len(sound), 441):
            block = sound[start : start + 441].astype(np.int16)
            self.callback(block, len(block), None, None)

    def ask(self, samples: int, delay_s: float = 0.05) -> np.ndarray:
        assert self.callback is not None
        block = np.full((samples, self.channels), 99, np.int16)
        when = types.SimpleNamespace(outputBufferDacTime=10 + delay_s, currentTime=10)
        self.callback(block, samples, when, None)
        return block


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Device]:
    def make(**form: Any) -> Device:
        device = Device(**form)
        monkeypatch.setattr(devices, "sound", lambda: device)
        return device

    return make


Plug = Callable[..., Device]


def tone(rate: int, channels: int = 1, level: float = LEVEL) -> np.ndarray:
    """float [N, channels]."""
    n = np.arange(round(SECONDS * rate))
    return np.repeat((level * np.sin(2 * np.pi * HZ * n / rate))[:, None], channels, axis=1)


def check_tone(pcm: np.ndarray, rate: int, level: float = LEVEL) -> None:
    """pcm is this tone, all of it, at this rate, without a break."""
    assert abs(len(pcm) - SECONDS * rate) <= 0.003 * rate
    middle = pcm[rate // 10 : -rate // 10].astype(float)
    n = np.arange(len(middle))
    basis = np.stack([f(2 * np.pi * HZ * n / rate) for f in (np.sin, np.cos)], axis=1)
    found, *_ = np.linalg.lstsq(basis, middle, rcond=None)
    assert np.hypot(*found) == pytest.approx(level, rel=0.03)
    assert np.abs(middle - basis @ found).max() < 0.02 * level


FORMS = [
    {"rates": (48_000,), "channels": (1,)},
    {"rates": (48_000,), "channels": (2,)},
    {"rates": (44_100,), "channels": (1, 2)},
    {"rates": (44_100,), "channels": (2,)},
    {"rates": (96_000,), "channels": (2,)},
    {"rates": (16_000,), "channels": (1,)},
    {"rates": (8_000,), "channels": (1,)},
    {"rates": (44_100, 48_000), "channels": (18,)},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_microphone_of_any_form_is_heard(plug: Plug, form: dict[str, Any]) -> None:
    device = plug(**form)
    heard: list[np.ndarray] = []
    microphone = devices.Microphone(heard.append)
    (stream,) = device.streams
    stream.hear(tone(stream.rate, stream.channels))
    assert all(block.dtype == np.int16 and block.ndim == 1 for block in heard)
    check_tone(np.concatenate(heard), SAMPLE_RATE)
    microphone.close()
    assert stream.closed


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_loudspeaker_of_any_form_is_played_on(plug: Plug, form: dict[str, Any]) -> None:
    device = plug(**form)
    loudspeaker = devices.Loudspeaker()
    for block in np.split(tone(SAMPLE_RATE)[:, 0].astype(np.int16), 25):
        loudspeaker.write(block)
    (stream,) = device.streams
    played = np.concatenate(stream.written)
    for channel in played.T:
        check_tone(channel, stream.rate)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_voice_is_pulled_for_an_output_of_any_form(plug: Plug, form: dict[str, Any]) -> None:
    device = plug(**form)
    source = np.tile(tone(SAMPLE_RATE)[:, 0], 2).astype(np.int16)
    pulled = [0]

    def pull(samples: int, now: float, heard_at: float) -> np.ndarray:
        assert 0 < heard_at - now < 0.06
        pulled[0] += samples
        return source[pulled[0] - samples : pulled[0]]

    voice = PortAudioVoice(pull, None)
    (stream,) = device.streams
    samples = stream.rate // 100
    played = np.concatenate([stream.ask(samples) for _ in range(round(100 * SECONDS))])
    voice.close()
    assert stream.closed
    for channel in played.T:
        check_tone(channel, stream.rate)
    assert abs(pulled[0] - SAMPLE_RATE * SECONDS) < 0.01 * SAMPLE_RATE


def test_one_dead_or_inverted_side_is_not_heard_as_less() -> None:
    voice = tone(SAMPLE_RATE, 2)
    for sides in ([1, 1], [1, 0], [0, 1], [1, -1], [1, 0, 0, 0]):
        sound = voice[:, :1] * np.array(sides, float)
        mixdown = Mixdown(len(sides))
        pcm = np.concatenate([mixdown.push(block.astype(np.int16)) for block in np.split(sound, 50)])
        check_tone(np.abs(pcm) * np.sign(voice[:, 0]), SAMPLE_RATE)


def test_a_side_that_dies_is_faded_out_of_the_mix() -> None:
    sound = np.concatenate([tone(SAMPLE_RATE, 2), tone(SAMPLE_RATE, 2) * [1, 0], tone(SAMPLE_RATE, 2)])
    mixdown = Mixdown(2)
    pcm = np.concatenate([mixdown.push(block.astype(np.int16)) for block in np.split(sound, 150)])
    for second in np.split(pcm.astype(float), 3):
        assert np.sqrt(2 * np.square(second[-SAMPLE_RATE // 4 :]).mean()) == pytest.approx(LEVEL, rel=0.02)
    steepest = LEVEL * 2 * np.pi * HZ / SAMPLE_RATE
    fades = np.abs(np.diff(pcm.astype(float)))
    fades[SAMPLE_RATE - 2 : SAMPLE_RATE + 2] = fades[2 * SAMPLE_RATE - 2 : 2 * SAMPLE_RATE + 2] = 0
    assert fades.max() < 1.2 * steepest, "no clicks but those that were in the sound"


def test_nothing_is_resampled_that_need_not_be() -> None:
    pcm = np.arange(-500, 500, dtype=np.int16)
    assert Resampler(48_000, 48_000).push(pcm) is pcm


def test_an_absent_device_is_said_in_the_first_errors_words(plug: Plug) -> None:
    plug(rates=(48_000,), channels=(1,), there=False)
    with pytest.raises(DeviceError, match=r"No microphone.*Error querying device -1.*--audio FILE"):
        devices.Microphone(print)
    plug(rates=(11_025,), channels=(1,))
    assert devices.Microphone(print)  # by what the device says of itself


def test_a_microphone_that_is_gone_is_said(plug: Plug) -> None:
    device = plug(rates=(48_000,), channels=(1,))
    microphone = devices.Microphone(lambda pcm: None)
    microphone.check()
    device.streams[0].unplug()
    with pytest.raises(DeviceError, match="microphone broke off; perhaps it was unplugged"):
        microphone.check()


def test_a_microphone_whose_blocks_just_end_is_said(plug: Plug, monkeypatch: pytest.MonkeyPatch) -> None:
    plug(rates=(48_000,), channels=(1,))
    microphone = devices.Microphone(lambda pcm: None)
    monkeypatch.setattr(devices, "QUIET_S", 0.01)
    time.sleep(0.02)
    with pytest.raises(DeviceError, match="broke off"):
        microphone.check()


def test_an_unplugged_device_of_a_call_is_said_and_opened_again(
    plug: Plug, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.voice.RETRY_S", 0.05)
    monkeypatch.setattr("client.voice.CHECK_S", 0.01)
    device = plug(rates=(44_100,), channels=(2,))
    said: list[str] = []
    changed = threading.Event()

    def report(sentence: str) -> None:
        said.append(sentence)
        changed.set()

    ear = PortAudioEar(lambda pcm: None, None, report=report)
    try:
        device.streams[0].unplug()
        assert changed.wait(10)
        assert said == [
            "The microphone broke off; perhaps it was unplugged. `talkalong devices` lists what there is. "
            "Trying again."
        ]
        changed.clear()
        device.there = True
        assert changed.wait(10)
        assert said[1:] == ["The sound device is back."]
        assert device.streams[0].closed
    finally:
        ear.close()
    assert device.streams[-1].closed


async def test_a_loudspeaker_that_goes_away_is_said_once_and_the_talk_goes_on(plug: Plug) -> None:
    device = plug(rates=(44_100,), channels=(2,))
    said: list[str] = []
    block = np.zeros(960, np.int16)
    async with talk.Speaker(None, Terminal(said.append, live=False)) as speaker:
        speaker.play(block)
        async with asyncio.timeout(10):
            while not device.streams[0].written:  # noqa: ASYNC110 - a test polls
                await asyncio.sleep(0.01)
            device.streams[0].unplug()
            speaker.play(block)
            while not said:  # noqa: ASYNC110 - a test polls
                await asyncio.sleep(0.01)
        for _ in range(30):
            speaker.play(block)
    assert len(said) == 1
    assert "loudspeaker broke off (Unanticipated host error" in said[0]
    assert "The talk goes on" in said[0]


async def test_a_microphone_that_goes_away_ends_the_talk_with_a_sentence(
    plug: Plug, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talk, "CHECK_S", 0.01)
    device = plug(rates=(44_100,), channels=(1,))
    microphone = devices.Microphone(lambda pcm: None)
    options = talk.TalkOptions(server="http://localhost", seconds=20)
    producing = asyncio.create_task(
        talk._produce(
            types.SimpleNamespace(stats={}),
            options,
            microphone,
            asyncio.Event(),
            Terminal(print, live=False),  # type: ignore[arg-type]
        )
    )
    await asyncio.sleep(0.05)
    assert not producing.done()
    device.streams[0].unplug()
    with pytest.raises(DeviceError, match="microphone broke off"):
        await producing


def test_only_a_loudspeaker_that_was_named_has_to_be_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:

    def missing() -> None:
        raise DeviceError("PortAudio is missing.")

    monkeypatch.setattr(devices, "sound", missing)

    async def speaker(**options: Any) -> list[str]:
        said: list[str] = []
        wanted = talk.TalkOptions(server="x", audio=tmp_path, **options)
        async with contextlib.AsyncExitStack() as stack:
            assert await talk._speaker(wanted, stack, Terminal(said.append, live=False)) is None
        return said

    assert asyncio.run(speaker()) == ["PortAudio is missing. The talk goes on, and nothing is played.\n"]
    assert asyncio.run(speaker(mute=True)) == []
    with pytest.raises(DeviceError):
        asyncio.run(speaker(loudspeaker="Desk"))
