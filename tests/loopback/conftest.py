"""A running application around the loudness stand-in, reached through ASGI without a port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest

from stream.config import LimitsConfig, MediaConfig, ModelConfig, ServeConfig
from stream.portraits.entry import Entry
from stream.portraits.gallery import Gallery
from stream.server import Server, create_app
from tests.streaming.portraits import plain_prepared

ENERGY_MOUTH = "tests.streaming.energy_mouth"
READY_TIMEOUT_S = 60


def quiet_config() -> ServeConfig:
    """Defaults with the stand-in for the model and a fixed step allowance, so that delays are known."""
    return ServeConfig(
        model=ModelConfig(factory=ENERGY_MOUTH, nice=0, warm_up_windows=4),
        media=MediaConfig(step_allowance_ms=40.0),
        limits=LimitsConfig(close_timeout_s=2.0),
    )


async def refuse_pictures(picture: bytes, *, name: str, kept: bool = False) -> None:
    raise AssertionError("no picture is prepared in this test")


def plain_gallery() -> Gallery:
    entries = [
        Entry(id="ada", portrait=plain_prepared(name="Ada"), source="bundled", credit="drawn"),
        Entry(id="bob", portrait=plain_prepared(name="Bob", level=200), source="bundled"),
    ]
    return Gallery(entries, prepare=refuse_pictures)


@dataclass
class Running:
    """A server that is ready, and a client for it."""

    server: Server
    http: httpx.AsyncClient


StartServer = Callable[..., AbstractAsyncContextManager[Running]]


@asynccontextmanager
async def start(
    config: ServeConfig | None = None, *, gallery: Gallery | None = None, own_gallery: bool = False
) -> AsyncIterator[Running]:
    ready = asyncio.Event()
    app = create_app(
        config or quiet_config(),
        gallery=None if own_gallery else gallery or plain_gallery(),
        on_ready=lambda _: ready.set(),
    )
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://testserver", timeout=60) as http,
    ):
        async with asyncio.timeout(READY_TIMEOUT_S):
            await ready.wait()
        yield Running(app.state.server, http)


@pytest.fixture
def start_server() -> StartServer:
    return start


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with start() as server:
        yield server
