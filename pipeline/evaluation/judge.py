"""The judge: finds landmarks and identity in frames. A program for a Python that has MediaPipe and dlib.

MediaPipe needs numpy below 2, so it cannot live beside the product; `judging.Judge` starts this file and
talks to it. Each request on standard input is a line of JSON, {"shape": [T, H, W, 3], "embed": [frame, ...],
"still": bool}, and the frames as raw RGB bytes. Each answer on standard output is 8 bytes of length (little
endian) and an .npz of landmarks f32 [T,478,3] in pixels and embeddings f32 [len(embed),128]; NaN: no face.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np

LANDMARKS, EMBEDDING = 478, 128


class FaceJudge:
    """MediaPipe FaceMesh and dlib's face embedding, loaded once."""

    def __init__(self) -> None:
        self._face_mesh: Any = importlib.import_module("mediapipe.python.solutions.face_mesh")
        self._dlib: Any = importlib.import_module("dlib")
        spec = importlib.util.find_spec("face_recognition_models")
        if spec is None or spec.origin is None:
            raise SystemExit(
                "The judge's Python lacks the package face-recognition-models; install it there."
            )
        models = Path(spec.origin).parent / "models"
        self._shape = self._dlib.shape_predictor(str(models / "shape_predictor_5_face_landmarks.dat"))
        self._embed = self._dlib.face_recognition_model_v1(
            str(models / "dlib_face_recognition_resnet_model_v1.dat")
        )

    def landmarks(self, frames: Any, still: bool) -> Any:
        """Landmarks [T,478,3]; `still` takes every frame for itself, else the face is tracked."""
        found = np.full((len(frames), LANDMARKS, 3), np.nan, np.float32)
        height, width = frames.shape[1:3]
        mesh = self._face_mesh.FaceMesh(
            static_image_mode=still, refine_landmarks=True, max_num_faces=1, min_detection_confidence=0.3
        )
        with mesh:
            for index, frame in enumerate(frames):
                faces = mesh.process(frame).multi_face_landmarks
                if faces:
                    found[index] = [(p.x * width, p.y * height, p.z * width) for p in faces[0].landmark]
        return found

    def embedding(self, frame: Any, landmarks: Any) -> Any:
        """Identity [128] of the face with these landmarks; the box is like that of dlib's own detector."""
        if not np.isfinite(landmarks).all():
            return np.full(EMBEDDING, np.nan, np.float32)
        brow, chin = landmarks[[9, 152], :2]
        side = 1.15 * float(np.linalg.norm(brow - chin))
        x, y = 0.5 * (brow + chin) - side / 2
        box = self._dlib.rectangle(int(x), int(y), int(x + side), int(y + side))
        return np.array(self._embed.compute_face_descriptor(frame, self._shape(frame, box)), np.float32)


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the libraries print must not get into the answers
    judge = FaceJudge()
    requests = sys.stdin.buffer
    while line := requests.readline():
        request = json.loads(line)
        shape = tuple(request["shape"])
        raw = requests.read(int(np.prod(shape)))
        frames = np.frombuffer(raw, np.uint8).reshape(shape)
        landmarks = judge.landmarks(frames, bool(request["still"]))
        embeddings = [judge.embedding(frames[i], landmarks[i]) for i in request["embed"]]
        packed = io.BytesIO()
        np.savez(
            packed, landmarks=landmarks, embeddings=np.array(embeddings, np.float32).reshape(-1, EMBEDDING)
        )
        answers.write(struct.pack("<Q", packed.tell()) + packed.getvalue())
        answers.flush()


if __name__ == "__main__":
    main()
