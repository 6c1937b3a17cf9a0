"""Any packetisation gives the same windows, bit for bit, and they are the windows of the whole recording."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.windowing import AudioWindow, WindowSpec
from stream.resample import Downsampler
from stream.windows import AudioWindower

SPECS = [
    WindowSpec(),
    WindowSpec(hop_frames=1, right_frames=1, left_frames=6),
    WindowSpec(hop_frames=3, right_frames=0, left_frames=0),
]


def pieces(samples: int, seed: int, largest: int) -> Iterator[slice]:
    rng = np.random.default_rng(seed)
    start = 0
    while start < samples:
        size = int(rng.integers(1, largest))
        yield slice(start, start + size)
        start += size


def windowed(pcm: np.ndarray, spec: WindowSpec, cuts: list[slice]) -> list[AudioWindow]:
    windower = AudioWindower(spec)
    windows = [window for cut in cuts for window in windower.push(pcm[cut])]
    return windows + windower.flush()


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("largest", [3, 321, 20_000])
def test_any_packetisation_gives_the_offline_windows(spec: WindowSpec, largest: int) -> None:
    pcm = np.random.default_rng(1).uniform(-1, 1, 16_123).astype(np.float32)
    windows = windowed(pcm, spec, list(pieces(len(pcm), 2, largest)))
    assert [window.index for window in windows] == list(range(spec.chunk_count(len(pcm))))
    for window in windows:
        offline = spec.cut(pcm, window.index)
        assert window.start_sample == offline.start_sample
        np.testing.assert_array_equal(window.pcm, offline.pcm)


def test_a_window_comes_with_its_last_sample_and_not_before() -> None:
    spec = WindowSpec()
    windower = AudioWindower(spec)
    needed = spec.end_sample(0)
    assert windower.push(np.zeros(needed - 1, np.float32)) == []
    assert len(windower.push(np.zeros(1, np.float32))) == 1


def test_flush_of_nothing_is_nothing() -> None:
    assert AudioWindower(WindowSpec()).flush() == []


def test_resampling_does_not_depend_on_packets_and_counts_samples_exactly() -> None:
    pcm = np.random.default_rng(3).integers(-20_000, 20_000, 48_000).astype(np.int16)
    whole, split = Downsampler(), Downsampler()
    expected = np.concatenate([whole.push(pcm), whole.flush()])
    parts = [split.push(pcm[cut]) for cut in pieces(len(pcm), 4, 2_000)]
    np.testing.assert_array_equal(np.concatenate([*parts, split.flush()]), expected)
    assert len(expected) == 16_000


@pytest.mark.parametrize(
    ("hertz", "least_db", "most_db"), [(300, -0.1, 0.1), (5_000, -0.5, 0.2), (9_000, -200, -50)]
)
def test_resampling_keeps_speech_and_removes_what_would_alias(
    hertz: int, least_db: float, most_db: float
) -> None:
    tone = (20_000 * np.sin(2 * np.pi * hertz * np.arange(48_000) / 48_000)).astype(np.int16)
    out = Downsampler().push(tone)[1_000:]
    level_db = 20 * np.log10(np.sqrt(2) * out.std() * 32_768 / 20_000 + 1e-12)
    assert least_db <= level_db <= most_db


def test_a_packet_gives_its_samples_at_once() -> None:
    downsampler = Downsampler()
    assert [len(downsampler.push(np.zeros(960, np.int16))) for _ in range(5)] == [320] * 5
