"""A WHIP source and WHEP viewers on aiortc, measured by content like `tests.loopback.peer`."""

from __future__ import annotations

import asyncio
import re
import time
from types import TracebackType
from typing import Any, Self

import httpx
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCSessionDescription,
    VideoStreamTrack,
)

from stream import aiortc_patches
from tests.loopback.peer import Peer, Speaker

SDP = {"Content-Type": "application/sdp"}
TRICKLE = {"Content-Type": "application/trickle-ice-sdpfrag"}


async def offer_of(pc: RTCPeerConnection) -> str:
    await pc.setLocalDescription(await pc.createOffer())
    sdp: str = pc.localDescription.sdp
    return sdp


class Source:
    """`async with Source(http) as source`: publishes the pattern of `seed`, or what `speaker` says; connected on entry,
    deleted on exit.

    with_picture: sends a picture too, as OBS does. query: of the WHIP address.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        query: str = "",
        seed: int = 1,
        speaker: Speaker | None = None,
        with_picture: bool = False,
        headers: dict[str, str] | None = None,
    ) -> None:
        self._http = http
        self._query = query
        self._headers = headers or {}
        self.speaker = speaker or Speaker(seed)
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.pc.addTransceiver(self.speaker, direction="sendonly")
        if with_picture:
            self.pc.addTransceiver(VideoStreamTrack(), direction="sendonly")
        self.answer: httpx.Response | None = None
        self.location = ""
        self.whep = ""

    async def __aenter__(self) -> Self:
        offer = await offer_of(self.pc)
        answer = await self._http.post(f"/whip{self._query}", content=offer, headers=SDP | self._headers)
        assert answer.status_code == 201, answer.text
        self.answer, self.location = answer, answer.headers["Location"]
        found = re.search(r'<([^>]*)>; rel="urn:ietf:params:whep"', answer.headers["Link"])
        assert found is not None
        self.whep = found[1]
        await self.pc.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
        async with asyncio.timeout(20):
            while self.pc.connectionState != "connected":  # noqa: ASYNC110 - a test polls
                await asyncio.sleep(0.01)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.delete(self.location, headers=self._headers)
        await self.pc.close()


class Watcher(Peer):
    """`async with Watcher(http, source) as watcher`: sees and hears on entry."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        source: Source,
        *,
        codec: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(http, codec=codec)
        self.speaker = source.speaker
        self.whep = source.whep
        self.answer: httpx.Response | None = None
        self._headers = headers or {}
        self._pc = self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))

    async def __aenter__(self) -> Self:
        pc = self.pc
        audio = pc.addTransceiver("audio", direction="recvonly")
        video = pc.addTransceiver("video", direction="recvonly")
        if self._codec is not None:
            known = RTCRtpReceiver.getCapabilities("video").codecs
            video.setCodecPreferences([codec for codec in known if codec.mimeType == self._codec])
        aiortc_patches.use_low_delay_buffer(audio.receiver)
        self.video: Any = video
        pc.on("track", self._on_track)
        offer = await offer_of(pc)
        self.offered_at = time.monotonic()
        answer = await self._http.post(self.whep, content=offer, headers=SDP | self._headers)
        assert answer.status_code == 201, answer.text
        self.answer, self.location = answer, answer.headers["Location"]
        await pc.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
        await self.until(lambda: self.pictures and self.sounds)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.delete(self.location, headers=self._headers)
        await self.pc.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Silence(MediaStreamTrack):
    """Never gives anything."""

    kind = "audio"

    async def recv(self) -> Any:
        await asyncio.Event().wait()
