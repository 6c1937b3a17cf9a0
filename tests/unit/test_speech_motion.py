"""Motion of made-up phoneme strings: lips meet on p, phrases end at rest, people blink."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.training.phones import Phone, end_with_sound, phones
from pipeline.training.speech_motion import Floats, mouth_curves, speech_motion
from pipeline.training.upper_face import FPS, blink_track
from pipeline.training.visemes import OPENING_CM, VISEMES

STEMS = ("jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthRollLower", "mouthRollUpper")
PAIRS = (
    "eyeBlink",
    "browInnerUp",
    "browOuterUp",
    "mouthStretch",
    "mouthSmile",
    "mouthUpperUp",
    "mouthLowerDown",
    "mouthPress",
)
NAMES = [*STEMS, *(f"{stem}_{side}" for stem in PAIRS for side in "LR")]
NAMES += [f"unused{i}" for i in range(57 - len(NAMES))]


def lip_gap(motion: Floats) -> Floats:
    """[T,62] -> [T] cm between the lips beyond the closed rest."""
    gap = np.zeros(len(motion), np.float32)
    for stem, opening in OPENING_CM.items():
        columns = [i for i, name in enumerate(NAMES) if name in (stem, f"{stem}_L", f"{stem}_R")]
        gap += opening * motion[:, columns].mean(1)
    return gap


def spoken(symbols: str, seconds_each: float = 0.1, start_s: float = 0.4) -> list[Phone]:
    return [
        Phone(
            symbol, start_s + i * seconds_each, start_s + (i + 1) * seconds_each, 2 if symbol in "ɑi" else 0
        )
        for i, symbol in enumerate(symbols)
    ]


@pytest.mark.parametrize("stop", "pbm")
@pytest.mark.parametrize("length_s", [0.05, 0.075, 0.12])
def test_lips_meet_on_labials_between_open_vowels(stop: str, length_s: float) -> None:
    for shift_s in (0.0, 0.013, 0.027):  # wherever the frames fall
        said = [
            Phone("ɑ", 0.4 + shift_s, 0.6 + shift_s, 2),
            Phone(stop, 0.6 + shift_s, 0.6 + shift_s + length_s),
        ]
        said.append(Phone("ɑ", said[-1].end_s, said[-1].end_s + 0.2, 2))
        gap = lip_gap(speech_motion(said, 40, NAMES, np.random.default_rng(0)))
        middle = ((said[1].start_s + said[1].end_s) / 2) * FPS
        assert gap[int(middle) - 1 : int(middle) + 2].min() < 0.05
        assert gap.max() > 0.7


def test_lips_do_not_meet_without_a_labial() -> None:
    gap = lip_gap(speech_motion(spoken("ɑtɑkɑ"), 40, NAMES, np.random.default_rng(0)))
    assert gap[12:21].min() > 0.2


def test_open_vowel_opens_wider_than_a_close_one_and_w_rounds() -> None:
    motions = {s: speech_motion(spoken(s, 0.3), 30, NAMES, np.random.default_rng(0)) for s in "ɑiw"}
    opened = {s: lip_gap(motion)[13:15].mean() for s, motion in motions.items()}
    assert opened["ɑ"] > 1.2 * opened["i"] > 2 * opened["w"]
    pucker = NAMES.index("mouthPucker")
    assert motions["w"][13, pucker] > 0.4 > 0.1 > motions["i"][13, pucker]


def test_mouth_rests_in_silence() -> None:
    motion = speech_motion(spoken("ɑ"), 60, NAMES, np.random.default_rng(0))
    mouth = [i for i, name in enumerate(NAMES) if name.startswith(("mouth", "jaw"))]
    assert np.abs(motion[20:, mouth]).max() < 0.01
    assert motion[20:, 57:].std(0).min() > 1e-4  # the head is never frozen


def test_rounding_begins_before_the_sound() -> None:
    curves = mouth_curves([Phone("t", 0.3, 0.4), Phone("u", 0.4, 0.6)], 1.0, 1.0)
    pucker, gap = curves[:, 3], curves[:, 0]
    assert pucker[int(0.36 * 200)] > 0.25 * pucker.max()
    assert gap.shape == (200,)


def test_blinks_come_at_a_natural_rate_and_close_the_eye() -> None:
    track = np.concatenate(
        [blink_track(np.arange(1500) % 100 < 20, np.random.default_rng(i)) for i in range(10)]
    )
    count = int(((track[1:] > 0.5) & (track[:-1] <= 0.5)).sum())
    assert 10 <= count / 10 <= 25
    assert track.max() > 0.92


def test_head_speed_is_human() -> None:
    rng = np.random.default_rng(3)
    motion = np.stack([speech_motion(spoken("ɑtɑkɑtɑkɑ" * 4, 0.1, 0.2), 110, NAMES, rng) for _ in range(20)])
    speed = np.abs(np.diff(np.degrees(motion[:, :, 57:60]), axis=1)).mean((0, 1)) * FPS
    assert (speed > 0.5).all()
    assert (speed < 5).all()
    assert np.degrees(np.abs(motion[:, :, 57:60])).max() < 20


def test_phones_join_marks_and_keep_time() -> None:
    found = phones(["^", "h", "ˈ", "ɑ", "ː", " ", "p", ".", "$"], [12, 3, 1, 4, 2, 1, 3, 8, 1], delay_s=0.05)
    assert [p.symbol for p in found] == [" ", "h", "ɑ", "p", " ", *([" "] if len(found) > 5 else [])]
    vowel = found[2]
    assert vowel.stress == 2
    assert vowel.start_s == pytest.approx(15 * 0.025 - 0.05)  # the mark's time is the vowel's
    assert found[3].start_s == pytest.approx(vowel.end_s)  # as is a short blank's
    assert found[0].end_s == pytest.approx(12 * 0.025 - 0.05)


def test_long_phone_ends_where_its_sound_ends() -> None:
    pcm = np.zeros(16000, np.float32)
    pcm[4800:8000] = 0.3 * np.random.default_rng(0).standard_normal(3200)
    said = end_with_sound([Phone("ɑ", 0.3, 0.4), Phone("m", 0.4, 0.9)], pcm)
    assert [p.symbol for p in said] == ["ɑ", "m", " "]
    assert said[1].end_s == pytest.approx(0.5, abs=0.02)
    assert said[2].end_s == pytest.approx(0.9)


def test_every_closing_sound_is_labial() -> None:
    assert {symbol for symbol, viseme in VISEMES.items() if viseme.closes} == set("pbm")
