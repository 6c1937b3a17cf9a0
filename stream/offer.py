"""A client's offer as the server understands it (RFC 8866, RFC 8829): what it needs, and nothing that it does not know.

Offers are written by many hands. What is not needed here is passed over however it is written, what is missing gets
the standard's default, and what is needed and cannot be read is refused in a sentence that quotes the line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from stream.errors import BadRequestError

DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")
SENDING, RECEIVING = ("sendonly", "sendrecv"), ("recvonly", "sendrecv")
SETUPS = ("actpass", "active", "passive")
HASH_BYTES = {"sha-256": 32, "sha-384": 48, "sha-512": 64}
# With RTP and RTCP on one port, these cannot be told from RTCP (RFC 5761, 4).
RTCP_LIKE = range(64, 96)
QUOTED_CHARACTERS = 80
MAX_EXTENSION_ID = 255

_MEDIA = re.compile(r"m=(\S+) (\d{1,5})(?:/\d+)? (\S+)((?: \S+)*)")
_RTPMAP = re.compile(r"(\d{1,3}) ([^/\s]+)/(\d{1,9})(?:/\d+)?(?: .*)?")
_PER_PAYLOAD = re.compile(r"(\d{1,3}|\*) (\S.*)")
_EXTENSION = re.compile(r"(\d{1,5})(?:/(\w+))? (\S+)(?: .*)?")
_FINGERPRINT = re.compile(r"(sha-\d+) ([0-9a-f]{2}(?::[0-9a-f]{2})*)", re.IGNORECASE)

Attributes = dict[str, list[str]]


def tidy(text: str) -> str:
    """Lines that end in CR LF, with single blanks: without byte order mark, empty lines, and control characters."""
    lines = re.split(r"\r\n|\r|\n", text.replace("\ufeff", ""))
    return "".join(f"{' '.join(line.split())}\r\n" for line in lines if line.strip())


def quoted(line: str) -> str:
    """A line of the client's for a sentence."""
    return f"'{line if len(line) <= QUOTED_CHARACTERS else line[:QUOTED_CHARACTERS] + '...'}'"


@dataclass(frozen=True, kw_only=True)
class Codec:
    """One payload type. fmtp: as it was offered, or ""."""

    payload: int
    name: str
    clock: int
    fmtp: str
    feedback: tuple[str, ...]

    def parameter(self, name: str) -> str | None:
        for part in self.fmtp.split(";"):
            key, _, value = part.partition("=")
            if key.strip().lower() == name:
                return value.strip()
        return None


@dataclass(frozen=True, kw_only=True)
class Transport:
    """How a section connects: ICE credentials, fingerprints of certificates, DTLS role."""

    ufrag: str
    password: str
    fingerprints: tuple[str, ...]
    setup: str


@dataclass(kw_only=True, eq=False)
class Section:
    """One m= section. live: not rejected by the client (port 0, where it is not only waiting for its bundle)."""

    kind: str
    protocol: str
    formats: tuple[str, ...]
    direction: str
    mid: str
    live: bool
    attributes: Attributes = field(repr=False)
    codecs: tuple[Codec, ...] = field(repr=False)

    @property
    def sends(self) -> bool:
        return self.direction in SENDING

    @property
    def receives(self) -> bool:
        return self.direction in RECEIVING

    @property
    def multiplexed(self) -> bool:
        """Whether RTP and RTCP share a port (RFC 5761, RFC 8858)."""
        return bool({"rtcp-mux", "rtcp-mux-only"} & self.attributes.keys())

    def extensions(self) -> dict[int, str]:
        """Header extensions by number; the first of two that say the same."""
        found: dict[int, str] = {}
        for value in self.attributes.get("extmap", []):
            match = _EXTENSION.fullmatch(value)
            if match is None or match[2] == "inactive" or not 0 < int(match[1]) <= MAX_EXTENSION_ID:
                continue
            if int(match[1]) not in found and match[3] not in found.values():
                found[int(match[1])] = match[3]
        return found


@dataclass(frozen=True, kw_only=True)
class Offer:
    """sections: all of them, in order. bundles: of each BUNDLE group its sections, in the group's order."""

    sections: tuple[Section, ...]
    bundles: tuple[tuple[Section, ...], ...]
    lite: bool
    session: Attributes = field(repr=False)

    @classmethod
    def parse(cls, sdp: str) -> Self:
        """Raises BadRequestError where the text is no session description, or a section's first line makes no sense."""
        lines = tidy(sdp).splitlines()
        if not lines or lines[0] != "v=0":
            raise BadRequestError(
                "The body is not a session description: it must begin with 'v=0'.", code="bad_sdp"
            )
        blocks: list[list[str]] = [[]]
        for line in lines:
            if line.startswith("m="):
                blocks.append([])
            blocks[-1].append(line)
        session = _attributes(blocks[0])
        groups = [
            value.split()[1:] for value in session.get("group", []) if value.upper().startswith("BUNDLE")
        ]
        sections = tuple(_section(block, session, groups) for block in blocks[1:])
        by_mid = {section.mid: section for section in reversed(sections) if section.mid}
        bundles = tuple(
            tuple(by_mid[mid] for mid in dict.fromkeys(group) if mid in by_mid) for group in groups
        )
        return cls(sections=sections, bundles=bundles, lite="ice-lite" in session, session=session)

    @property
    def live(self) -> list[Section]:
        return [section for section in self.sections if section.live]

    def bundle(self, section: Section) -> tuple[Section, ...]:
        """The sections that share one transport with this one; alone without a group."""
        return next((bundle for bundle in self.bundles if section in bundle), (section,))

    def transport(self, section: Section) -> Transport:
        """What the section says, else the whole session, else another section of its bundle (RFC 8843, 7.1.3)."""
        places = [section.attributes, self.session, *(other.attributes for other in self.bundle(section))]
        what = f"The {section.kind} section"
        ice = next(
            (place for place in places if _first(place, "ice-ufrag") and _first(place, "ice-pwd")), None
        )
        if ice is None:
            raise BadRequestError(f"{what} has no lines a=ice-ufrag and a=ice-pwd.", code="bad_sdp")
        given = [place["fingerprint"] for place in places if "fingerprint" in place]
        usable = next((found for values in given if (found := tuple(filter(_is_fingerprint, values)))), None)
        if usable is None:
            raise BadRequestError(
                f"{what} has no line a=fingerprint."
                if not given
                else f"The line {quoted(f'a=fingerprint:{given[0][0]}')} is of no use here; it needs one of "
                f"{', '.join(HASH_BYTES)}, and its bytes as AB:CD:EF.",
                code="bad_sdp",
            )
        setup = next(
            (value for place in places if (value := _first(place, "setup").lower()) in SETUPS), SETUPS[0]
        )
        return Transport(
            ufrag=_first(ice, "ice-ufrag"), password=_first(ice, "ice-pwd"), fingerprints=usable, setup=setup
        )


def _attributes(lines: Iterable[str]) -> Attributes:
    """Values of the a= lines by name, "" for those without."""
    found: Attributes = {}
    for line in lines:
        if line.startswith("a="):
            name, _, value = line[2:].partition(":")
            found.setdefault(name.strip().lower(), []).append(value.strip())
    return found


def _first(attributes: Attributes, name: str) -> str:
    return attributes.get(name, [""])[0]


def _section(lines: list[str], session: Attributes, groups: list[list[str]]) -> Section:
    match = _MEDIA.fullmatch(lines[0])
    if match is None:
        raise BadRequestError(
            f"The line {quoted(lines[0])} of the offer cannot be read; a section begins with "
            "'m=KIND PORT PROTOCOL FORMATS'.",
            code="bad_sdp",
        )
    attributes = _attributes(lines[1:])
    mid = _first(attributes, "mid").partition(" ")[0]
    waits = "bundle-only" in attributes and any(mid in group for group in groups)  # RFC 8843, 6
    known = [*attributes, *session]
    formats = tuple(match[4].split())
    return Section(
        kind=match[1].lower(),
        protocol=match[3],
        formats=formats,
        direction=next((name for name in known if name in DIRECTIONS), DIRECTIONS[0]),
        mid=mid,
        live=int(match[2]) != 0 or waits,
        attributes=attributes,
        codecs=tuple(_codecs(formats, attributes)),
    )


def _codecs(formats: Iterable[str], attributes: Attributes) -> Iterable[Codec]:
    """What the m= line lists and an a=rtpmap line names, in the order of the m= line."""
    named = {int(m[1]): m for value in attributes.get("rtpmap", []) if (m := _RTPMAP.fullmatch(value))}
    said = {
        name: [m for value in attributes.get(name, []) if (m := _PER_PAYLOAD.fullmatch(value))]
        for name in ("fmtp", "rtcp-fb")
    }
    for payload in dict.fromkeys(int(item) for item in formats if re.fullmatch(r"[0-9]{1,3}", item)):
        if payload > 127 or payload in RTCP_LIKE or payload not in named:
            continue
        yield Codec(
            payload=payload,
            name=named[payload][2],
            clock=int(named[payload][3]),
            fmtp=next((m[2] for m in said["fmtp"] if m[1] == str(payload)), ""),
            feedback=tuple(m[2] for m in said["rtcp-fb"] if m[1] in ("*", str(payload))),
        )


def _is_fingerprint(value: str) -> bool:
    match = _FINGERPRINT.fullmatch(value)
    return match is not None and HASH_BYTES.get(match[1].lower()) == len(match[2].split(":"))
