"""The page in a real Chromium, in whatever network this process is in, with the sample voice; the outcome as JSON.

python -m tests.network.visitor URL
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from playwright.async_api import async_playwright, expect

from client.latency.chromium import FLAGS, chromium_path

KEEP_CONNECTION = """
const Original = RTCPeerConnection;
globalThis.RTCPeerConnection = class extends Original {
  constructor(...parts) { super(...parts); globalThis.kept = this; }
};
"""
LOOK = """async () => {
  const stats = [...(await kept.getStats()).values()];
  const of = (id) => stats.find((item) => item.id === id);
  const pair = of(stats.find((item) => item.type === "transport").selectedCandidatePairId);
  const incoming = (kind) => stats.find((item) => item.type === "inbound-rtp" && item.kind === kind);
  return {
    credentials: kept.getConfiguration().iceServers.filter((server) => server.credential).length,
    gathered: stats.filter((item) => item.type === "local-candidate").map((item) => item.candidateType),
    pair: [of(pair.localCandidateId).candidateType, of(pair.remoteCandidateId).candidateType],
    frames: incoming("video").framesDecoded,
    energy: incoming("audio").totalAudioEnergy,
  };
}"""


async def visit(url: str) -> dict[str, Any]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium_path(), args=list(FLAGS))
        page = await browser.new_page()
        await page.add_init_script(KEEP_CONNECTION)
        await page.goto(url)
        await expect(page.locator(".tile[data-id]").first).to_be_visible(timeout=15_000)
        await page.get_by_text("Sample voice", exact=True).click()
        await page.click("#start")
        await expect(page.locator('#stage[data-state="live"]')).to_be_visible(timeout=20_000)
        await page.wait_for_timeout(4_000)
        outcome: dict[str, Any] = await page.evaluate(LOOK)
        await browser.close()
        return outcome


if __name__ == "__main__":
    print(json.dumps(asyncio.run(visit(sys.argv[1]))))
