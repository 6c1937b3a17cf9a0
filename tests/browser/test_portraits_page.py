"""An own portrait in the real page: tried out, agreed to, talking, still there after a reload, and deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import LIVE, TRIED_MS
from playwright.async_api import Browser, Page, expect
from served import ROOT, RunningServer

pytestmark = pytest.mark.timeout(300)  # starting the server is part of the first test

PHOTOGRAPH = ROOT / "pipeline" / "weights" / "portrait_256" / "portraits" / "astronaut.jpg"
TOKEN = "secret-word"


@pytest.fixture(scope="module")
def private_server(
    tmp_path_factory: pytest.TempPathFactory, chromium: str
) -> Iterator[tuple[RunningServer, Path]]:
    """With a token, so that pictures cannot be shown by a plain address, and a folder of its own."""
    folder = tmp_path_factory.mktemp("private")
    environment = {"TALKALONG_TOKEN": TOKEN, "TALKALONG_UPLOADS": str(folder / "portraits")}
    running = RunningServer(folder, environment=environment)
    try:
        running.wait_until_ready()
        yield running, folder / "portraits"
    finally:
        running.close()


def files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "pictures").iterdir()}


async def pixels(page: Page, image: str) -> int:
    """Width of the picture that an <img> really shows."""
    await page.wait_for_function("image => document.querySelector(image)?.naturalWidth > 0", arg=image)
    return int(await page.locator(image).evaluate("image => image.naturalWidth"))


async def test_an_own_portrait_from_upload_to_deletion(
    browser: Browser, private_server: tuple[RunningServer, Path]
) -> None:
    server, folder = private_server
    context = await browser.new_context(permissions=["microphone"])
    page = await context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(f"{server.url}#token={TOKEN}")
    await expect(page.locator(".tile[data-id]").first).to_be_visible(timeout=15_000)
    count = await page.locator(".tile[data-id]").count()
    before = await asyncio.to_thread(files, folder)

    await page.set_input_files("#file", PHOTOGRAPH)
    await expect(page.locator('#upload-look[data-state="found"]')).to_be_visible(timeout=TRIED_MS)
    await expect(page.locator("#upload-findings .worry")).to_contain_text("mouth")
    shown = set()
    for view, name in (
        ("moving", "Moving"),
        ("rest", "At rest"),
        ("speaking", "Speaking"),
        ("mask", "What moves"),
    ):
        await page.locator("#upload-views").get_by_text(name, exact=True).click()
        await expect(page.locator(f'#upload-look[data-view="{view}"]')).to_be_visible()
        shown.add(await page.locator("#upload-preview").get_attribute("src"))
        assert await pixels(page, "#upload-preview") >= 256
    assert len(shown) == 4
    assert await asyncio.to_thread(files, folder) == before
    await page.fill("#upload-name", "Commander")
    await page.fill("#upload-by", "Ada Miller")
    await page.check("#upload-consent")
    await page.click("#upload-send")
    await expect(page.locator("#upload")).to_be_hidden(timeout=10_000)
    chosen = page.locator('.tile[aria-checked="true"]')
    await expect(chosen.locator(".tile-name")).to_have_text("Commander")
    await expect(page.locator("#chosen-note")).to_contain_text("Ada Miller agreed")

    await page.click("#start")
    await expect(page.locator(LIVE)).to_be_visible(timeout=20_000)
    await page.click("#start")
    await page.reload()
    await expect(chosen.locator(".tile-name")).to_have_text("Commander", timeout=15_000)
    assert await pixels(page, '.tile[aria-checked="true"] img') == 256
    assert await pixels(page, "#still") > 256

    await page.click("#manage")
    await expect(page.locator("#managed-consent")).to_contain_text("Ada Miller agreed on")
    await page.fill("#managed-name", "Pilot")
    await page.click("#managed-save")
    await expect(chosen.locator(".tile-name")).to_have_text("Pilot")
    await page.click("#managed-delete")
    await expect(page.locator("#managed-question")).to_contain_text("Pilot")
    await page.click("#managed-keep")
    await expect(page.locator("#managed-confirm")).to_be_hidden()
    await page.click("#managed-delete")
    await page.click("#managed-really")
    await expect(page.locator("#managed")).to_be_hidden()
    await expect(page.locator(".tile[data-id]")).to_have_count(count)
    await expect(chosen).to_be_focused()  # what had the focus is gone
    assert await asyncio.to_thread(files, folder) == before
    assert complaints == []
    await context.close()


async def test_a_discarded_picture_is_forgotten(
    browser: Browser, private_server: tuple[RunningServer, Path]
) -> None:
    server, _ = private_server
    page = await browser.new_page()
    await page.goto(f"{server.url}#token={TOKEN}")
    await expect(page.locator(".tile[data-id]").first).to_be_visible(timeout=15_000)
    await page.set_input_files("#file", PHOTOGRAPH)
    async with page.expect_response(lambda answer: answer.url.endswith("/v1/portraits")) as posted:
        await expect(page.locator('#upload-look[data-state="found"]')).to_be_visible(timeout=TRIED_MS)
    place = (await (await posted.value).json())["preview"]["rest"]
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert (await page.request.get(server.url.rstrip("/") + place, headers=headers)).status == 200
    async with page.expect_response(lambda answer: answer.request.method == "DELETE"):
        await page.click("#upload-cancel")
    assert (await page.request.get(server.url.rstrip("/") + place, headers=headers)).status == 404
    await page.close()
