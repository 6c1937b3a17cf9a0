"""Runs studies by name and keeps each one's figures and pictures in the report's folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.evaluation.judging import Judge
from pipeline.evaluation.provenance import machine
from pipeline.evaluation.studies import (
    blinking,
    context,
    degradation,
    drawing,
    few_steps,
    languages,
    long_session,
    portraits,
    sliders,
)
from pipeline.evaluation.studies.result import Study, table
from pipeline.evaluation.studies.settings import StudySettings
from pipeline.evaluation.studies.speakers import Speakers

logger = logging.getLogger(__name__)

STUDIES: dict[str, Callable[..., Study]] = {
    "degradation": degradation.study,
    "languages": languages.study,
    "few_steps": few_steps.study,
    "context": context.study,
    "long_session": long_session.study,
    "controls": sliders.study,
    "blinks": blinking.study,
    "portraits": portraits.study,
    "drawing": drawing.study,
}
FOLDER = "studies"


def chosen_studies(names: Sequence[str]) -> list[str]:
    """The studies asked for; ValueError names those that there are."""
    wanted = list(STUDIES) if "all" in names else list(names)
    for name in wanted:
        if name not in STUDIES:
            raise ValueError(f"There is no study '{name}'; the studies are {', '.join(STUDIES)}, or all.")
    return wanted


def run_studies(
    names: Sequence[str],
    pipe: AvatarPipeline,
    judge: Judge,
    settings: StudySettings,
    *,
    data: Path,
    runs: Path,
    gallery: Path,
    out: Path,
    teacher: Path | None,
    model: Mapping[str, Any],
) -> list[Path]:
    """Writes out/studies/NAME.json and its pictures; `model` names the model in each one's provenance."""
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    digest = str(model.get("model_sha256") or "unsaved")[:12]
    logger.info("Reading the held-out material, and how lips are read off latents")
    speakers = Speakers.gather(
        pipe, judge, settings, data=data, runs=runs, gallery=gallery,
        kept_reading=folder / f"reading_{digest}.json", teacher=teacher,
    )  # fmt: skip
    written = []
    for name in names:
        logger.info("Study: %s", name)
        started = time.monotonic()
        study = STUDIES[name](speakers, folder)
        provenance = {
            **model,
            "settings": asdict(settings),
            "machine": machine(),
            "seconds": round(time.monotonic() - started),
        }
        written.append(study.write(folder, provenance))
        header, lines = table(study.rows)
        widths = [max(len(line[i]) for line in (header, *lines)) for i in range(len(header))]
        for line in (header, *lines):
            print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    return written
