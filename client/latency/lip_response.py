"""How long the portrait's lips take to open, without any delay of sound or network: the same sounds, sent through the
server's WebSocket, whose frames carry the media time that they show."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import cv2
import numpy as np

from client.latency.lips import find_openings
from client.latency.probe import Probe
from client.latency.recording import SIDE, Recording
from client.websocket import AvatarSocket
from stream.protocol import FPS, SessionConfig

SECONDS = 20.0


async def lip_response_ms(url: str, config: SessionConfig, probe: Probe) -> float | None:
    """Median from a sound to the first frame with the open mouth; None where the detector is not sure of it. Raises a
    `ClientError` where the server does not serve."""
    part = _beginning(probe)
    indices, pictures = [], []
    async with AvatarSocket(url, config=replace(config, format="jpeg")) as avatar:
        speaking = asyncio.create_task(avatar.speak(part.pcm))
        async for frame in avatar:
            picture = cv2.imdecode(np.frombuffer(frame.data, np.uint8), cv2.IMREAD_GRAYSCALE)
            if picture is not None:
                indices.append(frame.index)
                pictures.append(cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
        await speaking
    recording = Recording(
        offered_s=0.0, connected_s=0.0, mouth_s=0.0,
        frame_s=np.array(indices) / FPS, gray=np.array(pictures, np.uint8).reshape(-1, SIDE, SIDE),
        packet_s=np.zeros(0), packet_start=np.zeros(0, np.int64), heard=np.zeros(0, np.int16),
    )  # fmt: skip
    lips, _ = find_openings(part, recording)
    if not lips.responds:
        return None
    return 1_000 * float(np.nanmedian(lips.time_s - part.onsets_s))


def _beginning(probe: Probe) -> Probe:
    """The first seconds of the probe, up to a sound's end."""
    inside = probe.onsets_s[probe.onsets_s < SECONDS]
    samples = round(len(probe.pcm) * min(SECONDS + 1.0, probe.seconds) / probe.seconds)
    return replace(probe, pcm=probe.pcm[:samples], onsets_s=inside)
