"""Recordings made up from a probe: what a receiver would have seen and heard with delays that are known."""

from __future__ import annotations

import numpy as np

from client.latency.probe import Probe
from client.latency.recording import Recording
from stream.protocol import SAMPLE_RATE

SIDE = 32


def recorded(
    probe: Probe,
    *,
    photon_s: float = 0.25,
    ear_s: float = 0.23,
    mute: bool = False,
    sound: bool = True,
    noise: float = 2.0,
    jitter_s: float = 0.0,
    ignored: frozenset[int] = frozenset(),
    seed: int = 0,
    rise_frames: int = 1,
    sway: float = 3.0,
) -> Recording:
    """A face of noise that sways, with a mouth that darkens while a sound sounds; frames with a phase of their own."""
    rng = np.random.default_rng(seed)
    mouth_s = 100.0
    end_s = probe.seconds + max(photon_s, ear_s)
    frame_s = mouth_s + np.arange(0.013, end_s, 0.04)
    shown_s = frame_s - photon_s - mouth_s  # the moment of the probe that a frame shows
    opening = np.zeros(len(frame_s))
    for index, onset_s in enumerate(probe.onsets_s):
        if index not in ignored:
            since = shown_s - onset_s
            rising = np.clip((since + 0.04) / (0.04 * rise_frames), 0, 1)
            opening = np.maximum(opening, np.where(since < max(probe.sound_s, 0.04), rising, 0) * (since > 0))
    if mute:
        opening = np.repeat(rng.random(len(frame_s) // 5 + 1) > 0.6, 5)[: len(frame_s)].astype(float)
    gray = np.full((len(frame_s), SIDE, SIDE), 128.0)
    gray += rng.normal(0, noise, gray.shape)
    gray[:, 4:10, 4:28] += sway * np.sin(np.arange(len(frame_s)) / 9)[:, None, None]
    gray[:, 20:25, 11:21] -= 40 * opening[:, None, None]
    arrived_s = frame_s + rng.exponential(jitter_s, len(frame_s)) if jitter_s else frame_s
    heard = np.zeros(len(probe.pcm) + SAMPLE_RATE, np.int16)
    if sound:
        heard[: len(probe.pcm)] = probe.pcm
    packet_start = np.arange(0, len(heard), 960)
    return Recording(
        offered_s=mouth_s - 1.0,
        connected_s=mouth_s - 0.5,
        mouth_s=mouth_s,
        frame_s=np.maximum.accumulate(arrived_s),
        gray=np.clip(gray, 0, 255).astype(np.uint8),
        packet_s=mouth_s + ear_s + packet_start / SAMPLE_RATE,
        packet_start=packet_start,
        heard=heard,
    )
