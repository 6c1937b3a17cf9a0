"""Microphones and loudspeakers through PortAudio, and `talkalong devices`, which lists them."""

from __future__ import annotations

import argparse
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from client.device_format import FromDevice, ToDevice
from client.errors import DeviceError
from stream.protocol import SAMPLE_RATE

logger = logging.getLogger(__name__)

BLOCK_SAMPLES = SAMPLE_RATE // 50
OTHER_RATES = (44_100, 96_000, 32_000, 22_050, 16_000, 8_000)
QUIET_S = 5.0  # some systems do not say that a microphone is gone: its blocks just end
VIRTUAL_NAMES = (
    "blackhole",
    "vb-audio",
    "vb-cable",
    "cable input",
    "cable output",
    "loopback",
    "voicemeeter",
)

Pcm = npt.NDArray[np.int16]
Device = int | str | None
Heard = Callable[[Pcm], None]
Fill = Callable[[int, float], Pcm]


def sound() -> ModuleType:
    """The sounddevice module; raises `DeviceError` where PortAudio is missing."""
    try:
        import sounddevice
    except ImportError as error:
        raise DeviceError("The package sounddevice is missing: `pip install sounddevice`.") from error
    except OSError as error:
        raise DeviceError(
            "PortAudio is missing, so no microphone and no loudspeaker can be opened. On Debian or Ubuntu: "
            "`apt install libportaudio2`; or use --audio FILE."
        ) from error
    module: ModuleType = sounddevice
    return module


def parse_device(text: str) -> int | str:
    """A device's number or a part of its name, as the command line takes it."""
    return int(text) if text.isdigit() else text


class Microphone:
    """A running input of PortAudio, in whatever rate and channels the device has; `heard` gets int16 [N], 48 kHz mono,
    about 20 ms of it, on PortAudio's thread. The constructor raises `DeviceError`."""

    def __init__(self, heard: Heard, device: Device = None) -> None:
        self._ended = False
        self._heard_s = time.monotonic()

        def options(rate: int, channels: int) -> dict[str, Any]:
            ours = FromDevice(rate, channels)

            def callback(block: Pcm, samples: int, when: Any, status: Any) -> None:
                if status:
                    logger.debug("microphone: %s", status)
                self._heard_s = time.monotonic()
                heard(ours.push(block))

            return {"callback": callback, "blocksize": rate // 50, "latency": "low"}

        self._stream = _open("InputStream", "microphone", device, options, ended=self._end)

    def _end(self) -> None:
        self._ended = True

    def check(self) -> None:
        """Raises `DeviceError` once it has broken off."""
        if self._ended or time.monotonic() - self._heard_s > QUIET_S:
            raise _broken("microphone")

    def close(self) -> None:
        self._stream.close()


class Loudspeaker:
    """A running output that is written to; the constructor raises `DeviceError`."""

    def __init__(self, device: Device = None) -> None:
        self._in_use = threading.Lock()  # PortAudio crashes where a stream is closed under a write

        def options(rate: int, channels: int) -> dict[str, Any]:
            self._theirs = ToDevice(rate, channels)
            return {"latency": "low"}

        self._stream = _open("OutputStream", "loudspeaker", device, options)

    def write(self, pcm: Pcm) -> None:
        """int16 [N], 48 kHz mono; blocks while the device's buffer is full. Raises `DeviceError` once it is gone."""
        try:
            with self._in_use:
                if not self._stream.closed:
                    self._stream.write(self._theirs.push(pcm))
        except sound().PortAudioError as error:
            raise _broken("loudspeaker", error) from error

    def close(self) -> None:
        """Waits for a write that is going on; later ones do nothing."""
        with self._in_use:
            self._stream.close()


class Output:
    """A running output that asks for its sound: `fill(samples, delay_s)` gives int16 [samples], 48 kHz mono, on
    PortAudio's thread; the first is heard `delay_s` later (0 where the system does not say). The constructor raises
    `DeviceError`."""

    def __init__(self, fill: Fill, device: Device = None) -> None:
        self._ended = False

        def options(rate: int, channels: int) -> dict[str, Any]:
            theirs = ToDevice(rate, channels)
            waiting: Pcm = np.zeros((0, channels), np.int16)  # resampled already, not asked for yet

            def callback(block: Pcm, samples: int, when: Any, status: Any) -> None:
                nonlocal waiting
                if status:
                    logger.debug("output: %s", status)
                delay_s = when.outputBufferDacTime - when.currentTime
                while (missing := samples - len(waiting)) > 0:
                    ahead_s = len(waiting) / rate if delay_s > 0 else 0.0
                    wanted = math.ceil(missing * SAMPLE_RATE / rate)
                    waiting = np.concatenate([waiting, theirs.push(fill(wanted, delay_s + ahead_s))])
                block[:], waiting = waiting[:samples], waiting[samples:]

            return {"callback": callback, "blocksize": rate // 100, "latency": 0.04}

        self._stream = _open("OutputStream", "speaker", device, options, ended=self._end)

    @property
    def latency_s(self) -> float:
        """The usual delay of what is filled in."""
        return float(self._stream.latency)

    def _end(self) -> None:
        self._ended = True

    def check(self) -> None:
        """Raises `DeviceError` once it has broken off."""
        if self._ended:
            raise _broken("speaker")

    def close(self) -> None:
        self._stream.close()


INSTEAD = {"microphone": "--audio FILE", "loudspeaker": "--mute", "speaker": "--no-microphone"}


def _open(
    kind: str,
    word: str,
    device: Device,
    options: Callable[[int, int], dict[str, Any]],
    *,
    ended: Callable[[], None] | None = None,
) -> Any:
    """A started stream in the first form that the device takes. options: for a rate and channels. ended: called on
    PortAudio's thread when the stream ends, for whatever reason."""
    module = sound()
    first: Exception | None = None
    for rate, channels in _forms(module, kind, device):
        stream = None
        try:
            stream = getattr(module, kind)(
                samplerate=rate, channels=channels, dtype="int16", device=device, finished_callback=ended,
                **options(rate, channels),
            )  # fmt: skip
            stream.start()
        except (module.PortAudioError, ValueError) as error:
            first = first or error
            if stream is not None:
                stream.close()
        else:
            if (rate, channels) != (SAMPLE_RATE, 1):
                logger.info("the %s runs at %d Hz with %d channel(s)", word, rate, channels)
            return stream
    wanted = f'"{device}"' if device is not None else "by default"
    raise DeviceError(
        f"No {word} could be opened ({wanted}: {first}). `talkalong devices` lists what there is; choose "
        f"one with --{word} or use {INSTEAD[word]}."
    ) from first


def _forms(module: ModuleType, kind: str, device: Device) -> Iterator[tuple[int, int]]:
    """Rates and channels to try: ours, then what the device says of itself, then what others have."""
    yield SAMPLE_RATE, 1
    side = "input" if kind == "InputStream" else "output"
    try:
        about = module.query_devices(device, side)
        most, own = int(about[f"max_{side}_channels"]), round(float(about["default_samplerate"]))
    except (module.PortAudioError, ValueError, KeyError):
        return
    channels = [count for count in dict.fromkeys((1, 2, most)) if count <= max(most, 1)]
    for rate in dict.fromkeys((SAMPLE_RATE, own, *OTHER_RATES)):
        for count in channels:
            if (rate, count) != (SAMPLE_RATE, 1):
                yield rate, count


def _broken(word: str, error: Exception | None = None) -> DeviceError:
    reason = f" ({error})" if error is not None else ""
    return DeviceError(
        f"The {word} broke off{reason}; perhaps it was unplugged. `talkalong devices` lists what there is."
    )


def listing() -> str:
    """PortAudio's devices, the defaults marked by > and virtual ones by name, as lines."""
    module = sound()
    devices = list(module.query_devices())
    if not devices:
        return (
            "PortAudio finds no sound device. Plug in a microphone or start the sound server (PipeWire, "
            "PulseAudio); inside a container, pass the host's sound devices on."
        )
    default_input, default_output = module.default.device
    lines = []
    for title, channels, default in (
        ("Microphones", "max_input_channels", default_input),
        ("Loudspeakers", "max_output_channels", default_output),
    ):
        lines.append(f"{title}:")
        found = [item for item in devices if item[channels] > 0]
        for item in found:
            mark = ">" if item["index"] == default else " "
            virtual = "  virtual" if is_virtual(str(item["name"])) else ""
            lines.append(f" {mark} {item['index']:3d}  {item['name']}  ({item[channels]} channels){virtual}")
        if not found:
            lines.append("   none")
    return "\n".join(lines)


def is_virtual(name: str) -> bool:
    """Whether this is the name of a known virtual sound cable."""
    return any(word in name.lower() for word in VIRTUAL_NAMES)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List microphones, loudspeakers and virtual cameras. > marks what `talkalong talk` and `talkalong camera` "
        "use if nothing else is asked for."
    )


def run(args: argparse.Namespace) -> int:
    from client import virtual_devices

    status = 0
    for part in (listing, virtual_devices.sound_server_listing, virtual_devices.camera_listing):
        try:
            if lines := part():
                print(lines)
        except DeviceError as error:
            print(error, file=sys.stderr)
            status = status or int(part is listing and not virtual_devices.has_sound_server())
    return status
