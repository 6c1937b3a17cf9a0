"""Prometheus metrics, one registry per application."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

STEP_BUCKETS_MS = (2, 5, 10, 15, 20, 30, 40, 60, 80, 120, 200, 400)


class Metrics:
    """Names and meanings in one place; sessions add their differences once a second."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.sessions = Gauge("talkalong_sessions", "Sessions now", registry=self.registry)
        self.ready = Gauge(
            "talkalong_ready", "1 after warm-up while the model is live", registry=self.registry
        )
        self.viewers = Gauge("talkalong_viewers", "Viewers of sessions now", registry=self.registry)
        self.opened = self._counter("sessions_opened", "Sessions opened, by transport", ["transport"])
        self.refused = self._counter("requests_refused", "Requests refused, by error code", ["code"])
        self.frames = self._counter("frames_sent", "Video frames sent")
        self.missed = self._counter("frames_missed", "40 ms slots whose own frame was not there in time")
        self.late = self._counter("frames_late", "Frames that came after their slot")
        self.skipped = self._counter(
            "frames_skipped", "Frames left out under overload or while the model restarted"
        )
        self.concealed_ms = self._counter("audio_concealed_milliseconds", "Uplink audio that was filled in")
        self.reanchors = self._counter("reanchors", "Times a session's playout was shifted")
        self.engine_restarts = self._counter("engine_restarts", "Times the model process was started again")
        self.recordings = self._counter("recordings", "Recordings that ended, by reason", ["reason"])
        self.recording_drops = self._counter(
            "recording_pictures_dropped", "Pictures that recordings left out"
        )
        self.step_ms = Histogram(
            "talkalong_step_milliseconds",
            "Wall time of one chunk in the model process",
            buckets=STEP_BUCKETS_MS,
            registry=self.registry,
        )

    def watch_processes(self, model_pid: Callable[[], int | None]) -> None:
        """CPU and memory of the server's two processes (on Linux; elsewhere these are left out)."""
        ProcessCollector(namespace="talkalong_server", registry=self.registry)
        ProcessCollector(
            namespace="talkalong_model", pid=lambda: model_pid() or "none", registry=self.registry
        )

    def _counter(self, name: str, text: str, labels: list[str] | None = None) -> Counter:
        return Counter(f"talkalong_{name}", text, labels or [], registry=self.registry)
