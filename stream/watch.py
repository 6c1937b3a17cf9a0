"""The bare page that shows one stream, for an OBS browser source: docs/broadcast.md."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response

from stream.broadcast import check_name
from stream.errors import NotFoundError
from stream.matte import matte_png
from stream.sdp_request import server_of
from stream.server import WEB_DIRECTORY

router = APIRouter(tags=["broadcast"])

# The page holds nothing of its stream and must never be an old one in a producer's browser source.
PAGE_HEADERS = {"Cache-Control": "no-cache", "Referrer-Policy": "no-referrer"}


@router.get("/watch/{stream}", include_in_schema=False)
async def page(stream: str) -> Response:
    check_name(stream)
    return FileResponse(WEB_DIRECTORY / "watch.html", headers=PAGE_HEADERS)


@router.get("/watch/{stream}/matte.png")
async def stream_matte(stream: str, request: Request) -> Response:
    """Where the portrait of this stream is transparent (see `stream.matte`); 404 where it is not."""
    portrait = server_of(request).broadcasts.get(stream).entry.portrait
    if portrait.opacity is None:
        raise NotFoundError("The portrait of this stream has no transparent background.", code="no_matte")
    data = await asyncio.to_thread(matte_png, portrait)
    return Response(data, media_type="image/png", headers={"Cache-Control": "no-store"})
