"""What phones do to a page: calls hold the microphone, screens go dark, sound and pictures want a tap first."""

from __future__ import annotations

import pytest
from pages import (
    HIDEABLE,
    KEEP_TRACK,
    LIVE,
    REFUSE_PICTURES,
    REFUSE_SOUND,
    choose_sample,
    go_live,
    open_page,
)
from playwright.async_api import Browser, expect
from served import RunningServer

pytestmark = pytest.mark.timeout(300)  # starting the server is part of the first test

HELD = '#notice[data-code="voice_held"]'
# Screen locks that a test can count, and a system that takes them back.
LOCKS = """
window.locks = [];
Object.defineProperty(navigator, "wakeLock", { value: {
  request: async (kind) => {
    if (document.hidden) throw new DOMException("hidden", "NotAllowedError");
    const lock = { kind, released: false, release: async () => { lock.released = true; } };
    locks.push(lock);
    return lock;
  },
} });
"""
HELD_LOCKS = "locks.filter(({ released }) => !released).length"
# A context whose state a test can set, as the system sets Safari's.
SET_CONTEXT = """
const Original = window.AudioContext;
window.AudioContext = class extends Original {
  constructor(...parts) { super(...parts); window.context = this; }
  get state() { return window.contextState ?? super.state; }
};
window.setContext = (state) => { window.contextState = state; context.dispatchEvent(new Event("statechange")); };
"""


async def test_a_call_holds_the_microphone(browser: Browser, plain_server: RunningServer) -> None:
    page, complaints = await open_page(browser, plain_server.url, scripts=(KEEP_TRACK,))
    await go_live(page)
    await page.evaluate("setMuted(true)")
    await expect(page.locator(HELD)).to_be_visible()
    await expect(page.locator("#notice-text")).to_contain_text("phone call")
    await expect(page.locator(LIVE)).to_be_visible()
    await page.evaluate("setMuted(false)")
    await expect(page.locator("#notice")).to_be_hidden()
    await page.evaluate("setMuted(true)")
    await page.get_by_role("button", name="Open it again").click()
    await page.wait_for_function("!track.muted")  # another one
    await expect(page.locator("#notice")).to_be_hidden()
    await expect(page.locator(LIVE)).to_be_visible()
    await page.close()
    assert complaints == []


async def test_a_moment_of_silence_is_no_call(browser: Browser, plain_server: RunningServer) -> None:
    page, _ = await open_page(browser, plain_server.url, scripts=(KEEP_TRACK,))
    await go_live(page)
    await page.evaluate("setMuted(true); setTimeout(() => setMuted(false), 300)")
    await page.wait_for_timeout(2_000)
    await expect(page.locator("#notice")).to_be_hidden()
    await page.close()


async def test_a_microphone_that_goes_away_leaves_the_sample_voice(
    browser: Browser, plain_server: RunningServer
) -> None:
    page, _ = await open_page(browser, plain_server.url, scripts=(KEEP_TRACK,))
    await go_live(page)
    await page.evaluate("track.dispatchEvent(new Event('ended'))")
    await expect(page.locator("#notice")).to_have_attribute("data-code", "microphone_ended")
    await page.click("#notice-sample")
    await expect(page.locator(LIVE)).to_be_visible(timeout=20_000)
    await expect(page.locator("#status")).to_have_text("The sample voice is speaking.")
    await page.close()


async def test_the_screen_stays_on_while_somebody_talks(
    browser: Browser, plain_server: RunningServer
) -> None:
    page, complaints = await open_page(browser, plain_server.url, scripts=(LOCKS, HIDEABLE))
    assert await page.evaluate("locks.length") == 0
    await go_live(page)
    assert await page.evaluate(HELD_LOCKS) == 1
    await page.evaluate("setHidden(true); for (const lock of locks) lock.released = true")
    await page.wait_for_timeout(300)
    assert await page.evaluate(HELD_LOCKS) == 0
    await page.evaluate("setHidden(false)")
    await page.wait_for_function(f"{HELD_LOCKS} === 1")
    await page.click("#start")
    await page.wait_for_function(f"{HELD_LOCKS} === 0")
    await page.evaluate("setHidden(true); setHidden(false)")
    await page.wait_for_timeout(300)
    assert await page.evaluate(HELD_LOCKS) == 0
    await page.close()
    assert complaints == []


async def test_without_screen_locks_it_talks_all_the_same(
    browser: Browser, plain_server: RunningServer
) -> None:
    none = "Object.defineProperty(navigator, 'wakeLock', { value: undefined });"
    page, complaints = await open_page(browser, plain_server.url, scripts=(none,))
    await go_live(page)
    await page.close()
    assert complaints == []


async def test_sound_that_wants_a_tap_gets_a_button(browser: Browser, plain_server: RunningServer) -> None:
    page, complaints = await open_page(browser, plain_server.url, scripts=(REFUSE_SOUND,))
    press = "for (const what of ['input[value=sample]', '#start']) document.querySelector(what).click()"
    await page.evaluate(press)  # without a pointer
    await expect(page.locator(LIVE)).to_be_visible(timeout=20_000)
    tap = page.get_by_role("button", name="Tap to hear the voice")
    await expect(tap).to_be_visible()
    assert await page.evaluate("document.querySelector('#video').muted") is True
    assert await page.evaluate("document.querySelector('#video').paused") is False
    await tap.click()
    await expect(tap).to_be_hidden()
    assert await page.evaluate("document.querySelector('#video').muted") is False
    await page.close()
    assert complaints == []


async def test_a_picture_that_wants_a_tap_gets_a_button(
    browser: Browser, plain_server: RunningServer
) -> None:
    page, complaints = await open_page(browser, plain_server.url, scripts=(REFUSE_PICTURES,))
    await page.evaluate("document.querySelector('#start').click()")
    tap = page.get_by_role("button", name="Tap to show the portrait")
    await expect(tap).to_be_visible(timeout=20_000)
    await expect(page.locator(LIVE)).to_be_visible(timeout=20_000)
    await expect(page.locator("#notice")).to_be_hidden()
    await tap.click()
    await expect(tap).to_be_hidden()
    assert await page.evaluate("document.querySelector('#video').paused") is False
    await page.close()
    assert complaints == []


async def test_sound_that_the_system_holds_back_is_said(
    browser: Browser, plain_server: RunningServer
) -> None:
    page, _ = await open_page(browser, plain_server.url, scripts=(SET_CONTEXT,))
    await choose_sample(page)
    await go_live(page)
    await page.evaluate("setContext('interrupted')")
    await expect(page.locator(HELD)).to_be_visible()
    await expect(page.locator("#notice-title")).to_have_text("The sample voice is paused.")
    await page.evaluate("setContext('running')")
    await expect(page.locator("#notice")).to_be_hidden()
    await page.close()
