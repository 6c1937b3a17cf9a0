"""aiortc without its waiting: pictures and sound are handed on as soon as they are whole.

Beside `network.py` the only file of the client that touches aiortc's private names. With a version other than the ones
it was written for, aiortc is left as it is: pictures come a frame later and sound 80 ms later; a report names aiortc's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import aioice.ice
import numpy as np
from aiortc import RTCRtpReceiver, RTCRtpSender, rtp
from aiortc.jitterbuffer import JitterBuffer, JitterFrame

TESTED = {"aiortc": "1.16.", "aioice": "0.13."}
SEQUENCE_MODULUS = 1 << 16
MAX_MISORDER = 100
VIDEO_CAPACITY = 128


def supported() -> bool:
    return all(version(name).startswith(prefix) for name, prefix in TESTED.items())


class PromptVideoBuffer(JitterBuffer):  # type: ignore[misc, unused-ignore]
    """A picture goes to the decoder with its last packet (the RTP marker), not with the next picture's first one."""

    def __init__(self, received: dict[int, float]) -> None:
        super().__init__(capacity=VIDEO_CAPACITY, is_video=True)
        self._received = received

    def _remove_frame(self, sequence_number: int) -> JitterFrame | None:
        packets: list[Any] = []
        for count in range(self._capacity):
            packet = self._packets[((self._origin or 0) + count) % self._capacity]
            if packet is None or (packets and packet.timestamp != packets[0].timestamp):
                break
            packets.append(packet)
            if packet.marker:
                self.remove(count + 1)
                self._received[packet.timestamp] = time.monotonic()
                return JitterFrame(data=b"".join(item._data for item in packets), timestamp=packet.timestamp)
        return super()._remove_frame(sequence_number)


class PromptAudioBuffer:
    """Each packet at once; one that comes after its successor is dropped."""

    def __init__(self) -> None:
        self._last: int | None = None

    def add(self, packet: Any) -> tuple[bool, JitterFrame | None]:
        if self._last is not None:
            ahead = (packet.sequence_number - self._last) % SEQUENCE_MODULUS
            if ahead == 0 or SEQUENCE_MODULUS - ahead < MAX_MISORDER:
                return False, None
        self._last = packet.sequence_number
        if not packet._data:
            return False, None
        return False, JitterFrame(data=packet._data, timestamp=packet.timestamp)


def hand_on_at_once(receiver: RTCRtpReceiver, kind: str, received: dict[int, float]) -> None:
    """Before the connection starts. received: filled with when each picture was whole, by RTP time stamp."""
    if supported():
        buffer = PromptAudioBuffer() if kind == "audio" else PromptVideoBuffer(received)
        # setattr: mypy does not know the private name
        setattr(receiver, "_RTCRtpReceiver__jitter_buffer", buffer)  # noqa: B010


def watch_sent(sender: RTCRtpSender, on_sent: Callable[[int, int, float], None]) -> None:
    """Tell of each frame that left: its own time stamp, its RTP time stamp, and when."""
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


def install() -> None:
    """Process-wide: 127.0.0.1 as an address of this machine, and audio levels without a loop over the samples."""
    if not supported() or getattr(aioice.ice.get_host_addresses, "with_loopback", False):
        return
    original = aioice.ice.get_host_addresses

    def addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
        found = original(use_ipv4, use_ipv6)
        return [*found, "127.0.0.1"] if use_ipv4 and "127.0.0.1" not in found else found

    addresses.with_loopback = True  # type: ignore[attr-defined]
    aioice.ice.get_host_addresses = addresses
    rtp.compute_audio_level_dbov = _audio_level_dbov


def _audio_level_dbov(frame: Any) -> int:
    rms = float(np.sqrt(np.mean(np.square(frame.to_ndarray().astype(np.float32))))) / 32_767
    return -127 if rms <= 0 else int(np.clip(round(20 * np.log10(rms)), -127, 0))
