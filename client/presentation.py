"""When each moment is heard and seen at this machine's devices: one clock for sound and pictures.

    due(index) = origin + index * 40 ms

Pictures are taken when they are due. Sound is pulled by a device that says when its next block will be heard; it is
read from the place that is due then, so that whatever the device buffers, lips and voice meet. Two drifts are
followed. The server's clock against ours: moments come ever earlier or later before they are due; `origin` slides.
The sound device's clock against ours: what is read and what is due part; sound is read a little faster or slower.
"""

from __future__ import annotations

import math
import threading
from collections import deque

import numpy as np
import numpy.typing as npt

from client.drift import AFTER, BEFORE, TAPS, DriftFollower, interpolate, to_pcm16
from client.timeline import SAMPLES_PER_FRAME, Moment
from stream.protocol import FPS, SAMPLE_RATE

RING_SAMPLES = 1 << 17  # 2.7 s
MARGIN_S = 0.015  # a moment should come so long before the device needs it
FIRST_HOLD_S = 0.060
LONGEST_HOLD_S = 1.0
SETTLING_MOMENTS = 2 * FPS
SLACKS = 10 * FPS
SLIDE_RATE = 0.0015
SLIDE_OVER_S = 5.0
STILL_S = 0.003  # no slide for less
ROOMY_S = 0.010  # and none back for less than this
LATENESSES = 3  # so many within LATE_WITHIN_S shift everything at once
LATE_WITHIN_S = 10.0
BUNCH_S = 0.010
EARLY_S = 0.002
"""So much before it is due a picture may be shown: `origin` may slide between asking when that is and taking it."""
FADE_SAMPLES = SAMPLE_RATE // 500

Pcm = npt.NDArray[np.int16]
Picture = npt.NDArray[np.uint8]


class SoundRing:
    """The last seconds of sound by stream position; zeros where nothing was written."""

    def __init__(self, samples: int = RING_SAMPLES) -> None:
        self._ring = np.zeros(samples, np.int16)
        self.start = self.end = 0

    def write(self, position: int, pcm: Pcm) -> None:
        """Positions only grow; a gap becomes silence."""
        size = len(self._ring)
        if self.start == self.end or position - self.end > size:
            self.start = self.end = position
        for begin, part in ((self.end, np.zeros(max(0, position - self.end), np.int16)), (position, pcm)):
            self._ring[np.arange(begin, begin + len(part)) % size] = part
        self.end = max(self.end, position + len(pcm))
        self.start = max(self.start, self.end - size)

    def read(self, position: int, samples: int) -> Pcm:
        out = np.zeros(samples, np.int16)
        first, last = max(position, self.start), min(position + samples, self.end)
        if first < last:
            out[first - position : last - position] = self._ring[np.arange(first, last) % len(self._ring)]
        return out


class Presentation:
    """push (event loop), pull_sound (the sound device's thread), take_picture (the camera's thread). Times in
    seconds of one monotonic clock, given by the callers.

    sound_later_s: hold sound back against pictures, for a call app that delays its camera.
    Counters: late_moments came after the device needed them; missed_pictures were not there when due; sound_jumps
    and picture shifts (reanchors) are the corrections that no sliding could do; silent_samples were not there.
    """

    def __init__(self, *, sound_later_s: float = 0.0) -> None:
        self._sound_later_s = sound_later_s
        self._lock = threading.Lock()
        self._follower = DriftFollower()
        self._origin: float | None = None
        self._pushed_at = 0.0
        self._moments = 0  # since the connection came about
        self._slide = 0.0  # seconds a second
        self._slacks: deque[float] = deque(maxlen=SLACKS)
        self._latenesses: deque[tuple[float, float]] = deque()  # when, and by how much to shift
        self._was_late = False
        self._device_s = 0.0  # from pulling a block to hearing its last sample
        self._ring = SoundRing()
        self._read: float | None = None
        self._holding = False
        self._pictures: dict[int, Moment] = {}
        self._shown = -1
        self.late_moments = 0
        self.missed_pictures = 0
        self.due_pictures = 0
        self.sound_jumps = 0
        self.reanchors = 0
        self.silent_samples = 0
        self.corrected_samples = 0.0

    # --- in ---

    def push(self, moment: Moment, now: float) -> None:
        """A moment that has just come; their indices grow."""
        with self._lock:
            if self._origin is None:
                self._origin = now + FIRST_HOLD_S + self._device_s - moment.index / FPS
                self._shown = moment.index - 1
            else:
                self._origin += self._slide * min(now - self._pushed_at, 1.0)
            self._moments += 1
            slack = self._origin + moment.index / FPS - now
            # The first ones may come in a bunch: the newest of them says what is live.
            early = slack - self._device_s - FIRST_HOLD_S
            if self._moments <= SETTLING_MOMENTS and early > 0:
                self._origin -= early
                self._slacks.clear()
            self._note(self._origin + moment.index / FPS - now, now)
            self._pushed_at = now
            self._ring.write(moment.index * SAMPLES_PER_FRAME, moment.pcm)
            self._pictures[moment.index] = moment
            self._steer()

    def lose(self) -> None:
        """The connection is gone: silence from now on, never old sound; the next moment starts anew."""
        with self._lock:
            self._origin = None
            self._moments = 0
            self._slide = 0.0
            self._slacks.clear()
            self._latenesses.clear()
            self._was_late = False
            self._ring = SoundRing()
            self._read = None
            self._holding = False
            self._pictures.clear()
            self._follower.reset()

    # --- out ---

    def pull_sound(self, samples: int, now: float, heard_at: float) -> Pcm:
        """int16 [samples] for a block whose first sample will be heard at `heard_at`."""
        with self._lock:
            lasts_s = heard_at - now + samples / SAMPLE_RATE
            self._device_s += 0.02 * (lasts_s - self._device_s) if self._device_s else lasts_s
            if self._origin is None:
                return np.zeros(samples, np.int16)
            due = (heard_at - self._sound_later_s - self._origin) * SAMPLE_RATE
            if self._read is None:
                self._read = due
            error = self._read - due
            if self._holding:
                if error > samples / 2:
                    return np.zeros(samples, np.int16)
                self._holding = False
                self._read = due
                self._follower.reset()
                return to_pcm16(self._sound(samples) * _fade(samples))
            # The origin slides later (positive): less of the stream is due in each second.
            if self._follower.follow(error, samples, expected_rate=-self._slide):
                return self._jump(samples, due)
            return to_pcm16(self._sound(samples))

    def take_picture(self, at: float) -> Picture | None:
        """The newest picture that is due; None where there is no new one."""
        with self._lock:
            if self._origin is None:
                return None
            index = math.floor((at + EARLY_S - self._origin) * FPS)
            due = range(self._shown + 1, index + 1)
            self._shown = max(self._shown, index)
            self.due_pictures += len(due)
            self.missed_pictures += sum(
                slot not in self._pictures or self._pictures[slot].repeated for slot in due
            )
            newest = max((key for key in self._pictures if key <= index), default=None)
            if newest is None:
                return None
            picture = self._pictures[newest].picture
            for key in [key for key in self._pictures if key <= newest]:
                del self._pictures[key]
            return picture

    def next_picture(self, now: float, fps: float) -> float:
        """When the next of `fps` pictures a second is due, on the stream's own grid."""
        with self._lock:
            origin = self._origin or 0.0
        return origin + (math.floor((now - origin) * fps + 1e-6) + 1) / fps

    # --- what is measured ---

    @property
    def hold_ms(self) -> float:
        """How long a moment waits here between coming and being heard and seen, on average."""
        with self._lock:
            return 1000 * sum(self._slacks) / len(self._slacks) if self._slacks else 0.0

    @property
    def sound_error_ms(self) -> float:
        """Sound against the clock that pictures are shown by; positive: heard early."""
        with self._lock:
            return self._follower.error_ms

    @property
    def sound_rate(self) -> float:
        """How much faster than recorded sound is read now."""
        with self._lock:
            return self._follower.rate

    # --- inside, under the lock ---

    def _sound(self, samples: int) -> npt.NDArray[np.float32]:
        """float32 [samples] from the place of reading on, which moves along."""
        assert self._read is not None
        step = 1.0 + self._follower.rate
        positions = self._read + step * np.arange(samples, dtype=np.float64)
        first = math.floor(self._read) - BEFORE
        pcm = self._ring.read(first, math.ceil(step * samples) + TAPS + 1)
        self._read += step * samples
        self.corrected_samples += abs(step - 1.0) * samples
        self.silent_samples += int(max(0, min(samples, math.ceil(self._read) + AFTER - self._ring.end)))
        return interpolate(pcm, first, positions)

    def _jump(self, samples: int, due: float) -> Pcm:
        """Cross over to the place that is due; where that was played already, be silent until its time comes."""
        assert self._read is not None
        self.sound_jumps += 1
        ahead = self._read > due
        resume = self._read
        old = self._sound(samples) * (1 - _fade(samples))
        if ahead:
            self._read = resume + FADE_SAMPLES
            self._holding = True
            return to_pcm16(old)
        self._read = due
        return to_pcm16(old + self._sound(samples) * _fade(samples))

    def _note(self, slack: float, now: float) -> None:
        """How long before it is due a moment came. After a stall many come at once: that is one lateness, and only
        the newest of them says how late the network is now."""
        late = slack < self._device_s
        bunch = self._was_late and now - self._pushed_at < BUNCH_S
        if bunch and self._slacks:
            self._slacks.pop()
        self._slacks.append(slack)
        if late and not bunch:
            self._latenesses.append((now, self._device_s + MARGIN_S - slack))
        while self._latenesses and self._latenesses[0][0] < now - LATE_WITHIN_S:
            self._latenesses.popleft()
        self._was_late = late
        self.late_moments += late

    def _steer(self) -> None:
        """Keep moments coming just before the device needs them."""
        if len(self._latenesses) >= LATENESSES:
            needed = sorted(by for _, by in self._latenesses)[-LATENESSES]
            self._reanchor(min(needed, LONGEST_HOLD_S - self._slacks[-1]))
            return
        wanted = self._device_s + MARGIN_S
        low = sorted(self._slacks)[min(1, len(self._slacks) - 1)]
        error = wanted - low
        full = len(self._slacks) == SLACKS
        if error > STILL_S or (full and error < -ROOMY_S):
            self._slide = max(-SLIDE_RATE, min(error / SLIDE_OVER_S, SLIDE_RATE))
        elif abs(error) < STILL_S or not full:
            self._slide = 0.0
        # What was measured before is seen from the origin as it is now.
        shift = self._slide / FPS
        self._slacks = deque((slack + shift for slack in self._slacks), maxlen=SLACKS)

    def _reanchor(self, seconds: float) -> None:
        if seconds <= 0:
            return
        assert self._origin is not None
        self._origin += seconds
        self._slide = 0.0
        self._latenesses.clear()
        self._slacks = deque((slack + seconds for slack in self._slacks), maxlen=SLACKS)
        self.reanchors += 1


def _fade(samples: int) -> npt.NDArray[np.float32]:
    """[samples] from 0 to 1 within 2 ms."""
    return np.minimum(np.arange(samples, dtype=np.float32) / FADE_SAMPLES, 1.0)
