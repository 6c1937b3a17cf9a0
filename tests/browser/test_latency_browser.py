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

DELAY_MS = 150.0
ONE_WAY_MS = 60.0
HALF_A_FRAME_MS = 20.0
PROBE = make_probe(seconds=18, kind="syllables", seed=2)  # answers of several frames: a browser may drop one


async def measured(
    url: str, *, delay_ms: float = 0.0, network: Profile | None = None
) -> tuple[dict[str, Any], float]:
    """The figures, and how long Chromium itself held a picture back, in ms."""
    adapter = JsonOfferAdapter(url, extra={"delay_ms": delay_ms})
    recording = await BrowserReceiver(adapter, PROBE, url=url, profile=network).record()
    figures = await asyncio.to_thread(measure, PROBE, recording)
    strained = any("too busy to measure" in problem for problem in figures["problems"])
    if strained or figures["frames"]["jitter_ms"].get("p95", 0) > 25:
        pytest.skip("this machine is too busy for a browser")
    assert figures["problems"] == []
    assert recording.size == (128, 128)
    assert abs(figures["frames"]["fps"] - 25) < (1 if network is None else 2)  # what is lost is not shown
    trace = recording.trace
    return figures, 1000 * float(np.median([at - trace.received[rtp] for rtp, at in trace.displayed.items()]))


async def test_chromium_measures_what_was_injected(chromium: str) -> None:
    injected: dict[str, dict[str, Any]] = {
        "nothing": {},
        "delay": {"delay_ms": DELAY_MS},
        "network": {"network": Profile(delay_ms=ONE_WAY_MS, loss=0.01, seed=3)},
    }
    photon, ear = {}, {}
    async with reference_server() as url:
        for name, what in injected.items():
            figures, held_ms = await measured(url, **what)
            # A picture is held for 6 to 56 ms, another time each run: that is Chromium's delay, not what was injected.
            photon[name] = figures["mouth_to_photon_ms"]["steady"]["p50"] - held_ms
            ear[name] = figures["mouth_to_ear_ms"]["steady"]["p50"]
    assert abs(photon["delay"] - photon["nothing"] - DELAY_MS) < HALF_A_FRAME_MS, photon
    # Chromium's own jitter buffer settles anew each time.
    assert abs(ear["delay"] - ear["nothing"] - DELAY_MS) < 25, ear
    # Up and down again, and what a lost packet costs until it is sent anew.
    more = photon["network"] - photon["nothing"] - 2 * ONE_WAY_MS
    assert -HALF_A_FRAME_MS < more < 2 * HALF_A_FRAME_MS, photon
