"""How many sessions are carried, and how that is told: table, verdict, page."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from client.errors import ClientError
from client.latency import load, page
from client.latency.lips import find_openings
from client.latency.probe import make_probe
from client.latency.ramp import Level, Ramp, answered, processes, said
from client.latency.statistics import summary
from stream.protocol import SessionConfig
from tests.unit.recorded import recorded

METRICS = """# HELP talkalong_server_process_cpu_seconds_total Total user and system CPU time spent in seconds.
# TYPE talkalong_server_process_cpu_seconds_total counter
talkalong_server_process_cpu_seconds_total 12.5
talkalong_server_process_resident_memory_bytes 1.5e+08
talkalong_model_process_cpu_seconds_total 99.25
talkalong_model_process_resident_memory_bytes 6.0e+08
talkalong_sessions 2.0
"""


def levels(*miss_ratios: float) -> list[Level]:
    made = []
    for number, ratio in enumerate(miss_ratios, 1):
        level = Level(sessions=number, from_s=20.0 * number, to_s=20.0 * number + 16, due=10_000)
        level.missed = round(ratio * level.due)
        level.cpu = {"server": 0.12 * number, "model": 0.7 * number}
        level.memory_mb = {"server": 150.0, "model": 600.0}
        level.mouth_to_photon_ms = summary(250.0 + 10 * number + np.linspace(-20, 20, 30))
        made.append(level)
    return made


def climbed(*miss_ratios: float) -> Ramp:
    ramp = Ramp("http://localhost:1", sessions=4, seconds=20, config=SessionConfig())
    ramp.levels = levels(*miss_ratios)
    return ramp


@pytest.mark.parametrize(
    ("miss_ratios", "most"),
    [
        ((), 0),
        ((0.02,), 0),
        ((0.0,), 1),
        ((0.0, 0.009, 0.2), 2),
        ((0.0, 0.01, 0.0), 1),  # one percent is too much, and what comes after it does not count
        ((0.0, 0.001, 0.0, 0.0), 4),
    ],
)
async def test_carried_is_the_largest_number_without_a_gap_below(
    miss_ratios: tuple[float, ...], most: int
) -> None:
    assert climbed(*miss_ratios).carried() == most


async def test_a_step_too_short_to_measure_is_refused() -> None:
    with pytest.raises(ClientError, match="too short to measure; take 8 s"):
        Ramp("http://localhost:1", sessions=1, seconds=5, config=SessionConfig())


def test_cpu_and_memory_are_read_from_the_metrics() -> None:
    assert processes(METRICS) == {"server": (12.5, 1.5e8), "model": (99.25, 6.0e8)}
    without_model = "\n".join(line for line in METRICS.splitlines() if "model" not in line)
    assert set(processes(without_model)) == {"server"}
    assert processes("") == {}


def test_delays_are_found_level_by_level_where_a_newcomer_changes_them() -> None:
    probe = make_probe(seconds=44, seed=3)
    alone, crowded = (recorded(probe, photon_s=delay_s, seed=1) for delay_s in (0.25, 0.70))
    joined_s = alone.mouth_s + 22.0
    before, after = alone.frame_s < joined_s, crowded.frame_s >= joined_s
    recording = replace(
        alone,
        frame_s=np.concatenate([alone.frame_s[before], crowded.frame_s[after]]),
        gray=np.concatenate([alone.gray[before], crowded.gray[after]]),
    )
    ramp_levels = [
        Level(sessions=1, from_s=alone.mouth_s + 1, to_s=joined_s - 1),
        Level(sessions=2, from_s=joined_s + 1, to_s=alone.mouth_s + 42),
    ]
    whole, _ = find_openings(probe, recording)
    assert not whole.responds, "there is no common delay"
    asked_s, delays_ms = answered(said(probe, recording), recording, ramp_levels)
    for level, delay_ms in zip(ramp_levels, (270, 720), strict=True):
        inside = (asked_s >= level.from_s) & (asked_s < level.to_s)
        assert np.isfinite(delays_ms[inside]).mean() > 0.8
        assert np.nanmedian(delays_ms[inside]) == pytest.approx(delay_ms, abs=8)


def test_a_recording_that_was_stopped_early_is_asked_for_what_was_said() -> None:
    probe = make_probe(seconds=60, seed=4)
    whole = recorded(probe)
    until = whole.frame_s < whole.mouth_s + 16
    recording = replace(whole, frame_s=whole.frame_s[until], gray=whole.gray[until])
    asked_s, delays_ms = answered(said(probe, recording), recording, [])
    assert 12 < len(asked_s) < 30
    assert np.isfinite(delays_ms).mean() > 0.8
    assert len(said(probe, replace(whole, frame_s=np.zeros(0))).onsets_s) == len(probe.onsets_s)


def test_no_server_and_no_session_are_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    load.add_arguments(parser)
    assert load.run(parser.parse_args(["--sessions", "0"])) == 1
    assert "--sessions is 0; it must be 1 or more." in capsys.readouterr().err
    assert load.run(parser.parse_args(["--server", "http://127.0.0.1:9"])) == 1
    assert "No Talkalong server answers at http://127.0.0.1:9" in capsys.readouterr().err


def result(*miss_ratios: float, stopped_by: str = "") -> dict[str, Any]:
    ramp_levels = levels(*miss_ratios)
    carried = max((level.sessions for level in ramp_levels if level.miss_ratio < 0.01), default=0)
    return {
        "schema": load.SCHEMA,
        "provenance": {"commit": "abc", "machine": {"cpu": "a <processor>"}},
        "carried": carried,
        "stopped_by": stopped_by,
        "levels": [level.to_dict() for level in ramp_levels],
    }


def test_the_table_and_the_verdict_say_what_was_found() -> None:
    assert load.row(levels(0.005)[0]).split() == ["1", "0.50%", "0.12", "0.70", "750", "MB"]
    lines = load.verdict(result(0.0, 0.005, 0.3, stopped_by="With 3 sessions 30% were missed.")).splitlines()
    assert lines[0].split()[:3] == ["1", "260", "278"]
    assert lines[-2] == "With 3 sessions 30% were missed."
    assert lines[-1] == "The server carries 2 sessions with less than 1% missed."
    assert "Not even one session" in load.verdict(result(0.3))


def test_the_page_draws_every_curve_and_needs_nothing_from_elsewhere() -> None:
    text = page.render_load(result(0.0, 0.004, 0.02, stopped_by="Session 4 could not be had: <full>."))
    assert not re.search(r"(?:src|href)=|url\(|@import", text)
    assert "&lt;full&gt;" in text
    assert "a &lt;processor&gt;" in text
    for title in ("Missed deadlines", "Mouth to photon", "CPU", "Memory"):
        assert f"<h2>{title}" in text
    for name in ("server", "model", "p50", "p95"):
        assert name in text
    assert page.render_load(result(0.0)).count("<svg") == text.count("<svg"), "one level is a page, too"
