"""A foreign client publishes and watches; the viewer page shows the same, and what is behind a transparent portrait."""

from __future__ import annotations

import asyncio
import io
import json
import secrets
import urllib.request
from pathlib import Path

import httpx
import numpy as np
import pytest
from foreign import foreign_page
from measurement import Measurement
from pages import REFUSE_SOUND
from PIL import Image, ImageDraw, ImageFilter
from playwright.async_api import Browser, Page, expect
from served import ROOT, RunningServer, has_trained_model

pytestmark = pytest.mark.timeout(300)  # starting the server is part of the first test

LIVE = 'body[data-state="live"]'
WAITING = 'body[data-state="waiting"]'
ASTRONAUT = ROOT / "pipeline" / "weights" / "portrait_256" / "portraits" / "astronaut.jpg"


@pytest.fixture
def name() -> str:
    """Of a stream that no other test, and no earlier try, has used."""
    return f"test-{secrets.token_hex(4)}"


def viewers(server: RunningServer) -> float:
    with urllib.request.urlopen(f"{server.url}metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith("talkalong_viewers ")).split()[1])


async def viewers_become(server: RunningServer, count: int) -> None:
    for _ in range(100):
        if await asyncio.to_thread(viewers, server) == count:
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"{viewers(server)} are watching, not {count}")


async def pixels(page: Page) -> np.ndarray:
    """What the page shows over nothing: RGBA uint8 [H, W, 4]."""
    return np.asarray(Image.open(io.BytesIO(await page.screenshot(omit_background=True))).convert("RGBA"))


async def test_a_foreign_client_publishes_and_watches(
    browser: Browser, plain_server: RunningServer, name: str
) -> None:
    page, requests = await foreign_page(browser, plain_server)
    place = await page.evaluate("url => publish(url)", f"{plain_server.url}whip?stream={name}")
    assert "/whip/" in place
    await page.evaluate("url => watch(url)", f"{plain_server.url}whep/{name}")
    await viewers_become(plain_server, 1)
    await page.wait_for_timeout(1_500)
    await page.evaluate("measurement.start()")
    await page.wait_for_timeout(12_000)
    taken = Measurement.of(await page.evaluate("measurement.stop()"))
    assert await page.evaluate("codec()") in ("video/H264", "video/VP8")
    assert min(taken.size) >= 256
    assert taken.fps >= 15  # how many it should be is measured on machines that do nothing else
    delays = taken.mouth_to_ear_ms()
    assert len(delays) > 0, "the voice that came back is not the one that was sent"
    assert 60 < np.median(delays) < 1_000
    assert taken.speech_to_silence() > 1.5, "the lips move in silence as in speech"
    assert len(taken.mouth_to_photon_ms()) > 0, "the lips do not follow the voice"
    await page.evaluate("stop('whep')")
    await viewers_become(plain_server, 0)
    await page.evaluate("stop('whip')")
    patches = [request for request in requests if request.method == "PATCH"]
    assert any("if-match" not in request.headers for request in patches)  # what this client is known for
    calls = [
        request for request in requests if "/foreign/" not in request.url and "favicon" not in request.url
    ]
    for request in calls:
        response = await request.response()
        assert response is not None
        assert response.ok, f"{request.method} {request.url}: {response.status}"
    assert {"POST", "PATCH", "DELETE"} <= {request.method for request in calls}
    await page.context.close()


async def test_the_viewer_page_waits_shows_and_comes_back(
    browser: Browser, server: RunningServer, name: str
) -> None:
    context = await browser.new_context(viewport={"width": 640, "height": 360})
    screen = await context.new_page()
    await screen.goto(f"{server.url}watch/{name}?fit=cover")
    await expect(screen.locator("#message")).to_contain_text("Nobody is on air", timeout=10_000)
    source, _ = await foreign_page(browser, server)
    for _ in range(2):
        await source.evaluate("url => publish(url)", f"{server.url}whip?stream={name}")
        await expect(screen.locator(LIVE)).to_be_attached(timeout=20_000)
        await expect(screen.locator("#message")).to_be_hidden()
        shown = await screen.evaluate(
            "(([v]) => [v.muted, v.paused, v.videoWidth])(document.querySelectorAll('video'))"
        )
        assert shown[:2] == [False, False]
        assert shown[2] >= 256
        picture = await pixels(screen)
        assert picture[..., 3].min() == 255  # all of the window, by fit=cover
        assert picture[..., :3].std() > 20
        await source.evaluate("stop('whip')")
        await expect(screen.locator(WAITING)).to_be_attached(timeout=10_000)
        assert (await pixels(screen))[:40, :, 3].max() == 0  # nothing but what is behind it
    await context.close()
    await source.context.close()
    await viewers_become(server, 0)


async def test_a_browser_source_is_never_given_words(
    browser: Browser, server: RunningServer, name: str
) -> None:
    context = await browser.new_context()
    screen = await context.new_page()
    await screen.add_init_script("window.obsstudio = {}")
    await screen.goto(f"{server.url}watch/{name}")
    await screen.wait_for_timeout(3_000)
    assert (await pixels(screen))[..., 3].max() == 0
    await context.close()


async def test_where_sound_needs_a_click_the_page_says_so(
    browser: Browser, server: RunningServer, name: str
) -> None:
    source, _ = await foreign_page(browser, server)
    await source.evaluate("url => publish(url)", f"{server.url}whip?stream={name}")
    context = await browser.new_context()
    screen = await context.new_page()
    await screen.add_init_script(REFUSE_SOUND)
    await screen.goto(f"{server.url}watch/{name}")
    await expect(screen.locator(LIVE)).to_be_attached(timeout=20_000)
    hint = screen.get_by_role("button", name="Click here or press a key to hear it")
    await expect(hint).to_be_visible()
    assert await screen.evaluate("document.querySelector('video').muted") is True
    await hint.click()
    await expect(hint).to_be_hidden()
    assert await screen.evaluate("document.querySelector('video').muted") is False
    await screen.goto(f"{server.url}watch/{name}?mute=1")
    await expect(screen.locator(LIVE)).to_be_attached(timeout=20_000)
    await expect(hint).to_be_hidden()
    await context.close()
    await source.evaluate("stop('whip')")
    await source.context.close()


# Pictures that were laid out for the cut-out in two seconds.
COUNT = """new Promise((resolve) => {
  const video = document.querySelector("video");
  let count = 0;
  const next = () => { count += 1; video.requestVideoFrameCallback(next); };
  video.requestVideoFrameCallback(next);
  setTimeout(() => resolve(count), 2_000);
})"""


def cut_out(path: Path) -> Path:
    """The astronaut's head and shoulders with nothing behind them."""
    picture = Image.open(ASTRONAUT).convert("RGB")
    width, height = picture.size
    opacity = Image.new("L", picture.size, 0)
    draw = ImageDraw.Draw(opacity)
    draw.ellipse((0.22 * width, 0.02 * height, 0.68 * width, 0.72 * height), fill=255)
    draw.ellipse((0.05 * width, 0.55 * height, 0.85 * width, 1.6 * height), fill=255)
    picture.putalpha(opacity.filter(ImageFilter.GaussianBlur(2)))
    picture.save(path)
    return path


@pytest.mark.skipif(not has_trained_model(), reason="no trained weights: the stand-in draws rectangles")
async def test_a_transparent_portrait_lets_the_background_through(
    browser: Browser, server: RunningServer, name: str, tmp_path: Path
) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        uploaded = await http.post(
            "v1/portraits",
            files={"picture": ("cut-out.png", cut_out(tmp_path / "cut-out.png").read_bytes(), "image/png")},
            data={"by": "Ada Test", "consent": "NASA, public domain: agreed.", "name": "Cut out"},
        )
        assert uploaded.status_code == 201, uploaded.text
        portrait = uploaded.json()["id"]
        source, _ = await foreign_page(browser, server)
        await source.evaluate("url => publish(url)", f"{server.url}whip?stream={name}&portrait={portrait}")
        context = await browser.new_context(viewport={"width": 512, "height": 512})
        screen = await context.new_page()
        await screen.goto(f"{server.url}watch/{name}")
        await expect(screen.locator(f"{LIVE}[data-matte]")).to_be_attached(timeout=20_000)
        assert await screen.evaluate(COUNT) >= 20, "the unseen video gives too few pictures"
        for _ in range(3):
            await screen.wait_for_timeout(1_000)
            opacity = (await pixels(screen))[..., 3]
            assert opacity[10:60, 10:60].max() == 0  # beside the head
            assert opacity[200:300, 200:280].min() == 255  # the face
            assert 0.25 < (opacity == 255).mean() < 0.75
            half = ((opacity > 20) & (opacity < 235)).mean()
            assert half < 0.06  # an edge, not a haze
        await screen.goto(f"{server.url}watch/{name}?matte=0")
        await expect(screen.locator(LIVE)).to_be_attached(timeout=20_000)
        assert (await pixels(screen))[..., 3].min() == 255
        await source.evaluate("stop('whip')")
        await context.close()
        await source.context.close()
        assert (await http.delete(f"v1/portraits/{portrait}")).status_code == 204


def test_the_figures_of_a_source_are_those_of_any_session(server: RunningServer) -> None:
    with urllib.request.urlopen(f"{server.url}openapi.json", timeout=5) as answer:
        paths = json.load(answer)["paths"]
    assert {"/whip", "/whip/{session_id}", "/whep/{stream}", "/whep/{stream}/{viewer_id}"} <= set(paths)
