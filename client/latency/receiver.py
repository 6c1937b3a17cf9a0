"""One measurement over WebRTC without a browser: says the probe, and writes down what comes back when.

Times are those at which a picture or a sound had come in whole: what aiortc's own buffers hold back on top is taken
off, as no viewer's receiver has them; a screen's or a sound card's delay is not in them either.
"""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import time
from collections.abc import Callable

import av
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from client.errors import ConnectionLostError
from client.latency.endpoints import Endpoint
from client.latency.probe import Probe
from client.latency.recording import SIDE, Recording
from client.microphone import as_pcm16
from client.timeline import AUDIO_HELD_S, VIDEO_HELD_S
from stream.protocol import SAMPLE_RATE

PACKET = SAMPLE_RATE // 50
FIRST_FRAME_TIMEOUT_S = 20.0
TAIL_S = 1.5


class ProbeTrack(MediaStreamTrack):
    """The probe as a live microphone gives it: a packet can be sent once its last sample was captured."""

    kind = "audio"

    def __init__(self, probe: Probe) -> None:
        super().__init__()
        self._pcm = as_pcm16(probe.pcm)
        self._position = 0
        self.spoken_s = np.nan
        """When the first sample is captured; known from the first packet on."""
        self.started, self.finished = asyncio.Event(), asyncio.Event()

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        if self._position == 0:
            self.spoken_s = time.monotonic()
            self.started.set()
        ahead_s = self.spoken_s + (self._position + PACKET) / SAMPLE_RATE - time.monotonic()
        if ahead_s > 0:
            await asyncio.sleep(ahead_s)
        samples = np.zeros(PACKET, np.int16)
        part = self._pcm[self._position : self._position + PACKET]
        samples[: len(part)] = part
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, self._position
        frame.time_base = fractions.Fraction(1, SAMPLE_RATE)
        self._position += PACKET
        if self._position >= len(self._pcm):
            self.finished.set()
        return frame


async def record(
    endpoint: Endpoint, probe: Probe, *, progress: Callable[[str], None] = lambda _: None
) -> Recording:
    """Connects, says the whole probe, and returns what came back. The endpoint is left open for its figures.

    Raises:
        ClientError: no connection, or no picture within 20 s.
    """
    recording = Recording(offered_s=time.monotonic())
    microphone = ProbeTrack(probe)
    tasks: set[asyncio.Task[None]] = set()
    seen = asyncio.Event()

    def on_track(track: MediaStreamTrack) -> None:
        read = _listen(track, recording) if track.kind == "audio" else _watch(track, recording, seen)
        tasks.add(asyncio.create_task(read))

    try:
        await endpoint.open(microphone, on_track)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_FRAME_TIMEOUT_S):
                await seen.wait()
        if not recording.frame_s:
            raise ConnectionLostError(f"{endpoint.url} is connected, but sent no picture for 20 s.")
        await microphone.started.wait()
        await endpoint.began(microphone.spoken_s + float(probe.onsets_s[0]))
        while not microphone.finished.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await microphone.finished.wait()
            progress(_line(recording, microphone, probe))
        await asyncio.sleep(TAIL_S)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    recording.spoken_s = microphone.spoken_s
    return recording


def _line(recording: Recording, microphone: ProbeTrack, probe: Probe) -> str:
    now = time.monotonic()
    recent = sum(at > now - 1 for at in recording.frame_s[-100:])
    said = int(np.sum(probe.onsets_s < now - microphone.spoken_s))
    seconds = min(now - microphone.spoken_s, probe.duration_s)
    return f"{seconds:4.0f} of {probe.duration_s:.0f} s  {said} sounds said  {recent} pictures a second"


async def _watch(track: MediaStreamTrack, recording: Recording, seen: asyncio.Event) -> None:
    with contextlib.suppress(MediaStreamError):
        while True:
            frame = await track.recv()
            at = time.monotonic() - VIDEO_HELD_S
            if isinstance(frame, av.VideoFrame):
                small = frame.reformat(width=SIDE, height=SIDE, format="gray").to_ndarray()
                recording.frame_s.append(at)
                recording.gray.append(small.astype(np.uint8, copy=True))
                seen.set()


async def _listen(track: MediaStreamTrack, recording: Recording) -> None:
    position = 0
    with contextlib.suppress(MediaStreamError):
        while True:
            frame = await track.recv()
            at = time.monotonic() - AUDIO_HELD_S
            if not isinstance(frame, av.AudioFrame):
                continue
            pcm = frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0].astype(np.int16)
            position = frame.pts if frame.pts is not None else position
            # What has come is played from its first sample on.
            recording.heard.append((at, position, pcm))
            position += len(pcm)
