"""Figures, verdicts, reports and their comparison."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.errors import ClientError
from client.latency import command, page, report
from client.latency.comparison import compare
from client.latency.detection import detect
from client.latency.figures import Spread, figures, verdict
from client.latency.probe import make_probe
from client.latency.relay import Direction, NetworkProfile, Relay, parse_profile
from tests.unit.test_latency_detection import record


def measured(
    delay_s: float | None, *, seed: int = 2, heard_after_s: float = 0.2, **options: Any
) -> dict[str, Any]:
    probe = make_probe(25, seed=seed)
    recording = record(probe, seen_after_s=delay_s, heard_after_s=heard_after_s, **options)
    found = detect(recording, probe)
    return report.build(
        recording=recording, found=found, figures=figures(recording, found), judged=verdict(found),
        settings={"server": "http://here", "seed": seed}, about={}, stats={},
    )  # fmt: skip


def test_percentiles_come_with_intervals_that_shrink_with_the_count() -> None:
    values = np.random.default_rng(0).normal(200, 20, 2_000)
    few, many = Spread.of(values[:20]), Spread.of(values)
    assert few is not None
    assert many is not None
    assert many.p50_low < 200 < many.p50_high
    assert many.p95 == pytest.approx(200 + 1.645 * 20, abs=4)
    assert many.p50_high - many.p50_low < (few.p50_high - few.p50_low) / 3
    assert Spread.of(np.array([np.nan])) is None


def test_a_run_is_reported_with_start_up_and_steady_state_apart() -> None:
    result = json.loads(json.dumps(measured(0.25, without=frozenset({6}))))
    steady = result["figures"]["steady"]["mouth_to_photon_ms"]
    assert result["valid"]
    assert steady["mean"] == pytest.approx(270, abs=6)
    assert (
        steady["count"] + result["figures"]["start_up"]["mouth_to_photon_ms"]["count"]
        == result["figures"]["seen"]
    )
    assert result["figures"]["missed"] == 1
    assert result["figures"]["fps"] == pytest.approx(25, abs=0.1)
    assert result["figures"]["start_up"]["first_frame_ms"] == pytest.approx(500, abs=1)
    assert abs(result["figures"]["drift_ms_per_minute"]) < 40
    text = report.table(result)
    assert "mouth to photon" in text
    assert "1 missed" in text


def test_a_drift_is_a_drift() -> None:
    probe = make_probe(40, seed=2)
    recording = record(probe, seen_after_s=0.25, heard_after_s=0.2)
    start = recording.frame_s[0]
    recording.frame_s = [start + (at - start) * 1.002 for at in recording.frame_s]  # 2 ms later each second
    result = figures(recording, detect(recording, probe))
    assert result["drift_ms_per_minute"] == pytest.approx(120, abs=25)


def test_a_freeze_is_counted() -> None:
    probe = make_probe(20, seed=2)
    recording = record(probe, seen_after_s=0.25, heard_after_s=0.2)
    del recording.frame_s[200:210], recording.gray[200:210]
    result = figures(recording, detect(recording, probe))
    assert result["freezes"]["count"] == 1
    assert result["freezes"]["longest_ms"] == pytest.approx(440, abs=1)


def test_a_mute_portrait_fails_loudly() -> None:
    result = measured(None)
    assert not result["valid"]
    assert result["verdict"].startswith("No response")
    assert "not detected" in report.table(result)
    assert "not measured" in page.page(result)


def test_too_few_detections_fail_loudly() -> None:
    result = measured(0.25, without=frozenset(range(4, 20)))
    assert not result["valid"]
    assert result["verdict"].startswith("Too few detections")


def test_the_page_stands_alone_and_shows_the_figures() -> None:
    text = page.page(measured(0.25))
    assert not re.search(r"(src|href)=|https?://(?!here)|@import|url\(", text)
    assert text.count("<svg") == 5
    assert "nan" not in text.lower()
    assert "<script" not in page.page(measured(0.25) | {"verdict": "<script>alert(1)</script>"})


def test_a_change_is_told_from_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {(c.figure, c.percentile): c for c in compare(measured(0.25, seed=2), measured(0.25, seed=3))}
    assert changes[("mouth to photon", "p50")].is_noise
    changes = {(c.figure, c.percentile): c for c in compare(measured(0.25, seed=2), measured(0.30, seed=3))}
    slower = changes[("mouth to photon", "p50")]
    assert not slower.is_noise
    assert slower.low < 50 < slower.high
    for name, delay_s in (("a", 0.25), ("b", 0.30)):
        (tmp_path / f"{name}.json").write_text(json.dumps(measured(delay_s)))
    arguments = argparse.Namespace(reports=["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")])
    assert command.run(arguments) == 0
    assert ": more" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a report"),
        ('{"kind": "talkalong-latency", "schema": 99}', "schema 99"),
    ],
)
def test_a_file_that_is_no_report_is_said_so(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(ClientError, match=says):
        report.load(path)
    with pytest.raises(ClientError, match="cannot be read"):
        report.load(tmp_path / "none.json")


def test_a_network_profile_is_a_name_or_settings_or_both() -> None:
    assert parse_profile("none") == NetworkProfile()
    assert parse_profile("wifi,loss=0.5").loss == 0.5
    assert parse_profile("wifi,loss=0.5").delay_ms == parse_profile("wifi").delay_ms > 0
    for wrong, says in (
        ("wlan", "no network profile"),
        ("size=3", "has no 'size'"),
        ("loss=2", "between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=says):
            parse_profile(wrong)


def test_a_direction_loses_delays_reorders_and_limits_as_told() -> None:
    times = np.arange(0, 100, 0.02)
    direction = Direction(NetworkProfile(loss=0.05, delay_ms=30, jitter_ms=10, reorder=0.02), seed=1)
    released = [direction.release(at, 200) for at in times]
    kept = [(at, out) for at, out in zip(times, released, strict=True) if out is not None]
    assert 1 - len(kept) / len(times) == pytest.approx(0.05, abs=0.01)
    late = np.array([out - at for at, out in kept])
    assert late.min() >= 0.03
    assert np.median(late) == pytest.approx(0.037, abs=0.004)
    overtaken = np.mean(np.diff([out for _, out in kept]) < 0)
    assert overtaken == pytest.approx(0.02, abs=0.01)
    again = Direction(NetworkProfile(loss=0.05, delay_ms=30, jitter_ms=10, reorder=0.02), seed=1)
    assert [again.release(at, 200) for at in times] == released

    narrow = Direction(NetworkProfile(rate_kbps=100, queue_ms=50), seed=1)
    released = [narrow.release(at, 500) for at in times]  # 200 kbit/s into 100
    assert narrow.lost / narrow.packets == pytest.approx(0.5, abs=0.03)
    assert max(out - at for at, out in zip(times, released, strict=True) if out is not None) < 0.1


def test_a_relay_needs_an_address_to_relay_to() -> None:
    async def answer() -> None:
        async with Relay(up=NetworkProfile(), down=NetworkProfile()) as relay:
            relay.answer("v=0\r\na=candidate:1 1 udp 1 192.0.2.7 5000 typ srflx\r\n")

    import asyncio

    with pytest.raises(ClientError, match="IPv4 address of its own"):
        asyncio.run(answer())
