"""Whatever never answers, the page goes on or says a sentence: no wait is endless."""

from __future__ import annotations

import asyncio

import pytest
from pages import IDLE, LIVE, WATCHED, choose_sample, go_live, open_page
from playwright.async_api import Browser, Page, Route, expect
from served import RunningServer

pytestmark = pytest.mark.timeout(300)  # starting the server is part of the first test

NEVER = "new Promise(() => undefined)"
# Firefox without a sound output.
SILENT_MACHINE = f"""
AudioContext.prototype.resume = () => {NEVER};
Object.defineProperty(AudioContext.prototype, "state", {{ get: () => "suspended" }});
"""


async def expect_problem(page: Page, code: str, *, within_s: float) -> None:
    await expect(page.locator("#notice")).to_have_attribute("data-code", code, timeout=1_000 * within_s)
    assert await page.locator("#notice-text").text_content()
    await expect(page.locator(IDLE)).to_be_attached()


@pytest.mark.parametrize("voice", ["microphone", "sample"])
async def test_sound_that_never_starts(browser: Browser, plain_server: RunningServer, voice: str) -> None:
    page, complaints = await open_page(browser, plain_server.url, scripts=(SILENT_MACHINE,))
    if voice == "sample":
        await choose_sample(page)
    await go_live(page)
    assert (await page.evaluate(WATCHED))[1] > 40, "the picture does not follow the voice"
    await expect(page.locator("#meter-help")).to_be_visible()
    await page.close()
    assert complaints == []


async def test_a_browser_that_can_play_the_sample_voice_in_no_way(
    browser: Browser, plain_server: RunningServer
) -> None:
    none = f"{SILENT_MACHINE} delete HTMLMediaElement.prototype.captureStream;"
    page, _ = await open_page(browser, plain_server.url, scripts=(none,))
    await choose_sample(page)
    await page.click("#start")
    await expect_problem(page, "no_sound_output", within_s=10)


async def test_an_allowed_microphone_that_never_opens(browser: Browser, plain_server: RunningServer) -> None:
    stuck = f"navigator.mediaDevices.getUserMedia = () => {NEVER};"
    page, _ = await open_page(browser, plain_server.url, scripts=(stuck,))
    await page.click("#start")
    await expect_problem(page, "microphone_busy", within_s=25)
    await expect(page.locator("#notice-sample")).to_be_visible()


async def test_while_the_browser_asks_the_person_has_time_and_is_told(
    browser: Browser, plain_server: RunningServer
) -> None:
    asking = f"""
    navigator.mediaDevices.getUserMedia = () => {NEVER};
    Permissions.prototype.query = async () => ({{ state: "prompt" }});
    """
    page, _ = await open_page(browser, plain_server.url, scripts=(asking,))
    await page.click("#start")
    await expect(page.locator("#status")).to_contain_text("please allow it")
    await page.wait_for_timeout(17_000)
    await expect(page.locator("#notice")).to_be_hidden()
    await page.click("#start")  # and may think better of it
    await expect(page.locator(IDLE)).to_be_attached()


async def test_a_microphone_that_comes_after_stop_is_closed_again(
    browser: Browser, plain_server: RunningServer
) -> None:
    slow = """
    const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (constraints) => {
      const stream = await open(constraints);
      [window.track] = stream.getAudioTracks();
      await new Promise((resolve) => { window.answer = resolve; });
      return stream;
    };
    """
    page, _ = await open_page(browser, plain_server.url, scripts=(slow,))
    await page.click("#start")
    await page.wait_for_function("Boolean(window.answer)")
    await page.click("#start")
    await page.evaluate("answer()")
    await page.wait_for_function("track.readyState === 'ended'")
    await expect(page.locator("#notice")).to_be_hidden()


@pytest.mark.parametrize("path", ["v1/server", "v1/sessions"])
async def test_a_server_that_never_answers(browser: Browser, plain_server: RunningServer, path: str) -> None:
    page, _ = await open_page(browser, plain_server.url)
    over = asyncio.Event()

    async def never(route: Route) -> None:
        await over.wait()
        await route.abort()

    await page.route(f"**/{path}", never)
    await page.click("#start")
    await expect_problem(page, "no_answer", within_s=40)
    over.set()
    await page.unroute_all(behavior="wait")
    await page.get_by_role("button", name="Try again").click()
    await expect(page.locator(LIVE)).to_be_visible(timeout=20_000)
    await page.close()


async def test_a_connection_that_never_comes_up(browser: Browser, plain_server: RunningServer) -> None:
    """Through a relay only, where there is none."""
    relayed = """
    const Original = window.RTCPeerConnection;
    window.RTCPeerConnection = class extends Original {
      constructor(settings) { super({ ...settings, iceTransportPolicy: "relay" }); }
    };
    """
    page, _ = await open_page(browser, plain_server.url, scripts=(relayed,))
    await page.click("#start")
    await expect_problem(page, "connection_blocked", within_s=30)
    await page.close()


async def test_a_stand_in_for_the_server_is_named(browser: Browser, plain_server: RunningServer) -> None:
    """Such as the log-in page of a hotel's Wi-Fi."""
    page, _ = await open_page(browser, plain_server.url)
    await page.route("**/v1/server", lambda route: route.fulfill(body="<html>Welcome</html>"))
    await page.click("#start")
    await expect_problem(page, "strange_answer", within_s=10)


async def test_a_recording_that_is_not_answered(browser: Browser, plain_server: RunningServer) -> None:
    mute = "RTCDataChannel.prototype.send = () => undefined;"
    page, _ = await open_page(browser, plain_server.url, scripts=(mute,))
    await go_live(page)
    await page.evaluate(
        "const button = document.querySelector('#record'); button.hidden = false; button.click()"
    )
    await expect(page.locator("#notice")).to_have_attribute(
        "data-code", "recording_unanswered", timeout=15_000
    )
    await expect(page.locator(LIVE)).to_be_visible()
    await page.close()


async def test_the_watch_page_says_that_the_server_does_not_answer(
    browser: Browser, plain_server: RunningServer
) -> None:
    screen = await (await browser.new_context()).new_page()
    over = asyncio.Event()

    async def never(route: Route) -> None:
        await over.wait()
        await route.abort()

    await screen.route("**/whep/**", never)
    await screen.goto(f"{plain_server.url}watch/nobody")
    await expect(screen.locator("#message")).to_have_text("Connecting…", timeout=5_000)
    await expect(screen.locator("#message")).to_contain_text("does not answer", timeout=25_000)
    over.set()
    await screen.unroute_all(behavior="wait")
    await expect(screen.locator("#message")).to_contain_text("Nobody is on air", timeout=15_000)
    await screen.close()
