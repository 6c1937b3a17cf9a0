"""The harness's Chromium receiver, against the reference server with delays that are known."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from client.latency.adapters import JsonOfferAdapter
from client.latency.browser import BrowserReceiver
from client.latency.measurement import measure
from client.latency.network import Profile
from client.latency.probe import make_probe
from client.latency.self_test import reference_server

DELAYS_MS = (0.0, 150.0)
ONE_WAY_MS = 40.0  # of the network in the second run, whose server adds the rest


async def test_chromium_measures_what_was_injected(chromium: str) -> None:
    probe = make_probe(seconds=16, kind="clicks", seed=2, shortest_gap_s=0.35, longest_gap_s=0.6)
    photon, ear = [], []
    async with reference_server() as url:
        for delay in DELAYS_MS:
            network = Profile(delay_ms=ONE_WAY_MS) if delay else None
            own_ms = delay - 2 * ONE_WAY_MS if network else delay
            recording = await BrowserReceiver(
                JsonOfferAdapter(url, extra={"delay_ms": own_ms}), probe, url=url, profile=network
            ).record()
            figures = await asyncio.to_thread(measure, probe, recording)
            if figures["frames"]["jitter_ms"].get("p95", 0) > 25:
                pytest.skip("this machine is too busy for a browser")
            assert figures["problems"] == []
            assert recording.size == (128, 128)
            assert abs(figures["frames"]["fps"] - 25) < 1
            photon.append(figures["mouth_to_photon_ms"]["steady"]["p50"])
            ear.append(figures["mouth_to_ear_ms"]["steady"]["p50"])
    assert abs(np.diff(photon)[0] - 150) < 15, photon
    assert abs(np.diff(ear)[0] - 150) < 25, ear  # Chromium's own jitter buffer settles anew each time
