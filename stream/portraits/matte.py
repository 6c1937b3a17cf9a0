"""Where a portrait is transparent, for pages that lay its moving picture over something else.

Video has no transparency here, so the picture shows the portrait before one shade of grey (`pipeline.portrait`), and
the page takes the grey away. Where nothing moves the portrait's own opacity says how much of it is there. Near an edge
that moves, the colour says it: what lies between the grey and the colour of the head at that place is that much head.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.drawing import PreparedPortrait
from pipeline.portrait import CROP_PIXELS, Portrait

Plane = npt.NDArray[np.float32]

# How far edges move, as a share of the crop's side: outwards, and inwards, where colour alone would also find holes.
REACH_OUT = 0.055
REACH_IN = 0.03
# In 0..255: a colour this near the grey cannot be told from it; one this far can.
TOO_NEAR, FAR_ENOUGH = 20.0, 50.0
FILL_SIGMAS = (2.0, 6.0, 18.0, 54.0)


def matte(portrait: Portrait | PreparedPortrait) -> npt.NDArray[np.uint8]:
    """RGB uint8 [2 H, W, 3] for a portrait with opacity.

    Above: the colour of the head nearest to each place. Below: red the opacity of the still portrait, green how far
    that is to be trusted (255: nothing moves here), blue the grey of the backdrop.
    """
    assert portrait.opacity is not None
    opacity = portrait.opacity
    clear = opacity < 8
    grey = float(np.median(portrait.canvas[clear])) if clear.any() else 0.0
    colour = _spread(portrait.canvas, opacity, grey)
    told_apart = np.linalg.norm(colour - grey, axis=2)
    reliable = np.clip((told_apart - TOO_NEAR) / (FAR_ENOUGH - TOO_NEAR), 0, 1)
    trust = 1 - _moving(portrait) * reliable
    below = np.dstack([opacity.astype(np.float32), 255 * trust, np.full_like(trust, grey)])
    return np.vstack([colour, below]).round().astype(np.uint8)


def matte_png(portrait: Portrait | PreparedPortrait) -> bytes:
    """The same as a PNG file."""
    _, data = cv2.imencode(".png", cv2.cvtColor(matte(portrait), cv2.COLOR_RGB2BGR))
    return data.tobytes()


def _moving(portrait: Portrait | PreparedPortrait) -> Plane:
    """[H, W] 0..1: how likely the portrait's edge passes here, by where the picture may move at all."""
    assert portrait.opacity is not None
    side = CROP_PIXELS / float(portrait.matrix[0, 0])
    solid = (portrait.opacity >= 128).astype(np.uint8)
    outside = cv2.distanceTransform(1 - solid, cv2.DIST_L2, 5)
    inside = cv2.distanceTransform(solid, cv2.DIST_L2, 5)
    away = np.where(solid > 0, inside / (REACH_IN * side), outside / (REACH_OUT * side))
    near = np.clip(2 * (1 - away), 0, 1)  # full for the first half of the reach
    soft = cv2.GaussianBlur(near.astype(np.float32), (0, 0), max(side / 128, 0.5))
    return np.asarray(soft * np.clip(4 * portrait.alpha, 0, 1), np.float32)


def _spread(canvas: npt.NDArray[np.uint8], opacity: npt.NDArray[np.uint8], grey: float) -> Plane:
    """[H, W, 3]: each place's nearest colour of what is opaque, ever more blurred with distance."""
    opaque = (opacity >= 250).astype(np.float32)
    weighted = canvas.astype(np.float32) * opaque[..., None]
    out: Plane = np.full(canvas.shape, grey, np.float32)
    for sigma in reversed(FILL_SIGMAS):
        total = cv2.GaussianBlur(weighted, (0, 0), sigma)
        weight = cv2.GaussianBlur(opaque, (0, 0), sigma)[..., None]
        known = np.clip(weight * 20, 0, 1)
        out = np.asarray((1 - known) * out + known * total / np.maximum(weight, 1e-4), np.float32)
    return np.clip(out, 0, 255)
