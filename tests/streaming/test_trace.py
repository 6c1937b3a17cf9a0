"""A session's records of its chunks: whole ways only, in order, and never more than can be kept."""

from __future__ import annotations

import numpy as np

from stream.engine_session import EngineFrames, StepCost
from stream.trace import KEPT, OPEN, Traces

STAGES_MS = {"features": 1.0, "denoise": 2.0}


def made(first_frame: int, *, cost: bool = True) -> EngineFrames:
    spent = StepCost(denoising_steps=2, started_s=10.3, step_ms=20.0, stages_ms=STAGES_MS) if cost else None
    return EngineFrames(
        first_frame=first_frame, frames=np.zeros((1, 2, 2, 3), np.uint8), cost=spent, last=True
    )


def travel(traces: Traces, chunk: int) -> None:
    """A chunk of two frames goes the whole way."""
    frame = 2 * chunk
    traces.packet((960 * chunk, 10.0))
    traces.window(chunk, frame, 960 * (chunk + 1), 10.1)
    traces.made(made(frame), 10.4)
    traces.shown(frame, 3_600 * frame, 10.5)
    traces.sent(3_600 * frame, 77 + 3_600 * frame, 10.6)


def test_a_chunk_is_recorded_when_its_picture_has_left() -> None:
    traces = Traces()
    traces.packet((960, 10.0))
    traces.window(0, 0, 7_680, 10.1)
    traces.made(made(0), 10.4)
    traces.made(made(1, cost=False), 10.45)
    traces.shown(0, 3_600, 10.5)
    assert traces.after(-1) == []
    traces.sent(3_600, 4_242, 10.6)
    (found,) = traces.after(-1)
    assert (found.chunk, found.first_frame, found.packet_rtp, found.packet_end) == (0, 0, 960, 7_680)
    assert (found.arrived_s, found.complete_s, found.started_s, found.made_s) == (10.0, 10.1, 10.3, 10.4)
    assert (found.shown_s, found.encoded_s, found.picture_rtp) == (10.5, 10.6, 4_242)
    assert found.stages_ms == STAGES_MS


def test_a_window_that_concealed_sound_completed_is_not_traced() -> None:
    traces = Traces()
    travel(traces, 0)
    traces.packet(None)
    traces.window(1, 2, 1_920, 10.2)
    traces.made(made(2), 10.4)
    traces.shown(2, 7_200, 10.5)
    traces.sent(7_200, 9_999, 10.6)
    travel(traces, 2)
    assert [trace.chunk for trace in traces.after(-1)] == [0, 2]


def test_gaps_and_unknown_pictures_harm_nothing() -> None:
    traces = Traces()
    traces.made(made(8), 1.0)
    traces.shown(8, 5, 1.0)
    traces.sent(5, 6, 1.0)
    travel(traces, 0)
    traces.sent(0, 88, 11.0)  # again
    assert [trace.picture_rtp for trace in traces.after(-1)] == [77]


def test_only_news_is_told_and_the_oldest_is_forgotten() -> None:
    traces = Traces()
    for chunk in range(KEPT + 5):
        travel(traces, chunk)
    assert [trace.chunk for trace in traces.after(KEPT + 2)] == [KEPT + 3, KEPT + 4]
    kept = traces.after(-1)
    assert len(kept) == KEPT
    assert kept[0].chunk == 5


def test_what_never_arrives_is_forgotten() -> None:
    traces = Traces()
    for chunk in range(OPEN + 1):
        traces.packet((chunk, 10.0))
        traces.window(chunk, 2 * chunk, 960 * chunk, 10.1)
    for frame in (0, 2):
        traces.shown(frame, frame, 10.5)
        traces.sent(frame, frame, 10.6)
    assert [trace.chunk for trace in traces.after(-1)] == [1]
