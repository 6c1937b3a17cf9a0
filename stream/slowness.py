"""Whether the machine is too slow for a session, by the share of pictures that were not there in time."""

from __future__ import annotations

SLOW = 0.1
FINE = 0.04
STEADY_REPORTS = 4
"""One a second: a single stall is no slow machine, and a single good second no quick one."""
SETTLING_REPORTS = 6
"""While codecs and browsers warm up, pictures are late that will not be later."""


class Slowness:
    """Told once a second; between the two thresholds it stays as it was."""

    def __init__(self) -> None:
        self._reports = 0
        self._against = 0
        self.slow = False

    def judge(self, share: float) -> bool:
        """share: of late pictures in the last seconds, 0 to 1. Whether `slow` has changed."""
        self._reports += 1
        other = share < FINE if self.slow else share >= SLOW and self._reports > SETTLING_REPORTS
        self._against = self._against + 1 if other else 0
        if self._against < STEADY_REPORTS:
            return False
        self.slow, self._against = not self.slow, 0
        return True


def sentence(share: float) -> str:
    """For the person who is heard and seen."""
    percent = max(10, 10 * round(10 * share))
    return (
        f"This machine is too slow for this portrait: {percent} % of the pictures come late. Close what else runs on "
        "it, or use a faster one."
    )
