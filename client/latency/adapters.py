"""How servers are called: each adapter turns an offer into an answer. A new kind of server needs one small class
here.

An adapter has `separate` (True where the microphone goes up on a connection of its own), `sound_lead_s` (how much
earlier than its picture the server sends sound, as its sender reports say: a browser sets the two against each other
by them) and the methods of `Adapter`.
docs/latency.md shows how to add one.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any, Protocol
from urllib.parse import urljoin

import httpx

from client.api import ServerApi
from client.errors import ClientError, ServerRefusedError, ServerUnreachableError
from client.server_address import bearer, token_advice, token_or_environment
from stream.protocol import AUDIO_LEAD_S, ChunkTrace, SessionConfig

TIMEOUT_S = 15.0
KINDS = ("talkalong", "json", "whip")


class Adapter(Protocol):
    separate: bool
    sound_lead_s: float

    async def about(self) -> dict[str, Any]:
        """What is known of the server, for the report; {} where it does not say."""

    async def exchange(self, offer: str, leg: str) -> str:
        """The answer to an SDP offer. leg: "both", or "up" and "down" where connections are separate."""

    async def figures(self) -> dict[str, Any]:
        """The server's own statistics of this session; {} where it has none."""

    async def chunks(self, after: int) -> list[ChunkTrace]:
        """The server's records of its chunks after this one; [] where it keeps none."""

    async def aclose(self) -> None:
        """Ends the session."""


class TalkalongAdapter:
    """Our own server: POST /v1/sessions."""

    separate = False
    sound_lead_s = AUDIO_LEAD_S

    def __init__(self, url: str, *, config: SessionConfig, token: str | None = None) -> None:
        self._api = ServerApi(url, token=token)
        self._config = config
        self._place: str | None = None

    async def about(self) -> dict[str, Any]:
        return await self._api.describe()

    async def exchange(self, offer: str, leg: str) -> str:
        answer, self._place = await self._api.open_session(offer, self._config)
        return answer

    async def figures(self) -> dict[str, Any]:
        return await self._api.session_stats(self._place) if self._place else {}

    async def chunks(self, after: int) -> list[ChunkTrace]:
        return await self._api.session_chunks(self._place, after=after) if self._place else []

    async def aclose(self) -> None:
        if self._place is not None:
            with contextlib.suppress(ClientError):
                await self._api.close_session(self._place)
        await self._api.aclose()


class JsonOfferAdapter:
    """POST {"sdp", "type": "offer"} to one URL, {"sdp", "type": "answer"} back: LiveTalking's and aiortc's examples'
    shape. Not ours, so it gets no token that was not given for it."""

    separate = False
    sound_lead_s = 0.0

    def __init__(self, url: str, *, extra: dict[str, Any] | None = None, token: str | None = None) -> None:
        self._url = url
        self._extra = extra or {}
        self._http = httpx.AsyncClient(timeout=TIMEOUT_S, headers=bearer(token))

    async def about(self) -> dict[str, Any]:
        return {}

    async def exchange(self, offer: str, leg: str) -> str:
        response = await _post(self._http, self._url, json={"sdp": offer, "type": "offer", **self._extra})
        try:
            return str(response.json()["sdp"])
        except (ValueError, KeyError, TypeError) as error:
            raise ClientError(
                f'{self._url} did not answer with a JSON object that has "sdp"; is it the right address?'
            ) from error

    async def figures(self) -> dict[str, Any]:
        return {}

    async def chunks(self, after: int) -> list[ChunkTrace]:
        return []

    async def aclose(self) -> None:
        await self._http.aclose()


class WhipWhepAdapter:
    """The microphone goes up by WHIP (RFC 9725), sound and picture come down by WHEP.

    whep_url: None where the WHIP answer has a Link to it.
    """

    separate = True
    sound_lead_s = 0.0

    def __init__(self, whip_url: str, whep_url: str | None = None, *, token: str | None = None) -> None:
        self._whip_url, self._whep_url = whip_url, whep_url
        self._http = httpx.AsyncClient(timeout=TIMEOUT_S, headers=bearer(token_or_environment(token)))
        self._places: list[str] = []

    async def about(self) -> dict[str, Any]:
        return {}

    async def exchange(self, offer: str, leg: str) -> str:
        url = self._whip_url if leg == "up" else self._whep_url
        if url is None:
            raise ClientError(
                f"{self._whip_url} did not say where the picture is played from (a Link of WHEP); give it with --whep."
            )
        response = await _post(self._http, url, content=offer, headers={"Content-Type": "application/sdp"})
        if leg == "up" and self._whep_url is None and (link := _whep_link(response.headers.get("Link", ""))):
            self._whep_url = urljoin(url, link)
        if place := response.headers.get("Location"):
            self._places.append(urljoin(url, place))
        return response.text

    async def figures(self) -> dict[str, Any]:
        return {}

    async def chunks(self, after: int) -> list[ChunkTrace]:
        return []

    async def aclose(self) -> None:
        for place in self._places:
            with contextlib.suppress(httpx.HTTPError):
                await self._http.delete(place)
        await self._http.aclose()


def _whep_link(header: str) -> str | None:
    """The target of the link whose relation names WHEP (RFC 8288)."""
    links = re.findall(r"<([^>]*)>([^,<]*)", header)
    return next((target for target, parameters in links if "urn:ietf:params:whep" in parameters), None)


async def _post(http: httpx.AsyncClient, url: str, **content: Any) -> httpx.Response:
    try:
        response = await http.post(url, **content)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerUnreachableError(url, error or type(error).__name__) from error
    if not response.is_success:
        advice = ""
        if response.status_code == 401:
            advice = f" {token_advice(given='Authorization' in http.headers)}"
        raise ServerRefusedError(
            f"{url} answered {response.status_code} {response.reason_phrase}.{advice}",
            status=response.status_code,
        )
    return response
