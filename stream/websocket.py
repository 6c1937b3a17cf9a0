"""The WebSocket of sessions without WebRTC: who may open one, and how a client is told why it ended."""

from __future__ import annotations

import asyncio
import json
import logging

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from stream.errors import StreamError, UnauthorizedError, UnavailableError
from stream.portraits.entry import Entry
from stream.protocol import ProtocolError, SessionConfig, parse_session_config
from stream.server import Server
from stream.socket_session import NOT_READING, SocketSession

logger = logging.getLogger(__name__)
router = APIRouter()

CONFIG_TIMEOUT_S = 10.0
TELL_S, LINGER_S = 5.0, 60.0
"""How long a client may take to read why its session ends; the second where it is known not to read."""
POLICY, BAD_MESSAGE, TRY_LATER = 1008, 1003, 1013


@router.websocket("/v1/sessions/ws")
async def websocket_session(socket: WebSocket) -> None:
    server: Server = socket.app.state.server
    await socket.accept()
    task = asyncio.current_task()
    assert task is not None
    server.sockets.add(task)
    try:
        await _serve(socket, server)
    except WebSocketDisconnect:
        logger.debug("a WebSocket client left")
    except ProtocolError as error:
        await _refuse(socket, "bad_message", str(error), BAD_MESSAGE)
    except StreamError as error:
        code = TRY_LATER if isinstance(error, UnavailableError) else POLICY
        await _refuse(socket, error.code, error.message, code)
    except asyncio.CancelledError:
        await _refuse(socket, "stopping", "The server is shutting down.", TRY_LATER)
    finally:
        server.sockets.discard(task)


async def _refuse(socket: WebSocket, code: str, message: str, close_code: int) -> None:
    """Say why, as far as the client reads it, and close."""
    try:
        async with asyncio.timeout(LINGER_S if code == NOT_READING else TELL_S):
            await socket.send_text(json.dumps({"type": "error", "code": code, "message": message}))
            await socket.close(close_code)
    except (RuntimeError, WebSocketDisconnect, TimeoutError, asyncio.CancelledError):
        logger.debug("the client was gone before it could be told: %s", message)


async def _serve(socket: WebSocket, server: Server) -> None:
    try:
        options, entry, address = await _admit(socket, server)
    except (ProtocolError, StreamError) as error:
        server.metrics.refused.labels(code=getattr(error, "code", "bad_message")).inc()
        raise
    try:
        session = SocketSession(socket, server, options, entry)
        server.sessions[session.id] = session
        server.metrics.sessions.inc()
        server.metrics.opened.labels(transport="websocket").inc()
        try:
            await session.run()
        finally:
            del server.sessions[session.id]
            server.metrics.sessions.dec()
    finally:
        server.guard.leave(address)


async def _admit(socket: WebSocket, server: Server) -> tuple[SessionConfig, Entry, str]:
    """What the client wants, and its address, which counts as entered."""
    try:
        async with asyncio.timeout(CONFIG_TIMEOUT_S):
            text = await socket.receive_text()
    except (TimeoutError, KeyError) as error:  # KeyError: a binary message
        raise ProtocolError("The first message must be the session configuration as JSON text.") from error
    options = parse_session_config(text)
    server.guard.check_token(socket.headers.get("authorization"), token=options.token)
    _check_origin(socket, server)
    server.check_ready()
    address = socket.client.host if socket.client is not None else "unknown"
    entry = server.gallery.get(options.portrait)
    server.guard.enter(address, carried=server.carried)
    return options, entry, address


def _check_origin(socket: WebSocket, server: Server) -> None:
    """Browsers do not apply CORS to WebSockets: a page of another origin must be on the list."""
    origin = socket.headers.get("origin")
    host = socket.headers.get("host", "")
    if origin and origin.partition("://")[2] != host and origin not in server.config.network.cors_origins:
        raise UnauthorizedError(f"Pages from {origin} may not use this server; its operator can allow them.")
