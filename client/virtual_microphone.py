"""The virtual microphone: a null sink that Talkalong plays into, and a source that call apps list as a microphone.

Made when the command starts and removed when it ends. What a killed run left behind is removed by the next one: the
devices carry the process that made them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from pathlib import Path
from types import TracebackType
from typing import Self

from client import pulse
from client.errors import DeviceError
from stream.protocol import SAMPLE_RATE

logger = logging.getLogger(__name__)

SINK = "talkalong_voice"
SOURCE = "talkalong_microphone"
SINK_TITLE = "Talkalong voice"
SOURCE_TITLE = "Talkalong microphone"
OWNER = "talkalong.owner"


class VirtualMicrophone:
    """A context manager; inside, `SINK` takes the voice and `SOURCE` is the microphone."""

    def __init__(self) -> None:
        self._modules: list[str] = []

    def __enter__(self) -> Self:
        remove_left_behind()
        # A new device may become the default: then the speaker would hear itself, or music be sent into the call.
        before = {kind: pulse.default_device(kind) for kind in ("sources", "sinks")}
        try:
            self._load("module-null-sink", f"sink_name={SINK}", _properties("sink", SINK_TITLE))
            # Call apps leave out a sink's own monitor; a source made of it they list.
            self._load(
                "module-remap-source",
                f"master={SINK}.monitor",
                f"source_name={SOURCE}",
                _properties("source", SOURCE_TITLE),
            )
            for kind, name in before.items():
                if name and pulse.default_device(kind) != name:
                    pulse.pactl(f"set-default-{kind[:-1]}", name)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """May be called more than once."""
        while self._modules:
            with contextlib.suppress(DeviceError):  # the sound server may be gone, and they with it
                pulse.pactl("unload-module", self._modules.pop())

    def make_again(self) -> None:
        """After the sound server came back without our devices; does nothing where they are still there."""
        if pulse.find("sources", SOURCE) is None:
            self._modules.clear()
            self.__enter__()

    def _load(self, module: str, *arguments: str) -> None:
        form = (f"rate={SAMPLE_RATE}", "channels=1", "channel_map=mono")
        self._modules.append(pulse.pactl("load-module", module, *arguments, *form).strip())


def remove_left_behind() -> int:
    """Unloads the devices of runs that are no more and says how many; raises `DeviceError` if one still runs."""
    left = []
    for line in pulse.pactl("list", "short", "modules").splitlines():
        number, _, rest = line.partition("\t")
        if f"={SINK}" not in rest and f"={SOURCE}" not in rest:
            continue
        owner = re.search(rf"{re.escape(OWNER)}='(\d+)-(\d*)'", rest)
        if owner and int(owner[1]) != os.getpid() and _alive(int(owner[1]), owner[2]):
            raise DeviceError(
                f"Another `talkalong camera` runs (process {owner[1]}) and has the virtual microphone. End it first, "
                "or start this one with --no-microphone."
            )
        left.append(number)
    for number in reversed(left):
        pulse.pactl("unload-module", number)
    if left:
        logger.info("removed the virtual microphone of a run that did not end properly")
    return len(left)


def real_microphone(wanted: str | None) -> str:
    """The name of the source to listen to: the one asked for, else the default, never our own."""
    if wanted is not None:
        device = pulse.find("sources", wanted)
        if device is None:
            raise DeviceError(
                f'There is no microphone "{wanted}". `talkalong devices` lists them; a part of a name is enough.'
            )
        if device.name in (SOURCE, f"{SINK}.monitor"):
            raise DeviceError(
                f'"{wanted}" is the virtual microphone itself: listening to it would make a loop. Choose a real one.'
            )
        return device.name
    ours = (SOURCE, f"{SINK}.monitor")
    inputs = [item for item in pulse.devices("sources") if not item.monitor and item.name not in ours]
    if not inputs:
        raise DeviceError(
            "There is no microphone: the sound server lists none. Plug one in, or check the privacy settings; "
            "`talkalong devices` lists what there is."
        )
    default = pulse.default_device("sources")
    return min(inputs, key=lambda item: (item.name != default, item.virtual)).name


def _properties(kind: str, title: str) -> str:
    return f"{kind}_properties=\"device.description='{title}' {OWNER}='{_me()}'\""


def _me() -> str:
    return f"{os.getpid()}-{_started(os.getpid())}"


def _started(process: int) -> str:
    """When a process began, in the kernel's ticks: numbers of processes are used again. "" where /proc is missing."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]


def _alive(process: int, started: str) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _started(process) == started
