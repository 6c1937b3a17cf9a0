"""The harness's Chromium receiver, against the reference server with delays that are known."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from client.latency.adapters import JsonOfferAdapter
from client.latency.browser import BrowserReceiver
from client.latency.measurement import measure
from client.latency.network import Profile
from client.latency.probe import make_probe
from client.latency.self_test import reference_server

DELAYS_MS = (0.0, 150.0)
ONE_WAY_MS = 60.0
PROBE = make_probe(seconds=18, kind="syllables", seed=2)  # answers of several frames: a browser may drop one


async def measured(
    url: str, *, delay_ms: float = 0.0, network: Profile | None = None
) -> tuple[dict[str, Any], float]:
    """The figures, and how long Chromium itself held a picture back, in ms."""
    adapter = JsonOfferAdapter(url, extra={"delay_ms": delay_ms})
    recording = await BrowserReceiver(adapter, PROBE, url=url, profile=network).record()
    figures = await asyncio.to_thread(measure, PROBE, recording)
    if figures["frames"]["jitter_ms"].get("p95", 0) > 25:
        pytest.skip("this machine is too busy for a browser")
    assert figures["problems"] == []
    assert recording.size == (128, 128)
    assert abs(figures["frames"]["fps"] - 25) < 1
    trace = recording.trace
    return figures, 1000 * float(np.median([at - trace.received[rtp] for rtp, at in trace.displayed.items()]))


async def test_chromium_measures_what_was_injected(chromium: str) -> None:
    photon, ear = [], []
    async with reference_server() as url:
        for delay in DELAYS_MS:
            figures, held_ms = await measured(url, delay_ms=delay)
            # A picture is held for 6 to 35 ms, another time each run: that is Chromium's delay, not the one injected.
            photon.append(figures["mouth_to_photon_ms"]["steady"]["p50"] - held_ms)
            ear.append(figures["mouth_to_ear_ms"]["steady"]["p50"])
    assert abs(np.diff(photon)[0] - 150) < 15, photon
    assert abs(np.diff(ear)[0] - 150) < 25, ear  # Chromium's own jitter buffer settles anew each time


async def test_a_bad_network_stands_between_chromium_and_the_server(chromium: str) -> None:
    async with reference_server() as url:
        figures, _ = await measured(url, network=Profile(delay_ms=ONE_WAY_MS, loss=0.01, seed=3))
    # Both ways, and what the server itself needs (100 ms), codecs and screen.
    photon = figures["mouth_to_photon_ms"]["steady"]["p50"]
    assert 2 * ONE_WAY_MS + 100 < photon < 2 * ONE_WAY_MS + 220
