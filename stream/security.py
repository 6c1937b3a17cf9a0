"""Who may do what, and how much of it."""

from __future__ import annotations

import hmac
import os
import secrets
from collections import Counter

from stream.candidate import Candidate
from stream.config import ServeConfig
from stream.errors import (
    BadRequestError,
    TooLargeError,
    TooManySessionsError,
    UnauthorizedError,
    UnavailableError,
)
from stream.offer import tidy

TOKEN_VARIABLE = "TALKALONG_TOKEN"
VIEWER_TOKEN_VARIABLE = "TALKALONG_VIEWER_TOKEN"
BEARER = "bearer "
SESSION_ID_BYTES = 16
FULL_RETRY_S = 10


def new_session_id() -> str:
    """128 random bits: knowing a session's id is the right to change it."""
    return secrets.token_hex(SESSION_ID_BYTES)


def _bearer(authorization: str | None) -> str:
    """The token of an Authorization header (RFC 6750, 2.1), or ""."""
    if authorization and authorization[: len(BEARER)].lower() == BEARER:
        return authorization[len(BEARER) :].strip()
    return ""


class Guard:
    """Checks tokens, counts sessions, judges offers. Event loop only."""

    def __init__(self, config: ServeConfig) -> None:
        self._limits = config.limits
        self._ice = config.ice
        self._token = os.environ.get(TOKEN_VARIABLE) or config.security.token
        self._viewer_token = os.environ.get(VIEWER_TOKEN_VARIABLE) or config.security.viewer_token
        self._addresses: Counter[str] = Counter()

    @property
    def token_required(self) -> bool:
        return bool(self._token)

    def check_token(self, authorization: str | None, *, token: str | None = None) -> None:
        """Constant-time; `token` is an alternative to the Authorization header (WebSocket configuration)."""
        if not self._token:
            return
        given = token or _bearer(authorization)
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            raise UnauthorizedError(
                "This server needs a token; send it as 'Authorization: Bearer TOKEN'. Its operator knows it."
            )

    def check_viewer_token(self, authorization: str | None) -> None:
        """As `check_token`; the token that allows watching alone is good too."""
        viewer = self._viewer_token
        if viewer and hmac.compare_digest(_bearer(authorization).encode(), viewer.encode()):
            return
        self.check_token(authorization)

    def has_viewer_token(self, authorization: str | None) -> bool:
        """As `check_viewer_token`, for answers that only leave something out."""
        try:
            self.check_viewer_token(authorization)
        except UnauthorizedError:
            return False
        return True

    def has_token(self, authorization: str | None) -> bool:
        """As `check_token`, for answers that only leave something out."""
        try:
            self.check_token(authorization)
        except UnauthorizedError:
            return False
        return True

    def enter(self, address: str, *, carried: int) -> None:
        """Count a new session of this address, or refuse it with a sentence. carried: how many this machine carries."""
        places = min(self._limits.sessions, carried)
        if self._addresses.total() >= places:
            who = "it serves" if places == self._limits.sessions else "this machine is too slow for more than"
            raise UnavailableError(
                f"The server is full: {who} {places} sessions at a time. Try again soon.",
                code="server_full",
                retry_after_s=FULL_RETRY_S,
            )
        if self._addresses[address] >= self._limits.sessions_per_address:
            raise TooManySessionsError(
                f"Your address has {self._addresses[address]} sessions already, the most this server allows; "
                "close one first."
            )
        self._addresses[address] += 1

    def leave(self, address: str) -> None:
        self._addresses[address] -= 1
        if self._addresses[address] <= 0:
            del self._addresses[address]

    def check_offer(self, sdp: str) -> str:
        """The offer in tidy lines, without the candidates that are not accepted; raises for size and plain nonsense."""
        if len(sdp) > self._limits.sdp_bytes:
            raise TooLargeError(
                f"The offer has {len(sdp)} bytes; at most {self._limits.sdp_bytes} are accepted.",
                code="sdp_too_large",
            )
        offer = tidy(sdp)
        if not offer.startswith("v=0\r\n"):
            raise BadRequestError(
                "The body is not a session description: it must begin with 'v=0'.", code="bad_sdp"
            )
        lines = offer.splitlines()
        kept = [line for line in lines if not line.startswith("a=candidate:") or self.accepts_candidate(line)]
        return "".join(f"{line}\r\n" for line in kept)

    def accepts_candidate(self, line: str) -> bool:
        """Whether to talk to this address (`a=candidate:` line): it can be read, and is public where so configured."""
        candidate = Candidate.parse(line)
        return candidate is not None and (self._ice.private_candidates or candidate.is_global)
