"""A recording turned into figures: delays by content, regularity, drift; start-up and steady state apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from client.latency.answers import Answers
from client.latency.lips import find_openings
from client.latency.probe import Probe
from client.latency.recording import Recording
from client.latency.sounds import find_sounds
from client.latency.spans import breakdown
from client.latency.statistics import slope, summary
from stream.protocol import FPS

STARTUP_S = 5.0
# A picture stands on the screen for a whole frame: its middle is compared with the sound.
MEAN_PHASE_MS = 500 / FPS
FEWEST = 10
FREEZE_EXTRA_MS = 150.0  # WebRTC's own definition: three frames, or one and 150 ms, whichever is longer
HARNESS_LATE_MS = 10.0

Array = npt.NDArray[np.float64]


def measure(probe: Probe, recording: Recording, *, lip_response_ms: float | None = None) -> dict[str, Any]:
    """All figures; "problems" lists, as sentences, what makes them unfit to be used.

    lip_response_ms: of `client.latency.lip_response`, where it could be measured. What lips take to open in any case
    is no fault of the way: the skew is what the picture is behind its sound beyond it.
    """
    lips, mouth = find_openings(probe, recording)
    ears = find_sounds(probe, recording)
    asked_s = recording.mouth_s + probe.onsets_s
    photon = 1_000 * (lips.time_s - asked_s)
    ear = 1_000 * (ears.time_s - asked_s)
    lag = photon + MEAN_PHASE_MS - ear
    skew = lag - MEAN_PHASE_MS - (np.nan if lip_response_ms is None else lip_response_ms)
    steady = phases(probe.onsets_s, photon)["steady"]
    way = breakdown(
        recording.trace,
        from_s=recording.mouth_s + STARTUP_S,
        mouth_to_photon_ms=steady.get("p50"),
        lip_response_ms=lip_response_ms,
    )
    problems = [*_complaints(lips, ears, probe), *_strain(recording)]
    return {
        "mouth_to_photon_ms": phases(probe.onsets_s, photon),
        "mouth_to_ear_ms": phases(probe.onsets_s, ear),
        "picture_after_sound_ms": phases(probe.onsets_s, lag),
        "skew_ms": phases(probe.onsets_s, skew),
        "first_frame_ms": _first_frame(recording),
        "connected_ms": round(1_000 * (recording.connected_s - recording.offered_s), 1),
        "frames": frames(recording.frame_s[recording.frame_s >= recording.mouth_s + STARTUP_S]),
        "drift_ms_per_hour": {
            "mouth_to_photon": slope(probe.onsets_s / 3_600, photon),
            "skew": slope(probe.onsets_s / 3_600, lag),
        },
        "deadlines": deadlines(recording.server),
        "way": way,
        "detection": {
            "sounds": len(asked_s),
            "lips": _detection(lips),
            "ears": _detection(ears),
            "mouth_region": _region(mouth.weights) if mouth is not None else None,
        },
        "harness": {"microphone_late_ms": summary(1_000 * recording.late_s)},
        "samples": {
            "onset_s": np.round(probe.onsets_s, 4).tolist(),
            "mouth_to_photon_ms": _listed(photon),
            "mouth_to_ear_ms": _listed(ear),
        },
        "problems": problems,
    }


def phases(onsets_s: Array, values_ms: Array) -> dict[str, Any]:
    """The first seconds and the rest, apart."""
    startup = onsets_s < STARTUP_S
    return {"startup": summary(values_ms[startup]), "steady": summary(values_ms[~startup])}


def frames(frame_s: Array) -> dict[str, Any]:
    """Frame rate, intervals, their jitter (distance from the usual interval) and freezes."""
    if len(frame_s) < 3:
        return {
            "fps": 0.0,
            "interval_ms": {"count": 0},
            "jitter_ms": {"count": 0},
            "freezes": 0,
            "frozen_ms": 0.0,
        }
    gaps = 1_000 * np.diff(frame_s)
    usual = float(np.median(gaps))
    frozen = gaps[gaps > max(3 * usual, usual + FREEZE_EXTRA_MS)]
    return {
        "fps": round(1_000 * len(gaps) / float(gaps.sum()), 2),
        "interval_ms": summary(gaps),
        "jitter_ms": summary(np.abs(gaps - usual)),
        "freezes": len(frozen),
        "frozen_ms": round(float(frozen.sum()), 1),
        "longest_gap_ms": round(float(gaps.max()), 1),
    }


def deadlines(server: dict[str, Any]) -> dict[str, Any]:
    """Of a Talkalong server's own count; {} for others."""
    if "frames_missed" not in server:
        return {}
    due = int(server.get("frames_due", 0))
    missed = int(server["frames_missed"])
    return {
        "missed": missed,
        "due": due,
        "ratio": round(missed / max(due, 1), 5),
        "reanchors": server.get("reanchors", 0),
    }


def _first_frame(recording: Recording) -> float | None:
    if len(recording.frame_s) == 0:
        return None
    return round(1_000 * (float(recording.frame_s[0]) - recording.offered_s), 1)


def _complaints(lips: Answers, ears: Answers, probe: Probe) -> list[str]:
    """An echo is not needed for mouth to photon, an answering mouth is."""
    found = int(lips.found.sum())
    if lips.reason:
        return [f"No response was found in the picture: {lips.reason}."]
    if not lips.responds or found < FEWEST:
        return [f"Only {found} of {len(probe.onsets_s)} sounds found an answer in the picture."]
    if lips.false > 0.2 * found:
        return [f"{lips.false} openings had no cause, beside {found} answers: too many to trust the rest."]
    if 0 < ears.found.sum() < FEWEST:
        return [f"Only {int(ears.found.sum())} of {len(probe.onsets_s)} sounds were heard again."]
    return []


def _strain(recording: Recording) -> list[str]:
    if len(recording.late_s) == 0:
        return []
    late = float(1_000 * np.percentile(recording.late_s, 95))
    if late <= HARNESS_LATE_MS:
        return []
    return [f"The harness itself was late ({late:.0f} ms at p95): this machine is too busy to measure on."]


def _detection(answers: Answers) -> dict[str, Any]:
    return {
        "found": int(answers.found.sum()),
        "missed": answers.missed,
        "false": answers.false,
        "confidence": round(answers.confidence, 3),
        "reason": answers.reason,
    }


def _region(weights: Array) -> dict[str, list[float]] | None:
    """Where the mouth was found, as shares of the picture."""
    rows, columns = np.nonzero(weights)
    if len(rows) == 0:
        return None
    side = len(weights)
    return {
        "rows": [round(int(rows.min()) / side, 3), round((int(rows.max()) + 1) / side, 3)],
        "columns": [round(int(columns.min()) / side, 3), round((int(columns.max()) + 1) / side, 3)],
    }


def _listed(values: Array) -> list[float | None]:
    return [round(float(value), 2) if np.isfinite(value) else None for value in values]
