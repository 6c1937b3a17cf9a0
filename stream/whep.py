"""WHEP (draft-ietf-wish-whep): anybody who knows a stream's name watches it. docs/broadcast.md."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response

from stream.errors import NotFoundError
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

MATTE_RELATION = "urn:talkalong:matte"


@router.post("/whep/{stream}", status_code=201)
async def watch(stream: str, request: Request, authorization: Authorization = None) -> Response:
    """A viewer's offer in, the answer out; 409 and Retry-After while nobody publishes as this stream."""
    server = server_of(request)
    server.guard.check_viewer_token(authorization)
    offer = await read_offer(request)
    viewer, answer = await server.audience.admit(stream, offer, address=address_of(request))
    matte = viewer.broadcast.entry.portrait.opacity is not None
    headers = {
        "Location": f"/whep/{stream}/{viewer.id}",
        "ETag": viewer.entity_tag,
        **links(
            server.ice.link_header().get("Link"),
            f'</watch/{stream}/matte.png>; rel="{MATTE_RELATION}"' if matte else None,
        ),
    }
    return Response(answer, status_code=201, media_type=SDP_TYPE, headers=headers)


@router.options("/whep/{stream}")
async def watch_options(stream: str, request: Request, authorization: Authorization = None) -> Response:
    """What the endpoint takes; with a valid token also the ICE servers."""
    server = server_of(request)
    ice = server.ice.link_header() if server.guard.has_viewer_token(authorization) else {}
    return Response(status_code=200, headers={**endpoint_options(), **ice})


@router.get("/whep/{stream}", include_in_schema=False)
@router.head("/whep/{stream}", include_in_schema=False)
async def watch_get(stream: str) -> Response:
    return nothing_to_get()


@router.api_route("/whep/{stream}", methods=["PUT", "PATCH", "DELETE"], include_in_schema=False)
async def watch_other(stream: str, request: Request) -> None:
    refuse_method(request, ENDPOINT_METHODS)


@router.patch("/whep/{stream}/{viewer_id}", status_code=204)
async def watch_trickle(
    stream: str, viewer_id: str, request: Request, authorization: Authorization = None
) -> Response:
    """More ICE candidates of the viewer."""
    server = server_of(request)
    server.guard.check_viewer_token(authorization)
    viewer = server.audience.get(stream, viewer_id)
    if viewer is None:
        raise NotFoundError("There is no such viewer; it may have ended.", code="session_not_found")
    fragment = await read_fragment(request, entity_tag=viewer.entity_tag)
    await viewer.add_candidates(fragment)
    return Response(status_code=204)


@router.delete("/whep/{stream}/{viewer_id}", status_code=200)
async def watch_end(
    stream: str, viewer_id: str, request: Request, authorization: Authorization = None
) -> Response:
    """Stop watching; also fine for one who has stopped already."""
    server = server_of(request)
    server.guard.check_viewer_token(authorization)
    viewer = server.audience.get(stream, viewer_id)
    if viewer is not None:
        await viewer.aclose()
    return Response(status_code=200)


@router.options("/whep/{stream}/{viewer_id}", include_in_schema=False)
async def viewer_options(stream: str, viewer_id: str) -> Response:
    return Response(status_code=200, headers=resource_options())


@router.get("/whep/{stream}/{viewer_id}", include_in_schema=False)
@router.head("/whep/{stream}/{viewer_id}", include_in_schema=False)
async def viewer_get(stream: str, viewer_id: str) -> Response:
    return nothing_to_get()


@router.api_route("/whep/{stream}/{viewer_id}", methods=["PUT", "POST"], include_in_schema=False)
async def viewer_other(stream: str, viewer_id: str, request: Request) -> None:
    refuse_method(request, RESOURCE_METHODS)
