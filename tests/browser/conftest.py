"""A real server, a real Chromium, and a spoken file as its microphone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright
from served import RunningServer, write_voice

from client.latency.chromium import FLAGS, chromium_path, microphone_flags, why_no_driving


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if pytest_asyncio.is_async_test(item):
                item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)  # the browser's own


@pytest.fixture(scope="session")
def chromium() -> str:
    path = chromium_path()
    if path is None:
        pytest.skip("no Chromium: `apt install chromium` or `python -m playwright install chromium`")
    if problem := why_no_driving():
        pytest.skip(problem)
    return path


@pytest.fixture(scope="session")
def voice_wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled sample voice as Chromium's fake microphone wants it: 48 kHz, mono, 16 bit."""
    path = tmp_path_factory.mktemp("voice") / "voice.wav"
    return write_voice(path)


@pytest.fixture(scope="session")
def model_server(tmp_path_factory: pytest.TempPathFactory, chromium: str) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path_factory.mktemp("server"))
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.close()


@pytest.fixture
def server(model_server: RunningServer) -> Iterator[RunningServer]:
    """One for all tests, which finds the portraits that a new one has."""
    yield model_server
    model_server.delete_uploads()


@pytest.fixture(scope="session")
def plain_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Its picture is as bright as the voice is loud: quick and exact, for all that is not about the model."""
    running = RunningServer(tmp_path_factory.mktemp("plain-server"), stand_in=True)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def opened_browser(chromium: str, voice_wav: Path) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        flags = [*FLAGS, *microphone_flags(voice_wav)]
        opened = await playwright.chromium.launch(executable_path=chromium, args=flags)
        yield opened
        await opened.close()


@pytest_asyncio.fixture(loop_scope="session")
async def browser(opened_browser: Browser) -> AsyncIterator[Browser]:
    """With a microphone that speaks, and is allowed; one for all tests, without anything of the test before."""
    yield opened_browser
    for context in opened_browser.contexts:
        # A page says goodbye to the server; one that just goes leaves its session there for 30 s.
        for page in context.pages:
            await page.close()
        await context.close()


@pytest_asyncio.fixture(loop_scope="session")
async def strict_browser(chromium: str) -> AsyncIterator[Browser]:
    """Nobody answers its permission prompts: microphones are refused unless a test grants them."""
    async with async_playwright() as playwright:
        flags = [*FLAGS, "--deny-permission-prompts"]
        opened = await playwright.chromium.launch(executable_path=chromium, args=flags)
        yield opened
        await opened.close()
