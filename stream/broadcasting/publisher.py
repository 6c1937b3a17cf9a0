"""A session fed by WHIP (RFC 9725): sound comes up, nothing goes down on the same connection.

The portrait is for those who watch its broadcast. A picture that the source sends too is taken, whatever its codec, and
not decoded.
"""

from __future__ import annotations

from aiortc import RTCRtpTransceiver
from aiortc.mediastreams import MediaStreamTrack

from stream import aiortc_patches
from stream.broadcasting.broadcast import SILENT_S
from stream.errors import UnprocessableError
from stream.negotiation import audio_codecs, sections
from stream.offer import Section
from stream.session import Session

NEEDS = "it needs an audio section (Opus) that sends; a video section beside it may have any codec."


class Publisher(Session):
    """A session without a way back; its own clock releases what others watch."""

    silent_end_s = 8.0  # those who watch should not look at a portrait that rests for nobody

    @property
    def replaceable(self) -> bool:
        """The source was killed, or cut off."""
        return self.silent_s > SILENT_S

    @property
    def entity_tag(self) -> str:
        """Of its one ICE session (RFC 9725, 4.3.1)."""
        return f'"{self.id}"'

    async def answer(self, offer: str) -> str:
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

    def _on_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio":
            super()._on_track(track)

    async def _release(self, track: MediaStreamTrack) -> None:
        """Pulls a track as a sender would; those who listen to `released` get what it gives."""
        await self._connected.wait()
        while True:
            await track.recv()


def check_publishing(offered: list[Section]) -> None:
    """RFC 9725, 4.2: the source offers to send; here always sound. Of several sections of a kind the first that fits is
    used and the others are rejected in the answer."""
    sounds = [section for section in offered if section.kind == "audio"]
    if not sounds:
        raise UnprocessableError(f"The offer has no audio section in use; {NEEDS}", code="bad_sections")
    if not any(section.sends for section in sounds):
        raise UnprocessableError(
            f"The audio section is {sounds[0].direction}; a source offers sendonly.", code="bad_direction"
        )
