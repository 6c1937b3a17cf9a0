"""A recorded MP4 as a player shows it: when it flashes and when it clicks, by content."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from stream.protocol import SAMPLE_RATE

LOUD = 0.03
APART_S = 0.5


class Played:
    """light: mean brightness of each picture, at `times_s`; pcm: float, from its first time stamp (`pcm_start_s`) on.

    A hole in the sound's time stamps is an error: players pass over it.
    """

    def __init__(self, path: Path) -> None:
        light, times = [], []
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                plane = np.frombuffer(frame.planes[0], np.uint8).reshape(-1, frame.planes[0].line_size)
                light.append(float(plane[: frame.height, : frame.width].mean()))
                times.append(float(frame.time or 0.0))
        self.light, self.times_s = np.array(light), np.array(times)
        pieces, expected = [], None
        with av.open(str(path)) as container:
            for sound in container.decode(audio=0):
                assert sound.pts is not None
                assert sound.time_base is not None
                start = round(float(sound.pts * sound.time_base) * SAMPLE_RATE)
                if expected is None:
                    self.pcm_start_s = start / SAMPLE_RATE
                else:
                    assert start == expected, f"the sound jumps from sample {expected} to {start}"
                pieces.append(sound.to_ndarray()[0])
                expected = start + sound.samples
        self.pcm = np.concatenate(pieces)

    def flashes_s(self, level: float = 120.0) -> list[float]:
        """When a bright picture comes after a dark one."""
        bright = self.light > level
        return self.times_s[bright & ~np.concatenate([[False], bright[:-1]])].tolist()

    def clicks_s(self) -> np.ndarray:
        """When sound begins after silence."""
        loud = np.flatnonzero(np.abs(self.pcm) > LOUD) / SAMPLE_RATE + self.pcm_start_s
        return loud[np.concatenate([[True], np.diff(loud) > APART_S])]

    def skews_s(self) -> np.ndarray:
        """Sound after picture, for each flash; every flash has its click."""
        flashes, clicks = np.array(self.flashes_s()), self.clicks_s()
        assert len(flashes) == len(clicks), f"{len(flashes)} flashes, {len(clicks)} clicks"
        return clicks - flashes
