"""The harness measures a server whose delays are known, and so proves itself: `talkalong latency --self-test`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from client.errors import ClientError
from client.latency.adapters import JsonOfferAdapter
from client.latency.lips import find_openings
from client.latency.measurement import MEAN_PHASE_MS
from client.latency.probe import make_probe
from client.latency.receiver import Receiver
from client.latency.recording import Recording
from client.latency.reference_server import BASE_MS
from client.latency.sounds import find_sounds
from stream.protocol import FPS

DELAYS_MS = (0.0, 50.0, 120.0, 300.0)
JITTER_MS = 40.0
SECONDS = 14.0
SLOPE_TOLERANCE = 0.02
OFFSET_TOLERANCE_MS = 5.0
JITTER_TOLERANCE_MS = 6.0
START_TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class SelfTest:
    """slope and offset_ms of measured over injected delay (mouth to photon); offset_spread_ms: how far a single
    delay's offset is from the common one. jitter_ms: the p95 measured and the p95 that was injected. late_ms: the
    harness's own lateness at the microphone, p99."""

    slope: float
    offset_ms: float
    offset_spread_ms: float
    offset_uncertainty_ms: float
    ear_slope: float
    ear_offset_ms: float
    measured_ms: dict[str, float]
    missed: int
    false: int
    sounds: int
    jitter_ms: float
    injected_jitter_ms: float
    mute: str
    late_ms: float
    problems: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.problems


@asynccontextmanager
async def reference_server() -> AsyncIterator[str]:
    """The reference server in its own process; yields the address of its /offer."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "client.latency.reference_server",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        try:
            line = await asyncio.wait_for(process.stdout.readline(), START_TIMEOUT_S)
            port = json.loads(line)["port"]
        except (TimeoutError, ValueError, KeyError) as error:
            raise ClientError("The reference server of the self-test did not start.") from error
        yield f"http://127.0.0.1:{port}/offer"
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()


async def self_test(
    *, seconds: float = SECONDS, mouth: bool = False, show: Callable[[str], None] = lambda _: None
) -> SelfTest:
    """mouth: a drawn face instead of flashes. Takes about twice `seconds`: the delays run side by side, then the
    rest."""
    probe = make_probe(seconds=seconds, kind="syllables" if mouth else "clicks", seed=11, shortest_gap_s=0.35,
                       longest_gap_s=0.6)  # fmt: skip

    async def run(url: str, **options: Any) -> Recording:
        return await Receiver(JsonOfferAdapter(url, extra={"mouth": mouth, **options}), probe).record()

    async with reference_server() as url:
        show(f"delays of {', '.join(f'{delay:.0f}' for delay in DELAYS_MS)} ms, side by side\n")
        delayed = await asyncio.gather(*(run(url, delay_ms=delay) for delay in DELAYS_MS))
        show(f"jitter of {JITTER_MS:.0f} ms, and a mouth that does not listen\n")
        shaken, mute = await asyncio.gather(run(url, jitter_ms=JITTER_MS), run(url, muted=True))

    problems: list[str] = []
    photon, ear, errors, missed, false = [], [], [], 0, 0
    for delay, recording in zip(DELAYS_MS, delayed, strict=True):
        lips, _ = find_openings(probe, recording)
        sounds = find_sounds(probe, recording)
        missed, false = missed + lips.missed + sounds.missed, false + lips.false + sounds.false
        if not lips.responds or not sounds.responds:
            problems.append(f"At {delay:.0f} ms nothing was found: {lips.reason or sounds.reason}.")
            continue
        asked_s = recording.mouth_s + probe.onsets_s
        own = 1_000 * (lips.time_s - asked_s)[lips.found] - delay - BASE_MS + MEAN_PHASE_MS
        # Each sound's phase in its frame is spread evenly: means of the middle, robust against a stall.
        photon.append(delay + _middle(own))
        errors.append(float(own.std() / np.sqrt(len(own))))
        ear.append(_middle(1_000 * (sounds.time_s - asked_s)[sounds.found] - BASE_MS))
    slope, offset, spread = _line(photon)
    ear_slope, ear_offset, _ = _line(ear)
    intervals = 1_000 * np.diff(shaken.frame_s[shaken.frame_s > shaken.mouth_s + 1.0])
    jitter = float(np.percentile(np.abs(intervals - 1_000 / FPS), 95)) if len(intervals) else float("nan")
    injected = JITTER_MS * (1 - np.sqrt(0.05))  # |a - b| of two even ones exceeds it in 5 %
    mute_lips, _ = find_openings(probe, mute)
    late = float(1_000 * np.percentile(np.concatenate([item.late_s for item in delayed]), 99))
    for name, wrong in (
        (f"the slope is {slope:.3f}, not 1 +- {SLOPE_TOLERANCE}", not abs(slope - 1) <= SLOPE_TOLERANCE),
        (f"the sound's slope is {ear_slope:.3f}, not 1 +- {SLOPE_TOLERANCE}", not abs(ear_slope - 1) <=
        SLOPE_TOLERANCE), (f"the offset moves by {spread:.1f} ms, more than {OFFSET_TOLERANCE_MS}", not spread <=
        OFFSET_TOLERANCE_MS), (
            f"the offset is known to {1.96 * _pooled(errors):.1f} ms only, not to {OFFSET_TOLERANCE_MS}",
            not 1.96 * _pooled(errors) <= OFFSET_TOLERANCE_MS,
        ),
        (
            f"a jitter of {injected:.0f} ms (p95) was measured as {jitter:.0f} ms",
            not abs(jitter - injected) <= JITTER_TOLERANCE_MS,
        ),
        ("a mouth that does not listen was taken for an answer", mute_lips.responds),
        (f"{missed} of {2 * len(probe.onsets_s) * len(DELAYS_MS)} answers were missed",
         missed > 0.05 * 2 * len(probe.onsets_s) * len(DELAYS_MS)),
    ):  # fmt: skip
        if wrong:
            problems.append(name[0].upper() + name[1:] + ".")
    return SelfTest(
        slope=round(slope, 4),
        offset_ms=round(offset, 2),
        offset_spread_ms=round(spread, 2),
        offset_uncertainty_ms=round(1.96 * _pooled(errors), 2),
        ear_slope=round(ear_slope, 4),
        ear_offset_ms=round(ear_offset, 2),
        measured_ms={
            f"{delay:.0f}": round(value, 2) for delay, value in zip(DELAYS_MS, photon, strict=False)
        },
        missed=missed,
        false=false,
        sounds=len(probe.onsets_s) * len(DELAYS_MS),
        jitter_ms=round(jitter, 1),
        injected_jitter_ms=round(float(injected), 1),
        mute=mute_lips.reason or "responds",
        late_ms=round(late, 2),
        problems=problems,
    )


def _pooled(errors: list[float]) -> float:
    """Standard error of the mean of several means."""
    return float(np.sqrt(np.sum(np.square(errors))) / len(errors)) if errors else float("nan")


def _middle(values: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Mean without the outer tenths."""
    ordered = np.sort(values)
    cut = len(ordered) // 10
    return float(ordered[cut : len(ordered) - cut].mean())


def _line(measured: list[float]) -> tuple[float, float, float]:
    """Slope, mean offset and the largest distance of one offset from it; NaN unless all delays were measured."""
    if len(measured) < len(DELAYS_MS):
        return float("nan"), float("nan"), float("nan")
    slope = float(np.polyfit(DELAYS_MS, measured, 1)[0])
    offsets = np.array(measured) - np.array(DELAYS_MS)
    return slope, float(offsets.mean()), float(np.abs(offsets - offsets.mean()).max())
