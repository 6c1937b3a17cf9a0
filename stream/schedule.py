"""Which window the model takes next: earliest deadline first; under overload fewer steps, then a skip.

Pure and synchronous. Windows of one session stay in order. Deadlines are monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

# A chunk that would come this late is not worth making when the next one is waiting already.
SKIP_AFTER_S = 0.120
SMOOTHING = 0.1
# While fewer steps are taken nothing is learnt about more of them: forget slowly, so that they are retried.
FORGETTING = 0.98
NO_AUDIO = -1


@dataclass(frozen=True, kw_only=True)
class Job:
    """One window of one session, in slot `slot` of its arena; NO_AUDIO: the state only advances past it."""

    session: str
    index: int
    slot: int
    deadline: float


@dataclass(frozen=True)
class Decision:
    """What to do with `job`: run it with `steps` denoising steps, or only advance the state (steps 0)."""

    job: Job
    steps: int


class Schedule:
    """full_steps: the model's own number of steps; min_steps: what overload may reduce it to."""

    def __init__(self, *, full_steps: int, min_steps: int) -> None:
        self._full = full_steps
        self._min = min(min_steps, full_steps)
        self._queues: dict[str, list[Job]] = {}
        self._step_s: dict[int, float] = {}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def add(self, job: Job) -> None:
        self._queues.setdefault(job.session, []).append(job)

    def forget(self, session: str) -> None:
        self._queues.pop(session, None)

    def observe(self, steps: int, seconds: float) -> None:
        """How long a step took, to judge the next ones."""
        known = self._step_s.get(steps, seconds)
        self._step_s[steps] = known + SMOOTHING * (seconds - known)

    def next(self, now: float) -> Decision | None:
        """The most urgent job, taken off the queue, and what to do with it; None if there is none."""
        heads = [queue[0] for queue in self._queues.values() if queue]
        if not heads:
            return None
        job = min(heads, key=lambda head: head.deadline)
        queue = self._queues[job.session]
        queue.pop(0)
        if job.slot == NO_AUDIO or (queue and now - job.deadline > SKIP_AFTER_S):
            return Decision(job, 0)
        left = job.deadline - now
        for steps in range(self._full, self._min, -1):
            if self._step_s.get(steps, 0.0) <= max(left, 0.0):
                return Decision(job, steps)
            if steps in self._step_s:
                self._step_s[steps] *= FORGETTING
        return Decision(job, self._min)
