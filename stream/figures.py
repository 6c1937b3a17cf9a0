"""Running figures of one session: counts, and what the last seconds were like."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

import numpy as np

from stream.engine_messages import StepCost

STEPS_KEPT = 500
RECENT_S = 10


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Counters at one time, to take differences from."""

    at: float
    frames_sent: int
    due_frames: int
    missed_frames: int
    packets_received: int
    packets_lost: int


class Figures:
    """Step times and a short history of counters (one moment a second)."""

    def __init__(self) -> None:
        self._steps_ms: deque[float] = deque(maxlen=STEPS_KEPT)
        self._stages_ms: dict[str, float] = {}
        self._moments: deque[Moment] = deque(maxlen=RECENT_S + 1)
        self.denoising_steps = 0
        self.reported: Counter[str] = Counter()

    def step(self, cost: StepCost) -> None:
        self._steps_ms.append(cost.step_ms)
        self._stages_ms = cost.stages_ms
        self.denoising_steps = cost.denoising_steps

    def moment(self, moment: Moment) -> None:
        self._moments.append(moment)

    def step_ms(self) -> dict[str, float]:
        if not self._steps_ms:
            return {}
        p50, p99 = np.percentile(self._steps_ms, [50, 99])
        return {"p50": round(float(p50), 1), "p99": round(float(p99), 1)}

    def stages_ms(self) -> dict[str, float]:
        return {name: round(value, 2) for name, value in self._stages_ms.items()}

    def fps_sent(self) -> float:
        """Over the last two seconds."""
        recent = list(self._moments)[-3:]
        if len(recent) < 2 or recent[-1].at <= recent[0].at:
            return 0.0
        return (recent[-1].frames_sent - recent[0].frames_sent) / (recent[-1].at - recent[0].at)

    def miss_ratio(self) -> float:
        return self._ratio("missed_frames", "due_frames")

    def loss_ratio(self) -> float:
        lost = self._difference("packets_lost")
        return lost / max(lost + self._difference("packets_received"), 1)

    def _ratio(self, part: str, whole: str) -> float:
        return self._difference(part) / max(self._difference(whole), 1)

    def _difference(self, name: str) -> int:
        if len(self._moments) < 2:
            return 0
        return int(getattr(self._moments[-1], name) - getattr(self._moments[0], name))

    def fresh(self, totals: dict[str, float]) -> dict[str, float]:
        """What each total has grown by since the last call (for the process-wide metrics)."""
        grown = {name: max(total - self.reported[name], 0) for name, total in totals.items()}
        self.reported.update(grown)
        return grown
