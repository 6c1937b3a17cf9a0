"""Kokoro's symbols and durations as phones with times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.training.speech import KOKORO_DELAY_S, KOKORO_UNIT_S
from pipeline.training.speech import RATE as AUDIO_RATE
from pipeline.training.visemes import VISEMES, VOWELS

_MARKS = frozenset("ˈˌː^")
HEARD_PAUSE_S = 0.12
HEARD_DB = 36.0
"""How far below a clip's loud moments a sound still counts as heard."""
LONG_PHONE_S, SHORTEST_PHONE_S = 0.15, 0.06


@dataclass(frozen=True)
class Phone:
    """One sound (or pause, symbol " ") with its time in seconds and its stress (0 to 2)."""

    symbol: str
    start_s: float
    end_s: float
    stress: int = 0


def phones(symbols: list[str], durations: list[int], *, delay_s: float = KOKORO_DELAY_S) -> list[Phone]:
    """Kokoro's symbols and durations (25 ms units) -> phones, `delay_s` before their nominal time.

    Stress marks go to the vowel that follows, their time and that of short blanks to the neighbours.
    """
    found: list[Phone] = []
    time, stress, carry = -delay_s, 0, 0.0
    for symbol, duration in zip(symbols, durations, strict=True):
        length = duration * KOKORO_UNIT_S
        if symbol == "ː" and found and found[-1].symbol != " ":
            found[-1] = Phone(found[-1].symbol, found[-1].start_s, time + length, found[-1].stress)
        elif symbol in _MARKS:
            stress = {"ˈ": 2, "ˌ": 1}.get(symbol, stress)
            carry += length
        elif symbol in VISEMES:
            if carry >= HEARD_PAUSE_S:  # the silence before the first sound
                found.append(Phone(" ", time - carry, time))
                carry = 0.0
            found.append(Phone(symbol, time - carry, time + length, stress if symbol in VOWELS else 0))
            stress, carry = (0 if symbol in VOWELS else stress), 0.0
        else:  # blanks and punctuation: a pause if long enough to be heard
            if carry + length >= HEARD_PAUSE_S or not found:
                found.append(Phone(" ", time - carry, time + length))
            else:
                last = found[-1]
                found[-1] = Phone(last.symbol, last.start_s, time + length, last.stress)
            carry = 0.0
        time += length
    return found


def end_with_sound(spoken: list[Phone], pcm: NDArray[np.int16] | NDArray[np.float32]) -> list[Phone]:
    """Ends long phones where their sound ends, and makes the rest of their time a pause.

    Kokoro counts the silence after a phrase towards its last phone (0.4 to 0.55 s at the end of a clip, of
    which a quarter sounds). `pcm` [N] is the clip at 16 kHz.
    """
    step = AUDIO_RATE // 100
    power = np.square(pcm[: len(pcm) // step * step].astype(np.float64)).reshape(-1, step).mean(1)
    heard = power > np.percentile(power, 95) * 10 ** (-HEARD_DB / 10) if len(power) else np.zeros(0, bool)
    found: list[Phone] = []
    for phone in spoken:
        first, last = max(0, round(phone.start_s * 100)), max(0, round(phone.end_s * 100))
        if phone.symbol == " " or phone.end_s - phone.start_s < LONG_PHONE_S:
            found.append(phone)
            continue
        loud = np.flatnonzero(heard[first:last])
        sounds_s = (first + loud[-1] + 1) / 100 if len(loud) else phone.start_s
        end_s = min(phone.end_s, max(sounds_s, phone.start_s + SHORTEST_PHONE_S))
        found.append(Phone(phone.symbol, phone.start_s, end_s, phone.stress))
        if phone.end_s - end_s > 0.02:
            found.append(Phone(" ", end_s, phone.end_s))
    return found
