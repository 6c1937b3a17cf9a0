"""Held-out portraits and speech: what the model is asked to say, and how a real mouth said it."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.portrait import Portrait, PortraitError, prepare_portrait
from pipeline.sound_file import SoundFile

logger = logging.getLogger(__name__)

FPS = 25
SAMPLE_RATE = 16_000
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
KOKORO_UNIT_S = 0.025
KOKORO_DELAY_S = 0.050  # as in pipeline.training.speech
HELD_OUT_EVERY = 20
CLOSING = frozenset("pbm")
PICTURES = (".jpg", ".jpeg", ".png", ".webp")


ItemT = TypeVar("ItemT")


class MaterialError(FileNotFoundError):
    """Portraits or speech to evaluate with are missing; the message says where they were looked for."""


@dataclass(frozen=True, kw_only=True)
class Sound:
    """A stretch of speech in a clip: `label` (phoneme or word) in frames [first, last)."""

    label: str
    first: int
    last: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """Audio to be spoken: `pcm` float32 [N] at 16 kHz, N a whole number of frames.

    `sounds` say what is spoken when. `video` is the recording of the real speaker, `motion` [T,62] a rig
    motion that belongs to the audio; either serves as reference for the lips, and both may be missing.
    """

    name: str
    corpus: str
    pcm: NDArray[np.float32]
    sounds: tuple[Sound, ...] = ()
    video: Path | None = None
    motion: NDArray[np.float32] | None = field(default=None, repr=False)

    @property
    def frames(self) -> int:
        return len(self.pcm) // SAMPLES_PER_FRAME

    @property
    def closing_sounds(self) -> tuple[tuple[int, int], ...]:
        """Frames [first, last) of the sounds that close the lips: p, b, m."""
        return tuple((s.first, s.last) for s in self.sounds if s.label in CLOSING)

    @property
    def speech(self) -> tuple[int, int]:
        """First and one past the last frame in which something is said."""
        spoken = [sound for sound in self.sounds if sound.label not in ("sil", "sp", "^", "$")]
        return (spoken[0].first, min(spoken[-1].last, self.frames)) if spoken else (0, self.frames)


def read_audio(path: Path) -> NDArray[np.float32]:
    """Mono audio at 16 kHz, padded with zeros to whole video frames."""
    with SoundFile(path) as sound:
        pcm = np.concatenate([piece for (piece,) in sound.at(SAMPLE_RATE)])
    return np.pad(pcm, (0, -len(pcm) % SAMPLES_PER_FRAME))


def read_video(path: Path) -> NDArray[np.uint8]:
    """All frames [T,H,W,3] RGB of a short clip."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def spread(items: Sequence[ItemT], count: int) -> list[ItemT]:
    """`count` items spread evenly over all, or all when there are fewer."""
    if count >= len(items):
        return list(items)
    return [items[int((i + 0.5) * len(items) / count)] for i in range(count)]


def _motions(archive: Path) -> dict[str, NDArray[np.float32]]:
    """Rig motion of every clip in a file of runs/motion; empty when that file was never made."""
    if not archive.is_file():
        return {}
    with np.load(archive) as file:
        motion, offsets = file["motion"], file["offsets"]
        names = [str(name).split("/")[-1] for name in file["names"]]
    return {name: motion[offsets[i] : offsets[i + 1]] for i, name in enumerate(names)}


def _spoken_motion(data: Path, entry: dict[str, Any]) -> NDArray[np.float32]:
    """Rig motion of a Kokoro clip, by the rules that also make the motion to train on."""
    from pipeline.training.phones import phones
    from pipeline.training.speech_motion import speech_motion

    with np.load(data / "ict_facekit.npz") as file:
        names = [str(name) for name in file["names"]]
    frames = int(np.ceil(sum(entry["durations"]) * KOKORO_UNIT_S * FPS))
    spoken = phones(entry["phonemes"], entry["durations"])
    return speech_motion(spoken, frames, names, np.random.default_rng(0))


def kokoro_clips(data: Path, runs: Path, seconds: float, count: int) -> list[Clip]:
    """`count` of the Kokoro clips that no training stage sees (every 20th), cut, with phoneme times."""
    parts = sorted((data / "kokoro").glob("part*.jsonl"))
    if not parts:
        raise MaterialError(
            f"There is no Kokoro speech (part*.jsonl) in {data / 'kokoro'}; name the data with --data."
        )
    entries = [json.loads(line) for part in parts for line in part.read_text(encoding="utf-8").splitlines()]
    entries.sort(key=lambda entry: str(entry["file"]))
    motions = _motions(runs / "motion" / "kokoro_val.npz")
    frames = int(seconds * FPS)
    clips = []
    for entry in spread(entries[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY], count):
        name = Path(entry["file"]).stem
        # Kokoro's durations run behind its sound.
        ends_s = np.cumsum(entry["durations"]) * KOKORO_UNIT_S - KOKORO_DELAY_S
        edges = np.maximum(np.concatenate([[0], ends_s]) * FPS, 0)
        sounds = tuple(
            Sound(label=label, first=int(start), last=int(np.ceil(end)))
            for label, start, end in zip(entry["phonemes"], edges[:-1], edges[1:], strict=True)
            if end <= frames
        )
        motion = motions.get(name)
        if motion is None:
            motion = _spoken_motion(data, entry)
        clips.append(
            Clip(
                name=name,
                corpus="kokoro",
                pcm=read_audio(data / "kokoro" / entry["file"])[: frames * SAMPLES_PER_FRAME],
                sounds=sounds,
                motion=motion[:frames],
            )
        )
    return clips


def grid_clips(data: Path, runs: Path, count: int) -> list[Clip]:
    """`count` of the held-out GRID clips: a real speaker, with word times and video."""
    videos = sorted((data / "grid" / "val").glob("*.mp4"))
    if not videos:
        raise MaterialError(
            f"There are no GRID clips in {data / 'grid' / 'val'}; name the data folder with --data."
        )
    motions = _motions(runs / "motion" / "grid_val.npz")
    clips = []
    for video in spread(videos, count):
        words = (line.split() for line in video.with_suffix(".align").read_text().splitlines())
        sounds = tuple(
            Sound(label=word, first=int(start) // 1000, last=-(-int(end) // 1000))
            for start, end, word in words
        )
        pcm = read_audio(video)
        clips.append(
            Clip(
                name=video.stem,
                corpus="grid",
                pcm=pcm,
                sounds=sounds,
                video=video,
                motion=motions.get(video.stem),
            )
        )
    return clips


def silence(seconds: float, seed: int) -> Clip:
    """What a microphone hears in a quiet room: noise 60 dB below full scale."""
    samples = int(seconds * FPS) * SAMPLES_PER_FRAME
    pcm = 1e-3 * np.random.default_rng(seed).standard_normal(samples)
    return Clip(name="silence", corpus="silence", pcm=pcm.astype(np.float32))


def long_speech(clips: Sequence[Clip], seconds: float) -> Clip:
    """The given clips one after the other, again and again, for `seconds`."""
    frames = int(seconds * FPS)
    joined = np.concatenate([clip.pcm for clip in clips])
    return Clip(name="long run", corpus="long", pcm=np.resize(joined, frames * SAMPLES_PER_FRAME))


def portraits(data: Path, gallery: Path, count: int, gallery_count: int) -> list[Portrait]:
    """Portraits that no training stage saw, then those bundled with the model."""
    held_out = sorted((data / "portraits" / "val").glob("*.jpg"))
    if count and not held_out:
        raise MaterialError(
            f"There are no portraits in {data / 'portraits' / 'val'}; name the data with --data."
        )
    bundled = sorted(path for path in gallery.glob("*") if path.suffix.lower() in PICTURES)
    chosen = spread(held_out, count) + spread(bundled, gallery_count)
    prepared = []
    for path in chosen:
        try:
            prepared.append(prepare_portrait(path, name=path.stem))
        except PortraitError as error:
            logger.warning("Portrait %s is left out: %s", path.name, error)
    if not prepared:
        raise MaterialError(
            f"None of the {len(chosen)} portraits in {data / 'portraits' / 'val'} can be used."
        )
    return prepared
