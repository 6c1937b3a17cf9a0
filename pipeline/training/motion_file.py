"""The file `runs/motion/<corpus>.npz`: motion float32 [frames,62], valid bool [frames], offsets, names of clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def expression_names(data: Path) -> list[str]:
    """Names of the 57 expressions, the first numbers of a motion, from the folder with the face model."""
    with np.load(data / "ict_facekit.npz") as file:
        return [str(name) for name in file["names"]]


def write_motion(path: Path, **fields: NDArray[np.generic]) -> None:
    """Writes under a temporary name first, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    np.savez(unfinished, **fields)  # type: ignore[arg-type]
    unfinished.replace(path)
