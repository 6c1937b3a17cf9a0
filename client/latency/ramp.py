"""How many sessions a server carries: one more every few seconds, each a real one with its own probe and receiver.

Missed deadlines are the server's own count; mouth to photon is measured by content in every session's pictures.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from client.api import ServerApi
from client.errors import ClientError
from client.latency.adapters import TalkalongAdapter
from client.latency.lips import find_openings
from client.latency.probe import Probe, make_probe
from client.latency.receiver import Receiver
from client.latency.recording import Recording
from client.latency.statistics import summary
from stream.protocol import SessionConfig

SETTLE_S = 4.0  # of each level: the newcomer's connection and first pictures
POLL_S = 1.0
ANSWER_S = 1.0  # in which the answer to a sound has come
MAX_MISS_RATIO = 0.01
GIVE_UP_RATIO = 0.25
PROCESSES = ("server", "model")

Array = npt.NDArray[np.float64]


@dataclass(kw_only=True)
class Level:
    """What was seen with so many sessions, from `from_s` to `to_s` (monotonic seconds)."""

    sessions: int
    from_s: float
    to_s: float = 0.0
    due: int = 0
    missed: int = 0
    cpu: dict[str, float] = field(default_factory=dict)  # cores in use, by process
    memory_mb: dict[str, float] = field(default_factory=dict)
    mouth_to_photon_ms: dict[str, Any] = field(default_factory=dict)

    @property
    def miss_ratio(self) -> float:
        return self.missed / max(self.due, 1)

    def to_dict(self) -> dict[str, Any]:
        return {
            "sessions": self.sessions,
            "seconds": round(self.to_s - self.from_s, 1),
            "miss_ratio": round(self.miss_ratio, 5),
            "due": self.due,
            "missed": self.missed,
            "cpu_cores": self.cpu,
            "memory_mb": self.memory_mb,
            "mouth_to_photon_ms": self.mouth_to_photon_ms,
        }


class Ramp:
    """`climb` opens up to `sessions`, one every `seconds`. progress: told of each level when it is over."""

    def __init__(
        self,
        url: str,
        *,
        sessions: int,
        seconds: float,
        config: SessionConfig,
        token: str | None = None,
        progress: Callable[[Level], None] = lambda _: None,
    ) -> None:
        if seconds < SETTLE_S + 4 * POLL_S:
            raise ClientError(
                f"A step of {seconds:g} s is too short to measure; take {SETTLE_S + 4 * POLL_S:g} s or more."
            )
        self._url, self._token = url, token
        self._sessions, self._seconds = sessions, seconds
        self._config = config
        self._progress = progress
        self._api = ServerApi(url, token=token)
        self._receivers: list[Receiver] = []
        self._adapters: list[TalkalongAdapter] = []
        self._recordings: list[asyncio.Task[Recording]] = []
        self.levels: list[Level] = []
        self.about: dict[str, Any] = {}
        self.stopped_by = ""

    async def climb(self) -> list[Level]:
        """Raises a `ClientError` where not even one session can be had."""
        self.about = await self._api.describe()
        try:
            for count in range(1, self._sessions + 1):
                try:
                    self._open(count)
                    level = await self._stay(count)
                except ClientError as error:
                    if count == 1:
                        raise
                    self.stopped_by = f"Session {count} could not be had: {error}"
                    break
                self.levels.append(level)
                self._progress(level)
                if level.miss_ratio > GIVE_UP_RATIO:
                    sessions = f"{count} session{'s' if count > 1 else ''}"
                    self.stopped_by = f"With {sessions} {level.miss_ratio:.0%} of the pictures were missed."
                    break
        finally:
            for receiver in self._receivers:
                receiver.stop()
            recordings = await asyncio.gather(*self._recordings, return_exceptions=True)
            await self._api.aclose()
        self._find_delays(recordings)
        return self.levels

    def carried(self) -> int:
        """The largest number of sessions, all smaller ones included, that kept missed deadlines under 1 %."""
        most = 0
        for level in self.levels:
            if level.miss_ratio >= MAX_MISS_RATIO:
                break
            most = level.sessions
        return most

    def _open(self, count: int) -> None:
        longest_s = (self._sessions - count + 2) * self._seconds
        adapter = TalkalongAdapter(self._url, config=self._config, token=self._token)
        receiver = Receiver(adapter, make_probe(seconds=longest_s, seed=count))
        self._adapters.append(adapter)
        self._receivers.append(receiver)
        self._recordings.append(asyncio.create_task(receiver.record()))

    async def _stay(self, count: int) -> Level:
        """One level: settle, then count."""
        await self._sleep(SETTLE_S)
        level = Level(sessions=count, from_s=time.monotonic())
        before, used = await self._deadlines(), await self._used()
        while (left_s := level.from_s + self._seconds - SETTLE_S - time.monotonic()) > 0:
            await self._sleep(min(POLL_S, left_s))
        after, used_after = await self._deadlines(), await self._used()
        level.to_s = time.monotonic()
        level.due = sum(due for due, _ in after) - sum(due for due, _ in before)
        level.missed = sum(missed for _, missed in after) - sum(missed for _, missed in before)
        seconds = level.to_s - level.from_s
        for name in used.keys() & used_after.keys():
            level.cpu[name] = round((used_after[name][0] - used[name][0]) / seconds, 3)
            level.memory_mb[name] = round(used_after[name][1] / 1e6, 1)
        return level

    async def _sleep(self, seconds: float) -> None:
        """Sleeps; raises what ended a session in the meantime."""
        done, _ = await asyncio.wait(self._recordings, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()

    async def _deadlines(self) -> list[tuple[int, int]]:
        stats = await asyncio.gather(*(adapter.figures() for adapter in self._adapters))
        return [(int(found["frames_due"]), int(found["frames_missed"])) for found in stats if found]

    async def _used(self) -> dict[str, tuple[float, float]]:
        """CPU seconds and bytes of memory of the server's processes, as far as it says."""
        with contextlib.suppress(ClientError):
            return processes(await self._api.metrics())
        return {}

    def _find_delays(self, recordings: list[Recording | BaseException]) -> None:
        found = [
            answered(said(receiver.probe, recording), recording, self.levels)
            for receiver, recording in zip(self._receivers, recordings, strict=True)
            if not isinstance(recording, BaseException)
        ]
        times, values = (np.concatenate([pair[index] for pair in found] or [np.zeros(0)]) for index in (0, 1))
        for level in self.levels:
            level.mouth_to_photon_ms = summary(values[(times >= level.from_s) & (times < level.to_s)])


def answered(probe: Probe, recording: Recording, levels: list[Level]) -> tuple[Array, Array]:
    """When each of the probe's sounds was made, and after how many ms its lips were seen, NaN where they were not.

    Where the whole recording has no common delay, because a newcomer has changed it, each level is looked at alone.
    """
    asked_s = recording.mouth_s + probe.onsets_s
    lips, _ = find_openings(probe, recording)
    if lips.responds:
        return asked_s, 1_000 * (lips.time_s - asked_s)
    delays_ms = np.full(len(asked_s), np.nan)
    for level in levels:
        inside = (asked_s >= level.from_s) & (asked_s < level.to_s)
        seen = (recording.frame_s >= level.from_s) & (recording.frame_s < level.to_s + ANSWER_S)
        part = replace(recording, frame_s=recording.frame_s[seen], gray=recording.gray[seen])
        lips, _ = find_openings(replace(probe, onsets_s=probe.onsets_s[inside]), part)
        if lips.responds:
            delays_ms[inside] = 1_000 * (lips.time_s - asked_s[inside])
    return asked_s, delays_ms


def said(probe: Probe, recording: Recording) -> Probe:
    """The probe up to where the recording was stopped: the detector learns from a share of its sounds."""
    if len(recording.frame_s) == 0:
        return probe
    until_s = float(recording.frame_s[-1]) - recording.mouth_s - ANSWER_S
    return replace(probe, onsets_s=probe.onsets_s[probe.onsets_s < until_s])


def processes(metrics: str) -> dict[str, tuple[float, float]]:
    """From Prometheus text: {"server": (CPU seconds, resident bytes), "model": ...}."""
    found = {}
    for name in PROCESSES:
        values = [
            re.search(rf"^talkalong_{name}_process_{what} (\S+)$", metrics, re.MULTILINE)
            for what in ("cpu_seconds_total", "resident_memory_bytes")
        ]
        if values[0] and values[1]:
            found[name] = (float(values[0][1]), float(values[1][1]))
    return found
