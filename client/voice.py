"""Threads between sound devices and the session: the microphone's blocks in, the delayed voice out.

Through the sound server where there is one (`client.pulse`), else through PortAudio. A device that breaks off is
opened again: a call lasts longer than a cable stays plugged in.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from client import devices, pulse
from client.errors import DeviceError

logger = logging.getLogger(__name__)

BLOCK_SAMPLES = 480  # 10 ms out
RETRY_S = 2.0
CHECK_S = 0.2
JOIN_S = 3.0

Pcm = npt.NDArray[np.int16]
Pull = Callable[[int, float, float], Pcm]
"""(samples, now, heard_at): int16 [samples] for a block whose first sample will be heard at `heard_at`; seconds of the
monotonic clock. Called on the device's thread."""


class Running(Protocol):
    """A device at work."""

    def close(self) -> None: ...


class _DeviceThread:
    """Runs `_once` until it is closed; where that raises `DeviceError`, says so and tries again.

    The first opening is the constructor's: its failure is the caller's.
    """

    def __init__(self, name: str, report: Callable[[str], None]) -> None:
        self._report = report
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """May be called more than once."""
        self._closed.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(JOIN_S)

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._work()
            except DeviceError as error:
                self._report(f"{error} Trying again.")
                self._closed.wait(RETRY_S)
                self._open_again()
        self._release()

    def _open_again(self) -> None:
        while not self._closed.is_set():
            try:
                self._open()
            except DeviceError as error:
                logger.debug("%s", error)
                self._closed.wait(RETRY_S)
            else:
                self._report("The sound device is back.")
                return

    def _open(self) -> None:
        raise NotImplementedError

    def _work(self) -> None:
        raise NotImplementedError

    def _release(self) -> None:
        raise NotImplementedError


class PulseVoice(_DeviceThread):
    """Plays what is pulled into a sink. prepare: called before the sink is opened again (makes it anew)."""

    def __init__(
        self,
        pull: Pull,
        sink: str,
        *,
        prepare: Callable[[], None] = lambda: None,
        report: Callable[[str], None] = logger.warning,
    ) -> None:
        super().__init__("talkalong-voice", report)
        self._pull, self._sink, self._prepare = pull, sink, prepare
        self._stream: pulse.PulsePlayback | None = None
        self._stream = pulse.PulsePlayback(sink)
        self._start()

    def _open(self) -> None:
        self._release()
        self._prepare()
        self._stream = pulse.PulsePlayback(self._sink)

    def _work(self) -> None:
        assert self._stream is not None
        while not self._closed.is_set():
            delay_s = self._stream.delay_s()
            now = time.monotonic()
            self._stream.write(self._pull(BLOCK_SAMPLES, now, now + delay_s))

    def _release(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


class PulseEar(_DeviceThread):
    """Records a source; `heard` gets int16 [960] on this thread."""

    def __init__(
        self,
        heard: Callable[[Pcm], None],
        source: str,
        *,
        report: Callable[[str], None] = logger.warning,
    ) -> None:
        super().__init__("talkalong-ear", report)
        self._heard, self._source = heard, source
        self._stream: pulse.PulseRecording | None = None
        self._stream = pulse.PulseRecording(source)
        self._start()

    def _open(self) -> None:
        self._release()
        self._stream = pulse.PulseRecording(self._source)

    def _work(self) -> None:
        assert self._stream is not None
        while not self._closed.is_set():
            self._heard(self._stream.read(devices.BLOCK_SAMPLES))

    def _release(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


class PortAudioVoice(_DeviceThread):
    """Plays what is pulled on an output device of PortAudio (BlackHole, VB-Cable, any)."""

    def __init__(
        self, pull: Pull, device: int | str | None, *, report: Callable[[str], None] = logger.warning
    ) -> None:
        super().__init__("talkalong-voice", report)
        self._pull, self._device = pull, device
        self._output: devices.Output | None = None
        self._output = devices.Output(self._fill, device)
        self._start()

    def _fill(self, samples: int, delay_s: float) -> Pcm:
        now = time.monotonic()
        # Some systems do not tell when a block will be heard; then the stream's usual delay is the best guess.
        if delay_s <= 0:
            delay_s = self._output.latency_s if self._output is not None else 0.0
        return self._pull(samples, now, now + delay_s)

    def _open(self) -> None:
        self._release()
        self._output = devices.Output(self._fill, self._device)

    def _work(self) -> None:
        assert self._output is not None
        while not self._closed.wait(CHECK_S):
            self._output.check()

    def _release(self) -> None:
        output, self._output = self._output, None
        if output is not None:
            output.close()


class PortAudioEar(_DeviceThread):
    """Records an input device of PortAudio; `heard` gets int16 [N] on PortAudio's thread."""

    def __init__(
        self,
        heard: Callable[[Pcm], None],
        device: int | str | None,
        *,
        report: Callable[[str], None] = logger.warning,
    ) -> None:
        super().__init__("talkalong-ear", report)
        self._heard, self._device = heard, device
        self._microphone: devices.Microphone | None = None
        self._microphone = devices.Microphone(heard, device)
        self._start()

    def _open(self) -> None:
        self._release()
        self._microphone = devices.Microphone(self._heard, self._device)

    def _work(self) -> None:
        assert self._microphone is not None
        while not self._closed.wait(CHECK_S):
            self._microphone.check()

    def _release(self) -> None:
        microphone, self._microphone = self._microphone, None
        if microphone is not None:
            microphone.close()
