"""GRID's tracked faces as rig motion: the speaker's identity and rest, head pose and expression per frame.

Reads MediaPipe landmarks of the GRID clips (`pipeline.training.landmarks`) and writes
`runs/motion/grid_*.npz`: motion [frames,62] relative to the speaker's rest, valid [frames], offsets and
names as in `runs/speech/grid_*.npz`.

1. A sample of frames gives the speaker's identity; frames with closed lips give the rest (68 landmarks).
2. The head pose comes from points that speech does not move (`pipeline.training.head_pose`).
3. The expression of every frame is a small box-constrained quadratic programme; the inner lips count most,
   and the lip gap is then made exactly the tracked one, so that closures stay closures.

Measured on bursts of word-initial /b p/ (450 clips): the lips open 0 to 10 ms after the burst when frame t
stands for the middle of its 40 ms. So recordings and tracks are taken as they are, unshifted.

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
from tqdm import tqdm

from pipeline.training.expression_fit import ExpressionFit, match_gap
from pipeline.training.head_pose import Camera, RigidHead, pose_matrices
from pipeline.training.motion_file import write_motion
from pipeline.training.portrait_fit import FOCAL, IBUG_FROM_MEDIAPIPE, FaceGeometry, rotation_matrices

logger = logging.getLogger(__name__)
Floats = NDArray[np.floating]

FRAME_SIZE = 288.0
CLIP_FRAMES = 75
CHUNK_CLIPS = 40
IDENTITY_FRAMES, REST_FRAMES = 240, 400
# Upper and lower lid points and the corners of each eye, in MediaPipe's numbering.
EYES = (((159, 145), (158, 153), (160, 144), (33, 133)), ((386, 374), (385, 380), (387, 373), (263, 362)))
CLOSED_EYE, BLINKS_KEPT = 0.25, 0.38
INNER_LIPS = ((61, 67), (62, 66), (63, 65))
"""Upper and lower inner lip among the 68 landmarks."""


def eye_openness(landmarks: Floats) -> Floats:
    """[T,478,2+] -> [T,2] lid gap over eye width, left and right in the image."""

    def length(a: int, b: int) -> Floats:
        gap: Floats = np.linalg.norm(landmarks[:, a, :2] - landmarks[:, b, :2], axis=1)
        return gap

    return np.stack(
        [sum(length(*pair) for pair in lids) / (3 * length(*corner)) for *lids, corner in EYES], 1
    )


def blink_weights(openness: Floats, rng: np.random.Generator) -> Floats:
    """Eye openness [T] of a clip -> blink weights [T]: 0 outside of blinks, 1 closed.

    This speaker blinks 48 times a minute; a share of BLINKS_KEPT, whole, leaves a common rate.
    """
    open_level = np.percentile(openness, 75)
    raw = (open_level - openness) / (open_level - CLOSED_EYE * open_level)
    weights = np.zeros(len(raw), np.float32)
    deep = np.flatnonzero(raw > 0.6)
    for event in np.split(deep, np.flatnonzero(np.diff(deep) > 2) + 1):
        if len(event) and rng.random() < BLINKS_KEPT:
            first, last = event[0], event[-1]
            while first > 0 and 0.08 < raw[first - 1] < raw[first]:
                first -= 1
            while last + 1 < len(raw) and 0.08 < raw[last + 1] < raw[last]:
                last += 1
            weights[first : last + 1] = np.clip(raw[first : last + 1], 0, 1)
    return weights


def lip_gap(landmarks: Floats) -> Floats:
    """[T,478,2+] -> [T] gap between the inner lips over the face height."""
    pairs = ((13, 14), (82, 87), (312, 317))
    gaps = [np.linalg.norm(landmarks[:, a, :2] - landmarks[:, b, :2], axis=1) for a, b in pairs]
    shares: Floats = (np.mean(gaps, 0) / face_height(landmarks)).astype(np.float32)
    return shares


def face_height(landmarks: Floats) -> Floats:
    """[T,478,2+] -> [T] distance from forehead to chin."""
    height: Floats = np.linalg.norm(landmarks[:, 10, :2] - landmarks[:, 152, :2], axis=1)
    return height


def identity_of(geometry: FaceGeometry, points: Floats, steps: int = 500) -> tuple[Floats, Floats, float]:
    """One face for frames [N,68,2]: its 68 landmarks [68,3] cm, its median rotation [3], distance in cm."""
    basis = torch.from_numpy(geometry.expression[:, geometry.landmarks])
    identities = torch.from_numpy(geometry.identity[:, geometry.landmarks])
    neutral, target = torch.from_numpy(geometry.neutral[geometry.landmarks]), torch.from_numpy(points)
    weight = torch.ones(68)
    weight[:17] = 0.3
    rotation = torch.zeros(len(points), 3, requires_grad=True)
    shift = torch.zeros(len(points), 2, requires_grad=True)
    raw = torch.zeros(len(points), 57, requires_grad=True)
    identity = torch.zeros(100, requires_grad=True)
    log_distance = torch.tensor(float(np.log(75.0)), requires_grad=True)
    rates = (0.02, 0.2, 0.02, 0.0, 0.0)
    groups = [
        {"params": [p], "lr": r}
        for p, r in zip((rotation, shift, log_distance, raw, identity), rates, strict=True)
    ]
    optimiser = torch.optim.Adam(groups)
    for step in range(steps):
        if step == steps // 5:  # pose first, shape once it stands
            optimiser.param_groups[3]["lr"], optimiser.param_groups[4]["lr"] = 0.03, 0.05
        expression = raw.clamp(0, 1)
        vertices = neutral + torch.einsum("k,kvc->vc", identity, identities)
        turned = torch.einsum(
            "nij,nvj->nvi",
            rotation_matrices(rotation),
            vertices + torch.einsum("nk,kvc->nvc", expression, basis),
        )
        depth = log_distance.exp() - turned[..., 2]
        projected = FOCAL * (turned[..., :2] + shift[:, None]) / depth[..., None]
        loss = (
            400 * (((projected - target) ** 2).sum(-1) * weight).mean(1).sum()
            + 0.05 * identity.square().sum()
        )
        loss = loss + 0.02 * expression.sum() + (raw - expression).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    shape = vertices.detach().numpy()
    return shape, rotation.detach().median(0).values.numpy(), float(log_distance.detach().exp())


def smooth(values: Floats, frames: float) -> Floats:
    """[N,K] of whole clips, each smoothed over about `frames`."""
    clips = values.reshape(-1, CLIP_FRAMES, values.shape[-1])
    smoothed: Floats = gaussian_filter1d(clips, frames, axis=1, mode="nearest")
    return smoothed.reshape(values.shape)


def without_speech(pose: Floats, gap: Floats) -> Floats:
    """Pose [N,6] less what follows the lip gap [N]: the tracker tilts the face as the jaw drops."""
    steps = np.diff(gap.reshape(-1, CLIP_FRAMES), axis=1).ravel()
    moves = np.diff(pose.reshape(-1, CLIP_FRAMES, pose.shape[1]), axis=1).reshape(len(steps), -1)
    slope = steps @ moves / (steps @ steps + 1e-6)
    return (pose - gap[:, None] * slope).astype(np.float32)


def track(geometry: FaceGeometry, landmarks: list[Floats]) -> dict[str, Floats]:
    """Clips of landmarks [75,478,3] (pixels; NaN where the face was lost) -> motion [N,62] and valid [N]."""
    clips = [clip[:CLIP_FRAMES] for clip in landmarks]
    clips = [
        np.concatenate([c, np.full((CLIP_FRAMES - len(c), *c.shape[1:]), np.nan, np.float32)]) for c in clips
    ]
    frames = np.concatenate(clips)
    valid = np.isfinite(frames).all((1, 2))
    frames = frames[np.maximum.accumulate(np.where(valid, np.arange(len(frames)), int(np.argmax(valid))))]
    gap, height = lip_gap(frames), face_height(frames)
    wanted_px = np.maximum(gap - np.percentile(gap[valid], 8), 0) * height

    centre = np.median(frames[valid][:, :, :2], axis=(0, 1))
    units = np.concatenate([(frames[..., :2] - centre) * (1, -1), -frames[..., 2:]], -1) * (2 / FRAME_SIZE)
    units = units.astype(np.float32)
    ibug = units[:, IBUG_FROM_MEDIAPIPE]
    sample = np.linspace(0, len(frames) - 1, IDENTITY_FRAMES).astype(int)
    shape, rotation, distance = identity_of(geometry, ibug[sample, :, :2])
    closed = np.flatnonzero(valid & (gap <= np.percentile(gap[valid], 20)))
    closed = closed[np.linspace(0, len(closed) - 1, min(REST_FRAMES, len(closed))).astype(int)]
    camera = Camera(distance=distance)
    head = RigidHead.learn(camera, units[closed], ibug[closed], shape, rotation)
    pose_closed = head.poses(units[closed])
    rest = shape + camera.unproject(ibug[closed, :, :2], shape, pose_closed).mean(0)
    fit = ExpressionFit(basis=geometry.expression[:, geometry.landmarks], names=geometry.names)
    pairs = [fit.basis[:, upper, 1] - fit.basis[:, lower, 1] for upper, lower in INNER_LIPS]
    opening = np.mean(pairs, 0)

    expressions, poses, errors = [], [], []
    step = CLIP_FRAMES * CHUNK_CLIPS
    for begin in tqdm(range(0, len(units), step), desc="fitting frames", unit="chunk"):
        part = slice(begin, begin + step)
        pose = head.poses(units[part])
        pose = smooth(without_speech(pose, wanted_px[part]), 1.5)
        turn = pose_matrices(pose)
        offset = camera.unproject(ibug[part, :, :2], rest, pose)
        displacement = np.einsum("nij,nvj->nvi", turn, offset)[..., :2].astype(np.float32)
        expression = fit.solve(displacement, turn)
        left = np.einsum("nk,kvc->nvc", expression, fit.basis)
        left = np.einsum("nij,nvj->nvi", turn[:, :2], left) - displacement
        errors.append(np.linalg.norm(left[:, 48:], axis=-1).mean())
        expressions.append(expression)
        poses.append(pose)
    pose, expression = np.concatenate(poses), np.concatenate(expressions)
    px_per_cm = FRAME_SIZE / 2 * FOCAL / distance * np.exp(pose[:, 5])
    wanted = (wanted_px / px_per_cm).astype(np.float32)
    # Shapes are noisy at 288 lines; the gap, which carries the plosives, is not smoothed.
    expression = smooth(expression, 0.7)
    expression = match_gap(expression, wanted, opening, geometry.names)
    made = expression @ opening
    logger.info(
        "lip landmarks off by %.3f cm on average; lip gap: correlation %.3f, closed frames kept %.3f",
        np.mean(errors), np.corrcoef(made[valid], wanted[valid])[0, 1],
        (made[valid & (wanted < 0.02)] < 0.06).mean(),
    )  # fmt: skip

    index = {name: i for i, name in enumerate(geometry.names)}
    motion = np.zeros((len(units), 62), np.float32)
    motion[:, :57] = expression
    by_clip = pose.reshape(len(clips), CLIP_FRAMES, 6)
    motion[:, 57:] = (by_clip - np.median(by_clip, 1, keepdims=True))[..., :5].reshape(-1, 5)
    # People blink with both eyes; the mean is less noisy.
    openness, rng = eye_openness(frames).mean(1).reshape(len(clips), CLIP_FRAMES), np.random.default_rng(0)
    blinks = np.concatenate([blink_weights(clip, rng) for clip in openness])
    motion[:, index["eyeBlink_L"]] = motion[:, index["eyeBlink_R"]] = blinks
    brows = [i for name, i in index.items() if name.startswith("brow")]
    motion[:, brows] = smooth(motion[:, brows], 2.0)
    motion[:, :57] *= valid[:, None]
    return {"motion": motion, "valid": valid, "gap": wanted}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--landmarks", type=Path, required=True)
    parser.add_argument("--corpus", required=True, help="grid_train or grid_val")
    parser.add_argument("--stride", type=int, default=1, help="fit every n-th clip, mark the others invalid")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, help="folder of the result; RUNS/motion if not given")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    geometry = FaceGeometry.load(arguments.data)
    with np.load(arguments.runs / "speech" / f"{arguments.corpus}.npz") as speech:
        names, offsets = [str(name) for name in speech["names"]], speech["offsets"]
    chosen = np.arange(0, len(names), arguments.stride)
    with np.load(arguments.landmarks) as archive:
        fitted = track(geometry, [archive[names[i]].astype(np.float32) for i in chosen])
    result = {}
    for key, value in fitted.items():
        whole = np.zeros((len(names), CLIP_FRAMES, *value.shape[1:]), value.dtype)
        whole[chosen] = value.reshape(-1, CLIP_FRAMES, *value.shape[1:])
        result[key] = whole.reshape(-1, *value.shape[1:])
    out = (arguments.out or arguments.runs / "motion") / f"{arguments.corpus}.npz"
    write_motion(out, **result, offsets=offsets, names=np.array(names))


if __name__ == "__main__":
    main()
