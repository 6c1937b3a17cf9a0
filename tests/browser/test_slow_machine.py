"""A model that cannot keep up is said in words: 25 repeated pictures a second are no frame rate."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pages import go_live, open_page
from playwright.async_api import Browser, expect
from served import RunningServer

pytestmark = pytest.mark.timeout(300)  # starting the server is part of the first test

JUDGED = """async (shares) => {
  const { Slowness } = await import("/slowness.js");
  const slowness = new Slowness();
  return shares.map((share) => slowness.judge(share));
}"""


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


async def test_a_stall_is_no_slow_machine(browser: Browser, plain_server: RunningServer) -> None:
    page, _ = await open_page(browser, plain_server.url)
    warming_up = [0.8] * 6
    assert not any(await page.evaluate(JUDGED, [*warming_up, 0.0, 0.3, 0.3, 0.3, 0.0, 0.3]))
    slow = await page.evaluate(JUDGED, [*warming_up, *[0.12] * 6])
    assert slow.index(True) == 9  # the fourth report in a row
    # Between the two thresholds it stays as it was.
    there_and_back = await page.evaluate(
        JUDGED, [*warming_up, *[0.2] * 4, *[0.06] * 10, *[0.01] * 4, *[0.06] * 9]
    )
    assert there_and_back[9:23] == [True] * 14
    assert there_and_back[23:] == [False] * 10
    await page.close()
