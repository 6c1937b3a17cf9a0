"""Sound and picture of one session, encoded once for all who watch: tracks that hand out encoded packets.

aiortc sends an `av.Packet` from a track as it is, so each viewer costs packets and encryption but no encoding.
Event loop only; the picture encoders work in a thread, one picture at a time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from stream.aiortc_patches import open_h264, open_opus, open_vp8, supported
from stream.clock import SLOT_SAMPLES
from stream.tracks import AUDIO_TIME_BASE, VIDEO_TICKS, VIDEO_TIME_BASE

logger = logging.getLogger(__name__)

OpenCodec = Callable[[int, int, int], Any]

CODECS: dict[str, OpenCodec] = {"H264": open_h264, "VP8": open_vp8}
# A viewer that is this far behind gets no more until the next key frame: 0.6 s of pictures, 1 s of sound.
BACKLOG_PICTURES = 15
BACKLOG_SOUNDS = 50
# Pictures that wait for the encoder; when it falls behind the oldest goes, counted.
WAITING_PICTURES = 2
# One key frame answers all requests of this span, which is longer than it takes to reach them.
KEY_FRAME_SPAN_S = 0.25
# Where requests for key frames cannot be heard, one comes this often.
BLIND_KEY_FRAME_S = 2.0


class Feed(MediaStreamTrack):
    """What one viewer's sender pulls packets from; begins at the first pull, when the connection is up."""

    def __init__(self, kind: str, source: SharedVideo | SharedAudio, capacity: int) -> None:
        self.kind = kind
        super().__init__()
        self._source = source
        self._packets: asyncio.Queue[av.Packet[Any] | None] = asyncio.Queue(capacity)
        self._joined = False
        self._waits_for_key = True
        self.dropped = 0

    async def recv(self) -> av.Packet[Any]:
        if self.readyState == "live" and not self._joined:
            self._joined = True
            self._source.join(self)
        packet = await self._packets.get() if self.readyState == "live" else None
        if packet is None:
            raise MediaStreamError
        return packet

    def put(self, packet: av.Packet[Any], *, key: bool) -> bool:
        """A packet for this viewer; True if it needs a key frame to go on."""
        if self._waits_for_key and not key:
            return False
        if self._packets.full():
            self.dropped += self._packets.qsize()
            while not self._packets.empty():
                self._packets.get_nowait()
            self._waits_for_key = not key
            if not key:
                return True
        self._waits_for_key = False
        self._packets.put_nowait(packet)
        return False

    def stop(self) -> None:
        if self.readyState == "live":
            self._source.leave(self)
            while not self._packets.empty():
                self._packets.get_nowait()
            self._packets.put_nowait(None)
        super().stop()


class SharedVideo:
    """Pictures in one codec at one bit rate. Nothing is encoded while nobody watches.

    on_error: told of an exception of the encoder; no packets follow.
    """

    def __init__(self, codec: str, *, bit_rate: int, on_error: Callable[[Exception], None]) -> None:
        self._open = CODECS[codec]
        self._bit_rate = bit_rate
        self._on_error = on_error
        self._feeds: set[Feed] = set()
        self._waiting: deque[tuple[int, npt.NDArray[np.uint8]]] = deque(maxlen=WAITING_PICTURES)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._codec: Any = None
        self._newcomer = False
        self._key_wanted = False
        self._key_at = 0.0
        self.encoded = 0
        self.key_frames = 0
        self.dropped = 0

    def feed(self) -> Feed:
        return Feed("video", self, BACKLOG_PICTURES)

    def join(self, feed: Feed) -> None:
        """It gets packets from the next picture on, which is a key frame."""
        self._feeds.add(feed)
        self._newcomer = True
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="shared-video")

    def leave(self, feed: Feed) -> None:
        self._feeds.discard(feed)

    def want_key_frame(self) -> None:
        """Some viewer cannot go on without one; the next that may come is soon enough for all."""
        self._key_wanted = True

    def push(self, position: int, picture: npt.NDArray[np.uint8]) -> None:
        """The picture (I420) of this place of the timeline."""
        if not self._feeds:
            return
        self.dropped += len(self._waiting) == WAITING_PICTURES
        self._waiting.append((position, picture))
        self._wake.set()

    async def aclose(self) -> None:
        """Idempotent; the feeds are their viewers' to stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        self._codec = None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    position, picture = self._waiting.popleft()
                    force = self._take_key_wish()
                    packets = await loop.run_in_executor(None, self._encode, position, picture, force)
                    for packet in packets:
                        self._hand_out(packet)
        except Exception as error:
            self._on_error(error)

    def _take_key_wish(self) -> bool:
        now = time.monotonic()
        overdue = not supported() and now - self._key_at > BLIND_KEY_FRAME_S
        if self._newcomer or overdue or (self._key_wanted and now - self._key_at > KEY_FRAME_SPAN_S):
            self._newcomer = self._key_wanted = False
            return True
        return False

    def _encode(self, position: int, picture: npt.NDArray[np.uint8], force: bool) -> list[av.Packet[Any]]:
        """In a thread."""
        height, width = picture.shape[0] * 2 // 3, picture.shape[1]
        if self._codec is None or (self._codec.width, self._codec.height) != (width, height):
            self._codec = self._open(width, height, self._bit_rate)  # begins with a key frame
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts = position // SLOT_SAMPLES * VIDEO_TICKS
        frame.time_base = VIDEO_TIME_BASE
        kind = av.video.frame.PictureType
        frame.pict_type = kind.I if force else kind.NONE
        packets: list[av.Packet[Any]] = self._codec.encode(frame)
        return packets

    def _hand_out(self, packet: av.Packet[Any]) -> None:
        self.encoded += 1
        if packet.is_keyframe:
            self.key_frames += 1
            self._key_at = time.monotonic()
        for feed in self._feeds:
            if feed.put(packet, key=packet.is_keyframe):
                self._key_wanted = True


class SharedAudio:
    """The speaker's sound in Opus, encoded as it comes (0.2 ms a packet) while somebody listens."""

    def __init__(self) -> None:
        self._feeds: set[Feed] = set()
        self._codec: Any = None
        self.encoded = 0

    def feed(self) -> Feed:
        return Feed("audio", self, BACKLOG_SOUNDS)

    def join(self, feed: Feed) -> None:
        self._feeds.add(feed)

    def leave(self, feed: Feed) -> None:
        self._feeds.discard(feed)

    def push(self, position: int, pcm: npt.NDArray[np.int16]) -> None:
        """20 ms from this place of the timeline on, int16 [960]."""
        if not self._feeds:
            return
        if self._codec is None:
            self._codec = open_opus()
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate = AUDIO_TIME_BASE.denominator
        frame.pts = position
        frame.time_base = AUDIO_TIME_BASE
        for packet in self._codec.encode(frame):
            packet.pts = position  # libopus counts its own look-ahead from it
            packet.time_base = AUDIO_TIME_BASE
            self.encoded += 1
            for feed in self._feeds:
                feed.put(packet, key=True)
