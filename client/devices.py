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


def _open(kind: str, word: str, device: int | str | None, **options: Any) -> Any:
    module = sound()
    try:
        stream = getattr(module, kind)(
            samplerate=SAMPLE_RATE, channels=1, dtype="int16", device=device, **options
        )
        stream.start()
    except (module.PortAudioError, ValueError) as error:
        wanted = f'"{device}"' if device is not None else "by default"
        instead = "--audio FILE" if word == "microphone" else "--mute"
        raise DeviceError(
            f"No {word} could be opened ({wanted}: {error}). `talkalong devices` lists what there is; choose "
            f"one with --{word} or use {instead}."
        ) from error
    return stream


def listing() -> str:
    """All devices, the defaults marked by >, as lines."""
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
            lines.append(f" {mark} {item['index']:3d}  {item['name']}  ({item[channels]} channels)")
        if not found:
            lines.append("   none")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "List the microphones and loudspeakers that `talkalong talk` can use."


def run(args: argparse.Namespace) -> int:
    try:
        print(listing())
    except DeviceError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
