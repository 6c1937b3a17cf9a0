"""A portrait that is ready to be drawn: its picture, and what it shows in each direction of the motion; a file.

Made once per portrait by `pipeline.face_preparation`. The file (safetensors) says of which model it is: directions of
another one would be added up with the wrong weights.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from pipeline.drawing.geometry import freedom

FORMAT = "talkalong prepared portrait 1"


class PreparedPortraitError(ValueError):
    """A file holds no prepared portrait of this model; the message says why."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedPortrait:
    """One portrait at rest, and its directions (K of the grid, L of the mouth).

    name, sha256, canvas, matrix, crop, opacity: as in `pipeline.portrait.Portrait`. model: hash of the model whose
    weights the directions are for. z_ref [D]: the portrait's own motion latent.
    seat [9]: `mouth_seat` of the jaws. places [128,128,2]: where in the average face each place of the crop lies.
    grid_rest [128,128,2], grid_directions [K,128,128,2]: displacement of the sampling grid, in half crops.
    mouth_rest [h,w,4], mouth_directions [L,h,w,4]: mask, and mask times RGB, of the part of the mouth window that is
    ever painted; mouth_place [2]: its first row and column. mouth_turn [N,L]: the weights of a motion to those of the
    L directions.
    """

    name: str
    sha256: str
    model: str
    canvas: NDArray[np.uint8]
    matrix: NDArray[np.float64]
    crop: NDArray[np.uint8]
    z_ref: NDArray[np.float32]
    seat: NDArray[np.float32]
    places: NDArray[np.float32]
    grid_rest: NDArray[np.float32]
    grid_directions: NDArray[np.float16]
    mouth_place: NDArray[np.int32]
    mouth_rest: NDArray[np.float32]
    mouth_directions: NDArray[np.float16]
    mouth_turn: NDArray[np.float32]
    opacity: NDArray[np.uint8] | None = None

    @cached_property
    def alpha(self) -> NDArray[np.float32]:
        """[H,W]: how freely a pixel of the canvas may move."""
        height, width = self.canvas.shape[:2]
        return freedom(width, height, self.matrix)

    def to_bytes(self) -> bytes:
        """The file's content."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _WORDS}
        words = {name: getattr(self, name) for name in _WORDS}
        return save(
            {name: np.ascontiguousarray(a) for name, a in arrays.items() if a is not None},
            metadata={"format": FORMAT, "words": json.dumps(words)},
        )

    @classmethod
    def from_bytes(cls, data: bytes, *, model: str | None = None, origin: str = "This") -> Self:
        """Reads a file's content.

        Args:
            model: the hash that it must be of, if given.
            origin: what to call it in an error.

        Raises:
            PreparedPortraitError: it is something else, damaged, or of another model.
        """
        try:
            (length,) = struct.unpack_from("<Q", data)
            metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
            if metadata.get("format") != FORMAT:
                raise PreparedPortraitError(f"{origin} is not a prepared portrait of this version.")
            values: dict[str, Any] = load(data)
            portrait = cls(**values, **json.loads(metadata["words"]))
        except PreparedPortraitError:
            raise
        except (SafetensorError, struct.error, AttributeError, KeyError, TypeError, ValueError) as error:
            raise PreparedPortraitError(f"{origin} cannot be read as a prepared portrait: {error}") from error
        if model is not None and portrait.model != model:
            raise PreparedPortraitError(f"{origin} was prepared for another model.")
        return portrait


_WORDS = ("name", "sha256", "model")
