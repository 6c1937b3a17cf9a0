"""The harness measured: against a server with known delays, does it find them?"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import httpx
import numpy as np

from client.errors import ClientError
from client.latency.detection import Detections, detect
from client.latency.endpoints import Endpoint, OfferEndpoint
from client.latency.figures import verdict
from client.latency.probe import make_probe
from client.latency.receiver import record
from client.latency.reference_server import WAY_S
from client.latency.relay import Relay

DELAYS_MS = (0.0, 50.0, 120.0, 300.0)
JITTER_MS = 40.0
JITTER_DELAY_MS = 120.0
SECONDS = 14.0
START_TIMEOUT_S = 30.0
SLOPE_TOLERANCE = 0.02
OFFSET_TOLERANCE_MS = 5.0
JITTER_TOLERANCE = 0.5  # of a standard deviation from a dozen sounds
BLIND_SOUNDS = 2
"""The first sounds of a session, while connections and codecs settle."""


class ReferenceEndpoint(OfferEndpoint):
    """A session at the reference server, which is told when the first sound is spoken."""

    name = "reference"

    def __init__(self, url: str, *, session: str, settings: str = "", relay: Relay | None = None) -> None:
        super().__init__(f"{url}/offer?session={session}&{settings}", relay=relay)
        self._began = f"{url}/began?session={session}"

    async def began(self, first_sound_s: float) -> None:
        async with httpx.AsyncClient() as http:
            await self.ask(http, "POST", f"{self._began}&at={first_sound_s}")


@dataclass(frozen=True, kw_only=True)
class SelfTest:
    """seen_ms, heard_ms: for each injected delay the mean delay that was found. offset_ms: what the harness finds with
    none (half a frame, as pictures are shown every 40 ms, codecs and the way back); offset_error_ms: its 95 %
    interval, one side."""

    injected_ms: tuple[float, ...]
    seen_ms: tuple[float, ...]
    heard_ms: tuple[float, ...]
    slope: float
    offset_ms: float
    offset_error_ms: float
    sound_slope: float
    sound_offset_ms: float
    jitter_injected_ms: float
    jitter_seen_ms: float
    mute_message: str
    mute_found: bool

    @property
    def failures(self) -> list[str]:
        """What is not as it should be, as sentences."""
        said = []
        for name, slope in (("picture", self.slope), ("sound", self.sound_slope)):
            if not abs(slope - 1) <= SLOPE_TOLERANCE:
                said.append(f"The slope of the {name} is {slope:.3f}, not 1 within {SLOPE_TOLERANCE}.")
        if not self.offset_error_ms <= OFFSET_TOLERANCE_MS:
            said.append(
                f"The offset is known to {self.offset_error_ms:.1f} ms only, not {OFFSET_TOLERANCE_MS:g}."
            )
        if not abs(self.jitter_seen_ms / self.jitter_injected_ms - 1) <= JITTER_TOLERANCE:
            said.append(
                f"A jitter of {self.jitter_injected_ms:.1f} ms (standard deviation) was seen as "
                f"{self.jitter_seen_ms:.1f} ms."
            )
        if not self.mute_found:
            said.append(f"A mute portrait was not noticed; the verdict was: {self.mute_message}")
        return said


async def self_test(*, seconds: float = SECONDS, show: Callable[[str], None] = lambda _: None) -> SelfTest:
    """Five sessions at a time, against one reference server in its own process.

    Raises:
        ClientError: the reference server does not start, or a session does not connect.
    """
    async with reference_server() as url:
        delayed = [f"delay_ms={delay}" for delay in DELAYS_MS]
        # Sessions that start later find their processes busier: the second half goes the other way round.
        jittery = f"delay_ms={JITTER_DELAY_MS}&jitter_ms={JITTER_MS}"
        first = await _all(url, [*delayed, jittery], seconds, show, seed=0)
        second = await _all(url, [*delayed[::-1], "delay_ms=50&muted=1"], seconds, show, seed=1)
    count = len(DELAYS_MS)
    steady = [[a, b] for a, b in zip(first[:count], second[count - 1 :: -1], strict=True)]
    return evaluate(steady, first[-1], second[-1])


def evaluate(steady: list[list[Detections]], jittery: Detections, muted: Detections) -> SelfTest:
    """`steady`: the runs of each of DELAYS_MS."""
    seen = [_settled(*(found.mouth_to_photon_ms for found in runs)) for runs in steady]
    heard = [_settled(*(found.mouth_to_ear_ms for found in runs)) for runs in steady]
    slope, offset, error = _line(seen)
    sound_slope, sound_offset, _ = _line(heard)
    # Of the spread that is seen, the frame's own part is in every run.
    own = float(np.mean([_deviation(values) ** 2 for values in seen]))
    spread = _deviation(_settled(jittery.mouth_to_photon_ms)) ** 2
    judged = verdict(muted)
    return SelfTest(
        injected_ms=DELAYS_MS,
        seen_ms=tuple(round(float(values.mean()), 1) for values in seen),
        heard_ms=tuple(round(float(values.mean()), 1) for values in heard),
        slope=round(slope, 4),
        offset_ms=round(offset, 1),
        offset_error_ms=round(error, 2),
        sound_slope=round(sound_slope, 4),
        sound_offset_ms=round(sound_offset, 1),
        jitter_injected_ms=round(2 * JITTER_MS / 12**0.5, 1),
        jitter_seen_ms=round(float(np.sqrt(max(spread - own, 0.0))), 1),
        mute_message=judged.message,
        mute_found=not judged.valid and judged.message.startswith("No response"),
    )


def _settled(*runs_ms: np.ndarray) -> np.ndarray:
    values_ms = np.concatenate([values_ms[BLIND_SOUNDS:] for values_ms in runs_ms])
    return np.asarray(values_ms[np.isfinite(values_ms)])


def _deviation(values: np.ndarray) -> float:
    """The standard deviation, as half of what the middle 68 % span: one odd value does not count."""
    low, high = np.percentile(values, (16, 84)) if len(values) else (0.0, 0.0)
    return float(high - low) / 2


def _line(values: list[np.ndarray]) -> tuple[float, float, float]:
    """Slope, offset, and the offset's 95 % interval (one side), by least squares over all single figures."""
    x = np.concatenate([np.full(len(part), delay) for part, delay in zip(values, DELAYS_MS, strict=True)])
    y = np.concatenate(values)
    if len(y) < 8:
        return np.nan, np.nan, np.nan
    design = np.stack([x, np.ones(len(x))], 1)
    (slope, offset), *_ = np.linalg.lstsq(design, y, rcond=None)
    scatter = float(np.sum((y - design @ [slope, offset]) ** 2)) / (len(y) - 2)
    error = 1.96 * float(np.sqrt(scatter * np.linalg.inv(design.T @ design)[1, 1]))
    return float(slope), float(offset), error


async def _all(
    url: str, settings: list[str], seconds: float, show: Callable[[str], None], *, seed: int
) -> list[Detections]:
    """One session for each of the settings, side by side; the first one's progress is shown."""
    runs = []
    for number, each in enumerate(settings):
        name = seed * len(settings) + number
        endpoint = ReferenceEndpoint(url, session=str(name), settings=each)
        runs.append(_run(endpoint, seconds, show if number == 0 else lambda _: None, seed=name))
    return await asyncio.gather(*runs)


async def _run(endpoint: Endpoint, seconds: float, show: Callable[[str], None], *, seed: int) -> Detections:
    probe = make_probe(seconds, seed=seed)
    try:
        recording = await record(endpoint, probe, progress=show)
    finally:
        await endpoint.aclose()
    found = await asyncio.to_thread(detect, recording, probe)
    return replace(found, spoken_s=found.spoken_s + WAY_S)


@contextlib.asynccontextmanager
async def reference_server() -> AsyncIterator[str]:
    """Its address; ends with the context."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "client.latency.reference_server", str(port)
    )
    try:
        await _wait_for(f"http://127.0.0.1:{port}/openapi.json", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _wait_for(url: str, process: Any) -> None:
    async with httpx.AsyncClient(timeout=2) as http:
        for _ in range(round(START_TIMEOUT_S / 0.1)):
            with contextlib.suppress(httpx.HTTPError):
                if (await http.get(url)).is_success:
                    return
            if process.returncode is not None:
                break
            await asyncio.sleep(0.1)
    raise ClientError("The reference server did not start; run it by hand to see why: "
                      "`python -m client.latency.reference_server 8090`.")  # fmt: skip
