"""From a portrait to one that is ready to be drawn: the decoder runs once, on the anchors, and never again.

What it makes of a motion is, for every portrait, the same weighted sum of what it makes of a few fixed motions, the
anchors (`DrawingModel`). So here it is asked for those, and the sums are taken beforehand: as few directions as a
frame needs. Takes two to three seconds on two cores.

Shapes: M anchors, K and L directions of grid and mouth, D motion latent.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.autoencoder import POSE_SIZE, FrameDecoder, MotionEncoder, PortraitEncoder
from pipeline.drawing import DrawingModel, PreparedPortrait
from pipeline.portrait import Portrait
from pipeline.portrait_features import PortraitFeatures

MOUTH_DIRECTIONS = 128
_VISIBLE = 1 / 512
_TOGETHER = 8
"""Anchors that a thread decodes at once."""

Progress = Callable[[float], None]


def crop_tensor(portrait: Portrait | PreparedPortrait, device: torch.device) -> Tensor:
    """[1,3,256,256], 0..1."""
    crop = torch.from_numpy(np.ascontiguousarray(portrait.crop)).to(device)
    return crop.permute(2, 0, 1)[None].float() / 255.0


def reference_latent(encoder: MotionEncoder, crop_B3HW: Tensor) -> Tensor:
    """The portraits' own motion latents [B,D]; head pose is relative to the portrait's own."""
    z_ref_BD: Tensor = encoder(crop_B3HW).float()
    z_ref_BD[:, -POSE_SIZE:] = 0.0
    return z_ref_BD


def drawn_fields(
    decoder: FrameDecoder, changes_BD: Tensor, z_ref_1D: Tensor, features: PortraitFeatures
) -> tuple[Tensor, Tensor]:
    """What is added up: displacement of the grid [B,128,128,2], and of the mouth window mask and mask times RGB
    [B,4,96,112]."""
    displacement, logits = decoder.fields(changes_BD, z_ref_1D.expand(len(changes_BD), -1), features)
    mouth = torch.sigmoid(logits)
    return displacement, torch.cat([mouth[:, :1], mouth[:, :1] * mouth[:, 1:]], 1)


def laid_on(decoder: FrameDecoder) -> dict[str, NDArray[np.float32]]:
    """What the decoder lays on by geometry, lids and jaws, as `DrawingModel` names it."""
    lids = decoder.upper_lids
    parts = {
        "lids.read": lids.read_D,
        "lids.write": lids.write_D,
        "lids.curves": lids.curves_3X,
        "jaws": decoder.interior.layers,
    }
    return {name: part.detach().float().cpu().numpy() for name, part in parts.items()}


class FacePreparation:
    """Prepares portraits with the networks of one model. Safe for several threads."""

    def __init__(
        self,
        portrait_encoder: PortraitEncoder,
        motion_encoder: MotionEncoder,
        decoder: FrameDecoder,
        drawing: DrawingModel,
        sha256: str,
    ) -> None:
        """sha256: of the model, with which prepared portraits are stamped."""
        self._portrait_encoder, self._motion_encoder = portrait_encoder, motion_encoder
        self._decoder, self._drawing, self._sha256 = decoder, drawing, sha256

    @torch.inference_mode()
    def prepare(self, portrait: Portrait, progress: Progress = lambda share: None) -> PreparedPortrait:
        """progress: told which share of the work is done, 0 to 1."""
        crop = crop_tensor(portrait, self._decoder.device)
        z_ref_1D = reference_latent(self._motion_encoder, crop)
        features = self._portrait_encoder(crop)
        anchors = torch.from_numpy(self._drawing.tensors["anchors"]).to(z_ref_1D)
        grids, mouths = self._decode(anchors, z_ref_1D, features, progress)
        rows, columns = _painted(mouths[:, 0])
        mouths = mouths[:, :, rows, columns].permute(0, 2, 3, 1)
        directions, turn = _leading(self._mixed("mouth", mouths), MOUTH_DIRECTIONS)
        return PreparedPortrait(
            name=portrait.name,
            sha256=portrait.sha256,
            model=self._sha256,
            canvas=portrait.canvas,
            matrix=portrait.matrix,
            crop=portrait.crop,
            opacity=portrait.opacity,
            z_ref=z_ref_1D[0].cpu().numpy(),
            seat=features.seat_P9[0].float().cpu().numpy(),
            places=features.places_PHW2[0].float().cpu().numpy(),
            grid_rest=grids[0].numpy(),
            grid_directions=self._mixed("grid", grids).numpy().astype(np.float16),
            mouth_place=np.array([rows.start, columns.start], np.int32),
            mouth_rest=mouths[0].contiguous().numpy(),
            mouth_directions=directions.numpy().astype(np.float16),
            mouth_turn=turn.numpy(),
        )

    def _decode(
        self, anchors_MD: Tensor, z_ref_1D: Tensor, features: PortraitFeatures, progress: Progress
    ) -> tuple[Tensor, Tensor]:
        """`drawn_fields` of the portrait at rest and of every anchor, float32 on the CPU: [1+M,...]."""
        changes = torch.cat([torch.zeros_like(anchors_MD[:1]), anchors_MD])
        on_cpu = changes.device.type == "cpu"
        parts = changes.split(_TOGETHER if on_cpu else len(changes))

        def decode(part: Tensor) -> tuple[Tensor, ...]:
            with torch.inference_mode():  # holds for one thread only
                fields = drawn_fields(self._decoder, part, z_ref_1D, features)
            return tuple(field.float().cpu() for field in fields)

        made = []
        with ThreadPoolExecutor(os.cpu_count() if on_cpu else 1) as threads:
            for fields in threads.map(decode, parts):
                made.append(fields)
                progress(len(made) / len(parts))
        grids, mouths = (torch.cat(fields) for fields in zip(*made, strict=True))
        return grids, mouths

    def _mixed(self, part: str, fields: Tensor) -> Tensor:
        """Directions [K,...]: the anchors' differences to rest, mixed as the model says."""
        whiten_MK = torch.from_numpy(self._drawing.tensors[f"{part}.whiten"])
        mixed: Tensor = torch.tensordot(whiten_MK.T, fields[1:] - fields[0], 1)
        return mixed


def _painted(masks_MHW: Tensor) -> tuple[slice, slice]:
    """The rows and columns of the window in which any of these masks is to be seen; one pixel at least."""
    seen_HW = (masks_MHW > _VISIBLE).any(0).numpy()
    spans = []
    for axis in (1, 0):
        places = np.flatnonzero(seen_HW.any(axis))
        spans.append(slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 1))
    return spans[0], spans[1]


def _leading(directions_K: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` directions that show most [L,...], and the map of weights from those given to them [K,L]."""
    flat = directions_K.flatten(1)
    _, vectors = torch.linalg.eigh((flat @ flat.T).double())
    turn_KL = vectors.flip(1)[:, :count].float().contiguous()
    return torch.tensordot(turn_KL.T, directions_K, 1), turn_KL


def face_digest(*parts: torch.nn.Module | DrawingModel) -> str:
    """SHA-256 over names and values of all weights, whatever type they are kept in."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, DrawingModel):
            tensors = dict(part.tensors)
        else:
            tensors = {name: value.float().cpu().numpy() for name, value in part.state_dict().items()}
        for name in sorted(tensors):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()
