"""The harness against a server whose delays are known. A machine too busy for a microphone measures nothing."""

from __future__ import annotations

import numpy as np
import pytest

from client.latency.adapters import JsonOfferAdapter
from client.latency.lips import find_openings
from client.latency.probe import make_probe
from client.latency.receiver import Receiver
from client.latency.self_test import reference_server, self_test

BUSY_MS = 15.0


async def test_injected_delays_jitter_and_a_mute_are_found() -> None:
    found = await self_test(seconds=12)
    if found.late_ms > BUSY_MS:
        pytest.skip(f"this machine is too busy: the microphone itself was {found.late_ms:.0f} ms late")
    assert found.problems == []
    assert abs(found.slope - 1) <= 0.02
    assert -5 < found.offset_ms < 40, "codecs and loopback: no more, and never less than nothing"
    assert found.offset_spread_ms <= 5
    assert found.offset_uncertainty_ms <= 5
    assert found.mute != "responds"


async def test_a_mouth_in_a_face_is_found() -> None:
    probe = make_probe(seconds=14, seed=4)
    async with reference_server() as url:
        recording = await Receiver(
            JsonOfferAdapter(url, extra={"mouth": True, "delay_ms": 80}), probe
        ).record()
    if 1_000 * np.percentile(recording.late_s, 99) > BUSY_MS:
        pytest.skip("this machine is too busy")
    found, mouth = find_openings(probe, recording)
    assert found.responds, found.reason
    assert mouth is not None
    rows, _ = np.nonzero(mouth.weights)
    assert 38 <= rows.min() <= rows.max() <= 52, "the mouth is drawn at 41 to 49 of 64"
    delay_ms = 1_000 * np.nanmedian(found.time_s - recording.mouth_s - probe.onsets_s)
    assert 150 < delay_ms < 220
