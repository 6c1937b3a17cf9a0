"""One run's report: figures with their provenance, as JSON of a versioned schema and as a table for people."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from client.errors import ClientError

SCHEMA = "talkalong-latency/2"


def provenance(settings: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """When, with what and on what a run was made. about: what the server says of itself."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": metadata.version("talkalong"),
        "commit": commit(),
        "settings": settings,
        "server": about,
        "machine": {
            "cpu": _cpu(),
            "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
            "system": platform.platform(),
            "python": platform.python_version(),
            "aiortc": metadata.version("aiortc"),
        },
    }


def commit() -> str | None:
    """The checkout's commit, with a + where files were changed; None outside of a checkout."""
    folder = Path(__file__).parent
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=folder, capture_output=True, text=True, timeout=5, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return told.stdout.strip() or None


def read(path: Path) -> dict[str, Any]:
    """A report written before; raises `ClientError` where it is none."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ClientError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ClientError(f"{path} is not JSON, so it is no report of `talkalong latency`.") from error
    schema = report.get("schema") if isinstance(report, dict) else None
    if schema != SCHEMA:
        raise ClientError(f"{path} has the schema {schema!r}; this version reads {SCHEMA!r}.")
    return dict(report)


def write(report: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def table(report: dict[str, Any]) -> str:
    """For the terminal."""
    figures = report["figures"]
    lines = [f"{'':30}{'p50':>9}{'p95':>9}{'p99':>9}{'95 % of p50':>18}{'n':>7}"]
    for label, name in (("mouth to photon", "mouth_to_photon_ms"), ("mouth to ear", "mouth_to_ear_ms"),
                        ("picture after sound", "picture_after_sound_ms"), ("A/V skew", "skew_ms")):  # fmt: skip
        for phase in ("startup", "steady"):
            if name == "skew_ms" and not figures[name][phase].get("count"):
                continue  # the lips' own response is not known
            lines.append(_row(f"{label}, {phase}", figures[name][phase]))
    frames = figures["frames"]
    lines.append(_row("frame interval", frames["interval_ms"]))
    lines.append(_row("frame jitter", frames["jitter_ms"]))
    lines.append("")
    first = figures["first_frame_ms"]
    lines.append(f"first frame after offer       {first:9.0f} ms" if first is not None else "no frame came")
    lines.append(f"frame rate                    {frames['fps']:9.2f} fps, {frames['freezes']} freezes")
    if figures["deadlines"]:
        missed = figures["deadlines"]
        lines.append(
            f"missed deadlines              {100 * missed['ratio']:9.2f} % ({missed['missed']} of {missed['due']})"
        )
    drift = figures["drift_ms_per_hour"]["mouth_to_photon"]
    if "slope" in drift:
        low, high = drift["interval"]
        lines.append(
            f"drift                         {drift['slope']:9.0f} ms per hour ({low:.0f} to {high:.0f})"
        )
    lips, ears = figures["detection"]["lips"], figures["detection"]["ears"]
    lines.append(
        f"found of {figures['detection']['sounds']} sounds: lips {lips['found']} ({lips['false']} false), "
        f"ears {ears['found']} ({ears['false']} false)"
    )
    budget = report.get("budget") or {}
    if budget:
        parts = ", ".join(
            f"{name.removesuffix('_ms').replace('_', ' ')} {value:.0f}" for name, value in budget.items()
        )
        lines.append(f"the server's budget, ms: {parts}")
    lines += way_lines(figures.get("way") or {})
    lines += [f"! {problem}" for problem in figures["problems"]]
    return "\n".join(lines)


def way_lines(way: dict[str, Any]) -> list[str]:
    """Where the time goes, one line a span; the sum, and what is left of mouth to photon."""
    if "spans_ms" not in way:
        return [way["problem"]] if "problem" in way else []
    title = f"the way of {way['chunks']} chunks"
    lines = ["", f"{title:30}{'p50':>9}{'p95':>9}{'mean':>9}"]
    for name, found in [*way["spans_ms"].items(), ("sum", way["way_ms"])]:
        mean = way["mean_ms"].get(name, found["mean"])
        lines.append(f"  {name.replace('_', ' '):28}{found['p50']:9.1f}{found['p95']:9.1f}{mean:9.1f}")
    if "lip_response_ms" in way:
        lines.append(f"  {'the lips themselves':28}{way['lip_response_ms']:9.1f}")
    if "remainder_ms" in way:
        lines.append(f"  {'remainder':28}{way['remainder_ms']:9.1f}")
    lines.append(f"  the server's clock is known to {way['clock_uncertainty_ms']:.1f} ms")
    return lines


def _row(label: str, found: dict[str, Any]) -> str:
    if not found.get("count"):
        return f"{label:30}{'–':>9}"
    low, high = found["p50_interval"]
    return (
        f"{label:30}{found['p50']:9.1f}{found['p95']:9.1f}{found['p99']:9.1f}"
        f"{f'{low:.1f} to {high:.1f}':>18}{found['count']:7d}"
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
