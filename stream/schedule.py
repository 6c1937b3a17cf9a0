"""Which window the model takes next: earliest deadline first; under overload fewer steps, then windows left out.

Where there is more to do than time, a window is begun only if it can be done in time, judged by what steps took of
late: one that cannot is left out at once, so that the next one is in time. Work that comes too late makes what waits
behind it late, too. Equal windows whose deadlines come in the order of their arrival are best served so. Where there is
time enough, the lateness of one passes: it is made as long as any of its frames will be seen.

Pure and synchronous. Windows of one session stay in order. Deadlines are monotonic seconds.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass, field

REMEMBERED = 15
"""Steps whose median says how fast the machine is just now: a stall among them changes nothing."""
BUSIEST = 0.9
"""Share of the time that the windows may take before there is more to do than time."""
RETRY_AFTER = 8
"""Windows left out in a row: after so many of all sessions one is made however late, or nothing more would be learnt of
what a step takes, and a picture that is late is better than none; after so many of one session it comes first."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One window of one session. deadline: when its first frame is due. useful_s: how long after it the chunk still
    shows something. pcm: its sound as it came; without any the state only advances past it."""

    session: str
    index: int
    deadline: float
    pcm: bytes
    useful_s: float = 0.0


@dataclass(frozen=True)
class Decision:
    """What to do with `job`: run it with `steps` denoising steps, or only advance the state (steps 0)."""

    job: Job
    steps: int


@dataclass
class _Queue:
    """Of one session. left_out: windows in a row. last, period: deadline of its last window, and time between two."""

    jobs: deque[Job] = field(default_factory=deque)
    left_out: int = 0
    last: float = -math.inf
    period: float = 0.0

    def add(self, job: Job) -> None:
        if self.last > -math.inf:
            self.period = job.deadline - self.last
        self.last = job.deadline
        self.jobs.append(job)

    @property
    def starves(self) -> bool:
        return self.left_out >= RETRY_AFTER

    @property
    def next_deadline(self) -> float:
        return self.jobs[0].deadline if self.jobs else self.last + self.period


class Schedule:
    """full_steps: the model's own number of steps; min_steps: what overload may reduce it to."""

    def __init__(self, *, full_steps: int, min_steps: int) -> None:
        self._full = full_steps
        self._min = min(min_steps, full_steps)
        self._queues: dict[str, _Queue] = {}
        self._once_s: deque[float] = deque(maxlen=REMEMBERED)
        self._pass_s: deque[float] = deque(maxlen=REMEMBERED)
        self._left_out = 0  # in a row

    def __len__(self) -> int:
        return sum(len(queue.jobs) for queue in self._queues.values())

    def add(self, job: Job) -> None:
        self._queues.setdefault(job.session, _Queue()).add(job)

    def forget(self, session: str) -> None:
        self._queues.pop(session, None)

    def observe(self, steps: int, once_s: float, denoising_s: float) -> None:
        """How long a step took, to judge the next ones: what is done once in it, and its denoising steps."""
        self._once_s.append(once_s)
        self._pass_s.append(denoising_s / steps)

    def expected_s(self, steps: int) -> float:
        """What a step takes now; 0 where nothing was seen yet."""
        if not self._once_s:
            return 0.0
        return statistics.median(self._once_s) + steps * statistics.median(self._pass_s)

    def _keeps_up(self, each_s: float) -> bool:
        """Whether there is time enough for all windows."""
        return sum(each_s / q.period for q in self._queues.values() if q.period > 0) <= BUSIEST

    def next(self, now: float) -> Decision | None:
        """The most urgent job, taken off the queue, and what to do with it; None if there is none."""
        heads = [queue.jobs[0] for queue in self._queues.values() if queue.jobs]
        if not heads:
            return None
        least_s = self.expected_s(self._min)
        grace = float(self._keeps_up(least_s))
        hopeless = [h for h in heads if not h.pcm or now + least_s > h.deadline + grace * h.useful_s]
        if hopeless:
            job = min(hopeless, key=lambda head: head.deadline)
            return self._taken(job, self._min if job.pcm and self._left_out >= RETRY_AFTER else 0)
        job = min(heads, key=lambda head: (not self._queues[head.session].starves, head.deadline))
        if self._would_starve_another(job, now, least_s):
            return self._taken(job, 0)
        others = [head for head in heads if head is not job]
        return self._taken(job, self._steps_for(job, others, now))

    def _would_starve_another(self, job: Job, now: float, least_s: float) -> bool:
        """Whether this job takes the time in which one could be made that is about to come, of a session that was left
        out again and again: deadlines alone might favour the same session for ever."""
        if self._queues[job.session].starves:
            return False
        reserved = [q.next_deadline for q in self._queues.values() if q.starves and not q.jobs]
        return any(now + least_s <= deadline < now + 2 * least_s for deadline in reserved)

    def _steps_for(self, job: Job, others: list[Job], now: float) -> int:
        """As many as leave this and the other waiting windows in time."""
        for steps in range(self._full, self._min, -1):
            done = now + self.expected_s(steps)
            if done <= job.deadline and not self._crowded(others, done, self.expected_s(self._min)):
                return steps
        return self._min

    @staticmethod
    def _crowded(heads: list[Job], now: float, each_s: float) -> bool:
        """Whether one of these would come too late, one after the other from now on."""
        ordered = sorted(head.deadline for head in heads)
        return any(now + each_s * place > deadline for place, deadline in enumerate(ordered, 1))

    def _taken(self, job: Job, steps: int) -> Decision:
        queue = self._queues[job.session]
        queue.jobs.popleft()
        if steps:
            self._left_out = queue.left_out = 0
        elif job.pcm:
            self._left_out += 1
            queue.left_out += 1
        return Decision(job, steps)
