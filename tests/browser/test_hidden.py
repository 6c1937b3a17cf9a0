"""A tab that nobody looks at: it connects, talks on, and blames nobody."""

from __future__ import annotations

import secrets

import pytest
from pages import HIDEABLE, LIVE, go_live, open_page
from playwright.async_api import Browser, expect
from served import RunningServer
from source import killable_source

pytestmark = pytest.mark.timeout(300)  # starting the server is part of the first test


async def test_a_session_comes_up_in_a_hidden_tab(browser: Browser, plain_server: RunningServer) -> None:
    page, complaints = await open_page(browser, plain_server.url, scripts=(HIDEABLE,))
    await page.evaluate("setHidden(true)")
    await go_live(page)
    await page.wait_for_timeout(2_000)
    await expect(page.locator("#notice")).to_be_hidden()
    await page.evaluate("setHidden(false)")
    await expect(page.locator("#figure-fps .value")).not_to_have_text("–", timeout=5_000)
    await page.close()
    assert complaints == []


async def test_while_a_tab_is_hidden_its_figures_rest(browser: Browser, plain_server: RunningServer) -> None:
    page, _ = await open_page(browser, plain_server.url, scripts=(HIDEABLE,))
    await go_live(page)
    await expect(page.locator("#figure-fps .value")).not_to_have_text("–", timeout=5_000)
    marked = "document.querySelector('#figure-fps .value').textContent = 'as it was'"
    await page.evaluate(f"setHidden(true); {marked}")
    await page.wait_for_timeout(6_000)  # longer than silence is borne, and long enough for six figures of 0
    await expect(page.locator("#figure-fps .value")).to_have_text("as it was")
    await expect(page.locator(LIVE)).to_be_visible()
    await page.evaluate("setHidden(false)")
    await expect(page.locator("#figure-fps .value")).not_to_have_text("as it was", timeout=5_000)
    await page.close()


async def test_a_hidden_watch_page_shows_the_stream(browser: Browser, plain_server: RunningServer) -> None:
    name = f"test-{secrets.token_hex(4)}"
    screen = await (await browser.new_context()).new_page()
    await screen.add_init_script(f"(() => {{{HIDEABLE}; setHidden(true); }})()")
    async with killable_source(plain_server, name):
        await screen.goto(f"{plain_server.url}watch/{name}")
        await expect(screen.locator('body[data-state="live"]')).to_be_attached(timeout=20_000)
        await screen.wait_for_timeout(5_000)
        await expect(screen.locator('body[data-state="live"]')).to_be_attached()
        await expect(screen.locator("#message")).to_be_hidden()
    await screen.close()
