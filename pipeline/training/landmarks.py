"""MediaPipe FaceMesh landmarks of pictures and clips, run by an environment of its own (numpy < 2).

    python pipeline/training/landmarks.py pictures|clips OUT.npz FILE...

Writes one array [frames, 478, 3] (pixels; NaN where no face was found) per file, named FOLDER/STEM.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("GLOG_minloglevel", "3")


def read_frames(path: Path) -> list[Any]:
    """RGB frames of a picture or clip."""
    import cv2

    capture = cv2.VideoCapture(str(path))
    frames: list[Any] = []
    while True:
        found, frame = capture.read()
        if not found:
            return frames
        frames.append(frame[:, :, ::-1].copy())


def main() -> None:
    import mediapipe
    import numpy as np

    if len(sys.argv) < 4 or sys.argv[1] not in ("pictures", "clips"):
        raise SystemExit(__doc__)
    mesh = mediapipe.solutions.face_mesh.FaceMesh(
        static_image_mode=sys.argv[1] == "pictures", refine_landmarks=True, min_detection_confidence=0.3
    )
    tracks = {}
    for number, name in enumerate(sys.argv[3:], 1):
        path = Path(name)
        mesh.reset()
        rows = []
        for frame in read_frames(path):
            height, width = frame.shape[:2]
            faces = mesh.process(frame).multi_face_landmarks
            points = (
                [[p.x * width, p.y * height, p.z * width] for p in faces[0].landmark]
                if faces
                else [[np.nan] * 3] * 478
            )
            rows.append(np.array(points, np.float32))
        if rows:
            tracks[f"{path.parent.name}/{path.stem}"] = np.stack(rows)
        if number % 50 == 0 or number == len(sys.argv) - 3:
            print(f"{number} of {len(sys.argv) - 3} files", flush=True)
    out = Path(sys.argv[2])
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(out, **tracks)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
