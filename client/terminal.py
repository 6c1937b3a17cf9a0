"""What a presenter reads while a call goes on: sentences that stay, and one line of figures."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable

from client.presenter import Presenter
from client.virtual_camera import VirtualCamera

STATUS_S = 1.0
QUIET_STATUS_S = 10.0  # where no terminal overwrites the line
LINE_WIDTH = 110


class Terminal:
    """Sentences that stay, and one line of figures that is written over (where nobody looks, now and then a line)."""

    def __init__(self, write: Callable[[str], None], *, live: bool, width: int = LINE_WIDTH) -> None:
        self._write, self._live, self._width = write, live, width
        self.status_s = STATUS_S if live else QUIET_STATUS_S

    def say(self, sentence: str) -> None:
        self._write(f"\r{sentence:<{self._width}}\n" if self._live else f"{sentence}\n")

    def status(self, line: str) -> None:
        self._write(f"\r{line:<{self._width}}" if self._live else f"{line}\n")

    def end(self) -> None:
        """The last line of figures stays."""
        if self._live:
            self._write("\n")


def terminal() -> Terminal:
    return Terminal(lambda text: print(text, end="", flush=True), live=sys.stdout.isatty())


def status_line(
    seconds: float, presenter: Presenter, camera: VirtualCamera | None, delay_ms: float | None
) -> str:
    """Time, frame rate, measured delay, picture after sound at the devices, pictures missed, sound corrections."""
    presentation, stats = presenter.presentation, presenter.stats
    line = f"{int(seconds // 3600)}:{int(seconds // 60 % 60):02d}:{int(seconds % 60):02d}"
    if not presenter.connected:
        return f"{line}  no connection"
    line += f"  {stats.get('fps_sent', 0.0):4.1f} fps"
    line += "  delay --" if delay_ms is None else f"  delay {delay_ms:.0f} ms"
    late_ms = statistics.median(camera.late_ms) if camera is not None and camera.late_ms else 0.0
    line += f"  skew {presentation.sound_error_ms + late_ms:+.0f} ms"
    line += f"  missed {stats.get('frames_missed', 0)} there, {presentation.missed_pictures} here"
    line += f"  sound {1e6 * presentation.sound_rate:+.0f} ppm, {presentation.sound_jumps} jumps"
    return line


def last_words(presenter: Presenter) -> str:
    presentation = presenter.presentation
    return (
        f"{presenter.moments} moments in {presenter.connections} connection(s); "
        f"{presentation.missed_pictures} pictures missed here, {presentation.late_moments} moments late, "
        f"{presentation.reanchors} shifts, {presentation.sound_jumps} jumps of sound, "
        f"{presentation.corrected_samples:.0f} samples made up for by resampling."
    )
