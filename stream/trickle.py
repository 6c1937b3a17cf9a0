"""Candidates that a client sends after its offer, as SDP fragments (RFC 8840)."""

from __future__ import annotations

import re

from aiortc import RTCPeerConnection
from aiortc.sdp import candidate_from_sdp

from stream.errors import BadRequestError, UnprocessableError
from stream.security import Guard

FRAGMENT_TYPE = "application/trickle-ice-sdpfrag"
_LINE = re.compile(r"[a-z]=")


class Trickle:
    """Adds what comes to one connection, up to `limit` candidates in all."""

    def __init__(self, pc: RTCPeerConnection, *, guard: Guard, limit: int) -> None:
        self._pc = pc
        self._guard = guard
        self._limit = limit
        self._count = 0

    async def add(self, fragment: str) -> None:
        """`a=mid:`, `a=candidate:` and `a=end-of-candidates` lines; others are passed over."""
        mid = "0"
        for line in fragment.splitlines():
            if line.startswith("a=mid:"):
                mid = line.removeprefix("a=mid:").strip()
            elif line.startswith("a=candidate:"):
                await self._add(line, mid)
            elif line.startswith("a=end-of-candidates"):
                await self._pc.addIceCandidate(None)

    async def _add(self, line: str, mid: str) -> None:
        self._count += 1
        if self._count > self._limit:
            raise BadRequestError(
                f"More than {self._limit} candidates are not accepted.", code="too_many_candidates"
            )
        if not self._guard.accepts_candidate(line):
            return
        try:
            candidate = candidate_from_sdp(line.removeprefix("a=candidate:"))
        except (AssertionError, ValueError, IndexError) as error:
            raise BadRequestError(
                f"This candidate cannot be read: {line!r}.", code="bad_candidate"
            ) from error
        candidate.sdpMid = mid
        await self._pc.addIceCandidate(candidate)


def check_fragment(fragment: str, offer: str) -> None:
    """Refuses what is no fragment, and an ICE restart: aiortc cannot make one. RFC 9725, 4.3.1 has 422 for a request
    of the kind that is not supported; the session goes on as it was."""
    lines = [line.strip() for line in fragment.splitlines() if line.strip()]
    if not lines or not all(_LINE.match(line) for line in lines):
        raise BadRequestError(
            "The body is not an SDP fragment: it needs lines such as 'a=mid:0' and 'a=candidate:...'.",
            code="bad_fragment",
        )
    known = offer.splitlines()
    if any(line.startswith(("a=ice-ufrag:", "a=ice-pwd:")) and line not in known for line in lines):
        raise UnprocessableError(
            "ICE restarts are not supported here; end this session by DELETE and POST a new offer.",
            code="ice_restart_unsupported",
        )
