"""The whole step: streaming, purity, sessions side by side, look-ahead, checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import checkpoint
from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.denoiser import LEFT_SLOTS
from pipeline.state import Controls, FrameChunk, StreamState
from pipeline.windowing import WindowSpec
from tests.unit.avatar import TINY, plain_portrait, tiny_pipeline
from tests.unit.sounds import tone

PCM = (0.1 * np.random.default_rng(0).standard_normal(640 * 16)).astype(np.float32)


@pytest.fixture(scope="module")
def pipe() -> AvatarPipeline:
    return tiny_pipeline()


def run(pipe: AvatarPipeline, state: StreamState, pcm: np.ndarray, chunks: int) -> list[FrameChunk]:
    made = []
    for index in range(state.chunk_index, state.chunk_index + chunks):
        state, chunk = pipe.step(state, state.window.cut(pcm, index))
        made.append(chunk)
    return made


def latents(chunks: list[FrameChunk]) -> np.ndarray:
    return np.concatenate([chunk.latents for chunk in chunks])


def test_a_step_makes_the_frames_it_says(pipe: AvatarPipeline) -> None:
    window = pipe.window_spec()
    assert window.left_frames == pipe.audio_encoder.left_context_frames + 2
    state = pipe.init_state(plain_portrait(), window=window)
    after, chunk = pipe.step(state, window.cut(PCM, 0))
    assert chunk.first_frame == 0
    assert after.frame_index == 2
    assert chunk.frames.shape == (2, 256, 256, 3)
    assert chunk.frames.dtype == np.uint8
    assert chunk.latents.shape == (2, 12)
    assert np.isfinite(chunk.latents).all()
    assert set(chunk.timings_ms) == {"features", "denoise", "draw"}


def test_an_old_state_stays_valid(pipe: AvatarPipeline) -> None:
    window = pipe.window_spec()
    state = pipe.init_state(plain_portrait(), window=window, seed=3)
    state, _ = pipe.step(state, window.cut(PCM, 0))
    first = run(pipe, state, PCM, 3)
    again = run(pipe, state, PCM, 3)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.latents, other.latents)
        np.testing.assert_array_equal(one.frames, other.frames)


def test_interleaved_sessions_equal_separate_ones(pipe: AvatarPipeline) -> None:
    window, other_pcm = pipe.window_spec(), PCM[::-1].copy()
    starts = [pipe.init_state(plain_portrait(seed=s), window=window, seed=s) for s in (1, 2)]
    separate = [run(pipe, start, pcm, 4) for start, pcm in zip(starts, (PCM, other_pcm), strict=True)]
    states, mixed = list(starts), ([], [])
    for index in range(4):
        for who, pcm in enumerate((PCM, other_pcm)):
            states[who], chunk = pipe.step(states[who], window.cut(pcm, index))
            mixed[who].append(chunk)
    for alone, together in zip(separate, mixed, strict=True):
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one.frames, other.frames)
    assert not np.array_equal(separate[0][0].latents, separate[1][0].latents)


def test_call_is_a_loop_of_step(pipe: AvatarPipeline) -> None:
    window = pipe.window_spec(hop_frames=1, right_frames=1)
    state = pipe.init_state(plain_portrait(), window=window, seed=5)
    stepped = run(pipe, state, PCM[: 640 * 5], 5)
    called = list(pipe(plain_portrait(), PCM[: 640 * 5], sample_rate=16_000, window=window, seed=5))
    assert [chunk.first_frame for chunk in called] == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(latents(stepped), latents(called))


def test_a_recording_is_taken_at_its_own_rate(pipe: AvatarPipeline) -> None:
    """As people have it: stereo, 16 bits, 44.1 kHz. The frames follow what the model would have heard at 16 kHz."""
    sound = tone(0.8, 44_100)
    stereo = np.round(np.stack([sound, -sound], axis=1) * 2**15).astype(np.int16)
    made = list(pipe(plain_portrait(), stereo, sample_rate=44_100))
    wanted = list(pipe(plain_portrait(), tone(0.8, 16_000).astype(np.float32), sample_rate=16_000))
    assert sum(len(chunk.frames) for chunk in made) == 20
    np.testing.assert_allclose(latents(made), latents(wanted), atol=0.02)
    as_if_16_khz = list(pipe(plain_portrait(), sound, sample_rate=16_000))
    assert len(as_if_16_khz) > 2 * len(made)


def test_a_recording_needs_its_rate_and_what_is_wrong_is_said_at_once(pipe: AvatarPipeline) -> None:
    with pytest.raises(TypeError, match="sample_rate"):
        pipe(plain_portrait(), PCM)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="sample_rate is 0"):
        pipe(plain_portrait(), PCM, sample_rate=0)
    with pytest.raises(ValueError, match="int64"):
        pipe(plain_portrait(), PCM.astype(np.int64), sample_rate=16_000)


def test_what_is_no_number_in_a_recording_is_silence(pipe: AvatarPipeline) -> None:
    bad, silent = PCM.copy(), PCM.copy()
    bad[-500:], silent[-500:] = np.nan, 0
    made = [list(pipe(plain_portrait(), pcm, sample_rate=16_000)) for pcm in (bad, silent)]
    for one, other in zip(*made, strict=True):
        np.testing.assert_array_equal(one.frames, other.frames)


def test_what_is_no_number_in_a_window_is_silence(pipe: AvatarPipeline) -> None:
    """Nor does it stay in what a session remembers."""
    bad, silent = PCM.copy(), PCM.copy()
    bad[700:720], silent[700:720] = np.inf, 0
    state = pipe.init_state(plain_portrait(), window=pipe.window_spec())
    np.testing.assert_array_equal(latents(run(pipe, state, bad, 5)), latents(run(pipe, state, silent, 5)))


def test_a_bundled_model_is_loaded_by_its_name(
    pipe: AvatarPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").mkdir()
    pipe.save_pretrained(tmp_path / "weights" / "tiny")
    monkeypatch.setattr(checkpoint.resources, "files", lambda _: tmp_path)
    loaded = AvatarPipeline.from_pretrained("tiny")
    for key, weights in pipe.denoiser.state_dict().items():
        assert torch.equal(loaded.denoiser.state_dict()[key], weights)
    with pytest.raises(
        checkpoint.CheckpointError, match="no bundled model named 'large'; bundled models: tiny"
    ):
        AvatarPipeline.from_pretrained("large")


def test_the_seed_decides_the_motion(pipe: AvatarPipeline) -> None:
    def made(seed: int) -> np.ndarray:
        return latents(list(pipe(plain_portrait(), PCM[:2560], sample_rate=16_000, seed=seed)))

    np.testing.assert_array_equal(made(1), made(1))
    assert not np.allclose(made(1), made(2))


@pytest.mark.parametrize(("hop", "right"), [(1, 1), (2, 1), (2, 2)])
def test_a_chunk_hears_exactly_its_right_context(pipe: AvatarPipeline, hop: int, right: int) -> None:
    window = pipe.window_spec(hop_frames=hop, right_frames=right)
    chunks = 6 // hop
    end = window.end_sample(chunks - 1)

    def made(pcm: np.ndarray) -> np.ndarray:
        state = pipe.init_state(plain_portrait(), window=window)
        return latents(run(pipe, state, pcm, chunks))

    base, beyond, inside = made(PCM), PCM.copy(), PCM.copy()
    beyond[end:] = 0.5
    inside[end - 320 :] = 0.5
    np.testing.assert_array_equal(base, made(beyond))
    changed = np.abs(base - made(inside)).max(1) > 1e-6
    assert changed[-1]
    assert not changed[: len(changed) - hop].any()


def test_style_is_used_and_bounded(pipe: AvatarPipeline) -> None:
    window = pipe.window_spec()
    state = pipe.init_state(plain_portrait(), window=window)
    lively = state.with_controls(Controls(expressiveness=2.0, head_motion=0.0))
    assert not np.allclose(latents(run(pipe, state, PCM, 1)), latents(run(pipe, lively, PCM, 1)))
    with pytest.raises(ValueError, match=r"expressiveness is 3\.0; it must lie between 0 and 2"):
        Controls(expressiveness=3.0)


def test_misplaced_windows_are_refused_and_a_skip_is_possible(pipe: AvatarPipeline) -> None:
    window = pipe.window_spec()
    state = pipe.init_state(plain_portrait(), window=window)
    with pytest.raises(ValueError, match="at chunk 0, but the window is number 1"):
        pipe.step(state, window.cut(PCM, 1))
    _, chunk = pipe.step(state.skip(), window.cut(PCM, 1))
    assert chunk.first_frame == 2
    with pytest.raises(ValueError, match="must hold"):
        pipe.step(state, WindowSpec(left_frames=1).cut(PCM, 0))
    with pytest.raises(ValueError, match=r"pipe.window_spec\(\)"):
        pipe.init_state(plain_portrait(), window=WindowSpec(left_frames=1))
    with pytest.raises(ValueError, match="0 to 2 frames ahead"):
        pipe.window_spec(right_frames=5)


@pytest.mark.parametrize("left_out", [1, 3, 40])
def test_what_was_left_out_is_heard_nevertheless(pipe: AvatarPipeline, left_out: int) -> None:
    """After windows that were left out, the speech is that of the whole window, computed from what is new in it."""
    window = pipe.window_spec()
    rng = np.random.default_rng(3)
    pcm = (0.1 * rng.normal(size=60 * window.hop_samples)).astype(np.float32)
    state = pipe.init_state(plain_portrait(), window=window)
    for index in range(12):
        state, _ = pipe.move(state, window.cut(pcm, index))
    for _ in range(left_out):
        state = state.skip()
    last = window.cut(pcm, state.chunk_index)
    whole = pipe.audio_encoder.hear(
        torch.from_numpy(last.pcm)[None], LEFT_SLOTS + window.hop_frames + window.right_frames, None
    )[0]
    state, _ = pipe.move(state, last)
    assert state.speech is not None
    np.testing.assert_allclose(state.speech.features_1TF, whole, atol=1e-4)
    assert state.unheard_frames == 0


def test_saved_and_loaded_it_makes_the_same_frames(pipe: AvatarPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    loaded = AvatarPipeline.from_pretrained(tmp_path)
    made = [list(each(plain_portrait(), PCM[:2560], sample_rate=16_000)) for each in (pipe, loaded)]
    for one, other in zip(*made, strict=True):
        # The portrait is prepared twice, by as many threads as there are: sums of another order.
        np.testing.assert_allclose(one.latents, other.latents, atol=1e-5)
        assert np.abs(one.frames.astype(int) - other.frames).max() <= 1
    assert not loaded.denoiser.training
    assert len(checkpoint.model_sha256(tmp_path)) == 64
    assert checkpoint.resolve(tmp_path) == tmp_path


def test_damaged_or_incomplete_models_are_refused(pipe: AvatarPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    weights = tmp_path / "denoiser" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(checkpoint.CheckpointError, match="does not match its recorded SHA-256"):
        AvatarPipeline.from_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(checkpoint.CheckpointError, match="is missing"):
        AvatarPipeline.from_pretrained(tmp_path)
    weights.write_bytes(whole)
    (tmp_path / "denoiser" / "more.safetensors").write_bytes(b"")
    with pytest.raises(checkpoint.CheckpointError, match="not listed"):
        AvatarPipeline.from_pretrained(tmp_path)
    (tmp_path / checkpoint.SUMS_NAME).unlink()
    with pytest.raises(checkpoint.CheckpointError, match="has no SHA256SUMS"):
        AvatarPipeline.from_pretrained(tmp_path)
    with pytest.raises(checkpoint.CheckpointError, match="no model at"):
        AvatarPipeline.from_pretrained(tmp_path / "nowhere")


def test_unknown_names_in_a_model_config_are_named(tmp_path: Path) -> None:
    with pytest.raises(checkpoint.CheckpointError, match="no section 'denoizer'"):
        checkpoint.build({"denoizer": {}})
    with pytest.raises(checkpoint.CheckpointError, match="'depth' is not an option of denoiser"):
        checkpoint.build({"denoiser": {"depth": 3}})
    with pytest.raises(checkpoint.CheckpointError, match="no model config"):
        checkpoint.build(tmp_path / "none.yaml")
    with pytest.raises(checkpoint.CheckpointError, match="no bundled model named 'portrait_9'"):
        checkpoint.bundled("portrait_9")


def test_building_is_reproducible_and_leaves_the_global_seed_alone() -> None:
    import torch

    before = torch.random.get_rng_state()
    one, other = (checkpoint.build(TINY).denoiser.state_dict() for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(one[name], other[name]) for name in one)
