"""From rendered frames to series: what the judge and the pixels say about each take."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.drawing import PreparedPortrait
from pipeline.evaluation import head, lips, picture
from pipeline.evaluation.actors import Actor, Performance
from pipeline.evaluation.judging import Judge, Observation
from pipeline.evaluation.material import FPS, Clip
from pipeline.evaluation.references import Reference

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Still:
    """A frame worth looking at (-1: the portrait): uint8 [H,W,3], its landmarks [478,3] and a caption."""

    frame: int
    label: str
    image: NDArray[np.uint8]
    landmarks: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Take:
    """One stretch of an actor's performance, measured; T frames, K of them sampled for the slower measures.

    `rest` is the aperture of the portrait itself. `sharpness` is relative to it, `identity` distances.
    """

    actor: str
    portrait: str
    clip: Clip
    first_frame: int
    found: float
    rest: float
    aperture: NDArray[np.float64]
    openness: NDArray[np.float64]
    head_path: NDArray[np.float64]
    changes: NDArray[np.float64]
    identity: NDArray[np.float64]
    sharpness: NDArray[np.float64]
    colours: NDArray[np.float64]
    latents: NDArray[np.float32] | None
    step_ms: tuple[float, ...]
    stills: tuple[Still, ...]

    @property
    def frames(self) -> int:
        return len(self.aperture)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Face:
    """What the judge says about a portrait's own picture."""

    aperture: float
    embedding: NDArray[np.float32]
    energy: float
    still: Still


class Stage:
    """Lets actors perform before the judge: frames are judged while the next ones are rendered."""

    def __init__(self, judge: Judge, identity_every_frames: int, references: Mapping[str, Reference]) -> None:
        self._judge, self._every, self._references = judge, identity_every_frames, references
        self._faces: dict[tuple[str, tuple[int, ...]], _Face] = {}

    def takes(self, jobs: Iterable[tuple[Actor, PreparedPortrait, Clip]]) -> Iterator[Take]:
        """Takes of all jobs, in order. ValueError if the judge finds no face in a portrait."""
        waiting: tuple[str, PreparedPortrait, Clip, Performance, Future[Observation]] | None = None
        for actor, portrait, clip in jobs:
            for performance in actor.perform(portrait, clip):
                sampled = range(self._every // 2, len(performance.frames), self._every)
                future = self._judge.submit(performance.frames, embed=sampled)
                if waiting is not None:
                    yield self._measure(*waiting)
                waiting = (actor.name, portrait, clip, performance, future)
        if waiting is not None:
            yield self._measure(*waiting)

    def _face(self, portrait: PreparedPortrait, shown: NDArray[np.uint8]) -> _Face:
        key = (portrait.name, shown.shape)
        if key not in self._faces:
            seen = self._judge.observe(np.repeat(shown[None], 3, axis=0), embed=[2])
            if not seen.found:
                raise ValueError(
                    f"The judge finds no face in the portrait {portrait.name}; leave that portrait out."
                )
            mask = picture.face_mask(seen.landmarks[-1], *shown.shape[:2])
            self._faces[key] = _Face(
                aperture=float(lips.aperture(seen.landmarks)[-1]),
                embedding=seen.embeddings[0],
                energy=picture.laplacian_energy(shown, mask),
                still=Still(frame=-1, label="the portrait", image=shown, landmarks=seen.landmarks[-1]),
            )
        return self._faces[key]

    def _measure(
        self,
        actor: str,
        portrait: PreparedPortrait,
        clip: Clip,
        performance: Performance,
        future: Future[Observation],
    ) -> Take:
        seen, face = future.result(), self._face(portrait, performance.picture)
        frames, landmarks = performance.frames, seen.landmarks
        sampled = [i for i in seen.embed if np.isfinite(landmarks[i]).all()]
        masks = {i: picture.face_mask(landmarks[i], *frames.shape[1:3]) for i in sampled}
        if seen.found:
            aperture, openness = lips.aperture(landmarks), head.eye_openness(landmarks)
            path = head.head_path(landmarks)
        else:  # measured as a face that does nothing, and counted in `found`
            logger.warning("No face is found in what '%s' shows of portrait %s.", actor, portrait.name)
            aperture, openness, path = (
                np.zeros(len(frames)),
                np.ones(len(frames)),
                np.zeros((len(frames), 2)),
            )
        return Take(
            actor=actor,
            portrait=portrait.name,
            clip=clip,
            first_frame=performance.first_frame,
            found=seen.found,
            rest=face.aperture,
            aperture=aperture,
            openness=openness,
            head_path=path,
            changes=picture.frame_changes(frames),
            identity=picture.identity_distances(seen.embeddings, face.embedding),
            sharpness=np.array(
                [picture.laplacian_energy(frames[i], masks[i]) / face.energy for i in sampled]
            ),
            colours=np.array([picture.face_colour(frames[i], masks[i]) for i in sampled]).reshape(-1, 3),
            latents=performance.latents,
            step_ms=performance.step_ms,
            stills=(
                face.still,
                *(
                    Still(frame=frame, label=label, image=frames[frame].copy(), landmarks=landmarks[frame])
                    for frame, label in self._moments(aperture, openness, path, clip, performance.first_frame)
                    if np.isfinite(landmarks[frame]).all()
                ),
            ),
        )

    def _moments(
        self,
        aperture: NDArray[np.float64],
        openness: NDArray[np.float64],
        path: NDArray[np.float64],
        clip: Clip,
        first_frame: int,
    ) -> list[tuple[int, str]]:
        """Frames that show strengths and faults, (frame in this take, label); the first is common to all."""
        end = first_frame + len(aperture)
        sounds = {
            s.label: (s.first + s.last - 1) // 2
            for s in clip.sounds
            if first_frame <= s.first and s.last <= end
        }

        def said(letters: str, label: str) -> list[tuple[int, str]]:
            return [
                (sounds[letter] - first_frame, f"{label} /{letter}/")
                for letter in letters
                if letter in sounds
            ][:1]

        reference = self._references.get(clip.name)
        if reference is not None:
            chosen = [(int(np.argmax(reference.aperture[first_frame:end])), "reference widest")]
        else:
            chosen = said("ɑaæʌɔAI", "open vowel")
        chosen.append((int(np.argmax(aperture)), "widest"))
        if clip.corpus == "kokoro":
            chosen += (
                said("bpm", "closure")
                + said("fv", "teeth on lip")
                + said("uwOɔ", "rounded")
                + said("izsA", "spread")
            )
        else:
            chosen.append((5 + int(np.argmin(aperture[5:])), "most closed"))
            chosen.append((int(np.argsort(aperture)[int(0.75 * len(aperture))]), "half open"))
        chosen.append((int(np.argmin(openness)), "eyes most closed"))
        chosen.append(
            (int(np.argmax(np.linalg.norm(path - np.median(path, axis=0), axis=1))), "head farthest")
        )
        return [
            (frame, f"{label}, {(first_frame + frame) / FPS:.2f} s")
            for frame, label in chosen
            if frame < len(aperture)
        ]
