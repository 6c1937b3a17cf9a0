"""The acceptance measurement, by hand on an otherwise idle machine: a browser talks to a server for a minute.

    python tests/browser/acceptance.py [--url http://localhost:8080/] [--seconds 60] [--out acceptance.json]

Without --url it serves the bundled model itself. Everything is measured in the receiving browser: the frame
rate from the pictures that were presented, the delays by content (the loudness at the microphone against the
loudness heard and the lips shown), the skew of sound and picture also from the browser's own playout clock,
which does not depend on how well the model moves the lips.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from measurement import Measurement, summary
from playwright.async_api import Page, async_playwright
from served import ROOT, RunningServer, write_voice

from client.latency.chromium import FLAGS, chromium_path, microphone_flags

SETTLE_S = 3
SKEW_PERIOD_S = 1.0
TARGETS = {"fps": 24.0, "speech_to_silence": 1.5, "skew_ms": 40.0, "mouth_to_photon_ms": 350.0}
# The sender's clock at what is played now, sound less picture: positive when the picture is behind.
SKEW = """async () => {
  let audio = null, video = null;
  for (const item of (await window.connection.getStats()).values()) {
    if (item.type === "inbound-rtp" && item.kind === "audio") audio = item.estimatedPlayoutTimestamp;
    if (item.type === "inbound-rtp" && item.kind === "video") video = item.estimatedPlayoutTimestamp;
  }
  return audio && video ? audio - video : null;
}"""
KEEP_CONNECTION = """
const Original = RTCPeerConnection;
window.RTCPeerConnection = class extends Original {
  constructor(...parts) { super(...parts); window.connection = this; }
};
"""


async def measure(url: str, seconds: float, voice: Path, screenshot: Path | None) -> dict[str, Any]:
    path = chromium_path()
    if path is None:
        raise SystemExit("No Chromium was found. Install it: `apt install chromium`.")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path, args=[*FLAGS, *microphone_flags(voice)]
        )
        context = await browser.new_context(
            permissions=["microphone"], viewport={"width": 1280, "height": 860}
        )
        page = await context.new_page()
        await page.add_init_script(KEEP_CONNECTION)
        await page.add_init_script(path=Path(__file__).with_name("measure.js"))
        await page.goto(f"{url}?measure=1")
        await page.wait_for_selector(".tile[data-id]")
        begun = asyncio.get_running_loop().time()
        await page.click("#start")
        await page.wait_for_selector('#stage[data-state="live"]', timeout=30_000)
        start_ms = 1_000 * (asyncio.get_running_loop().time() - begun)
        await asyncio.sleep(SETTLE_S)
        await page.evaluate("measurement.start()")
        skews = await watch_skew(page, seconds)
        taken = Measurement.of(await page.evaluate("measurement.stop()"))
        figures = await page.locator("#figures").inner_text()
        if screenshot is not None:
            await page.screenshot(path=screenshot)
        await page.click("#start")
        await browser.close()
    return report(taken, skews) | {"start_to_picture_ms": round(start_ms), "page": " ".join(figures.split())}


async def watch_skew(page: Page, seconds: float) -> list[float]:
    skews: list[float] = []
    for _ in range(round(seconds / SKEW_PERIOD_S)):
        await asyncio.sleep(SKEW_PERIOD_S)
        value = await page.evaluate(SKEW)
        if value is not None:
            skews.append(float(value))
    return skews


def report(taken: Measurement, skews: list[float]) -> dict[str, Any]:
    return {
        "fps": round(taken.fps, 2),
        "longest_gap_ms": round(taken.longest_gap_ms),
        "picture": "x".join(str(side) for side in taken.size),
        "speech_to_silence": round(taken.speech_to_silence(), 2),
        "mouth_to_ear_ms": summary(taken.mouth_to_ear_ms()),
        "mouth_to_photon_ms": summary(taken.mouth_to_photon_ms()),
        "picture_after_sound_ms": {
            "by_content": summary(taken.picture_after_sound_ms()),
            "by_playout_clock": summary(np.array(skews)),
        },
    }


def verdicts(figures: dict[str, Any]) -> dict[str, bool]:
    """Each target of the acceptance, met or not; a figure that could not be measured is not met."""
    skew_ms = figures["picture_after_sound_ms"]["by_playout_clock"]["p50"]
    return {
        "frame rate": figures["fps"] >= TARGETS["fps"],
        "lips move with speech, rest in silence": figures["speech_to_silence"]
        >= TARGETS["speech_to_silence"],
        "own voice comes back": figures["mouth_to_ear_ms"]["count"] > 0,
        "sound and picture in sync": abs(skew_ms) <= TARGETS["skew_ms"],
        "mouth to photon": figures["mouth_to_photon_ms"]["p50"] <= TARGETS["mouth_to_photon_ms"],
    }


def provenance() -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "commit": commit.stdout.strip(),
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure a server in a real browser.")
    parser.add_argument(
        "--url", help="a running server (default: serve the bundled model for the measurement)"
    )
    parser.add_argument(
        "--stand-in", action="store_true", help="serve no model but a picture as bright as the voice"
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--screenshot", type=Path, help="write a picture of the page at the end")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        voice = write_voice(folder / "voice.wav")
        figures = provenance()
        if args.url:
            url = args.url.rstrip("/") + "/"
            figures |= asyncio.run(measure(url, args.seconds, voice, args.screenshot))
        else:
            server = RunningServer(folder, stand_in=args.stand_in or None)
            try:
                server.wait_until_ready()
                figures |= {"model": server.model}
                figures |= asyncio.run(measure(server.url, args.seconds, voice, args.screenshot))
            finally:
                server.close()
    figures["met"] = verdicts(figures)
    text = json.dumps(figures, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")
    return 0 if all(figures["met"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
