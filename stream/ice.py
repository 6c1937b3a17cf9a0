"""STUN and TURN servers: what clients are told of them, and connections that use them.

Credentials for TURN are made for each session from a secret that the TURN server shares (coturn's use-auth-secret;
draft-uberti-behave-turn-rest-00): username = the second of their end, colon, a name; credential = base64 of
HMAC-SHA1(secret, username).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiortc import RTCIceServer, RTCPeerConnection

from stream import aiortc_patches
from stream.config import ServeConfig
from stream.ice_gathering import HostPaths

SECRET_VARIABLE = "TALKALONG_TURN_SECRET"
SPARE_MINUTES = 10.0
NAME_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class IceServer:
    """One server with the credentials of one session; the credential is in no repr."""

    urls: str
    username: str | None = None
    credential: str | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The browser's RTCIceServer."""
        if self.username is None:
            return {"urls": self.urls}
        return {"urls": self.urls, "username": self.username, "credential": self.credential}

    def link(self) -> str:
        """One value of a Link header (RFC 9725, 4.6)."""
        text = f'<{self.urls}>; rel="ice-server"'
        if self.username is None:
            return text
        return (
            f"{text}; username={_quoted(self.username)}; credential={_quoted(self.credential or '')}; "
            'credential-type="password"'
        )


def _quoted(text: str) -> str:
    """A quoted-string of RFC 9110, 5.6.4."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def turn_credentials(secret: str, *, expires_at: int, name: str) -> tuple[str, str]:
    """Username and credential that are valid until `expires_at` (seconds since 1970)."""
    username = f"{expires_at}:{name}"
    digest = hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()
    return username, base64.b64encode(digest).decode()


class Ice:
    """The configured servers; each call of `servers` makes credentials of its own."""

    def __init__(self, config: ServeConfig, *, now: Callable[[], float] = time.time) -> None:
        self._config = config.ice
        self._now = now
        self._secret = os.environ.get(SECRET_VARIABLE) or None
        minutes = config.ice.credential_minutes
        self._lifetime_s = 60 * (
            config.limits.session_minutes + SPARE_MINUTES if minutes is None else minutes
        )

    def servers(self) -> list[IceServer]:
        """For callers with a valid token only."""
        expires_at, name = int(self._now() + self._lifetime_s), secrets.token_hex(NAME_BYTES)
        made = []
        for server in self._config.servers:
            username, credential = server.username, server.credential
            if server.relays and username is None and (secret := server.secret or self._secret) is not None:
                username, credential = turn_credentials(secret, expires_at=expires_at, name=name)
            made.append(IceServer(urls=server.urls, username=username, credential=credential))
        return made

    def describe(self, *, trusted: bool) -> dict[str, Any]:
        """What a client configures its connection with; a caller without the token learns of STUN only."""
        servers = self.servers() if trusted else []
        if not trusted:
            servers = [IceServer(urls=item.urls) for item in self._config.servers if not item.relays]
        return {
            "ice_servers": [server.to_dict() for server in servers],
            "ice_transport_policy": self._config.client_policy,
        }

    def link_header(self) -> dict[str, str]:
        """`{"Link": ...}`, or {} where there are no servers."""
        links = [server.link() for server in self.servers()]
        return {"Link": ", ".join(links)} if links else {}

    def peer_connection(self, *, client: str = "") -> RTCPeerConnection:
        """A connection of the server's own, with credentials of its own. client: the address of who asked for it."""
        servers = [
            RTCIceServer(urls=item.urls, username=item.username, credential=item.credential)
            for item in self.servers()
        ]
        paths = HostPaths(
            port_range=(self._config.port_range[0], self._config.port_range[1])
            if self._config.port_range
            else None,
            public_address=self._config.public_address,
            client=client,
        )
        return aiortc_patches.peer_connection(
            servers, relay_only=self._config.policy == "relay", gather=paths.gather
        )
