"""Pictures of one portrait from motion: 40 numbers a frame in, a picture out, the same one in every process.

A frame is a sum: out(z) = out(0) + sum_k w_k(z) direction_k, for the sampling grid and for the mouth, with weights
that are the same for every portrait and directions that are this one's. Lids and jaws are laid on by geometry, and the
portrait's own pixels move as the grid says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from pipeline.drawing.compositor import Compositor
from pipeline.drawing.drawing_model import DrawingModel
from pipeline.drawing.geometry import GRID_PIXELS, still_grid
from pipeline.drawing.prepared_portrait import PreparedPortrait

Floats = NDArray[np.float32]
PainterT = TypeVar("PainterT")


class Painter:
    """Draws one prepared portrait. Holds no session; safe for several threads, which it does not hold up (GIL)."""

    def __init__(self, portrait: PreparedPortrait, model: DrawingModel) -> None:
        self.portrait = portrait
        self._weights, self._lids, self._jaws = model.weights, model.lids, model.jaws
        self._compositor = Compositor(portrait)
        self._grid_rest = still_grid(GRID_PIXELS, GRID_PIXELS) + portrait.grid_rest
        self._grid, self._mouth = (
            directions.astype(np.float32).reshape(len(directions), rest.size)
            for directions, rest in (
                (portrait.grid_directions, portrait.grid_rest),
                (portrait.mouth_directions, portrait.mouth_rest),
            )
        )
        self._place = (int(portrait.mouth_place[0]), int(portrait.mouth_place[1]))

    def draw(self, z_TD: Floats) -> NDArray[np.uint8]:
        """Frames [T,H,W,3] of motion latents [T,D]; frames drawn together take a little less time each."""
        change_TD, closed_T = self._lids.take_out(np.asarray(z_TD, np.float32) - self.portrait.z_ref)
        grid_TK, mouth_TK = self._weights(change_TD)
        grids = (grid_TK @ self._grid).reshape(-1, GRID_PIXELS, GRID_PIXELS, 2)
        mouths = (mouth_TK @ self.portrait.mouth_turn) @ self._mouth
        parts = zip(grids, mouths, closed_T.tolist(), strict=True)
        return np.stack([self._paint(*part) for part in parts])

    def _paint(self, grid_HW2: Floats, mouth: Floats, closed: float) -> NDArray[np.uint8]:
        grid_HW2 += self._grid_rest
        if closed > 0:
            self._lids.close(grid_HW2, closed, self.portrait.places)
        painted = mouth.reshape(self.portrait.mouth_rest.shape) + self.portrait.mouth_rest
        # A sum may go a little beyond what it is a sum of.
        np.clip(painted, 0, 1, out=painted)
        np.minimum(painted[..., 1:], painted[..., :1], out=painted[..., 1:])
        self._jaws.lay_into(painted, grid_HW2, self.portrait.seat, self._place)
        return self._compositor.composite(grid_HW2, painted, self._place)


class Painters(Generic[PainterT]):
    """One painter for all who show a portrait, since its directions take some 20 MB; gone with the last of them."""

    def __init__(self, make: Callable[[PreparedPortrait], PainterT]) -> None:
        self._make = make
        self._made: WeakValueDictionary[int, PainterT] = WeakValueDictionary()

    def of(self, portrait: PreparedPortrait) -> PainterT:
        painter = self._made.get(id(portrait))  # whose portrait lives as long as it does
        if painter is None:
            painter = self._made[id(portrait)] = self._make(portrait)
        return painter
