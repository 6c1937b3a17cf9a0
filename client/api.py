"""The server's HTTP side for Python clients: what it is, its portraits, its sessions."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from client.errors import ClientError, ServerRefusedError, ServerUnreachableError
from client.server_address import bearer, server_address, token_advice, token_or_environment
from stream.protocol import ChunkTrace, SessionConfig

TIMEOUT_S = 15.0
UPLOAD_TIMEOUT_S = 120.0
"""Without a sign of the server while a picture is under way: megabytes wait in the system's buffers when the last byte
is written, and then the server decodes them, one picture after another."""
PICTURE_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}


class ServerApi:
    """Async context manager over one HTTP client; every failure is a `client.errors.ClientError`.

    url: as people write it, see `server_address`. token: None takes the environment's TALKALONG_TOKEN, "" none.
    transport: replaces the network, for tests that call the server's app directly.
    """

    def __init__(
        self, url: str, *, token: str | None = None, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.url = server_address(url)
        token = token_or_environment(token)
        self._has_token = token is not None
        try:
            self._http = httpx.AsyncClient(
                base_url=self.url,
                headers=bearer(token),
                timeout=TIMEOUT_S,
                transport=transport,
                follow_redirects=True,
            )
        except httpx.InvalidURL as error:
            raise ServerUnreachableError(self.url, error) from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def describe(self) -> dict[str, Any]:
        """GET /v1/server: version, model, ice_servers (new credentials each time, with a valid token),
        ice_transport_policy, default_portrait, budget, limits."""
        return dict((await self._ask("GET", "/v1/server")).json())

    async def portraits(self) -> list[dict[str, Any]]:
        return list((await self._ask("GET", "/v1/portraits")).json()["portraits"])

    async def picture(self, portrait: str) -> bytes:
        """The whole picture of a portrait, as a JPEG or PNG file."""
        return (await self._ask("GET", f"/v1/portraits/{portrait}/picture")).content

    async def upload(self, picture: Path, *, consent: str, name: str | None = None) -> dict[str, Any]:
        """Uploads a photograph; `consent` states who agreed to it being animated."""
        kind = PICTURE_TYPES.get(picture.suffix.lower(), "application/octet-stream")
        fields = {"consent": consent, "name": name or picture.stem}
        files = {"picture": (picture.name, await asyncio.to_thread(picture.read_bytes), kind)}
        patience = httpx.Timeout(TIMEOUT_S, read=UPLOAD_TIMEOUT_S, write=UPLOAD_TIMEOUT_S)
        response = await self._ask("POST", "/v1/portraits", data=fields, files=files, timeout=patience)
        return dict(response.json())

    async def open_session(self, offer: str, config: SessionConfig) -> tuple[str, str]:
        """Sends an SDP offer; returns the answer and the path of the session."""
        files = {
            "sdp": (None, offer.encode(), "application/sdp"),
            "config": (None, config.to_json().encode(), "application/json"),
        }
        response = await self._ask("POST", "/v1/sessions", files=files)
        return response.text, response.headers["Location"]

    async def session_stats(self, path: str) -> dict[str, Any]:
        """The server's own figures of a session (`SessionStats`)."""
        return dict((await self._ask("GET", f"{path}/stats")).json())

    async def session_chunks(self, path: str, *, after: int) -> list[ChunkTrace]:
        """The ways of the session's chunks after this one."""
        chunks = (await self._ask("GET", f"{path}/chunks", params={"after": after})).json()["chunks"]
        return [ChunkTrace(**chunk) for chunk in chunks]

    async def metrics(self) -> str:
        """GET /metrics: Prometheus text."""
        return (await self._ask("GET", "/metrics")).text

    async def close_session(self, path: str) -> None:
        await self._ask("DELETE", path)

    async def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = await self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise ServerUnreachableError(self.url, error or type(error).__name__) from error
        except httpx.InvalidURL as error:
            raise ServerUnreachableError(self.url, error) from error
        if response.is_success:
            return response
        raise refusal(response, has_token=self._has_token)


def choose_config(portrait: str | None, config: SessionConfig | None) -> SessionConfig:
    """The configuration of a session with a portrait; raises `ClientError` where both name one, and not the same."""
    config = config or SessionConfig()
    if portrait is None or portrait == config.portrait:
        return config
    if config.portrait is not None:
        raise ClientError(
            f"portrait is '{portrait}', but config.portrait is '{config.portrait}'; give one of them."
        )
    return dataclasses.replace(config, portrait=portrait)


def refusal(response: httpx.Response, *, has_token: bool = False) -> ServerRefusedError:
    """The server's error body as an exception; a status line where there is no body to read."""
    try:
        error = response.json()["error"]
        code, message = str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        code, message = "", f"The server answered {response.status_code} {response.reason_phrase}."
    if response.status_code == 401:
        message += f" {token_advice(given=has_token)}"
    wait = response.headers.get("Retry-After", "")
    return ServerRefusedError(
        message, status=response.status_code, code=code, retry_after_s=float(wait) if wait.isdigit() else 0.0
    )
