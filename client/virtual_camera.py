"""The virtual camera: pictures of any size onto a canvas of the camera's, sent when the presentation says.

pyvirtualcam does the sending (v4l2loopback on Linux, OBS's camera on macOS and Windows). It is under the GPL and
therefore an optional extra, imported only here and only when a camera is asked for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from client.errors import DeviceError
from client.presentation import Picture, Presentation

logger = logging.getLogger(__name__)

JOIN_S = 3.0
BACKDROP_BLUR = 0.06  # of the canvas's height
BACKDROP_LIGHT = 0.35
WAITING_GREY = 32
MARK = "AI generated"
MARK_HEIGHT = 0.028  # of the canvas's height
NO_CAMERA = {
    "linux": "Load the v4l2loopback module: `sudo apt install v4l2loopback-dkms`, then `sudo modprobe "
    'v4l2loopback exclusive_caps=1 card_label="Talkalong camera"`.',
    "darwin": "Install OBS (30 or newer), start it once, press Start Virtual Camera and Stop, and quit it.",
    "win32": "Install OBS; its virtual camera comes with it.",
}


def pyvirtualcam() -> ModuleType:
    """The module; raises `DeviceError` with how to install it."""
    try:
        import pyvirtualcam
    except ImportError as error:
        raise DeviceError(
            "A virtual camera needs the package pyvirtualcam, which is not installed: `.venv/bin/pip "
            "install -e '.[camera]'` in Talkalong's folder. For sound alone use --no-camera."
        ) from error
    module: ModuleType = pyvirtualcam
    return module


class Canvas:
    """Fits pictures into width x height: whole, in the middle, before a dark blurred backdrop of themselves."""

    def __init__(self, width: int, height: int, *, marked: bool = True) -> None:
        self.size = (width, height)
        self._marked = marked
        self._canvas: Picture = np.full((height, width, 3), WAITING_GREY, np.uint8)
        self._shape: tuple[int, ...] = ()

    def blank(self) -> Picture:
        return self._canvas

    def place(self, picture: Picture) -> Picture:
        """picture: RGB uint8 [h, w, 3]. Returns uint8 [height, width, 3], which the next call overwrites."""
        width, height = self.size
        scale = min(width / picture.shape[1], height / picture.shape[0])
        inner = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        if picture.shape != self._shape:
            self._shape = picture.shape
            self._canvas = self._backdrop(picture)
        left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        place = self._canvas[top : top + inner[1], left : left + inner[0]]
        if scale == 1:
            place[:] = picture
        else:
            place[:] = cv2.resize(picture, inner, interpolation=method)
        if self._marked:
            self._mark()
        return self._canvas

    def _backdrop(self, picture: Picture) -> Picture:
        width, height = self.size
        scale = max(width / picture.shape[1], height / picture.shape[0])
        wide = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        left, top = (wide.shape[1] - width) // 2, (wide.shape[0] - height) // 2
        cut = wide[max(0, top) :, max(0, left) :][:height, :width]
        cut = cv2.resize(cut, (width, height))
        blurred = cv2.GaussianBlur(cut, (0, 0), max(1.0, BACKDROP_BLUR * height))
        return np.ascontiguousarray(blurred * BACKDROP_LIGHT).astype(np.uint8)

    def _mark(self) -> None:
        """Says what it is, in a corner: white with a dark rim, legible on anything."""
        width, height = self.size
        letters = MARK_HEIGHT * height / 21  # Hershey letters are 21 units high
        thick = max(1, round(1.6 * letters))
        (wide, high), _ = cv2.getTextSize(MARK, cv2.FONT_HERSHEY_SIMPLEX, letters, thick)
        at = (width - wide - high, height - high)
        for colour, line in (((0, 0, 0), thick + max(2, thick)), ((255, 255, 255), thick)):
            cv2.putText(self._canvas, MARK, at, cv2.FONT_HERSHEY_SIMPLEX, letters, colour, line, cv2.LINE_AA)


class VirtualCamera:
    """Sends pictures on a thread of its own from the start until closed; before the first one, `show`'s or grey.

    late_ms: how long after it was due each of the last pictures was sent.
    """

    def __init__(
        self,
        presentation: Presentation,
        *,
        width: int,
        height: int,
        fps: float,
        device: str | None = None,
        marked: bool = True,
        report: Callable[[str], None] = logger.warning,
    ) -> None:
        self._presentation = presentation
        self._fps = fps
        self._canvas = Canvas(width, height, marked=marked)
        self._camera: Any = _open(width, height, fps, device)
        self._report = report
        self._still: Picture | None = None
        self._closed = threading.Event()
        self.late_ms: deque[float] = deque(maxlen=10 * round(fps))
        self.sent_pictures = 0
        self._thread = threading.Thread(target=self._run, name="talkalong-camera", daemon=True)
        self._thread.start()

    @property
    def device(self) -> str:
        """As call apps list it, or nearly so."""
        return str(self._camera.device)

    def show(self, picture: Picture) -> None:
        """A picture to show until a live one comes: RGB uint8 [h, w, 3]."""
        self._still = picture

    def close(self) -> None:
        """May be called more than once."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)
        self._camera.close()

    def _run(self) -> None:
        canvas = self._canvas.blank()
        while True:
            due = self._presentation.next_picture(time.monotonic(), self._fps)
            if self._closed.wait(max(0.0, due - time.monotonic())):
                return
            still, self._still = self._still, None
            picture = self._presentation.take_picture(due)
            if picture is None:
                picture = still
            if picture is not None:
                canvas = self._canvas.place(picture)
            self.late_ms.append(1000 * (time.monotonic() - due))
            try:
                self._camera.send(canvas)
            except Exception as error:  # whatever a driver raises
                self._report(
                    f"The virtual camera stopped ({error}). End Talkalong, check the camera, and start it again."
                )
                return
            self.sent_pictures += 1


def _open(width: int, height: int, fps: float, device: str | None) -> Any:
    import sys

    module = pyvirtualcam()
    try:
        return module.Camera(width=width, height=height, fps=fps, device=device)
    except (RuntimeError, ValueError, OSError) as error:
        wanted = f'"{device}"' if device else "one"
        advice = NO_CAMERA.get(sys.platform, "See docs/camera.md.")
        raise DeviceError(
            f"No virtual camera could be opened ({wanted}: {str(error).strip()}). {advice} docs/camera.md says "
            "more; for sound alone use --no-camera."
        ) from error


def decode_picture(data: npt.NDArray[np.uint8]) -> Picture | None:
    """RGB uint8 [h, w, 3] of a JPEG, PNG or WebP; None where it is none."""
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    return None if picture is None else np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
