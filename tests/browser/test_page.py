"""The page in a real browser against a real server: it talks, it stops, and it says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pages import IDLE, LIVE, TRIED_MS, open_page, sessions_become
from playwright.async_api import Browser, Page, Response, Route, expect
from served import ROOT, RunningServer

pytestmark = pytest.mark.timeout(300)  # starting the server is part of the first test


async def test_it_loads_shows_the_gallery_and_asks_nobody_else(
    browser: Browser, server: RunningServer
) -> None:
    elsewhere: list[str] = []
    context = await browser.new_context()
    page = await context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on(
        "request",
        lambda request: None if request.url.startswith(server.url) else elsewhere.append(request.url),
    )
    await page.goto(server.url)
    tiles = page.locator(".tile[data-id]")
    await expect(tiles.first).to_be_visible()
    assert await tiles.count() >= 3
    drawn = "tiles => tiles.every(tile => tile.querySelector('img').naturalWidth > 0)"
    await page.wait_for_function("() => [...document.images].every(image => image.complete)")
    assert await tiles.evaluate_all(drawn)
    await expect(page.locator("#start")).to_be_enabled()
    await expect(page.locator("#server-text")).to_have_text("Server ready")
    await tiles.nth(0).focus()
    await page.keyboard.press("ArrowRight")
    await expect(tiles.nth(1)).to_have_attribute("aria-checked", "true")
    await expect(tiles.nth(1)).to_be_focused()
    assert complaints == []
    assert elsewhere == []


async def test_the_sample_voice_needs_no_microphone(strict_browser: Browser, server: RunningServer) -> None:
    page, complaints = await open_page(strict_browser, server.url, microphone=False)
    await page.get_by_text("Sample voice", exact=True).click()
    await page.click("#start")
    await expect(page.locator(LIVE)).to_be_visible(timeout=20_000)
    await expect(page.locator("#hear")).to_have_attribute("aria-pressed", "true")
    await page.wait_for_function("document.querySelector('#meter').getAttribute('aria-valuenow') > -45")
    await page.locator(".tile[data-id]").nth(1).click()
    await expect(page.locator(LIVE)).to_be_visible(timeout=20_000)
    await page.close()
    await sessions_become(server, 0)
    assert complaints == []


async def use_sample(page: Page) -> None:
    """The way on that the problem itself offers."""
    await page.get_by_role("button", name="Use the sample voice").click()
    await expect(page.locator(LIVE)).to_be_visible(timeout=20_000)
    await expect(page.locator("#notice")).to_be_hidden()
    await expect(page.get_by_role("radio", name="Sample voice")).to_be_checked()
    await page.close()


async def test_a_refused_microphone_says_what_to_do(
    strict_browser: Browser, plain_server: RunningServer
) -> None:
    page, _ = await open_page(strict_browser, plain_server.url, microphone=False)
    await page.click("#start")
    await expect(page.locator("#notice")).to_have_attribute("data-code", "permission_denied")
    await expect(page.locator("#notice-text")).to_contain_text("address bar")
    await expect(page.locator(IDLE)).to_be_attached()
    await expect(page.locator("#notice-action")).to_have_text("Try again")
    await use_sample(page)


@pytest.mark.parametrize(
    ("error", "title"),
    [
        ("NotFoundError", "No microphone was found."),
        ("NotReadableError", "The microphone could not be opened."),
        ("OverconstrainedError", "The chosen microphone is not there any more."),
        ("TypeError", "The microphone could not be opened."),
    ],
)
async def test_a_microphone_that_does_not_open_leaves_the_sample_voice(
    browser: Browser, plain_server: RunningServer, error: str, title: str
) -> None:
    page, _ = await open_page(browser, plain_server.url)
    failing = f"() => Promise.reject(new DOMException('none', '{error}'))"
    await page.evaluate(f"() => {{ navigator.mediaDevices.getUserMedia = {failing}; }}")
    await page.click("#start")
    await expect(page.locator("#notice-title")).to_have_text(title)
    await expect(page.locator("#notice-text")).to_contain_text("sample voice")
    await use_sample(page)


async def test_a_page_without_a_secure_context_says_so(browser: Browser, plain_server: RunningServer) -> None:
    page, _ = await open_page(browser, plain_server.url)
    await page.evaluate("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
    await page.click("#start")
    await expect(page.locator("#notice")).to_have_attribute("data-code", "not_secure")
    await expect(page.locator("#notice-text")).to_contain_text("https")
    await expect(page.locator("#notice-action")).to_be_hidden()
    await use_sample(page)


async def test_a_full_server_counts_down_and_lets_try_again(browser: Browser, server: RunningServer) -> None:
    page, _ = await open_page(browser, server.url)

    async def full(route: Route) -> None:
        body = json.dumps({"error": {"code": "server_full", "message": "All 2 places are taken."}})
        headers = {"Retry-After": "2", "Content-Type": "application/json"}
        await route.fulfill(status=503, headers=headers, body=body)

    await page.route("**/v1/sessions", full)
    await page.click("#start")
    await expect(page.locator("#notice")).to_have_attribute("data-code", "server_full")
    await expect(page.locator("#notice-text")).to_have_text("All 2 places are taken.")
    await expect(page.locator("#notice-action")).to_have_text("Try again in 1 s")
    await expect(page.locator("#notice-action")).to_be_enabled(timeout=5_000)
    await page.unroute("**/v1/sessions")
    await page.click("#notice-action")
    await expect(page.locator(LIVE)).to_be_visible(timeout=20_000)
    await expect(page.locator("#notice")).to_be_hidden()


async def test_a_session_that_the_server_ends_is_opened_again(
    browser: Browser, server: RunningServer
) -> None:
    page, _ = await open_page(browser, server.url)
    places: list[str] = []

    def remember(response: Response) -> None:
        if response.request.method == "POST":
            places.append(response.headers["location"])

    page.on("response", remember)
    await page.click("#start")
    await expect(page.locator(LIVE)).to_be_visible(timeout=20_000)
    await page.request.delete(server.url.rstrip("/") + places[0])
    await expect(page.locator('#stage[data-state="reconnecting"]')).to_be_attached(timeout=10_000)
    await expect(page.locator("#status")).to_contain_text("Connecting again")
    await expect(page.locator(LIVE)).to_be_visible(timeout=20_000)
    assert len(places) == 2
    await page.close()
    await sessions_become(server, 0)


async def test_a_page_that_is_left_and_shown_again_can_start_again(
    browser: Browser, plain_server: RunningServer
) -> None:
    page, _ = await open_page(browser, plain_server.url)
    await page.click("#start")
    await expect(page.locator(LIVE)).to_be_visible(timeout=20_000)
    await page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    await expect(page.locator(IDLE)).to_be_attached()
    await sessions_become(plain_server, 0)
    await page.click("#start")
    await expect(page.locator(LIVE)).to_be_visible(timeout=20_000)
    await page.close()


async def test_an_upload_asks_for_consent_and_explains_a_refusal(
    browser: Browser, server: RunningServer, tmp_path: Path
) -> None:
    page, _ = await open_page(browser, server.url)
    count = await page.locator(".tile[data-id]").count()
    picture = tmp_path / "no-face.png"
    picture.write_bytes(await page.screenshot(clip={"x": 0, "y": 0, "width": 300, "height": 300}))
    await page.set_input_files("#file", picture)
    await expect(page.locator("#upload")).to_be_visible()
    await expect(page.locator("#upload-name")).to_have_value("no face")
    await page.fill("#upload-by", "Ada Miller")
    await page.click("#upload-send")
    await expect(page.locator("#upload")).to_be_visible()  # the browser asks for the consent box
    await page.check("#upload-consent")
    await page.click("#upload-send")
    await expect(page.locator("#upload-error")).to_contain_text("face", timeout=TRIED_MS)
    await page.click("#upload-cancel")
    await expect(page.locator("#upload")).to_be_hidden()

    portrait = ROOT / "pipeline" / "weights" / "portrait_256" / "portraits" / "astronaut.jpg"
    await page.set_input_files("#file", portrait)
    await page.fill("#upload-by", "Ada Miller")
    await page.check("#upload-consent")
    await page.click("#upload-send")
    await expect(page.locator(".tile[data-id]")).to_have_count(count + 1, timeout=TRIED_MS)
    await expect(page.locator('.tile[aria-checked="true"] .tile-name')).to_have_text("astronaut")


async def test_the_next_picture_may_come_before_the_dialog_says_that_it_has_closed(
    browser: Browser, server: RunningServer
) -> None:
    page, _ = await open_page(browser, server.url)
    await page.set_input_files(
        "#file", files={"name": "none.png", "mimeType": "image/png", "buffer": b"none"}
    )
    await expect(page.locator("#upload-error")).to_be_visible()
    await page.evaluate(
        """async () => {
            const picture = await (await fetch("v1/portraits/astronaut/picture")).blob();
            const chosen = new DataTransfer();
            chosen.items.add(new File([picture], "next.jpg", { type: picture.type }));
            const input = document.querySelector("#file");
            document.querySelector("#upload-cancel").click();
            input.files = chosen.files;
            input.dispatchEvent(new Event("change"));
        }"""
    )
    await expect(page.locator("#upload-name")).to_have_value("next")
    await expect(page.locator("#upload-send")).to_have_text("Use this portrait", timeout=TRIED_MS)
    await page.click("#upload-cancel")
