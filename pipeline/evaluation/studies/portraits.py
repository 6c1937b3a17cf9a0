"""What the model makes of portraits that are no clean photographs: a contact sheet, and what the judge says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline.evaluation import lips, picture
from pipeline.evaluation.head import eye_openness
from pipeline.evaluation.speaking import speak
from pipeline.evaluation.studies.pictures import CHANGES, Picture, glasses
from pipeline.evaluation.studies.result import Study
from pipeline.evaluation.studies.speakers import Speakers
from pipeline.portrait import Portrait, PortraitError, prepare_portrait

FRAMES = 50
TALL = 170
_EYES = ((33, 133), (263, 362))


def candidates(speakers: Speakers, folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Who, in which variant, and the file of it: bundled portraits changed, spectacles, and an opened mouth."""
    for source in sorted(path for path in speakers.gallery.glob("*") if path.suffix in (".jpg", ".png")):
        original = np.asarray(Image.open(source).convert("RGB"))
        for name, change in CHANGES.items():
            yield source.stem, name, _save(change(original), folder, source.stem, name)
        portrait = prepare_portrait(source)
        seen = speakers.judge.observe(original[None], still=True)
        if seen.found:
            eyes = np.stack([seen.landmarks[0][list(pair), :2].mean(0) for pair in _EYES])
            yield source.stem, "glasses", _save(glasses(original, eyes), folder, source.stem, "glasses")
        yield source.stem, "open mouth", _save(_opened(speakers, portrait), folder, source.stem, "open mouth")


def _save(made: Picture, folder: Path, who: str, name: str) -> Path:
    path = folder / f"{who}_{''.join(c if c.isalnum() else '_' for c in name)}.png"
    Image.fromarray(made).save(path)
    return path


def _opened(speakers: Speakers, portrait: Portrait) -> Picture:
    """The same portrait caught while speaking: the frame in which the model opens its mouth widest."""
    state = speakers.pipe.init_state(portrait, window=speakers.window)
    z_TD = _spoken(speakers, state.z_ref_1D)
    aperture = speakers.reading.aperture(z_TD, state.z_ref_1D[0].float().cpu().numpy())
    frames, _ = speakers.pipe.draw(state, z_TD[[int(np.argmax(aperture))]])
    return np.asarray(frames[0], np.uint8)


def _spoken(speakers: Speakers, z_ref_1D: torch.Tensor) -> NDArray[np.float32]:
    clip = next(clip for clip in speakers.clips if clip.corpus == "grid")
    pcm = clip.pcm[None, : FRAMES * 640]
    made = speak(speakers.pipe, z_ref_1D, pcm, speakers.window, [speakers.settings.seed])
    return np.asarray(made[0].float().cpu().numpy())


def study(speakers: Speakers, out: Path) -> Study:
    """Every variant of every bundled portrait says two seconds."""
    folder = out / "variants"
    folder.mkdir(exist_ok=True)
    rows: list[dict[str, Any]] = []
    strips: dict[str, dict[str, NDArray[np.uint8]]] = {}
    for who, variant, path in candidates(speakers, folder):
        row: dict[str, Any] = {"portrait": who, "variant": variant}
        try:
            portrait = prepare_portrait(path, name=who)
        except PortraitError as refusal:
            rows.append(row | {"refused": str(refusal)})
            continue
        strip, figures = _perform(speakers, portrait)
        strips.setdefault(variant, {})[who] = strip
        rows.append(row | figures)
        path.unlink()
    for left in folder.glob("*.png"):
        left.unlink()
    folder.rmdir()
    sheet = contact_sheet(strips, out / "portraits.png")
    return Study(
        name="portraits",
        title="Portraits that are no clean photographs",
        rows=rows,
        notes=[
            "Each picture is a portrait bundled with the model, changed, and prepared like an upload; it says two "
            "seconds of held-out speech. Three cells each: as prepared, mouth widest, lids most closed.",
            "found: share of frames in which the judge sees a face. lips_follow: correlation of the aperture that the "
            "judge sees with the one that the motion means. opening: widest, in percent of the face height. lids: "
            "least opening of the eyes over their usual one, in a blink. outside: mean change of the pixels around the "
            "face, in levels.",
        ],
        pictures={
            sheet.name: "Every variant (rows) of every portrait (columns): as prepared, mouth widest, lids closed"
        },
    )


def _perform(speakers: Speakers, portrait: Portrait) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    state = speakers.pipe.init_state(portrait, window=speakers.window, seed=speakers.settings.seed)
    z_TD = _spoken(speakers, state.z_ref_1D)
    meant = speakers.reading.aperture(z_TD, state.z_ref_1D[0].float().cpu().numpy())
    frames, _ = speakers.pipe.draw(state, z_TD)
    seen = speakers.judge.observe(frames)
    widest = int(np.argmax(meant))
    outside = portrait.alpha <= 0
    figures: dict[str, Any] = {
        "found": seen.found,
        "outside": float(np.abs(frames[widest].astype(np.int16) - portrait.canvas)[outside].mean())
        if outside.any()
        else 0.0,
        "flicker": float(np.median(picture.frame_changes(frames))),
    }
    closed = widest
    if seen.found > 0.5:
        aperture, openness = lips.aperture(seen.landmarks), eye_openness(seen.landmarks)
        closed = int(np.argmin(openness))
        figures |= {
            "lips_follow": lips.correlation(meant, aperture),
            "opening": 100 * float(aperture.max() - np.percentile(aperture, 5)),
            "lids": float(openness.min()),
        }
    rows, columns = np.flatnonzero(portrait.alpha.any(1)), np.flatnonzero(portrait.alpha.any(0))
    part = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    cells = [portrait.canvas[part], frames[widest][part], frames[closed][part]]
    wide = round(TALL * cells[0].shape[1] / cells[0].shape[0])
    scaled = [cv2.resize(cell, (wide, TALL), interpolation=cv2.INTER_AREA) for cell in cells]
    return np.asarray(np.concatenate(scaled, axis=1), np.uint8), figures


def contact_sheet(strips: dict[str, dict[str, NDArray[np.uint8]]], path: Path) -> Path:
    """Variants as rows, portraits as columns."""
    people: Sequence[str] = list(dict.fromkeys(who for row in strips.values() for who in row))
    wide = max(strip.shape[1] for row in strips.values() for strip in row.values()) + 8
    sheet = Image.new("RGB", (wide * len(people), (TALL + 22) * len(strips)), (24, 24, 27))
    pen = ImageDraw.Draw(sheet)
    for line, (variant, row) in enumerate(strips.items()):
        for column, who in enumerate(people):
            place = (column * wide, line * (TALL + 22))
            pen.text((place[0] + 4, place[1] + 4), f"{who}: {variant}", fill=(244, 244, 245))
            if who in row:
                sheet.paste(Image.fromarray(row[who]), (place[0], place[1] + 20))
    sheet.save(path)
    return path
