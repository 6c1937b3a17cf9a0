"""Draws the pictures of the jaws that the decoder moves (`pipeline.mouth_interior`), from the teeth of ICT-FaceKit.

Teeth, gums and tongue of the neutral head are rendered from the front, eight times as fine as they are kept, and
shaded by light from the front and above, by how narrow the gaps are and by how far behind the incisors a place is. The
pictures hold colours as under full light; a portrait's own light and the lips' shadow are laid on when it speaks.

    python -m pipeline.training.jaws --data DATA --model portrait_256 --out runs/portrait_256
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import moderngl
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from pipeline import checkpoint
from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.mouth_interior import LAYER_COLUMNS, LAYER_ROWS
from pipeline.training.portrait_fit import FaceGeometry
from pipeline.training.rig import GUMS_TONGUE, TEETH

Floats = NDArray[np.floating]
Triangles = NDArray[np.int32]

REACH_CM = (3.2, 2.4)
"""Half width and half height of a picture; its middle lies on the line where the lips meet."""
DROP_CM = (0.10, 0.25)
"""How much lower than on the neutral head the upper and the lower jaw hang: lips at rest hide the model's teeth more,
and speech shows the lower ones less, than is usual."""
_FINER = 8
_CAMERA_CM = 75.0
_FRONT_CM = 10.8  # the incisors' depth
_GUM_BORDER_CM = -2.95  # height between the upper and the lower gum
_ROOTS_CM = (-1.7, -4.9)  # teeth beyond these heights are roots, inside of the gums
_UPPER_TEETH = 16
_TOOTH, _GUM = np.array([0.95, 0.915, 0.85]), np.array([0.72, 0.36, 0.36])
_ROOT_TINT, _EDGE_TINT = np.array([0.03, 0.07, 0.16]), np.array([0.10, 0.08, 0.05])
_LIGHT = np.array([0.05, 0.35, 0.93])
_GAPS = ((0.05, 3.0), (0.14, 1.7))
"""Radius (cm) of a gap and how much it darkens per cm of depth."""
_DEPTH_FADE_CM = 2.3
_LOWER_SHADE = 0.85

_VERTEX_SHADER = """#version 330
in vec3 position; in vec3 normal; in vec3 tint; out vec3 v_normal; out vec3 v_tint; out float v_depth;
void main() { gl_Position = vec4(position, 1.0); v_normal = normal; v_tint = tint; v_depth = position.z; }"""
_SHADER = """#version 330
in vec3 v_normal; in vec3 v_tint; in float v_depth;
layout(location = 0) out vec4 shape; layout(location = 1) out vec4 colour;
void main() { shape = vec4(normalize(v_normal), v_depth); colour = vec4(v_tint, 1.0); }"""


def draw_jaws(geometry: FaceGeometry) -> NDArray[np.float32]:
    """Colour and opacity, 0..1, of the upper and the lower jaw: [2,4,60,80]."""
    teeth, gums = _triangles(geometry, TEETH), _triangles(geometry, GUMS_TONGUE)
    tooth = _teeth_by_vertex(teeth, len(geometry.neutral))
    height = geometry.neutral[:, 1]
    upper = tooth[teeth[:, 0]] < _UPPER_TEETH
    crown = np.where(upper, height[teeth].mean(1) < _ROOTS_CM[0], height[teeth].mean(1) > _ROOTS_CM[1])
    upper_gum = height[gums].mean(1) > _GUM_BORDER_CM
    tints = np.where(tooth[:, None] >= 0, _tooth_tints(tooth, height), _GUM)
    normals = np.where(tooth[:, None] >= 0, _normals(geometry, teeth), _normals(geometry, gums))
    context = moderngl.create_context(standalone=True, backend="egl")  # type: ignore[arg-type]
    pictures = []
    for lower in (False, True):
        parts = np.concatenate([gums[upper_gum != lower], teeth[(upper != lower) & crown]])
        shape, colour = _render(context, geometry, parts, normals, tints, DROP_CM[lower])
        pictures.append(_shade(shape, colour, _LOWER_SHADE if lower else 1.0))
    context.release()
    return np.stack(pictures).transpose(0, 3, 1, 2).astype(np.float32)


def _triangles(geometry: FaceGeometry, part: tuple[int, int]) -> Triangles:
    inside = ((geometry.triangles >= part[0]) & (geometry.triangles <= part[1])).all(1)
    return geometry.triangles[inside]


def _teeth_by_vertex(teeth: Triangles, vertices: int) -> NDArray[np.int64]:
    """The tooth that each vertex belongs to, upper ones first, or -1."""
    edges = np.concatenate([teeth[:, [0, 1]], teeth[:, [1, 2]], teeth[:, [2, 0]]]) - TEETH[0]
    count = TEETH[1] - TEETH[0] + 1
    graph = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    tooth = np.full(vertices, -1)
    tooth[TEETH[0] : TEETH[1] + 1] = connected_components(graph, directed=False)[1]
    return tooth


def _tooth_tints(tooth: NDArray[np.int64], height: Floats) -> Floats:
    """Enamel is yellower towards the root, and a little darker at the biting edge."""
    tints = np.tile(_TOOTH, (len(tooth), 1))
    for number in range(tooth.max() + 1):
        own = tooth == number
        root = (height[own] - height[own].min()) / np.ptp(height[own])
        root = (root if number < _UPPER_TEETH else 1 - root)[:, None]
        tints[own] *= 1 - np.clip(1.4 * root - 0.2, 0, 1) * _ROOT_TINT
        tints[own] *= 1 - np.clip(1 - 9 * root, 0, 1) * _EDGE_TINT
    return tints


def _normals(geometry: FaceGeometry, triangles: Triangles) -> Floats:
    corners = geometry.neutral[triangles]
    face = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(geometry.neutral)
    for corner in range(3):
        np.add.at(normals, triangles[:, corner], face)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
    return normals


def _render(
    context: moderngl.Context,
    geometry: FaceGeometry,
    triangles: Triangles,
    normals: Floats,
    tints: Floats,
    drop_cm: float,
) -> tuple[Floats, Floats]:
    """Normal and depth [h,w,4] (cm, towards the camera), tint and coverage [h,w,4], both eightfold in size."""
    size = (LAYER_COLUMNS * _FINER, LAYER_ROWS * _FINER)
    targets = [context.texture(size, 4, dtype="f4") for _ in range(2)]
    frame = context.framebuffer(targets, context.depth_renderbuffer(size))
    frame.use()
    frame.clear(0, 0, 0, 0)
    context.enable(moderngl.DEPTH_TEST)
    lips = geometry.neutral[geometry.landmarks[[62, 66]], 1].mean()
    places = geometry.neutral - (0, lips + drop_cm, 0)
    depth = places[:, 2:]
    flat = places[:, :2] * (_CAMERA_CM - _FRONT_CM) / (_CAMERA_CM - depth) / REACH_CM
    vertices = np.concatenate([flat, (6 - depth) / 10, normals, tints], 1).astype(np.float32)
    buffers = [context.buffer(vertices.tobytes()), context.buffer(triangles.astype("i4").tobytes())]
    program = context.program(_VERTEX_SHADER, _SHADER)
    context.vertex_array(
        program, [(buffers[0], "3f 3f 3f", "position", "normal", "tint")], buffers[1]
    ).render()
    shape, colour = (
        np.frombuffer(target.read(), np.float32).reshape(size[1], size[0], 4)[::-1].copy()
        for target in targets
    )
    shape[..., 3] = np.where(colour[..., 3] > 0, 6 - 10 * shape[..., 3], 2.0)
    return shape, colour


def _shade(shape: Floats, colour: Floats, brightness: float) -> Floats:
    """Colour and opacity [60,80,4]."""
    normal, depth, covered = shape[..., :3], shape[..., 3], colour[..., 3]
    normal = normal * np.where(normal[..., 2:] < 0, -1, 1)  # some faces of the model look inwards
    light = _LIGHT / np.linalg.norm(_LIGHT)
    halfway = light + np.array([0.0, 0.0, 1.0])
    per_cm = colour.shape[1] / (2 * REACH_CM[0])
    reach = 0.35 + 0.65 * np.clip(normal @ light, 0, 1)
    for radius, strength in _GAPS:
        hidden = np.clip(gaussian_filter(depth, radius * per_cm) - depth, 0, 0.6)
        reach = reach * np.exp(-strength * hidden)
    fade = brightness * np.exp(-np.clip(_FRONT_CM - 0.5 - depth, 0, 9) / _DEPTH_FADE_CM)
    shine = 0.1 * np.clip(normal @ (halfway / np.linalg.norm(halfway)), 0, 1) ** 40
    lit = np.clip(colour[..., :3] * (reach * fade)[..., None] + (shine * fade)[..., None], 0, 1)
    coarse = (LAYER_ROWS, _FINER, LAYER_COLUMNS, _FINER)
    opacity = covered.reshape(coarse).mean((1, 3))
    mean = (lit * covered[..., None]).reshape(*coarse, 3).mean((1, 3)) / np.maximum(opacity, 1e-4)[..., None]
    # Bilinear sampling also reads the colour of what is transparent, so colours go on beyond the edge.
    seen = (opacity > 0.02).astype(np.float64)
    near = np.stack([gaussian_filter(mean[..., c] * seen, 1) for c in range(3)], -1)
    near /= np.maximum(gaussian_filter(seen, 1), 1e-3)[..., None]
    return np.concatenate([np.where(seen[..., None] > 0, mean, near), opacity[..., None]], -1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="portrait_256", help="the model whose jaws are drawn anew")
    parser.add_argument("--out", type=Path, default=Path("runs/portrait_256"))
    parser.add_argument(
        "--picture", type=Path, help="also write the jaws, as they look in the dark, to this PNG"
    )
    arguments = parser.parse_args()
    pictures = draw_jaws(FaceGeometry.load(arguments.data))
    source = checkpoint.resolve(arguments.model)
    pipe = AvatarPipeline.from_pretrained(source)
    pipe.frame_decoder.interior.layers.copy_(torch.from_numpy(pictures))
    pipe.to(torch.float16)
    shutil.copytree(source, arguments.out, dirs_exist_ok=True)  # portraits, basis and card as well
    pipe.save_pretrained(arguments.out)
    if arguments.picture:
        shown = np.concatenate(list(pictures[:, :3] * pictures[:, 3:]), -1).transpose(1, 2, 0)
        Image.fromarray((255 * shown).astype(np.uint8)).save(arguments.picture)


if __name__ == "__main__":
    main()
