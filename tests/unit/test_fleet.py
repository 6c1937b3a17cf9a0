"""Sessions stepped as one batch make what each makes alone, also by the wide model; and capacity is counted right."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from pipeline import benchmark, checkpoint
from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.capacity import measure_batches
from pipeline.denoiser import Denoiser
from pipeline.fleet import Fleet
from pipeline.state import Controls
from pipeline.training.settings import model_part
from tests.unit.avatar import TINY, plain_portrait, tiny_pipeline

RNG = np.random.default_rng(0)
WIDE = TINY.with_name("portrait_512.yaml")


def narrow(path: Path) -> AvatarPipeline:
    """The model that a config names, with its depths and its proportions, at a width that a test can pay for."""
    parts = yaml.safe_load(path.read_text())
    tiny = yaml.safe_load(TINY.read_text())
    for name in ("denoiser", "portrait_encoder", "motion_encoder", "frame_decoder", "audio_encoder"):
        kept = {key: parts[name][key] for key in ("layers", "blocks", "context_frames") if key in parts[name]}
        parts[name] = tiny[name] | kept
    parts["denoiser"]["context_frames"] = 8
    return checkpoint.build(parts)


@pytest.mark.parametrize("make", [tiny_pipeline, lambda: narrow(WIDE)], ids=["tiny", "portrait_512"])
@pytest.mark.parametrize(("hop", "right"), [(2, 2), (1, 1)])
def test_a_fleet_makes_what_its_sessions_make_alone(make: object, hop: int, right: int) -> None:
    pipe = make()  # type: ignore[operator]
    window = pipe.window_spec(hop, right)
    pcm = (RNG.standard_normal((3, 16_000)) * [[0.2], [0.001], [0.05]]).astype(np.float32)
    states = [
        pipe.init_state(
            plain_portrait(seed=seed), window=window, seed=seed, controls=Controls(expressiveness=0.5 * seed)
        )
        for seed in range(3)
    ]
    fleet = Fleet(pipe, states)
    for index in range(12 // hop):  # beyond the length of the ring
        windows = [window.cut(sound, index) for sound in pcm]
        seen = fleet.step(windows)
        for place in range(3):
            states[place], motion = pipe.move(states[place], windows[place])
            np.testing.assert_allclose(seen[place].numpy(), motion.z_TD, atol=1e-5)
    assert fleet.settled


def test_a_fleet_keeps_its_sessions_together() -> None:
    pipe = tiny_pipeline()
    window = pipe.window_spec()
    states = [pipe.init_state(plain_portrait(), window=window, seed=seed) for seed in (1, 2)]
    with pytest.raises(ValueError, match="begin together"):
        Fleet(pipe, [states[0], states[1].skip()])
    with pytest.raises(ValueError, match="one gaze"):
        Fleet(pipe, [states[0], states[1].with_controls(Controls(gaze=2.0))])
    fleet, silence = Fleet(pipe, states), np.zeros(0, np.float32)
    with pytest.raises(ValueError, match="are at chunk 0"):
        fleet.step([window.cut(silence, 1)] * 2)


def test_capacity_is_the_largest_batch_that_keeps_up(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny_pipeline()
    now = [0.0]
    real = Fleet.step

    def step(self: Fleet, windows: object) -> object:
        now[0] += 0.030 * len(self)  # two keep up with 80 ms, three do not
        return real(self, windows)  # type: ignore[arg-type]

    monkeypatch.setattr(Fleet, "step", step)
    monkeypatch.setattr("pipeline.capacity.time.perf_counter", lambda: now[0])
    figures = measure_batches(
        pipe, plain_portrait(), [3, 1, 2], hop_frames=2, right_frames=2, steps=1, timed=3
    )
    assert [row["batch"] for row in figures["rows"]] == [1, 2, 3]
    assert [row["keeps_up"] for row in figures["rows"]] == [True, True, False]
    assert figures["sessions_at_25_fps"] == 2
    assert figures["rows"][1]["ms_per_frame"] == pytest.approx(15.0)
    with pytest.raises(ValueError, match="from 1 on"):
        measure_batches(pipe, plain_portrait(), [0], hop_frames=2, right_frames=2, steps=1)


def test_the_command_measures_batches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "tiny")
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    words = ["--model", str(tmp_path / "tiny"), "--seconds", "0.2", "--batch", "1", "4", "--device", "cpu"]
    assert benchmark.run(parser.parse_args(words)) == 0
    batches = json.loads(capsys.readouterr().out)["batches"]
    assert [row["batch"] for row in batches["rows"]] == [1, 4]
    assert all(row["step_ms"]["p50"] > 0 for row in batches["rows"])


def test_the_wide_model_learns_a_step_of_its_teacher() -> None:
    """The same classes and the same loss: one update of the wide denoiser at test width changes its prediction."""
    from pipeline.scheduler import FlowMatchScheduler

    denoiser: Denoiser = narrow(WIDE).denoiser.train().requires_grad_(True)
    assert len(denoiser.blocks) == yaml.safe_load(WIDE.read_text())["denoiser"]["layers"]
    scheduler, optimiser = FlowMatchScheduler(), torch.optim.SGD(denoiser.parameters(), 0.05)
    x0, noise = torch.randn(2, 8, denoiser.latent_size), torch.randn(2, 8, denoiser.latent_size)
    session = denoiser.embed_session(torch.zeros(2, denoiser.latent_size), torch.ones(2, 2))
    losses = []
    for _ in range(2):
        session = denoiser.embed_session(torch.zeros(2, denoiser.latent_size), torch.ones(2, 2))
        audio = denoiser.embed_audio(torch.zeros(2, 12, 32), 2)
        context = denoiser.encode_sequence(x0, audio, session, 2)
        sigma = torch.full((2, 8), 0.5)
        made = denoiser.predict_sequence(
            scheduler.add_noise(x0, noise, sigma[..., None]), sigma, audio, session, context, 2
        )
        loss = (made - x0).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[1] < losses[0]


def test_training_takes_its_networks_from_a_model_config() -> None:
    assert model_part(WIDE, "frame_decoder", latent_size=7)["blocks"] == 6
    assert model_part(WIDE, "frame_decoder", latent_size=7)["latent_size"] == 7
    assert model_part(WIDE, "audio_encoder") == {}
    with pytest.raises(ValueError, match="says nothing of decoder"):
        model_part(WIDE, "decoder")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_captured_step_is_the_step() -> None:
    pipe = tiny_pipeline().to("cuda")
    window = pipe.window_spec()
    states = [pipe.init_state(plain_portrait(seed=s), window=window, seed=s) for s in range(2)]
    pcm = (0.1 * RNG.standard_normal(32_000)).astype(np.float32)
    fleets = [
        Fleet(pipe, [replace(s) for s in states], graphs=graphs, bfloat16=False) for graphs in (True, False)
    ]
    for index in range(12):
        captured, plain = (fleet.step([window.cut(pcm, index)] * 2)[0].clone() for fleet in fleets)
        torch.testing.assert_close(captured, plain, atol=1e-4, rtol=0)
