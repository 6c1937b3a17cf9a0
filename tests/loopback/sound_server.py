"""A PulseAudio of the test's own, without hardware: a microphone that says what it is fed, and recordings by wall time.

The clock of recordings is the one of `time.monotonic`, which is the same in every process of a machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np

from stream.protocol import SAMPLE_RATE

PROGRAMS = ("pulseaudio", "pactl", "pacat", "parec")
MICROPHONE = "desk_microphone"
START_TIMEOUT_S = 15.0
FORM = (f"--rate={SAMPLE_RATE}", "--channels=1", "--format=s16le", "--raw")
MODULES = (
    "module-native-protocol-unix",
    f"module-null-sink sink_name=room rate={SAMPLE_RATE} channels=1",
    f"module-remap-source master=room.monitor source_name={MICROPHONE}",
)


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name) is None]


class SoundServer:
    """A context manager; `environment` makes a process use this server."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="talkalong-sound-"))  # short: a socket's path is
        self.environment = os.environ | {
            "HOME": str(self._folder), "XDG_RUNTIME_DIR": str(self._folder), "LC_ALL": "C.UTF-8",
        }  # fmt: skip
        for name in ("PULSE_SERVER", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY"):
            self.environment.pop(name, None)
        self._saying: list[subprocess.Popen[bytes]] = []
        self._log = (self._folder / "log").open("w")
        modules = [word for module in MODULES for word in ("-L", module)]
        self._process = subprocess.Popen(
            ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", *modules],
            env=self.environment, stdout=self._log, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def __enter__(self) -> Self:
        end = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < end and self._process.poll() is None:
            if MICROPHONE in self.pactl("list", "short", "sources"):
                return self
            time.sleep(0.1)
        self.__exit__(None, None, None)
        raise RuntimeError("PulseAudio did not start.")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (*self._saying, self._process):
            process.terminate()
            process.wait(10)
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def pactl(self, *words: str) -> str:
        done = subprocess.run(["pactl", *words], env=self.environment, capture_output=True, text=True)
        return done.stdout

    def say(self, pcm: np.ndarray) -> subprocess.Popen[bytes]:
        """int16 [N] into the microphone; the process ends when all was said, or with the server."""
        with tempfile.TemporaryFile(dir=self._folder) as file:
            file.write(pcm.astype("<i2").tobytes())
            file.seek(0)
            words = ["pacat", "-d", "room", "--latency-msec=40", *FORM]
            self._saying.append(subprocess.Popen(words, env=self.environment, stdin=file))
        return self._saying[-1]


class Ear:
    """A context manager that records a source: what a call app would get, and when."""

    def __init__(self, server: SoundServer, source: str) -> None:
        self._process = subprocess.Popen(
            ["parec", "-d", source, "--latency-msec=10", *FORM],
            env=server.environment,
            stdout=subprocess.PIPE,
        )
        self._blocks: list[tuple[float, np.ndarray]] = []
        assert self._process.stdout is not None
        self._thread = threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._thread.join(5)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def onsets(self, level: int = 3_000, quiet_s: float = 0.12) -> np.ndarray:
        """When it became loud after a silence, wall times."""
        times: list[np.ndarray] = []
        for ended_at, pcm in list(self._blocks):
            loud = np.flatnonzero(np.abs(pcm.astype(int)) > level)
            times.append(ended_at - (len(pcm) - loud) / SAMPLE_RATE)
        at = np.concatenate(times) if times else np.zeros(0)
        return at[np.diff(at, prepend=-1.0) > quiet_s]

    def loudest(self, start: float, end: float) -> int:
        """The largest sample between two wall times."""
        found = [np.abs(pcm.astype(int)).max() for at, pcm in list(self._blocks) if start < at < end]
        assert found, "nothing was recorded"
        return int(max(found))

    def _listen(self, pipe: IO[bytes]) -> None:
        while data := pipe.read1(1 << 14):  # type: ignore[attr-defined]
            self._blocks.append((time.monotonic(), np.frombuffer(data[: len(data) // 2 * 2], "<i2")))
