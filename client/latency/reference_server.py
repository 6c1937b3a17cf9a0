"""A server whose delays are known: `python -m client.latency.reference_server`, the ruler for the self-test.

POST /offer {"sdp", "type", "delay_ms", "jitter_ms", "muted", "mouth"}: what is heard is returned BASE_MS + delay_ms
later, with pictures that flash (or a drawn mouth that opens) for the frames of 40 ms in which there is sound. A
muted one moves its mouth without regard to the sound. Prints one line, {"port": N}, when it is ready; ends when its
standard input ends, so that it never outlives its caller.
"""

from __future__ import annotations

import asyncio
import fractions
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import uvicorn
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from fastapi import FastAPI

from client.latency import prompt
from client.microphone import PACKET_SAMPLES, audio_frame
from stream.protocol import FPS, SAMPLE_RATE

BASE_MS = 100.0  # a frame of sound has to be whole (40 ms) and here (20 ms and the way) before it is shown
FRAME_S = 1 / FPS
FRAME_SAMPLES = SAMPLE_RATE // FPS
LOUD = 2_000
SIDE = 128


class Voice:
    """What was heard, by sample position, and when sample 0 sounded."""

    def __init__(self) -> None:
        self.begun_s: float | None = None
        self._pcm: npt.NDArray[np.int16] = np.zeros(60 * SAMPLE_RATE, np.int16)

    def add(self, start: int, pcm: npt.NDArray[np.int16], now_s: float) -> None:
        # A packet is here when its last sample has sounded.
        begun_s = now_s - (start + len(pcm)) / SAMPLE_RATE
        # The earliest packets tell the truth; a late one was delayed on its way.
        self.begun_s = begun_s if self.begun_s is None else min(self.begun_s, begun_s)
        if start + len(pcm) > len(self._pcm):
            self._pcm = np.concatenate([self._pcm, np.zeros_like(self._pcm)])
        self._pcm[start : start + len(pcm)] = pcm

    def get(self, start: int, samples: int) -> npt.NDArray[np.int16]:
        out = np.zeros(samples, np.int16)
        if start + samples > 0:
            part = self._pcm[max(0, start) : start + samples]
            out[samples - len(part) :] = part
        return out


class Answer(MediaStreamTrack):
    """One of the two tracks: item k of `item_s` seconds is due BASE_MS + delay_ms after the moment that it shows."""

    def __init__(self, kind: str, voice: Voice, *, options: dict[str, Any]) -> None:
        super().__init__()
        self.kind = kind
        self._voice = voice
        self._delay_s = (BASE_MS + float(options.get("delay_ms", 0.0))) / 1_000
        self._jitter_s = float(options.get("jitter_ms", 0.0)) / 1_000
        self._muted, self._mouth = bool(options.get("muted")), bool(options.get("mouth"))
        self._item_s = 0.02 if kind == "audio" else FRAME_S
        self._rng = np.random.default_rng(int(options.get("seed", 0)))
        self._next: int | None = None
        self._count = 0
        self._started_s = time.monotonic()
        self._open = 0.0

    async def recv(self) -> av.AudioFrame | av.VideoFrame:
        if self.readyState != "live":
            raise MediaStreamError
        if self._voice.begun_s is None:
            await asyncio.sleep(max(0.0, self._started_s + self._count * self._item_s - time.monotonic()))
            index = -1_000
        else:
            due_s = self._voice.begun_s + self._delay_s
            if self._next is None:
                self._next = int(np.ceil((time.monotonic() - due_s) / self._item_s))
            index = self._next
            self._next += 1
            shaken_s = self._jitter_s * self._rng.random() if self.kind == "video" else 0.0
            await asyncio.sleep(max(0.0, due_s + index * self._item_s + shaken_s - time.monotonic()))
        self._count += 1
        return self._sound(index) if self.kind == "audio" else self._picture(index)

    def _sound(self, index: int) -> av.AudioFrame:
        pcm = self._voice.get(index * PACKET_SAMPLES, PACKET_SAMPLES)
        return audio_frame(pcm, self._count * PACKET_SAMPLES)

    def _picture(self, index: int) -> av.VideoFrame:
        if self._muted:
            if self._count % 5 == 0:
                self._open = float(self._rng.random() > 0.6)
        else:
            peak = np.abs(self._voice.get(index * FRAME_SAMPLES, FRAME_SAMPLES).astype(int)).max()
            self._open = float(peak > LOUD)
        frame = av.VideoFrame.from_ndarray(self._face() if self._mouth else self._flash(), format="gray")
        frame = frame.reformat(format="yuv420p")
        frame.pts, frame.time_base = self._count * 3_600, fractions.Fraction(1, 90_000)
        return frame

    def _flash(self) -> npt.NDArray[np.uint8]:
        return np.full((SIDE, SIDE), 30 + round(180 * self._open), np.uint8)

    def _face(self) -> npt.NDArray[np.uint8]:
        """A head that sways slowly, with a mouth."""
        picture = np.full((SIDE, SIDE), 90, np.uint8)
        x = SIDE // 2 + round(3 * np.sin(self._count / 40))
        cv2.ellipse(picture, (x, 64), (36, 50), 0, 0, 360, 170, -1)
        for side in (-14, 14):
            cv2.circle(picture, (x + side, 50), 4, 60, -1)
        cv2.ellipse(picture, (x, 90), (14, 2 + round(7 * self._open)), 0, 0, 360, 60, -1)
        return picture


def create_app() -> FastAPI:
    peers: set[RTCPeerConnection] = set()
    tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*(asyncio.wait_for(pc.close(), 2) for pc in peers), return_exceptions=True)

    app = FastAPI(lifespan=lifespan)

    @app.post("/offer")
    async def offer(options: dict[str, Any]) -> dict[str, str]:
        pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        peers.add(pc)
        voice = Voice()

        @pc.on("track")
        def on_track(track: MediaStreamTrack) -> None:
            task = asyncio.create_task(_listen(track, voice))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        @pc.on("connectionstatechange")
        async def on_state() -> None:
            if pc.connectionState in ("failed", "closed"):
                peers.discard(pc)
                await pc.close()

        pc.addTrack(Answer("audio", voice, options=options))
        pc.addTrack(Answer("video", voice, options=options))
        await pc.setRemoteDescription(RTCSessionDescription(sdp=options["sdp"], type="offer"))
        for transceiver in pc.getTransceivers():
            prompt.hand_on_at_once(transceiver.receiver, transceiver.kind, {})
        await pc.setLocalDescription(await pc.createAnswer())
        return {"sdp": pc.localDescription.sdp, "type": "answer"}

    return app


async def _listen(track: MediaStreamTrack, voice: Voice) -> None:
    start: int | None = None
    while True:
        try:
            frame = await track.recv()
        except MediaStreamError:
            return
        assert isinstance(frame, av.AudioFrame)
        pcm = frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0].astype(np.int16)
        start = start if start is not None else (frame.pts or 0)
        voice.add((frame.pts or 0) - start, pcm, time.monotonic())


async def serve() -> None:
    prompt.install()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(create_app(), log_level="warning"))
        running = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started and not running.done():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        print(json.dumps({"port": listener.getsockname()[1], "pid": os.getpid()}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        server.should_exit = True
        await running


if __name__ == "__main__":
    asyncio.run(serve())
