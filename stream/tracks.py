"""The two outgoing tracks of a session. Both wait on one presentation clock, and on nothing else.

`recv` never waits for the model: late video repeats the last picture in its slot, and audio never stops.
"""

from __future__ import annotations

import fractions
from collections.abc import Callable

import av
import cv2
import numpy as np
import numpy.typing as npt
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from stream.clock import SLOT_SAMPLES, PresentationClock
from stream.playout import AudioPlayout, VideoPlayout
from stream.protocol import AUDIO_LEAD_S, SAMPLE_RATE
from stream.released import Released

AUDIO_TIME_BASE = fractions.Fraction(1, SAMPLE_RATE)
VIDEO_TIME_BASE = fractions.Fraction(1, 90_000)
VIDEO_TICKS = 3_600  # of the time base, a frame
PACKET_SAMPLES = 960
FADE_IN = np.linspace(0, 1, PACKET_SAMPLES, dtype=np.float32)
CATCH_UP_AUDIO_SAMPLES = 5 * SLOT_SAMPLES
CATCH_UP_VIDEO_SAMPLES = SLOT_SAMPLES


def yuv(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """RGB uint8 [H, W, 3] with even sides to planar I420 [H * 3/2, W] (cv2: 0.27 ms at 512x512)."""
    return cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420)  # type: ignore[return-value]


class VideoOut(MediaStreamTrack):
    """25 frames a second from the first moment; before speech and while holding, the last picture.

    picture: the portrait itself, RGB uint8 [H, W, 3] with even sides.
    on_shown: told of each frame that is released in its own slot: its number and its time stamp.
    released: told of every picture.
    on_error: told of any unexpected exception (aiortc would swallow it and freeze the picture).
    """

    kind = "video"

    def __init__(
        self,
        *,
        clock: PresentationClock,
        playout: VideoPlayout,
        picture: npt.NDArray[np.uint8],
        on_error: Callable[[Exception], None],
        on_shown: Callable[[int, int], None] = lambda *_: None,
        released: Released | None = None,
    ) -> None:
        super().__init__()
        self._clock = clock
        self._playout = playout
        self._on_shown = on_shown
        self._released = released or Released()
        self._on_error = on_error
        self._yuv = yuv(picture)
        self._position = 0
        self.sent_frames = 0
        self.due_frames = 0  # slots of media time
        self.missed_frames = 0  # of these, slots whose own frame was not there

    async def recv(self) -> av.VideoFrame:
        if self.readyState != "live":
            raise MediaStreamError
        try:
            position = await self._clock.wait(self._position, catch_up_samples=CATCH_UP_VIDEO_SAMPLES)
            return self._picture(position)
        except Exception as error:
            self._on_error(error)
            raise

    def _picture(self, position: int) -> av.VideoFrame:
        for skipped in range(self._position, position, SLOT_SAMPLES):
            if (self._clock.media_frame(skipped // SLOT_SAMPLES) or -1) >= 0:
                self.due_frames += 1
                self.missed_frames += 1
        slot = position // SLOT_SAMPLES
        self._position = position + SLOT_SAMPLES
        index = self._clock.media_frame(slot)
        fresh = not self.sent_frames
        if index is not None and index >= 0:
            rgb, exact = self._playout.take(index)
            self.due_frames += 1
            self.missed_frames += not exact
            if exact:
                self._on_shown(index, slot * VIDEO_TICKS)
            if rgb is not None:
                self._yuv, fresh = yuv(rgb), True
        self._released.picture(position, self._yuv, fresh)
        frame = av.VideoFrame.from_ndarray(self._yuv, format="yuv420p")
        frame.pts = slot * VIDEO_TICKS
        frame.time_base = VIDEO_TIME_BASE
        self.sent_frames += 1
        return frame


class AudioOut(MediaStreamTrack):
    """The speaker's own sound, 20 ms at a time, held back by the playout delay; silence before it.

    It leaves AUDIO_LEAD_S before it is due, which its sender reports account for. released: told of every packet.
    """

    kind = "audio"

    def __init__(
        self,
        *,
        clock: PresentationClock,
        playout: AudioPlayout,
        on_error: Callable[[Exception], None],
        released: Released | None = None,
    ) -> None:
        super().__init__()
        self._clock = clock
        self._playout = playout
        self._released = released or Released()
        self._on_error = on_error
        self._position = 0
        self.played = 0  # stream position after the last sample that was released

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        try:
            position = await self._clock.wait(
                self._position, catch_up_samples=CATCH_UP_AUDIO_SAMPLES, lead_s=AUDIO_LEAD_S
            )
            return self._packet(position)
        except Exception as error:
            self._on_error(error)
            raise

    def _packet(self, position: int) -> av.AudioFrame:
        self._position = position + PACKET_SAMPLES
        index = self._clock.media_frame(position // SLOT_SAMPLES)
        if index is None or index < 0:
            pcm = np.zeros(PACKET_SAMPLES, np.int16)
        else:
            start = index * SLOT_SAMPLES + position % SLOT_SAMPLES
            going_on = self._playout.read(self.played, PACKET_SAMPLES) if 0 < self.played < start else None
            pcm = self._playout.read(start, PACKET_SAMPLES)
            if going_on is not None:  # something was left out
                pcm = (going_on + FADE_IN * (pcm.astype(np.float32) - going_on)).astype(np.int16)
            self.played = start + PACKET_SAMPLES
        self._released.sound(position, pcm)
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        frame.pts = position
        frame.time_base = AUDIO_TIME_BASE
        return frame
