"""How far the preparation of each picture is that somebody sends, or is about to send."""

from __future__ import annotations

import secrets

MAX_PREPARATIONS = 64


class Preparations:
    """The newest MAX_PREPARATIONS by id; the share that is done, 0 to 1. Event loop only."""

    def __init__(self) -> None:
        self._shares: dict[str, float] = {}

    def begin(self) -> str:
        """A picture is about to come; its id."""
        while len(self._shares) >= MAX_PREPARATIONS:
            del self._shares[next(iter(self._shares))]
        preparation_id = secrets.token_hex(8)
        self._shares[preparation_id] = 0.0
        return preparation_id

    def share(self, preparation_id: str) -> float | None:
        return self._shares.get(preparation_id)

    def advance(self, preparation_id: str, share: float) -> None:
        """What is not known (any more) is nobody's concern."""
        if preparation_id in self._shares:
            self._shares[preparation_id] = share
