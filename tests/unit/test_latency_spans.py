"""The spans of a chunk's way: they sum to it, and what was not seen, or not what it seems, is left out."""

from __future__ import annotations

import numpy as np
import pytest

from client.latency.report import way_lines
from client.latency.spans import OPUS_S, SPANS, STAGES, breakdown, spans_of
from client.latency.trace import TIMESTAMP_MODULUS, Trace
from stream.protocol import ChunkTrace

SERVER_S = 5_000.0  # the server's clock less ours
MICROPHONE_S = 70.0  # ours, when sample 0 sounded
RTP = TIMESTAMP_MODULUS - 200_000  # of sample 0: it wraps within the run
PICTURES = 17
HOP, RIGHT = 2, 2
STAGES_MS = {"features": 3.0, "denoise": 8.0, "draw": 12.0}
LIPS_MS = 21.0


def followed(chunks: int = 60) -> Trace:
    """A run in which every part of each chunk's way is known, and takes a little longer each third chunk."""
    trace = Trace()
    rng = np.random.default_rng(0)
    for ping in range(12):
        left = 60.0 + ping
        there, back = 0.001 + rng.exponential(0.01, 2) * (ping != 5)
        trace.pings.append((left, left + there + SERVER_S, left + there + back))
    for index in range(chunks):
        first, slow_s = HOP * index, 0.001 * (index % 3)
        end = (first + HOP + RIGHT) * 1_920
        rtp = (RTP + end) % TIMESTAMP_MODULUS
        sounded_s = MICROPHONE_S + end / 48_000
        sent_s = sounded_s + 0.004
        arrived_s = sent_s + 0.003 + slow_s
        started_s = arrived_s + 0.0015
        made_s = started_s + sum(STAGES_MS.values()) / 1_000 + 0.0005
        shown_s = MICROPHONE_S + first / 25 + 0.26
        chunk = ChunkTrace(
            chunk=index, first_frame=first, packet_rtp=rtp, packet_end=end,
            arrived_s=SERVER_S + arrived_s, complete_s=SERVER_S + arrived_s + 0.0005,
            started_s=SERVER_S + started_s, stages_ms=STAGES_MS, made_s=SERVER_S + made_s,
            shown_s=SERVER_S + shown_s, encoded_s=SERVER_S + shown_s + 0.003, picture_rtp=PICTURES + 3_600 * first,
        )  # fmt: skip
        trace.chunks.append(chunk)
        trace.sent[rtp], trace.sounded_s[rtp] = sent_s, sounded_s
        trace.received[chunk.picture_rtp] = shown_s + 0.005 + slow_s
        trace.displayed[chunk.picture_rtp] = shown_s + 0.017 + slow_s
    return trace


def test_spans_follow_one_another_from_the_sound_to_the_screen() -> None:
    trace = followed()
    for chunk in trace.chunks:
        spans = spans_of(chunk, trace, SERVER_S)
        assert spans is not None
        assert tuple(spans) == SPANS
        begun_s = MICROPHONE_S + chunk.first_frame / 25
        assert sum(spans.values()) == pytest.approx(
            1_000 * (trace.displayed[chunk.picture_rtp] - begun_s + OPUS_S), abs=1e-3
        )
        assert {stage: spans[stage] for stage in STAGES} == pytest.approx(STAGES_MS)
        assert spans["window_wait"] == pytest.approx(160.0)
        assert spans["capture"] == pytest.approx(4.0, abs=1e-3)
        assert spans["encode"] == pytest.approx(3.0, abs=1e-3)


@pytest.mark.parametrize("note", ["sent", "sounded_s", "received", "displayed"])
def test_a_part_that_was_not_seen_leaves_the_chunk_out(note: str) -> None:
    trace = followed()
    chunk = trace.chunks[30]
    stamp = chunk.packet_rtp if note in ("sent", "sounded_s") else chunk.picture_rtp
    del getattr(trace, note)[stamp]
    assert spans_of(chunk, trace, SERVER_S) is None
    found = breakdown(trace, from_s=0, mouth_to_photon_ms=None, lip_response_ms=None)
    assert found["chunks"] == len(trace.chunks) - 1


def test_the_breakdown_sums_and_names_the_remainder() -> None:
    trace = followed()
    found = breakdown(trace, from_s=0, mouth_to_photon_ms=330.0, lip_response_ms=LIPS_MS)
    way_ms = 260 + 17 + 1 + 1_000 * OPUS_S  # the median chunk is one millisecond slow
    assert found["way_ms"]["p50"] == pytest.approx(way_ms, abs=0.1)
    assert sum(found["mean_ms"].values()) == pytest.approx(found["way_ms"]["mean"], abs=0.2)
    assert sum(found["one_chunk_ms"].values()) == pytest.approx(found["way_ms"]["p50"], abs=0.2)
    assert found["remainder_ms"] == pytest.approx(330 - way_ms - LIPS_MS, abs=0.2)
    text = "\n".join(way_lines(found))
    assert "the way of 60 chunks" in text
    assert "remainder" in text


def test_start_up_and_chunks_of_other_packets_are_left_out() -> None:
    trace = followed()
    late = breakdown(
        trace, from_s=MICROPHONE_S + 11 / 25 + 0.26, mouth_to_photon_ms=None, lip_response_ms=None
    )
    assert late["chunks"] == len(trace.chunks) - 6
    assert "remainder_ms" not in late
    for index in (9, 20):  # completed by concealed sound: the packet that is named came later
        trace.chunks[index].packet_end -= 960
    whole = breakdown(trace, from_s=0, mouth_to_photon_ms=None, lip_response_ms=None)
    assert whole["chunks"] == len(trace.chunks) - 2


def test_too_few_chunks_are_said_to_be_too_few_and_none_is_nothing() -> None:
    found = breakdown(followed(chunks=5), from_s=0, mouth_to_photon_ms=300.0, lip_response_ms=LIPS_MS)
    assert way_lines(found) == ["Only 5 chunks could be followed the whole way."]
    trace = followed()
    trace.pings.clear()
    assert breakdown(trace, from_s=0, mouth_to_photon_ms=None, lip_response_ms=None) == {}
    assert way_lines({}) == []


def test_the_servers_clock_is_read_from_the_quickest_pings() -> None:
    trace = followed()
    offset = trace.server_offset()
    assert offset is not None
    assert offset[0] == pytest.approx(SERVER_S, abs=0.004)
    assert offset[1] == pytest.approx(0.001, abs=0.0005), "half of the quickest way there and back"
    assert Trace().server_offset() is None
