"""The memory one session shares with the model process: its portrait, a ring of windows, a ring of frames.

An anonymous file (no name, so nothing can be left behind, even after kill -9) whose descriptor travels over
the control socket. Each slot holds one window and, once the model answered, the frames of that chunk.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from pipeline.portrait import Portrait

SHARED_DIRECTORY = "/dev/shm"


@dataclass(frozen=True, kw_only=True)
class ArenaLayout:
    """Sizes of everything in the arena; both sides compute the same offsets from it."""

    slots: int
    window_samples: int
    hop_frames: int
    height: int
    width: int
    crop_size: int

    def shapes(self) -> dict[str, tuple[tuple[int, ...], type[np.generic]]]:
        height, width, crop = self.height, self.width, self.crop_size
        return {
            "matrix": ((2, 3), np.float64),
            "alpha": ((height, width), np.float32),
            "windows": ((self.slots, self.window_samples), np.float32),
            "canvas": ((height, width, 3), np.uint8),
            "crop": ((crop, crop, 3), np.uint8),
            "frames": ((self.slots, self.hop_frames, height, width, 3), np.uint8),
        }

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Arena:
    """Numpy views of one shared file.

    windows: float32 [slots, samples]; frames: uint8 [slots, hop, H, W, 3].
    """

    def __init__(self, layout: ArenaLayout, descriptor: int) -> None:
        self.layout = layout
        self.descriptor = descriptor
        size = sum(int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in layout.shapes().values())
        if os.fstat(descriptor).st_size < size:
            os.ftruncate(descriptor, size)
        memory = mmap.mmap(descriptor, size)  # kept alive by the views, and only by them
        self._views: dict[str, npt.NDArray[Any]] = {}
        offset = 0
        for name, (shape, kind) in layout.shapes().items():
            count = int(np.prod(shape))
            view: npt.NDArray[Any] = np.frombuffer(memory, kind, count, offset)
            self._views[name] = view.reshape(shape)
            offset += count * np.dtype(kind).itemsize
        self.windows: npt.NDArray[np.float32] = self._views["windows"]
        self.frames: npt.NDArray[np.uint8] = self._views["frames"]

    @classmethod
    def create(cls, portrait: Portrait, *, slots: int, window_samples: int, hop_frames: int) -> Self:
        height, width = portrait.canvas.shape[:2]
        layout = ArenaLayout(
            slots=slots,
            window_samples=window_samples,
            hop_frames=hop_frames,
            height=height,
            width=width,
            crop_size=portrait.crop.shape[0],
        )
        directory = SHARED_DIRECTORY if os.path.isdir(SHARED_DIRECTORY) else None
        with tempfile.TemporaryFile(dir=directory) as file:
            arena = cls(layout, os.dup(file.fileno()))
        for name in ("canvas", "crop", "alpha", "matrix"):
            arena._views[name][...] = getattr(portrait, name)
        return arena

    def portrait(self, *, name: str, sha256: str) -> Portrait:
        """The portrait that `create` wrote, as copies."""
        views = self._views
        return Portrait(
            name=name,
            canvas=views["canvas"].copy(),
            matrix=views["matrix"].copy(),
            crop=views["crop"].copy(),
            alpha=views["alpha"].copy(),
            sha256=sha256,
        )

    def close(self) -> None:
        """Close the descriptor; the memory goes with the last view of it. Idempotent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
            self._views.clear()
            self.windows = np.zeros((0, 0), np.float32)
            self.frames = np.zeros((0, 0, 0, 0, 0), np.uint8)
