"""Frames for the WebSocket: each by itself, without a track or a clock."""

from __future__ import annotations

from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from stream.aiortc_patches import open_h264
from stream.engine_session import EngineFrames
from stream.protocol import FPS, EncodedFrame
from stream.tracks import VIDEO_TICKS, VIDEO_TIME_BASE, yuv


class FrameEncoder:
    """Frames to JPEG, each by itself, or H.264 Annex B with a key frame at the start. Used in a thread."""

    def __init__(self, format_name: str, jpeg_quality: int, bit_rate: int) -> None:
        self._format = format_name
        self._jpeg_quality = jpeg_quality
        self._bit_rate = bit_rate
        self._h264: Any = None

    def encode(self, made: EngineFrames) -> list[EncodedFrame]:
        encoded = []
        for index, pixels in enumerate(made.frames, made.first_frame):
            data, key_frame = self._jpeg(pixels) if self._format == "jpeg" else self._video(pixels, index)
            encoded.append(
                EncodedFrame(
                    format=self._format,
                    key_frame=key_frame,
                    index=index,
                    media_time_us=index * 1_000_000 // FPS,
                    data=data,
                )
            )
        return encoded

    def _jpeg(self, pixels: npt.NDArray[np.uint8]) -> tuple[bytes, bool]:
        bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, self._jpeg_quality])
        return data.tobytes(), True

    def _video(self, pixels: npt.NDArray[np.uint8], index: int) -> tuple[bytes, bool]:
        if self._h264 is None:
            self._h264 = open_h264(pixels.shape[1], pixels.shape[0], self._bit_rate)
        frame = av.VideoFrame.from_ndarray(yuv(pixels), format="yuv420p")
        frame.pts = index * VIDEO_TICKS
        frame.time_base = VIDEO_TIME_BASE
        packets = self._h264.encode(frame)
        return b"".join(bytes(packet) for packet in packets), any(packet.is_keyframe for packet in packets)
