"""What rooms, microphones and lines do to a voice, made by synthesis: noise, level, clipping, codec, reverberation.

Sounds are float32 [N] at 16 kHz. Everything keeps the length and the timing of the voice.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.material import SAMPLE_RATE

Sound = NDArray[np.float32]

FRAME = SAMPLE_RATE // 50
ACTIVE_DB = 30.0
"""Stretches of 20 ms count as speech if they are at most this far below the loudest."""


def active_rms(pcm: Sound) -> float:
    """Root mean square of the stretches in which somebody speaks: silence does not make a noise louder."""
    power = (pcm[: len(pcm) // FRAME * FRAME].astype(np.float64).reshape(-1, FRAME) ** 2).mean(1)
    loudest = float(power.max(initial=0.0))
    if loudest <= 0.0:
        raise ValueError("There is no sound in this clip, so noise cannot be set in proportion to it.")
    return float(np.sqrt(power[power > loudest * 10 ** (-ACTIVE_DB / 10)].mean()))


def with_noise(pcm: Sound, noise: Sound, snr_db: float) -> Sound:
    """The voice with noise added, `snr_db` between the voice where it speaks and the noise."""
    gain = active_rms(pcm) / float(np.sqrt(np.mean(noise.astype(np.float64) ** 2))) * 10 ** (-snr_db / 20)
    return np.asarray(pcm + gain * np.resize(noise, len(pcm)), np.float32)


def white(samples: int, rng: np.random.Generator) -> Sound:
    return rng.standard_normal(samples).astype(np.float32)


def pink(samples: int, rng: np.random.Generator) -> Sound:
    """Power falls by 3 dB an octave, above 30 Hz."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequency = np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE), 30.0)
    return np.asarray(np.fft.irfft(spectrum / np.sqrt(frequency), samples), np.float32)


def hum(samples: int, rng: np.random.Generator) -> Sound:
    """Mains of 50 Hz with harmonics up to 1 kHz that fall by 6 dB an octave."""
    time = np.arange(samples) / SAMPLE_RATE
    orders = np.arange(1, 21)
    phases = rng.uniform(0, 2 * np.pi, len(orders))
    waves = np.sin(2 * np.pi * 50 * orders[:, None] * time[None] + phases[:, None]) / orders[:, None]
    return np.asarray(waves.sum(0), np.float32)


def babble(voices: Sequence[Sound], samples: int, rng: np.random.Generator) -> Sound:
    """Other people talking, all equally loud, each from a random place of a recording on."""
    mixed = np.zeros(samples)
    for voice in voices:
        mixed += np.roll(np.resize(voice, samples), int(rng.integers(samples))) / active_rms(voice)
    return mixed.astype(np.float32)


def at_level(pcm: Sound, peak_dbfs: float) -> Sound:
    """The voice so loud that its highest sample has this level; what is above 0 dBFS is clipped."""
    peak = float(np.abs(pcm).max())
    if peak <= 0.0:
        raise ValueError("There is no sound in this clip, so its level cannot be set.")
    return np.asarray(np.clip(pcm * np.float32(10 ** (peak_dbfs / 20) / peak), -1.0, 1.0), np.float32)


def through_opus(pcm: Sound, bit_rate: int) -> Sound:
    """Encoded and decoded by Opus for speech, `bit_rate` in bits a second; the codec's own delay is taken out."""
    file = io.BytesIO()
    with av.open(file, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=48_000, options={"application": "voip", "vbr": "off"})
        stream.bit_rate = bit_rate
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(pcm[None], format="flt", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        to_codec = av.AudioResampler(format="flt", layout="mono", rate=48_000)
        for piece in (*to_codec.resample(frame), *to_codec.resample(None)):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    file.seek(0)
    back = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    with av.open(file, "r") as container:
        pieces = [
            piece.to_ndarray()[0]
            for decoded in (*container.decode(audio=0), None)
            for piece in back.resample(decoded)
        ]
    heard = np.concatenate(pieces).astype(np.float32)
    return np.pad(heard[: len(pcm)], (0, max(0, len(pcm) - len(heard))))


def room_response(rt60_s: float, direct_db: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Impulse response of a room: the direct sound, and from 5 ms on noise that decays by 60 dB in `rt60_s`
    (Polack's model). direct_db: level of the direct sound over the reverberation."""
    tail = rng.standard_normal(round(rt60_s * SAMPLE_RATE))
    tail *= 10 ** (-3 * np.arange(len(tail)) / len(tail))
    tail *= 10 ** (-direct_db / 20) / np.linalg.norm(tail)
    return np.concatenate([[1.0], np.zeros(round(0.005 * SAMPLE_RATE) - 1), tail])


def in_room(pcm: Sound, response: NDArray[np.float64]) -> Sound:
    """The voice as a microphone hears it in that room, as loud as before."""
    size = len(pcm) + len(response)
    wet = np.fft.irfft(np.fft.rfft(pcm, size) * np.fft.rfft(response, size), size)[: len(pcm)]
    return np.asarray(wet * (active_rms(pcm) / active_rms(wet.astype(np.float32))), np.float32)
