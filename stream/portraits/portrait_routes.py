"""The portraits' HTTP API: look at a picture, agree, list, show, rename, order, delete.

Uploads are private: where the server asks for a token, they are neither listed nor shown without it.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import PurePath
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import UploadFile as FormFile

from stream.errors import BadRequestError, ForbiddenError, NotFoundError
from stream.portraits.consent import Means, agree, in_own_words
from stream.portraits.drafts import Draft
from stream.portraits.entry import Entry
from stream.portraits.gallery import consent_statement
from stream.portraits.preview import VIEWS
from stream.routes import check_length
from stream.sdp_request import read_text
from stream.server import Server

router = APIRouter()

Authorization = Annotated[str | None, Header()]

MAX_FIELD_BYTES = 8_192
MAX_JSON_BYTES = 8_192
YES = ("1", "true", "yes", "on")
NO_STORE = {"Cache-Control": "private, no-store"}
CACHE = {"Cache-Control": "private, max-age=3600"}

_TEXT = {"type": "string"}
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["picture"],
                    "properties": {
                        "picture": {"type": "string", "format": "binary", "description": "JPEG, PNG or WebP"},
                        "name": _TEXT,
                        "draft": {"type": "boolean", "description": "only look: consent is given later"},
                        "preparation": _TEXT | {"description": "an id from POST /v1/preparations"},
                        "consent": _TEXT | {"description": "who is seen and agreed, in own words"},
                        "statement": _TEXT | {"description": "or the version of the server's statement"},
                        "by": _TEXT | {"description": "name of the person who agrees"},
                    },
                }
            }
        },
    }
}


def _json(**properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


def _check_change(request: Request, authorization: str | None) -> Server:
    """Who may change portraits: whoever knows the token, and no page of a foreign site in somebody's browser."""
    server = _server(request)
    server.guard.check_token(authorization)
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    own = request.headers.get("sec-fetch-site") == "same-origin" or (origin or "").partition("://")[2] == host
    if origin and not own and origin not in server.config.network.cors_origins:
        raise ForbiddenError(
            f"Pages from {origin} may not change portraits here; the server's operator can allow them (cors_origins)."
        )
    return server


def _may_see_uploads(request: Request, authorization: str | None) -> bool:
    guard = _server(request).guard
    if not guard.token_required or authorization is None:
        return not guard.token_required
    guard.check_token(authorization)
    return True


@router.get("/v1/portraits")
async def portraits(request: Request, authorization: Authorization = None) -> dict[str, Any]:
    """All that can be used. unusable: kept ones whose picture is gone, with the reason."""
    gallery = _server(request).gallery
    mine = _may_see_uploads(request, authorization)
    return {
        "portraits": [entry.to_dict() for entry in gallery.list() if mine or entry.kept is None],
        "unusable": [item.to_dict() for item in gallery.unusable()] if mine else [],
        "default": gallery.default,
        "consent_statement": consent_statement(),
    }


@router.post("/v1/portraits", status_code=201, openapi_extra=_FORM)
async def upload_portrait(request: Request, authorization: Authorization = None) -> Response:
    """A picture with one face. With the statement of who agreed to its use it is a portrait at once; as a draft it
    is only looked at, until somebody agrees. The answer says what was found and where the previews are. What kind of
    picture it is, its first bytes tell; its name and the type that the form says do not count."""
    server = _check_change(request, authorization)
    gallery = server.gallery
    limit = server.config.limits.portrait_bytes
    check_length(request, limit, "The picture", code="picture_too_large")
    async with request.form(max_files=1, max_fields=8, max_part_size=MAX_FIELD_BYTES) as form:
        fields = {key: value for key, value in form.items() if isinstance(value, str)}
        picture = form.get("picture")
        if not isinstance(picture, FormFile):
            raise BadRequestError("The form has no file 'picture'; send it as multipart/form-data.")
        data = await picture.read(limit + 1)
        name = fields.get("name") or PurePath(picture.filename or "").stem
        preparation = fields.get("preparation", "")
    if fields.get("draft", "").lower() in YES:
        draft = await gallery.draft(data, name=name, preparation=preparation)
        return JSONResponse(_draft(draft), 201, {"Location": f"/v1/portraits/{draft.id}"})
    means, by = _means(fields), fields.get("by", "")
    if "statement" in fields:
        consent = agree(by, fields["statement"], means)
    else:
        consent = in_own_words(fields.get("consent", ""), given_by=by, means=means)
    draft = await gallery.draft(data, name=name, preparation=preparation)
    entry = await gallery.agree(draft.id, consent)
    body = entry.to_dict() | _previews(draft)
    return JSONResponse(body, 201, {"Location": f"/v1/portraits/{entry.id}"})


@router.post("/v1/preparations", status_code=201)
async def begin_preparation(request: Request, authorization: Authorization = None) -> Response:
    """Somebody is choosing a picture: what prepares it starts meanwhile. The id may go with the upload, whose progress
    is then told under it."""
    preparation_id = _check_change(request, authorization).gallery.expect()
    location = f"/v1/preparations/{preparation_id}"
    return JSONResponse({"id": preparation_id, "share": 0.0}, 201, {"Location": location})


@router.get("/v1/preparations/{preparation_id}")
async def preparation_progress(
    preparation_id: str, request: Request, authorization: Authorization = None
) -> dict[str, Any]:
    """share: of the picture's preparation that is done, 0 to 1."""
    server = _server(request)
    server.guard.check_token(authorization)
    return {"id": preparation_id, "share": server.gallery.progress(preparation_id)}


@router.post(
    "/v1/portraits/{portrait_id}/consent",
    status_code=201,
    openapi_extra=_json(by=_TEXT, statement=_TEXT, consent=_TEXT, name=_TEXT),
)
async def give_consent(portrait_id: str, request: Request, authorization: Authorization = None) -> Response:
    """Makes a draft a portrait: JSON with `by` and `statement` (a version), or `consent` (own words); `name`."""
    server = _check_change(request, authorization)
    values = await _read_json(request, ("by", "statement", "consent", "name", "means"))
    if not isinstance(values.get("name", ""), str):
        raise BadRequestError("The field 'name' must be text.")
    texts = {key: value for key, value in values.items() if isinstance(value, str)}
    means, by = _means(texts), texts.get("by", "")
    if "statement" in texts:
        consent = agree(by, texts["statement"], means)
    else:
        consent = in_own_words(texts.get("consent", ""), given_by=by, means=means)
    entry = await server.gallery.agree(portrait_id, consent, name=texts.get("name"))
    return JSONResponse(entry.to_dict(), 201, {"Location": f"/v1/portraits/{entry.id}"})


@router.get("/v1/portraits/{portrait_id}")
async def one_portrait(
    portrait_id: str, request: Request, authorization: Authorization = None
) -> dict[str, Any]:
    """What is known about a portrait; of uploads with the consent that was given."""
    return _visible(request, portrait_id, authorization).to_dict()


@router.get("/v1/portraits/{portrait_id}/{view}")
async def portrait_picture(
    portrait_id: str, view: str, request: Request, authorization: Authorization = None
) -> Response:
    """view: `thumbnail` (the face, 256 px) or `picture` (all of it); of a recent upload also its previews: `crop`,
    `mask`, `rest`, `speaking` and `moving`."""
    gallery = _server(request).gallery
    if view in VIEWS:
        _server(request).guard.check_token(authorization)
        images = gallery.find_draft(portrait_id).prepared.images
        return Response(images[view], media_type="image/webp", headers=NO_STORE)
    if view not in ("thumbnail", "picture"):
        raise NotFoundError("A portrait has a thumbnail and a picture, nothing else.")
    stored = gallery.thumbnail_of_unusable(portrait_id)
    if stored is not None and view == "thumbnail":
        _server(request).guard.check_token(authorization)
        return Response(stored, media_type="image/jpeg", headers=NO_STORE)
    entry = _visible(request, portrait_id, authorization)
    data = await asyncio.to_thread(entry.jpeg, thumbnail=view == "thumbnail")
    return Response(data, media_type="image/jpeg", headers=CACHE if entry.kept is None else NO_STORE)


@router.patch("/v1/portraits/{portrait_id}", openapi_extra=_json(name=_TEXT, position={"type": "integer"}))
async def change_portrait(
    portrait_id: str, request: Request, authorization: Authorization = None
) -> dict[str, Any]:
    """JSON with a new `name`, or a new `position` among the uploads (0 is the first), or both."""
    server = _check_change(request, authorization)
    values = await _read_json(request, ("name", "position"))
    name, position = values.get("name"), values.get("position")
    if name is not None and not isinstance(name, str):
        raise BadRequestError("The field 'name' must be text.")
    if position is not None and type(position) is not int:
        raise BadRequestError("The field 'position' must be a whole number.")
    if name is not None:
        await server.gallery.rename(portrait_id, name)
    if position is not None:
        await server.gallery.move(portrait_id, position)
    return server.gallery.get(portrait_id).to_dict()


@router.delete("/v1/portraits/{portrait_id}", status_code=204)
async def delete_portrait(
    portrait_id: str, request: Request, authorization: Authorization = None
) -> Response:
    """An upload, or a draft that is not wanted. The record of consent stays."""
    server = _check_change(request, authorization)
    await server.gallery.delete(portrait_id)
    return Response(status_code=204)


@router.get("/v1/consents")
async def consents(request: Request, authorization: Authorization = None) -> dict[str, Any]:
    """Every consent that was recorded here, also of portraits that were deleted."""
    server = _server(request)
    server.guard.check_token(authorization)
    return {"consents": await server.gallery.consents()}


def _visible(request: Request, portrait_id: str, authorization: str | None) -> Entry:
    entry = _server(request).gallery.get(portrait_id)
    if entry.kept is not None:
        _server(request).guard.check_token(authorization)
    return entry


def _means(fields: dict[str, str]) -> Means:
    return "page" if fields.get("means") == "page" else "api"


def _draft(draft: Draft) -> dict[str, Any]:
    about = {"id": draft.id, "name": draft.name, "source": "draft", "found": draft.prepared.found}
    return about | {"consent_statement": consent_statement()} | _previews(draft)


def _previews(draft: Draft) -> dict[str, Any]:
    return {"preview": {view: f"/v1/portraits/{draft.id}/{view}" for view in draft.prepared.images}}


async def _read_json(request: Request, known: tuple[str, ...]) -> dict[str, Any]:
    try:
        values = json.loads(await read_text(request, MAX_JSON_BYTES))
    except ValueError as error:
        raise BadRequestError("The body is not valid JSON.") from error
    if not isinstance(values, dict):
        raise BadRequestError("The body must be a JSON object.")
    for key in values:
        if key not in known:
            raise BadRequestError(f"'{key}' is not a field here; known are {', '.join(known)}.")
    return values
