"""Where the server is and which token it wants, as people write both: one parser for every command and client."""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit, urlunsplit

from client.errors import ClientError

DEFAULT = "http://localhost:8080"
DEFAULT_PORT = 8080  # of `talkalong serve`; an address with a scheme has the scheme's own
TOKEN_VARIABLE = "TALKALONG_TOKEN"
SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
SOCKET_PATH = "/v1/sessions/ws"
PAGE = re.compile(r"/[^/]*\.html$")
NAME = re.compile(r"[\w.-]+")


def server_address(text: str) -> str:
    """http or https, host and port, without a slash at the end: from `localhost:8500`, `host`, `//host`, `[::1]:8080`,
    the page's own address, or that of the WebSocket. Raises `ClientError` for what is none."""
    parts = _split(text)
    path = PAGE.sub("", parts.path).rstrip("/").removesuffix(SOCKET_PATH)
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def endpoint_address(text: str) -> str:
    """As `server_address` for another server's endpoint: its path and query stay as they are."""
    return urlunsplit(_split(text)._replace(fragment=""))


def socket_address(text: str) -> str:
    """The server's WebSocket for sessions."""
    return server_address(text).replace("http", "ws", 1) + SOCKET_PATH


def token_or_environment(token: str | None) -> str | None:
    """The token given, else TALKALONG_TOKEN; "" is none, whatever the environment says. Raises `ClientError` for one
    that no header can carry."""
    found = (os.environ.get(TOKEN_VARIABLE) if token is None else token) or ""
    found = found.strip()
    if not found.isascii() or not found.isprintable() or " " in found:
        whose = f"in the environment variable {TOKEN_VARIABLE}" if token is None else "given"
        raise ClientError(f"The token {whose} holds characters that no token has; copy it anew, plain ASCII.")
    return found or None


def bearer(token: str | None) -> dict[str, str]:
    """The header (RFC 6750) for a token, {} for none."""
    return {"Authorization": f"Bearer {token}"} if token else {}


def token_advice(*, given: bool) -> str:
    """What to do where the server wants a token, or another one."""
    if given:
        return f"The token that was given (--token, else in the environment as {TOKEN_VARIABLE}) is not the server's."
    return f"Give its token with --token or in the environment variable {TOKEN_VARIABLE}."


def add_arguments(
    parser: argparse.ArgumentParser,
    *,
    default: str | None = DEFAULT,
    help: str = "default: %(default)s",
    parse: Callable[[str], str] = server_address,
) -> None:
    """`--server` and `--token`, alike in every command."""

    def address(text: str) -> str:
        try:
            return parse(text)
        except ClientError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    parser.add_argument("--server", type=address, default=default, metavar="URL", help=help)
    parser.add_argument(
        "--token",
        metavar="T",
        help=f"the server's bearer token, if it asks for one (default: {TOKEN_VARIABLE})",
    )


def _split(text: str) -> SplitResult:
    """http or https, a host that can be one, a port; raises `ClientError`."""
    given = text.strip()
    if _is_ipv6(given):
        given = f"[{given}]"
    try:
        parts = urlsplit(given if "://" in given else f"//{given.removeprefix('//')}")
        host = parts.hostname or ""
    except ValueError:
        raise _refusal(text, "its brackets are no address of IPv6") from None
    try:
        port = parts.port
    except ValueError:
        port = 0
    scheme = parts.scheme.lower()
    if scheme and scheme not in SCHEMES:
        raise _refusal(text, f"'{parts.scheme}' is neither http nor https")
    if not host:
        raise _refusal(text, "it names no host")
    if host in SCHEMES and (not scheme or parts.path.startswith("//")):
        raise _refusal(text, "it has to begin with one http:// or https://, or with the host")
    if port == 0:
        raise _refusal(text, "its port is no number from 1 to 65535")
    if ":" in host:
        host = f"[{host}]"
    else:
        try:
            usable = NAME.fullmatch(host) is not None and bool(host.encode("idna"))
        except UnicodeError:
            usable = False
        if not usable:
            raise _refusal(text, f"'{host}' is no name of a host")
    if port is None and not scheme:
        port = DEFAULT_PORT
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    place = f"{user}{host}" if port is None else f"{user}{host}:{port}"
    return parts._replace(scheme=SCHEMES[scheme or "http"], netloc=place)


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _refusal(text: str, why: str) -> ClientError:
    return ClientError(
        f"'{text}' is no server's address: {why}. Write it like localhost:{DEFAULT_PORT} or https://talk.example.org."
    )
