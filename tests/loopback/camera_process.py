"""`talkalong camera` with pyvirtualcam's public seam for backends in place of a camera driver.

python camera_process.py LOG [options of talkalong camera]: each picture becomes a line of LOG, with the wall time when
it was there and how bright its middle is.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pyvirtualcam

from client.cli import main

LOG = Path(sys.argv[1]).open("w", buffering=1)  # noqa: SIM115 - as long as the process


class LoggedCamera:
    """What `pyvirtualcam.Backend` describes."""

    def __init__(self, *, width: int, height: int, fps: float, fourcc: int, device: str | None) -> None:
        self._shape = (height, width, 3)

    def close(self) -> None:
        LOG.flush()

    def send(self, frame: np.ndarray) -> None:
        at = time.monotonic()
        height, width, _ = self._shape
        picture = frame.reshape(self._shape)
        light = picture[height // 2 : height * 3 // 4, width * 2 // 5 : width * 3 // 5].mean()
        LOG.write(f"{at:.6f} {light:.3f}\n")

    def device(self) -> str:
        return "Logged camera"

    def native_fourcc(self) -> None:
        return None


for name in list(pyvirtualcam.camera.BACKENDS):
    pyvirtualcam.register_backend(name, LoggedCamera)
sys.exit(main(["camera", *sys.argv[2:]]))
