"""A page with the WHIP and WHEP clients of npm's `whip-whep`, the RFC's author's own, beside our server."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, Request, Route
from served import ROOT, RunningServer

HERE = Path(__file__).parent
PACKAGE = ROOT / "build" / "npm" / "node_modules" / "whip-whep"


async def foreign_page(browser: Browser, server: RunningServer) -> tuple[Page, list[Request]]:
    """The page, and the list into which its requests to the server are written."""
    if not (PACKAGE / "whip.js").is_file():
        pytest.skip("no npm package whip-whep: `make whip-whep` installs it where there is npm")
    context = await browser.new_context(permissions=["microphone", "camera"])
    page = await context.new_page()
    requests: list[Request] = []
    page.on("request", lambda request: requests.append(request))

    async def page_file(route: Route) -> None:
        name = route.request.url.rsplit("/", 1)[1]
        await route.fulfill(path=(HERE if name.endswith(".html") else PACKAGE) / name)

    await page.route("**/foreign/*", page_file)
    await page.add_init_script(path=HERE / "measure.js")
    await page.goto(f"{server.url}foreign/foreign.html")
    await page.wait_for_function("window.loaded")
    return page, requests
