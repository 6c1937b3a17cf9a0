"""How long the voice takes from the microphone to the virtual one, measured by what is heard: the loudness of what
went in is laid over the loudness of what came out."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np
import numpy.typing as npt

from stream.protocol import SAMPLE_RATE

GRID_S = 0.010
REMEMBER_S = 12.0
WINDOW_S = 6.0
LONGEST_S = 2.0
LOWEST_CORRELATION = 0.7

Pcm = npt.NDArray[np.int16]


class DelayMeter:
    """said / heard from any thread; `delay_ms` from any."""

    def __init__(self) -> None:
        blocks = round(REMEMBER_S / GRID_S)
        self._lock = threading.Lock()
        self._said: deque[tuple[float, float]] = deque(maxlen=blocks)
        self._heard: deque[tuple[float, float]] = deque(maxlen=blocks)

    def said(self, pcm: Pcm, ended_at: float) -> None:
        """pcm: int16 [N] from the microphone, its last sample captured at `ended_at`."""
        self._note(self._said, pcm, ended_at)

    def heard(self, pcm: Pcm, starts_at: float) -> None:
        """pcm: int16 [N] for the virtual microphone, its first sample heard at `starts_at`."""
        self._note(self._heard, pcm, starts_at + len(pcm) / SAMPLE_RATE)

    def delay_ms(self) -> float | None:
        """Over the last seconds; None where too little was said to tell."""
        with self._lock:
            said, heard = np.array(self._said), np.array(self._heard)
        if len(said) < 2 or len(heard) < 2:
            return None
        end = min(said[-1, 0], heard[-1, 0])
        grid = np.arange(end - WINDOW_S, end, GRID_S)
        lags = round(LONGEST_S / GRID_S)
        if said[0, 0] > grid[0] - LONGEST_S or heard[0, 0] > grid[0]:
            return None
        out = _normalised(np.interp(grid, heard[:, 0], heard[:, 1]))
        source = np.interp(np.arange(-lags, len(grid)) * GRID_S + grid[0], said[:, 0], said[:, 1])
        scores = np.array(
            [out @ _normalised(source[lags - lag : lags - lag + len(grid)]) for lag in range(lags)]
        )
        best = int(np.argmax(scores))
        if scores[best] < LOWEST_CORRELATION or not 0 < best < lags - 1:
            return None
        left, middle, right = scores[best - 1 : best + 2]
        bend = left - 2 * middle + right
        return float(1000 * GRID_S * (best + (0.5 * (left - right) / bend if bend else 0.0)))

    def _note(self, levels: deque[tuple[float, float]], pcm: Pcm, ended_at: float) -> None:
        step = round(GRID_S * SAMPLE_RATE)
        with self._lock:
            for start in range(0, len(pcm) - step + 1, step):
                part = pcm[start : start + step].astype(np.float32)
                middle = ended_at - (len(pcm) - start - step / 2) / SAMPLE_RATE
                levels.append((middle, float(np.log1p(np.sqrt(np.mean(part * part)) / 100))))


def _normalised(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    centred = values - values.mean()
    norm = float(np.linalg.norm(centred))
    return centred / norm if norm > 1e-9 else np.zeros_like(centred)
