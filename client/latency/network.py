"""Bad networks, made in the transport, in both directions: loss, delay, jitter, reordering, a rate limit; seeded.

Everything the connection sends and receives after its set-up goes through; the other side sees a real bad network.
The same profile and seed drop and delay the packets of the same numbers in every run.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from aiortc import RTCPeerConnection

logger = logging.getLogger(__name__)

QUEUE_S = 0.3  # what a router with a rate limit keeps before it drops


@dataclass(frozen=True, kw_only=True)
class Profile:
    """loss: share of packets, 0..1; burst: how many are lost in a row on average. delay_ms: one way; jitter_ms: the
    mean of an exponential delay on top, in order unless `reorder`, the share of packets that may overtake.
    rate_kbps: 0 is none."""

    name: str = "custom"
    loss: float = 0.0
    burst: float = 1.0
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    reorder: float = 0.0
    rate_kbps: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.loss < 1 or not 0 <= self.reorder <= 1:
            raise ValueError("loss and reorder are shares of packets: 0 to 1.")
        if min(self.delay_ms, self.jitter_ms, self.rate_kbps) < 0 or self.burst < 1:
            raise ValueError(
                "delay, jitter and rate cannot be negative, and a burst has at least one packet."
            )


PROFILES = {
    "wifi": Profile(name="wifi", loss=0.002, burst=2, delay_ms=3, jitter_ms=4, reorder=0.001),
    "lte": Profile(name="lte", loss=0.005, burst=2, delay_ms=30, jitter_ms=8, rate_kbps=8_000),
    "lossy": Profile(
        name="lossy", loss=0.03, burst=1.5, delay_ms=20, jitter_ms=10, reorder=0.01, rate_kbps=3_000
    ),
}


def profile(name: str, *, seed: int = 0, **values: float | None) -> Profile:
    """A named profile, or "custom", with single values replaced where they are given."""
    if name != "custom" and name not in PROFILES:
        raise ValueError(
            f"There is no network profile '{name}'; choose custom or one of {', '.join(PROFILES)}."
        )
    given: dict[str, Any] = {key: value for key, value in values.items() if value is not None}
    return replace(PROFILES.get(name, Profile()), seed=seed, **given)


class Path:
    """One direction: `pass_on(now, bytes)` says when a packet is there, or None where it is lost. No clock of its
    own."""

    def __init__(self, conditions: Profile, *, stream: int) -> None:
        self._conditions = conditions
        self._rng = np.random.default_rng([conditions.seed, stream])
        self._losing = False
        self._free_s = 0.0
        self._last_s = 0.0
        self.packets = 0
        self.lost = 0

    def pass_on(self, now_s: float, size: int) -> float | None:
        chance, wait, overtakes = self._rng.random(), self._rng.exponential(), self._rng.random()
        self.packets += 1
        c = self._conditions
        # Gilbert's two states: a loss goes on with 1 - 1/burst, and the share of losses is as asked.
        go_on = 1 - 1 / c.burst
        begin = min(1.0, c.loss * (1 - go_on) / (1 - c.loss))
        self._losing = chance < (go_on if self._losing else begin)
        if self._losing:
            self.lost += 1
            return None
        leaves_s = now_s
        if c.rate_kbps:
            leaves_s = max(now_s, self._free_s)
            if leaves_s - now_s > QUEUE_S:
                self.lost += 1
                return None
            leaves_s += size * 8 / (1_000 * c.rate_kbps)
            self._free_s = leaves_s
        there_s = leaves_s + (c.delay_ms + c.jitter_ms * wait) / 1_000
        if overtakes >= c.reorder:
            there_s = max(there_s, self._last_s)
            self._last_s = there_s
        return there_s


class ImpairedLink:
    """Puts a path before and one behind a peer connection's ICE transport; at once, before its set-up has ended."""

    def __init__(self, pc: RTCPeerConnection, conditions: Profile, *, leg: int = 0) -> None:
        self.up = Path(conditions, stream=2 * leg)
        self.down = Path(conditions, stream=2 * leg + 1)
        self._tasks: set[asyncio.Task[None]] = set()
        ice = pc.getTransceivers()[0].sender.transport.transport
        self._send, self._recv = ice._send, ice._recv
        self._arrived: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        ice._send, ice._recv = self._send_later, self._recv_later
        self._pump: asyncio.Task[None] | None = None

    async def aclose(self) -> None:
        tasks = [*self._tasks, *([self._pump] if self._pump else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _send_later(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        there_s = self.up.pass_on(loop.time(), len(data))
        if there_s is not None:
            loop.call_at(there_s, self._send_now, data)

    def _send_now(self, data: bytes) -> None:
        task = asyncio.ensure_future(self._try_to_send(data))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _try_to_send(self, data: bytes) -> None:
        try:
            await self._send(data)
        except ConnectionError:
            logger.debug("a delayed packet found the connection closed")

    async def _recv_later(self) -> bytes:
        if self._pump is None:
            self._pump = asyncio.create_task(self._pump_arrivals())
        item = await self._arrived.get()
        if isinstance(item, Exception):
            raise item
        return item

    async def _pump_arrivals(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = await self._recv()
            except ConnectionError as error:
                self._arrived.put_nowait(error)
                return
            there_s = self.down.pass_on(loop.time(), len(data))
            if there_s is not None:
                loop.call_at(there_s, self._arrived.put_nowait, data)
