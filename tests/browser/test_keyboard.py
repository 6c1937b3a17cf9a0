"""Without a mouse: everything is reached by keys, and the focus is never lost with what had it."""

from __future__ import annotations

import json

import pytest
from pages import LIVE, TRIED_MS, open_page
from playwright.async_api import Browser, Page, Route, expect
from served import ROOT, RunningServer

pytestmark = pytest.mark.timeout(300)  # starting the server is part of the first test

PORTRAITS = ROOT / "pipeline" / "weights" / "portrait_256" / "portraits"
CHOSEN = '.tile[aria-checked="true"]'


async def upload(page: Page, name: str) -> None:
    """An own portrait, by keys alone."""
    await page.locator("#add").focus()
    async with page.expect_file_chooser() as chooser:
        await page.keyboard.press("Enter")
    await (await chooser.value).set_files(PORTRAITS / "astronaut.jpg")
    await expect(page.locator('#upload-look[data-state="found"]')).to_be_visible(timeout=TRIED_MS)
    await page.locator("#upload-name").fill(name)
    await page.locator("#upload-by").fill("Ada Miller")
    await page.locator("#upload-consent").focus()
    await page.keyboard.press("Space")
    await page.locator("#upload-send").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#upload")).to_be_hidden(timeout=15_000)


async def test_an_own_portrait_by_keys(browser: Browser, server: RunningServer) -> None:
    page, complaints = await open_page(browser, server.url)
    page.on(
        "filechooser", lambda _: None
    )  # from here on; one that only begins with the key press may come too late
    await page.locator("#add").focus()
    async with page.expect_file_chooser() as chooser:
        await page.keyboard.press("Enter")
    await (await chooser.value).set_files(PORTRAITS / "astronaut.jpg")
    await expect(page.locator("#upload")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.locator("#add")).to_be_focused()
    for name in ("First", "Second"):
        await upload(page, name)
        await expect(page.locator(CHOSEN)).to_be_focused()
        await expect(page.locator(f"{CHOSEN} .tile-name")).to_have_text(name)

    await page.locator("#manage").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#managed-close")).to_be_focused()
    await page.locator("#managed-earlier").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#managed-earlier")).to_be_disabled()
    await expect(page.locator("#managed-later")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.locator("#manage")).to_be_focused()
    for left in ("First", None):
        await page.locator("#manage").focus()
        await page.keyboard.press("Enter")
        await page.locator("#managed-delete").focus()
        await page.keyboard.press("Enter")
        await expect(page.locator("#managed-keep")).to_be_focused()
        await page.keyboard.press("Tab")
        await expect(page.locator("#managed-really")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("#managed")).to_be_hidden(timeout=10_000)
        await expect(page.locator(CHOSEN)).to_be_focused()
        if left:
            await page.get_by_role("radio", name=left, exact=True).focus()
            await page.keyboard.press("Enter")
    await page.close()
    assert complaints == []


async def test_a_problem_gives_the_focus_back(browser: Browser, plain_server: RunningServer) -> None:
    page, _ = await open_page(browser, plain_server.url)

    async def full(route: Route) -> None:
        body = json.dumps({"error": {"code": "server_full", "message": "All 2 places are taken."}})
        await route.fulfill(
            status=503, headers={"Retry-After": "1", "Content-Type": "application/json"}, body=body
        )

    await page.route("**/v1/sessions", full)
    await page.locator("#start").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#notice")).to_be_visible()
    assert await page.locator("#notice").get_attribute("role") == "alert"
    await page.locator("#notice-close").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#notice")).to_be_hidden()
    await expect(page.locator("#start")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#notice-action")).to_have_text("Try again", timeout=5_000)
    await page.unroute("**/v1/sessions")
    await page.locator("#notice-action").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#start")).to_be_focused()
    await expect(page.locator(LIVE)).to_be_visible(timeout=20_000)
    await page.close()


async def test_what_changes_is_announced(browser: Browser, plain_server: RunningServer) -> None:
    page, _ = await open_page(browser, plain_server.url)
    for element in ("#status", "#slow"):
        assert await page.locator(element).get_attribute("role") == "status"
    await expect(page.locator("#status")).to_have_text("Press Start and speak.")
    await page.click("#start")
    await expect(page.locator(LIVE)).to_be_visible(timeout=20_000)
    await expect(page.locator("#status")).to_have_text("Speak: the portrait speaks along with you.")
    await page.click("#start")
    await expect(page.locator("#status")).to_have_text("Stopped. Press Start to talk again.")
    await page.close()
