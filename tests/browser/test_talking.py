"""The real model in a real browser: a portrait that talks with the speaker, whose own voice returns."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from measurement import Measurement
from pages import IDLE, LIVE, open_page, sessions_become, sessions_open
from playwright.async_api import Browser, expect
from served import RunningServer

pytestmark = pytest.mark.timeout(300)  # starting the server is part of the first test


async def test_the_portrait_talks_and_the_own_voice_returns(browser: Browser, server: RunningServer) -> None:
    page, complaints = await open_page(browser, f"{server.url}?measure=1")
    await page.click("#start")
    await expect(page.locator(LIVE)).to_be_visible(timeout=20_000)
    await page.wait_for_timeout(1_500)
    await page.evaluate("measurement.start()")
    await page.wait_for_timeout(12_000)
    taken = Measurement.of(await page.evaluate("measurement.stop()"))
    await expect(page.locator("#figure-fps .value")).not_to_have_text("–")
    await expect(page.locator("#figure-latency .value")).not_to_have_text("–")
    await expect(page.locator("#figure-misses .value")).not_to_have_text("–")
    await page.locator("#expressiveness").fill("1.5")
    await expect(page.locator("#expressiveness-value")).to_have_text("150 %")
    assert await asyncio.to_thread(sessions_open, server) == 1
    await page.click("#start")
    await expect(page.locator(IDLE)).to_be_attached()
    assert await page.evaluate("document.querySelector('#video').srcObject") is None
    await sessions_become(server, 0)
    assert complaints == []
    assert taken.size[0] >= 256
    assert taken.fps >= 15  # how many it should be is measured on machines that do nothing else
    delays = taken.mouth_to_ear_ms()
    assert len(delays) > 0, "the voice that came back is not the one that was sent"
    assert 60 < np.median(delays) < 1_000
    assert taken.speech_to_silence() > 1.5, "the lips move in silence as in speech"
    assert len(taken.mouth_to_photon_ms()) > 0, "the lips do not follow the voice"
