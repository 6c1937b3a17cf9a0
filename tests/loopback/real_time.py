"""Tests of timing mean nothing on a machine that cannot keep up: they are skipped there, by name."""

from __future__ import annotations

import pytest

ALLOWED_S = 0.2


def require_real_time(*, media_s: float, wall_s: float) -> None:
    """Skips the test if `media_s` of sound and picture took clearly longer than that to come."""
    if wall_s > media_s + ALLOWED_S:
        pytest.skip(f"this machine is too busy: {media_s:.1f} s of media took {wall_s:.1f} s")
