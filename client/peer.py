"""AvatarClient: one live session over WebRTC. Push PCM in, iterate moments (picture and sound) out.

async with AvatarClient("http://localhost:8080") as avatar:
    speaking = asyncio.create_task(avatar.push(pcm))  # int16 or float32, 48 kHz mono
    async for moment in avatar:
        show(moment.picture), play(moment.pcm)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import av
import httpx
import numpy as np
import numpy.typing as npt
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcconfiguration import RTCIceTransportPolicy

from client.api import ServerApi, choose_config
from client.errors import ClientError, ConnectionLostError
from client.microphone import MicrophoneTrack
from client.relay import find_relay_problem
from client.timeline import Moment, Timeline
from stream.protocol import DATA_CHANNEL_LABEL, ControlValues, SessionConfig, controls_message

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 15.0
CLOSE_TIMEOUT_S = 3.0
MAX_WAITING_MOMENTS = 250  # ten seconds; a slower reader loses the oldest, counted


class AvatarClient:
    """Async context manager; iterating ends when the session ends, and raises `ConnectionLostError` if that
    was not asked for. One reader at a time.

    portrait: an id of the server's gallery, or None for what `config` names, else the server's default. url, token,
    transport: see `ServerApi`.
    relay_only: send and receive through the server's TURN relay only, for strict networks; also what the server asks
    its clients to do, if it does.
    """

    def __init__(
        self,
        url: str,
        *,
        portrait: str | None = None,
        config: SessionConfig | None = None,
        token: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        relay_only: bool = False,
    ) -> None:
        self._relay_only = relay_only
        self._ice_servers: list[dict[str, Any]] = []
        self.config = choose_config(portrait, config)
        self.stats: dict[str, Any] = {}
        self.notices: list[str] = []
        self.dropped_moments = 0
        self._api = ServerApi(url, token=self.config.token if token is None else token, transport=transport)
        self._microphone = MicrophoneTrack()
        self._timeline = Timeline()
        self._moments: asyncio.Queue[Moment | ClientError | None] = asyncio.Queue()
        self._readers: set[asyncio.Task[None]] = set()
        self._connection: RTCPeerConnection | None = None
        self._channel: Any = None
        self._place: str | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        try:
            await self._connect()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def level_samples(self) -> float:
        """What was offered and is not on its way yet, counted as if it left evenly and not in packets."""
        return self._microphone.level_samples

    async def push(self, pcm: npt.NDArray[np.generic]) -> None:
        """pcm: int16 or float32 [N], 48 kHz mono. Returns once it is on its way, at the speed of speech."""
        await self._microphone.push(pcm)

    def offer(self, pcm: npt.NDArray[np.generic]) -> None:
        """As `push`, for a live source: never waits; more than 100 ms of backlog is dropped."""
        self._microphone.offer(pcm)

    def set_controls(self, controls: ControlValues) -> None:
        if self._channel is not None and self._channel.readyState == "open":
            self._channel.send(controls_message(controls))

    def set_recording(self, on: bool, *, title: str = "") -> None:
        """Asks the server to record this session, or to stop; `notices` tells how that went."""
        if self._channel is not None and self._channel.readyState == "open":
            self._channel.send(json.dumps({"type": "recording", "on": on, "title": title}))

    async def __aiter__(self) -> AsyncIterator[Moment]:
        while True:
            item = await self._moments.get()
            if item is None:
                return
            if isinstance(item, ClientError):
                raise item
            yield item

    async def aclose(self) -> None:
        """Ends the session; may be called more than once."""
        if self._closed:
            return
        self._closed = True
        self._microphone.stop()
        for task in self._readers:
            task.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        if self._place is not None:
            with contextlib.suppress(ClientError):
                await self._api.close_session(self._place)
        if self._connection is not None:
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._connection.close()
            except TimeoutError:
                logger.warning(
                    "the connection did not close within %.0f s; it was abandoned", CLOSE_TIMEOUT_S
                )
        await self._api.aclose()
        self._moments.put_nowait(None)

    async def _connect(self) -> None:
        about = await self._api.describe()
        self._ice_servers = list(about.get("ice_servers", []))
        connection = self._connection = RTCPeerConnection(self._configuration(about))
        connected = asyncio.Event()

        @connection.on("connectionstatechange")
        def on_state() -> None:
            if connection.connectionState in ("connected", "failed", "closed"):
                connected.set()
            if connection.connectionState in ("failed", "closed"):
                self._lost("the network path broke")

        @connection.on("track")
        def on_track(track: MediaStreamTrack) -> None:
            read = self._read_audio if track.kind == "audio" else self._read_video
            task = asyncio.create_task(read(track))
            self._readers.add(task)

        self._channel = connection.createDataChannel(DATA_CHANNEL_LABEL)
        self._channel.on("message", self._read_message)
        connection.addTransceiver(self._microphone, direction="sendrecv")
        picture = connection.addTransceiver("video", direction="recvonly")
        capabilities = RTCRtpReceiver.getCapabilities("video")
        codecs = capabilities.codecs if capabilities is not None else []
        # H.264 costs the server an eighth of VP8; the order has to be set before the offer.
        picture.setCodecPreferences(sorted(codecs, key=lambda codec: codec.mimeType.lower() != "video/h264"))
        await connection.setLocalDescription(await connection.createOffer())
        if "a=candidate:" not in connection.localDescription.sdp:
            raise await self._blocked()
        answer, self._place = await self._api.open_session(connection.localDescription.sdp, self.config)
        await connection.setRemoteDescription(RTCSessionDescription(sdp=answer, type="answer"))
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await connected.wait()
        except TimeoutError:
            raise await self._blocked() from None
        if connection.connectionState != "connected":
            raise await self._blocked()

    def _configuration(self, about: dict[str, Any]) -> RTCConfiguration:
        relay = self._relay_only or about.get("ice_transport_policy") == "relay"
        return RTCConfiguration(
            iceServers=[RTCIceServer(**server) for server in self._ice_servers],
            iceTransportPolicy=RTCIceTransportPolicy.RELAY if relay else RTCIceTransportPolicy.ALL,
        )

    async def _blocked(self) -> ConnectionLostError:
        """Why there is no way, as far as it can be found out."""
        relays = [server for server in self._ice_servers if str(server.get("urls", "")).startswith("turn")]
        problem = await find_relay_problem(relays)
        if problem:
            return ConnectionLostError(
                "The server answers over HTTP, but sound and picture do not get through, also not by its relay. "
                + problem
            )
        return _blocked(relayed=bool(relays))

    async def _read_audio(self, track: MediaStreamTrack) -> None:
        position = 0
        async for frame in _frames(track):
            if not isinstance(frame, av.AudioFrame):
                continue
            channels = len(frame.layout.channels)
            samples = frame.to_ndarray().reshape(-1, channels)[:, 0]
            position = frame.pts if frame.pts is not None else position + len(samples)
            self._timeline.add_audio(position, samples.astype(np.int16), arrival_s=time.monotonic())
            self._deliver()
        self._lost("the sound ended")

    async def _read_video(self, track: MediaStreamTrack) -> None:
        async for frame in _frames(track):
            if not isinstance(frame, av.VideoFrame) or frame.time is None:
                continue
            arrival_s = time.monotonic()
            picture = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
            self._timeline.add_video(frame.time, picture, arrival_s=arrival_s)
            self._deliver()
        self._lost("the picture ended")

    def _deliver(self) -> None:
        for moment in self._timeline.pop():
            if self._moments.qsize() >= MAX_WAITING_MOMENTS:
                self._moments.get_nowait()
                self.dropped_moments += 1
            self._moments.put_nowait(moment)

    def _read_message(self, text: str | bytes) -> None:
        try:
            message = json.loads(text)
        except ValueError:
            logger.warning("the server sent a message that is not JSON: %.80r", text)
            return
        if message.get("type") == "stats":
            self.stats = message
        elif message.get("type") == "notice":
            self.notices.append(str(message.get("message", "")))
            logger.info("the server says: %s", message.get("message"))

    def _lost(self, reason: str) -> None:
        if self._closed:
            return
        said = f" The server said: {self.notices[-1]}" if self.notices else ""
        self._moments.put_nowait(
            ConnectionLostError(
                f"The session ended: {reason}.{said} Check the server and the network, then start again."
            )
        )


async def _frames(track: MediaStreamTrack) -> AsyncIterator[Any]:
    """The track's frames until it ends: an end is no error."""
    while True:
        try:
            yield await track.recv()
        except MediaStreamError:
            return


def _blocked(*, relayed: bool) -> ConnectionLostError:
    advice = (
        "ask the operator to run `talkalong doctor` on the server: its relay answers here."
        if relayed
        else "ask the operator for a TURN relay."
    )
    return ConnectionLostError(
        "The server answers over HTTP, but sound and picture do not get through. A firewall or a VPN "
        f"probably blocks UDP; try another network, or {advice}"
    )
