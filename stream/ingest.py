"""From received packets to one unbroken stream: gaps repaired at once, 48 kHz kept, 16 kHz for the model.

Positions are 48 kHz samples from the first packet. A packet goes where its timestamp says. What is missing
before it is concealed straight away, and what is overdue is concealed by `tick`, so nothing ever waits for a
lost packet and a loss leaves no delay behind. A packet that comes after all still repairs the sound.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from stream.clock import PresentationClock
from stream.playout import AudioPlayout
from stream.protocol import FPS, SAMPLE_RATE
from stream.resample import Downsampler

logger = logging.getLogger(__name__)

Pcm = npt.NDArray[np.int16]

PACKET_SAMPLES = 960
# A timestamp this far from where the clock expects it is a new stream (muted, replaced track), not jitter.
REBASE_MS = 400.0
FADE_SAMPLES = SAMPLE_RATE * 60 // 1000
PITCH_SAMPLES = (SAMPLE_RATE // 400, SAMPLE_RATE // 66)
HISTORY_SAMPLES = 2 * PITCH_SAMPLES[1]
# How long lateness is watched before the clock follows, and how fast: packets of the last 2 s, 8 ms a second.
LATENESS_PACKETS = 100
SLEW_S_PER_S = 0.008
DEAD_ZONE_S = 0.002
SETTLING_SAMPLES = SAMPLE_RATE * 150 // 1000
REANCHOR_S = 0.060


def conceal(history: Pcm, samples: int, *, faded: int = 0) -> Pcm:
    """Continue `history` by repeating its last pitch period, fading to silence within 60 ms.

    faded: samples that this same gap has used up already.
    """
    out = np.zeros(samples, np.float32)
    voiced = min(samples, FADE_SAMPLES - faded)
    if voiced > 0 and len(history) >= HISTORY_SAMPLES and np.any(history):
        tail = history[-HISTORY_SAMPLES:].astype(np.float32)
        recent = tail[-PITCH_SAMPLES[1] :: 4]
        lags = range(PITCH_SAMPLES[0], PITCH_SAMPLES[1], 2)
        earlier = [tail[len(tail) - PITCH_SAMPLES[1] - lag : len(tail) - lag : 4] for lag in lags]
        scores = [float(recent @ part) / (float(np.linalg.norm(part)) + 1.0) for part in earlier]
        period = tail[-lags[int(np.argmax(scores))] :]
        shape = np.linspace(1 - faded / FADE_SAMPLES, 1 - (faded + voiced) / FADE_SAMPLES, voiced)
        out[:voiced] = np.resize(np.roll(period, -faded % len(period)), voiced) * shape
    return out.astype(np.int16)


class Ingest:
    """The receiving half of a session; `on_model_pcm` gets float32 at 16 kHz, exactly one per three samples.

    Bounded by the playout ring it writes to. Event loop only.
    """

    def __init__(
        self,
        *,
        clock: PresentationClock,
        playout: AudioPlayout,
        on_model_pcm: Callable[[npt.NDArray[np.float32]], None],
        conceal_after_ms: float,
        margin_ms: float,
    ) -> None:
        self._clock = clock
        self._playout = playout
        self._on_model_pcm = on_model_pcm
        self._conceal_after_s = conceal_after_ms / 1000
        self._margin_s = margin_ms / 1000
        self._downsampler = Downsampler()
        self._base: int | None = None  # timestamp of position 0
        self._end = 0
        self._gap = 0  # concealed samples since the last real one
        self._history: Pcm = np.zeros(0, np.int16)
        self._lateness: deque[float] = deque(maxlen=LATENESS_PACKETS)
        self._last_slew = 0.0
        self.concealed_samples = 0
        self.late_packets = 0
        self.rebases = 0

    @property
    def end(self) -> int:
        """Samples of the stream so far."""
        return self._end

    @property
    def jitter_ms(self) -> float:
        """Spread of the packets' lateness over the last seconds (95th percentile above the earliest)."""
        if not self._lateness:
            return 0.0
        return 1000 * float(np.percentile(self._lateness, 95) - min(self._lateness))

    def push(self, timestamp: int, pcm: Pcm, arrived: float) -> None:
        """One decoded packet: its RTP time in 48 kHz samples, int16 mono, and when it came."""
        if not self._clock.anchored:
            self._clock.anchor(arrived - len(pcm) / SAMPLE_RATE)
            self._last_slew = arrived
        if self._base is None:
            self._base = timestamp - max(self._clock.media_heard(arrived) - len(pcm), self._end, 0)
        position = timestamp - self._base
        expected = self._clock.media_heard(arrived) - len(pcm)
        if abs(position - expected) > REBASE_MS * SAMPLE_RATE / 1000:
            position = max(expected, self._end)
            self._base = timestamp - position
            self._lateness.clear()
            self.rebases += 1
            logger.info("the speaker's timestamps jumped; the stream goes on at sample %d", position)
        late_s = arrived - self._clock.heard(position + len(pcm))
        if late_s < 0 and position < SETTLING_SAMPLES:
            self._clock.slew(late_s)  # the first packet was a slow one, and nothing has been played yet
            late_s = 0.0
        self._lateness.append(late_s)
        if position + len(pcm) <= self._end:
            self.late_packets += 1
            self._playout.write(position, pcm)
            return
        self._fill(position)
        skip = max(self._end - position, 0)
        if skip:
            self._playout.write(position, pcm[:skip])
        self._gap = 0
        self._append(pcm[skip:])

    def tick(self, now: float) -> None:
        """Every 20 ms or so: conceal what is overdue, and let the clock follow the speaker's."""
        if not self._clock.anchored:
            return
        self._fill(self._clock.media_heard(now - self._conceal_after_s))
        if now - self._last_slew >= 1.0:
            self._follow(now)

    def start_silent(self, now: float) -> None:
        """No packet has come: begin the stream with silence, so that the portrait is alive."""
        if not self._clock.anchored:
            self._clock.anchor(now)
            self._last_slew = now

    def flush(self) -> None:
        """Pass on the last few samples that wait for a whole block."""
        self._pass_on(self._downsampler.flush())

    def _fill(self, position: int) -> None:
        missing = position - self._end
        if missing <= 0:
            return
        self.concealed_samples += missing
        pcm = conceal(self._history, missing, faded=min(self._gap, FADE_SAMPLES))
        self._gap += missing
        self._append(pcm, real=False)

    def _append(self, pcm: Pcm, *, real: bool = True) -> None:
        self._playout.write(self._end, pcm)
        self._end += len(pcm)
        if real:
            self._history = np.concatenate([self._history, pcm])[-HISTORY_SAMPLES:]
        self._pass_on(self._downsampler.push(pcm))

    def _pass_on(self, pcm: npt.NDArray[np.float32]) -> None:
        if len(pcm):
            self._on_model_pcm(pcm)

    def _follow(self, now: float) -> None:
        """Earliest packets on time, and the 95th percentile within the margin: else the clock follows slowly.

        Where most packets come far too late the delay of the network has grown: shift once instead.
        """
        elapsed, self._last_slew = now - self._last_slew, now
        if len(self._lateness) < LATENESS_PACKETS // 2:
            return
        median, high = np.percentile(self._lateness, [50, 95])
        error = max(min(self._lateness), float(high) - self._margin_s)
        if median > REANCHOR_S:
            frames = math.ceil(float(median) * FPS)
            logger.warning("audio comes %.0f ms late; both tracks shift by %d frames", 1000 * median, frames)
            self._clock.reanchor(frames)
            self._lateness.clear()
        elif abs(error) > DEAD_ZONE_S:
            limit = SLEW_S_PER_S * elapsed
            self._clock.slew(float(np.clip(error, -limit, limit)))
