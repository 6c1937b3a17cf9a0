"""Where the time goes, in real sessions: the spans sum to what is measured by content, also through losses."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from client.latency.adapters import TalkalongAdapter
from client.latency.lip_response import lip_response_ms
from client.latency.measurement import STARTUP_S, measure
from client.latency.network import Profile
from client.latency.probe import make_probe
from client.latency.receiver import Receiver
from client.latency.recording import Recording
from client.latency.spans import spans_of
from stream.protocol import FPS, ControlValues, SessionConfig
from tests.loopback.on_port import on_a_port

SECONDS = 15.0
LOSS = 0.1
BUSY_MS = 15.0
REMAINDER_MS = 10.0
FRAME_MS = 1_000 / FPS


def require_a_punctual_harness(*recordings: Recording) -> None:
    late_ms = max(1_000 * float(np.percentile(recording.late_s, 99)) for recording in recordings)
    if late_ms > BUSY_MS:
        pytest.skip(f"this machine is too busy: the microphone itself was {late_ms:.0f} ms late")


async def test_spans_sum_to_mouth_to_photon_and_a_lost_packet_leads_nobody_astray() -> None:
    probe = make_probe(seconds=SECONDS, seed=5)
    async with on_a_port() as url:
        response_ms = await lip_response_ms(url, SessionConfig(), probe)
        clean, lossy = (
            Receiver(TalkalongAdapter(url, config=SessionConfig()), probe, profile=profile)
            for profile in (None, Profile(loss=LOSS, seed=3))
        )
        recording, through_losses = await asyncio.gather(clean.record(), lossy.record())
    require_a_punctual_harness(recording, through_losses)

    assert response_ms is not None
    assert abs(response_ms) < FRAME_MS, "a picture as bright as the sound of its own frame is loud"
    figures = await asyncio.to_thread(measure, probe, recording, lip_response_ms=response_ms)
    assert figures["problems"] == []
    way = figures["way"]
    assert way["chunks"] > 0.8 * (SECONDS - STARTUP_S) * FPS / 2
    assert way["clock_uncertainty_ms"] < 10
    assert abs(way["remainder_ms"]) < REMAINDER_MS, way
    # The clocks of both sides are one here, so nothing can be there before it was sent.
    assert all(way["spans_ms"][name]["min"] > -3 for name in ("uplink", "buffer", "handover", "downlink")), (
        way
    )

    offset = through_losses.trace.server_offset()
    assert offset is not None
    chunks = through_losses.trace.chunks
    numbers = [chunk.chunk for chunk in chunks]
    assert numbers == sorted(set(numbers))
    named = [chunk for chunk in chunks if chunk.packet_rtp in through_losses.trace.sent]
    assert len(named) >= 0.95 * len(chunks), "every record names a packet of ours"
    for chunk in named:
        spans = spans_of(chunk, through_losses.trace, offset[0])
        assert spans is None or spans["uplink"] > -5, "no window before its packet"


async def test_lips_that_never_open_have_no_response() -> None:
    probe = make_probe(seconds=12, seed=6)
    still = SessionConfig(controls=ControlValues(expressiveness=0.0))
    async with on_a_port() as url:
        assert await lip_response_ms(url, still, probe) is None
