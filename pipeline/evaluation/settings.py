"""What an evaluation renders: configs/eval/*.yaml."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """One value per key of configs/eval/default.yaml, where they are explained."""

    portraits: int
    gallery_portraits: int
    clip_seconds: float
    silence_portraits: int
    silence_seconds: float
    long_seconds: float
    baseline_portraits: int
    teacher_clips: int
    teacher_steps: int
    hop_frames: int
    right_frames: int
    max_lag_frames: int
    identity_every_frames: int
    speed_chunks: int
    threads: int
    seed: int

    def __post_init__(self) -> None:
        if self.portraits + self.gallery_portraits < 1:
            raise ValueError("portraits and gallery_portraits are both 0, so there is nothing to render.")
        # The correlation needs more frames than lags, the velocity spectrum one whole segment of 3 s.
        for name, least in (("clip_seconds", 3.0), ("silence_seconds", 3.0), ("long_seconds", 4.0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}.")
