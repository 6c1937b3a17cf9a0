"""Offers and answers: which sections and codecs are taken, and how aiortc is asked.

aiortc gets an offer of our own making with the sections that are used; its answer goes back as one to the client's.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass

from aiortc import RTCPeerConnection, RTCRtpCodecCapability, RTCRtpSender, RTCSessionDescription

from stream.answer import Answer
from stream.config import MediaConfig
from stream.errors import BadRequestError, StreamError
from stream.offer import RECEIVING, Codec, Offer, Section

logger = logging.getLogger(__name__)

VIDEO_CLOCK = 90_000
USABLE = {("audio", "opus"): 48_000, ("video", "h264"): VIDEO_CLOCK, ("video", "vp8"): VIDEO_CLOCK}
REPAIR = ("rtx", "red", "ulpfec", "flexfec-03")
# What is shown to aiortc of H.264; the one is Baseline, the other a subset that every decoder of H.264 knows.
BASELINE, CONSTRAINED_BASELINE = "42001f", "42e01f"
SCTP_PORT, MAX_MESSAGE_BYTES = 5_000, 65_536  # where the offer does not say (RFC 8841, 5 and 6)


def sections(sdp: str) -> list[Section]:
    """The m= sections in use, in order; one that is rejected (port 0 without bundling) is left out."""
    return Offer.parse(sdp).live


def audio_codecs() -> list[RTCRtpCodecCapability]:
    """Opus alone."""
    known = RTCRtpSender.getCapabilities("audio").codecs
    return [codec for codec in known if codec.mimeType.lower() == "audio/opus"]


def video_codecs(media: MediaConfig) -> list[RTCRtpCodecCapability]:
    """The configured ones in their order, and retransmission."""
    known = RTCRtpSender.getCapabilities("video").codecs
    names = [*media.video_codecs, "video/rtx"]
    return [codec for name in names for codec in known if codec.mimeType.lower() == name.lower()]


async def negotiate(pc: RTCPeerConnection, offer: str, needs: str) -> str:
    """The answer with all of our candidates, to an offer whose own are not added. Our transceivers must be there with
    their preferences: aiortc ignores a choice made after the offer is in. needs: says to a person what the offer should
    have had."""
    try:
        request = _Request(Offer.parse(offer), pc, needs)
        await pc.setRemoteDescription(RTCSessionDescription(request.text(), "offer"))
        await pc.setLocalDescription(await pc.createAnswer())
    except StreamError:
        raise
    except Exception as error:  # aiortc's own words are for its log
        logger.warning("an offer could not be used", exc_info=True)
        raise BadRequestError(f"The offer cannot be used; {needs}", code="bad_sdp") from error
    return request.answer(pc.localDescription.sdp)


class _Request:
    """What is asked of aiortc in place of the client's offer."""

    def __init__(self, offer: Offer, pc: RTCPeerConnection, needs: str) -> None:
        self._offer = offer
        self._needs = needs
        # Of each section that is used, its codecs as aiortc is shown them.
        self._shown: dict[Section, list[_Shown]] = {}
        for transceiver in pc.getTransceivers():
            section, shown = self._choose(transceiver.kind, transceiver.direction)
            self._shown[section] = shown
        data = [item for item in offer.live if item.kind == "application" and "SCTP" in item.protocol.upper()]
        self._chosen = sorted([*self._shown, *data[:1]], key=offer.sections.index)
        self._mids: dict[Section, str] = {}
        for index, section in enumerate(self._chosen):
            unique = section.mid and section.mid not in self._mids.values()
            self._mids[section] = section.mid if unique else f"section-{index}"

    def _choose(self, kind: str, direction: str) -> tuple[Section, list[_Shown]]:
        """The first section of this kind that can be used as the transceiver is meant to be."""
        found = [item for item in self._offer.live if item.kind == kind]
        up = direction in RECEIVING
        fitting = [item for item in found if (item.sends if up else item.receives)] or found
        for section in fitting:
            shown = _usable(section)
            if kind == "video" and direction == "recvonly":
                shown = shown or _taken(section)
            if shown:
                return section, shown
        if not fitting:
            raise BadRequestError(f"The offer has no {kind} section; {self._needs}", code="bad_sdp")
        names = ", ".join(dict.fromkeys(codec.name for codec in fitting[0].codecs)) or "no codec with a name"
        raise BadRequestError(f"The {kind} section offers {names}; {self._needs}", code="bad_sdp")

    def text(self) -> str:
        """The offer for aiortc."""
        lines = [
            "v=0",
            "o=- 0 0 IN IP4 0.0.0.0",
            "s=-",
            "t=0 0",
            *(["a=ice-lite"] if self._offer.lite else []),
        ]
        for bundle in dict.fromkeys(self._offer.bundle(section) for section in self._chosen):
            mids = [self._mids[section] for section in self._chosen if section in bundle]
            lines += [f"a=group:BUNDLE {' '.join(mids)}"] if len(mids) > 1 else []
        for section in self._chosen:
            lines += self._section(section)
        return "".join(f"{line}\r\n" for line in lines)

    def _section(self, section: Section) -> Iterable[str]:
        # The transport of a bundle is that of its first section that is used (RFC 8843, 7.3.1).
        lead = next(item for item in self._offer.bundle(section) if item in self._chosen)
        transport = self._offer.transport(lead)
        if section in self._shown:
            if not (section.multiplexed or lead.multiplexed):
                raise BadRequestError(
                    f"The {section.kind} section has no line a=rtcp-mux; RTP and RTCP come on one port here.",
                    code="bad_sdp",
                )
            yield from _media_section(section, self._shown[section])
        else:
            yield from _data_section(section)
        yield f"a=mid:{self._mids[section]}"
        yield f"a=ice-ufrag:{transport.ufrag}"
        yield f"a=ice-pwd:{transport.password}"
        yield from (f"a=fingerprint:{value}" for value in transport.fingerprints)
        yield f"a=setup:{transport.setup}"

    def answer(self, sdp: str) -> str:
        """aiortc's answer as one to the client's offer."""
        answer = Answer(self._offer, sdp)
        for section, part in zip(self._chosen, answer.parts, strict=True):
            disguised = [item.codec for item in self._shown.get(section, []) if item.disguised]
            answer.accept(section, part, codecs=disguised)
        return answer.text()


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """A codec as aiortc is shown it. disguised: the client's answer has it as it was offered."""

    codec: Codec
    name: str
    fmtp: str = ""
    disguised: bool = False


def _usable(section: Section) -> list[_Shown]:
    """The codecs of ours, and retransmission of them; none if there is no codec."""
    ours = [item for item in section.codecs if USABLE.get((section.kind, item.name.lower())) == item.clock]
    packetized = [
        item
        for item in ours
        if item.name.lower() == "h264" and (item.parameter("packetization-mode") or "1") == "1"
    ]
    # Every decoder of Main or High knows Constrained Baseline too; it is needed where nothing lower is offered.
    pictures = [item for item in packetized if _profile(item).startswith("42")] or packetized
    shown = []
    for item in ours:
        if item.name.lower() != "h264":
            shown.append(_Shown(codec=item, name=item.name))
        elif item in pictures:
            profile = BASELINE if _is_plain_baseline(_profile(item)) else CONSTRAINED_BASELINE
            fmtp = f"packetization-mode=1;profile-level-id={profile}"
            is_higher = not _profile(item).startswith("42")
            shown.append(_Shown(codec=item, name=item.name, fmtp=fmtp, disguised=is_higher))
    payloads = [str(item.codec.payload) for item in shown]
    for item in section.codecs:
        if item.name.lower() == "rtx" and item.parameter("apt") in payloads:
            shown.append(_Shown(codec=item, name=item.name, fmtp=f"apt={item.parameter('apt')}"))
    return shown


def _taken(section: Section) -> list[_Shown]:
    """The first codec offered, whatever it is, for pictures that nobody decodes."""
    pictures = [item for item in section.codecs if item.name.lower() not in REPAIR]
    return [_Shown(codec=item, name="VP8", disguised=True) for item in pictures[:1]]


def _profile(codec: Codec) -> str:
    return codec.parameter("profile-level-id") or CONSTRAINED_BASELINE


def _is_plain_baseline(profile: str) -> bool:
    """Without constraint_set1 (RFC 6184, 8.1), so not a part of Main."""
    return (
        re.fullmatch("42[0-9a-f]{4}", profile, re.IGNORECASE) is not None and not int(profile[2:4], 16) & 0x40
    )


def _media_section(section: Section, shown: list[_Shown]) -> Iterable[str]:
    yield f"m={section.kind} 9 UDP/TLS/RTP/SAVPF {' '.join(str(item.codec.payload) for item in shown)}"
    yield "c=IN IP4 0.0.0.0"
    yield f"a={section.direction}"
    yield "a=rtcp-mux"
    yield from (f"a=extmap:{number} {uri}" for number, uri in section.extensions().items())
    for item in shown:
        codec = item.codec
        clock = "48000/2" if section.kind == "audio" else VIDEO_CLOCK
        yield f"a=rtpmap:{codec.payload} {item.name}/{clock}"
        yield from (f"a=rtcp-fb:{codec.payload} {value}" for value in codec.feedback)
        if item.fmtp:
            yield f"a=fmtp:{codec.payload} {item.fmtp}"


def _data_section(section: Section) -> Iterable[str]:
    """As today, or as browsers wrote it before RFC 8841: m=application 9 DTLS/SCTP 5000, a=sctpmap."""
    old = section.formats[0] if section.formats and section.formats[0].isdigit() else ""
    yield f"m=application 9 {'DTLS/SCTP' if old else 'UDP/DTLS/SCTP'} {old or 'webrtc-datachannel'}"
    yield "c=IN IP4 0.0.0.0"
    if old:
        yield f"a=sctpmap:{old} webrtc-datachannel 1024"
    else:
        yield f"a=sctp-port:{_number(section, 'sctp-port') or SCTP_PORT}"
    yield f"a=max-message-size:{_number(section, 'max-message-size') or MAX_MESSAGE_BYTES}"


def _number(section: Section, name: str) -> int:
    """The value of an attribute, 0 where it is none."""
    text = section.attributes.get(name, [""])[0]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def video_codec(sdp: str) -> str:
    """The codec that an answer chose for video: the first payload of its live m=video section; "" without one."""
    for section in sections(sdp):
        if section.kind == "video" and section.codecs:
            return section.codecs[0].name
    return ""
