"""The sound devices of a call: which microphone is listened to, and where the delayed voice goes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from client import devices, pulse
from client.errors import DeviceError
from client.virtual_microphone import SINK, SOURCE_TITLE, VirtualMicrophone, real_microphone
from client.voice import PortAudioEar, PortAudioVoice, Pull, PulseEar, PulseVoice, Running

Pcm = npt.NDArray[np.int16]


def open_sound(
    pull: Pull | None,
    heard: Callable[[Pcm], None],
    stack: contextlib.ExitStack,
    *,
    microphone: int | str | None,
    speaker: int | str | None,
    report: Callable[[str], None],
) -> None:
    """Opens both; `stack` closes them. pull: gives the voice, None for a call without one. heard: takes the
    microphone's blocks. Numbers are PortAudio's, names the sound server's where there is one."""
    served = sys.platform.startswith("linux") and pulse.available()
    source = None
    if served and not isinstance(microphone, int):
        source = real_microphone(microphone)  # asked before a new device can become the default
    if pull is not None:
        stack.callback(_open_voice(pull, stack, speaker, served, report).close)
    ear: Running
    if source is not None:
        ear = PulseEar(heard, source, report=report)
        report(f"Listening to {source}.")
    else:
        ear = PortAudioEar(heard, microphone, report=report)
    stack.callback(ear.close)


def _open_voice(
    pull: Pull,
    stack: contextlib.ExitStack,
    speaker: int | str | None,
    served: bool,
    report: Callable[[str], None],
) -> Running:
    if not served or isinstance(speaker, int):
        device = speaker if speaker is not None else _cable()
        voice = PortAudioVoice(pull, device, report=report)
        name = devices.sound().query_devices(device)["name"]
        report(f"Voice: {name}. Choose its other end as the microphone in the call app.")
        return voice
    if speaker is not None:
        sink = pulse.find("sinks", speaker)
        if sink is None:
            raise DeviceError(f'There is no output "{speaker}". `talkalong devices` lists them.')
        report(f"Voice: {sink.description}.")
        return PulseVoice(pull, sink.name, report=report)
    virtual = stack.enter_context(VirtualMicrophone())
    report(f'Microphone: choose "{SOURCE_TITLE}" in the call app.')
    return PulseVoice(pull, SINK, prepare=virtual.make_again, report=report)


def _cable() -> int:
    """The number of the first virtual cable among PortAudio's outputs."""
    for item in devices.sound().query_devices():
        if item["max_output_channels"] > 0 and devices.is_virtual(str(item["name"])):
            return int(item["index"])
    raise DeviceError(
        "There is no virtual sound cable for the voice. Install BlackHole (macOS) or VB-Cable (Windows), or name an "
        "output with --speaker; docs/camera.md says how. For pictures alone use --no-microphone."
    )
