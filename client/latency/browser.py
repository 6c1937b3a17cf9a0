"""The receiver that counts: headless Chromium with a file as its microphone, timed in the page itself.

The moment of a sound is when the page's own microphone track delivers it, of a picture when the browser expects to
display it, of returned sound when the browser's jitter buffer releases it. Needs Playwright and a Chromium.
"""

from __future__ import annotations

import asyncio
import base64
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from client.audio_file import write_wav
from client.errors import ClientError, ConnectionLostError
from client.latency.adapters import Adapter
from client.latency.chromium import FLAGS, chromium_path, microphone_flags, why_no_driving
from client.latency.network import Profile
from client.latency.probe import Probe
from client.latency.recording import SIDE, Recording
from client.latency.relay import Relay
from client.latency.trace import TIMESTAMP_MODULUS, Trace
from stream.protocol import DATA_CHANNEL_LABEL, SAMPLE_RATE

TAIL_S = 2.0
PROGRESS_S = 0.5
LOWEST_MATCH = 0.3
BLOCK_S = 0.01  # in which Chromium hands sound on
EARLY_S = 0.003  # a packet may leave before the page is told of its sound
GAP_S = 0.03  # of the track's own count, before it is believed
LOCAL_NETWORK = "--disable-features=LocalNetworkAccessChecks"
ORIGIN = "http://localhost:9/"  # never asked: the page is given by the route below, localhost may use the microphone


class BrowserReceiver:
    """As `client.latency.receiver.Receiver`, in Chromium."""

    def __init__(
        self,
        adapter: Adapter,
        probe: Probe,
        *,
        url: str = "",
        profile: Profile | None = None,
        progress: Callable[[float, int, dict[str, Any]], None] = lambda *_: None,
    ) -> None:
        """profile: a bad network between the browser and the server at `url`."""
        self._adapter = adapter
        self._probe = probe
        self._url, self._profile = url, profile
        self._relays: list[Relay] = []
        self._progress = progress
        self._frames: list[tuple[float, npt.NDArray[np.uint8]]] = []
        self._heard: list[list[Any]] = []
        self._spoken: list[list[Any]] = []
        self._size = (0, 0)
        self._trace = Trace()

    async def record(self) -> Recording:
        """Raises a `ClientError` without Playwright or Chromium, and where the server cannot be reached or hangs
        up."""
        if problem := await asyncio.to_thread(why_no_driving):
            raise ClientError(f"--browser needs Playwright. {problem}")
        from playwright.async_api import async_playwright

        chromium = chromium_path()
        if chromium is None:
            raise ClientError(
                "No Chromium was found. Install it: `apt install chromium` or `playwright install chromium`."
            )
        with tempfile.TemporaryDirectory() as folder:
            wav = Path(folder) / "probe.wav"
            await asyncio.to_thread(write_wav, wav, self._probe.pcm)
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(
                    executable_path=chromium,
                    args=[*FLAGS, LOCAL_NETWORK, *microphone_flags(wav, loop=False)],
                )
                try:
                    page = await (await browser.new_context(permissions=["microphone"])).new_page()
                    await page.route(
                        ORIGIN, lambda route: route.fulfill(body="<body></body>", content_type="text/html")
                    )
                    await page.goto(ORIGIN)
                    await page.add_script_tag(path=Path(__file__).with_name("browser.js"))
                    return await self._run(page)
                finally:
                    for relay in self._relays:
                        relay.aclose()
                    await self._adapter.aclose()
                    await browser.close()

    async def _run(self, page: Any) -> Recording:
        about = await self._adapter.about()
        offered_ms = connected_ms = 0.0
        for leg in ("up", "down") if self._adapter.separate else ("both",):
            servers = about.get("ice_servers", [])
            offered_ms, offer = await page.evaluate(
                "([leg, servers, label]) => harness.offer(leg, servers, label)",
                [leg, servers, DATA_CHANNEL_LABEL],
            )
            answer = await self._exchange(offer, leg)
            connected_ms = await page.evaluate("([leg, sdp]) => harness.accept(leg, sdp)", [leg, answer])
        for relay in self._relays:
            relay.impair()
        await page.evaluate("harness.speak()")
        begun_s = asyncio.get_running_loop().time()
        while (passed_s := asyncio.get_running_loop().time() - begun_s) < self._probe.seconds + TAIL_S:
            self._progress(min(passed_s, self._probe.seconds), len(self._frames), {})
            await asyncio.sleep(PROGRESS_S)
            await self._take(page)
            if round(passed_s / PROGRESS_S) % 10 == 0:
                self._trace.chunks += await self._adapter.chunks(self._trace.newest_chunk)
        figures = await self._adapter.figures()
        self._trace.chunks += await self._adapter.chunks(self._trace.newest_chunk)
        return self._recording(offered_ms / 1_000, connected_ms / 1_000, figures, about)

    async def _exchange(self, offer: str, leg: str) -> str:
        if self._profile is None:
            return await self._adapter.exchange(offer, leg)
        relay = Relay.open(self._url, self._profile, leg=len(self._relays))
        self._relays.append(relay)
        return relay.answer(await self._adapter.exchange(relay.offer(offer), leg))

    async def _take(self, page: Any) -> None:
        taken = await page.evaluate("harness.take()")
        if taken["problem"]:
            raise ConnectionLostError(f"The session ended in the browser: {taken['problem']}.")
        for time_ms, gray, rtp, received_ms in taken["frames"]:
            self._trace.displayed[rtp] = time_ms / 1_000
            self._trace.received[rtp] = received_ms / 1_000
            picture = np.frombuffer(base64.b64decode(gray), np.uint8).reshape(SIDE, SIDE)
            self._frames.append((time_ms / 1_000, picture))
        self._heard += taken["heard"]
        self._spoken += taken["spoken"]
        self._trace.sent |= {rtp: time_ms / 1_000 for time_ms, rtp in taken["sent"]}
        self._trace.pings += [(left / 1_000, server, came / 1_000) for left, server, came in taken["pings"]]
        self._size = (taken["size"][0], taken["size"][1])

    def _recording(
        self, offered_s: float, connected_s: float, figures: dict[str, Any], about: dict[str, Any]
    ) -> Recording:
        packet_s, starts, heard = _joined(self._heard)
        spoken = _joined(self._spoken)
        self._trace.sounded_s = sounded(self._trace.sent, spoken)
        frame_s = np.array([time_s for time_s, _ in self._frames])
        order = np.argsort(frame_s, kind="stable")
        return Recording(
            offered_s=offered_s,
            connected_s=connected_s,
            mouth_s=spoken_from(self._probe, *spoken),
            frame_s=frame_s[order],
            gray=np.array([gray for _, gray in self._frames], np.uint8).reshape(-1, SIDE, SIDE)[order],
            packet_s=packet_s,
            packet_start=starts,
            heard=heard,
            trace=self._trace,
            server=figures,
            about=about,
            size=self._size,
        )


def spoken_from(
    probe: Probe, packet_s: npt.NDArray[np.float64], starts: npt.NDArray[np.int64], pcm: npt.NDArray[np.int16]
) -> float:
    """When sample 0 of the probe sounded at the microphone: its place in what the microphone gave, by content, and
    the earliest deliveries, each of which ends when its last sample has sounded. Raises `ClientError` if it is not
    in it."""
    if len(starts) == 0:
        raise ClientError("The browser's microphone gave no sound; nothing was measured.")
    size = 1 << int(np.ceil(np.log2(len(pcm) + len(probe.pcm))))
    product = np.fft.irfft(np.fft.rfft(pcm, size) * np.conj(np.fft.rfft(probe.pcm, size)), size)
    place = int(np.argmax(product))
    most = float(product[place])
    if most < LOWEST_MATCH * float(np.sum(np.square(probe.pcm.astype(float)))):
        raise ClientError("The browser's microphone did not carry the probe; nothing was measured.")
    place -= size * (place > size // 2)  # the page began to listen after the probe had begun
    return float(_origin_s(packet_s, starts, pcm) + place / SAMPLE_RATE)


def sounded(
    sent: dict[int, float],
    spoken: tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int16]],
) -> dict[int, float]:
    """When each sent packet's last sample sounded. The encoder counts the microphone's own blocks of 10 ms, from one
    that is not known: it is the one that lets the quickest packets leave within a block's time of their last sample.
    """
    packet_s, starts, pcm = spoken
    if not sent or len(starts) == 0:
        return {}
    stamps = np.array(list(sent))
    since = (stamps - stamps[0]) % TIMESTAMP_MODULUS / SAMPLE_RATE
    wait_s = np.array(list(sent.values())) - _origin_s(packet_s, starts, pcm) - since
    first_s = np.floor((np.percentile(wait_s, 10) + EARLY_S) / BLOCK_S) * BLOCK_S
    return dict(zip(sent, np.array(list(sent.values())) - (wait_s - first_s), strict=True))


def _origin_s(
    packet_s: npt.NDArray[np.float64], starts: npt.NDArray[np.int64], pcm: npt.NDArray[np.int16]
) -> float:
    """When sample 0 of the microphone sounded, by its quickest deliveries."""
    block = np.diff(np.append(starts, len(pcm)))
    return float(np.percentile(packet_s - (starts + block) / SAMPLE_RATE, 10))


def _joined(
    blocks: list[list[Any]],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int16]]:
    """Arrival in s, first sample and the samples at 48 kHz, in a row by the track's own count; gaps are silent."""
    if not blocks:
        return np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int16)
    rate = int(blocks[0][2])
    pcm = [np.frombuffer(base64.b64decode(data), np.int16) for _, _, _, data in blocks]
    arrived = np.array([time_ms / 1_000 for time_ms, _, _, _ in blocks])
    starts, end = np.zeros(len(blocks), np.int64), 0
    for index, (_, stamp, _, _) in enumerate(blocks):
        counted = round((stamp - blocks[0][1]) * rate / 1e6)
        starts[index] = counted if counted - end > GAP_S * rate else end
        end = int(starts[index]) + len(pcm[index])
    joined = np.zeros(int(starts[-1]) + len(pcm[-1]), np.int16)
    for start, part in zip(starts, pcm, strict=True):
        joined[start : start + len(part)] = part[: len(joined) - start]
    if rate != SAMPLE_RATE:  # of Chromium's made-up microphone
        wanted = np.arange(len(joined) * SAMPLE_RATE // rate) * (rate / SAMPLE_RATE)
        joined = np.interp(wanted, np.arange(len(joined)), joined).astype(np.int16)
        starts = np.round(starts * (SAMPLE_RATE / rate)).astype(np.int64)
    return arrived, starts, joined
