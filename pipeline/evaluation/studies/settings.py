"""What the studies use: configs/eval/studies.yaml."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """One value per key of configs/eval/studies.yaml, where they are explained."""

    portraits: int
    grid_clips: int
    kokoro_clips: int
    clip_seconds: float
    reading_portraits: int
    babble_voices: int
    snrs_db: list[float]
    peaks_dbfs: list[float]
    bit_rates: list[int]
    rooms: list[list[float]]
    steps: list[int]
    context_frames: list[int]
    long_minutes: float
    slider_values: list[float]
    slider_seeds: int
    blink_minutes: float
    hop_frames: int
    right_frames: int
    max_lag_frames: int
    threads: int
    seed: int

    def __post_init__(self) -> None:
        for name in ("portraits", "grid_clips", "kokoro_clips", "reading_portraits", "babble_voices"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; a study needs at least one.")
        if self.clip_seconds < 3.0:
            raise ValueError(f"clip_seconds is {self.clip_seconds}; it must be at least 3.")
