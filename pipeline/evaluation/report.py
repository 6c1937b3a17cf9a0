"""Writes an evaluation down: report.json, index.html, the model card's table, curves and contact sheets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.evaluation import plots, sheets
from pipeline.evaluation.evidence import Evidence
from pipeline.evaluation.page import write_page
from pipeline.evaluation.table import Table
from pipeline.evaluation.takes import Take


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A file of the report and what it shows."""

    path: Path
    caption: str


def draw_pictures(evidence: Evidence, out: Path) -> tuple[list[Picture], list[Picture]]:
    """Curves and contact sheets as PNG in `out`."""
    spoken = evidence.of("model", "grid", "kokoro")
    with_lips = [take for take in spoken if take.clip.name in evidence.references]
    curves = [
        Picture(path=plots.overview(evidence, out / "overview.png"), caption="At a glance"),
        Picture(
            path=plots.aperture_curves(evidence, (with_lips or spoken)[:4], out / "apertures.png"),
            caption="Lip opening over the waveform; p, b and m are shaded",
        ),
    ]
    pictures = [
        Picture(path=sheets.mosaic(_one_per_portrait(spoken), out / "mosaic.png"), caption="Every portrait")
    ]
    baselines = {
        (take.portrait, take.clip.name) for take in evidence.takes if take.actor not in ("model", "teacher")
    }
    for take in spoken:
        pair = (take.portrait, take.clip.name)
        if pair in baselines:
            same = [t for t in evidence.takes if (t.portrait, t.clip.name) == pair]
            path = sheets.actors_sheet(same, out / f"actors_{take.portrait}_{take.clip.name}.png")
            pictures.append(
                Picture(path=path, caption=f"{take.portrait} says {take.clip.name}: model and baselines")
            )
        path = sheets.take_sheet(take, out / f"sheet_{take.portrait}_{take.clip.name}.png")
        pictures.append(Picture(path=path, caption=f"{take.portrait} says {take.clip.name}"))
    for take in evidence.of("model", "silence"):
        path = sheets.take_sheet(take, out / f"sheet_{take.portrait}_silence.png")
        pictures.append(Picture(path=path, caption=f"{take.portrait} in silence"))
    return curves, pictures


def _one_per_portrait(takes: Sequence[Take]) -> list[Take]:
    return list({take.portrait: take for take in takes}.values())


def take_figures(evidence: Evidence) -> list[dict[str, Any]]:
    """A line for every take, to find the portraits and clips that go wrong."""
    lines = []
    for take in evidence.takes:
        sync = evidence.lip_sync([take])
        lines.append(
            {
                "actor": take.actor,
                "portrait": take.portrait,
                "clip": take.clip.name,
                "first_frame": take.first_frame,
                "frames": take.frames,
                "lag_frames": round(sync.lag_frames, 2) if sync and np.isfinite(sync.lag_frames) else None,
                "correlation": sync and round(sync.at_zero, 3),
                "identity": round(float(take.identity.mean()), 3) if len(take.identity) else None,
                "sharpness": round(float(take.sharpness.mean()), 3) if len(take.sharpness) else None,
                "aperture_rest": round(take.rest, 4),
                "aperture_max": round(float(take.aperture.max()), 4),
                "found": round(take.found, 3),
            }
        )
    return lines


def model_card_section(table: Table, provenance: Mapping[str, Any]) -> str:
    """The figures of a model card in Markdown, with what they were measured on."""
    machine = provenance["machine"]
    return (
        f"{table.to_markdown()}\n"
        f"Measured by `python -m pipeline.evaluation` on {machine['processor']} ({machine['cores']} cores, "
        f"{machine['threads']} threads, load {machine['load']}), {machine['time'][:10]}, model SHA-256 "
        f"`{(provenance['model_sha256'] or 'not saved')[:16]}`.\n"
    )


def write_report(table: Table, evidence: Evidence, provenance: Mapping[str, Any], out: Path) -> Path:
    """Writes everything to `out` and returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.png"):
        old.unlink()
    (out / "model_card.md").write_text(model_card_section(table, provenance), encoding="utf-8")
    curves, pictures = draw_pictures(evidence, out)
    header, lines = table.cells()
    report = {
        "provenance": provenance,
        "rows": [row.to_json() for row in table.rows],
        "takes": take_figures(evidence),
        "table": {"header": header, "lines": lines},
        "notes": [f"{row.label}: {row.note}" for row in table.rows if row.note],
        "curves": [[picture.path.name, picture.caption] for picture in curves],
        "pictures": [[picture.path.name, picture.caption] for picture in pictures],
    }
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return write_page(out)
