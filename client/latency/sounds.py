"""Finds the probe's sounds in what was heard, by matched filter: their own waveform slid along the returned
stream."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from client.latency.answers import Answers, DelayTrack, silent
from client.latency.probe import MATCHED_S, Probe
from client.latency.recording import Recording
from stream.protocol import SAMPLE_RATE

RATE = 12_000  # of the filter: speech codecs keep this band
STEP = SAMPLE_RATE // RATE
LONGEST_S = 3.0
REACH_S = 0.2
LOWEST_MATCH = 0.5

Array = npt.NDArray[np.float64]


def find_sounds(probe: Probe, recording: Recording) -> Answers:
    """When each sound was heard again. A server that returns no sound, or another voice, does not respond."""
    count = len(probe.onsets_s)
    if len(recording.packet_s) == 0 or not recording.heard.any():
        return silent(count, "no sound came back")
    heard = _low(recording.heard)
    template = _low(probe.template())[: round(MATCHED_S * RATE)]
    score, loud = _match(heard, template)
    at_s = recording.heard_s(np.arange(len(score), dtype=float) * STEP)
    delay_s = _common_delay(score, at_s, recording.mouth_s + probe.onsets_s)
    track = DelayTrack(delay_s)
    time_s = np.full(count, np.nan)
    taken: list[int] = []
    scores: list[float] = []
    for index, onset_s in enumerate(recording.mouth_s + probe.onsets_s):
        expected_s = onset_s + track.expected_s
        first, last = np.searchsorted(at_s, [expected_s - REACH_S, expected_s + REACH_S])
        if first >= last:
            continue
        best = first + int(np.argmax(score[first:last]))
        if score[best] >= LOWEST_MATCH:
            time_s[index] = at_s[best]
            taken.append(best)
            scores.append(float(score[best]))
            track.add(at_s[best] - onset_s)
    false = _others(score, loud, np.array(taken, int))
    confidence = float(np.median(scores)) if scores else 0.0
    return Answers(
        time_s=time_s, false=false, confidence=confidence, reason="" if scores else "no sound matches"
    )


def _low(pcm: npt.NDArray[np.int16]) -> Array:
    """To `RATE`, by averages (aliases of a band that holds little do not matter here)."""
    whole = len(pcm) // STEP * STEP
    return np.asarray(pcm[:whole].reshape(-1, STEP).mean(axis=1))


def _match(heard: Array, template: Array) -> tuple[Array, Array]:
    """Normalised correlation of each place with the template, -1..1 (quiet places count as 0), and the loudness
    there."""
    size = len(template)
    if len(heard) <= size:
        return np.zeros(0), np.zeros(0)
    length = 1 << int(np.ceil(np.log2(len(heard) + size)))
    product = np.fft.irfft(np.fft.rfft(heard, length) * np.conj(np.fft.rfft(template, length)), length)
    energy = np.concatenate([[0.0], np.cumsum(heard**2)])
    local = np.sqrt(np.maximum(energy[size:] - energy[:-size], 0.0))
    own = float(np.linalg.norm(template))
    norm = np.maximum(local, 0.05 * own) * own
    return np.asarray(product[: len(local)] / norm), local / own


def _common_delay(score: Array, at_s: Array, asked_s: Array) -> float:
    """The delay at which most of the sounds find their match."""
    delays_s = np.arange(-0.05, LONGEST_S, 1 / 1_000)
    peaks = np.maximum(score, 0.0)
    order = np.arange(len(at_s), dtype=float)
    total = np.zeros(len(delays_s))
    for asked in asked_s:
        place = np.interp(asked + delays_s, at_s, order, left=-1, right=-1).astype(int)
        near = np.maximum.reduce(
            [peaks[np.clip(place + step, 0, len(peaks) - 1)] for step in range(-6, 7, 2)]
        )
        total += np.where(place >= 0, near, 0.0)
    return float(delays_s[np.argmax(total)])


def _others(score: Array, loud: Array, taken: npt.NDArray[np.int64]) -> int:
    """Matches that no sound explains, counted once per half sound; echoes of the sound itself are its own."""
    free = (score >= LOWEST_MATCH) & (loud > 0.2)
    guard = round(0.25 * RATE)
    for place in taken:
        free[max(0, place - guard) : place + guard] = False
    places = np.flatnonzero(free)
    return int(len(places) > 0) + int((np.diff(places) > guard).sum()) if len(places) else 0
