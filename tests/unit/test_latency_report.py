"""From a recording to a report, a page and a comparison; a run that found too little says so."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.errors import ClientError
from client.latency import command, comparison, page, report
from client.latency.measurement import measure
from client.latency.network import PROFILES, Profile, profile
from client.latency.network import Path as NetworkPath
from client.latency.probe import make_probe
from tests.unit.recorded import recorded

PROBE = make_probe(seconds=40, seed=7)


def made(**conditions: Any) -> dict[str, Any]:
    figures = measure(PROBE, recorded(PROBE, **conditions))
    return {
        "schema": report.SCHEMA,
        "provenance": report.provenance({"seed": 7}, {}),
        "budget": {"hop_ms": 80.0, "right_context_ms": 80.0, "floor_ms": 25.0},
        "figures": figures,
    }


def test_figures_are_what_was_put_in() -> None:
    figures = made(photon_s=0.25, ear_s=0.23)["figures"]
    steady = figures["mouth_to_photon_ms"]["steady"]
    assert abs(steady["p50"] - 270) < 6  # a frame that shows the sound begins 20 ms after it on average
    assert abs(figures["mouth_to_ear_ms"]["steady"]["p50"] - 230) < 1
    assert abs(figures["picture_after_sound_ms"]["steady"]["mean"] - 60) < 4
    assert figures["skew_ms"]["steady"] == {"count": 0}, "not known where the lips' own response is not"
    assert figures["mouth_to_photon_ms"]["startup"]["count"] < steady["count"]
    assert abs(figures["frames"]["fps"] - 25) < 0.01
    assert figures["frames"]["freezes"] == 0
    assert figures["problems"] == []


def test_a_freeze_is_counted() -> None:
    recording = recorded(PROBE)
    kept = (recording.frame_s < 120) | (recording.frame_s > 120.6)
    object.__setattr__(recording, "frame_s", recording.frame_s[kept])
    object.__setattr__(recording, "gray", recording.gray[kept])
    frames = measure(PROBE, recording)["frames"]
    assert frames["freezes"] == 1
    assert 560 < frames["frozen_ms"] < 680


def test_a_run_without_a_response_fails_loudly() -> None:
    assert "No response" in made(mute=True)["figures"]["problems"][0]
    few = frozenset(range(8, len(PROBE.onsets_s)))
    assert made(ignored=few)["figures"]["problems"]


def test_a_late_microphone_is_no_measurement() -> None:
    recording = recorded(PROBE)
    object.__setattr__(recording, "late_s", np.full(100, 0.05))
    assert "too busy" in measure(PROBE, recording)["problems"][0]


def test_noise_is_called_noise_and_a_change_a_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, same, slower = made(seed=1), made(seed=2), made(photon_s=0.29, seed=3)
    paths = []
    for name, result in (("a", before), ("b", same), ("c", slower)):
        paths.append(tmp_path / f"{name}.json")
        report.write(result, paths[-1])
    assert comparison.compare(before, same)[0]["verdict"].startswith("noise")
    assert comparison.compare(before, slower)[0]["verdict"].startswith("slower")
    assert comparison.compare(slower, before)[0]["verdict"].startswith("faster")
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert command.run(parser.parse_args(["compare", str(paths[0]), str(paths[2])])) == 0
    assert "slower" in capsys.readouterr().out


def test_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"schema": "other/9"}))
    with pytest.raises(ClientError, match="other/9"):
        report.read(path)
    path.write_text("nothing")
    with pytest.raises(ClientError, match="not JSON"):
        report.read(path)


def test_the_page_needs_nothing_from_elsewhere() -> None:
    result = made()
    text = page.render(result)
    assert not re.search(r"(?:src|href)=|url\(|@import", text)
    assert text.count("<svg") == 5
    assert "mouth to photon" in report.table(result)
    assert "<svg" in page.render_sweep([(0.0, result), (0.01, result)])


@pytest.mark.parametrize("name", PROFILES)
def test_a_network_does_what_its_profile_says_and_again_the_same(name: str) -> None:
    conditions = profile(name, seed=5)
    runs = []
    for _ in range(2):
        path = NetworkPath(conditions, stream=0)
        runs.append([path.pass_on(0.02 * number, 200) for number in range(30_000)])
    assert runs[0] == runs[1]
    there = np.array([np.nan if at is None else at for at in runs[0]])
    assert abs(np.isnan(there).mean() - conditions.loss) < 0.25 * conditions.loss + 0.001
    wait_ms = 1_000 * (there - 0.02 * np.arange(len(there)))
    assert np.nanmin(wait_ms) >= conditions.delay_ms
    assert (
        abs(np.nanmean(wait_ms) - conditions.delay_ms - conditions.jitter_ms) < 2 + 0.2 * conditions.jitter_ms
    )


def test_packets_overtake_only_where_asked() -> None:
    for reorder in (0.0, 0.5):
        path = NetworkPath(Profile(jitter_ms=50, reorder=reorder), stream=1)
        there = [path.pass_on(0.005 * number, 200) or 0.0 for number in range(2_000)]
        assert bool((np.diff(there) < 0).any()) is (reorder > 0)


def test_a_rate_limit_queues_and_then_drops() -> None:
    path = NetworkPath(Profile(rate_kbps=100), stream=0)
    there = [path.pass_on(0.0, 1_250) for _ in range(10)]  # a tenth of a second each
    assert there[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert there[5:] == [None] * 5


def test_an_unknown_profile_is_named() -> None:
    with pytest.raises(ValueError, match="no network profile 'moon'"):
        profile("moon")
    assert profile("lte", loss=0.1).delay_ms == PROFILES["lte"].delay_ms
