"""One who watches: a peer connection that only sends, fed by a broadcast's shared encoders."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from aiortc import RTCRtpTransceiver

from stream import aiortc_patches
from stream.broadcasting.broadcast import Broadcast
from stream.broadcasting.shared_encoder import Feed
from stream.config import ServeConfig
from stream.errors import UnprocessableError
from stream.ice import Ice
from stream.negotiation import audio_codecs, negotiate, sections, video_codec, video_codecs
from stream.offer import Section
from stream.protocol import AUDIO_LEAD_S, SAMPLE_RATE
from stream.security import Guard
from stream.trickle import Trickle, check_fragment

logger = logging.getLogger(__name__)

NEEDS = "it needs one audio section (Opus), one video section (H.264 or VP8), or both, to receive them."


class Viewer:
    """`answer` starts it, `aclose` or the end of its broadcast ends it; `on_closed` is told once. address: the
    client's."""

    def __init__(
        self,
        viewer_id: str,
        *,
        broadcast: Broadcast,
        config: ServeConfig,
        guard: Guard,
        address: str,
        on_closed: Callable[[Viewer], None],
    ) -> None:
        self.id = viewer_id
        self.broadcast = broadcast
        self._limits = config.limits
        self._media = config.media
        self._on_closed = on_closed
        self._pc = Ice(config).peer_connection(client=address)
        self._trickle = Trickle(self._pc, guard=guard, limit=config.limits.candidates)
        self._offer = ""
        self._feeds: list[Feed] = []
        self._connected = asyncio.Event()
        self._gone = asyncio.Event()
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        broadcast.enter()  # the last that can fail has been done

    @property
    def entity_tag(self) -> str:
        """Of its one ICE session (RFC 9725, 4.3.1)."""
        return f'"{self.id}"'

    async def answer(self, offer: str) -> str:
        """The answer to this offer, with all of our candidates; it watches from here on."""
        self._offer = offer
        kinds = check_viewing(sections(offer))
        self._pc.on("connectionstatechange", self._on_connection_state)
        sound = self._pc.addTransceiver("audio", direction="sendonly") if "audio" in kinds else None
        picture = self._pc.addTransceiver("video", direction="sendonly") if "video" in kinds else None
        if sound is not None:
            sound.setCodecPreferences(audio_codecs())
        if picture is not None:
            picture.setCodecPreferences(video_codecs(self._media))
        answer = await negotiate(self._pc, offer, NEEDS)
        await self._trickle.add(offer)
        if sound is not None:
            self._send_sound(sound)
        if picture is not None:
            self._send_pictures(picture, video_codec(answer))
        self._task = asyncio.create_task(self._run(), name=f"viewer-{self.id[:8]}")
        return answer

    def _send_sound(self, sound: RTCRtpTransceiver) -> None:
        feed = self.broadcast.audio.feed()
        self._feeds.append(feed)
        sound.sender.replaceTrack(feed)
        aiortc_patches.report_lead(sound.sender, lead_samples=round(AUDIO_LEAD_S * SAMPLE_RATE))

    def _send_pictures(self, picture: RTCRtpTransceiver, codec: str) -> None:
        shared = self.broadcast.video(codec)
        feed = shared.feed()
        self._feeds.append(feed)
        picture.sender.replaceTrack(feed)
        aiortc_patches.show_at_once(picture.sender)
        aiortc_patches.on_key_frame_request(picture.sender, shared.want_key_frame)

    async def add_candidates(self, fragment: str) -> None:
        check_fragment(fragment, self._offer)
        await self._trickle.add(fragment)

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                ends = [
                    group.create_task(self._gone.wait()),
                    group.create_task(self.broadcast.ended.wait()),
                    group.create_task(self._limit()),
                ]
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                for end in ends:
                    end.cancel()
        finally:
            await asyncio.shield(self._clean_up())

    async def _limit(self) -> None:
        """Returns when the connection did not come up in time, or the longest time is over."""
        try:
            async with asyncio.timeout(self._limits.connect_timeout_s):
                await self._connected.wait()
        except TimeoutError:
            logger.info("a viewer did not connect within %.0f s", self._limits.connect_timeout_s)
            return
        await asyncio.sleep(60 * self._limits.session_minutes)

    def _on_connection_state(self) -> None:
        if self._pc.connectionState == "connected":
            self._connected.set()
        elif self._pc.connectionState in ("failed", "closed"):
            self._gone.set()

    async def aclose(self) -> None:
        """End it and wait until it has ended. Idempotent."""
        self._gone.set()
        if self._task is None:
            await self._clean_up()
        else:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([self._task])

    async def _clean_up(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            for feed in self._feeds:
                feed.stop()
            await aiortc_patches.close_peer(self._pc, timeout_s=self._limits.close_timeout_s)
            await self.broadcast.leave()
        finally:
            self._on_closed(self)


def check_viewing(offered: list[Section]) -> set[str]:
    """The kinds (audio, video) that the player offers to receive (draft-ietf-wish-whep, 4.2). Of several sections of a
    kind the first that fits is used and the others are rejected in the answer."""
    media = [section for section in offered if section.kind in ("audio", "video")]
    if not media:
        raise UnprocessableError(f"The offer has no media section in use; {NEEDS}", code="bad_sections")
    kinds = {section.kind for section in media if section.receives}
    if not kinds:
        raise UnprocessableError(
            f"The {media[0].kind} section is {media[0].direction}; a viewer offers recvonly.",
            code="bad_direction",
        )
    return kinds
