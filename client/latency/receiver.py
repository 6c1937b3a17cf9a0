"""The receiver without a browser: sends a probe over aiortc and times every picture and every packet as it is
there."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpReceiver,
)
from aiortc import RTCSessionDescription as Description
from aiortc.mediastreams import MediaStreamError

from client.errors import ConnectionLostError
from client.latency import prompt
from client.latency.adapters import Adapter
from client.latency.network import ImpairedLink, Profile
from client.latency.probe import Probe
from client.latency.recording import SIDE, Recording
from client.latency.trace import TIMESTAMP_MODULUS, Trace
from client.microphone import PACKET_SAMPLES, audio_frame
from stream.protocol import DATA_CHANNEL_LABEL, SAMPLE_RATE

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 15.0
CLOSE_TIMEOUT_S = 3.0
TAIL_S = 1.0
PROGRESS_S = 0.5


class ProbeMicrophone(MediaStreamTrack):
    """The probe by wall clock: a packet leaves when its last sample has sounded, as from a real microphone. After the
    probe, silence."""

    kind = "audio"

    def __init__(self, pcm: npt.NDArray[np.int16]) -> None:
        super().__init__()
        self._pcm = pcm
        self._position = 0
        self.start_s: float | None = None
        self.late_s: list[float] = []

    async def recv(self) -> av.AudioFrame:
        if self.start_s is None:
            self.start_s = time.monotonic()
        due_s = self.start_s + (self._position + PACKET_SAMPLES) / SAMPLE_RATE
        if (ahead_s := due_s - time.monotonic()) > 0:
            await asyncio.sleep(ahead_s)
        self.late_s.append(time.monotonic() - due_s)
        packet = np.zeros(PACKET_SAMPLES, np.int16)
        part = self._pcm[self._position : self._position + PACKET_SAMPLES]
        packet[: len(part)] = part
        frame = audio_frame(packet, self._position)
        self._position += PACKET_SAMPLES
        return frame


class Receiver:
    """One run against one server: `record` connects, speaks, listens, looks and hangs up.

    progress: told of (seconds of the probe that have passed, pictures, newest statistics) twice a second.
    """

    def __init__(
        self,
        adapter: Adapter,
        probe: Probe,
        *,
        profile: Profile | None = None,
        progress: Callable[[float, int, dict[str, Any]], None] = lambda *_: None,
    ) -> None:
        self._adapter = adapter
        self.probe = probe
        self._profile = profile
        self._progress = progress
        self._microphone = ProbeMicrophone(probe.pcm)
        self._frame_s: list[float] = []
        self._gray: list[npt.NDArray[np.uint8]] = []
        self._size = (0, 0)
        self._packets: list[tuple[float, int, npt.NDArray[np.int16]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: list[RTCPeerConnection] = []
        self._links: list[ImpairedLink] = []
        self._channel: RTCDataChannel | None = None
        self._trace = Trace()
        self._broken: str | None = None
        self._stopped = False

    def stop(self) -> None:
        """End the recording before the probe is over; `record` returns what there is."""
        self._stopped = True

    async def record(self) -> Recording:
        """Raises a `ClientError` where the server cannot be reached, refuses, or hangs up."""
        prompt.install()
        about = await self._adapter.about()
        try:
            offered_s = await self._connect(about)
            connected_s = time.monotonic()
            figures = await self._listen()
        finally:
            await self._hang_up()
        return self._recording(offered_s, connected_s, figures, about)

    async def _connect(self, about: dict[str, Any]) -> float:
        servers = [RTCIceServer(**server) for server in about.get("ice_servers", [])]
        offered_s = 0.0
        for leg in ("up", "down") if self._adapter.separate else ("both",):
            pc = RTCPeerConnection(RTCConfiguration(iceServers=servers))
            self._connections.append(pc)
            if leg == "both":
                self._channel = pc.createDataChannel(DATA_CHANNEL_LABEL)
                self._channel.on("message", self._on_message)
            offered_s = await self._connect_leg(pc, leg)
        return offered_s

    async def _connect_leg(self, pc: RTCPeerConnection, leg: str) -> float:
        settled = asyncio.Event()

        @pc.on("connectionstatechange")
        def on_state() -> None:
            if pc.connectionState in ("connected", "failed", "closed"):
                settled.set()
            if pc.connectionState in ("failed", "closed"):
                self._broken = self._broken or "the network path broke"

        @pc.on("track")
        def on_track(track: MediaStreamTrack) -> None:
            read = self._hear if track.kind == "audio" else self._watch
            self._tasks.add(asyncio.create_task(read(track)))

        if leg == "down":
            audio = pc.addTransceiver("audio", direction="recvonly")
        else:
            audio = pc.addTransceiver(self._microphone, direction="sendonly" if leg == "up" else "sendrecv")
            prompt.watch_sent(audio.sender, self._on_sent)
        if leg != "up":
            prompt.hand_on_at_once(audio.receiver, "audio", self._trace.received)
            video = pc.addTransceiver("video", direction="recvonly")
            capabilities = RTCRtpReceiver.getCapabilities("video")
            codecs = capabilities.codecs if capabilities is not None else []
            video.setCodecPreferences(
                sorted(codecs, key=lambda codec: codec.mimeType.lower() != "video/h264")
            )
            prompt.hand_on_at_once(video.receiver, "video", self._trace.received)
        await pc.setLocalDescription(await pc.createOffer())
        offered_s = time.monotonic()
        answer = await self._adapter.exchange(pc.localDescription.sdp, leg)
        await pc.setRemoteDescription(Description(sdp=answer, type="answer"))
        if self._profile is not None:
            self._links.append(ImpairedLink(pc, self._profile, leg=len(self._links)))
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await settled.wait()
        except TimeoutError:
            self._broken = "it did not come about within 15 s; a firewall may block UDP"
        if self._broken:
            raise ConnectionLostError(f"The connection failed: {self._broken}.")
        return offered_s

    async def _listen(self) -> dict[str, Any]:
        """Until the probe was said and had time to come back; the server's figures of the end."""
        figures: dict[str, Any] = {}
        while self._microphone.start_s is None and self._broken is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        while self._broken is None:
            passed_s = time.monotonic() - (self._microphone.start_s or 0.0)
            self._progress(min(passed_s, self.probe.seconds), len(self._frame_s), figures)
            self._ping()
            if self._stopped or passed_s > self.probe.seconds + TAIL_S:
                self._trace.chunks += await self._adapter.chunks(self._trace.newest_chunk)
                return await self._adapter.figures() or figures
            await asyncio.sleep(PROGRESS_S)
            if round(passed_s / PROGRESS_S) % 10 == 0:
                figures = await self._adapter.figures()
                self._trace.chunks += await self._adapter.chunks(self._trace.newest_chunk)
        raise ConnectionLostError(
            f"The session ended after {len(self._frame_s)} pictures: {self._broken}. Nothing was measured."
        )

    def _ping(self) -> None:
        """Asks for the server's clock; the number is our own, in microseconds."""
        if self._channel is not None and self._channel.readyState == "open":
            self._channel.send(json.dumps({"type": "ping", "id": round(1e6 * time.monotonic())}))

    def _on_message(self, text: str | bytes) -> None:
        message = json.loads(text)
        if message.get("type") == "pong" and "time_s" in message:
            self._trace.pings.append((message["id"] / 1e6, message["time_s"], time.monotonic()))

    def _on_sent(self, position: int, rtp: int, at: float) -> None:
        self._trace.sent[rtp] = at
        self._trace.sounded_s[rtp] = (self._microphone.start_s or 0.0) + (
            position + PACKET_SAMPLES
        ) / SAMPLE_RATE

    async def _hear(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                self._broken = self._broken or "the sound ended"
                return
            now = time.monotonic()
            assert isinstance(frame, av.AudioFrame)
            pcm = frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0]
            due_s = now + self._adapter.sound_lead_s
            self._packets.append((due_s, frame.pts or 0, pcm.astype(np.int16)))

    async def _watch(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                self._broken = self._broken or "the picture ended"
                return
            self._frame_s.append(time.monotonic())
            assert isinstance(frame, av.VideoFrame)
            if frame.pts is not None and self._trace.received:  # aiortc counts from the first picture's stamp
                rtp = (next(iter(self._trace.received)) + frame.pts) % TIMESTAMP_MODULUS
                self._trace.displayed[rtp] = self._frame_s[-1]
            self._size = (frame.width, frame.height)
            plane = frame.planes[0]
            luma = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[
                : frame.height, : frame.width
            ]
            small = cv2.resize(luma, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            self._gray.append(np.asarray(small, np.uint8))

    async def _hang_up(self) -> None:
        self._microphone.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._adapter.aclose()
        for link in self._links:
            await link.aclose()
        for pc in self._connections:
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await pc.close()
            except TimeoutError:
                logger.warning("a connection did not close within %.0f s; it was abandoned", CLOSE_TIMEOUT_S)

    def _recording(
        self, offered_s: float, connected_s: float, figures: dict[str, Any], about: dict[str, Any]
    ) -> Recording:
        starts = np.array([start for _, start, _ in self._packets], np.int64)
        heard = np.zeros(0, np.int16)
        if len(starts):
            starts -= starts[0]
            heard = np.zeros(int(starts[-1]) + len(self._packets[-1][2]), np.int16)
            for start, (_, _, pcm) in zip(starts, self._packets, strict=True):
                heard[start : start + len(pcm)] = pcm[: len(heard) - start]
        return Recording(
            offered_s=offered_s,
            connected_s=connected_s,
            mouth_s=self._microphone.start_s or connected_s,
            frame_s=np.array(self._frame_s),
            gray=np.array(self._gray, np.uint8).reshape(-1, SIDE, SIDE),
            packet_s=np.array([arrival for arrival, _, _ in self._packets]),
            packet_start=starts,
            heard=heard,
            late_s=np.array(self._microphone.late_s),
            trace=self._trace,
            server=figures,
            about=about,
            size=self._size,
        )
