"""Finds 468 points of a face in the canonical crop, when a portrait is prepared and never again.

The network is MediaPipe's face mesh (Kartynnik et al. 2019, arXiv 1907.06724; Apache-2.0, 1.2 MB, see
`weights/face/NOTICE.md`), run by OpenCV in some 3 ms.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.face_detector import bundled_network

_INPUT_PIXELS = 192
_POINTS = 468
_FEATURES = "p_re_lu_10"
_LEFT_EYE, _RIGHT_EYE = 33, 263  # outer corners, as the picture shows them
_UPRIGHT_DEGREES = 5.0


class FaceMesh:
    """Serves one thread at a time: the network keeps its buffers."""

    def __init__(self) -> None:
        self._network = bundled_network("face_landmark.tflite")
        self._outputs = self._network.getUnconnectedOutLayersNames()
        self._lock = threading.Lock()

    @staticmethod
    @cache
    def bundled() -> FaceMesh:
        """The one that all share."""
        return FaceMesh()

    def find(self, crop: NDArray[np.uint8], *, certainty: float = 0.0) -> NDArray[np.float64] | None:
        """Points [468,2] (x, y) in pixels of a square crop [S,S,3] RGB, numbered as MediaPipe does; None if what it
        shows is no face to this network, whose logit for one must reach `certainty` (photographs: about 20). It is
        shown a tilted head upright, as it was trained."""
        logit, points = self.look(crop)
        if logit < certainty:
            return None
        across = points[_RIGHT_EYE] - points[_LEFT_EYE]
        tilt = float(np.degrees(np.arctan2(across[1], across[0])))
        if abs(tilt) < _UPRIGHT_DEGREES:
            return points
        middle = ((len(crop) - 1) / 2,) * 2
        turn = cv2.getRotationMatrix2D(middle, tilt, 1.0)
        upright = cv2.warpAffine(crop, turn, crop.shape[:2], borderMode=cv2.BORDER_REPLICATE)
        logit, points = self.look(np.asarray(upright, np.uint8))
        if logit < certainty:
            return None
        back = cv2.invertAffineTransform(turn)
        return points @ back[:, :2].T + back[:, 2]

    def look(self, crop: NDArray[np.uint8]) -> tuple[float, NDArray[np.float64]]:
        """The logit for a face, and the points [468,2] that it would have, of a square crop [S,S,3] RGB."""
        outputs = self._run(crop, self._outputs)
        (numbers,) = (output for output in outputs if output.size == 3 * _POINTS)
        (logit,) = (float(output.item()) for output in outputs if output.size == 1)
        # The network's pixels to the crop's, whole numbers being pixel centres in both.
        zoom = len(crop) / _INPUT_PIXELS
        return logit, (numbers.reshape(_POINTS, 3)[:, :2].astype(np.float64) + 0.5) * zoom - 0.5

    def features(self, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the network sees half-way, [128,12,12], of a square crop [S,S,3] RGB."""
        (features,) = self._run(crop, [_FEATURES])
        return np.asarray(features[0], np.float32)

    def _run(self, crop: NDArray[np.uint8], outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        blob = cv2.dnn.blobFromImage(crop, 1 / 255, (_INPUT_PIXELS, _INPUT_PIXELS))
        with self._lock:
            self._network.setInput(blob)
            return [np.array(output) for output in self._network.forward(outputs)]
