"""GRID's tracked faces as rig motion: one identity for the speaker, expression and pose per frame.

Reads MediaPipe landmarks of the GRID clips (`pipeline.training.landmarks`) and writes `runs/motion/grid_*.npz`:
motion [frames,62] relative to the speaker's rest, valid [frames], offsets and names as in `runs/speech/grid_*.npz`.

    python -m pipeline.training.grid_tracks --landmarks runs/landmarks/grid_train.npz --corpus grid_train
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from torch import Tensor
from tqdm import tqdm

from pipeline.training.portrait_fit import FOCAL, IBUG_FROM_MEDIAPIPE, FaceGeometry, rotation_matrices

logger = logging.getLogger(__name__)

FRAME_SIZE = 288.0
CLIP_FRAMES = 75
# Upper and lower lid points and the corners of each eye, in MediaPipe's numbering.
EYES = (((159, 145), (158, 153), (160, 144), (33, 133)), ((386, 374), (385, 380), (387, 373), (263, 362)))


def eye_openness(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """[T,478,2+] -> [T,2] lid gap over eye width, left and right in the image."""
    def length(a: int, b: int) -> NDArray[np.float32]:
        return np.linalg.norm(landmarks[:, a, :2] - landmarks[:, b, :2], axis=1)  # type: ignore[no-any-return]

    return np.stack([sum(length(*pair) for pair in lids) / (3 * length(*corner)) for *lids, corner in EYES], 1)


def blink_weights(openness: NDArray[np.float32]) -> NDArray[np.float32]:
    """Eye openness [T,2] of a clip -> blink weights [T,2]: 0 at the clip's open eye, 1 closed; small changes are 0."""
    open_level = np.percentile(openness, 75, axis=0)
    closed_level = 0.25 * open_level
    raw = (open_level - openness) / (open_level - closed_level)
    return np.clip((raw - 0.4) / 0.6, 0, 1).astype(np.float32)


def lip_gap(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """[T,478,2+] -> [T] gap between the inner lips over the face height."""
    gaps = [np.linalg.norm(landmarks[:, a, :2] - landmarks[:, b, :2], axis=1) for a, b in ((13, 14), (82, 87), (312, 317))]
    height = np.linalg.norm(landmarks[:, 10, :2] - landmarks[:, 152, :2], axis=1)
    return (np.mean(gaps, 0) / height).astype(np.float32)


class SpeakerFit:
    """Fits one speaker: the identity from a sample of frames, then expression and pose of every frame."""

    def __init__(self, geometry: FaceGeometry) -> None:
        self._names = geometry.names
        self._neutral = torch.from_numpy(geometry.neutral[geometry.landmarks])
        self._identity_basis = torch.from_numpy(geometry.identity[:, geometry.landmarks])
        self._expression_basis = torch.from_numpy(geometry.expression[:, geometry.landmarks])
        unused = ("Pupil", "eyeLook", "eyeBlink", "eyeWide", "eyeSquint", "jawForward", "cheek", "noseSneer")
        self._used = torch.tensor([float(not name.startswith(unused)) for name in geometry.names])
        pairs = [(i, geometry.names.index(n[:-1] + "R")) for i, n in enumerate(geometry.names) if n.endswith("_L")]
        self._left, self._right = (torch.tensor(side) for side in zip(*pairs, strict=True))
        self._weight = torch.ones(68)
        self._weight[:17], self._weight[36:48], self._weight[60:] = 0.3, 0.5, 4.0
        self._identity = torch.zeros(100)
        self._log_distance = torch.tensor(float(np.log(75.0)))

    def _project(self, shape: Tensor, expression: Tensor, rotation: Tensor, shift: Tensor, log_distance: Tensor) -> Tensor:
        vertices = shape + torch.einsum("nk,kvc->nvc", expression, self._expression_basis)
        turned = torch.einsum("nij,nvj->nvi", rotation_matrices(rotation), vertices)
        depth = log_distance.exp() - turned[..., 2]
        return FOCAL * (turned[..., :2] + shift[:, None]) / depth[..., None]

    def fit(
        self, points: Tensor, steps: int, learn_identity: bool, start: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """points [N,68,2]: consecutive frames, x right, y up, in half frame heights about the speaker's centre."""
        count = len(points)
        rotation = (start["rotation"].expand(count, -1) if start else torch.zeros(count, 3)).clone().requires_grad_()
        shift = (start["shift"].expand(count, -1) if start else torch.zeros(count, 2)).clone().requires_grad_()
        raw = torch.zeros(count, 57, requires_grad=True)
        identity = self._identity.clone().requires_grad_(learn_identity)
        log_distance = self._log_distance.clone().requires_grad_(learn_identity)
        groups = [{"params": [rotation], "lr": 0.02}, {"params": [shift], "lr": 0.2}, {"params": [raw], "lr": 0.0}]
        if learn_identity:
            groups += [{"params": [log_distance], "lr": 0.02}, {"params": [identity], "lr": 0.0}]
        optimiser = torch.optim.Adam(groups)
        for step in range(steps):
            if step == steps // 5:
                optimiser.param_groups[2]["lr"] = 0.03
                if learn_identity:
                    optimiser.param_groups[4]["lr"] = 0.05
            expression = raw.clamp(0, 1) * self._used
            shape = self._neutral + torch.einsum("k,kvc->vc", identity, self._identity_basis)
            projected = self._project(shape, expression, rotation, shift, log_distance)
            loss = (((projected - points) ** 2).sum(-1) * self._weight).mean(1).sum() * 400
            loss = loss + 0.02 * expression.sum() + (raw - raw.clamp(0, 1)).square().sum()
            loss = loss + 0.3 * (expression[:, self._left] - expression[:, self._right]).square().sum()
            if learn_identity:
                loss = loss + 0.05 * identity.square().sum()
            else:
                loss = loss + 0.25 * expression.diff(dim=0).square().sum() + 15 * rotation.diff(dim=0).square().sum()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        self._identity, self._log_distance = identity.detach(), log_distance.detach()
        return {
            "rotation": rotation.detach(), "shift": shift.detach(), "expression": expression.detach(),
            "projected": projected.detach(),
        }  # fmt: skip

    def gap_per_jaw(self) -> float:
        """How much the projected inner-lip gap grows for a jaw opened fully."""
        jaw = self._expression_basis[self._names.index("jawOpen")]
        return float((jaw[62, 1] - jaw[66, 1]) * FOCAL / self._log_distance.exp())


def track(geometry: FaceGeometry, landmarks: list[NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Clips of landmarks [75,478,3] (pixels; NaN where the face was lost) -> motion [N,62] and valid [N]."""
    clips = [clip[:CLIP_FRAMES] for clip in landmarks]
    clips = [np.concatenate([c, np.full((CLIP_FRAMES - len(c), *c.shape[1:]), np.nan, np.float32)]) for c in clips]
    frames = np.concatenate(clips)
    valid = np.isfinite(frames).all((1, 2))
    last_good = np.maximum.accumulate(np.where(valid, np.arange(len(frames)), 0))
    frames = frames[last_good]
    centre = np.nanmedian(frames[valid][:, :, :2], axis=(0, 1))
    points = (frames[:, IBUG_FROM_MEDIAPIPE, :2] - centre) / FRAME_SIZE * 2 * (1, -1)
    points_t = torch.from_numpy(points.astype(np.float32))
    fit = SpeakerFit(geometry)
    sample = torch.linspace(0, len(points) - 1, 240).long()
    first = fit.fit(points_t[sample], 600, learn_identity=True)
    start = {key: first[key].median(0, keepdim=True).values for key in ("rotation", "shift")}
    parts = []
    step = CLIP_FRAMES * 40
    for begin in tqdm(range(0, len(points), step), desc="fitting frames", unit="chunk"):
        parts.append(fit.fit(points_t[begin : begin + step], 130, learn_identity=False, start=start))
    result = {key: torch.cat([part[key] for part in parts]).numpy() for key in parts[0]}
    error = np.linalg.norm(result["projected"] - points, axis=-1).mean() * FRAME_SIZE / 2
    logger.info("mean landmark error %.2f px", error)

    index = {name: i for i, name in enumerate(geometry.names)}
    expression = result["expression"]
    # The rig's lips must open exactly as the tracked lips do: correct the jaw by what is missing.
    gap = lip_gap(frames)
    face_height = np.linalg.norm(frames[:, 10, :2] - frames[:, 152, :2], axis=1) / FRAME_SIZE * 2
    closed = np.percentile(gap[valid], 8)
    wanted = np.maximum(gap - closed, 0) * face_height
    rest = gap <= np.percentile(gap[valid], 20)
    expression = np.clip(expression - np.median(expression[rest], 0), 0, 1)
    neutral = fit._expression_basis.numpy()
    opening = (neutral[:, 62, 1] - neutral[:, 66, 1]) * FOCAL / float(fit._log_distance.exp())
    correction = (wanted - expression @ opening) / fit.gap_per_jaw()
    expression[:, index["jawOpen"]] = np.clip(expression[:, index["jawOpen"]] + correction, 0, 1)
    # What the jaw alone cannot close, the lips do.
    excess = np.maximum(expression @ opening - wanted, 0)
    closing = -opening[index["mouthClose"]]
    expression[:, index["mouthClose"]] = np.clip(expression[:, index["mouthClose"]] + excess / closing, 0, 1)
    made = expression @ opening
    logger.info("lip gap: correlation %.3f, closed frames kept %.3f", np.corrcoef(made[valid], wanted[valid])[0, 1],
                (made[wanted < 1e-3] < 5e-3).mean())  # fmt: skip

    motion = np.zeros((len(points), 62), np.float32)
    motion[:, :57] = expression
    per_clip = (len(clips), CLIP_FRAMES, -1)
    rotation, shift = result["rotation"].reshape(per_clip), result["shift"].reshape(per_clip)
    motion[:, 57:60] = (rotation - np.median(rotation, 1, keepdims=True)).reshape(-1, 3)
    motion[:, 60:62] = (shift - np.median(shift, 1, keepdims=True)).reshape(-1, 2)
    blinks = np.concatenate([blink_weights(eye_openness(clip)) for clip in frames.reshape(*per_clip[:2], 478, 3)])
    both = blinks.mean(1)  # people blink with both eyes; the mean is less noisy
    motion[:, index["eyeBlink_L"]] = motion[:, index["eyeBlink_R"]] = both
    brows = [i for name, i in index.items() if name.startswith("brow")]
    smoothed = gaussian_filter1d(motion[:, brows].reshape(len(clips), CLIP_FRAMES, -1), 2.0, axis=1)
    motion[:, brows] = np.clip(smoothed, 0, 0.4).reshape(len(motion), -1)  # the brow landmarks jump at times
    return {"motion": motion, "valid": valid, "gap": wanted.astype(np.float32)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--landmarks", type=Path, required=True)
    parser.add_argument("--corpus", required=True, help="grid_train or grid_val")
    parser.add_argument("--stride", type=int, default=1, help="fit every n-th clip, mark the others invalid")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    geometry = FaceGeometry.load(arguments.data)
    with np.load(arguments.landmarks) as archive:
        landmarks = {key: archive[key].astype(np.float32) for key in archive.files}
    with np.load(arguments.runs / "speech" / f"{arguments.corpus}.npz") as speech:
        names, offsets = [str(name) for name in speech["names"]], speech["offsets"]
    chosen = np.arange(0, len(names), arguments.stride)
    fitted = track(geometry, [landmarks[names[i]] for i in chosen])
    result = {}
    for key, value in fitted.items():
        whole = np.zeros((len(names), CLIP_FRAMES, *value.shape[1:]), value.dtype)
        whole[chosen] = value.reshape(-1, CLIP_FRAMES, *value.shape[1:])
        result[key] = whole.reshape(-1, *value.shape[1:])
    out = arguments.runs / "motion" / f"{arguments.corpus}.npz"
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(out, **result, offsets=offsets, names=np.array(names))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
