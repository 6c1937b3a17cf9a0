"""Asks STUN and TURN servers what they do for us: an own address as seen from outside, a relay of their own."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from aioice import stun, turn
from aiortc.rtcicetransport import parse_stun_turn_uri

TIMEOUT_S = 4.0
UNAUTHORIZED, QUOTA_REACHED, NO_CAPACITY = 401, 486, 508


class Reason(enum.Enum):
    """Why a server gave no address."""

    NO_ADDRESS = enum.auto()  # its own address is none
    NO_CREDENTIALS = enum.auto()  # it wants some, and none are configured
    EXPIRED = enum.auto()
    REFUSED = enum.auto()  # the credentials
    NO_ROOM = enum.auto()
    ERROR = enum.auto()  # another that it answered with
    SILENT = enum.auto()
    UNREACHABLE = enum.auto()


@dataclass(frozen=True, kw_only=True)
class ServerAnswer:
    """address: what a STUN server sees of us, or a TURN server's relay for us; None where it gave none: `reason` and,
    as a sentence without credentials, `problem` say why. wait_ms: how long the answer took."""

    urls: str
    address: str | None = None
    reason: Reason | None = None
    problem: str = ""
    wait_ms: float = 0.0

    @property
    def relay(self) -> bool:
        return self.urls.startswith("turn")


async def ask(server: Mapping[str, Any]) -> ServerAnswer:
    """server: as the server describes it (`urls`, `username`, `credential`). Never raises."""
    urls = str(server.get("urls", ""))
    try:
        place = parse_stun_turn_uri(urls)
    except ValueError:
        return ServerAnswer(
            urls=urls, reason=Reason.NO_ADDRESS, problem=f"'{urls}' is not the address of an ICE server."
        )
    begun = time.monotonic()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            if place["scheme"].startswith("turn"):
                address = await _allocate(place, server)
            else:
                address = await _bind(place)
    except (OSError, ConnectionError, TimeoutError, stun.TransactionError) as error:
        reason = find_reason(error, server)
        return ServerAnswer(urls=urls, reason=reason, problem=explain(urls, reason, error, server))
    return ServerAnswer(urls=urls, address=address, wait_ms=1_000 * (time.monotonic() - begun))


async def find_relay_problem(servers: list[dict[str, Any]]) -> str | None:
    """Why no TURN server helps, one sentence each; None where one does, or there is none."""
    relays = [server for server in servers if str(server.get("urls", "")).startswith("turn")]
    answers = await asyncio.gather(*(ask(server) for server in relays))
    if not answers or any(answer.address for answer in answers):
        return None
    return " ".join(answer.problem for answer in answers)


def find_reason(error: BaseException, server: Mapping[str, Any]) -> Reason:
    """What an error that came instead of an address means."""
    code = _error_code(error)
    if code == UNAUTHORIZED:
        if server.get("username") is None:
            return Reason.NO_CREDENTIALS
        return Reason.EXPIRED if _ended(str(server["username"])) else Reason.REFUSED
    if code in (QUOTA_REACHED, NO_CAPACITY):
        return Reason.NO_ROOM
    if code is not None:
        return Reason.ERROR
    return Reason.SILENT if isinstance(error, TimeoutError | stun.TransactionTimeout) else Reason.UNREACHABLE


def explain(urls: str, reason: Reason, error: BaseException, server: Mapping[str, Any]) -> str:
    """The reason as a sentence."""
    code = _error_code(error)
    match reason:
        case Reason.NO_CREDENTIALS:
            return f"The TURN server {urls} wants credentials, and none are configured for it."
        case Reason.EXPIRED:
            ended = _ended(str(server["username"]))
            return (
                f"The TURN server {urls} refuses credentials that expired {ended} ago; open the session anew."
            )
        case Reason.REFUSED:
            return (
                f"The TURN server {urls} refuses the credentials: the Talkalong server's TURN secret is not its "
                "static-auth-secret, or its clock is ahead."
            )
        case Reason.NO_ROOM:
            return f"The TURN server {urls} has no room for another relay (error {code})."
        case Reason.ERROR:
            return f"The TURN server {urls} refuses with error {code}."
        case Reason.SILENT:
            return (
                f"The server {urls} does not answer; it is not running, or a firewall blocks the way to it."
            )
    return f"The server {urls} cannot be reached ({error or type(error).__name__})."


def _error_code(error: BaseException) -> int | None:
    """Of the STUN answer in the error, if there is one."""
    response = getattr(error, "response", None)
    return int(response.error_code) if response is not None else None


def _ended(username: str) -> str:
    """How long ago ephemeral credentials ended; "" for others."""
    expiry = username.partition(":")[0]
    seconds = time.time() - int(expiry) if expiry.isdigit() else -1.0
    if seconds < 0:
        return ""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


async def _allocate(place: dict[str, Any], server: Mapping[str, Any]) -> str:
    """A relay, given back at once; its address."""
    gone = asyncio.Event()
    transport, _ = await turn.create_turn_endpoint(
        lambda: _Relayed(gone),
        server_addr=(place["host"], place["port"]),
        username=server.get("username"),
        password=server.get("credential"),
        ssl=place["scheme"] == "turns",
        transport=place["transport"],
    )
    host, port = transport.get_extra_info("sockname")
    transport.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            await gone.wait()
    return f"{host}:{port}"


class _Relayed(asyncio.DatagramProtocol):
    def __init__(self, gone: asyncio.Event) -> None:
        self._gone = gone

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone.set()


async def _bind(place: dict[str, Any]) -> str:
    """Our address as the STUN server sees it (RFC 8489, Binding)."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        _Binding, remote_addr=(place["host"], place["port"])
    )
    try:
        request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
        response = await protocol.ask(request)
    finally:
        transport.close()
    host, port = response.attributes["XOR-MAPPED-ADDRESS"]
    return f"{host}:{port}"


class _Binding(asyncio.DatagramProtocol):
    """One STUN transaction on a connected socket."""

    def __init__(self) -> None:
        self._transport: asyncio.DatagramTransport | None = None
        self._transaction: stun.Transaction | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    async def ask(self, request: stun.Message) -> stun.Message:
        self._transaction = stun.Transaction(request, ("", 0), self)
        response, _ = await self._transaction.run()
        if "XOR-MAPPED-ADDRESS" not in response.attributes:
            raise ConnectionError("its answer holds no address")
        return response

    def send_stun(self, message: stun.Message, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        self._transport.sendto(bytes(message))

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        with contextlib.suppress(ValueError):
            if self._transaction is not None:
                self._transaction.response_received(stun.parse_message(data), addr)
