"""Where a connection of the server can be reached: its own sockets, what STUN sees of them, a TURN relay.

Does what aioice's gathering does, and what that has no option for: ports out of a range, and the public address of a
machine behind 1:1 NAT. A relay that refuses is said in the log, in a sentence, and does not hold up an answer for long.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import secrets
import socket
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import aioice.ice
from aioice.candidate import Candidate, candidate_foundation, candidate_priority

from stream import aiortc_patches
from stream.errors import UnavailableError

logger = logging.getLogger(__name__)

SERVER_TIMEOUT_S = 3.0  # for STUN and TURN; a caller waits for the answer meanwhile
LATE_RELAY_S = 15.0  # a slow relay may still join the checks
SOCKET_BUFFER_BYTES = 262_144
ANYBODY = "192.0.2.1"  # of a network for documentation (RFC 5737), so on the way to everybody
UNAUTHORIZED, QUOTA_REACHED, NO_CAPACITY = 401, 486, 508


@dataclass(frozen=True, kw_only=True)
class HostPaths:
    """port_range: first and last UDP port. public_address: PUBLIC or PUBLIC/PRIVATE. client: the address that the
    client's request came from."""

    port_range: tuple[int, int] | None = None
    public_address: str | None = None
    client: str = ""

    async def gather(
        self, connection: aioice.Connection, component: int, addresses: list[str], *, relay_only: bool
    ) -> tuple[list[Candidate], list[Any]]:
        """The candidates to announce, and the protocols (sockets, relays) behind them.

        addresses: the machine's own; none with `relay_only`. Raises UnavailableError where nothing is left to
        announce: all ports taken, or a relay that is needed and refuses.
        """
        hosts, taken = await self._hosts(connection, component, addresses)
        if taken and not hosts:
            raise UnavailableError(
                f"All UDP ports from {self._first} to {self._last} are taken; try again later. The operator can "
                "widen ice.port_range.",
                code="no_udp_port",
            )
        base = self.nat_base(addresses)
        near = self.near_address()
        hosts.sort(key=lambda item: _reach(item.local_candidate.host, near))
        candidates = [self._announced(item.local_candidate, base) for item in hosts]
        try:
            found, relays, refusal = await self._ask_servers(connection, component, hosts, relay_only)
        except BaseException:
            for item in hosts:
                item.transport.abort()
            raise
        if relay_only and not relays:
            raise UnavailableError(
                f"This server talks through a TURN relay only, and there is none: {refusal} Its operator can find out "
                "more with `talkalong doctor`.",
                code="relay_unavailable",
            )
        return candidates + found, [*hosts, *relays]

    @property
    def _first(self) -> int:
        return self.port_range[0] if self.port_range else 0

    @property
    def _last(self) -> int:
        return self.port_range[1] if self.port_range else 0

    def ports(self) -> list[int]:
        """In the order in which they are tried: from a random one on, round to it. [0] for any."""
        count = self._last - self._first + 1
        start = secrets.randbelow(count)
        return [self._first + (start + i) % count for i in range(count)]

    async def _hosts(
        self, connection: aioice.Connection, component: int, addresses: list[str]
    ) -> tuple[list[Any], bool]:
        """A socket for each address that has a free port; whether one had none."""
        protocols, taken = [], False
        ports = self.ports()
        for address in addresses:
            try:
                protocol = await self._bind(connection, address, ports)
            except OSError as error:
                taken = taken or error.errno == errno.EADDRINUSE
                logger.warning("no UDP socket on %s: %s", address, error.strerror or error)
                continue
            host, port = protocol.transport.get_extra_info("sockname")[:2]
            protocol.local_candidate = Candidate(
                foundation=candidate_foundation("host", "udp", host),
                component=component,
                transport="udp",
                priority=candidate_priority(component, "host"),
                host=host,
                port=port,
                type="host",
            )
            protocols.append(protocol)
        return protocols, taken

    async def _bind(self, connection: aioice.Connection, address: str, ports: list[int]) -> Any:
        loop = asyncio.get_running_loop()
        for port in ports:
            try:
                transport, protocol = await loop.create_datagram_endpoint(
                    lambda: aioice.ice.StunProtocol(connection), local_addr=(address, port)
                )
            except OSError as error:
                if error.errno == errno.EADDRINUSE and port != ports[-1]:
                    continue
                raise
            bound = transport.get_extra_info("socket")
            if bound is not None:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
            return protocol
        raise AssertionError("there is always a port to try")

    def nat_base(self, addresses: list[str]) -> str | None:
        """The own address that is known as `public_address` outside."""
        public, _, private = (self.public_address or "").partition("/")
        if not public or private:
            return private or None
        outside = [item for item in addresses if _is_outside(item)]
        routed = _routed(public)
        base = routed if routed in outside else (outside[0] if len(outside) == 1 else None)
        if base is None and addresses:
            logger.warning(
                "ice.public_address %s belongs to none of this machine's addresses for certain; write it as "
                "PUBLIC/PRIVATE",
                public,
            )
        return base

    def near_address(self) -> str:
        """The own IPv4 address from which the way to the client goes; that of the way to everybody where the client
        seems to be this machine, which may be a proxy."""
        try:
            ip = ipaddress.ip_address(self.client)
        except ValueError:
            ip = ipaddress.IPv4Address(ANYBODY)
        return _routed(str(ip) if ip.version == 4 and not ip.is_loopback else ANYBODY)

    def _announced(self, candidate: Candidate, base: str | None) -> Candidate:
        if base is None or candidate.host != base:
            return candidate
        public = (self.public_address or "").partition("/")[0]
        return Candidate(
            foundation=candidate_foundation("host", "udp", public),
            component=candidate.component,
            transport=candidate.transport,
            priority=candidate.priority,
            host=public,
            port=candidate.port,
            type="host",
        )

    async def _ask_servers(
        self, connection: aioice.Connection, component: int, hosts: list[Any], relay_only: bool
    ) -> tuple[list[Candidate], list[Any], str]:
        """Candidates and protocols of STUN and TURN, and why the relay is missing if it is."""
        asked: list[Coroutine[Any, Any, tuple[Candidate, Any]]] = []
        relay: asyncio.Task[tuple[Candidate, Any]] | None = None
        begin = time.monotonic()
        if connection.stun_server:
            asked += [
                aioice.ice.server_reflexive_candidate(item, connection.stun_server)
                for item in hosts
                if _is_outside(item.local_candidate.host)
            ]
        if connection.turn_server:
            asking = asyncio.wait_for(
                aioice.ice.relayed_candidate(
                    component=component,
                    hide_related_address=relay_only,
                    protocol_factory=lambda: aioice.ice.StunProtocol(connection),
                    turn_server=connection.turn_server,
                    turn_username=connection.turn_username,
                    turn_password=connection.turn_password,
                    turn_ssl=connection.turn_ssl,
                    turn_transport=connection.turn_transport,
                ),
                SERVER_TIMEOUT_S if relay_only else LATE_RELAY_S,
            )
            relay = asyncio.create_task(asking, name="turn-relay")
        reflexive = [asyncio.wait_for(item, SERVER_TIMEOUT_S) for item in asked]
        try:
            answers = await asyncio.gather(*reflexive, return_exceptions=True)
            if relay is not None:
                rest_s = begin + SERVER_TIMEOUT_S - time.monotonic()
                await asyncio.wait([relay], timeout=None if relay_only else max(rest_s, 0))
        except BaseException:
            if relay is not None:
                relay.cancel()
            raise
        candidates = [answer[0] for answer in answers if not isinstance(answer, BaseException)]
        if relay is None or connection.turn_server is None:
            return candidates, [], "none is configured."
        if not relay.done():
            logger.info("the TURN server is slow; this session's relay joins in when it is there")
            relay.add_done_callback(lambda task: _join(task, connection))
            return candidates, [], ""
        if (error := relay.exception()) is not None:
            refusal = explain_relay(error, connection.turn_server)
            logger.warning("no TURN relay for this session: %s", refusal)
            return candidates, [], refusal
        candidate, protocol = relay.result()
        return [*candidates, candidate], [protocol], ""


def _join(task: asyncio.Task[tuple[Candidate, Any]], connection: aioice.Connection) -> None:
    """A relay that came after the answer: the client learns of it by the checks that come from it."""
    if task.cancelled():
        return
    if (error := task.exception()) is not None:
        assert connection.turn_server is not None
        logger.warning("no TURN relay for this session: %s", explain_relay(error, connection.turn_server))
    else:
        aiortc_patches.join_late(connection, task.result()[1])


def _routed(address: str) -> str:
    """The own IPv4 address from which packets to this one leave, or ""."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))  # sends nothing: only asks for the route
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def _reach(address: str, near: str) -> tuple[bool, bool, bool]:
    """Sorts first what a client can reach most likely: some (FFmpeg) try the first candidate alone, over IPv4."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return ip.version != 4, ip.is_loopback, address != near


def _is_outside(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    return ip.version == 4 and not ip.is_loopback


def explain_relay(error: BaseException, server: tuple[str, int]) -> str:
    """A TURN server's refusal as a sentence; never with credentials."""
    place = f"{server[0]}:{server[1]}"
    response = getattr(error, "response", None)
    code = response.error_code if response is not None else None
    if code == UNAUTHORIZED:
        return (
            f"the TURN server {place} refuses the credentials. Either its static-auth-secret is another one than ice's "
            "secret, or they have expired (is a clock wrong?)."
        )
    if code in (QUOTA_REACHED, NO_CAPACITY):
        return f"the TURN server {place} has no room for another relay (error {code}); raise its quotas or port range."
    if code:
        return f"the TURN server {place} refuses with error {code}."
    if isinstance(error, TimeoutError) or type(error).__name__ == "TransactionTimeout":
        return (
            f"the TURN server {place} does not answer; is it running, and does the firewall let us through?"
        )
    return f"the TURN server {place} cannot be reached ({error or type(error).__name__})."
