"""What a new portrait will look like, before it may be used: what is cut out, what may move, frames of the model.

Runs in the process that prepares portraits. The frames are the model's, driven by a piece of the page's sample voice,
so what is seen is what a session will show: nothing is drawn for the occasion.
"""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.drawing import PreparedPortrait
from pipeline.portrait import CROP_PIXELS
from pipeline.state import Controls

VIEWS = ("crop", "mask", "rest", "speaking", "moving")
SAMPLE_VOICE = Path(__file__).resolve().parents[2] / "client" / "web" / "sample-voice.mp3"
# A pause, three open vowels, a pause: the animation begins and ends with closed lips.
VOICE_BEGINS_S, VOICE_ENDS_S = 0.32, 1.52
FPS = 25
SAMPLE_RATE = 16_000
SHOWN_SIDE = 384
MOVING_SIDE = 288
WEBP_QUALITY = 82
MASK_COLOUR = np.array([15, 118, 110], np.float32)


def make_preview(pipe: Any, portrait: PreparedPortrait) -> dict[str, bytes]:
    """WebP files by view. crop: the face as the model sees it. mask: where the picture may move, the rest is veiled.
    rest, speaking: frames made by the model with closed lips and with the mouth at its widest. moving: 1.2 s of them.
    """
    frames = _speak(pipe, portrait)
    rest = frames[0]
    change = [float(cv2.absdiff(frame, rest).mean()) for frame in frames]
    moving = [_shrunk(frame, MOVING_SIDE) for frame in frames]
    out = io.BytesIO()
    moving[0].save(
        out,
        "WEBP",
        save_all=True,
        append_images=moving[1:],
        duration=1000 // FPS,
        loop=0,
        quality=70,
        method=1,
    )
    return {
        "crop": _webp(Image.fromarray(portrait.crop)),
        "mask": _webp(_shrunk(_veiled(portrait), SHOWN_SIDE)),
        "rest": _webp(_shrunk(rest, SHOWN_SIDE)),
        "speaking": _webp(_shrunk(frames[int(np.argmax(change))], SHOWN_SIDE)),
        "moving": out.getvalue(),
    }


def _speak(pipe: Any, portrait: PreparedPortrait) -> list[NDArray[np.uint8]]:
    """The model's frames for the piece of voice."""
    pcm = _voice()
    spec = pipe.window_spec()
    state = pipe.init_state(portrait, window=spec, seed=1, controls=Controls())
    frames: list[NDArray[np.uint8]] = []
    for index in range(spec.chunk_count(len(pcm))):
        state, chunk = pipe.step(state, spec.cut(pcm, index))
        frames.extend(chunk.frames)
    return frames


@cache
def _voice() -> NDArray[np.float32]:
    from pipeline.sound_file import SoundFile  # a decoder that only this needs

    begin, end = int(VOICE_BEGINS_S * SAMPLE_RATE), int(VOICE_ENDS_S * SAMPLE_RATE)
    heard: list[NDArray[np.float32]] = []
    with SoundFile(SAMPLE_VOICE) as file:
        for _, pcm in file.pieces(SAMPLE_RATE):
            heard.append(pcm)
            if sum(map(len, heard)) >= end:
                break
    return np.concatenate(heard)[begin:end]


def _veiled(portrait: PreparedPortrait) -> NDArray[np.uint8]:
    """The canvas [H,W,3]: as it is where it may move, greenish where it may not; the crop has a thin frame."""
    alpha = portrait.alpha[..., None]
    canvas = portrait.canvas.astype(np.float32)
    veil = 0.5 * canvas.mean(-1, keepdims=True) + 0.5 * MASK_COLOUR
    mixed = np.ascontiguousarray((alpha * canvas + (1 - alpha) * veil).astype(np.uint8))
    zoom = np.diag(portrait.matrix[:, :2])
    first = np.round((-0.5 - portrait.matrix[:, 2]) / zoom + 0.5).astype(int)
    last = first + np.round(CROP_PIXELS / zoom).astype(int) - 1
    cv2.rectangle(mixed, tuple(map(int, first)), tuple(map(int, last)), (255, 255, 255), 2, cv2.LINE_AA)
    return np.asarray(mixed, np.uint8)


def _shrunk(frame: NDArray[np.uint8], side: int) -> Image.Image:
    picture = Image.fromarray(frame)
    picture.thumbnail((side, side), Image.Resampling.BOX, reducing_gap=None)
    return picture


def _webp(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=WEBP_QUALITY, method=2)
    return out.getvalue()
