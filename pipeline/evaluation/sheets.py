"""Contact sheets: chosen frames at full size, with close-ups of mouth and eyes below each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.evaluation.takes import Still, Take

_LIPS = (61, 291, 0, 17)
_EYE_LINE = (33, 263, 70, 300, 230, 450)
CLOSE_UP_PIXELS = 300
_STRIP, _GAP = 24, 6
_PAPER, _INK = (24, 24, 27), (240, 240, 240)


def close_up(still: Still, points: tuple[int, ...], aspect: float) -> Image.Image:
    """A piece of the frame around landmarks, CLOSE_UP_PIXELS wide, enlarged; it never leaves the frame."""
    height, width = still.image.shape[:2]
    centre = still.landmarks[list(points), :2].mean(0)
    face_width = float(np.linalg.norm(still.landmarks[234, :2] - still.landmarks[454, :2]))
    side = min(0.62 * face_width if aspect > 0.5 else 0.9 * face_width, width, height / aspect)
    left = float(np.clip(centre[0] - side / 2, 0, width - side))
    top = float(np.clip(centre[1] - side * aspect / 2, 0, height - side * aspect))
    box = (left, top, left + side, top + side * aspect)
    size = (CLOSE_UP_PIXELS, round(CLOSE_UP_PIXELS * aspect))
    return Image.fromarray(still.image).resize(size, Image.Resampling.LANCZOS, box=box)


def _column(still: Still) -> Image.Image:
    parts = [Image.fromarray(still.image), close_up(still, _LIPS, 0.7), close_up(still, _EYE_LINE, 0.4)]
    column = Image.new(
        "RGB", (max(p.width for p in parts), _STRIP + sum(p.height + _GAP for p in parts)), _PAPER
    )
    ImageDraw.Draw(column).text((4, 4), still.label, _INK, font=ImageFont.load_default(14))
    y = _STRIP
    for part in parts:
        column.paste(part, ((column.width - part.width) // 2, y))
        y += part.height + _GAP
    return column


def _beside(columns: Sequence[Image.Image]) -> Image.Image:
    height = max(column.height for column in columns)
    sheet = Image.new("RGB", (sum(c.width + _GAP for c in columns), height), _PAPER)
    x = 0
    for column in columns:
        sheet.paste(column, (x, 0))
        x += column.width + _GAP
    return sheet


def take_sheet(take: Take, path: Path) -> Path:
    """The stills of one take side by side; the portrait comes first."""
    _beside([_column(still) for still in take.stills]).save(path)
    return path


def actors_sheet(takes: Sequence[Take], path: Path) -> Path:
    """The same moment as each actor shows it: where the reference opens its mouth widest."""
    labelled = [
        _column(replace(still, label=f"{take.actor}: {still.label}"))
        for take in takes
        for still in take.stills[1:2]
    ]
    _beside([_column(takes[0].stills[0]), *labelled]).save(path)
    return path


def mosaic(takes: Sequence[Take], path: Path, columns: int = 4) -> Path:
    """Every portrait at its widest opening, frames at full size."""
    pictures: list[NDArray[np.uint8]] = [take.stills[:3][-1].image for take in takes]
    height, width = (max(picture.shape[i] for picture in pictures) for i in range(2))
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (min(columns, len(pictures)) * (width + _GAP), rows * (height + _GAP)), _PAPER)
    for index, picture in enumerate(pictures):
        place = (index % columns * (width + _GAP), index // columns * (height + _GAP))
        sheet.paste(Image.fromarray(picture), place)
    sheet.save(path)
    return path
