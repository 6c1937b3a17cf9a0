"""Sender reports tell a receiver that sound is sent ahead of its picture (RFC 3550, 6.4.1)."""

from __future__ import annotations

from typing import Any

from aiortc import RTCRtpSender
from aiortc.rtp import RtcpPacket, RtcpSdesPacket, RtcpSenderInfo, RtcpSourceInfo, RtcpSrPacket

from stream.aiortc_patches import report_lead
from stream.protocol import AUDIO_LEAD_S, SAMPLE_RATE


class Wire:
    """What a sender's transport has to have, keeping what was sent."""

    state = "connected"

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    async def _send_rtp(self, data: bytes) -> None:
        self.sent.append(data)


async def test_a_report_maps_the_time_of_sending_to_the_sound_that_is_due_then() -> None:
    wire: Any = Wire()
    sender = RTCRtpSender("audio", wire)
    report_lead(sender, lead_samples=round(AUDIO_LEAD_S * SAMPLE_RATE))
    source = RtcpSdesPacket(chunks=[RtcpSourceInfo(ssrc=7, items=[(1, b"name")])])
    for timestamp in (10_000, 5):
        info = RtcpSenderInfo(ntp_timestamp=99, rtp_timestamp=timestamp, packet_count=1, octet_count=2)
        await sender._send_rtcp([RtcpSrPacket(ssrc=7, sender_info=info), source])
    lead = round(AUDIO_LEAD_S * SAMPLE_RATE)
    reports = [RtcpPacket.parse(data)[0] for data in wire.sent]
    assert [report.sender_info.rtp_timestamp for report in reports] == [
        10_000 - lead,
        2**32 + 5 - lead,
    ]
    assert [report.sender_info.ntp_timestamp for report in reports] == [99, 99]
    assert all(RtcpPacket.parse(data)[1] == source for data in wire.sent)
