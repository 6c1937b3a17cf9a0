"""Finds the answer to every known sound, in pictures and in sound: by content, never by time stamps.

Lips are found by what moves with the probe: cells of the picture that follow its loudness some constant time later
are the mouth (or the whole picture, if it flashes). How far the mouth is open is then the first principal component
of those pixels, with the sign that goes with the voice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from client.latency.probe import Probe
from client.latency.recording import SIDE, Recording
from stream.protocol import SAMPLE_RATE

Array = npt.NDArray[np.float64]

GRID_S = 0.01
LONGEST_DELAY_S = 2.0
CELL = 4  # pixels
LEARNING_S = 12.0  # of speech, to find the mouth in
DRIFT_S = 1.0  # slower changes are head motion
LOWEST_CORRELATION = 0.25  # of the opening with the probe's loudness, over the whole run; noise gives 0.1
BEFORE_S, AFTER_S = 0.15, 0.35  # around where the answer to a sound is expected
QUIET_S = 0.25  # looked at before an answer, for the level that it rises from
NOISE_FACTOR = 4.0
HALF_OPEN = 0.5
LOWEST_MATCH = 0.25  # normalised correlation of a returned sound with the one that was sent
SOUND_REACH_S = 0.15


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """For each of K sounds, when it was spoken and answered, in seconds on the receiver's clock; NaN if missed.

    false_openings: openings that no sound accounts for. opening [T] at frame_s: how far the mouth is open, 0 shut, 1 as
    far as it opens for the probe. mouth: bool [SIDE, SIDE], where it was found.
    """

    spoken_s: Array
    seen_s: Array
    heard_s: Array
    false_openings: int
    frame_s: Array
    opening: Array
    mouth: npt.NDArray[np.bool_]

    @property
    def mouth_to_photon_ms(self) -> Array:
        return 1_000 * (self.seen_s - self.spoken_s)

    @property
    def mouth_to_ear_ms(self) -> Array:
        return 1_000 * (self.heard_s - self.spoken_s)

    @property
    def picture_after_sound_ms(self) -> Array:
        return 1_000 * (self.seen_s - self.heard_s)


def detect(recording: Recording, probe: Probe, *, sound_lead_s: float = 0.0) -> Detections:
    """sound_lead_s: how much earlier than the picture the server says (in sender reports) that it sends sound."""
    spoken_s = recording.spoken_s + probe.onsets_s
    samples, first_s = recording.sound()
    heard_s = heard(samples, first_s + sound_lead_s, spoken_s, probe)
    frame_s = np.array(recording.frame_s)
    opening, mouth = find_mouth(frame_s, recording.pictures(), probe, recording.spoken_s)
    if not mouth.any():
        seen_s, false_openings = np.full(len(spoken_s), np.nan), 0
    else:
        delay_s = expected_delay(frame_s, opening, probe, recording.spoken_s)
        seen_s, false_openings, opening = openings(frame_s, opening, spoken_s + delay_s, probe.sound_s)
    return Detections(
        spoken_s=spoken_s, seen_s=seen_s, heard_s=heard_s, false_openings=false_openings,
        frame_s=frame_s, opening=opening, mouth=mouth,
    )  # fmt: skip


def find_mouth(
    frame_s: Array, pictures: Array, probe: Probe, spoken_s: float
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """The opening [T] in units of its own, and the pixels it was read from; none if nothing follows the voice."""
    nothing = np.zeros(len(frame_s)), np.zeros((SIDE, SIDE), bool)
    learning = (frame_s > spoken_s) & (frame_s < spoken_s + probe.onsets_s[0] + LEARNING_S)
    if learning.sum() < 50:
        return nothing
    change = pictures - _local_mean(frame_s, pictures.reshape(len(pictures), -1)).reshape(pictures.shape)
    cells = change.reshape(len(change), SIDE // CELL, CELL, SIDE // CELL, CELL).mean((2, 4))
    cells = cells.reshape(len(cells), -1)
    scores = _scores(frame_s[learning], cells[learning], probe, spoken_s)  # [lags, cells]
    energy = cells[learning].std(0)
    lag = int(np.argmax((scores**2) @ energy**2))
    strength = np.abs(scores[lag]) * energy
    if strength.max() <= 1e-6:
        return nothing
    chosen = (strength >= 0.4 * strength.max()).reshape(SIDE // CELL, SIDE // CELL)
    mouth = np.kron(chosen, np.ones((CELL, CELL), bool)).astype(bool)
    moving = change[:, mouth]
    _, _, directions = np.linalg.svd(moving[learning], full_matrices=False)
    opening = moving @ directions[0]
    answers = _scores(frame_s, opening[:, None], probe, spoken_s)[:, 0]
    strongest = answers[np.argmax(np.abs(answers))]
    if abs(strongest) < LOWEST_CORRELATION:
        return nothing
    return opening * np.sign(strongest), mouth


def expected_delay(frame_s: Array, opening: Array, probe: Probe, spoken_s: float) -> float:
    """The delay at which the whole train of sounds fits best."""
    return GRID_S * int(np.argmax(_scores(frame_s, opening[:, None], probe, spoken_s)[:, 0]))


def openings(frame_s: Array, opening: Array, expected_s: Array, sound_s: float) -> tuple[Array, int, Array]:
    """When each expected opening was half done [K] (NaN: it was not seen), how many others there were, and the
    opening in units of a whole one.

    A time is that of the first frame past half the rise: what is on the screen from then on.
    """
    windows = [
        (frame_s >= at - BEFORE_S, (frame_s >= at - BEFORE_S) & (frame_s <= at + sound_s + AFTER_S))
        for at in expected_s
    ]
    bases, peaks, noises = [], [], []
    for (_, window), at in zip(windows, expected_s, strict=True):
        quiet = (frame_s >= at - BEFORE_S - QUIET_S) & (frame_s < at - BEFORE_S)
        bases.append(np.median(opening[quiet]) if quiet.any() else np.nan)
        noises.append(np.median(np.abs(opening[quiet] - bases[-1])) if quiet.any() else np.nan)
        peaks.append(opening[window].max() if window.any() else np.nan)
    base, rise = np.array(bases), np.array(peaks) - np.array(bases)
    usual = float(np.nanmedian(rise)) if np.isfinite(rise).any() else np.nan
    # A sound is answered by at least a third of the usual opening, well out of the noise between the sounds.
    least = max(usual / 3, NOISE_FACTOR * float(np.nanmedian(noises)))
    seen_s = np.full(len(expected_s), np.nan)
    for index, (_, window) in enumerate(windows):
        if np.isfinite(rise[index]) and rise[index] >= least:
            past = window & (opening >= base[index] + HALF_OPEN * rise[index])
            seen_s[index] = frame_s[np.argmax(past)]
    answered = np.zeros(len(frame_s), bool)
    for at in expected_s:
        answered |= (frame_s >= at - BEFORE_S) & (frame_s <= at + sound_s + AFTER_S)
    inside = (frame_s >= expected_s[0]) & (frame_s <= expected_s[-1])
    level = float(np.nanmedian(base))
    strays = (opening >= level + 0.75 * usual) & ~answered & inside
    false_openings = int(np.sum(np.diff(strays.astype(int), prepend=0) == 1))
    return seen_s, false_openings, (opening - level) / max(usual, 1e-9)


def heard(samples: npt.NDArray[np.float32], first_s: float, spoken_s: Array, probe: Probe) -> Array:
    """When each sound came back [K]: a matched filter for its waveform; NaN where it did not.

    samples: float32 [N] at 48 kHz, the first of them played at `first_s`.
    """
    found = np.full(len(spoken_s), np.nan)
    pattern = probe.pattern().astype(float)
    if len(samples) < len(pattern):
        return found
    match = _matched_filter(samples.astype(float), pattern)
    # The delay of the whole train first: single sounds are all alike.
    lags = np.arange(0, LONGEST_DELAY_S, GRID_S)
    starts = np.round((spoken_s - first_s) * SAMPLE_RATE).astype(int)
    step = round(GRID_S * SAMPLE_RATE)
    padded = np.concatenate([match, np.zeros(round(LONGEST_DELAY_S * SAMPLE_RATE) + 2 * step)])
    totals = []
    for lag in np.round(lags * SAMPLE_RATE).astype(int):
        at = starts + lag
        good = (at >= 0) & (at + step <= len(padded))
        totals.append(sum(float(padded[place : place + step].max()) for place in at[good]))
    delay = round(lags[int(np.argmax(totals))] * SAMPLE_RATE)
    reach = round(SOUND_REACH_S * SAMPLE_RATE)
    for index, start in enumerate(starts):
        low, high = start + delay - reach, start + delay + reach
        part = match[max(low, 0) : max(high, 0)]
        if len(part) and part.max() >= LOWEST_MATCH:
            found[index] = first_s + (max(low, 0) + int(np.argmax(part))) / SAMPLE_RATE
    return found


def _matched_filter(samples: Array, pattern: Array) -> Array:
    """[N - M + 1]: normalised correlation with the pattern at each place, of their envelopes' fine structure."""
    size = 1 << int(np.ceil(np.log2(len(samples) + len(pattern))))
    spectrum = np.fft.rfft(samples, size) * np.conj(np.fft.rfft(pattern, size))
    correlation = np.fft.irfft(spectrum, size)[: len(samples) - len(pattern) + 1]
    energy = np.concatenate([[0.0], np.cumsum(samples**2)])
    local = np.sqrt(np.maximum(energy[len(pattern) :] - energy[: -len(pattern)], 0.0))
    floor = 0.02 * float(np.linalg.norm(pattern))  # silence matches nothing
    return np.asarray(correlation / (np.linalg.norm(pattern) * np.maximum(local, floor)))


def _scores(frame_s: Array, values: Array, probe: Probe, spoken_s: float) -> Array:
    """[lags, columns]: correlation of each column of `values` [T, columns] with the probe heard so much earlier."""
    lags = np.arange(0, LONGEST_DELAY_S, GRID_S)
    centred = values - values.mean(0)
    norm = np.maximum(np.linalg.norm(centred, axis=0), 1e-9)
    loud = np.array([probe.loud_at(frame_s - spoken_s - lag) for lag in lags])
    loud -= loud.mean(1, keepdims=True)
    loud /= np.maximum(np.linalg.norm(loud, axis=1, keepdims=True), 1e-9)
    return np.asarray(loud @ (centred / norm))


def _local_mean(frame_s: Array, values: Array) -> Array:
    """[T, N]: mean over DRIFT_S before and after each row."""
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    first = np.searchsorted(frame_s, frame_s - DRIFT_S)
    last = np.searchsorted(frame_s, frame_s + DRIFT_S, side="right")
    return np.asarray((sums[last] - sums[first]) / (last - first)[:, None])
