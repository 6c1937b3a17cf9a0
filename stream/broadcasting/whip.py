"""WHIP (RFC 9725): OBS and other sources speak, the portrait talks for those who watch. docs/broadcast.md."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response

from stream.broadcasting.broadcast import check_name
from stream.broadcasting.publisher import Publisher
from stream.errors import NotFoundError
from stream.routes import options_from_query
from stream.sdp_request import (
    ENDPOINT_METHODS,
    RESOURCE_METHODS,
    SDP_TYPE,
    address_of,
    endpoint_options,
    links,
    nothing_to_get,
    read_fragment,
    read_offer,
    refuse_method,
    resource_options,
    server_of,
)

router = APIRouter(tags=["broadcast"])

Authorization = Annotated[str | None, Header()]


@router.post("/whip", status_code=201)
async def publish(request: Request, authorization: Authorization = None) -> Response:
    """A source's offer in, the answer out. Query: `stream`, a name of one's own for those who watch, and the options of
    a session (portrait, seed, hop_frames, right_frames, expressiveness, head_motion, gaze)."""
    server = server_of(request)
    server.guard.check_token(authorization)
    server.check_ready()
    query = dict(request.query_params)
    stream = query.pop("stream", None)
    if stream is not None:
        check_name(stream)
    options = options_from_query(query)
    offer = await read_offer(request)
    session, answer = await server.open_session(
        offer, options, address=address_of(request), kind=Publisher, stream=stream, transport="whip"
    )
    assert isinstance(session, Publisher)
    headers = {
        "Location": f"/whip/{session.id}",
        "ETag": session.entity_tag,
        **links(server.ice.link_header().get("Link"), server.watch_links(session)),
    }
    return Response(answer, status_code=201, media_type=SDP_TYPE, headers=headers)


@router.options("/whip")
async def publish_options(request: Request, authorization: Authorization = None) -> Response:
    """What the endpoint takes; with a valid token also the ICE servers, for clients that need them before their offer
    (RFC 9725, 4.6). CORS preflights are answered before they come here."""
    server = server_of(request)
    ice = server.ice.link_header() if server.guard.has_token(authorization) else {}
    return Response(status_code=200, headers={**endpoint_options(), **ice})


@router.get("/whip", include_in_schema=False)
@router.head("/whip", include_in_schema=False)
async def publish_get() -> Response:
    return nothing_to_get()


@router.api_route("/whip", methods=["PUT", "PATCH", "DELETE"], include_in_schema=False)
async def publish_other(request: Request) -> None:
    refuse_method(request, ENDPOINT_METHODS)


@router.patch("/whip/{session_id}", status_code=204)
async def publish_trickle(session_id: str, request: Request, authorization: Authorization = None) -> Response:
    """More ICE candidates of the source."""
    server = server_of(request)
    server.guard.check_token(authorization)
    session = server.sessions.get(session_id)
    if not isinstance(session, Publisher):
        raise NotFoundError("There is no such WHIP session; it may have ended.", code="session_not_found")
    fragment = await read_fragment(request, entity_tag=session.entity_tag)
    await session.add_candidates(fragment)
    return Response(status_code=204)


@router.delete("/whip/{session_id}", status_code=200)
async def publish_end(session_id: str, request: Request, authorization: Authorization = None) -> Response:
    """End a session and its broadcast; also fine for one that has ended already."""
    server = server_of(request)
    server.guard.check_token(authorization)
    session = server.sessions.get(session_id)
    if isinstance(session, Publisher):
        await session.aclose()
    return Response(status_code=200)


@router.options("/whip/{session_id}", include_in_schema=False)
async def publisher_options(session_id: str) -> Response:
    return Response(status_code=200, headers=resource_options())


@router.get("/whip/{session_id}", include_in_schema=False)
@router.head("/whip/{session_id}", include_in_schema=False)
async def publisher_get(session_id: str) -> Response:
    return nothing_to_get()


@router.api_route("/whip/{session_id}", methods=["PUT", "POST"], include_in_schema=False)
async def publisher_other(session_id: str, request: Request) -> None:
    refuse_method(request, RESOURCE_METHODS)
