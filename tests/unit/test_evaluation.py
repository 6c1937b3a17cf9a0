"""The evaluation as a whole, with a tiny model, a built data folder and a judge that knows the answer."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline import checkpoint
from pipeline.evaluation import command, lips, material
from pipeline.evaluation.actors import FrozenActor
from pipeline.evaluation.figures import build_table
from pipeline.evaluation.judging import Judge, JudgeError, Observation, judge_python
from pipeline.evaluation.material import Clip, Sound
from pipeline.evaluation.provenance import machine
from pipeline.evaluation.references import references
from pipeline.evaluation.report import write_report
from pipeline.evaluation.settings import EvaluationSettings
from pipeline.evaluation.study import Cast, evaluate
from pipeline.evaluation.table import Row, Table, at_least, at_most, between
from pipeline.evaluation.takes import Stage
from pipeline.portrait import Portrait
from pipeline.training.settings import load_settings

FRAMES = 30
CONFIGS = Path(__file__).parents[2] / "configs"


class KnowingJudge(Judge):
    """Answers with a face whose mouth opens and closes every 12 frames, whatever it is shown."""

    def __init__(self) -> None:
        self.asked = 0

    def submit(
        self, frames: NDArray[np.uint8], *, embed: Sequence[int] = (), still: bool = False
    ) -> Future[Observation]:
        self.asked += 1
        count, height, width = frames.shape[:3]
        time = np.arange(count)
        mark = np.random.default_rng(0).uniform(0.4, 0.6, (478, 3)) * (width, height, 0)
        points = np.repeat(mark[None], count, axis=0).astype(np.float32)
        points[:, lips.FOREHEAD] = (width / 2, 0.2 * height, 0)
        points[:, lips.CHIN] = (width / 2, 0.8 * height, 0)
        points[:, lips.UPPER_LIP] = (width / 2, 0.6 * height, 0)
        points[:, lips.LOWER_LIP] = points[:, lips.UPPER_LIP]
        points[:, lips.LOWER_LIP, 1] += 0.02 * height * (1 - np.cos(2 * np.pi * time / 12))
        answer: Future[Observation] = Future()
        embeddings = np.ones((len(embed), 128), np.float32)
        answer.set_result(Observation(landmarks=points, embed=tuple(embed), embeddings=embeddings))
        return answer

    def close(self) -> None:
        pass


def settings(**changes: float) -> EvaluationSettings:
    small = EvaluationSettings(
        portraits=1,
        gallery_portraits=0,
        clip_seconds=3.0,
        silence_portraits=1,
        silence_seconds=3.0,
        long_seconds=4.0,
        baseline_portraits=1,
        teacher_clips=1,
        teacher_steps=3,
        hop_frames=2,
        right_frames=2,
        max_lag_frames=4,
        identity_every_frames=10,
        speed_chunks=3,
        threads=1,
        seed=0,
    )
    return replace(small, **changes)  # type: ignore[arg-type]


def portrait() -> Portrait:
    rng = np.random.default_rng(1)
    canvas = rng.integers(0, 255, (256, 256, 3), np.uint8)
    matrix = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    return Portrait(
        name="noise",
        canvas=canvas,
        matrix=matrix,
        crop=canvas,
        alpha=np.ones((256, 256), np.float32),
        sha256="0",
    )


def write_wav(path: Path, pcm: NDArray[np.float32], rate: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray((pcm * 32767).astype(np.int16)[None], layout="mono")
        frame.sample_rate = rate
        container.mux([*stream.encode(frame), *stream.encode(None)])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with 40 Kokoro clips, and a head whose jaw opens the mouth by half a face height."""
    folder = tmp_path / "data"
    (folder / "kokoro").mkdir(parents=True)
    tone = 0.3 * np.sin(np.arange(24_000) * 0.05).astype(np.float32)
    lines = []
    for index in range(40):
        write_wav(folder / "kokoro" / f"{index:05d}_voice.wav", tone, 24_000)
        entry = {
            "file": f"{index:05d}_voice.wav",
            "phonemes": ["^", "b", "a", "m", "$"],
            "durations": [8, 8, 8, 8, 8],
        }
        lines.append(json.dumps(entry))
    (folder / "kokoro" / "part0.jsonl").write_text("\n".join(lines), encoding="utf-8")
    upper_face = [f"{stem}_{side}" for stem in ("eyeBlink", "browInnerUp", "browOuterUp") for side in "LR"]
    names = np.array(["jawOpen", *upper_face, *(f"shape{i}" for i in range(50))])
    neutral, expr = np.zeros((68, 3)), np.zeros((57, 68, 3))
    neutral[27, 1], neutral[8, 1] = 1.0, 0.0
    expr[0, 66, 1] = -1.45 / 2
    np.savez(folder / "ict_facekit.npz", neutral=neutral, expr=expr, names=names)
    (folder / "landmarks_68.json").write_text(json.dumps(list(range(68))), encoding="utf-8")
    return folder


def test_held_out_speech_is_every_20th_clip_with_times_in_frames(data: Path, tmp_path: Path) -> None:
    clips = material.kokoro_clips(data, tmp_path / "none", 6.0, 10)
    assert [clip.name for clip in clips] == ["00019_voice", "00039_voice"]
    assert clips[0].frames == 25
    assert clips[0].closing_sounds == ((3, 9), (13, 19))  # Kokoro counts 50 ms late
    assert clips[0].speech == (3, 19)
    assert clips[0].motion is not None, "motion is made from the phonemes when the training folder has none"


def test_reference_of_synthetic_speech_is_the_gap_of_its_motion(data: Path) -> None:
    motion = np.zeros((25, 62), np.float32)
    motion[10:20, 0] = 0.1
    clip = Clip(name="c", corpus="kokoro", pcm=np.zeros(16_000, np.float32), motion=motion)
    found = references([clip], KnowingJudge(), data)["c"]
    assert found.aperture[15] == pytest.approx(0.05)
    assert found.aperture[0] == 0


def test_missing_speech_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(material.MaterialError, match="no Kokoro speech"):
        material.kokoro_clips(tmp_path, tmp_path, 6.0, 2)


def test_whole_evaluation(data: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)  # two threads wait for each other where other programs are running
    pipe = checkpoint.build(CONFIGS / "model" / "tiny.yaml")
    motion = np.zeros((FRAMES, 62), np.float32)
    motion[:, 0] = 0.04 * (1 - np.cos(2 * np.pi * np.arange(FRAMES) / 12))  # as the judge sees
    pcm = (0.1 * np.random.default_rng(0).standard_normal(FRAMES * 640)).astype(np.float32)
    clip = Clip(
        name="spoken", corpus="kokoro", pcm=pcm, sounds=(Sound(label="b", first=11, last=14),), motion=motion
    )
    cast = Cast(
        portraits=[pipe.prepare(portrait())], grid=[clip], kokoro=[clip], quiet=material.silence(0.8, 0),
        long=material.long_speech([clip], 0.8),
    )  # fmt: skip
    pipe.denoiser.save_pretrained(tmp_path / "teacher")
    evidence = evaluate(
        pipe,
        cast,
        KnowingJudge(),
        settings(),
        data=data,
        runs=tmp_path / "runs",
        teacher=tmp_path / "teacher",
    )
    table = build_table(evidence)
    values = {row.key: row.values.get("model") for row in table.rows}
    assert values["lip_sync_lag_frames_kokoro"] == pytest.approx(0, abs=0.1)
    assert values["lip_sync_correlation_kokoro"] == pytest.approx(1, abs=1e-3)
    assert values["closure_recall_phonemes"] == 1.0
    assert values["identity_median"] == 0.0
    difference = values["streaming_difference"]
    assert difference is not None
    assert difference < 1e-4
    assert values["few_steps_lip_correlation"] == pytest.approx(1, abs=1e-3)

    page = write_report(
        table, evidence, {"model": "tiny", "model_sha256": None, "machine": machine()}, tmp_path / "out"
    )
    report = json.loads((page.parent / "report.json").read_text(encoding="utf-8"))
    assert {row["key"]: row for row in report["rows"]}["identity_median"]["reached"] == "target"
    assert report["provenance"]["machine"]["threads"] >= 1
    assert all(f'src="{name.name}"' in page.read_text(encoding="utf-8") for name in page.parent.glob("*.png"))
    assert "| identity, p95 |" in (page.parent / "model_card.md").read_text(encoding="utf-8")


class BlindJudge(KnowingJudge):
    """Knows the portrait, and finds no face in anything that is performed."""

    def submit(
        self, frames: NDArray[np.uint8], *, embed: Sequence[int] = (), still: bool = False
    ) -> Future[Observation]:
        seen = super().submit(frames, embed=embed, still=still).result()
        if len(frames) > 3:
            seen.landmarks[:], seen.embeddings[:] = np.nan, np.nan
        answer: Future[Observation] = Future()
        answer.set_result(seen)
        return answer


def test_a_face_that_is_lost_is_measured_not_fatal() -> None:
    clip = Clip(name="spoken", corpus="kokoro", pcm=np.zeros(FRAMES * 640, np.float32))
    take = next(iter(Stage(BlindJudge(), 10, {}).takes([(FrozenActor(), portrait(), clip)])))
    assert take.found == 0
    assert lips.hardly_moves(take.aperture)
    assert len(take.identity) == 0
    assert [still.label for still in take.stills] == ["the portrait"]


def test_marks_and_markdown() -> None:
    def row(value: float) -> Row:
        return Row(
            key="k", label="l", values={"model": value}, v0=at_most(1.0), target=between(-0.5, 0.5, "±0.5")
        )

    assert [row(value).mark() for value in (0.2, 0.8, 1.5, float("nan"))] == ["target", "v0", "missed", ""]
    table = Table(rows=[row(1.5), Row(key="free", label="free", values={"model": 3.0})])
    assert [missed.key for missed in table.missed()] == ["k"]
    assert table.to_markdown().splitlines()[2] == "| l | 1.50 | ≤ 1 | ±0.5 | missed |"
    assert str(at_least(0.6)) == "≥ 0.6"


@pytest.mark.parametrize("name", ["default", "quick"])
def test_configs_load(name: str) -> None:
    load_settings(EvaluationSettings, CONFIGS / "eval" / f"{name}.yaml")


def test_settings_too_short_for_the_measures_are_errors() -> None:
    with pytest.raises(ValueError, match="clip_seconds is 1"):
        settings(clip_seconds=1.0)
    with pytest.raises(ValueError, match="nothing to render"):
        settings(portraits=0)


def test_a_judge_without_mediapipe_says_what_it_needs() -> None:
    with Judge(Path(sys.executable)) as judge, pytest.raises(JudgeError, match="mediapipe"):
        judge.observe(np.zeros((1, 8, 8, 3), np.uint8))


def test_a_judge_python_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="no Python at"):
        judge_python(tmp_path / "python")


def test_command_reports_a_missing_model(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words = ["--model", "no_such_model", "--data", str(tmp_path), "--out", str(tmp_path)]
    assert command.run(parser.parse_args(words)) == 2
    assert "no bundled model named 'no_such_model'" in caplog.text
