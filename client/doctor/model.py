"""The model: whether its files are whole, and how fast it is here, measured in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from client.doctor import processor
from client.doctor.finding import Finding, ok, problem, warning
from stream.protocol import FPS

SECONDS = 6
TIMEOUT_S = 180
# Beside codecs, network and often a browser a step takes longer than alone (stream/warm_up.py, LIVE_FACTOR).
LIVE_FACTOR = 1.3
PROFILES = {"default": (2, 2), "low_latency": (1, 1)}  # hop and look-ahead, frames


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Of one profile. share: of the time that a chunk lasts, what its steps take live, at the 95th percentile."""

    rtf: float
    p95_ms: float
    hop_ms: float

    @property
    def share(self) -> float:
        return LIVE_FACTOR * self.p95_ms / self.hop_ms

    @property
    def fits(self) -> bool:
        return self.share <= 1.0

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
    for name, (hop, right) in PROFILES.items():
        figures = _measure(model, hop, right)
        if isinstance(figures, str):
            return [problem("speed", figures, "`talkalong benchmark` shows the whole of it.")]
        speeds[name] = Speed(rtf=figures["rtf"], p95_ms=figures["step_ms"]["p95"], hop_ms=1_000 * hop / FPS)
        machine = figures["machine"]
    return [judge(speeds, machine, busy=busy)]


def judge(speeds: dict[str, Speed], machine: dict[str, Any], *, busy: bool = False) -> Finding:
    """Which profile to use. busy: other programs took their share of the processor, so slow means little."""
    measured = "; ".join(speed.says(name) for name, speed in speeds.items())
    place = machine.get("gpu") or machine.get("cpu") or "this machine"
    figures: dict[str, Any] = {
        name: {"rtf": speed.rtf, "step_p95_ms": speed.p95_ms, "hop_ms": speed.hop_ms, "fits": speed.fits}
        for name, speed in speeds.items()
    }
    # A chunk of the low-latency profile lasts half as long: where it fits, the default does so more easily.
    best = next(
        (name for name in ("low_latency", "default") if speeds[name].fits and speeds["default"].fits), None
    )
    figures |= {"recommended": best, "machine": machine}
    says = f"On {place} ({measured})"
    if best == "low_latency":
        return ok(
            "speed",
            f"{says} both profiles fit; low_latency talks soonest, default has more to spare.",
            **figures,
        )
    if best == "default":
        return ok(
            "speed",
            f"{says} the default profile fits, low_latency does not; serve with --config default.",
            **figures,
        )
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
