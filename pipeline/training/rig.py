"""A portrait as a photo-textured ICT-FaceKit head: renders it with any motion, with exact backward flow.

Training time only: it makes the pictures that the autoencoder learns from and is the "ground-truth rig" baseline of
the evaluation. The photo is the texture of the head mesh; a background grid moves with the head and is anchored at
the crop's border; eyeballs and mouth interior come from the geometry. Rendering is done by OpenGL on EGL
(Mesa's llvmpipe on a machine without a GPU).

Motion m [62] = 57 ICT expression weights, 3 rotations (yaw, pitch, roll in rad) and 2 shifts (cm), all relative to
the portrait as photographed, so m = 0 is the portrait itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import moderngl
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator
from scipy.spatial import cKDTree

from pipeline.training.portrait_fit import FOCAL, FaceGeometry

MOTION_SIZE = 62
FRAME_PIXELS = 256
FLOW_PIXELS = 128
_GRID = 49

# Vertex ranges of ICT-FaceKit Light (last index included).
FACE, HEAD, MOUTH_SOCKET = (0, 9408), (9409, 11247), (11248, 13293)
GUMS_TONGUE, TEETH = (14062, 17038), (17039, 21450)
EYEBALLS = ((21451, 22220), (22221, 23020), (23021, 23790), (23791, 24590))

# MediaPipe contours of the eyes, by image side.
_EYE_CONTOURS = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
_INNER_LIP_PAIRS = ((61, 67), (62, 66), (63, 65))

_VERTEX_SHADER = """#version 330
in vec3 position; in vec2 photo; in vec3 shade; out vec2 v_photo; out vec3 v_shade;
void main() { gl_Position = vec4(position, 1.0); v_photo = photo; v_shade = shade; }"""
_COLOUR_SHADER = """#version 330
in vec2 v_photo; in vec3 v_shade; out vec4 colour; uniform sampler2D texture_photo; uniform int interior;
void main() { colour = interior == 1 ? vec4(v_shade, 1.0) : vec4(texture(texture_photo, v_photo).rgb, 1.0); }"""
_FLOW_SHADER = """#version 330
in vec2 v_photo; in vec3 v_shade; out vec4 colour; uniform int interior;
void main() { colour = vec4(v_photo * 2.0 - 1.0, float(interior), 1.0); }"""


@dataclass(frozen=True, kw_only=True)
class RigFrame:
    """One rendered frame.

    `rgb` [256,256,3] u8; `grid` [128,128,2] f32, the place in the photo that each pixel shows (grid_sample
    coordinates, x right, y down, -1..1); `interior` [128,128] f32, 1 where the mouth interior is seen.
    """

    rgb: NDArray[np.uint8]
    grid: NDArray[np.float32]
    interior: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class RigFit:
    """One portrait's row of `runs/portraits.npz`."""

    crop: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    rotation: NDArray[np.float32]
    shift: NDArray[np.float32]
    distance: float
    identity: NDArray[np.float32]
    expression: NDArray[np.float32]


def _rotation(angles: NDArray[np.float32]) -> NDArray[np.float32]:
    (cy, cp, cr), (sy, sp, sr) = np.cos(angles), np.sin(angles)
    roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    return (roll @ pitch @ yaw).astype(np.float32)


def _smoothstep(x: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    x = np.clip(x, 0, 1)
    return (x * x * (3 - 2 * x)).astype(np.float32)


def _anchoring(position: NDArray[np.float32]) -> NDArray[np.float32]:
    """How freely a point moves: 0 at the crop's border, growing to 1 inside; [N,2] -> [N,1]."""
    sides = _smoothstep((1 - np.abs(position[:, 0])) / 0.30)
    top = _smoothstep((1 - position[:, 1]) / 0.25)
    bottom = _smoothstep((position[:, 1] + 1) / 0.45)  # shoulders stay, the chin moves
    return (sides * top * bottom)[:, None]


class RigRenderer:
    """Holds the OpenGL context and buffers; `load` a portrait, then `render` motions of it. One thread only."""

    def __init__(self, geometry: FaceGeometry) -> None:
        self.geometry = geometry
        vertex_count = len(geometry.neutral)
        self._context = context = moderngl.create_context(standalone=True, backend="egl")  # type: ignore[arg-type]
        context.enable(moderngl.DEPTH_TEST)
        self._colour = context.program(_VERTEX_SHADER, _COLOUR_SHADER)
        self._flow = context.program(_VERTEX_SHADER, _FLOW_SHADER)
        self._mesh_buffer = context.buffer(reserve=vertex_count * 32, dynamic=True)
        self._grid_buffer = context.buffer(reserve=_GRID * _GRID * 32, dynamic=True)
        axis = np.linspace(-1, 1, _GRID, dtype=np.float32)
        self._grid_points = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
        index = np.arange(_GRID * _GRID).reshape(_GRID, _GRID)
        corners = [index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]]
        grid_triangles = np.concatenate(
            [np.stack([corners[i] for i in order], -1).reshape(-1, 3) for order in ((0, 1, 2), (0, 2, 3))]
        )
        skin = self._triangles(FACE)
        eyes = self._triangles(*EYEBALLS)
        inside = self._triangles(MOUTH_SOCKET, GUMS_TONGUE, TEETH)
        self._inside_triangles = inside
        self._parts = [
            (self._arrays(self._grid_buffer, grid_triangles), 0),
            (self._arrays(self._mesh_buffer, inside), 1),
            (self._arrays(self._mesh_buffer, eyes), 0),
            (self._arrays(self._mesh_buffer, skin), 0),
        ]
        self._samples = context.framebuffer(
            [context.renderbuffer((FRAME_PIXELS,) * 2, 4, samples=4)],
            context.depth_renderbuffer((FRAME_PIXELS,) * 2, samples=4),
        )
        self._resolved = context.framebuffer([context.texture((FRAME_PIXELS,) * 2, 4)])
        self._flow_target = context.framebuffer(
            [context.texture((FLOW_PIXELS,) * 2, 4, dtype="f4")],
            context.depth_renderbuffer((FLOW_PIXELS,) * 2),
        )
        self._texture: moderngl.Texture | None = None
        base = np.ones((vertex_count, 3), np.float32)
        for (first, last), colour in (
            (GUMS_TONGUE, (0.60, 0.27, 0.26)),
            (MOUTH_SOCKET, (0.26, 0.08, 0.08)),
            (TEETH, (0.90, 0.86, 0.79)),
        ):
            base[first : last + 1] = colour
        self._base_colour = base
        self._lid_rims = self._find_lid_rims()
        self._blink = [geometry.names.index(f"eyeBlink_{side}") for side in "LR"]
        self._sunk = np.zeros(vertex_count, np.float32)
        for first, last in EYEBALLS:  # cm; closed lids must cover the eyeball everywhere
            self._sunk[first : last + 1] = 0.5

    def _triangles(self, *ranges: tuple[int, int]) -> NDArray[np.int32]:
        wanted = np.zeros(len(self.geometry.neutral), bool)
        for first, last in ranges:
            wanted[first : last + 1] = True
        return self.geometry.triangles[wanted[self.geometry.triangles].all(1)]

    def _arrays(
        self, buffer: moderngl.Buffer, triangles: NDArray[np.int32]
    ) -> tuple[moderngl.VertexArray, moderngl.VertexArray]:
        indices = self._context.buffer(triangles.astype("i4").tobytes())
        colour = [(buffer, "3f 2f 3f", "position", "photo", "shade")]
        flow = [(buffer, "3f 2f 12x", "position", "photo")]
        return (
            self._context.vertex_array(self._colour, colour, indices),
            self._context.vertex_array(self._flow, flow, indices),
        )

    def _find_lid_rims(self) -> list[NDArray[np.int64]]:
        """Vertices of the face mesh's free border around each eye, found by their distance to the eye landmarks."""
        triangles = self._triangles((0, 6705))
        edges = np.sort(
            np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1
        )
        unique, counts = np.unique(edges, axis=0, return_counts=True)
        border = np.unique(unique[counts == 1])
        neutral = self.geometry.neutral
        rims = []
        for landmarks in (self.geometry.landmarks[36:42], self.geometry.landmarks[42:48]):
            centre = neutral[landmarks].mean(0)
            reach = 1.35 * np.linalg.norm(neutral[landmarks] - centre, axis=1).max()
            rims.append(border[np.linalg.norm(neutral[border] - centre, axis=1) < reach])
        return rims

    def load(self, fit: RigFit) -> None:
        """Takes a portrait: uploads its texture and aligns the mesh with the photo at rest."""
        if self._texture is not None:
            self._texture.release()
        flipped = np.ascontiguousarray(fit.crop[::-1])
        self._texture = self._context.texture(fit.crop.shape[1::-1], 3, flipped.tobytes())
        self._texture.build_mipmaps()
        self._texture.filter = (moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR)
        self._fit = fit
        self._person = self.geometry.neutral + np.tensordot(fit.identity, self.geometry.identity, 1)
        self._rest_projection, turned = self._project(np.zeros(MOTION_SIZE, np.float32))
        upper, lower = turned[self.geometry.landmarks[[62, 66]]]
        self._rest_gap = float(np.linalg.norm(upper - lower))
        self._rest = self._rest_projection + self._photo_residual(fit.landmarks)
        self._freedom = _anchoring(self._rest)
        carriers = np.concatenate([np.arange(0, FACE[1], 5), np.arange(HEAD[0], HEAD[1], 3)])
        distance, nearest = cKDTree(self._rest[carriers]).query(self._grid_points, k=8)
        weight = 1 / (distance + 0.02) ** 2
        self._grid_weight = (weight / weight.sum(1, keepdims=True)).astype(np.float32)
        self._grid_carriers = carriers[nearest]
        fall = _smoothstep(1 - distance.min(1) / 0.7)[:, None]
        self._grid_freedom = fall * _anchoring(self._grid_points)
        pixels = fit.crop[::-1].astype(np.float32) / 255
        where = np.clip((self._rest[:6705] + 1) / 2 * fit.crop.shape[0], 0, fit.crop.shape[0] - 1).astype(int)
        skin = np.median(pixels[where[:, 1], where[:, 0]], 0)
        # Teeth are lit by the light that falls on the face: neutral hue, the skin's brightness.
        self._light = np.clip(0.55 * skin.mean() * 2.0 + 0.45 * skin * 1.75, 0.15, 1.05).astype(np.float32)

    def _photo_residual(self, landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
        """Where the projected mesh must move to lie on the photo's landmarks; [V,2] in crop units."""
        from pipeline.training.portrait_fit import IBUG_FROM_MEDIAPIPE

        target = landmarks[list(IBUG_FROM_MEDIAPIPE)].copy()
        for upper, lower in _INNER_LIP_PAIRS:
            if abs(target[upper, 1] - target[lower, 1]) < 0.03:  # closed: one lip line
                target[[upper, lower]] = target[[upper, lower]].mean(0)
        source = self._rest_projection[self.geometry.landmarks]
        keep = np.r_[0:17:2, 17:36, 48:68]
        sources, targets = [source[keep]], [target[keep]]
        smoothing = [np.where(keep < 17, 0.02, 0.0005)]
        for rim, contour in zip(self._lid_rims, _EYE_CONTOURS, strict=True):
            outline = landmarks[list(contour)]
            sources.append(self._rest_projection[rim])
            targets.append(_onto_outline(self._rest_projection[rim], outline))
            smoothing.append(np.full(len(rim), 0.001))
        sources_all, first = np.unique(np.concatenate(sources), axis=0, return_index=True)
        residual = (np.concatenate(targets) - np.concatenate(sources))[first]
        smooth = np.concatenate(smoothing)[first]
        interpolate = RBFInterpolator(sources_all, residual, smoothing=smooth, kernel="linear", neighbors=40)
        near = np.clip(self._rest_projection, sources_all.min(0) - 0.2, sources_all.max(0) + 0.2)
        return np.asarray(interpolate(near), np.float32)

    def _project(self, motion: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        fit = self._fit
        weights = np.clip(fit.expression + motion[:57], 0, 1.15).astype(np.float32)
        vertices = self._person + np.tensordot(weights, self.geometry.expression, 1)
        turned = vertices @ _rotation(fit.rotation + motion[57:60]).T
        turned[:, :2] += fit.shift + motion[60:62]
        depth = fit.distance - turned[:, 2]
        return (FOCAL * turned[:, :2] / depth[:, None]).astype(np.float32), turned.astype(np.float32)

    def render(self, motion: NDArray[np.float32]) -> RigFrame:
        """Renders the loaded portrait with motion [62]."""
        projection, turned = self._project(motion)
        moved = projection - self._rest_projection
        position = self._rest + moved * self._freedom
        mesh = np.empty((len(position), 8), np.float32)
        mesh[:, :2] = position
        mesh[:, 2] = np.clip(0.5 - (turned[:, 2] - self._sunk) / 60, -0.99, 0.99)
        mesh[:, 3:5] = (self._rest + self._lid_skin(motion) + 1) / 2
        mesh[:, 5:] = self._shade_interior(turned)
        self._mesh_buffer.write(mesh.tobytes())
        shift = (moved[self._grid_carriers] * self._grid_weight[..., None]).sum(1) * self._grid_freedom
        backdrop = np.zeros((len(self._grid_points), 8), np.float32)
        backdrop[:, :2] = self._grid_points + shift
        backdrop[:, 2] = 0.999
        backdrop[:, 3:5] = (self._grid_points + 1) / 2
        self._grid_buffer.write(backdrop.tobytes())
        if self._texture is None:
            raise RuntimeError("No portrait is loaded: call load() before render().")
        self._texture.use(0)
        self._samples.use()
        self._samples.clear()
        for (colour, _), interior in self._parts:
            self._colour["interior"] = interior
            colour.render()
        self._context.copy_framebuffer(self._resolved, self._samples)
        rgb = np.frombuffer(self._resolved.read(components=3), np.uint8).reshape(
            FRAME_PIXELS, FRAME_PIXELS, 3
        )
        self._flow_target.use()
        self._flow_target.clear()
        for (_, flow), interior in self._parts:
            self._flow["interior"] = interior
            flow.render()
        raw = np.frombuffer(self._flow_target.read(components=3, dtype="f4"), np.float32)
        raw = raw.reshape(FLOW_PIXELS, FLOW_PIXELS, 3)[::-1]
        grid = np.stack([raw[..., 0], -raw[..., 1]], -1)
        return RigFrame(rgb=rgb[::-1].copy(), grid=grid, interior=raw[..., 2].copy())

    def _lid_skin(self, motion: NDArray[np.float32]) -> NDArray[np.float32]:
        """Texture shift [V,2] that lets a closing lid show the skin above it instead of stretched lashes."""
        scale = 0.8 * FOCAL / self._fit.distance
        return -scale * np.tensordot(
            np.clip(motion[self._blink], 0, 1), self.geometry.expression[self._blink, :, :2], 1
        )

    def _shade_interior(self, turned: NDArray[np.float32]) -> NDArray[np.float32]:
        """Lambert shading with a depth term: the further behind the lips, the less light gets in."""
        triangles = self._inside_triangles
        edges = (
            turned[triangles[:, 1]] - turned[triangles[:, 0]],
            turned[triangles[:, 2]] - turned[triangles[:, 0]],
        )
        face_normal = np.cross(*edges)
        normal = np.zeros_like(turned)
        for corner in range(3):
            for axis in range(3):
                normal[:, axis] += np.bincount(triangles[:, corner], face_normal[:, axis], len(turned))
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
        lambert = 0.45 + 0.55 * np.clip(np.abs(normal @ np.array([0.1, 0.2, 0.97], np.float32)), 0, 1)
        lips = turned[self.geometry.landmarks[60:68]].mean(0)
        behind = np.clip((lips[2] - turned[:, 2] - 0.7) / 2.4, 0, 1)
        sideways = np.clip((np.abs(turned[:, 0] - lips[0]) - 1.2) / 2.0, 0, 1)
        gap = float(np.linalg.norm(turned[self.geometry.landmarks[62]] - turned[self.geometry.landmarks[66]]))
        # closed lips show a dark line, no teeth
        opening = np.clip((gap - self._rest_gap) / 0.5 + 0.1, 0.1, 1)
        access = (1 - 0.92 * behind) * (1 - 0.6 * sideways) * opening
        return (self._base_colour * self._light * (lambert * access)[:, None]).astype(np.float32)


def _onto_outline(points: NDArray[np.float32], outline: NDArray[np.float32]) -> NDArray[np.float32]:
    """Moves rim points onto a closed outline, each along its direction from the eye's centre, slightly outside it."""

    def polar(
        values: NDArray[np.float32], centre: NDArray[np.float32], width: float
    ) -> tuple[NDArray, NDArray]:  # type: ignore[type-arg]
        offset = (values - centre) / (width, width * 0.5)
        return np.arctan2(offset[:, 1], offset[:, 0]), np.linalg.norm(offset, axis=1)

    width = float(np.ptp(outline[:, 0])) / 2
    centre = (outline.min(0) + outline.max(0)) / 2
    angle, radius = polar(outline, centre, width)
    order = np.argsort(angle)
    own_centre = (points.min(0) + points.max(0)) / 2
    own_angle, _ = polar(points, own_centre, float(np.ptp(points[:, 0])) / 2)
    reach = 1.05 * np.interp(own_angle, angle[order], radius[order], period=2 * np.pi)
    direction = np.stack([np.cos(own_angle) * width, np.sin(own_angle) * width * 0.5], 1)
    return (centre + direction * reach[:, None]).astype(np.float32)


def load_fits(path: str) -> tuple[list[str], list[RigFit]]:
    """Reads every portrait of `runs/portraits.npz`: names and fits."""
    archive = np.load(path)
    fields: dict[str, Any] = {
        key: archive[key] for key in archive.files if key not in ("names", "error", "crops")
    }
    crops = archive["crops"]
    fields["distance"] = fields["distance"].tolist()
    fits = [RigFit(crop=crops[i], **{key: v[i] for key, v in fields.items()}) for i in range(len(crops))]
    return [str(name) for name in archive["names"]], fits
