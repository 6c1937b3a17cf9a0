"""Who agreed that a picture is animated: recorded, with the picture's hash, before it may be used.

The record holds what is needed to answer "who said so, when, about exactly which picture": a name, the statement's
text, the time, two hashes. The address of the computer is left out: it proves nothing and is one more thing to leak.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from stream.errors import BadRequestError

Means = Literal["page", "api"]

STATEMENT_VERSION = "1"
STATEMENTS = {
    "1": "I am the person in this picture, or I have that person’s permission to animate it, and I will not use it to "
    "deceive anyone.",
}
"""By version; a text is never changed, a new one gets a new version."""
OWN_WORDS = "own words"
OWN_WORDS_LENGTH = (10, 1000)
NAME_LENGTH = 80


@dataclass(frozen=True, kw_only=True)
class Consent:
    """given_by: the name as given; empty where a statement in own words was left to name the person itself.
    given_at: UTC, ISO 8601."""

    given_by: str
    statement_version: str
    statement: str
    given_at: str
    means: Means

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def agree(given_by: str, version: str, means: Means) -> Consent:
    """Agreement to one of the STATEMENTS; raises BadRequestError."""
    given_by = tidy(given_by)
    if not 2 <= len(given_by) <= NAME_LENGTH:
        raise BadRequestError(
            f"Please give the name of the person who agrees (2 to {NAME_LENGTH} characters); it is kept with the "
            "consent.",
            code="consent_missing",
        )
    if version not in STATEMENTS:
        known = ", ".join(STATEMENTS)
        raise BadRequestError(
            f"There is no consent statement '{version}'; known are: {known}. GET /v1/portraits shows the present one.",
            code="consent_unknown",
        )
    return Consent(
        given_by=given_by,
        statement_version=version,
        statement=STATEMENTS[version],
        given_at=now(),
        means=means,
    )


def in_own_words(text: str, *, given_by: str, means: Means) -> Consent:
    """A statement as somebody wrote it; a name before its first colon counts as given. Raises BadRequestError."""
    text = text.strip()
    if not OWN_WORDS_LENGTH[0] <= len(text) <= OWN_WORDS_LENGTH[1]:
        raise BadRequestError(
            "Please state who is in the picture and that they agreed to this use "
            f"({OWN_WORDS_LENGTH[0]} to {OWN_WORDS_LENGTH[1]} characters); without it none is accepted.",
            code="consent_missing",
        )
    name, colon, _ = text.partition(":")
    given_by = tidy(given_by) or (tidy(name) if colon and len(name) <= NAME_LENGTH else "")
    return Consent(
        given_by=given_by[:NAME_LENGTH],
        statement_version=OWN_WORDS,
        statement=text,
        given_at=now(),
        means=means,
    )


def tidy(text: str) -> str:
    """One line, single spaces, no control characters."""
    return re.sub(r"\s+", " ", "".join(sign for sign in text if sign.isprintable() or sign.isspace())).strip()


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
