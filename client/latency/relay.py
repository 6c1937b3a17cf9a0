"""A bad network for receivers whose transport is not ours: a browser's packets go through two sockets here.

The relay stands in for each side towards the other: it takes the place of the browser's candidates in the offer and of
the server's in the answer, so all packets pass it (ICE does not sign addresses, RFC 8445; checks and DTLS go end to
end). They pass unharmed until `impair`, then as the profile says, with the same seeds in every run.
"""

from __future__ import annotations

import asyncio
import re
import socket
from urllib.parse import urlsplit

from client.errors import ClientError
from client.latency.network import Path, Profile

CANDIDATE = re.compile(
    r"^a=candidate:\S+ 1 udp \d+ (?P<host>\S+) (?P<port>\d+) typ (?P<kind>\w+)", re.IGNORECASE
)
LOOPBACK = "127.0.0.1"


class Relay:
    """Between one peer connection of a browser on this machine and a server. Made by `Relay.open`; `aclose` ends it."""

    def __init__(self, near: socket.socket, far: socket.socket, conditions: Profile, *, leg: int) -> None:
        self._near, self._far = near, far
        self._conditions = conditions
        self._leg = leg
        self._paths: tuple[Path, Path] | None = None
        self._browser: tuple[str, int] | None = None
        self._server: tuple[str, int] | None = None
        loop = asyncio.get_running_loop()
        loop.add_reader(near, self._from_browser)
        loop.add_reader(far, self._from_server)

    @classmethod
    def open(cls, url: str, conditions: Profile, *, leg: int = 0) -> Relay:
        """url: the server's; says which of this machine's addresses it can reach."""
        return cls(_bound(LOOPBACK), _bound(_own_address(url)), conditions, leg=leg)

    def offer(self, sdp: str) -> str:
        """The browser's offer with the relay in place of the browser."""
        return _with_candidate(sdp, self._far.getsockname())

    def answer(self, sdp: str) -> str:
        """The server's answer with the relay in place of the server. Raises `ClientError` where it names no place."""
        found = [match for line in sdp.splitlines() if (match := CANDIDATE.match(line))]
        places = [(match["host"], int(match["port"])) for match in found if ":" not in match["host"]]
        if not places:
            raise ClientError(
                "The server's answer names no UDP address over IPv4, which a bad network is made for."
            )
        own = self._far.getsockname()[0]
        self._server = min(places, key=lambda place: place[0] != own)
        return _with_candidate(sdp, self._near.getsockname())

    def impair(self) -> None:
        """From here on packets suffer."""
        first = 2 * self._leg
        self._paths = (Path(self._conditions, stream=first), Path(self._conditions, stream=first + 1))

    def aclose(self) -> None:
        """Idempotent; packets on their way are lost."""
        loop = asyncio.get_running_loop()
        for each in (self._near, self._far):
            if each.fileno() >= 0:
                loop.remove_reader(each)
                each.close()

    def _from_browser(self) -> None:
        while (got := _received(self._near)) is not None:
            data, self._browser = got
            self._pass_on(0, data)

    def _from_server(self) -> None:
        while (got := _received(self._far)) is not None:
            self._pass_on(1, got[0])

    def _pass_on(self, direction: int, data: bytes) -> None:
        if self._paths is None:
            self._send(direction, data)
            return
        loop = asyncio.get_running_loop()
        there_s = self._paths[direction].pass_on(loop.time(), len(data))
        if there_s is not None:
            loop.call_at(there_s, self._send, direction, data)

    def _send(self, direction: int, data: bytes) -> None:
        out, place = (self._far, self._server) if direction == 0 else (self._near, self._browser)
        if place is None or out.fileno() < 0:
            return
        try:
            out.sendto(data, place)
        except OSError:
            return  # a full buffer or a closed port loses packets, as on any network


def _bound(address: str) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, 0))
    made.setblocking(False)
    return made


def _own_address(url: str) -> str:
    """This machine's address on the way to the server."""
    parts = urlsplit(url)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((parts.hostname or "localhost", parts.port or 443))  # sends nothing
        except OSError as error:
            raise ClientError(f"{url} cannot be reached over IPv4: {error.strerror or error}.") from error
        return str(probe.getsockname()[0])


def _received(source: socket.socket) -> tuple[bytes, tuple[str, int]] | None:
    try:
        return source.recvfrom(4_096)
    except OSError:
        return None


def _with_candidate(sdp: str, place: tuple[str, int]) -> str:
    """The SDP with one host candidate at the end of every media section, in place of all others."""
    own = [f"a=candidate:1 1 udp 2130706431 {place[0]} {place[1]} typ host", "a=end-of-candidates"]
    head, *sections = re.split(r"(?m)^(?=m=)", sdp)
    out = [head]
    for section in sections:
        lines = section.splitlines()
        kept = [line for line in lines if not line.startswith(("a=candidate:", "a=end-of-candidates"))]
        out.append("\r\n".join([*kept, *own]) + "\r\n")
    return "".join(out)
