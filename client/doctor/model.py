"""The model: whether its files are whole, and how fast it is here, measured in processes of their own."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from client.doctor import processor
from client.doctor.finding import Finding, ok, problem, warning
from stream.protocol import FPS

SECONDS = 5
TIMEOUT_S = 180
# As in stream/pace.py, which decides when the server starts: how much longer a step takes beside codecs, network and
# often a browser, and the share of a chunk's time that leaves room for chunks of one frame.
LIVE_FACTOR = 1.3
BUSIEST = 0.45
# Hop and look-ahead, frames: the default profile with large and with small chunks, and low_latency.
CHUNKS = {"default": (2, 2), "default, small chunks": (1, 2), "low_latency": (1, 1)}


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Of one way of chunking; a step is from window to finished frames."""

    rtf: float
    p50_ms: float
    p95_ms: float
    hop_ms: float

    @property
    def fits(self) -> bool:
        """Whether a live step at the 95th percentile is done before the next chunk is due."""
        return LIVE_FACTOR * self.p95_ms <= self.hop_ms

    @property
    def leaves_room(self) -> bool:
        return self.p50_ms <= BUSIEST * self.hop_ms

    def says(self, name: str) -> str:
        return f"{name}: RTF {self.rtf:.2f}, step p95 {self.p95_ms:.0f} of {self.hop_ms:.0f} ms"


def check_files(model: str) -> list[Finding]:
    done = _run("-m", "pipeline.checkpoint", model)
    if isinstance(done, str):
        return [problem("weights", done, "Run it again when the machine is less busy.")]
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["The check gave no reason."])[-1]
        return [
            problem(
                "weights", last, "Install the package again, or name a model that is there in model.name."
            )
        ]
    return [
        ok(
            "weights",
            f"The files of the model '{model}' are as their checksums say ({done.stdout.strip()[:12]}…).",
        )
    ]


def check_speed(model: dict[str, Any]) -> list[Finding]:
    """model: the configuration's section (name, device, threads, steps)."""
    speeds: dict[str, Speed] = {}
    machine: dict[str, Any] = {}
    busy = processor.busy() is not None
    for name, (hop, right) in CHUNKS.items():
        figures = _measure(model, hop, right)
        if isinstance(figures, str):
            return [problem("speed", figures, "`talkalong benchmark` shows the whole of it.")]
        step_ms = figures["step_ms"]
        speeds[name] = Speed(
            rtf=figures["rtf"], p50_ms=step_ms["p50"], p95_ms=step_ms["p95"], hop_ms=1_000 * hop / FPS
        )
        machine = figures["machine"]
    return [judge(speeds, machine, busy=busy)]


def judge(speeds: dict[str, Speed], machine: dict[str, Any], *, busy: bool = False) -> Finding:
    """Which profile to use. busy: other programs took their share of the processor, so slow means little."""
    large, small, low = (speeds[name] for name in CHUNKS)
    measured = "; ".join(speed.says(name) for name, speed in speeds.items())
    place = machine.get("gpu") or machine.get("cpu") or "this machine"
    # Small chunks cost more a second than large ones: where those do not fit, neither do these.
    best = ("low_latency" if low.fits else "default") if large.fits else None
    figures: dict[str, Any] = {
        name: dataclasses.asdict(speed) | {"fits": speed.fits} for name, speed in speeds.items()
    }
    figures |= {"recommended": best, "machine": machine}
    says = f"On {place} ({measured})"
    if best is not None:
        chunks = "one frame" if small.leaves_room else "two frames"
        other = (
            "low_latency as well: it talks sooner, with less to spare and less exact lips"
            if low.fits
            else "low_latency does not"
        )
        return ok("speed", f"{says} the default profile fits, with chunks of {chunks}; {other}.", **figures)
    if busy:
        return warning(
            "speed", f"{says} the model is too slow to talk live, but other programs kept the machine busy meanwhile.",
            "Run this again when the machine is quiet.", **figures,
        )  # fmt: skip
    return problem(
        "speed", f"{says} the model is too slow to talk live beside codecs and network.",
        "Free the processor, use more or faster cores or a GPU (--config gpu), or set model.steps to 1.", **figures,
    )  # fmt: skip


def _measure(model: dict[str, Any], hop: int, right: int) -> dict[str, Any] | str:
    words = ["-m", "client.cli", "benchmark", "--model", model["name"], "--device", model["device"],
             "--seconds", str(SECONDS), "--hop", str(hop), "--right", str(right),
             "--threads", str(model["threads"])]  # fmt: skip
    if model["steps"] is not None:
        words += ["--steps", str(model["steps"])]
    done = _run(*words)
    if isinstance(done, str):
        return done
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        return f"The model does not run here ({last})."


def _run(*words: str) -> subprocess.CompletedProcess[str] | str:
    """Python in a process of its own, with the settings of the server's model process; or why it took too long."""
    settings = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    try:
        return subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env=settings,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"The model was not done within {TIMEOUT_S} s."
