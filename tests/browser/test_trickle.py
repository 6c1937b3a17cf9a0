"""Addresses that are found late, as a relay's are: the offer does not wait for them, and they follow it."""

from __future__ import annotations

import secrets

import pytest
from pages import LIVE, open_page
from playwright.async_api import Browser, Page, Request, expect
from served import RunningServer
from source import killable_source

pytestmark = pytest.mark.timeout(300)  # starting the server is part of the first test

LATE_S = 5.0  # far more than an offer takes on a busy machine
# A network where gathering takes its time: nothing is found before.
SLOW_NETWORK = f"""
const Original = window.RTCPeerConnection;
const later = (call) => (event) => setTimeout(() => call(event), {1_000 * LATE_S:.0f});
const SLOW = ["icecandidate", "icegatheringstatechange"];
window.RTCPeerConnection = class extends Original {{
  #opened = performance.now();
  get #early() {{ return performance.now() - this.#opened < {1_000 * LATE_S:.0f}; }}
  get iceGatheringState() {{ return this.#early ? "gathering" : super.iceGatheringState; }}
  get localDescription() {{
    const {{ type, sdp }} = super.localDescription;
    if (!this.#early) return {{ type, sdp }};
    const lines = sdp.split("\\r\\n").filter((line) => !/^a=(candidate|end-of-candidates)/.test(line));
    return {{ type, sdp: lines.join("\\r\\n") }};
  }}
  addEventListener(kind, call, ...rest) {{
    super.addEventListener(kind, SLOW.includes(kind) ? later(call) : call, ...rest);
  }}
}};
"""


def watch_requests(page: Page) -> list[Request]:
    requests: list[Request] = []
    page.on("request", lambda request: requests.append(request))
    return requests


async def check_trickled(requests: list[Request], path: str) -> None:
    """The offer went without an address; all of them followed, were taken, and ended."""
    offers = [request for request in requests if request.method == "POST" and path in request.url]
    patches = [request for request in requests if request.method == "PATCH"]
    assert len(offers) == 1
    assert b"a=candidate" not in (offers[0].post_data_buffer or b"")
    assert patches
    bodies = [str(request.post_data) for request in patches]
    assert all("a=ice-ufrag:" in body and "a=mid:0" in body for body in bodies)
    assert "a=candidate:" in bodies[0]
    assert "a=end-of-candidates" in bodies[-1]
    for request in patches:
        response = await request.response()
        assert response is not None
        assert response.status == 204


async def test_the_page_tells_late_addresses(browser: Browser, plain_server: RunningServer) -> None:
    page, complaints = await open_page(browser, plain_server.url, scripts=(SLOW_NETWORK,))
    requests = watch_requests(page)
    await page.click("#start")
    async with page.expect_request_finished(
        lambda request: "a=end-of-candidates" in (request.post_data or "") and request.method == "PATCH"
    ):
        await expect(page.locator(LIVE)).to_be_visible(timeout=20_000)
    await check_trickled(requests, "v1/sessions")
    await page.close()
    assert complaints == []


async def test_the_watch_page_tells_late_addresses(browser: Browser, plain_server: RunningServer) -> None:
    name = f"test-{secrets.token_hex(4)}"
    screen = await (await browser.new_context()).new_page()
    await screen.add_init_script(f"(() => {{{SLOW_NETWORK}}})()")
    async with killable_source(plain_server, name):
        requests = watch_requests(screen)
        async with screen.expect_request_finished(
            lambda request: "a=end-of-candidates" in (request.post_data or "") and request.method == "PATCH"
        ):
            await screen.goto(f"{plain_server.url}watch/{name}")
            await expect(screen.locator('body[data-state="live"]')).to_be_attached(timeout=20_000)
        await check_trickled(requests, "/whep/")
        assert all("if-match" in request.headers for request in requests if request.method == "PATCH")
    await screen.close()
