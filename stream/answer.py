"""The answer that a client gets: a section for each of its own, in its order (RFC 9429, 5.3.1; RFC 8843, 7.3)."""

from __future__ import annotations

from collections.abc import Iterable

from stream.offer import Codec, Offer, Section


class Answer:
    """Begins with every section rejected; `accept` says otherwise. parts: the sections of aiortc's answer, as lines."""

    def __init__(self, offer: Offer, sdp: str) -> None:
        head, *parts = sdp.replace("\r\n", "\n").strip().split("\nm=")
        self.parts = [f"m={part}".splitlines() for part in parts]
        self._head = [line for line in head.splitlines() if not line.startswith("a=group:")]
        self._offer = offer
        self._sections: dict[Section, list[str]] = {}

    def accept(self, section: Section, part: list[str], *, codecs: Iterable[Codec]) -> None:
        """As aiortc answered it, with these codecs as they were offered."""
        offered = {str(codec.payload): codec for codec in codecs}
        _, port, _, *formats = part[0].split()
        lines = [f"m={section.kind} {port} {section.protocol} {' '.join(formats)}"]
        for line in part[1:]:
            name, _, rest = line.partition(":")
            codec = offered.get(rest.partition(" ")[0])
            if name == "a=mid" or (name == "a=fmtp" and codec is not None):
                continue
            if name == "a=rtpmap" and codec is not None:
                lines.append(f"a=rtpmap:{codec.payload} {codec.name}/{codec.clock}")
                lines += [f"a=fmtp:{codec.payload} {codec.fmtp}"] if codec.fmtp else []
            else:
                lines.append(line)
        self._sections[section] = lines + _mid(section)

    def text(self) -> str:
        lines = list(self._head)
        for bundle in self._offer.bundles:
            mids = [section.mid for section in bundle if section in self._sections]
            lines += [f"a=group:BUNDLE {' '.join(mids)}"] if mids else []
        for section in self._offer.sections:
            lines += self._sections.get(section) or _rejected(section)
        return "".join(f"{line}\r\n" for line in lines)


def _mid(section: Section) -> list[str]:
    return [f"a=mid:{section.mid}"] if section.mid else []


def _rejected(section: Section) -> list[str]:
    media = f"m={section.kind} 0 {section.protocol} {' '.join(section.formats) or '0'}"
    return [media, "c=IN IP4 0.0.0.0", "a=inactive", *_mid(section)]
