"""`talkalong bench`: each part is real and complete, a part that fails is told, a change is told from noise."""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.errors import ClientError
from client.latency import bench, bench_parts, bench_report, report
from client.latency.bench_progress import Progress
from client.latency.measurement import measure
from client.latency.probe import make_probe
from stream import media_benchmark
from tests.unit.recorded import recorded

PROBE = make_probe(seconds=30, seed=7)


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(words)


def spent(p50: float) -> dict[str, Any]:
    return {"count": 9, "p50": p50, "p95": 2 * p50, "p99": 3 * p50, "max": 4 * p50, "cpu": p50,
            "parts": [0.98 * p50, p50, p50, 1.02 * p50]}  # fmt: skip


def result(
    *, step_ms: float = 30.0, photon_s: float = 0.25, cores: float = 0.1, seed: int = 0
) -> dict[str, Any]:
    return {
        "schema": bench_report.SCHEMA,
        "provenance": report.provenance({}, {}) | {"model": {"name": "m", "sha256": "0" * 64}},
        "seconds": 100.0,
        "model": {"hop_2_right_2": {"rtf": step_ms / 80, "step_ms": spent(step_ms),
                                    "stages_ms": {"draw": spent(step_ms / 2)},
                                    "config": {"hop_frames": 2, "right_frames": 2}}},
        "media": {"picture": [512, 512], "frames": {"h264": spent(1.4) | {"bytes": 6_000}}, "packets": {},
                  "cores": {"h264": 0.05}},
        "end_to_end": {"default": {"aiortc": {
            "figures": measure(PROBE, recorded(PROBE, photon_s=photon_s, seed=seed)),
            "cores": {"server": cores},
        }}},
        "problems": [],
    }  # fmt: skip


def verdicts(before: dict[str, Any], after: dict[str, Any]) -> dict[str, str]:
    return {entry["figure"]: entry["verdict"] for entry in bench_report.changes(before, after)}


def test_the_media_side_is_timed_part_by_part() -> None:
    found = media_benchmark.run(0.6)
    assert set(found["frames"]) == {"yuv", "h264", "vp8"}
    assert set(found["packets"]) == {"opus_encode", "opus_decode", "level", "resample"}
    for each in (found["frames"], found["packets"]):
        for name, took in each.items():
            assert 0 < took["p50"] <= took["p95"] <= took["p99"] <= took["max"], name
            assert len(took["parts"]) == media_benchmark.PARTS
    assert found["frames"]["yuv"]["count"] == 15
    assert found["packets"]["opus_encode"]["count"] == 30
    frame_ms = found["frames"]["yuv"]["cpu"] + found["frames"]["h264"]["cpu"]
    packet_ms = sum(part["cpu"] for part in found["packets"].values())
    assert found["cores"]["h264"] == pytest.approx((25 * frame_ms + 50 * packet_ms) / 1_000, rel=0.01)
    assert 60 < found["packets"]["opus_encode"]["bytes"] < 200, "48 kbit/s are 120 bytes a packet"
    assert 1_000 < found["frames"]["h264"]["bytes"] < 30_000
    with pytest.raises(ValueError, match="cannot be read"):
        media_benchmark.run(0.6, portrait=Path("nothing.jpg"))


async def test_the_model_is_timed_in_a_process_of_its_own(tiny_model: Path) -> None:
    found = await bench_parts.model(str(tiny_model), hop=1, right=2, seconds=0.8, threads=1)
    assert found["config"]["hop_frames"] == 1
    assert found["config"]["threads"] == 1
    assert found["frames"] == 20
    assert len(found["step_ms"]["parts"]) == 4
    assert set(found["stages_ms"]) == {"features", "denoise", "draw"}


async def test_a_part_that_fails_is_told_and_the_others_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async def media() -> dict[str, Any]:
        return {"picture": [512, 512], "frames": {}, "packets": {}, "cores": {}}

    async def model(name: str, **_: Any) -> dict[str, Any]:
        raise ClientError(f"There is no bundled model named '{name}'.")

    monkeypatch.setattr(bench_parts, "media", media)
    monkeypatch.setattr(bench_parts, "model", model)
    found = await bench.Bench(arguments("--only", "model", "--only", "media", "--model", "nobody")).run()
    assert found["model"] == {}
    assert found["media"]["picture"] == [512, 512]
    assert len(found["problems"]) == len(bench.CHUNKS)
    assert found["problems"][0] == (
        "the model, hop 2 and look-ahead 2: There is no bundled model named 'nobody'."
    )
    assert found["provenance"]["model"] == {"name": "nobody", "sha256": None}
    assert "! the model, hop 2" in bench_report.table(found)


async def test_what_a_process_said_last_is_the_reason() -> None:
    with pytest.raises(ClientError, match="--seconds is -1; it must be positive"):
        await bench_parts.media(-1)


def test_threads_are_the_servers() -> None:
    assert bench_parts.served_threads("default") == 1


def test_the_table_shows_every_part() -> None:
    text = bench_report.table(result() | {"problems": ["the media side: it failed."]})
    for words in ("hop 2, look-ahead 2", "h264, a frame", "default, aiortc", "! the media side: it failed."):
        assert words in text
    assert text.split("\n")[0].endswith(", 100 s"), "the first line is about the machine and the whole run"


def test_a_change_is_told_from_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = result()
    same = verdicts(before, result(step_ms=30.5, seed=2))
    assert same["model, hop 2 right 2: RTF"].startswith("noise")
    assert same["media: h264 p50"].startswith("noise")
    assert same["default, aiortc: mouth to photon p50, ms"].startswith("noise")
    assert same["default, aiortc: cores of the server"] == bench_report.SINGLE
    slower = verdicts(before, result(step_ms=34.0, photon_s=0.29))
    assert slower["model, hop 2 right 2: RTF"].startswith("slower")
    assert slower["default, aiortc: mouth to photon p50, ms"].startswith("slower")
    (rtf,) = (e for e in bench_report.changes(before, result(step_ms=33.0)) if e["figure"].endswith("RTF"))
    assert rtf["percent"] == pytest.approx(10.0)
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, each in zip(paths, (before, result(step_ms=34.0)), strict=True):
        report.write(each, path)
    assert bench.run(arguments("compare", *map(str, paths))) == 0
    assert "slower (in every quarter of the run)" in capsys.readouterr().out


def test_parts_that_only_one_file_has_are_not_compared() -> None:
    before, after = result(), copy.deepcopy(result())
    after["media"], after["model"] = {}, {}
    assert all(figure.startswith("default, aiortc") for figure in verdicts(before, after))
    assert verdicts(before, after)


def test_another_file_is_refused_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"schema": "talkalong-latency/1"}))
    assert bench.run(arguments("compare", str(path), str(path))) == 1
    assert "has the schema 'talkalong-latency/1'" in capsys.readouterr().err
    assert bench.run(arguments("measure")) == 1
    assert "Say `talkalong bench compare" in capsys.readouterr().err


async def test_progress_goes_forward_and_ends_at_all() -> None:
    async with Progress(10.0) as progress:
        shares = []
        for _ in range(3):
            progress.begin("a part", 5.0)
            await asyncio.sleep(0.01)
            shares.append(progress.share())
    assert np.all(np.diff(shares) > 0)
    assert shares[1] == pytest.approx(0.5, abs=0.05)
    assert shares[2] == 1.0
