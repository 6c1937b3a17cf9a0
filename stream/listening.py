"""The sockets that the server listens on: opened before anything else starts, so that what is wrong is said at once."""

from __future__ import annotations

import errno
import os
import socket

from stream.errors import ListenError

BACKLOG = 2048  # as uvicorn's own


def listen(host: str, port: int) -> list[socket.socket]:
    """Listening TCP sockets, one for each address of `host` ("" for every address), all on the same port.

    port: 0 takes any free one. Raises `ListenError` with a sentence.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else "this is no name"
        raise ListenError(
            f"There is no host '{host}' ({reason}). Give --host an address of this machine, without a port: 127.0.0.1 "
            "for this machine alone, 0.0.0.0 for all."
        ) from None
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    for family, _, _, _, place in dict.fromkeys(found):
        try:
            sockets.append(_listen(family, (place[0], port, *place[2:])))
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                absent = error  # localhost has an address of IPv6 on machines without IPv6, too
                continue
            for opened in sockets:
                opened.close()
            raise ListenError(_sentence(host, port, error)) from error
        port = sockets[0].getsockname()[1]
    if not sockets:
        raise ListenError(_sentence(host, port, absent or OSError("it has no address")))
    return sockets


def _listen(family: int, place: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(place)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _sentence(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} is in use already, perhaps by another Talkalong server. Take another one with --port (0: any "
            "free one), or end the program that has it; `ss -ltnp` names it."
        )
    if isinstance(error, PermissionError):
        return (
            f"Port {port} is for privileged programs only. Take one from 1024 on (--port 8080), with a reverse proxy "
            "before it where it has to be this one: docs/reachability.md."
        )
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return (
            f"'{host}' is no address of this machine. Give --host one that it has, 127.0.0.1 for this machine alone, "
            "or 0.0.0.0 for all."
        )
    return f"The server cannot listen on port {port} of '{host}': {error.strerror or error}."
