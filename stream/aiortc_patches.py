"""Everything that reaches into aiortc's and aioice's private names; written against the versions below.

With another version the private parts are left alone (a warning says so): slower and with 80 ms more delay,
but working. Measured reasons are beside each mend.
"""

from __future__ import annotations

import asyncio
import fractions
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from importlib.metadata import version
from typing import Any

import aioice.ice
import av
import numpy as np
from aioice.candidate import candidate_priority
from aiortc import (
    RTCConfiguration,
    RTCDtlsTransport,
    RTCIceCandidate,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCRtpSender,
    rtp,
)
from aiortc.codecs import HEADER_EXTENSIONS
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.opus import OpusEncoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcconfiguration import RTCIceTransportPolicy
from aiortc.rtcdtlstransport import (
    X509_DIGEST_ALGORITHMS,
    RTCCertificate,
    RTCDtlsParameters,
    SRTPProtectionProfile,
    State,
    certificate_digest,
)
from aiortc.rtcrtpparameters import RTCRtpHeaderExtensionParameters, RTCRtpParameters
from aiortc.rtp import AnyRtcpPacket, RtcpSrPacket
from av.frame import Frame
from OpenSSL import SSL

from stream.protocol import FPS, SAMPLE_RATE

logger = logging.getLogger(__name__)

TESTED = {"aiortc": "1.16.", "aioice": "0.13."}
OPUS_BIT_RATE = 48_000
MIN_VIDEO_BIT_RATE = 250_000
GOP_FRAMES = 60 * FPS  # receivers ask for a key frame when they need one
VBV_SECONDS = 0.4
VIDEO_CLOCK = 90_000
SEQUENCE_MODULUS = 1 << 16
TIMESTAMP_MODULUS = 1 << 32
MAX_MISORDER = 100
ARRIVALS = 16
# What a client may call its codecs: Chromium goes below 64 when it has many, aiortc knows those from 96 on only.
CLIENT_PAYLOAD_TYPES = (*range(64), *range(96, 128))
PLAYOUT_DELAY_URI = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"
CIPHERS = [  # aiortc's own
    b"ECDHE-ECDSA-AES128-GCM-SHA256",
    b"ECDHE-ECDSA-CHACHA20-POLY1305",
    b"ECDHE-ECDSA-AES128-SHA",
    b"ECDHE-ECDSA-AES256-SHA",
]
MAX_PLAYOUT_DELAY_MS = (
    500  # up to here Chromium shows a picture as it comes, unless it must wait for its sound
)


def supported() -> bool:
    """Whether the installed versions are the ones these mends were written for."""
    return all(version(name).startswith(prefix) for name, prefix in TESTED.items())


class LowDelayBuffer:
    """Replaces aiortc's audio jitter buffer, which adds 80 ms always and 280 ms for ever after one loss.

    Each packet is passed on at once. One that comes after its successor is dropped: `stream.ingest` has
    concealed it. The playout delay, not this buffer, absorbs jitter.
    """

    def __init__(self) -> None:
        self._last: int | None = None
        self._first: int | None = None
        self._arrived: deque[tuple[int, float]] = deque(maxlen=ARRIVALS)
        self.dropped_packets = 0

    def arrival(self, pts: int) -> tuple[int, float] | None:
        """The RTP time stamp of the packet of a decoded frame, and when it came off the wire, if that is not long
        ago. aiortc counts `pts` from the first packet's time stamp."""
        timestamp = ((self._first or 0) + pts) % TIMESTAMP_MODULUS
        return next((packet for packet in reversed(self._arrived) if packet[0] == timestamp), None)

    def add(self, packet: Any) -> tuple[bool, JitterFrame | None]:
        """Takes an RtpPacket; returns (ask for a key frame, frame to decode)."""
        sequence = packet.sequence_number
        if self._last is not None:
            ahead = (sequence - self._last) % SEQUENCE_MODULUS
            behind = SEQUENCE_MODULUS - ahead
            if ahead == 0 or behind < MAX_MISORDER:
                self.dropped_packets += 1
                return False, None
        self._last = sequence
        if not packet._data:
            return False, None
        if self._first is None:
            self._first = packet.timestamp
        self._arrived.append((packet.timestamp, time.monotonic()))
        return False, JitterFrame(data=packet._data, timestamp=packet.timestamp)


class TunedH264Encoder(H264Encoder):
    """x264 superfast with a rate buffer: 1.4 ms a frame at 512x512 instead of 11.5, and better pictures.

    With maxrate and bufsize set, a new bit rate is taken over while open, without a key frame.
    """

    def __init__(self, *, bit_rate: int, max_bit_rate: int) -> None:
        super().__init__()
        self._max_bit_rate = max_bit_rate
        self._bit_rate = bit_rate

    @property
    def target_bitrate(self) -> int:
        return self._bit_rate

    @target_bitrate.setter
    def target_bitrate(self, bitrate: int) -> None:
        self._bit_rate = max(MIN_VIDEO_BIT_RATE, min(bitrate, self._max_bit_rate))

    def _encode_frame(self, frame: av.VideoFrame, force_keyframe: bool) -> Iterator[bytes]:
        codec = self.codec
        if codec is not None and (frame.width, frame.height) != (codec.width, codec.height):
            codec = None
        if codec is None:
            codec = self.codec = open_h264(frame.width, frame.height, self._bit_rate)
        elif abs(self._bit_rate - (codec.bit_rate or 0)) > 0.1 * self._bit_rate:
            codec.bit_rate = self._bit_rate
        kind = av.video.frame.PictureType
        frame.pict_type = kind.I if force_keyframe else kind.NONE
        for packet in codec.encode(frame):
            yield from self._split_bitstream(bytes(packet))


def open_h264(width: int, height: int, bit_rate: int) -> Any:
    """An x264 encoder for live pictures (public API only); Annex B, no delay, no B-frames."""
    codec = _live_encoder("libx264", width, height, bit_rate)
    codec.options |= {
        "preset": "superfast",
        "tune": "zerolatency",
        "level": "31",
        "sc_threshold": "0",  # a portrait has no cuts: what looks like one to x264 is no key frame
    }
    codec.profile = "Baseline"
    return codec


def open_vp8(width: int, height: int, bit_rate: int) -> Any:
    """A libvpx encoder for live pictures (public API only), for receivers without H.264."""
    codec = _live_encoder("libvpx", width, height, bit_rate)
    codec.options |= {
        "deadline": "realtime",
        "cpu-used": "-6",
        "lag-in-frames": "0",
        "minrate": str(bit_rate),
        "static-thresh": "1",
    }
    return codec


def _live_encoder(name: str, width: int, height: int, bit_rate: int) -> Any:
    """What live pictures have in common, whoever encodes them: clock, key frames, and a bit rate that is kept."""
    codec: Any = av.CodecContext.create(name, "w")
    codec.width, codec.height = width, height
    codec.pix_fmt = "yuv420p"
    codec.bit_rate = bit_rate
    codec.framerate = fractions.Fraction(FPS, 1)
    codec.time_base = fractions.Fraction(1, VIDEO_CLOCK)
    codec.gop_size = GOP_FRAMES
    codec.thread_count = 1
    codec.options = {"maxrate": str(bit_rate), "bufsize": str(round(bit_rate * VBV_SECONDS))}
    return codec


def open_opus() -> Any:
    """Mono, 48 kHz int16, 20 ms to a packet (public API only)."""
    codec = av.CodecContext.create("libopus", "w")
    codec.bit_rate = OPUS_BIT_RATE
    codec.format = "s16"
    codec.layout = "mono"
    codec.sample_rate = SAMPLE_RATE
    codec.time_base = fractions.Fraction(1, SAMPLE_RATE)
    codec.options = {"application": "voip"}
    return codec


class TunedOpusEncoder(OpusEncoder):
    """Mono at 48 kbit/s without a resampler in between; the timestamp is the frame's own."""

    def __init__(self) -> None:
        super().__init__()
        self.codec = open_opus()

    def encode(self, frame: Frame, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        assert isinstance(frame, av.AudioFrame)
        assert frame.pts is not None
        return [bytes(packet) for packet in self.codec.encode(frame)], frame.pts


def audio_level_dbov(frame: av.AudioFrame) -> int:
    """RFC 6464 level, -127..0; aiortc computes it sample by sample in Python (44 % of the loop's time)."""
    samples = frame.to_ndarray().astype(np.float32)
    rms = float(np.sqrt(np.mean(np.square(samples)))) / 32767
    if rms <= 0:
        return -127
    return int(np.clip(round(20 * np.log10(rms)), -127, 0))


def install(*, loopback: bool) -> None:
    """The process-wide mends: audio level, payload types, checks and certificates of foreign clients, and (optionally)
    127.0.0.1 as an ICE host address."""
    if not supported():
        found = ", ".join(f"{name} {version(name)}" for name in TESTED)
        logger.warning(
            "the installed %s was not tested with this server; running without the mends, and without ice.port_range "
            "and ice.public_address",
            found,
        )
        return
    rtp.compute_audio_level_dbov = audio_level_dbov
    if all(item.uri != PLAYOUT_DELAY_URI for item in HEADER_EXTENSIONS["video"]):
        HEADER_EXTENSIONS["video"].append(RTCRtpHeaderExtensionParameters(id=4, uri=PLAYOUT_DELAY_URI))
    # setattr: mypy takes these for mistakes
    setattr(rtp, "DYNAMIC_PAYLOAD_TYPES", CLIENT_PAYLOAD_TYPES)  # noqa: B010
    setattr(aioice.ice.Connection, "check_incoming", check_incoming)  # noqa: B010
    setattr(aioice.ice.StunProtocol, "datagram_received", datagram_received)  # noqa: B010
    setattr(RTCCertificate, "_create_ssl_context", create_ssl_context)  # noqa: B010
    setattr(RTCDtlsTransport, "_validate_peer_identity", validate_peer_identity)  # noqa: B010
    if loopback and not isinstance(aioice.ice.get_host_addresses, _LoopbackAddresses):
        aioice.ice.get_host_addresses = _LoopbackAddresses(aioice.ice.get_host_addresses)


_check_incoming = aioice.ice.Connection.check_incoming
_datagram_received = aioice.ice.StunProtocol.datagram_received
_create_ssl_context = RTCCertificate._create_ssl_context


def check_incoming(
    self: aioice.ice.Connection, message: Any, addr: tuple[str, int], protocol: aioice.ice.StunProtocol
) -> None:
    """A check without PRIORITY (RFC 8445, 7.1.1 demands it; FFmpeg's WHIP client sends none) is as good as one with a
    peer-reflexive address's; aioice raises a KeyError and never connects."""
    component = protocol.local_candidate.component
    message.attributes.setdefault("PRIORITY", candidate_priority(component, "prflx"))
    _check_incoming(self, message, addr, protocol)


def datagram_received(self: aioice.ice.StunProtocol, data: bytes | str, addr: tuple[Any, ...]) -> None:
    """Notes when something came: see `heard_at`."""
    setattr(self.receiver, "heard_at", time.monotonic())  # noqa: B010
    _datagram_received(self, data, addr)


def heard_at(pc: RTCPeerConnection) -> float | None:
    """When anything came from the other side last (sound, reports, checks), by time.monotonic; None before that. Now,
    where the installed version is not known."""
    if not supported():
        return time.monotonic()
    times = [getattr(transport._connection, "heard_at", None) for transport in _ice_transports(pc)]
    return max((at for at in times if at is not None), default=None)


def create_ssl_context(self: RTCCertificate, srtp_profiles: list[SRTPProtectionProfile]) -> SSL.Context:
    """Ciphers for RSA certificates, too: GStreamer has one. aiortc offers those for ECDSA alone, and cannot connect."""
    context = _create_ssl_context(self, srtp_profiles)
    context.set_cipher_list(b":".join(CIPHERS + [name.replace(b"ECDSA", b"RSA") for name in CIPHERS]))
    return context


def validate_peer_identity(self: RTCDtlsTransport, remote: RTCDtlsParameters) -> None:
    """A certificate is good if one fingerprint of the strongest hash fits (RFC 8122, 5.1); aiortc wants all to fit, so
    that a client with two certificates never connects."""
    assert self._ssl is not None
    certificate = self._ssl.get_peer_certificate(as_cryptography=True)
    given = [(item.algorithm.lower(), item.value.upper()) for item in remote.fingerprints]
    strongest = max((name for name, _ in given if name in X509_DIGEST_ALGORITHMS), default=None)
    digest = certificate_digest(certificate, strongest) if certificate and strongest else None
    if (strongest, digest) not in given:
        logger.info("a client's certificate has none of the fingerprints that it announced")
        self._set_state(State.FAILED)


async def add_candidate(pc: RTCPeerConnection, candidate: RTCIceCandidate) -> None:
    """Of the client's. A connection with one transport takes it for whichever section it is; aiortc drops those of
    bundled sections, and of sections that are rejected."""
    transports = _ice_transports(pc)
    if len(transports) == 1:
        await transports[0].addRemoteCandidate(candidate)
    else:
        await pc.addIceCandidate(candidate)


def _ice_transports(pc: RTCPeerConnection) -> list[Any]:
    """Empty where the installed version is not known."""
    return list(getattr(pc, "_RTCPeerConnection__iceTransports", ())) if supported() else []


class _LoopbackAddresses:
    """aioice's own host addresses and 127.0.0.1, so that a machine without a network can talk to itself."""

    def __init__(self, original: Any) -> None:
        self._original = original

    def __call__(self, use_ipv4: bool, use_ipv6: bool) -> list[str]:
        own = [*self._original(use_ipv4, use_ipv6), *(["127.0.0.1"] if use_ipv4 else [])]
        return list(dict.fromkeys(own))  # the latency harness adds it, too


Gather = Callable[..., Awaitable[tuple[list[Any], list[Any]]]]


def peer_connection(
    ice_servers: list[RTCIceServer], *, relay_only: bool = False, gather: Gather | None = None
) -> RTCPeerConnection:
    """A connection with exactly these ICE servers (aiortc's default contacts a public one).

    gather: finds the candidates in place of aioice, which knows neither port ranges nor 1:1 NAT: takes aioice's
    connection, the component and the machine's addresses, gives candidates and the protocols behind them.
    """
    policy = RTCIceTransportPolicy.RELAY if relay_only else RTCIceTransportPolicy.ALL
    pc = RTCPeerConnection(RTCConfiguration(iceServers=ice_servers, iceTransportPolicy=policy))
    if gather is None or not supported():
        return pc
    gather_all = getattr(pc, "_RTCPeerConnection__gather")  # noqa: B009

    async def gather_own_way() -> None:
        for transport in _ice_transports(pc):
            connection = transport.iceGatherer._connection
            connection.get_component_candidates = _ComponentGathering(connection, gather, relay_only)
        await gather_all()

    setattr(pc, "_RTCPeerConnection__gather", gather_own_way)  # noqa: B010
    return pc


class _ComponentGathering:
    """Stands in for one aioice connection's `get_component_candidates`."""

    def __init__(self, connection: aioice.Connection, gather: Gather, relay_only: bool) -> None:
        self._connection, self._gather, self._relay_only = connection, gather, relay_only

    async def __call__(self, component: int, addresses: list[str]) -> list[Any]:
        candidates, protocols = await self._gather(
            self._connection, component, addresses, relay_only=self._relay_only
        )
        self._connection._protocols += protocols
        return candidates


_closings: set[asyncio.Task[None]] = set()


def join_late(connection: aioice.Connection, protocol: Any) -> None:
    """A socket or relay of ours that was not there in time for the answer takes part in the checks; it is closed again
    where these have ended."""
    if connection._closing or connection._check_list_done:
        task = asyncio.create_task(protocol.close())
        _closings.add(task)
        task.add_done_callback(_closings.discard)
        return
    connection._protocols.append(protocol)
    connection._local_candidates.append(protocol.local_candidate)
    for candidate in connection._remote_candidates:
        connection._pair_remote_candidate(candidate)
    connection.sort_check_list()


def selected_pair(pc: RTCPeerConnection) -> tuple[str, str] | None:
    """The kinds of the local and remote candidate in use (host, srflx, prflx, relay); None before there is a pair."""
    for transport in _ice_transports(pc):
        for pair in transport._connection._nominated.values():
            return pair.local_candidate.type, pair.remote_candidate.type
    return None


def use_low_delay_buffer(receiver: RTCRtpReceiver) -> LowDelayBuffer | None:
    """Before the connection starts; None where the installed version is not known."""
    if not supported():
        return None
    buffer = LowDelayBuffer()
    # setattr: mypy does not know the private name
    setattr(receiver, "_RTCRtpReceiver__jitter_buffer", buffer)  # noqa: B010
    return buffer


class DiscardingBuffer:
    """Takes every packet of a receiver and passes none on to its decoder."""

    def add(self, packet: Any) -> tuple[bool, JitterFrame | None]:
        return False, None


def discard_media(receiver: RTCRtpReceiver) -> bool:
    """Before the connection starts: take what the peer sends without decoding it (a picture that nobody looks at costs
    most of a core at 1080p). False where the installed version is not known: then it is decoded, and dropped."""
    if not supported():
        return False
    setattr(receiver, "_RTCRtpReceiver__jitter_buffer", DiscardingBuffer())  # noqa: B010
    return True


def on_key_frame_request(sender: RTCRtpSender, wanted: Callable[[], None]) -> bool:
    """Tell of requests for a key frame (PLI, FIR): aiortc forgets them where the track gives encoded packets. False
    where the installed version is not known."""
    if not supported():
        return False
    setattr(sender, "_send_keyframe", wanted)  # noqa: B010
    return True


def use_encoder(sender: RTCRtpSender, encoder: H264Encoder | OpusEncoder) -> None:
    """Before the connection starts, and only if that codec was negotiated."""
    if supported():
        setattr(sender, "_RTCRtpSender__encoder", encoder)  # noqa: B010


def report_lead(sender: RTCRtpSender, *, lead_samples: int) -> None:
    """Sender reports (RFC 3550, 6.4.1) that say: what is sent now is due `lead_samples` of its clock later."""
    if not supported():
        return
    send = sender._send_rtcp

    async def send_corrected(packets: list[AnyRtcpPacket]) -> None:
        for packet in packets:
            if isinstance(packet, RtcpSrPacket):
                info = packet.sender_info
                info.rtp_timestamp = (info.rtp_timestamp - lead_samples) % TIMESTAMP_MODULUS
        await send(packets)

    setattr(sender, "_send_rtcp", send_corrected)  # noqa: B010


def watch_sent(sender: RTCRtpSender, on_sent: Callable[[int, int, float], None]) -> None:
    """Tell of each frame that left: its own time stamp, its RTP time stamp, and when it was encoded.

    RTP adds an offset that only the sender's loop knows; the stamp that was sent is read when it comes for more.
    """
    if not supported():
        return
    encode_next = sender._next_encoded_frame
    last: tuple[int, float] | None = None

    async def encode_watched(codec: Any) -> Any:
        nonlocal last
        if last is not None:
            on_sent(last[0], getattr(sender, "_RTCRtpSender__rtp_timestamp"), last[1])  # noqa: B009
        frame = await encode_next(codec)
        last = None if frame is None else (frame.timestamp, time.monotonic())
        return frame

    setattr(sender, "_next_encoded_frame", encode_watched)  # noqa: B010


class PlayoutDelayExtension(rtp.HeaderExtensionsMap):
    """Header extensions with the playout delay that the receiver may add: none at least, MAX_PLAYOUT_DELAY_MS at most
    (webrtc.org, rtp-hdrext/playout-delay: two numbers of 12 bits, in 10 ms)."""

    def __init__(self) -> None:
        super().__init__()
        self._id: int | None = None

    def configure(self, parameters: RTCRtpParameters) -> None:
        super().configure(parameters)
        named = (item.id for item in parameters.headerExtensions if item.uri == PLAYOUT_DELAY_URI)
        self._id = next(named, self._id)

    def set(self, values: rtp.HeaderExtensions) -> tuple[int, bytes]:
        profile, packed = super().set(values)
        if self._id is None:
            return profile, packed
        extensions = rtp.unpack_header_extensions(profile, packed)
        delay = (MAX_PLAYOUT_DELAY_MS // 10).to_bytes(3, "big")
        return rtp.pack_header_extensions([*extensions, (self._id, delay)])


def show_at_once(sender: RTCRtpSender) -> None:
    """Before the connection starts: ask the receiver to show pictures as they come. The server's playout delay has
    evened them out already; Chromium adds 10 ms and more otherwise."""
    if supported():
        setattr(sender, "_RTCRtpSender__rtp_header_extensions_map", PlayoutDelayExtension())  # noqa: B010


async def close_peer(pc: RTCPeerConnection, *, timeout_s: float) -> bool:
    """Close, but never hang and never raise (both seen in aiortc); False if it had to be given up."""
    try:
        async with asyncio.timeout(timeout_s):
            await pc.close()
    except TimeoutError:
        logger.warning("a peer connection did not close within %.1f s; it was abandoned", timeout_s)
        return False
    except Exception:
        logger.warning("a peer connection could not be closed in order; its sockets are", exc_info=True)
        stops = [asyncio.wait_for(transport.stop(), timeout_s) for transport in _ice_transports(pc)]
        await asyncio.gather(*stops, return_exceptions=True)
        return False
    return True
