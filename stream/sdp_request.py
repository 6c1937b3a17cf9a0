"""What requests that carry SDP have in common: their body, its type, and where they come from (RFC 9725, 4)."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import Response

from stream.errors import (
    BadRequestError,
    MethodNotAllowedError,
    NotAcceptableError,
    PreconditionFailedError,
    TooLargeError,
    UnsupportedMediaError,
)
from stream.server import Server
from stream.trickle import FRAGMENT_TYPE

SDP_TYPE = "application/sdp"
ENDPOINT_METHODS = "OPTIONS, GET, HEAD, POST"
RESOURCE_METHODS = "OPTIONS, GET, HEAD, PATCH, DELETE"


def server_of(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


def content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def address_of(request: Request) -> str:
    return request.client.host if request.client is not None else "unknown"


async def read_text(request: Request, limit: int) -> str:
    """The body as text, refused as soon as it is longer than `limit` bytes."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > limit:
            raise TooLargeError(
                f"The body is longer than the {limit} bytes that are accepted.", code="sdp_too_large"
            )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadRequestError("The body is not text in UTF-8.") from error


async def read_offer(request: Request) -> str:
    """The offer of a WHIP or WHEP request."""
    accepted = request.headers.get("accept", "*/*").lower()
    if not any(kind in accepted for kind in (SDP_TYPE, "application/*", "*/*")):
        raise NotAcceptableError(f"The answer is {SDP_TYPE}, which the Accept header does not take.")
    if content_type(request) != SDP_TYPE:
        raise UnsupportedMediaError(
            f"The content type is '{content_type(request) or 'missing'}'; send the offer as {SDP_TYPE}."
        )
    return await read_text(request, server_of(request).config.limits.sdp_bytes)


async def read_fragment(request: Request, *, entity_tag: str) -> str:
    """The candidates of a PATCH.

    A tag that does not match is refused. A missing one is not, unlike RFC 9725, 4.3.1 has it: tags tell one ICE session
    from the next, there is only one without restarts, and the RFC's author's own WHEP client sends none.
    """
    if content_type(request) != FRAGMENT_TYPE:
        raise UnsupportedMediaError(f"Send candidates as {FRAGMENT_TYPE}.")
    wanted = request.headers.get("if-match")
    if wanted is not None and not {"*", entity_tag} & {tag.strip() for tag in wanted.split(",")}:
        raise PreconditionFailedError(
            f"The If-Match header has {wanted}, but this session's entity tag is {entity_tag}."
        )
    return await read_text(request, server_of(request).config.limits.sdp_bytes)


def endpoint_options() -> dict[str, str]:
    """Headers of an answer to OPTIONS at a WHIP or WHEP endpoint."""
    return {"Allow": ENDPOINT_METHODS, "Accept-Post": SDP_TYPE}


def resource_options() -> dict[str, str]:
    """The same of one session's own address."""
    return {"Allow": RESOURCE_METHODS, "Accept-Post": SDP_TYPE, "Accept-Patch": FRAGMENT_TYPE}


def nothing_to_get() -> Response:
    """Endpoints and sessions have no representation: a GET succeeds and is empty (RFC 9725, 4.1)."""
    return Response(status_code=204)


def refuse_method(request: Request, allowed: str) -> None:
    raise MethodNotAllowedError(
        f"{request.method} means nothing at this address; it takes {allowed}.", headers={"Allow": allowed}
    )


def links(*parts: str | None) -> dict[str, str]:
    """`{"Link": ...}` of the values that there are, or {}."""
    present = [part for part in parts if part]
    return {"Link": ", ".join(present)} if present else {}
