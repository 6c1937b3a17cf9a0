"""How near frames that are drawn from directions come to those that the decoder itself makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline.drawing import PreparedPortrait
from pipeline.drawing.geometry import CROP_PIXELS
from pipeline.evaluation import lips
from pipeline.evaluation.decoded import decoded_frames, psnr
from pipeline.evaluation.head import eye_openness
from pipeline.evaluation.speaking import Manner, speak
from pipeline.evaluation.studies.result import Study
from pipeline.evaluation.studies.sounds import at_level, white
from pipeline.evaluation.studies.speakers import Speakers
from pipeline.state import Controls

SECONDS = 4
SHOWN = 4
CELL = 300
# Parts of the crop that are looked at in large: rows and columns, in crop pixels.
MOUTH, EYES = (slice(128, 212), slice(76, 180)), (slice(72, 126), slice(56, 200))
LIVELY, CALM = Controls(expressiveness=2, head_motion=2), Controls(expressiveness=0, head_motion=0, gaze=2)


def study(speakers: Speakers, out: Path) -> Study:
    """Every portrait, in turn with speech that nothing was fitted to, odd sounds and the controls' ends."""
    rows: list[dict[str, Any]] = []
    strips: list[tuple[str, NDArray[np.uint8]]] = []
    for place, portrait in enumerate(speakers.portraits):
        for name, z_TD in _motions(speakers, place).items():
            frames = speakers.pipe.draw(speakers.pipe.init_state(portrait, window=speakers.window), z_TD)[0]
            decoded = decoded_frames(speakers.pipe, portrait, z_TD)
            each = [psnr(*pair) for pair in zip(frames, decoded, strict=True)]
            row: dict[str, Any] = {
                "portrait": portrait.name,
                "motion": name,
                "psnr_db": psnr(frames, decoded),
                "worst_db": min(each),
            }
            rows.append(row | _seen(speakers, frames, decoded))
            if name in ("speech", "lively"):
                chosen = [*np.linspace(0, len(z_TD) - 1, SHOWN).astype(int), int(np.argmin(each))]
                strips.append((f"{portrait.name}, {name}", _strip(portrait, frames, decoded, chosen)))
    return Study(
        name="drawing",
        title="Drawing from directions against the decoder",
        rows=rows,
        notes=[
            "psnr_db: of all frames against the decoder's own; worst_db: of the single frame that is furthest off. "
            "lips and lids: correlation of what the judge sees on both, where they move.",
        ],
        pictures={
            _sheet(
                strips, out / "drawing.png"
            ).name: "The decoder's frame above, the drawn one below it: whole crop, "
            "mouth and eyes; the last column is the frame that is furthest off"
        },
    )


def _motions(speakers: Speakers, place: int) -> dict[str, NDArray[np.float32]]:
    """Motion latents [T,D] by what is heard, and how it is spoken."""
    z_ref_1D = speakers.z_refs[place : place + 1]
    clips = [clip for clip in speakers.clips if clip.corpus == "kokoro"]
    said = clips[place % len(clips)].pcm[: 16_000 * SECONDS]
    rng = np.random.default_rng(speakers.settings.seed)
    time = np.arange(len(said)) / 16_000
    phase = 2 * np.pi * 220 * time * (1 + 0.02 * np.sin(12 * time))
    song = np.sum([np.sin(k * phase) / k for k in range(1, 7)], 0)
    heard = {
        "speech": (said, Controls()),
        "lively": (said, LIVELY),
        "calm": (said, CALM),
        "clipped": (np.clip(8 * said, -1, 1), Controls()),
        "noise": (at_level(white(len(said), rng).astype(np.float32), -3), Controls()),
        "music": (at_level(song.astype(np.float32), -6), Controls()),
    }
    return {
        name: speak(
            speakers.pipe, z_ref_1D, pcm[None].astype(np.float32), speakers.window, [place],
            Manner(controls=controls),
        )[0].cpu().numpy()
        for name, (pcm, controls) in heard.items()
    }  # fmt: skip


def _seen(
    speakers: Speakers, frames: NDArray[np.uint8], decoded: NDArray[np.uint8]
) -> dict[str, float | None]:
    """What the judge sees on both: correlation of lips and lids, None where they hardly move."""
    both = [speakers.judge.observe(pictures).landmarks for pictures in (frames, decoded)]
    found: dict[str, float | None] = {}
    for name, measure in (("lips", lips.aperture), ("lids", eye_openness)):
        one, other = (lips.fill_gaps(measure(landmarks)) for landmarks in both)
        found[name] = None if lips.hardly_moves(other) else lips.correlation(other, one)
    return found


def _strip(
    portrait: PreparedPortrait, frames: NDArray[np.uint8], decoded: NDArray[np.uint8], chosen: list[int]
) -> NDArray[np.uint8]:
    """Two rows, the decoder's and ours: crops, mouths and eyes of the chosen frames."""
    return np.concatenate(
        [
            np.concatenate([_views(portrait, pictures[index]) for index in chosen], 1)
            for pictures in (decoded, frames)
        ]
    )


def _views(portrait: PreparedPortrait, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The crop with mouth and eyes in large beside it."""
    whole = (slice(0, CROP_PIXELS), slice(0, CROP_PIXELS))
    face, mouth, eyes = (_cut(portrait, frame, part) for part in (whole, MOUTH, EYES))
    half = CELL // 2
    return np.concatenate(
        [_sized(face, CELL, CELL), np.concatenate([_sized(mouth, CELL, half), _sized(eyes, CELL, half)])], 1
    )


def _cut(
    portrait: PreparedPortrait, frame: NDArray[np.uint8], part: tuple[slice, slice]
) -> NDArray[np.uint8]:
    """A part of the crop, at the canvas's resolution."""
    spans = []
    for axis, (span, size) in enumerate(zip(part[::-1], frame.shape[1::-1], strict=True)):
        ends = [
            (end - 0.5 - portrait.matrix[axis, 2]) / portrait.matrix[axis, axis]
            for end in (span.start, span.stop)
        ]
        spans.append(slice(max(round(ends[0]), 0), min(round(ends[1]), size)))
    return frame[spans[1], spans[0]]


def _sized(picture: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _sheet(strips: list[tuple[str, NDArray[np.uint8]]], path: Path) -> Path:
    height, width = strips[0][1].shape[:2]
    sheet = Image.new("RGB", (width, (height + 24) * len(strips)), (24, 24, 27))
    pen = ImageDraw.Draw(sheet)
    for place, (name, strip) in enumerate(strips):
        pen.text((6, place * (height + 24) + 6), name, fill=(228, 228, 231))
        sheet.paste(Image.fromarray(strip), (0, place * (height + 24) + 24))
    sheet.save(path)
    return path
