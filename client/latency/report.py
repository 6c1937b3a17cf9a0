"""A run as JSON (versioned, for machines) and as a table in the terminal."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from client.errors import ClientError
from client.latency.detection import Detections
from client.latency.figures import Verdict
from client.latency.recording import Recording

SCHEMA = 1
KIND = "talkalong-latency"
ROWS = {
    "mouth_to_photon_ms": "mouth to photon",
    "mouth_to_ear_ms": "mouth to ear",
    "picture_after_sound_ms": "picture after sound",
}


def build(
    *,
    recording: Recording,
    found: Detections,
    figures: dict[str, Any],
    judged: Verdict,
    settings: dict[str, Any],
    about: dict[str, Any],
    stats: dict[str, Any],
) -> dict[str, Any]:
    """The whole report. Single times are in seconds from the first spoken sample."""
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "valid": judged.valid,
        "verdict": judged.message,
        "figures": figures,
        "settings": settings,
        "server": {"about": about, "stats": stats},
        "machine": machine(),
        "single": {
            "spoken_s": _seconds(found.spoken_s - recording.spoken_s),
            "seen_s": _seconds(found.seen_s - recording.spoken_s),
            "heard_s": _seconds(found.heard_s - recording.spoken_s),
            "frame_s": _seconds(found.frame_s - recording.spoken_s),
            "opening": [round(float(value), 3) for value in found.opening],
        },
    }


def load(path: Path) -> dict[str, Any]:
    """Raises `ClientError` for anything but a report of this schema."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ClientError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError:
        raise ClientError(f"{path} is not JSON; give a report.json of `talkalong latency`.") from None
    if not isinstance(report, dict) or report.get("kind") != KIND:
        raise ClientError(f"{path} is not a report of `talkalong latency`.")
    if report.get("schema") != SCHEMA:
        raise ClientError(
            f"{path} has schema {report.get('schema')}, this version reads {SCHEMA}; measure again, or use the version "
            "that wrote it."
        )
    return report


def table(report: dict[str, Any]) -> str:
    """What a person wants to know, as text."""
    figures = report["figures"]
    lines = [f"{'':30}{'p50':>8}{'95 % interval':>18}{'p95':>8}{'p99':>8}{'count':>7}"]
    for part, title in (("steady", ""), ("start_up", " (start)")):
        for key, name in ROWS.items():
            spread = figures[part][key]
            if spread is None:
                if part == "steady":
                    lines.append(f"{name:30}{'not detected':>16}")
                continue
            interval = f"{spread['p50_low']:.0f} to {spread['p50_high']:.0f}"
            lines.append(
                f"{name + title:30}{spread['p50']:8.0f}{interval:>18}{spread['p95']:8.0f}{spread['p99']:8.0f}"
                f"{spread['count']:7d}"
            )
    first = figures["start_up"]["first_frame_ms"]
    freezes = figures["freezes"]
    lines += [
        "",
        f"first picture {'never' if first is None else f'{first:.0f} ms'} after the offer; "
        f"{figures['fps']:.1f} pictures a second, jitter {figures['frame_jitter_ms'] or 0:.1f} ms, "
        f"{freezes['count']} freezes (longest gap {freezes['longest_ms']:.0f} ms)",
        f"{figures['sounds']} sounds: {figures['seen']} seen, {figures['heard']} heard, {figures['missed']} missed; "
        f"{figures['false_openings']} openings without a sound; drift {figures['drift_ms_per_minute'] or 0:+.1f} ms a "
        "minute",
    ]
    missed = report["server"]["stats"].get("frames_missed")
    if missed is not None:
        lines.append(
            f"the server counts {missed} missed deadlines of {report['server']['stats'].get('frames_sent')}"
        )
    floor = budget(report)
    if floor is not None:
        lines.append(floor)
    return "\n".join([*lines, "", report["verdict"]])


def budget(report: dict[str, Any]) -> str | None:
    """The server's own budget beside what was measured; None if it has none."""
    stated = report["server"]["stats"].get("budget") or report["server"]["about"].get("budget")
    spread = report["figures"]["steady"]["mouth_to_photon_ms"]
    if not stated or spread is None:
        return None
    floor = stated["hop_ms"] + stated["right_context_ms"]
    delay = stated["playout_delay_ms"]
    return (
        f"structural floor {floor:.0f} ms (hop {stated['hop_ms']:.0f} + look-ahead {stated['right_context_ms']:.0f}), "
        f"playout delay {delay:.0f} ms, measured {spread['p50']:.0f} ms: {spread['p50'] - delay:.0f} ms for capture, "
        "codecs, network, half a frame and the lips' own lag"
    )


def machine() -> dict[str, Any]:
    """Where this was measured."""
    return {
        "version": metadata.version("talkalong"),
        "commit": _commit(),
        "system": platform.platform(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
    }


def _commit() -> str | None:
    folder = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=folder, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() or None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


def _seconds(values: Any) -> list[float | None]:
    return [round(float(value), 4) if np.isfinite(value) else None for value in values]
