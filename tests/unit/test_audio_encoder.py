"""The speech encoder hears nothing of the future, forgets on time, and a window equals the recording."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from pipeline.audio_encoder import SAMPLES_PER_FRAME, AudioEncoder

TINY = Path(__file__).parents[2] / "configs" / "model" / "tiny.yaml"
FRAMES = 48


@pytest.fixture(params=["tiny", "bundled"])
def encoder(request: pytest.FixtureRequest) -> AudioEncoder:
    torch.manual_seed(0)
    sizes = yaml.safe_load(TINY.read_text())["audio_encoder"] if request.param == "tiny" else {}
    return AudioEncoder(**sizes).eval()


def noise(frames: int = FRAMES, seed: int = 1) -> Tensor:
    return torch.randn(1, frames * SAMPLES_PER_FRAME, generator=torch.Generator().manual_seed(seed)) * 0.1


@torch.inference_mode()
def changed_frames(encoder: AudioEncoder, before: Tensor, after: Tensor) -> list[int]:
    difference = (encoder(before) - encoder(after)).abs().amax((0, 2))
    return [frame for frame, value in enumerate(difference.tolist()) if value > 1e-5]


def test_a_feature_hears_its_own_frame_but_not_one_sample_more(encoder: AudioEncoder) -> None:
    pcm = noise()
    future = pcm.clone()
    future[:, 30 * SAMPLES_PER_FRAME :] = 0.9
    assert changed_frames(encoder, pcm, future)[0] == 30
    last = pcm.clone()
    last[:, 31 * SAMPLES_PER_FRAME - 80 : 31 * SAMPLES_PER_FRAME] += 0.5
    assert changed_frames(encoder, pcm, last)[0] == 30


def test_a_feature_forgets_what_lies_before_its_left_context(encoder: AudioEncoder) -> None:
    pcm, left = noise(), encoder.left_context_frames
    past = pcm.clone()
    past[:, : 10 * SAMPLES_PER_FRAME] = noise(10, seed=2)
    changed = changed_frames(encoder, pcm, past)
    assert changed[-1] <= 9 + left, "a feature changed although only audio before its left context did"
    assert changed[-1] >= 9 + left - 1, "the stated left context is over a frame too long"
    assert left <= 16


def test_a_window_gives_the_features_of_the_whole_recording(encoder: AudioEncoder) -> None:
    pcm, left = noise(), encoder.left_context_frames
    with torch.inference_mode():
        whole = encoder(pcm)
        for first in (left, left + 7):
            window = pcm[:, (first - left) * SAMPLES_PER_FRAME : (first + 4) * SAMPLES_PER_FRAME]
            expected = whole[:, first : first + 4]
            torch.testing.assert_close(encoder(window)[:, left:], expected, atol=1e-5, rtol=0)


def test_before_the_first_sample_there_was_silence(encoder: AudioEncoder) -> None:
    pcm = noise(6)
    silence = torch.zeros(1, (encoder.left_context_frames + 3) * SAMPLES_PER_FRAME)
    with torch.inference_mode():
        after_silence = encoder(torch.cat([silence, pcm], 1))[:, -6:]
        torch.testing.assert_close(encoder(pcm), after_silence, atol=1e-5, rtol=0)


def test_one_feature_vector_for_each_frame_of_each_recording(encoder: AudioEncoder) -> None:
    pair = torch.cat([noise(5), noise(5, seed=3)])
    with torch.inference_mode():
        features = encoder(pair)
        assert features.shape == (2, 5, encoder.config.feature_size)
        torch.testing.assert_close(features[1:], encoder(pair[1:]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(1, 641), (1, 0), (640,)])
def test_audio_that_is_not_whole_frames_is_refused(encoder: AudioEncoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be \[batch, samples\] with a positive multiple of 640"):
        encoder(torch.zeros(shape))


def test_saved_and_loaded_it_says_the_same(encoder: AudioEncoder, tmp_path: Path) -> None:
    encoder.save_pretrained(tmp_path)
    loaded = AudioEncoder.from_pretrained(tmp_path, low_cpu_mem_usage=False).eval()
    with torch.inference_mode():
        assert torch.equal(loaded(noise(4)), encoder(noise(4)))


@pytest.mark.parametrize("frames", [3, 12, 40])
@pytest.mark.parametrize("last_frames", [1, 6, 50])
def test_the_last_features_alone_are_the_same(frames: int, last_frames: int) -> None:
    encoder = AudioEncoder(feature_size=8, channels=16)
    pcm = 0.1 * torch.randn(2, frames * SAMPLES_PER_FRAME, generator=torch.Generator().manual_seed(1))
    expected = encoder(pcm)[:, -last_frames:]
    torch.testing.assert_close(encoder(pcm, last_frames), expected)


@pytest.mark.parametrize("hop", [1, 2, 5])
def test_hearing_only_what_is_new_gives_the_features_of_the_whole_recording(
    encoder: AudioEncoder, hop: int
) -> None:
    pcm, first = noise(41), encoder.left_context_frames + 3
    with torch.inference_mode():
        whole = encoder(pcm)
        got, heard = encoder.hear(pcm[:, : first * SAMPLES_PER_FRAME], 3, None)
        parts = [got]
        for start in range(first, 41 - hop, hop):
            new = pcm[:, start * SAMPLES_PER_FRAME : (start + hop) * SAMPLES_PER_FRAME]
            got, heard = encoder.hear(new, hop, heard)
            parts.append(got)
        features = torch.cat(parts, 1)
    expected = whole[:, first - 3 :][:, : features.shape[1]]
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)
