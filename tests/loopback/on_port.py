"""The real server with the loudness stand-in, on a port of its own in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn

from stream.config import ServeConfig
from stream.server import create_app
from tests.loopback.conftest import READY_TIMEOUT_S, plain_gallery, quiet_config


@asynccontextmanager
async def on_a_port(config: ServeConfig | None = None) -> AsyncIterator[str]:
    """Yields its address when it is ready."""
    ready = asyncio.Event()
    app = create_app(config or quiet_config(), gallery=plain_gallery(), on_ready=lambda _: ready.set())
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", ws="websockets-sansio")
    )
    server.install_signal_handlers = lambda: None  # type: ignore[method-assign]
    task = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            await ready.wait()
            while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
                await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
