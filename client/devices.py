"""Microphones and loudspeakers through PortAudio, and `talkalong devices`, which lists them."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from client.errors import DeviceError
from stream.protocol import SAMPLE_RATE

logger = logging.getLogger(__name__)

BLOCK_SAMPLES = SAMPLE_RATE // 50
VIRTUAL_NAMES = (
    "blackhole",
    "vb-audio",
    "vb-cable",
    "cable input",
    "cable output",
    "loopback",
    "voicemeeter",
)


def sound() -> ModuleType:
    """The sounddevice module; raises `DeviceError` where PortAudio is missing."""
    try:
        import sounddevice
    except ImportError as error:
        raise DeviceError("The package sounddevice is missing: `pip install sounddevice`.") from error
    except OSError as error:
        raise DeviceError(
            "PortAudio is missing, so no microphone and no loudspeaker can be opened. On Debian or Ubuntu: "
            "`apt install libportaudio2`; or use --audio FILE, with --mute or --record."
        ) from error
    module: ModuleType = sounddevice
    return module


def parse_device(text: str) -> int | str:
    """A device's number or a part of its name, as the command line takes it."""
    return int(text) if text.isdigit() else text


def open_microphone(heard: Callable[[npt.NDArray[np.int16]], None], device: int | str | None = None) -> Any:
    """Starts recording 48 kHz mono; `heard` gets int16 [960] on PortAudio's thread. Returns the stream."""

    def callback(block: npt.NDArray[np.int16], samples: int, when: Any, status: Any) -> None:
        if status:
            logger.debug("microphone: %s", status)
        heard(block[:, 0].copy())

    return _open(
        "InputStream", "microphone", device, callback=callback, blocksize=BLOCK_SAMPLES, latency="low"
    )


def open_loudspeaker(device: int | str | None = None) -> Any:
    """Starts a 48 kHz mono output; its `write(int16 [N, 1])` blocks while the device's buffer is full."""
    return _open("OutputStream", "loudspeaker", device, latency="low")


def open_output(fill: Callable[[int, float], npt.NDArray[np.int16]], device: int | str | None = None) -> Any:
    """Starts a 48 kHz mono output that asks for its sound: `fill(samples, delay_s)` gives int16 [samples] on
    PortAudio's thread; the first is heard `delay_s` later (0 where the system does not say). Returns the stream."""

    def callback(block: npt.NDArray[np.int16], samples: int, when: Any, status: Any) -> None:
        if status:
            logger.debug("output: %s", status)
        block[:, 0] = fill(samples, when.outputBufferDacTime - when.currentTime)

    return _open("OutputStream", "speaker", device, callback=callback, latency=0.04, blocksize=480)


INSTEAD = {"microphone": "--audio FILE", "loudspeaker": "--mute", "speaker": "--no-microphone"}


def _open(kind: str, word: str, device: int | str | None, **options: Any) -> Any:
    module = sound()
    try:
        stream = getattr(module, kind)(
            samplerate=SAMPLE_RATE, channels=1, dtype="int16", device=device, **options
        )
        stream.start()
    except (module.PortAudioError, ValueError) as error:
        wanted = f'"{device}"' if device is not None else "by default"
        raise DeviceError(
            f"No {word} could be opened ({wanted}: {error}). `talkalong devices` lists what there is; choose "
            f"one with --{word} or use {INSTEAD[word]}."
        ) from error
    return stream


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
