"""The benchmark's figures are complete and agree with each other; its errors are sentences."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from pipeline import benchmark
from pipeline.runtime import RuntimeConfig, prepare, warm_up
from tests.unit.avatar import tiny_pipeline


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    return parser.parse_args(words)


def test_figures_are_complete_and_consistent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "tiny")
    out = tmp_path / "figures.json"
    args = arguments("--model", str(tmp_path / "tiny"), "--seconds", "0.4", "--steps", "1", "--out", str(out))
    assert benchmark.run(args) == 0
    figures = json.loads(out.read_text())
    assert figures == json.loads(capsys.readouterr().out)
    assert figures["frames"] == 10
    assert figures["config"]["steps"] == 1
    assert figures["rtf"] == pytest.approx(25 / figures["fps"])
    stages = figures["stages_ms"]
    assert set(stages) == {"features", "denoise", "draw"}
    assert figures["step_ms"]["p50"] >= max(stage["p50"] for stage in stages.values()) * 0.5
    assert figures["step_ms"]["p50"] <= figures["step_ms"]["p99"] <= figures["step_ms"]["max"]
    assert figures["machine"]["cpus"] >= 1
    assert len(figures["config"]["model_sha256"]) == 64


def test_a_missing_model_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.run(arguments("--model", "nobody")) == 1
    assert "no bundled model named 'nobody'" in capsys.readouterr().err


def test_runtime_prepares_and_warms_up() -> None:
    pipe = prepare(tiny_pipeline(), RuntimeConfig(device="cpu", dtype="bfloat16", compile=True))
    assert pipe.frame_decoder.dtype.is_floating_point
    assert str(pipe.frame_decoder.dtype) == "torch.float32"
    assert warm_up(pipe, pipe.window_spec(), chunks=2) > 0


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"device": "tpu"}, "choose auto, cpu or cuda"),
        ({"dtype": "int8"}, "choose one of"),
        ({"threads": -1}, "0"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        RuntimeConfig(**wrong)  # type: ignore[arg-type]
