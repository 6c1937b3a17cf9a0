"""A browser's stand-in: speaks a known pattern, and measures what comes back by its content.

The pattern is loud and silent in random spans of whole frames, so its lag is found by correlation, separately
for sound and picture. Time stamps of the receiver are never used.
"""

from __future__ import annotations

import asyncio
import fractions
import json
import time
from types import TracebackType
from typing import Any, Self

import av
import httpx
import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError

from stream import aiortc_patches
from stream.protocol import SAMPLE_RATE, SessionConfig

PACKET = 960
STEP_S = 0.2
TONE_HZ = 220
AMPLITUDE = 11_000
# aiortc's video receiver passes a frame on when the next one begins.
RECEIVER_VIDEO_S = 0.04
GRID_HZ = 1_000
MAX_LAG_S = 1.5


class Speaker(MediaStreamTrack):
    """A microphone with the pattern of `seed`."""

    kind = "audio"

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._loud = np.random.default_rng(seed).random(2_000) < 0.5
        self._packet = 0
        self.started_at = 0.0

    def level(self, at: np.ndarray) -> np.ndarray:
        """1 where the pattern is loud, at these wall times."""
        index = np.clip(((at - self.started_at) / STEP_S).astype(int), -1, len(self._loud) - 1)
        return np.where(index >= 0, self._loud[index], False).astype(float)

    def pcm(self, packet: int) -> np.ndarray:
        """What is said in this packet, int16 [PACKET]."""
        n = np.arange(packet * PACKET, (packet + 1) * PACKET)
        loud = self._loud[(n / SAMPLE_RATE / STEP_S).astype(int)]
        return (AMPLITUDE * np.sin(2 * np.pi * TONE_HZ * n / SAMPLE_RATE) * loud).astype(np.int16)

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        if not self._packet:
            self.started_at = time.monotonic()
        due = self.started_at + (self._packet + 1) * PACKET / SAMPLE_RATE
        await asyncio.sleep(max(due - time.monotonic(), 0))
        pcm = self.pcm(self._packet)
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, self._packet * PACKET
        frame.time_base = fractions.Fraction(1, SAMPLE_RATE)
        self._packet += 1
        return frame


class Peer:
    """`async with Peer(http, ...) as peer`: connected on entry, closed on exit."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        config: SessionConfig | None = None,
        seed: int = 1,
        loss: float = 0.0,
        codec: str | None = None,
    ) -> None:
        self._http = http
        self._config = config or SessionConfig()
        self._loss = loss
        self._rng = np.random.default_rng(seed + 100)
        self._codec = codec
        self.speaker = Speaker(seed)
        self.pictures: list[tuple[float, float, float]] = []  # when, mouth brightness, tint
        self.sounds: list[tuple[float, float]] = []  # when, loudness
        self.messages: list[dict[str, Any]] = []
        self.location = ""
        self.dropped = 0
        self.offered_at = 0.0
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._channel = self._pc.createDataChannel("talkalong")
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self.offered_at = time.monotonic()
        pc = self._pc
        audio = pc.addTransceiver(self.speaker, direction="sendrecv")
        video = pc.addTransceiver("video", direction="recvonly")
        if self._codec is not None:
            from aiortc import RTCRtpReceiver

            known = RTCRtpReceiver.getCapabilities("video").codecs
            video.setCodecPreferences([c for c in known if c.mimeType == self._codec])
        aiortc_patches.use_low_delay_buffer(audio.receiver)
        pc.on("track", self._on_track)
        self._channel.on("message", lambda text: self.messages.append(json.loads(text)))
        await pc.setLocalDescription(await pc.createOffer())
        files = {"sdp": (None, pc.localDescription.sdp), "config": (None, self._config.to_json())}
        answer = await self._http.post("/v1/sessions", files=files)
        assert answer.status_code == 201, answer.text
        self.location = answer.headers["Location"]
        if self._loss:
            self._lose(audio.sender.transport)
        await pc.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
        await self.until(lambda: self.pictures and self.sounds and self._channel.readyState == "open")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.delete(self.location)
        await self._pc.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until(self, condition: Any, timeout_s: float = 30.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - a test polls
                await asyncio.sleep(0.01)

    async def stats(self) -> dict[str, Any]:
        answer = await self._http.get(f"{self.location}/stats")
        assert answer.status_code == 200, answer.text
        stats: dict[str, Any] = answer.json()
        return stats

    def send(self, message: dict[str, Any]) -> None:
        self._channel.send(json.dumps(message))

    def notices(self) -> list[str]:
        return [message["code"] for message in self.messages if message["type"] == "notice"]

    # --- measuring ---

    def lag_of_sound(self, start: float, end: float) -> float:
        """Seconds from mouth to ear between these wall times; -1 if it cannot be told."""
        return self._lag([(at, level) for at, level in self.sounds], start, end)

    def lag_of_picture(self, start: float, end: float) -> float:
        """Seconds from mouth to photon, without the receiver's own frame."""
        return self._lag([(at, level) for at, level, _ in self.pictures], start, end) - RECEIVER_VIDEO_S

    def _lag(self, events: list[tuple[float, float]], start: float, end: float) -> float:
        grid = np.arange(start, end, 1 / GRID_HZ)
        at, level = np.array(events).T
        index = np.clip(np.searchsorted(at, grid, side="right") - 1, 0, len(at) - 1)
        got = level[index]
        got = (got - got.mean()) / (got.std() + 1e-9)
        lags = int(MAX_LAG_S * GRID_HZ)
        said = self.speaker.level(np.arange(start - MAX_LAG_S, end, 1 / GRID_HZ)[: len(grid) + lags])
        said = (said - said.mean()) / (said.std() + 1e-9)
        scores = np.correlate(said, got, mode="valid")[::-1] / len(got)  # score k: said k samples earlier
        best = int(np.argmax(scores))
        assert scores[best] > 0.6, f"what came back does not follow what was said (r = {scores[best]:.2f})"
        return best / GRID_HZ

    # --- receiving ---

    def _on_track(self, track: MediaStreamTrack) -> None:
        pump = self._pictures(track) if track.kind == "video" else self._sounds(track)
        self._tasks.append(asyncio.create_task(pump))

    async def _pictures(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            grey = frame.to_ndarray(format="gray")
            height = grey.shape[0]
            tint, mouth = grey[: height // 8].mean(), grey[height // 2 :].mean()
            self.pictures.append((time.monotonic(), float(mouth), float(tint)))

    async def _sounds(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            self.sounds.append((time.monotonic(), float(np.abs(frame.to_ndarray()).mean())))

    def _lose(self, transport: Any) -> None:
        """Drop RTP (not RTCP) of the uplink at random, below the sender."""
        send = transport._send_rtp

        async def lossy(data: bytes) -> None:
            if not 192 <= data[1] <= 223 and self._rng.random() < self._loss:
                self.dropped += 1
                return
            await send(data)

        transport._send_rtp = lossy
