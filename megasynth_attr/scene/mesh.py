"""From the scene file to arrays of vertices, faces and uv: a pure function, vectorised over primitives of one kind.

Order of operations: unit template × half-axes, displacement along the true normal, rotation, translation; then the
primitives of a box are stretched together, per axis, to fill the box; then layout units become scene units.
Arithmetic is element-wise on purpose: a matrix product may round equal vertices differently, and meshes would open.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.scene.heightfield import CONTROL
from megasynth_attr.scene.primitives import KINDS, Template, coarse_edges
from megasynth_attr.scene.spec import Geometry, Primitive

FRAME_CELLS = 3  # cells of the coarse surface whose edges become struts, independent of the tessellation


@dataclass(frozen=True)
class MeshArrays:
    """One closed mesh, instance id = its index + 1. All faces are shaded smooth: at hard edges vertices exist twice."""

    vertices: np.ndarray  # float32 (V, 3), scene units
    corner_vertices: np.ndarray  # int32 (C,) vertex of each face corner, counter-clockwise seen from outside
    face_sizes: np.ndarray  # int32 (F,) corners per face, 3 or 4
    uv: np.ndarray  # float32 (C, 2), texture tiles, v up; never mirrored seen from outside


def build_meshes(geometry: Geometry, tiles_per_unit: float | None) -> list[MeshArrays]:
    """Return one mesh per primitive, in order.

    ``tiles_per_unit`` None: the uv of each face spans [0, 1]². Otherwise uv is the face's mean length in scene units
    times ``tiles_per_unit``, rounded to whole tiles around closed surfaces, so that tileable textures show no seam;
    undisplaced boxes are anchored in the scene, so the texture continues from one piece of a wall to the next.
    "picture" surfaces always have one tile per face.
    """
    templates: dict[tuple[str, int], Template] = {}
    groups: dict[tuple[str, int], list[int]] = {}
    for index, primitive in enumerate(geometry.primitives):
        key = (primitive.kind, _cells(primitive, geometry))
        groups.setdefault(key, []).append(index)
        if key not in templates:
            templates[key] = KINDS[key[0]].build(key[1])
    posed: list[np.ndarray] = [np.empty(0)] * len(geometry.primitives)  # (V, 3) each, layout units
    for key, members in groups.items():
        points = _posed(templates[key], [geometry.primitives[i] for i in members])
        for index, vertices in zip(members, points, strict=True):
            posed[index] = vertices
    _fit_into_boxes(posed, geometry)
    meshes: dict[int, MeshArrays] = {}
    for key, members in groups.items():
        for wireframe in (False, True):
            chosen = [i for i in members if geometry.primitives[i].wireframe is wireframe]
            if chosen:
                build = _wireframes if wireframe else _surfaces
                meshes.update(zip(chosen, build(templates[key], chosen, posed, geometry, tiles_per_unit), strict=True))
    return [meshes[index] for index in range(len(geometry.primitives))]


def is_plain_box(primitive: Primitive) -> bool:
    """Return whether the primitive is its box itself: a cuboid with flat faces, not rotated."""
    return primitive.kind == "cuboid" and not any(primitive.heights) and primitive.rotation_xyzw == (0, 0, 0, 1)


def _cells(primitive: Primitive, geometry: Geometry) -> int:
    if primitive.kind not in KINDS:
        raise DatasetError(f"primitive kind {primitive.kind!r} is unknown; known: {', '.join(KINDS)}")
    if len(primitive.heights) != KINDS[primitive.kind].faces:
        raise DatasetError(f"a {primitive.kind} has {KINDS[primitive.kind].faces} faces, not {len(primitive.heights)}")
    if primitive.wireframe:
        return FRAME_CELLS
    if primitive.kind == "cuboid" and not any(primitive.heights):
        return 1  # twelve triangles are exact
    return geometry.tessellation


def _posed(patches: Template, primitives: list[Primitive]) -> np.ndarray:
    """Return P×V×3 vertices before their box stretches them: scaled, displaced, rotated, translated."""
    half_axes = np.array([p.half_axes for p in primitives])[:, None, :]
    parts = []
    for face, patch in enumerate(patches):
        points = patch.points * half_axes
        if any(p.heights[face] for p in primitives):
            flat = (0.0,) * CONTROL**2
            heights = np.array([p.heights[face] or flat for p in primitives])  # (P, 25)
            normals = patch.normals / half_axes  # the inverse transpose of the scaling
            normals /= np.sqrt((normals * normals).sum(axis=-1, keepdims=True))
            points += (heights @ patch.basis.T)[:, :, None] * normals
        parts.append(points)
    x, y, z = np.moveaxis(np.concatenate(parts, axis=1), -1, 0)
    rotations = scipy.spatial.transform.Rotation.from_quat([p.rotation_xyzw for p in primitives])
    matrix = rotations.as_matrix()[:, :, :, None]  # (P, 3, 3, 1)
    translation = np.array([p.translation for p in primitives])
    rotated = [matrix[:, i, 0] * x + matrix[:, i, 1] * y + matrix[:, i, 2] * z for i in range(3)]
    return np.stack([rotated[i] + translation[:, i : i + 1] for i in range(3)], axis=-1)


def _fit_into_boxes(posed: list[np.ndarray], geometry: Geometry) -> None:
    """Replace each entry of ``posed`` by its vertices in scene units; the primitives of a box fill it together."""
    count = len(geometry.boxes)
    low, high = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
    room = np.zeros(count)  # per side, left free for the thickness of the struts
    for primitive, vertices in zip(geometry.primitives, posed, strict=True):
        low[primitive.box] = np.minimum(low[primitive.box], vertices.min(axis=0))
        high[primitive.box] = np.maximum(high[primitive.box], vertices.max(axis=0))
        if primitive.wireframe:
            room[primitive.box] = geometry.strut_width * np.sqrt(3) / 2
    size = np.array([b.size for b in geometry.boxes]).reshape(-1, 3)
    target = np.maximum(size - 2 * room[:, None], size * 0.1) * geometry.scale
    origin = (np.array([b.centre for b in geometry.boxes]).reshape(-1, 3) - geometry.centre) * geometry.scale
    for index, primitive in enumerate(geometry.primitives):
        box = primitive.box
        stretch = target[box] / np.maximum(high[box] - low[box], 1e-12)
        posed[index] = (posed[index] - (low[box] + high[box]) / 2) * stretch + origin[box]


def _surfaces(
    patches: Template, members: list[int], posed: list[np.ndarray], geometry: Geometry, tiles_per_unit: float | None
) -> list[MeshArrays]:
    """Return the meshes of primitives with one template; ``posed`` holds their vertices in scene units."""
    primitives = [geometry.primitives[i] for i in members]
    points = np.stack([posed[i] for i in members])
    is_picture = np.array([p.surface == "picture" for p in primitives])
    uv = _uv(patches, points, tiles_per_unit, is_picture)
    if tiles_per_unit is not None:
        for row, primitive in enumerate(primitives):
            if is_plain_box(primitive) and not is_picture[row]:
                uv[row] += _anchor(patches, points[row]) * tiles_per_unit
    corner_vertices, face_sizes = _topology(patches)
    vertices = points.astype(np.float32)
    return [MeshArrays(vertices[k], corner_vertices, face_sizes, uv[k]) for k in range(len(members))]


def _topology(patches: Template) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.cumsum([0, *(len(p.points) for p in patches)])[:-1]
    corners = [p.corner_vertices + o for p, o in zip(patches, offsets, strict=True)]
    return np.concatenate(corners).astype(np.int32), np.concatenate([p.face_sizes for p in patches]).astype(np.int32)


def _uv(patches: Template, points: np.ndarray, tiles_per_unit: float | None, one_tile: np.ndarray) -> np.ndarray:
    """Return P×C×2 float32 uv for P×V×3 vertices in scene units."""
    parts, start = [], 0
    for patch in patches:
        vertices = points[:, start : start + len(patch.points)]
        start += len(patch.points)
        tiles = np.ones((len(points), 2))
        if tiles_per_unit is not None:
            for axis, (lines, closed) in enumerate(((patch.rows, patch.closed_u), (patch.columns, patch.closed_v))):
                length = _mean_length(vertices, lines) * tiles_per_unit
                tiles[:, axis] = np.maximum(np.round(length), 1) if closed else length
            tiles[one_tile] = 1
        parts.append(patch.uv.astype(np.float32) * tiles[:, None, :].astype(np.float32))
    return np.concatenate(parts, axis=1)


def _mean_length(vertices: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Return, for P×V×3 vertices, the mean length (P,) of (at most nine of) the polylines indexed by ``lines``."""
    lines = lines[np.unique(np.linspace(0, len(lines) - 1, 9).astype(int))]
    steps = np.diff(vertices[:, lines], axis=2)
    return np.sqrt((steps * steps).sum(axis=-1)).sum(axis=-1).mean(axis=-1)


def _anchor(patches: Template, vertices: np.ndarray) -> np.ndarray:
    """Return C×2: for each corner of an upright box the world position of its face's uv origin along u and v."""
    parts = []
    corners = vertices.reshape(len(patches), -1, 3)  # a cuboid's faces all have as many vertices
    for patch, face in zip(patches, corners, strict=True):
        along_u = np.sign(patch.points[patch.rows[0, -1]] - patch.points[patch.rows[0, 0]])
        along_v = np.sign(patch.points[patch.columns[0, -1]] - patch.points[patch.columns[0, 0]])
        origin = face[patch.rows[0, 0]]
        parts.append(np.tile([origin @ along_u, origin @ along_v], (len(patch.uv), 1)))
    return np.concatenate(parts).astype(np.float32)


def _wireframes(
    patches: Template, members: list[int], posed: list[np.ndarray], geometry: Geometry, tiles_per_unit: float | None
) -> list[MeshArrays]:
    """Return struts of square section along the edges of the coarse surface; each strut is a closed box."""
    edges, bar = coarse_edges(patches), KINDS["cuboid"].build(1)
    shape = np.concatenate([p.points for p in bar])  # (24, 3), the bar's axis is z
    corner_vertices, face_sizes = _topology(bar)
    count, width = len(edges), geometry.strut_width * geometry.scale
    topology = (corner_vertices + len(shape) * np.arange(count)[:, None]).ravel().astype(np.int32)
    meshes = []
    for index in members:
        ends = posed[index][edges]  # (E, 2, 3)
        vertices = _bars(shape, ends[:, 0], ends[:, 1], width)
        uv = _uv(bar, vertices, tiles_per_unit, np.zeros(count, dtype=bool))
        flat = vertices.reshape(-1, 3).astype(np.float32)
        meshes.append(MeshArrays(flat, topology, np.tile(face_sizes, count), uv.reshape(-1, 2)))
    return meshes


def _bars(shape: np.ndarray, start: np.ndarray, end: np.ndarray, width: float) -> np.ndarray:
    """Return E×V×3: the unit box ``shape`` (V×3, long axis z) laid from each start to its end (E×3)."""
    axis = end - start
    length = np.linalg.norm(axis, axis=1, keepdims=True)
    z = np.where(length > 1e-12, axis / np.maximum(length, 1e-12), [0.0, 0.0, 1.0])
    x = np.cross(np.eye(3)[np.abs(z).argmin(axis=1)], z)  # from the world axis least aligned with the strut
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    frame = (x * width / 2, np.cross(z, x) * width / 2, z * (length + width) / 2)  # longer by its width: joints close
    local = [shape[:, i, None] * frame[i][:, None, :] for i in range(3)]
    return local[0] + local[1] + local[2] + ((start + end) / 2)[:, None, :]
