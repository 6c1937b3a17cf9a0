"""Servers that can be measured: how each is called. To add one, subclass `Endpoint` and name it in `ENDPOINTS`.

An endpoint makes the connection, sends the harness's microphone up and hands over the tracks that come down; all
else (what is sent, how it is measured) is the same for every server.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar
from urllib.parse import urljoin

import httpx
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCSessionDescription,
)

from client.api import ServerApi
from client.errors import ClientError, ConnectionLostError, ServerUnreachableError
from client.latency.relay import Relay
from stream.protocol import AUDIO_LEAD_S, SessionConfig

OnTrack = Callable[[MediaStreamTrack], None]

CONNECT_TIMEOUT_S = 15.0
CLOSE_TIMEOUT_S = 3.0


class Endpoint(ABC):
    """One session at a server. `open`, then `aclose` (may be called without or twice).

    sound_lead_s: how much earlier than its picture the server's sender reports say that sound is sent; a browser
    sets the two against each other by them, the harness by this.
    """

    name: ClassVar[str]
    sound_lead_s: ClassVar[float] = 0.0

    def __init__(self, url: str, *, token: str | None = None, relay: Relay | None = None) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._relay = relay
        self._connections: list[RTCPeerConnection] = []

    @abstractmethod
    async def open(self, microphone: MediaStreamTrack, on_track: OnTrack) -> None:
        """Connect; returns once the connection stands. Raises `ClientError`."""

    async def began(self, first_sound_s: float) -> None:  # noqa: B027 - most need nothing here
        """Told when the first sound is spoken (monotonic clock); only the self-test's server wants to know."""

    async def aclose(self) -> None:
        for connection in self._connections:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await connection.close()

    async def about(self) -> dict[str, Any]:
        """What the server says of itself, for the report."""
        return {}

    async def stats(self) -> dict[str, Any]:
        """The server's own figures of this session, for the report; never used to measure."""
        return {}

    def connection(self, servers: list[RTCIceServer] | None = None) -> RTCPeerConnection:
        """A new connection that `aclose` closes."""
        made = RTCPeerConnection(RTCConfiguration(iceServers=servers or []))
        self._connections.append(made)
        return made

    async def offered(self, connection: RTCPeerConnection) -> str:
        """The offer, with all candidates."""
        await connection.setLocalDescription(await connection.createOffer())
        sdp: str = connection.localDescription.sdp
        return sdp if self._relay is None else self._relay.offer(sdp)

    async def answered(self, connection: RTCPeerConnection, sdp: str) -> None:
        """Take the answer and wait until packets get through."""
        connected = asyncio.Event()

        @connection.on("connectionstatechange")
        def on_state() -> None:
            if connection.connectionState in ("connected", "failed", "closed"):
                connected.set()

        answer = sdp if self._relay is None else self._relay.answer(sdp)
        await connection.setRemoteDescription(RTCSessionDescription(sdp=answer, type="answer"))
        on_state()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await connected.wait()
        if connection.connectionState != "connected":
            raise ConnectionLostError(
                f"{self.url} answered the offer, but no packets get through; a firewall may block UDP."
            )

    async def ask(self, http: httpx.AsyncClient, method: str, url: str, **options: Any) -> httpx.Response:
        """One HTTP request; anything but success is a `ClientError` that says what was answered."""
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            response = await http.request(
                method, url, headers=headers | options.pop("headers", {}), **options
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServerUnreachableError(url, error or type(error).__name__) from error
        if not response.is_success:
            raise ClientError(f"{url} answered {response.status_code}: {response.text[:200] or 'no text'}")
        return response


class TalkalongEndpoint(Endpoint):
    """A Talkalong server: one connection for both directions."""

    name = "talkalong"
    sound_lead_s = AUDIO_LEAD_S

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        relay: Relay | None = None,
        config: SessionConfig | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, token=token, relay=relay)
        self._config = config or SessionConfig()
        self._api = ServerApi(url, token=token, transport=transport)
        self._session: str | None = None

    async def open(self, microphone: MediaStreamTrack, on_track: OnTrack) -> None:
        servers = [RTCIceServer(**server) for server in (await self._api.describe()).get("ice_servers", [])]
        connection = self.connection(servers)
        connection.on("track", on_track)
        connection.addTransceiver(microphone, direction="sendrecv")
        _prefer_h264(connection.addTransceiver("video", direction="recvonly"))
        answer, self._session = await self._api.open_session(await self.offered(connection), self._config)
        await self.answered(connection, answer)

    async def aclose(self) -> None:
        if self._session is not None:
            with contextlib.suppress(ClientError):
                await self._api.close_session(self._session)
            self._session = None
        await super().aclose()
        await self._api.aclose()

    async def about(self) -> dict[str, Any]:
        return await self._api.describe()

    async def stats(self) -> dict[str, Any]:
        return {} if self._session is None else await self._api.session_stats(self._session)


class OfferEndpoint(Endpoint):
    """A server with one JSON endpoint, `{sdp, type}` in and out: LiveTalking's `/offer`, aiortc's own examples."""

    name = "offer"

    async def open(self, microphone: MediaStreamTrack, on_track: OnTrack) -> None:
        connection = self.connection()
        connection.on("track", on_track)
        connection.addTransceiver(microphone, direction="sendrecv")
        _prefer_h264(connection.addTransceiver("video", direction="recvonly"))
        async with httpx.AsyncClient(timeout=CONNECT_TIMEOUT_S) as http:
            offer = {"sdp": await self.offered(connection), "type": "offer"}
            answer = await self.ask(http, "POST", self.url, json=offer)
        try:
            sdp = str(answer.json()["sdp"])
        except (ValueError, KeyError, TypeError):
            raise ClientError(f'{self.url} must answer JSON with "sdp", not {answer.text[:80]!r}.') from None
        await self.answered(connection, sdp)


class WhipWhepEndpoint(Endpoint):
    """A WHIP endpoint that takes the voice (RFC 9725) and a WHEP one that gives the portrait back
    (draft-ietf-wish-whep): its address comes from the Link header of the WHIP answer, or after a comma:
    `https://host/whip,https://host/whep/stage`.
    """

    name = "whip-whep"

    def __init__(self, url: str, *, token: str | None = None, relay: Relay | None = None) -> None:
        whip, _, whep = url.partition(",")
        super().__init__(whip, token=token, relay=relay)
        if relay is not None:
            raise ClientError(
                "A network profile works on one connection; WHIP and WHEP are two. Leave --profile out."
            )
        self._whep = whep
        self._resources: list[str] = []

    async def open(self, microphone: MediaStreamTrack, on_track: OnTrack) -> None:
        async with httpx.AsyncClient(timeout=CONNECT_TIMEOUT_S) as http:
            up = self.connection()
            up.addTransceiver(microphone, direction="sendonly")
            answer = await self._post(http, self.url, up)
            whep = self._whep or _link(answer.headers.get("Link", ""), "urn:ietf:params:whep")
            if not whep:
                raise ClientError(
                    f"{self.url} gave no Link to a WHEP endpoint; give its address after a comma: WHIP,WHEP."
                )
            down = self.connection()
            down.on("track", on_track)
            down.addTransceiver("audio", direction="recvonly")
            _prefer_h264(down.addTransceiver("video", direction="recvonly"))
            await self._post(http, urljoin(self.url, whep), down)

    async def aclose(self) -> None:
        async with httpx.AsyncClient(timeout=CLOSE_TIMEOUT_S) as http:
            while self._resources:
                with contextlib.suppress(ClientError):
                    await self.ask(http, "DELETE", self._resources.pop())
        await super().aclose()

    async def _post(self, http: httpx.AsyncClient, url: str, connection: RTCPeerConnection) -> httpx.Response:
        offer = await self.offered(connection)
        headers = {"Content-Type": "application/sdp"}
        answer = await self.ask(http, "POST", url, content=offer, headers=headers)
        if "Location" in answer.headers:
            self._resources.append(urljoin(url, answer.headers["Location"]))
        await self.answered(connection, answer.text)
        return answer


def _link(header: str, relation: str) -> str | None:
    """The target of the first link with that relation (RFC 8288)."""
    for target, parameters in re.findall(r"<([^>]*)>([^,<]*)", header):
        if relation in parameters:
            return str(target)
    return None


def _prefer_h264(transceiver: Any) -> None:
    """Before the offer: it costs servers an eighth of VP8."""
    capabilities = RTCRtpReceiver.getCapabilities("video")
    codecs = capabilities.codecs if capabilities is not None else []
    transceiver.setCodecPreferences(sorted(codecs, key=lambda codec: codec.mimeType.lower() != "video/h264"))


ENDPOINTS: dict[str, type[Endpoint]] = {
    kind.name: kind for kind in (TalkalongEndpoint, OfferEndpoint, WhipWhepEndpoint)
}
