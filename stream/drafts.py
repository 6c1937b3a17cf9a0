"""Pictures that were uploaded for a look and are not portraits yet: in memory only, a few, for a short time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from stream.preparation import PreparedUpload

LIFETIME_S = 900.0
MAX_DRAFTS = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Draft:
    """used: it has become a portrait, and is here for its previews only."""

    id: str
    name: str
    sha256_uploaded: str
    prepared: PreparedUpload
    used: bool = False


class Drafts:
    """The newest MAX_DRAFTS of the last LIFETIME_S seconds, by id. Event loop only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._drafts: dict[str, tuple[float, Draft]] = {}

    def add(self, draft: Draft) -> None:
        self._expire()
        while len(self._drafts) >= MAX_DRAFTS:
            del self._drafts[next(iter(self._drafts))]
        self._drafts[draft.id] = (self._clock() + LIFETIME_S, draft)

    def get(self, draft_id: str) -> Draft | None:
        self._expire()
        _, draft = self._drafts.get(draft_id, (0.0, None))
        return draft

    def mark_used(self, draft: Draft) -> None:
        """Its picture is on disk now; only the previews are kept on."""
        if draft.id in self._drafts:
            expires, _ = self._drafts[draft.id]
            lighter = replace(draft.prepared, picture=b"")
            self._drafts[draft.id] = (expires, replace(draft, used=True, prepared=lighter))

    def mark_unused(self, draft: Draft) -> None:
        """Undo `mark_used` with the draft as it was: it could not be stored."""
        if draft.id in self._drafts:
            self._drafts[draft.id] = (self._drafts[draft.id][0], draft)

    def discard(self, draft_id: str) -> None:
        self._drafts.pop(draft_id, None)

    def _expire(self) -> None:
        now = self._clock()
        for draft_id in [key for key, (expires, _) in self._drafts.items() if expires <= now]:
            del self._drafts[draft_id]
