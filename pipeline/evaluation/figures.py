"""From measured takes to the rows of the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation import head, lips, picture
from pipeline.evaluation.evidence import Engineering, Evidence
from pipeline.evaluation.latent_motion import frechet_distance
from pipeline.evaluation.table import Row, Table, at_least, at_most, between
from pipeline.evaluation.takes import Take

CORPORA = (("grid", "real lips"), ("kokoro", "reference motion"))


def _closing_sounds(take: Take) -> Sequence[tuple[int, int]]:
    return [(first, last) for first, last in take.clip.closing_sounds if last <= take.frames]


def _recall(takes: Sequence[Take], intervals: Callable[[Take], Sequence[tuple[int, int]]]) -> float | None:
    hits = [
        lips.closures(take.aperture, intervals(take), lips.closed_threshold(take.aperture, take.rest))
        for take in takes
    ]
    return float(np.concatenate(hits).mean()) if sum(map(len, hits)) else None


def _speed(takes: Sequence[Take]) -> float | None:
    paths = [take.head_path for take in takes if take.frames >= head.SEGMENT_FRAMES]
    return head.band_speed(*head.velocity_spectrum(paths)) if paths else None


def _blinks_per_minute(series: Sequence[NDArray[np.float64]]) -> float | None:
    frames = sum(map(len, series))
    return sum(len(head.blinks(s)) for s in series) * 60 * head.FPS / frames if frames else None


def _pooled(takes: Sequence[Take], name: str) -> NDArray[np.float64]:
    return np.concatenate([getattr(take, name) for take in takes])


def _drift(takes: Sequence[Take]) -> tuple[float, float] | None:
    """Change of identity distance and of colour from the first to the last fifth of a long session."""
    identity, colours = (
        np.concatenate([getattr(t, name) for t in takes]) for name in ("identity", "colours")
    )
    fifth = min(len(identity), len(colours)) // 5
    if fifth == 0:
        return None
    change = float(np.median(identity[-fifth:]) - np.median(identity[:fifth]))
    return change, picture.colour_drift(colours[:fifth], colours[-fifth:])


def _values(measure: Callable[[str], float | None], actors: Sequence[str]) -> dict[str, float]:
    found = {actor: measure(actor) for actor in actors}
    return {actor: value for actor, value in found.items() if value is not None}


def build_table(evidence: Evidence) -> Table:
    """All measures of one evaluation, the model beside its baselines."""
    return Table(
        rows=[
            *_lip_rows(evidence),
            *_picture_rows(evidence),
            *_motion_rows(evidence),
            *_time_rows(evidence),
            *_few_step_rows(evidence),
            *_engineering_rows(evidence.engineering),
        ]
    )


ACTORS = ("model", "rig", "loudness", "frozen")


def _lip_rows(evidence: Evidence) -> list[Row]:
    rows = []
    syncs = {
        (corpus, actor): evidence.lip_sync(evidence.of(actor, corpus))
        for corpus, _ in CORPORA
        for actor in ACTORS
    }
    moving = {key: sync for key, sync in syncs.items() if sync is not None}
    for corpus, against in CORPORA:
        lags = {a: s.lag_frames for (c, a), s in moving.items() if c == corpus}
        rows.append(
            Row(
                key=f"lip_sync_lag_frames_{corpus}",
                label=f"lip sync lag, {against} (frames, + = late)",
                values=lags,
                v0=between(-1, 1, "±1"),
                target=between(-0.5, 0.5, "±0.5"),
            )
        )
    for corpus, against in CORPORA:
        values = {a: s.at_zero for (c, a), s in moving.items() if c == corpus}
        rows.append(
            Row(
                key=f"lip_sync_correlation_{corpus}",
                label=f"lip sync correlation at lag 0, {against}",
                values=values,
                v0=at_least(0.6),
                target=at_least(0.75),
            )
        )
    rows.append(
        Row(
            key="closure_recall_phonemes",
            label="closure recall, /p b m/ of Kokoro speech",
            values=_values(lambda actor: _recall(evidence.of(actor, "kokoro"), _closing_sounds), ACTORS),
            v0=at_least(0.8),
            target=at_least(0.95),
        )
    )

    def real_closures(take: Take) -> Sequence[tuple[int, int]]:
        return evidence.references[take.clip.name].closures

    rows.append(
        Row(
            key="closure_recall_real",
            label="closure recall, where the real lips close",
            values=_values(lambda actor: _recall(evidence.of(actor, "grid"), real_closures), ACTORS),
        )
    )

    def opening(actor: str) -> float | None:
        takes = evidence.of(actor, "grid", "kokoro")
        return (
            100 * float(np.mean([np.percentile(t.aperture, 95) - t.rest for t in takes])) if takes else None
        )

    openings = _values(opening, ACTORS)
    real = [r.aperture for r in evidence.references.values() if r.head_path is not None]
    if real:
        openings["real"] = 100 * float(np.mean([np.ptp(np.percentile(a, [5, 95])) for a in real]))
    rows.append(
        Row(key="lip_opening_percent", label="lip opening in speech, p95 (% of face height)", values=openings)
    )

    def still(actor: str) -> float | None:
        takes = evidence.of(actor, "silence")
        return 100 * float(np.mean([lips.stillness(take.aperture) for take in takes])) if takes else None

    rows.append(
        Row(
            key="stillness_percent",
            label="lip movement in silence, std (% of face height)",
            values=_values(still, ACTORS),
            v0=at_most(1.0),
            target=at_most(0.5),
        )
    )
    return rows


def _picture_rows(evidence: Evidence) -> list[Row]:
    corpora = ("grid", "kokoro", "silence")

    def pooled(actor: str, name: str, statistic: Callable[[NDArray[np.float64]], float]) -> float | None:
        takes = evidence.of(actor, *corpora)
        values = _pooled(takes, name) if takes else np.empty(0)
        return statistic(values) if len(values) else None

    def median(values: NDArray[np.float64]) -> float:
        return float(np.median(values))

    def late(values: NDArray[np.float64]) -> float:
        return float(np.percentile(values, 95))

    return [
        Row(
            key="identity_median",
            label="identity, dlib distance to the portrait, median",
            values=_values(lambda a: pooled(a, "identity", median), ACTORS),
            v0=at_most(0.36),
            target=at_most(0.30),
        ),
        Row(
            key="identity_p95",
            label="identity, p95",
            values=_values(lambda a: pooled(a, "identity", late), ACTORS),
            v0=at_most(0.50),
            target=at_most(0.40),
        ),
        Row(
            key="sharpness",
            label="sharpness, Laplacian energy of the face without its mouth, frame / portrait, median",
            values=_values(lambda a: pooled(a, "sharpness", median), ACTORS),
            v0=at_least(0.75),
            target=at_least(0.9),
        ),
        Row(
            key="face_found",
            label="frames in which the judge finds the face",
            values=_values(
                lambda a: float(np.mean([t.found for t in evidence.of(a, *corpora)])),
                [a for a in ACTORS if evidence.of(a, *corpora)],
            ),
        ),
    ]


def _motion_rows(evidence: Evidence) -> list[Row]:
    real = [r for r in evidence.references.values() if r.head_path is not None and r.openness is not None]
    paths = [r.head_path for r in real if r.head_path is not None and len(r.head_path) >= head.SEGMENT_FRAMES]
    real_speed = head.band_speed(*head.velocity_spectrum(paths)) if paths else float("nan")

    def ratio(*corpora: str) -> dict[str, float]:
        speeds = _values(lambda actor: _speed(evidence.of(actor, *corpora)), ACTORS)
        return {actor: speed / real_speed for actor, speed in speeds.items()}

    def blink_rate(*corpora: str) -> dict[str, float]:
        return _values(lambda a: _blinks_per_minute([t.openness for t in evidence.of(a, *corpora)]), ACTORS)

    real_rate = _blinks_per_minute([r.openness for r in real if r.openness is not None])
    return [
        Row(
            key="head_speed_ratio",
            label="head speed, 0.3 to 4 Hz, relative to the real speaker",
            values=ratio("grid", "kokoro", "long") | {"real": 1.0},
            v0=at_least(0.2, "moves"),
            target=between(0.7, 1.3, "±30 %"),
        ),
        Row(key="head_speed_ratio_silence", label="the same in silence", values=ratio("silence")),
        Row(
            key="blinks_per_minute",
            label="blinks per minute",
            values=blink_rate("grid", "kokoro", "silence", "long")
            | ({"real": real_rate} if real_rate else {}),
            v0=at_least(0.5, "blinks"),
            target=between(10, 25),
            digits=1,
        ),
        Row(
            key="blinks_per_minute_silence",
            label="the same in silence",
            values=blink_rate("silence"),
            digits=1,
        ),
    ]


def _time_rows(evidence: Evidence) -> list[Row]:
    rows = []
    if evidence.hop_frames > 1:
        takes = evidence.of("model", "grid", "kokoro")
        ratio = float(np.median([picture.seam_ratio(t.changes, evidence.hop_frames) for t in takes]))
        rows.append(
            Row(
                key="seam_ratio",
                label="seam ratio, change at chunk borders / inside",
                values={"model": ratio},
                v0=at_most(1.2),
                target=at_most(1.05),
                digits=3,
            )
        )
    long_run = evidence.of("model", "long")
    drift = _drift(long_run)
    if drift is not None:
        minutes = sum(take.frames for take in long_run) / head.FPS / 60
        span = f"over {minutes:.1f} min"
        rows.append(
            Row(
                key="drift_identity",
                label=f"drift of identity distance {span}",
                values={"model": drift[0]},
                v0=at_most(0.05),
                target=at_most(0.02),
                digits=3,
            )
        )
        rows.append(
            Row(
                key="drift_colour_percent",
                label=f"drift of face colour {span} (%)",
                values={"model": 100 * drift[1]},
                v0=at_most(5),
                target=at_most(2),
            )
        )
    return rows


def _few_step_rows(evidence: Evidence) -> list[Row]:
    teacher = [take for take in evidence.takes if take.actor == "teacher"]
    if not teacher:
        return []
    pairs = {(take.portrait, take.clip.name) for take in teacher}
    model = [t for t in evidence.takes if t.actor == "model" and (t.portrait, t.clip.name) in pairs]
    syncs = [evidence.lip_sync(takes) for takes in (model, teacher)]
    rows = []
    if syncs[0] is not None and syncs[1] is not None and syncs[1].at_zero > 0:
        rows.append(
            Row(
                key="few_steps_lip_correlation",
                label="lip correlation, few steps / many-step teacher",
                values={"model": syncs[0].at_zero / syncs[1].at_zero},
                target=at_least(0.95),
                note=f"model {syncs[0].at_zero:.3f}, teacher {syncs[1].at_zero:.3f}",
            )
        )
    few, many = (
        np.concatenate([t.latents for t in takes if t.latents is not None]) for takes in (model, teacher)
    )
    scale = many.std(axis=0) + 1e-6
    half = len(many) // 2
    spread = frechet_distance(many[:half] / scale, many[half:] / scale)
    rows.append(
        Row(
            key="few_steps_frechet",
            label="Frechet distance of motion, few steps to teacher",
            values={"model": frechet_distance(few / scale, many / scale)},
            note=f"between two halves of the teacher's own frames: {spread:.2f}",
        )
    )
    return rows


def _engineering_rows(engineering: Engineering) -> list[Row]:
    return [
        Row(
            key="streaming_difference",
            label="streaming vs offline, largest difference of the latents",
            values={"model": engineering.streaming_difference},
            v0=at_most(1e-4),
            target=at_most(1e-4),
            digits=6,
        ),
        Row(
            key="ms_per_frame_p50",
            label="whole step per frame, p50 (ms)",
            values={"model": engineering.ms_per_frame_p50},
            v0=at_most(30),
            target=at_most(15),
            digits=1,
        ),
        Row(
            key="ms_per_frame_p95",
            label="whole step per frame, p95 (ms)",
            values={"model": engineering.ms_per_frame_p95},
            digits=1,
        ),
    ]
