"""A model that cannot keep up is said in words: 25 repeated pictures a second are no frame rate."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pages import go_live, open_page
from playwright.async_api import Browser, expect
from served import RunningServer

pytestmark = pytest.mark.timeout(300)  # starting the server is part of the first test


@pytest.fixture(scope="module")
def slow_server(tmp_path_factory: pytest.TempPathFactory, chromium: str) -> Iterator[RunningServer]:
    """Each step takes far longer than its pictures last."""
    folder = tmp_path_factory.mktemp("slow")
    running = RunningServer(folder, stand_in=True, environment={"ENERGY_MOUTH_STEP_S": "0.6"})
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.close()


async def test_a_machine_that_is_too_slow_is_said(browser: Browser, slow_server: RunningServer) -> None:
    page, complaints = await open_page(browser, slow_server.url)
    await go_live(page)
    await expect(page.locator("#slow")).to_be_hidden()
    await expect(page.locator("#slow")).to_contain_text(
        "This machine is too slow for this portrait", timeout=40_000
    )
    sentence = str(await page.locator("#slow").text_content())
    share = int(sentence.split("%")[0].split()[-1])
    assert 30 <= share <= 100
    await expect(page.locator("#figure-fps")).to_have_attribute("data-level", "bad")
    assert float(str(await page.locator("#figure-fps .value").text_content())) < 18
    await page.click("#start")
    await expect(page.locator("#slow")).to_be_hidden()
    await page.close()
    assert complaints == []
