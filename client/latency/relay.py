"""A network that loses, delays and reorders: a UDP relay between the two peers.

It sits in the path because the harness writes its address into the answer and takes the client's own candidates out
of the offer: all packets of both directions have to pass. So it works with any server and any receiver, and touches
nobody's private names. One seeded generator per direction: the same run meets the same network.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np

from client.errors import ClientError

Address = tuple[str, int]

CANDIDATE = re.compile(
    r"^a=candidate:\S+ \d+ (?P<protocol>\S+) \d+ (?P<host>\S+) (?P<port>\d+) typ host", re.I
)


@dataclass(frozen=True, kw_only=True)
class NetworkProfile:
    """One direction. loss, reorder: shares of the packets, 0 to 1; a reordered one comes `reorder_ms` late.

    delay_ms is fixed, jitter_ms the mean of an exponential on top (order is kept); rate_kbps limits, with a queue of
    `queue_ms` before packets are dropped; 0 is no limit.
    """

    loss: float = 0.0
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    reorder: float = 0.0
    reorder_ms: float = 30.0
    rate_kbps: float = 0.0
    queue_ms: float = 300.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 0 or (name in ("loss", "reorder") and value > 1):
                raise ValueError(
                    f"{name} is {value:g}; a share lies between 0 and 1, a time or rate is not negative."
                )


PROFILES = {
    "none": NetworkProfile(),
    "wifi": NetworkProfile(loss=0.002, delay_ms=3, jitter_ms=3),
    "lte": NetworkProfile(loss=0.005, delay_ms=35, jitter_ms=8, reorder=0.002),
    "lossy": NetworkProfile(loss=0.05, delay_ms=20, jitter_ms=10, reorder=0.01),
}


def parse_profile(text: str) -> NetworkProfile:
    """A name, or settings: `loss=0.01,delay_ms=40`, also on top of a name: `wifi,loss=0.05`."""
    profile = NetworkProfile()
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals:
            if name not in PROFILES:
                raise ValueError(
                    f"There is no network profile '{name}'; choose {', '.join(PROFILES)}, or key=value."
                )
            profile = PROFILES[name]
            continue
        if name not in asdict(profile):
            raise ValueError(f"A network has no '{name}'; it has {', '.join(asdict(profile))}.")
        try:
            profile = replace(profile, **{name: float(value)})
        except ValueError as error:
            raise ValueError(f"{part} cannot be used: {error}") from None
    return profile


class Direction:
    """When a packet that came at `now` goes on, or that it is lost. Pure; times in seconds."""

    def __init__(self, profile: NetworkProfile, seed: int) -> None:
        self._profile = profile
        self._rng = np.random.default_rng(seed)
        self._free_at = 0.0  # when the line has sent what is queued
        self._last = 0.0
        self.packets = self.lost = 0

    def release(self, now: float, size: int) -> float | None:
        profile = self._profile
        self.packets += 1
        lost, reordered = self._rng.uniform(size=2) < (profile.loss, profile.reorder)
        jitter_s = self._rng.exponential(profile.jitter_ms / 1_000) if profile.jitter_ms else 0.0
        sent = now
        if profile.rate_kbps:
            sent = max(now, self._free_at)
            lost = lost or sent - now > profile.queue_ms / 1_000
            if not lost:
                sent = self._free_at = sent + size * 8 / (profile.rate_kbps * 1_000)
        if lost:
            self.lost += 1
            return None
        at = sent + profile.delay_ms / 1_000 + jitter_s
        if reordered:
            return at + profile.reorder_ms / 1_000
        self._last = max(self._last, at)
        return self._last


class Relay:
    """Async context manager for one connection; `offer` and `answer` rewrite the descriptions that pass."""

    def __init__(self, *, up: NetworkProfile, down: NetworkProfile, seed: int = 0) -> None:
        self.up, self.down = Direction(up, 2 * seed), Direction(down, 2 * seed + 1)
        self._client: Address | None = None
        self._server: Address | None = None
        self._near: asyncio.DatagramTransport | None = None
        self._far: asyncio.DatagramTransport | None = None
        self._timers: set[asyncio.TimerHandle] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._near, _ = await loop.create_datagram_endpoint(
            lambda: _Port(self._from_client), local_addr=("127.0.0.1", 0)
        )
        self._far, _ = await loop.create_datagram_endpoint(
            lambda: _Port(self._from_server), local_addr=("0.0.0.0", 0)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for timer in self._timers:
            timer.cancel()
        for port in (self._near, self._far):
            if port is not None:
                port.close()

    def offer(self, sdp: str) -> str:
        """Without the client's addresses: the server learns the relay's when its packets come."""
        return "".join(
            line
            for line in sdp.splitlines(keepends=True)
            if not line.startswith(("a=candidate:", "a=end-of-candidates"))
        )

    def answer(self, sdp: str) -> str:
        """With the relay's address instead of the server's.

        Raises:
            ClientError: the server offers no IPv4 address of its own over UDP.
        """
        assert self._near is not None
        found = [match for match in map(CANDIDATE.match, sdp.splitlines()) if match is not None]
        if not found:
            raise ClientError(
                "A network profile needs a server that offers an IPv4 address of its own over UDP; this one has none."
            )
        best = next((match for match in found if match["host"] == "127.0.0.1"), found[0])
        self._server = (best["host"], int(best["port"]))
        port = self._near.get_extra_info("sockname")[1]
        relayed = f"a=candidate:1 1 udp 2130706431 127.0.0.1 {port} typ host\r\n"
        lines = [line for line in sdp.splitlines(keepends=True) if not line.startswith("a=candidate:")]
        # After each section's own ICE credentials; with BUNDLE the first one counts.
        return "".join(line + (relayed if line.startswith("a=ice-pwd:") else "") for line in lines)

    def _from_client(self, data: bytes, address: Address) -> None:
        self._client = address
        if self._server is not None and self._far is not None:
            self._pass_on(self.up, self._far, data, self._server)

    def _from_server(self, data: bytes, _: Address) -> None:
        if self._client is not None and self._near is not None:
            self._pass_on(self.down, self._near, data, self._client)

    def _pass_on(
        self, direction: Direction, port: asyncio.DatagramTransport, data: bytes, to: Address
    ) -> None:
        loop = asyncio.get_running_loop()
        at = direction.release(loop.time(), len(data))
        if at is None:
            return
        if at <= loop.time():
            port.sendto(data, to)
            return

        def send() -> None:
            self._timers.discard(timer)
            with contextlib.suppress(OSError):
                port.sendto(data, to)

        timer = loop.call_at(at, send)
        self._timers.add(timer)


class _Port(asyncio.DatagramProtocol):
    def __init__(self, receive: Any) -> None:
        self._receive = receive

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._receive(data, addr)
