"""A source that is killed and a server that dies: pages say so, and come back by themselves."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from pages import LIVE, RECONNECTING, go_live, open_page
from playwright.async_api import Browser, expect
from served import RunningServer
from source import killable_source

pytestmark = pytest.mark.timeout(300)  # starting the server is part of the first test

ON = 'body[data-state="live"]'
OFF = 'body[data-state="waiting"]'


async def test_a_killed_source_is_missed_and_found_again(
    browser: Browser, plain_server: RunningServer
) -> None:
    name = f"test-{secrets.token_hex(4)}"
    screen = await (await browser.new_context()).new_page()
    await screen.goto(f"{plain_server.url}watch/{name}")
    async with killable_source(plain_server, name) as source:
        await expect(screen.locator(ON)).to_be_attached(timeout=20_000)
        source.kill()
        await source.wait()
        await expect(screen.locator(OFF)).to_be_attached(timeout=15_000)
        await expect(screen.locator("#message")).to_contain_text("on air", timeout=5_000)
    async with killable_source(plain_server, name):
        await expect(screen.locator(ON)).to_be_attached(timeout=10_000)
        await expect(screen.locator("#message")).to_be_hidden()
    await screen.close()


async def test_a_server_that_dies_and_returns(browser: Browser, tmp_path: Path) -> None:
    server = RunningServer(tmp_path, stand_in=True)
    try:
        server.wait_until_ready()
        page, _ = await open_page(browser, server.url)
        await go_live(page)
        server.kill()
        await expect(page.locator(RECONNECTING)).to_be_attached(timeout=10_000)
        await expect(page.locator("#status")).to_contain_text("Connecting again")
        server = RunningServer(tmp_path, stand_in=True, port=server.port)
        server.wait_until_ready()
        await expect(page.locator(LIVE)).to_be_visible(timeout=30_000)
        server.kill()
        await expect(page.locator("#notice")).to_have_attribute(
            "data-code", "connection_lost", timeout=60_000
        )
        await expect(page.locator("#start-text")).to_have_text("Start")
        await page.close()
    finally:
        server.close()
