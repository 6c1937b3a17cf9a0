"""The HTTP API, thin: parse, call the server, answer."""

from __future__ import annotations

import dataclasses
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.datastructures import FormData
from starlette.datastructures import UploadFile as FormFile

from stream.errors import BadRequestError, TooLargeError, UnsupportedMediaError
from stream.protocol import (
    FPS,
    SAMPLE_RATE,
    ControlValues,
    ProtocolError,
    SessionConfig,
    parse_session_config,
)
from stream.sdp_request import SDP_TYPE, links, read_text
from stream.sdp_request import address_of as _address
from stream.sdp_request import content_type as _content_type
from stream.sdp_request import server_of as _server
from stream.trickle import FRAGMENT_TYPE as TRICKLE_TYPE

router = APIRouter()

Authorization = Annotated[str | None, Header()]

MULTIPART_TYPE = "multipart/form-data"
FORM_OVERHEAD_BYTES = 65_536


def check_length(request: Request, limit: int, what: str, *, code: str = "too_large") -> None:
    """Refuses a form that is longer than `limit` bytes and some, before it is read."""
    length = request.headers.get("content-length")
    if length is None or not length.isdigit():
        raise BadRequestError(f"{what} needs a Content-Length header.", code="length_required")
    if int(length) > limit + FORM_OVERHEAD_BYTES:
        raise TooLargeError(f"{what} may have {limit / 1e6:.1f} MB at most.", code=code)


# --- sessions ---


@router.post("/v1/sessions", status_code=201)
async def open_session(request: Request, authorization: Authorization = None) -> Response:
    """An SDP offer in, an SDP answer out; see the README for the fields of the configuration."""
    server = _server(request)
    server.guard.check_token(authorization)
    server.check_ready()
    limit = server.config.limits.sdp_bytes
    kind = _content_type(request)
    if kind == SDP_TYPE:
        offer, options = await read_text(request, limit), options_from_query(dict(request.query_params))
    elif kind == MULTIPART_TYPE:
        check_length(request, limit, "The form")
        async with request.form(max_files=2, max_fields=4, max_part_size=limit) as form:
            offer, text = await _field(form, "sdp"), await _field(form, "config", default="{}")
        options = _options(text)
    else:
        raise UnsupportedMediaError(
            f"The content type is '{kind or 'missing'}'; send the offer as {SDP_TYPE}, or "
            f"{MULTIPART_TYPE} with the fields sdp and config."
        )
    session, answer = await server.open_session(offer, options, address=_address(request))
    headers = {
        "Location": f"/v1/sessions/{session.id}",
        **links(server.ice.link_header().get("Link"), server.watch_links(session)),
    }
    return Response(answer, status_code=201, media_type=SDP_TYPE, headers=headers)


@router.options("/v1/sessions", status_code=204)
async def session_options(request: Request, authorization: Authorization = None) -> Response:
    """The ICE servers before the offer, for clients that cannot take them from its answer (RFC 9725, 4.6)."""
    server = _server(request)
    server.guard.check_token(authorization)
    return Response(
        status_code=204, headers={"Accept-Post": f"{SDP_TYPE}, {MULTIPART_TYPE}", **server.ice.link_header()}
    )


async def _field(form: FormData, name: str, *, default: str | None = None) -> str:
    value = form.get(name)
    if isinstance(value, FormFile):
        return (await value.read()).decode(errors="replace")
    if isinstance(value, str):
        return value
    if default is None:
        raise BadRequestError(f"The form has no field '{name}'.", code="missing_field")
    return default


def _options(text: str) -> SessionConfig:
    try:
        return parse_session_config(text)
    except ProtocolError as error:
        raise BadRequestError(str(error), code="bad_config") from error


def options_from_query(query: dict[str, str]) -> SessionConfig:
    """The configuration of a plain application/sdp request: query parameters."""
    values: dict[str, Any] = {}
    controls: dict[str, float] = {}
    try:
        for key, text in query.items():
            if key == "portrait":
                values[key] = text
            elif key in ("hop_frames", "right_frames", "seed"):
                values[key] = _number(key, text, int)
            elif key in ("expressiveness", "head_motion", "gaze"):
                controls[key] = _number(key, text, float)
            else:
                raise ProtocolError(
                    f"'{key}' is not an option; known are portrait, hop_frames, right_frames, seed, "
                    "expressiveness, head_motion and gaze."
                )
        return SessionConfig(**values, controls=ControlValues(**controls))
    except ProtocolError as error:
        raise BadRequestError(str(error), code="bad_config") from error


def _number(key: str, text: str, kind: type[int] | type[float]) -> float:
    try:
        return kind(text)
    except ValueError as error:
        raise ProtocolError(f"The option {key} is '{text}', which is not a number.") from error


@router.patch("/v1/sessions/{session_id}", status_code=204)
async def trickle(session_id: str, request: Request, authorization: Authorization = None) -> Response:
    """More ICE candidates of the client."""
    server = _server(request)
    server.guard.check_token(authorization)
    session = server.webrtc_session(session_id, "A WebSocket session needs no ICE candidates.")
    if _content_type(request) != TRICKLE_TYPE:
        raise UnsupportedMediaError(f"Send candidates as {TRICKLE_TYPE}.")
    await session.add_candidates(await read_text(request, server.config.limits.sdp_bytes))
    return Response(status_code=204)


@router.delete("/v1/sessions/{session_id}", status_code=204)
async def close_session(session_id: str, request: Request, authorization: Authorization = None) -> Response:
    """End a session; also fine for one that has ended already."""
    server = _server(request)
    server.guard.check_token(authorization)
    session = server.sessions.get(session_id)
    if session is not None:
        await session.aclose()
    return Response(status_code=204)


@router.get("/v1/sessions/{session_id}/stats")
async def session_stats(session_id: str, request: Request) -> dict[str, Any]:
    return dataclasses.asdict(_server(request).session(session_id).stats())


@router.get("/v1/sessions/{session_id}/chunks")
async def session_chunks(session_id: str, request: Request, after: int = -1) -> dict[str, Any]:
    """The way of each chunk since chunk `after` (the last 48 s or so are kept): see `stream.protocol.ChunkTrace`. None
    for WebSocket sessions."""
    traces = _server(request).session(session_id).chunks(after)
    return {"chunks": [dataclasses.asdict(trace) for trace in traces]}


# --- the server itself ---


def _version() -> str:
    try:
        return version("talkalong")
    except PackageNotFoundError:
        return "0+source"


@router.get("/v1/server")
async def about(request: Request, authorization: Authorization = None) -> dict[str, Any]:
    """What a client needs to know before it opens a session; with a valid token also how it gets relayed."""
    server = _server(request)
    trusted = server.guard.has_token(authorization)
    config = server.config
    hop_frames, right_frames = server.chunking()
    return {
        "version": _version(),
        "model": config.model.name,
        "status": server.status,
        "message": server.message,
        "fps": FPS,
        "sample_rate": SAMPLE_RATE,
        "token_required": server.guard.token_required,
        **server.ice.describe(trusted=trusted),
        "default_portrait": server.gallery.default if server.status == "ready" else None,
        "defaults": {"hop_frames": hop_frames, "right_frames": right_frames},
        "budget": server.budget().to_dict(),
        "recording": config.recording.allowed,
        "limits": {
            "sessions": min(config.limits.sessions, server.carried),
            "portrait_bytes": config.limits.portrait_bytes,
            "portrait_pixels": config.limits.portrait_pixels,
            "portrait_whole_pixels": config.limits.portrait_whole_pixels,
            "uploaded_portraits": config.limits.uploaded_portraits,
        },
        "uploads": server.uploads(),
    }


@router.get("/healthz")
async def health(request: Request) -> Response:
    """200 only after warm-up and while the model is live."""
    server = _server(request)
    body = {
        "status": server.status,
        "message": server.message,
        "sessions": len(server.sessions),
        "slow_sessions": server.slow_sessions,
    }
    ready = server.status == "ready"
    return JSONResponse(
        body, status_code=200 if ready else 503, headers={} if ready else {"Retry-After": "5"}
    )


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Prometheus text format."""
    return Response(generate_latest(_server(request).metrics.registry), media_type=CONTENT_TYPE_LATEST)
