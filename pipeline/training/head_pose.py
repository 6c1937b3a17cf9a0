"""Head pose from dense face landmarks, by the points that speech does not move.

The head is a rigid set of points learned from frames at rest, in the axes of the ICT head; a few Gauss-
Newton steps then find rotation, shift and scale for every frame. Units: image coordinates run from -1 to 1
over the frame's height (x right, y up), lengths are cm. A pose is [yaw, pitch, roll (rad), x, y (cm), log
scale].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.training.portrait_fit import FOCAL, rotation_matrices

Floats = NDArray[np.floating]

# MediaPipe: nose, eye corners, temples, rim of the forehead, cheekbones.
STABLE = (
    168, 6, 197, 195, 5, 4, 1, 122, 351, 196, 419, 3, 248, 45, 275, 98, 327, 97, 326, 2, 129, 358,
    33, 133, 263, 362, 10, 338, 297, 332, 284, 251, 389, 356, 109, 67, 103, 54, 21, 162, 127,
    116, 345, 117, 346, 111, 340, 234, 454,
)  # fmt: skip
STEPS = 8


def pose_matrices(pose: Floats) -> Floats:
    """[N,6] -> [N,3,3]."""
    angles = torch.from_numpy(np.ascontiguousarray(pose[:, :3]))
    matrices: Floats = rotation_matrices(angles).numpy()
    return matrices


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole at `distance` cm before the head's origin."""

    distance: float

    def project(self, points: Floats, pose: Floats) -> Floats:
        """points [P,3] or [N,P,3] in head axes, pose [N,6] -> [N,P,2]."""
        turned = points @ pose_matrices(pose).transpose(0, 2, 1)
        scale = FOCAL * np.exp(pose[:, None, 5:]) / (self.distance - turned[..., 2:])
        return (turned[..., :2] + pose[:, None, 3:5]) * scale

    def unproject(self, seen: Floats, points: Floats, pose: Floats) -> Floats:
        """How far [N,P,3] in head axes `points` must move, at their depth, to be seen at `seen` [N,P,2]."""
        turn = pose_matrices(pose)
        depth = self.distance - (points @ turn.transpose(0, 2, 1))[..., 2:]
        gap = (seen - self.project(points, pose)) * depth / FOCAL * np.exp(-pose[:, None, 5:])
        return np.concatenate([gap, np.zeros_like(gap[..., :1])], -1) @ turn


@dataclass(frozen=True, kw_only=True)
class RigidHead:
    """The stable points [P,3] of one head, and the pose from which searches begin."""

    camera: Camera
    points: Floats
    start: Floats  # [6]

    @classmethod
    def learn(cls, camera: Camera, units: Floats, ibug: Floats, shape: Floats, rotation: Floats) -> RigidHead:
        """From frames at rest: units [N,478,3], their 68 landmarks [N,68,3], the fitted `shape` [68,3] cm."""
        start = np.concatenate([rotation, np.zeros(3, np.float32)]).astype(np.float32)
        for _ in range(STEPS):  # shift that carries the shape onto the mean landmarks
            start[3:5] += camera.unproject(ibug.mean(0)[None, :, :2], shape, start[None])[0, 27:36, :2].mean(
                0
            )
        turn = pose_matrices(start[None])[0]
        cm = camera.distance / FOCAL
        near = (shape @ turn.T)[:, 2]
        mean, mean_ibug = units.mean(0), ibug.mean(0)
        # Depth relative to the landmarks that ICT and MediaPipe share; then the point on that pixel's ray.
        depth = (mean[list(STABLE), 2] - mean_ibug[17:48, 2].mean()) * cm + near[17:48].mean()
        ray = mean[list(STABLE), :2] * (camera.distance - depth)[:, None] / FOCAL - start[3:5]
        points = np.concatenate([ray, depth[:, None]], 1) @ turn
        return cls(camera=camera, points=points.astype(np.float32), start=start)

    def poses(self, units: Floats) -> Floats:
        """[N,478,3] -> [N,6], frame by frame."""
        seen = units[:, list(STABLE), :2]
        pose = np.repeat(self.start[None], len(units), 0)
        for _ in range(STEPS):
            here = self.camera.project(self.points, pose)
            residual = (seen - here).reshape(len(pose), -1)
            columns = []
            for axis in range(6):
                moved = pose.copy()
                moved[:, axis] += 1e-3
                columns.append((self.camera.project(self.points, moved) - here).reshape(len(pose), -1) * 1e3)
            slope = np.stack(columns, -1)
            normal = slope.transpose(0, 2, 1) @ slope + 1e-6 * np.eye(6, dtype=np.float32)
            pose = pose + np.linalg.solve(normal, slope.transpose(0, 2, 1) @ residual[..., None])[..., 0]
        return pose.astype(np.float32)
