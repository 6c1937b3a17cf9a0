"""The page in a real Firefox on a machine without a sound output, where no AudioContext ever runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from firefox import FirefoxPage, firefox_page, firefox_path
from pages import WATCHED
from served import RunningServer

pytestmark = pytest.mark.timeout(300)  # starting the server is part of the first test

LIVE = "document.querySelector('#stage').dataset.state === 'live'"
# What an AudioContext does here: "running" where there is a sound output.
CONTEXT = """(() => { const context = new AudioContext(); context.resume();
  return new Promise((resolve) => setTimeout(() => resolve(context.state), 1_500)); })()"""


@pytest_asyncio.fixture(loop_scope="session")
async def page(tmp_path: Path) -> AsyncIterator[FirefoxPage]:
    if firefox_path() is None:
        pytest.skip("no Firefox: `apt install firefox-esr`")
    async with firefox_page(tmp_path) as opened:
        yield opened


async def talk(page: FirefoxPage, url: str) -> None:
    await page.open(url)
    await page.until("document.querySelector('.tile[data-id]') !== null", timeout_s=20)


async def test_the_sample_voice_speaks_without_a_sound_output(
    page: FirefoxPage, plain_server: RunningServer
) -> None:
    await talk(page, plain_server.url)
    assert await page.evaluate(CONTEXT) == "suspended", "this Firefox has a sound output"
    await page.click('input[value="sample"] + span')
    await page.click("#start")
    await page.until(LIVE, timeout_s=30)
    count, spread = await page.evaluate(WATCHED)
    assert count > 10
    assert spread > 40, "the picture does not follow the voice"
    assert await page.evaluate("document.querySelector('#meter-help').hidden") is False
    await page.click("#start")
    await page.until("document.querySelector('#stage').dataset.state === 'idle'", timeout_s=5)
    assert page.complaints == []


async def test_a_microphone_speaks_without_a_sound_output(
    page: FirefoxPage, plain_server: RunningServer
) -> None:
    await talk(page, plain_server.url)
    await page.click("#start")
    await page.until(LIVE, timeout_s=30)
    count, _ = await page.evaluate(WATCHED)
    assert count > 10
    assert page.complaints == []
