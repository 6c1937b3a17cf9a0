"""A session fed by WHIP (RFC 9725): sound comes up, nothing goes down on the same connection.

The portrait is for those who watch its broadcast. A picture that the source sends too is taken and not decoded.
"""

from __future__ import annotations

from typing import Any

from aiortc import RTCRtpTransceiver
from aiortc.mediastreams import MediaStreamTrack

from stream import aiortc_patches
from stream.errors import UnprocessableError
from stream.negotiation import Section, audio_codecs, sections
from stream.session import Session
from stream.trickle import check_fragment

NEEDS = "it needs one audio section (Opus) that sends; a video section beside it may be H.264 or VP8."


class Publisher(Session):
    """A session without a way back; its own clock releases what others watch."""

    silent_end_s = 8.0  # those who watch should not look at a portrait that rests for nobody

    def __init__(self, session_id: str, **parts: Any) -> None:
        super().__init__(session_id, **parts)
        self._offer = ""

    @property
    def entity_tag(self) -> str:
        """Of its one ICE session (RFC 9725, 4.3.1)."""
        return f'"{self.id}"'

    async def answer(self, offer: str) -> str:
        self._offer = offer
        offered = sections(offer)
        check_publishing(offered)
        audio = self._pc.addTransceiver("audio", direction="recvonly")
        audio.setCodecPreferences(audio_codecs())
        video: RTCRtpTransceiver | None = None
        if any(section.kind == "video" for section in offered):
            video = self._pc.addTransceiver("video", direction="recvonly")
        answer = await self._negotiate(offer, NEEDS)
        self._uplink = aiortc_patches.use_low_delay_buffer(audio.receiver)
        if video is not None:
            aiortc_patches.discard_media(video.receiver)
        self._begin(self._release(self._audio_out), self._release(self._video_out))
        return answer

    async def add_candidates(self, fragment: str) -> None:
        check_fragment(fragment, self._offer)
        await super().add_candidates(fragment)

    def _on_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio":
            super()._on_track(track)

    async def _release(self, track: MediaStreamTrack) -> None:
        """Pulls a track as a sender would; those who listen to `released` get what it gives."""
        await self._connected.wait()
        while True:
            await track.recv()


def check_publishing(offered: list[Section]) -> None:
    """RFC 9725, 4.2 and 4.4.2: the source offers to send, at most one track of each kind; here always sound."""
    kinds = [section.kind for section in offered]
    if kinds.count("audio") != 1 or kinds.count("video") > 1:
        raise UnprocessableError(
            f"The offer has {kinds.count('audio')} audio and {kinds.count('video')} video sections; {NEEDS}",
            code="bad_sections",
        )
    for section in offered:
        if section.kind in ("audio", "video") and section.direction not in ("sendonly", "sendrecv"):
            raise UnprocessableError(
                f"The {section.kind} section is {section.direction}; a source offers sendonly.",
                code="bad_direction",
            )
