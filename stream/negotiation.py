"""Offers and answers: which codecs are taken, in which order, and what an offer holds."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from aiortc import RTCPeerConnection, RTCRtpCodecCapability, RTCRtpSender, RTCSessionDescription

from stream.config import MediaConfig
from stream.errors import BadRequestError, StreamError

logger = logging.getLogger(__name__)

DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")


@dataclass(frozen=True, kw_only=True)
class Section:
    """One m= section of a session description."""

    kind: str
    direction: str


def sections(sdp: str) -> list[Section]:
    """The m= sections in use, in order; one that is rejected (port 0 without bundling) is left out."""
    found = []
    default = next((name for name in DIRECTIONS if f"\na={name}" in sdp.partition("\nm=")[0]), "sendrecv")
    for part in ("\n" + sdp.replace("\r", "")).split("\nm=")[1:]:
        kind, _, rest = part.partition(" ")
        lines = part.split("\n")
        if rest.startswith("0 ") and "a=bundle-only" not in lines:
            continue
        direction = next((name for name in DIRECTIONS if f"a={name}" in lines), default)
        found.append(Section(kind=kind, direction=direction))
    return found


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
    """The answer with all of our candidates. Our transceivers must be there with their preferences: aiortc ignores a
    choice made after the offer is in. needs: says to a person what the offer should have had."""
    try:
        await pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await pc.setLocalDescription(await pc.createAnswer())
    except StreamError:
        raise
    except Exception as error:  # aiortc's parser asserts, indexes and raises what it likes on foreign text
        logger.debug("an offer could not be used", exc_info=True)
        raise BadRequestError(
            f"The offer cannot be used ({error or type(error).__name__}); {needs}", code="bad_sdp"
        ) from error
    answer: str = pc.localDescription.sdp
    return answer


def video_codec(sdp: str) -> str:
    """The codec that an answer chose for video: the first payload of its m=video line; "" without one."""
    chosen: str | None = None
    names: dict[str, str] = {}
    inside = False
    for line in sdp.splitlines():
        if line.startswith("m="):
            inside = line.startswith("m=video")
            chosen = line.split()[3] if inside else chosen
        elif inside and line.startswith("a=rtpmap:"):
            payload, _, name = line.removeprefix("a=rtpmap:").partition(" ")
            names[payload] = name.partition("/")[0]
    return names.get(chosen or "", "")
