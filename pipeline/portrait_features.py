"""What is computed once per portrait and read for every frame of it."""

from __future__ import annotations

from typing import NamedTuple, Self

from torch import Tensor


class PortraitFeatures(NamedTuple):
    """Features of P portraits, made by `PortraitEncoder` and read by `FrameDecoder`.

    map128, map64, map32, map16 [P,C,S,S]: the feature pyramid. The decoder takes one of these for all frames, or one
    per frame (`for_frames`). basis_PMHW [P,3M+1,128,128]: what each of M motions does to this face: flow x, flow y and
    mouth opening of every motion, and the mouth at rest. places_PHW2 [P,128,128,2]: where in the average face each
    place of the crop lies, sampling coordinates. seat_P9: `mouth_seat` of the jaws. Of the last three the decoder
    takes one per portrait, however many frames: they are large.
    """

    map128: Tensor
    map64: Tensor
    map32: Tensor
    map16: Tensor
    basis_PMHW: Tensor
    places_PHW2: Tensor
    seat_P9: Tensor

    def for_frames(self, frames: int) -> Self:
        """The features for `frames` consecutive frames of every portrait: only the maps are repeated."""
        maps = {name: getattr(self, name) for name in ("map128", "map64", "map32", "map16")}
        return self._replace(**{name: m.repeat_interleave(frames, 0) for name, m in maps.items()})
