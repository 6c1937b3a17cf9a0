"""A client's candidates: those in its offer, and those that it sends later as SDP fragments (RFC 8840)."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator

from aiortc import RTCPeerConnection

from stream import aiortc_patches
from stream.candidate import Candidate
from stream.errors import BadRequestError, UnprocessableError
from stream.offer import tidy
from stream.security import Guard

logger = logging.getLogger(__name__)

FRAGMENT_TYPE = "application/trickle-ice-sdpfrag"
_LINE = re.compile(r"[a-z]=")


class Trickle:
    """Adds what comes to one connection: up to `limit` addresses of the client's own machine, and up to `limit` others
    (reflexive, relays). More are left out without a word, and so are lines that cannot be read or used: a session that
    has other ways needs none of them.

    `a=end-of-candidates` is not passed on: a connection of which every announced way has failed may still be reached
    from an address that was not announced (RFC 8863), until `limits.connect_timeout_s`.
    """

    def __init__(self, pc: RTCPeerConnection, *, guard: Guard, limit: int) -> None:
        self._pc = pc
        self._guard = guard
        self._limit = limit
        self._seen: set[tuple[str, str, int]] = set()  # section, address, port
        self._hosts: set[tuple[str, int]] = set()
        self._others: set[tuple[str, int]] = set()
        self._lookups: set[asyncio.Task[None]] = set()

    async def add(self, fragment: str) -> None:
        """The `a=candidate:` lines of a fragment or of a whole offer; other lines are passed over."""
        for mid, line in _candidates(fragment):
            candidate = Candidate.parse(line)
            if candidate is None or not self._guard.accepts_candidate(line):
                logger.debug("passed over: %s", line)
            elif self._counts(candidate, mid):
                await self._add(candidate, mid)

    def _counts(self, candidate: Candidate, mid: str) -> bool:
        """Whether it is new, and one of the first `limit` of its sort."""
        place = candidate.address, candidate.port
        sort = self._hosts if candidate.kind == "host" else self._others
        if (mid, *place) in self._seen or (place not in sort and len(sort) >= self._limit):
            return False
        self._seen.add((mid, *place))
        sort.add(place)
        return True

    async def _add(self, candidate: Candidate, mid: str) -> None:
        adding = aiortc_patches.add_candidate(self._pc, candidate.for_aiortc(mid))
        if not candidate.is_named:
            await adding
            return
        task = asyncio.create_task(adding, name="mdns-candidate")  # nobody waits for a name that is looked up
        self._lookups.add(task)
        task.add_done_callback(self._lookups.discard)


def _candidates(text: str) -> Iterator[tuple[str, str]]:
    """Each candidate with the mid of its section, "0" where that is not said."""
    lines = tidy(text).splitlines()
    begins = "m=" if any(line.startswith("m=") for line in lines) else "a=mid:"
    blocks: list[list[str]] = [[]]
    for line in lines:
        if line.startswith(begins):
            blocks.append([])
        blocks[-1].append(line)
    for block in blocks:
        mid = next((line.removeprefix("a=mid:").strip() for line in block if line.startswith("a=mid:")), "0")
        yield from ((mid, line) for line in block if line.startswith("a=candidate:"))


def check_fragment(fragment: str, offer: str) -> None:
    """Refuses what is no fragment, and an ICE restart: aiortc cannot make one. RFC 9725, 4.3.1 has 422 for a request
    of the kind that is not supported; the session goes on as it was."""
    lines = tidy(fragment).splitlines()
    if not lines or not all(_LINE.match(line) for line in lines):
        raise BadRequestError(
            "The body is not an SDP fragment: it needs lines such as 'a=mid:0' and 'a=candidate:...'.",
            code="bad_fragment",
        )
    known = tidy(offer).splitlines()
    if any(line.startswith(("a=ice-ufrag:", "a=ice-pwd:")) and line not in known for line in lines):
        raise UnprocessableError(
            "ICE restarts are not supported here; end this session by DELETE and POST a new offer.",
            code="ice_restart_unsupported",
        )
