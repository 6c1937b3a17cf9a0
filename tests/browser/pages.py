"""Pages as tests open them, and what browsers do to pages: hide them, hold sound back, refuse to play."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect
from served import RunningServer

MEASURE = Path(__file__).parent / "measure.js"
LIVE = '#stage[data-state="live"]'
IDLE = '#stage[data-state="idle"]'
TRIED_MS = 150_000
"""Until a picture was tried out, where what tries it must first be started, at a low priority, beside other tests."""
RECONNECTING = '#stage[data-state="reconnecting"]'

# A tab that can be hidden: nothing is painted there, and timers are slow.
HIDEABLE = """
let hidden = false;
const waiting = [];
const paint = HTMLVideoElement.prototype.requestVideoFrameCallback;
const later = window.setTimeout;
Object.defineProperty(document, "hidden", { get: () => hidden });
Object.defineProperty(document, "visibilityState", { get: () => (hidden ? "hidden" : "visible") });
HTMLVideoElement.prototype.requestVideoFrameCallback = function (callback) {
  const wrapped = (...parts) => { if (hidden) waiting.push(() => paint.call(this, wrapped)); else callback(...parts); };
  return paint.call(this, wrapped);
};
window.setTimeout = (call, ms = 0, ...rest) => later(call, hidden ? Math.max(ms, 1_000) : ms, ...rest);
window.setHidden = (value) => {
  hidden = value;
  if (!hidden) for (const go of waiting.splice(0)) go();
  document.dispatchEvent(new Event("visibilitychange"));
};
"""
# Microphones whose track a test can reach.
KEEP_TRACK = """
const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (constraints) => {
  const stream = await open(constraints);
  [window.track] = stream.getAudioTracks();
  return stream;
};
window.setMuted = (muted) => {
  Object.defineProperty(window.track, "muted", { get: () => muted, configurable: true });
  window.track.dispatchEvent(new Event(muted ? "mute" : "unmute"));
};
"""
# What browsers do with sound before the first click. Their own rule is of no use here: each look of Playwright's at the
# page counts as a click.
REFUSE_SOUND = """
const play = HTMLMediaElement.prototype.play;
let clicked = false;
addEventListener("pointerdown", () => { clicked = true; }, true);
HTMLMediaElement.prototype.play = function () {
  const allowed = this.muted || clicked;
  return allowed ? play.call(this) : Promise.reject(new DOMException("no click yet", "NotAllowedError"));
};
"""
# An iPhone that saves its battery plays nothing at all before a tap, whatever the element's attributes say.
REFUSE_PICTURES = (
    REFUSE_SOUND.replace("this.muted || clicked", "clicked")
    + """
const source = Object.getOwnPropertyDescriptor(HTMLMediaElement.prototype, "srcObject");
Object.defineProperty(HTMLMediaElement.prototype, "srcObject", {
  get: source.get,
  set(stream) {
    this.removeAttribute("autoplay");
    source.set.call(this, stream);
  },
});
"""
)
# Pictures presented, and how far apart the brightest and the darkest of them are, over three seconds.
WATCHED = """new Promise((resolve) => {
  const video = document.querySelector("#video");
  const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const levels = [];
  const look = () => {
    context.drawImage(video, 0, 0, 1, 1);
    levels.push(context.getImageData(0, 0, 1, 1).data[1]);
    video.requestVideoFrameCallback(look);
  };
  video.requestVideoFrameCallback(look);
  setTimeout(() => resolve([levels.length, Math.max(...levels) - Math.min(...levels)]), 3_000);
})"""


async def open_page(
    browser: Browser, url: str, *, microphone: bool = True, scripts: tuple[str, ...] = ()
) -> tuple[Page, list[str]]:
    """A page whose gallery is filled, and the list into which its errors are written. scripts: run before its own."""
    context = await browser.new_context(permissions=["microphone"] if microphone else [])
    page = await context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.add_init_script(path=MEASURE)
    for script in scripts:
        await page.add_init_script(f"(() => {{{script}}})()")
    await page.goto(url)
    await expect(page.locator(".tile[data-id]").first).to_be_visible(timeout=15_000)
    return page, complaints


async def go_live(page: Page) -> None:
    await page.click("#start")
    await expect(page.locator(LIVE)).to_be_visible(timeout=20_000)


async def choose_sample(page: Page) -> None:
    await page.get_by_text("Sample voice", exact=True).click()


def sessions_open(server: RunningServer) -> int:
    with urllib.request.urlopen(f"{server.url}healthz", timeout=5) as answer:
        return int(json.load(answer)["sessions"])


async def sessions_become(server: RunningServer, count: int) -> None:
    for _ in range(100):
        if await asyncio.to_thread(sessions_open, server) == count:
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"the server still has {sessions_open(server)} sessions, not {count}")
