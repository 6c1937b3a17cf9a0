"""Everybody who watches: lets viewers in, keeps them, and ends them with the server."""

from __future__ import annotations

import asyncio

from stream.broadcasting.broadcast import Broadcasts
from stream.broadcasting.viewer import Viewer
from stream.config import ServeConfig
from stream.errors import UnavailableError
from stream.metrics import Metrics
from stream.security import Guard, new_session_id


class Audience:
    """The viewers of all streams, by id. Event loop only."""

    def __init__(
        self, config: ServeConfig, broadcasts: Broadcasts, *, guard: Guard, metrics: Metrics
    ) -> None:
        self.viewers: dict[str, Viewer] = {}
        self._config = config
        self._broadcasts = broadcasts
        self._guard = guard
        self._metrics = metrics
        self._closing = False

    async def admit(self, stream: str, offer: str, *, address: str) -> tuple[Viewer, str]:
        """One more who watches, and the answer to its offer; raises StreamError."""
        if self._closing:
            raise UnavailableError("The server is shutting down.", code="stopping")
        offer = self._guard.check_offer(offer)
        broadcast = self._broadcasts.get(stream)
        leave = self._broadcasts.enter(address)

        def closed(viewer: Viewer) -> None:
            self.viewers.pop(viewer.id, None)
            self._metrics.viewers.dec()
            leave()

        try:
            viewer = Viewer(
                new_session_id(),
                broadcast=broadcast,
                config=self._config,
                guard=self._guard,
                address=address,
                on_closed=closed,
            )
        except BaseException:
            leave()
            raise
        self.viewers[viewer.id] = viewer
        self._metrics.viewers.inc()
        try:
            answer = await viewer.answer(offer)
        except BaseException:
            await viewer.aclose()
            raise
        self._metrics.opened.labels(transport="whep").inc()
        return viewer, answer

    def get(self, stream: str, viewer_id: str) -> Viewer | None:
        """The viewer with this id, if it watches this stream."""
        viewer = self.viewers.get(viewer_id)
        return viewer if viewer is not None and viewer.broadcast.name == stream else None

    async def aclose(self) -> None:
        """Nobody is let in any more, and everybody ends. Idempotent."""
        self._closing = True
        await asyncio.gather(*(viewer.aclose() for viewer in list(self.viewers.values())))
