"""The portraits that sessions can use: bundled ones, and uploads whose consent is recorded.

An upload is a draft first, which no session can use; consent makes it a portrait. Disk work is done by one thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from pipeline.drawing import PreparedPortrait, PreparedPortraitError
from pipeline.picture_limits import LIMITS, PictureLimits
from stream.errors import (
    BadRequestError,
    EngineError,
    ForbiddenError,
    NotFoundError,
    PictureRefusedError,
    UnavailableError,
)
from stream.portraits.bundled import PreparedCache, PreparesPictures, load_bundled
from stream.portraits.consent import STATEMENT_VERSION, STATEMENTS, Consent, now, tidy
from stream.portraits.drafts import Draft, Drafts
from stream.portraits.entry import Entry, Unusable, jpeg
from stream.portraits.picture_header import check_header
from stream.portraits.portrait_store import KeptPictureError, KeptPortrait, PortraitStore, StoreError
from stream.portraits.preparation import PreparedUpload
from stream.portraits.preparations import Preparations

logger = logging.getLogger(__name__)

T = TypeVar("T")

NAME_LENGTH = 60
NAMELESS = "Uploaded portrait"
MAX_PREPARING = 4
BUSY_RETRY_S = 3


class UploadPreparer(Protocol):
    """`Preparer.prepare_upload`, or what stands in for it. progress: told the share that is done."""

    async def __call__(
        self, picture: bytes, *, name: str, progress: Callable[[float], None]
    ) -> PreparedUpload: ...


async def _is_ready() -> None:
    """For a preparer that needs no time to start."""


class Gallery:
    """All portraits by id, bundled ones first. Event loop only; `aclose` it.

    store: None keeps uploads in memory. problem: why that is so although a folder is configured, a sentence.
    model: hash of the model that portraits are prepared for. warm_up: starts what prepares uploads.
    """

    def __init__(
        self,
        entries: list[Entry],
        *,
        prepare: PreparesPictures,
        prepare_upload: UploadPreparer | None = None,
        warm_up: Callable[[], Awaitable[None]] = _is_ready,
        default: str | None = None,
        store: PortraitStore | None = None,
        max_uploads: int = 32,
        limits: PictureLimits = LIMITS,
        model: str = "",
    ) -> None:
        self._entries = {entry.id: entry for entry in entries}
        self._unusable: dict[str, Unusable] = {}
        self._drafts = Drafts()
        self._preparations = Preparations()
        self._warm_up = warm_up
        self._warming: asyncio.Task[None] | None = None
        self._prepare = prepare
        self._prepare_upload = prepare_upload
        self._default = default
        self._store = store or PortraitStore(None)
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="portraits")
        self._max_uploads = max_uploads
        self._limits = limits
        self._model = model
        self._preparing = 0
        self._adding = 0
        self.problem: str | None = None

    @classmethod
    async def load(
        cls,
        folder: Path,
        *,
        prepare: PreparesPictures,
        cache: PreparedCache | None = None,
        progress: Callable[[int, int], None] = lambda done, count: None,
        **options: Any,
    ) -> Self:
        """Every picture in `folder` and its credits, then what the store keeps; a bad picture is logged, not fatal.

        cache: of what was prepared before. progress: told how many bundled pictures of how many are ready.
        """
        entries = await load_bundled(folder, prepare, cache, progress)
        gallery = cls(entries, prepare=prepare, **options)
        await gallery.load_kept()
        return gallery

    async def load_kept(self) -> None:
        """What the store keeps."""
        try:
            await self._on_disk(self._store.open)
        except StoreError as error:
            self.problem = f"{error} Until then, uploads are kept in memory only."
            logger.error("%s", self.problem)
            self._store = PortraitStore(None)
        for kept in await self._stored(self._store.portraits):
            await self._load(kept)

    async def aclose(self) -> None:
        """Idempotent."""
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)
        await asyncio.to_thread(self._disk.shutdown, wait=True)
        self._store.close()

    @property
    def folder(self) -> Path | None:
        """Where uploads are kept; None: in memory."""
        return self._store.folder

    def list(self) -> list[Entry]:
        return list(self._entries.values())

    def unusable(self) -> tuple[Unusable, ...]:
        return tuple(self._unusable.values())

    @property
    def default(self) -> str | None:
        if self._default in self._entries:
            return self._default
        return next(iter(self._entries), None)

    def get(self, portrait_id: str | None) -> Entry:
        """The portrait with this id, or the default one for None. The only way to a portrait for any session."""
        key = portrait_id if portrait_id is not None else self.default
        if key is None:
            raise UnavailableError(
                "The gallery is empty; upload a portrait first.", code="no_portrait", retry_after_s=30
            )
        entry = self._entries.get(key)
        if entry is not None:
            return entry
        if (unusable := self._unusable.get(key)) is not None:
            raise NotFoundError(unusable.problem, code="portrait_unusable")
        if self._drafts.get(key) is not None:
            raise ForbiddenError(
                "Nobody has agreed to the use of this picture yet; POST /v1/portraits/ID/consent first.",
                code="consent_missing",
            )
        known = ", ".join([entry.id for entry in self.list() if entry.source == "bundled"][:10])
        raise NotFoundError(
            f"There is no portrait with the id '{key}'; GET /v1/portraits lists them ({known}).",
            code="portrait_not_found",
        )

    # --- uploads ---

    def expect(self) -> str:
        """A picture is about to come: what prepares it may start. The id under which its progress is told."""
        if self._warming is None or self._warming.done():
            self._warming = asyncio.create_task(self._start_preparing(), name="portraits-warm-up")
        return self._preparations.begin()

    async def _start_preparing(self) -> None:
        try:
            await self._warm_up()
        except EngineError as error:
            logger.error("%s", error)  # whoever sends the picture is told

    def progress(self, preparation_id: str) -> float:
        """The share of a picture's preparation that is done, 0 to 1; raises NotFoundError."""
        share = self._preparations.share(preparation_id)
        if share is None:
            raise NotFoundError("No such picture is being prepared.", code="preparation_not_found")
        return share

    async def draft(self, data: bytes, *, name: str, preparation: str = "") -> Draft:
        """A picture to look at, which nobody can use yet; raises a StreamError whose text says what to change.

        preparation: what `expect` gave.
        """
        self._check_room()
        await asyncio.to_thread(check_header, data, self._limits)
        if self._prepare_upload is None:
            raise UnavailableError("This server takes no pictures.", code="no_uploads", retry_after_s=60)
        if self._preparing >= MAX_PREPARING:
            raise UnavailableError(
                "Several pictures are being prepared already; try again in a few seconds.",
                code="busy",
                retry_after_s=BUSY_RETRY_S,
            )
        name = tidy(name)[:NAME_LENGTH] or NAMELESS
        self._preparing += 1
        try:
            prepared = await self._prepare_upload(
                data, name=name, progress=lambda share: self._preparations.advance(preparation, share)
            )
            sha256_uploaded = await asyncio.to_thread(_sha256, data)
        finally:
            self._preparing -= 1
        draft = Draft(
            id=f"up-{secrets.token_hex(8)}",
            name=name,
            sha256_uploaded=sha256_uploaded,
            prepared=prepared,
        )
        self._drafts.add(draft)
        return draft

    def find_draft(self, draft_id: str) -> Draft:
        """Raises NotFoundError."""
        draft = self._drafts.get(draft_id)
        if draft is None:
            raise NotFoundError(
                "There is no such picture to look at; previews are forgotten after 15 minutes. Upload it again.",
                code="draft_not_found",
            )
        return draft

    async def agree(self, draft_id: str, consent: Consent, *, name: str | None = None) -> Entry:
        """Records the consent with the picture's hashes; from then on it is a portrait. Idempotent."""
        if draft_id in self._entries:
            return self._entries[draft_id]
        draft = self.find_draft(draft_id)
        if draft.used:
            raise NotFoundError(
                "This portrait was deleted; upload its picture again.", code="draft_not_found"
            )
        self._check_room()
        name = tidy(name or "")[:NAME_LENGTH] or draft.name
        self._drafts.mark_used(draft)
        self._adding += 1
        try:
            return await self._add(draft.id, name, draft.prepared, draft.sha256_uploaded, consent)
        except BaseException:
            self._drafts.mark_unused(draft)
            raise
        finally:
            self._adding -= 1

    async def rename(self, portrait_id: str, name: str) -> Entry:
        entry, kept = self._upload(portrait_id)
        name = tidy(name)
        if not 1 <= len(name) <= NAME_LENGTH:
            raise BadRequestError(f"A portrait's name has 1 to {NAME_LENGTH} characters.", code="bad_name")
        await self._stored(self._store.rename, portrait_id, name)
        renamed = replace(entry, portrait=replace(entry.portrait, name=name), kept=replace(kept, name=name))
        if portrait_id in self._entries:  # it may have been deleted meanwhile
            self._entries[portrait_id] = renamed
        return renamed

    async def move(self, portrait_id: str, position: int) -> None:
        """To this place among the uploads, 0 being the first; places past the end mean the last."""
        self._upload(portrait_id)
        ids = [entry.id for entry in self.list() if entry.kept is not None and entry.id != portrait_id]
        ids.insert(max(position, 0), portrait_id)
        await self._stored(self._store.order, ids)
        uploads = [self._entries.pop(key) for key in ids if key in self._entries]
        self._entries |= {entry.id: entry for entry in uploads}

    async def delete(self, portrait_id: str) -> None:
        """Idempotent for uploads and drafts; bundled portraits stay. Sessions that use it go on; its consent stays."""
        entry = self._entries.get(portrait_id)
        if entry is not None and entry.kept is None:
            raise ForbiddenError("This portrait is part of the product and cannot be deleted.")
        self._drafts.discard(portrait_id)
        kept = entry.kept if entry is not None else None
        if kept is None and portrait_id in self._unusable:
            kept = self._unusable[portrait_id].kept
        if kept is None:
            return
        self._entries.pop(portrait_id, None)
        self._unusable.pop(portrait_id, None)
        await self._stored(self._store.delete, kept)
        logger.info("portrait deleted: %s (its consent record stays)", portrait_id)

    async def consents(self) -> Sequence[dict[str, Any]]:
        """Every consent ever recorded here, oldest first."""
        return await self._stored(self._store.consents)

    def thumbnail_of_unusable(self, portrait_id: str) -> bytes | None:
        unusable = self._unusable.get(portrait_id)
        return unusable.thumbnail if unusable is not None else None

    # --- inside ---

    async def _add(
        self, portrait_id: str, name: str, prepared: PreparedUpload, sha256_uploaded: str, consent: Consent
    ) -> Entry:
        kept = KeptPortrait(
            id=portrait_id,
            name=name,
            media_type=prepared.media_type,
            sha256_uploaded=sha256_uploaded,
            sha256_stored=prepared.portrait.sha256,
            found=prepared.found,
            consent=consent,
            added_at=now(),
        )
        thumbnail = await asyncio.to_thread(jpeg, prepared.portrait.crop)
        kept = await self._stored(self._store.add, kept, prepared.picture, thumbnail)
        await self._keep_prepared(kept, prepared.portrait)
        entry = Entry(
            id=portrait_id, portrait=replace(prepared.portrait, name=name), source="uploaded", kept=kept
        )
        self._entries[portrait_id] = entry
        logger.info("portrait added: %s, sha256 %s as stored", portrait_id, kept.sha256_stored)
        return entry

    async def _load(self, kept: KeptPortrait) -> None:
        """A row of the store becomes a portrait, or is reported."""
        thumbnail = await self._on_disk(self._store.thumbnail, kept)
        try:
            data = await self._on_disk(self._store.picture, kept)
            portrait = await self._prepared(kept, data)
        except (KeptPictureError, PictureRefusedError, EngineError) as error:
            logger.error("%s", error)
            self._unusable[kept.id] = Unusable(kept=kept, problem=str(error), thumbnail=thumbnail)
            return
        self._entries[kept.id] = Entry(id=kept.id, portrait=portrait, source="uploaded", kept=kept)
        if thumbnail is None:
            try:
                await self._on_disk(self._store.write_thumbnail, kept, jpeg(portrait.crop))
            except OSError as error:
                logger.warning("the thumbnail of %s cannot be written: %s", kept.id, error)

    async def _prepared(self, kept: KeptPortrait, picture: bytes) -> PreparedPortrait:
        """As it was prepared for this model before, else anew."""
        data = await self._on_disk(self._store.prepared, kept)
        if data is not None:
            try:
                found = await asyncio.to_thread(PreparedPortrait.from_bytes, data, model=self._model)
                if found.sha256 == kept.sha256_stored:
                    return replace(found, name=kept.name)
            except PreparedPortraitError as error:
                logger.info("the portrait %s is prepared anew: %s", kept.id, error)
        portrait = await self._prepare(picture, name=kept.name, kept=True)
        await self._keep_prepared(kept, portrait)
        return portrait

    async def _keep_prepared(self, kept: KeptPortrait, portrait: PreparedPortrait) -> None:
        data = await asyncio.to_thread(portrait.to_bytes)
        try:
            await self._on_disk(self._store.write_prepared, kept, data)
        except OSError as error:
            logger.warning("what was prepared of %s cannot be written: %s", kept.id, error)

    def _upload(self, portrait_id: str) -> tuple[Entry, KeptPortrait]:
        entry = self.get(portrait_id)
        if entry.kept is None:
            raise ForbiddenError("This portrait is part of the product and cannot be changed.")
        return entry, entry.kept

    def _check_room(self) -> None:
        uploads = sum(entry.kept is not None for entry in self.list()) + len(self._unusable) + self._adding
        if uploads >= self._max_uploads:
            raise UnavailableError(
                f"The server keeps {self._max_uploads} uploaded portraits at most; delete one first.",
                code="gallery_full",
                retry_after_s=60,
            )

    async def _on_disk(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work, *arguments)

    async def _stored(self, work: Callable[..., T], *arguments: Any) -> T:
        """Work of the store, whose failure is the server's trouble, not the picture's; raises UnavailableError."""
        try:
            await self._on_disk(self._store.open)
            return await self._on_disk(work, *arguments)
        except (OSError, sqlite3.Error, StoreError) as error:
            logger.error("the portraits' folder %s: %s", self._store.folder, error)
            raise UnavailableError(
                f"The server could not write to the folder of its portraits ({error}); its operator should look at "
                "the disk. Nothing was changed.",
                code="not_stored",
                retry_after_s=30,
            ) from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def consent_statement() -> dict[str, str]:
    """What a person is asked to agree to."""
    return {"version": STATEMENT_VERSION, "text": STATEMENTS[STATEMENT_VERSION]}
