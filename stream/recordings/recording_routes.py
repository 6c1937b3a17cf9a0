"""Recordings over HTTP: start and stop a session's, list, download and delete what is there."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from stream.errors import ForbiddenError
from stream.server import Server
from stream.socket_session import NOT_RECORDED

router = APIRouter()

Authorization = Annotated[str | None, Header()]


def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


def _check_reader(request: Request, authorization: str | None) -> Server:
    """Recordings show people: without a token on the server, only its own machine may see all of them."""
    server = _server(request)
    server.guard.check_token(authorization)
    if not server.guard.token_required and request.client is not None:
        try:
            local = ipaddress.ip_address(request.client.host).is_loopback
        except ValueError:
            local = True  # a socket file
        if not local:
            raise ForbiddenError(
                "This server has no token, so its recordings can be listed and deleted on its own machine only; its "
                "operator can set TALKALONG_TOKEN.",
                code="token_needed",
            )
    return server


@router.post("/v1/sessions/{session_id}/recording", status_code=201)
async def start_recording(
    session_id: str,
    request: Request,
    title: Annotated[str, Body(embed=True)] = "",
    authorization: Authorization = None,
) -> Response:
    """Begin to record this session; one that is being recorded goes on."""
    server = _server(request)
    server.guard.check_token(authorization)
    entry = await server.webrtc_session(session_id, NOT_RECORDED).recorder.start(title)
    location = f"/v1/recordings/{entry.id}"
    return JSONResponse(entry.to_dict(), status_code=201, headers={"Location": location})


@router.delete("/v1/sessions/{session_id}/recording")
async def stop_recording(
    session_id: str, request: Request, authorization: Authorization = None
) -> dict[str, Any]:
    """End it; answers when the files are closed. Also fine where none runs."""
    server = _server(request)
    server.guard.check_token(authorization)
    session = server.webrtc_session(session_id, NOT_RECORDED)
    server.recordings.check_allowed()
    entries = await session.recorder.stop()
    return {"recordings": [entry.to_dict() for entry in entries]}


@router.get("/v1/recordings")
async def recordings(request: Request, authorization: Authorization = None) -> dict[str, Any]:
    """Newest first; state: recording, complete, or partial (the program died while it was written)."""
    server = _check_reader(request, authorization)
    entries = await asyncio.to_thread(server.recordings.entries)
    return {"recordings": [entry.to_dict() for entry in entries]}


@router.get("/v1/recordings/{recording_id}")
async def download_recording(
    recording_id: str, request: Request, authorization: Authorization = None
) -> Response:
    """The MP4, as far as it has been written; ranges are answered. Without a token its id is the right to it."""
    server = _server(request)
    server.guard.check_token(authorization)
    entry = await asyncio.to_thread(server.recordings.get, recording_id)
    return FileResponse(
        entry.path,
        media_type="video/mp4",
        filename=f"{entry.id}.mp4",
        headers={"Cache-Control": "private, no-store"},
    )


@router.delete("/v1/recordings/{recording_id}", status_code=204)
async def delete_recording(
    recording_id: str, request: Request, authorization: Authorization = None
) -> Response:
    server = _check_reader(request, authorization)
    await asyncio.to_thread(server.recordings.delete, recording_id)
    return Response(status_code=204)
