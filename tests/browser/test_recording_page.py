"""The Record button: only where the operator allows it, red while it records, and the file comes down."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import pytest
from playwright.async_api import Browser, expect
from served import RunningServer

LIVE = '#stage[data-state="live"]'


@pytest.fixture(scope="module")
def recording_server(tmp_path_factory: pytest.TempPathFactory, chromium: str) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("recording")
    limits = "min_free_megabytes: 0, max_minutes: 0.1"
    settings = f"recording: {{allowed: true, directory: '{folder / 'recordings'}', {limits}}}\n"
    running = RunningServer(folder, stand_in=True, settings=settings)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.close()


async def test_a_person_records_sees_it_and_keeps_it(
    browser: Browser, recording_server: RunningServer, tmp_path: Path
) -> None:
    page = await (await browser.new_context(permissions=["microphone"])).new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(recording_server.url)
    await expect(page.locator(".tile[data-id]").first).to_be_visible(timeout=15_000)
    await expect(page.locator("#record")).to_be_visible()
    await expect(page.locator("#record")).to_be_disabled()
    await page.click("#start")
    await expect(page.locator(LIVE)).to_be_visible(timeout=20_000)
    await expect(page.locator("#record-badge")).to_be_hidden()
    await page.click("#record")
    await expect(page.locator("#record-badge")).to_be_visible()
    await expect(page.locator("#record")).to_have_attribute("aria-pressed", "true")
    await expect(page.locator("#status")).to_contain_text("is being recorded")
    await expect(page.locator("#record-time")).to_have_text("0:02", timeout=5_000)
    await page.click("#record")
    await expect(page.locator("#record-badge")).to_be_hidden()
    await expect(page.locator("#recorded-text")).to_contain_text("Recorded 0:0")
    async with page.expect_download() as coming:
        await page.click("#recorded-save")
    path = tmp_path / "saved.mp4"
    await (await coming.value).save_as(path)
    with av.open(str(path)) as container:
        assert container.duration is not None
        assert 1.5 < container.duration / 1e6 < 4.5

    await page.click("#record")  # and up to the limit
    await expect(page.locator("#record-badge")).to_be_visible()
    await expect(page.locator("#notice-text")).to_contain_text("its limit of 6 s", timeout=15_000)
    await expect(page.locator("#record-badge")).to_be_hidden()
    await expect(page.locator(LIVE)).to_be_visible()
    await expect(page.locator("#status")).to_contain_text("recording has ended")
    await page.click("#record")
    await expect(page.locator("#record-badge")).to_be_visible()
    await page.click("#start")
    await expect(page.locator("#record-badge")).to_be_hidden()
    await expect(page.locator("#recorded")).to_be_visible()
    assert complaints == []


async def test_without_permission_there_is_no_button(browser: Browser, server: RunningServer) -> None:
    page = await browser.new_page()
    await page.goto(server.url)
    await expect(page.locator(".tile[data-id]").first).to_be_visible(timeout=15_000)
    await expect(page.locator("#record")).to_be_hidden()
