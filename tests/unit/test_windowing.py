"""Window arithmetic: exact indices, zeros beyond the recording, helpful errors."""

import numpy as np
import pytest

from pipeline.windowing import WindowSpec


def test_exact_sample_indices_of_the_default_window() -> None:
    spec = WindowSpec(hop_frames=2, left_frames=18, right_frames=2)
    assert spec.samples_per_frame == 640
    assert spec.window_samples == 22 * 640
    assert spec.start_sample(0) == -18 * 640
    assert spec.start_sample(9) == 0
    assert spec.end_sample(9) == 22 * 640
    assert list(spec.frames(9)) == [18, 19]
    assert spec.latency_ms == 160.0
    assert WindowSpec(hop_frames=1, right_frames=1).latency_ms == 80.0


@pytest.mark.parametrize(("hop", "right"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 0)])
def test_cut_equals_slicing_a_padded_recording(hop: int, right: int) -> None:
    spec = WindowSpec(hop_frames=hop, left_frames=5, right_frames=right)
    pcm = np.arange(1, 640 * 23 + 100, dtype=np.float32)
    padded = np.concatenate([np.zeros(5 * 640, np.float32), pcm, np.zeros(640 * 40, np.float32)])
    for index in range(spec.chunk_count(len(pcm)) + 2):
        window = spec.cut(pcm, index)
        begin = index * hop * 640
        assert window.start_sample == begin - 5 * 640
        np.testing.assert_array_equal(window.pcm, padded[begin : begin + spec.window_samples])


def test_neighbouring_windows_overlap_by_all_but_the_hop() -> None:
    spec = WindowSpec()
    pcm = np.random.default_rng(0).standard_normal(640 * 60).astype(np.float32)
    first, second = spec.cut(pcm, 7), spec.cut(pcm, 8)
    np.testing.assert_array_equal(first.pcm[spec.hop_samples :], second.pcm[: -spec.hop_samples])


def test_chunk_count_covers_the_last_sample() -> None:
    spec = WindowSpec(hop_frames=2)
    assert [spec.chunk_count(n) for n in (0, 1, 1280, 1281)] == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [({"hop_frames": 0}, "at least one"), ({"right_frames": -1}, "negative"), ({"fps": 30}, "divide evenly")],
)
def test_impossible_sizes_are_refused_with_a_reason(arguments: dict[str, int], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        WindowSpec(**arguments)


def test_stereo_and_negative_indices_are_refused() -> None:
    spec = WindowSpec()
    with pytest.raises(ValueError, match="mono"):
        spec.cut(np.zeros((10, 2), np.float32), 0)
    with pytest.raises(ValueError, match="first one"):
        spec.cut(np.zeros(10, np.float32), -1)
