"""What a sender tells: receivers of the delay they may add, its own side of each picture that left."""

from __future__ import annotations

import asyncio
import fractions
import re
from typing import Any

import av
import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.codecs import HEADER_EXTENSIONS
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcrtpparameters import RTCRtpHeaderExtensionParameters, RTCRtpParameters
from aiortc.rtp import HeaderExtensions, RtpPacket, unpack_header_extensions

from stream.aiortc_patches import (
    MAX_PLAYOUT_DELAY_MS,
    PLAYOUT_DELAY_URI,
    PlayoutDelayExtension,
    install,
    show_at_once,
    watch_sent,
)

MID_URI = "urn:ietf:params:rtp-hdrext:sdes:mid"


def extensions(*, delay_id: int | None) -> PlayoutDelayExtension:
    known = [RTCRtpHeaderExtensionParameters(id=1, uri=MID_URI)]
    if delay_id is not None:
        known.append(RTCRtpHeaderExtensionParameters(id=delay_id, uri=PLAYOUT_DELAY_URI))
    mapping = PlayoutDelayExtension()
    mapping.configure(RTCRtpParameters(headerExtensions=known))
    return mapping


def delay_ms(value: bytes) -> tuple[int, int]:
    """Least and most, from two numbers of 12 bits in 10 ms."""
    both = int.from_bytes(value, "big")
    return 10 * (both >> 12), 10 * (both & 0xFFF)


def test_the_allowed_delay_stands_beside_the_other_extensions() -> None:
    profile, packed = extensions(delay_id=6).set(HeaderExtensions(mid="1"))
    found = dict(unpack_header_extensions(profile, packed))
    assert found[1] == b"1"
    assert delay_ms(found[6]) == (0, MAX_PLAYOUT_DELAY_MS)
    assert extensions(delay_id=6).get(profile, packed).mid == "1"


def test_a_receiver_that_does_not_know_the_extension_gets_none() -> None:
    profile, packed = extensions(delay_id=None).set(HeaderExtensions(mid="1"))
    assert [number for number, _ in unpack_header_extensions(profile, packed)] == [1]


def test_the_extension_is_offered_once_however_often_a_server_starts() -> None:
    install(loopback=True)
    install(loopback=True)
    assert [item.uri for item in HEADER_EXTENSIONS["video"]].count(PLAYOUT_DELAY_URI) == 1


class Pictures(MediaStreamTrack):
    """Grey pictures of 64 x 64, as fast as they are taken, then the end."""

    kind = "video"

    def __init__(self, count: int) -> None:
        super().__init__()
        self._left, self._number = count, 0

    async def recv(self) -> av.VideoFrame:
        if self._number == self._left:
            self.stop()
            raise MediaStreamError
        await asyncio.sleep(0.01)
        frame = av.VideoFrame.from_ndarray(np.full((96, 64), 9 * self._number, np.uint8), format="yuv420p")
        frame.pts, frame.time_base = 3_600 * self._number, fractions.Fraction(1, 90_000)
        self._number += 1
        return frame


async def test_pictures_leave_with_the_extension_and_are_told_with_their_time_stamps() -> None:
    install(loopback=True)
    told: list[tuple[int, int, float]] = []
    sent: list[RtpPacket] = []
    here, there = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
    sender: RTCRtpSender = here.addTrack(Pictures(12))
    show_at_once(sender)
    watch_sent(sender, lambda *of: told.append(of))
    await here.setLocalDescription(await here.createOffer())
    await there.setRemoteDescription(RTCSessionDescription(here.localDescription.sdp, "offer"))
    await there.setLocalDescription(await there.createAnswer())
    (number,) = re.findall(rf"a=extmap:(\d+) {PLAYOUT_DELAY_URI}", there.localDescription.sdp)
    _copy_rtp(sender.transport, sent)
    await here.setRemoteDescription(RTCSessionDescription(there.localDescription.sdp, "answer"))
    async with asyncio.timeout(10):
        while len(told) < 11:  # noqa: ASYNC110 - the last one is told when more would be taken
            await asyncio.sleep(0.01)
    await asyncio.gather(here.close(), there.close())
    delays = {
        delay_ms(dict(unpack_header_extensions(*packet.extensions_on_wire))[int(number)])  # type: ignore[attr-defined]
        for packet in sent
        if packet.extensions_on_wire[1]  # type: ignore[attr-defined]
    }
    assert delays == {(0, MAX_PLAYOUT_DELAY_MS)}
    assert [own for own, _, _ in told[:11]] == [3_600 * number for number in range(11)]
    stamps = list(dict.fromkeys(packet.timestamp for packet in sent))
    assert [rtp for _, rtp, _ in told[:11]] == stamps[:11]
    assert np.all(np.diff([at for _, _, at in told]) > 0.005)


def _copy_rtp(transport: Any, sent: list[RtpPacket]) -> None:
    send = transport._send_rtp

    async def copied(data: bytes) -> None:
        if not 192 <= data[1] <= 223:  # RTCP
            packet = RtpPacket.parse(data)
            start = 12 + 4 * (data[0] & 15)
            length = 4 * int.from_bytes(data[start + 2 : start + 4], "big")
            profile = int.from_bytes(data[start : start + 2], "big")
            packet.extensions_on_wire = (profile, data[start + 4 : start + 4 + length])  # type: ignore[attr-defined]
            sent.append(packet)
        await send(data)

    transport._send_rtp = copied
