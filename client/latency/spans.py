"""Where the time goes: each chunk's way from the microphone to the screen, cut into spans that follow one another.

The server's record of a chunk and the receiver's notes meet in RTP time stamps; the server's clock is read through
pings. The spans of one chunk end where the next begins, so they sum to its way from the first sample's sound to its
first picture on the screen. What mouth to photon has beyond that way is how long the lips take to open, which is
measured apart: by the same detector, on the same sounds, in frames without any delay.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from client.latency.statistics import summary
from client.latency.trace import TIMESTAMP_MODULUS, Trace
from stream.protocol import FPS, SAMPLE_RATE, ChunkTrace

SPANS = (
    "opus", "window_wait", "capture", "uplink", "buffer", "queue", "features", "denoise", "draw",
    "handover", "playout_wait", "encode", "downlink", "browser_buffer",
)  # fmt: skip
STAGES = ("features", "denoise", "draw")
OPUS_S = 312 / SAMPLE_RATE
"""By which the codec delays sound against its own time stamps (RFC 6716, 2.1.8: a look-ahead of 6.5 ms)."""
FEWEST = 20
FRAME_SAMPLES = SAMPLE_RATE // FPS


def spans_of(chunk: ChunkTrace, trace: Trace, offset_s: float) -> dict[str, float] | None:
    """ms of each span, in their order; None where a part of the way was not seen. offset_s: of the server's clock."""
    sent_s = trace.sent.get(chunk.packet_rtp)
    sounded_s = trace.sounded_s.get(chunk.packet_rtp)
    received_s = trace.received.get(chunk.picture_rtp)
    displayed_s = trace.displayed.get(chunk.picture_rtp)
    if sent_s is None or sounded_s is None or received_s is None or displayed_s is None:
        return None
    waited_s = (chunk.packet_end - chunk.first_frame * FRAME_SAMPLES) / SAMPLE_RATE
    model_s = chunk.started_s + sum(chunk.stages_ms.get(stage, 0.0) for stage in STAGES) / 1_000
    seconds = {
        "opus": OPUS_S,
        "window_wait": waited_s,
        "capture": sent_s - sounded_s,
        "uplink": chunk.arrived_s - offset_s - sent_s,
        "buffer": chunk.complete_s - chunk.arrived_s,
        "queue": chunk.started_s - chunk.complete_s,
        **{stage: chunk.stages_ms.get(stage, 0.0) / 1_000 for stage in STAGES},
        "handover": chunk.made_s - model_s,
        "playout_wait": chunk.shown_s - chunk.made_s,
        "encode": chunk.encoded_s - chunk.shown_s,
        "downlink": received_s - (chunk.encoded_s - offset_s),
        "browser_buffer": displayed_s - received_s,
    }
    return {name: 1_000 * seconds[name] for name in SPANS}


def breakdown(
    trace: Trace, *, from_s: float, mouth_to_photon_ms: float | None, lip_response_ms: float | None
) -> dict[str, Any]:
    """The report's part on spans; {} where the server keeps no records. from_s: start-up is left out.

    remainder_ms: median mouth to photon less the medians of the way and of the lips' own response.
    """
    offset = trace.server_offset()
    if offset is None or not trace.chunks:
        return {}
    offset_s, uncertainty_s = offset
    rows = [
        spans
        for chunk in _consistent(trace.chunks)
        if chunk.shown_s - offset_s >= from_s and (spans := spans_of(chunk, trace, offset_s)) is not None
    ]
    if len(rows) < FEWEST:
        return {"chunks": len(rows), "problem": f"Only {len(rows)} chunks could be followed the whole way."}
    totals = np.array([sum(row.values()) for row in rows])
    typical = rows[int(np.argmin(np.abs(totals - np.median(totals))))]
    found: dict[str, Any] = {
        "chunks": len(rows),
        "clock_uncertainty_ms": round(1_000 * uncertainty_s, 2),
        "spans_ms": {name: summary(np.array([row[name] for row in rows])) for name in SPANS},
        "mean_ms": {name: round(float(np.mean([row[name] for row in rows])), 2) for name in SPANS},
        "way_ms": summary(totals),
        "one_chunk_ms": {name: round(value, 2) for name, value in typical.items()},
    }
    if lip_response_ms is not None:
        found["lip_response_ms"] = round(lip_response_ms, 1)
        if mouth_to_photon_ms is not None:
            rest = mouth_to_photon_ms - float(np.median(totals)) - lip_response_ms
            found["remainder_ms"] = round(rest, 1)
    return found


def _consistent(chunks: list[ChunkTrace]) -> list[ChunkTrace]:
    """Those whose window ended with the packet that is named: where sound was concealed, another one may have."""
    base = [(chunk.packet_rtp - chunk.packet_end) % TIMESTAMP_MODULUS for chunk in chunks]
    values, counts = np.unique(base, return_counts=True)
    usual = values[np.argmax(counts)]
    return [chunk for chunk, start in zip(chunks, base, strict=True) if start == usual]
