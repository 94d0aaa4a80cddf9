"""The shapes a scene is made of, as unit templates: patches of points, true normals, height-field weights and uv.

Every template fills [-1, 1]³ and is scaled by a primitive's half-axes. A patch is one face with smooth shading and one
height field; where patches meet (cuboid edges, cap rims) each has its own copy of the vertices with bit-equal
coordinates. Wrapped patches share their vertices across the seam, poles are single vertices. Faces are
counter-clockwise and ∂p/∂u × ∂p/∂v points outwards, so nothing is mirrored; v runs along +z where a face has an up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from megasynth_attr.scene.heightfield import open_basis, periodic_basis, surface_basis

TUBE_RADIUS = 0.35  # torus: of the tube, where the outer radius is 1
CAPSULE_CAP = 0.5  # capsule: height of one cap, where half the whole is 1


@dataclass(frozen=True)
class Patch:
    """One face: V vertices, C face corners, F faces; ``rows`` and ``columns`` index polylines along u and along v."""

    points: np.ndarray  # (V, 3) on the unit shape
    normals: np.ndarray  # (V, 3) outward, unit, of the unit shape
    basis: np.ndarray  # (V, 25) weights of the control heights
    corner_vertices: np.ndarray  # (C,) int32, counter-clockwise seen from outside
    face_sizes: np.ndarray  # (F,) int32, 3 or 4
    uv: np.ndarray  # (C, 2) in [0, 1]²
    rows: np.ndarray  # (lines, vertices) whose mean length is the face's extent along u
    columns: np.ndarray  # the same along v
    closed_u: bool
    closed_v: bool


Template = tuple[Patch, ...]


def coarse_edges(patches: Template) -> np.ndarray:
    """Return E×2: each edge of the patches once, indexing their concatenated vertices, coincident ones merged."""
    points = np.concatenate([p.points for p in patches])
    _, first, inverse = np.unique(np.round(points, 9) + 0.0, axis=0, return_index=True, return_inverse=True)
    merged = first[inverse.ravel()]
    offsets = np.cumsum([0, *(len(p.points) for p in patches)])
    pairs = []
    for patch, offset in zip(patches, offsets[:-1], strict=True):
        corner = np.arange(len(patch.corner_vertices))
        starts = np.concatenate([[0], np.cumsum(patch.face_sizes)[:-1]])
        following = corner + 1
        following[starts + patch.face_sizes - 1] = starts
        around = merged[patch.corner_vertices + offset]
        pairs.append(np.stack([around, around[following]], axis=-1))
    edges = np.sort(np.concatenate(pairs), axis=1)
    return np.unique(edges[edges[:, 0] != edges[:, 1]], axis=0)


def _steps(cells: int) -> np.ndarray:
    """Return cells + 1 numbers from -1 to 1, exactly antisymmetric so that shared edges are bit-equal."""
    return (2 * np.arange(cells + 1) - cells) / cells


def _turn(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return cos and sin of ``count`` angles that start at -45°, where a cap's square grid has its corner."""
    angle = -np.pi / 4 + 2 * np.pi * np.arange(count) / count
    return np.cos(angle), np.sin(angle)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _faces(grid: np.ndarray, south: bool, north: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (corners, face sizes, uv) of a (rows+1)×(columns+1) vertex grid; rows go up, columns to the right.

    A pole row (``south``, ``north``) is one vertex: its faces are triangles and its corner lies at their mean u.
    """
    v_count, u_count = grid.shape[0] - 1, grid.shape[1] - 1
    u, v = np.arange(u_count + 1) / u_count, np.arange(v_count + 1) / v_count
    corners, sizes, uv = [], [], []
    for k in range(v_count):
        below = [(k, 0.5)] if south and k == 0 else [(k, 0.0), (k, 1.0)]
        above = [(k + 1, 0.5)] if north and k == v_count - 1 else [(k + 1, 1.0), (k + 1, 0.0)]
        ring, ring_uv = [], []
        for row, side in below + above:
            ring.append(grid[row, 1:] if side == 1.0 else grid[row, :-1])
            ring_uv.append(np.stack([u[:-1] + side * (u[1:] - u[:-1]), np.full(u_count, v[row])], axis=-1))
        corners.append(np.stack(ring, axis=1).ravel())
        uv.append(np.stack(ring_uv, axis=1).reshape(-1, 2))
        sizes.append(np.full(u_count, len(ring)))
    return np.concatenate(corners).astype(np.int32), np.concatenate(sizes).astype(np.int32), np.concatenate(uv)


def _square(cells: int, normal: np.ndarray, place: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Patch:
    """Return an open cells×cells patch; ``place`` maps grids of (a, b) ∈ [-1, 1]² (u, v directions) to points."""
    grid = np.arange((cells + 1) ** 2).reshape(cells + 1, cells + 1)
    b, a = np.meshgrid(_steps(cells), _steps(cells), indexing="ij")
    along = open_basis(np.arange(cells + 1) / cells)
    corner_vertices, face_sizes, uv = _faces(grid, south=False, north=False)
    return Patch(
        points=place(a, b).reshape(-1, 3),
        normals=np.broadcast_to(normal, (grid.size, 3)),
        basis=surface_basis(np.repeat(along, cells + 1, axis=0), np.tile(along, (cells + 1, 1))),
        corner_vertices=corner_vertices,
        face_sizes=face_sizes,
        uv=uv,
        rows=grid,
        columns=grid.T,
        closed_u=False,
        closed_v=False,
    )


def _revolve(
    cells: int, radius: np.ndarray, z: np.ndarray, normal_radius: np.ndarray, normal_z: np.ndarray, closed: bool = False
) -> Patch:
    """Return the surface that a curve from bottom to top makes around z, with 4·cells columns.

    The curve and its outward normals lie in the half plane (radius, z); where an end has radius 0 it becomes a pole.
    ``closed``: the last point is the first (the torus).
    """
    turn, rows = 4 * cells, len(radius) - 1
    cos, sin = _turn(turn)
    south, north = radius[0] == 0, radius[-1] == 0
    last = rows if closed else rows + 1  # rings with vertices of their own
    counts = np.full(last, turn)
    counts[0], counts[-1] = (1 if south else turn), (1 if north else turn)
    starts = np.concatenate([[0], np.cumsum(counts)])
    columns = np.arange(turn + 1) % turn
    grid = np.stack([starts[k % last] + columns * (counts[k % last] > 1) for k in range(rows + 1)])
    ring = np.repeat(np.arange(last), counts)
    column = np.concatenate([np.arange(count) for count in counts])
    cos, sin = cos[column], sin[column]
    points = np.stack([radius[ring] * cos, radius[ring] * sin, z[ring]], axis=-1)
    normals = np.stack([normal_radius[ring] * cos, normal_radius[ring] * sin, normal_z[ring]], axis=-1)
    height_basis = (periodic_basis if closed else open_basis)(np.arange(last) / rows)
    corner_vertices, face_sizes, uv = _faces(grid, south, north)
    return Patch(
        points=points,
        normals=_unit(normals),
        basis=surface_basis(height_basis[ring], periodic_basis(np.arange(turn) / turn)[column]),
        corner_vertices=corner_vertices,
        face_sizes=face_sizes,
        uv=uv,
        rows=grid[int(south) : rows if closed or north else rows + 1],
        columns=grid[:, :-1].T,
        closed_u=True,
        closed_v=closed,
    )


def _cap(cells: int, z: float) -> Patch:
    """Return the disc at ``z`` = ±1: a square grid bent concentrically, its border bit-equal to a side's rim.

    uv is the disc's plan (one tile over its bounding square): undistorted, unlike the bent grid itself.
    """

    def place(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        y_plan = b * z  # seen from below, up is -y
        wide = np.abs(a) >= np.abs(y_plan)
        radius = np.where(wide, a, y_plan)
        ratio = np.divide(np.where(wide, y_plan, a), radius, out=np.zeros_like(a), where=radius != 0)
        angle = np.pi / 4 * ratio
        x = radius * np.where(wide, np.cos(angle), np.sin(angle))
        y = radius * np.where(wide, np.sin(angle), np.cos(angle))
        step, last, first = np.arange(cells), np.full(cells, cells), np.zeros(cells, dtype=int)
        column = np.concatenate([last, cells - step, first, step])  # the border, counter-clockwise from its corner
        row = np.concatenate([step, last, cells - step, first])
        row = row if z > 0 else cells - row
        x[row, column], y[row, column] = _turn(4 * cells)
        return np.stack([x, y, np.full_like(x, z)], axis=-1)

    patch = _square(cells, np.array([0.0, 0.0, z]), place)
    plan = patch.points[patch.corner_vertices, :2] * [0.5, 0.5 * z] + 0.5
    middle = slice(cells // 2, cells // 2 + 1)  # a diameter: the extent of the plan, not of the bent grid's mean row
    return dataclasses.replace(patch, uv=plan, rows=patch.rows[middle], columns=patch.columns[middle])


def _ellipsoid(cells: int) -> Template:
    latitude = np.pi / 2 * _steps(2 * cells)
    radius, z = np.cos(latitude), np.sin(latitude)
    radius[[0, -1]] = 0.0
    return (_revolve(cells, radius, z, radius, z),)


def _cuboid(cells: int) -> Template:
    faces = []
    for axis, sign in ((0, 1), (0, -1), (1, 1), (1, -1), (2, 1), (2, -1)):
        normal, right, up = np.zeros(3), np.zeros(3), np.zeros(3)
        normal[axis] = sign
        if axis == 2:
            right[0], up[1] = 1, sign
        else:  # seen from outside with z up, the right-hand axis is up × normal
            up[2] = 1
            right = np.cross(up, normal)

        def place(
            a: np.ndarray, b: np.ndarray, n: np.ndarray = normal, r: np.ndarray = right, u: np.ndarray = up
        ) -> np.ndarray:
            return a[..., None] * r + b[..., None] * u + n

        faces.append(_square(cells, normal, place))
    return tuple(faces)


def _cylinder(cells: int) -> Template:
    z = _steps(cells)
    one = np.ones_like(z)
    return _revolve(cells, one, z, one, np.zeros_like(z)), _cap(cells, 1.0), _cap(cells, -1.0)


def _cone(cells: int) -> Template:
    z = _steps(cells)
    radius, slope = (1 - z) / 2, np.full_like(z, 2.0)
    slope[-1] = 0.0  # the apex is one vertex: its normal is the axis
    return _revolve(cells, radius, z, slope, np.ones_like(z)), _cap(cells, -1.0)


def _torus(cells: int) -> Template:
    rows = 2 * max(cells, 2)
    angle = -np.pi / 2 + 2 * np.pi * np.arange(rows + 1) / rows  # starts below, climbs on the outside
    cos, sin = np.cos(angle), np.sin(angle)
    return (_revolve(cells, 1 - TUBE_RADIUS + TUBE_RADIUS * cos, sin, cos, sin * TUBE_RADIUS, closed=True),)


def _capsule(cells: int) -> Template:
    angle = np.pi / 2 * np.arange(cells + 1) / cells
    straight = (1 - CAPSULE_CAP) * _steps(cells)[1:-1]
    radius = np.concatenate([np.sin(angle), np.ones_like(straight), np.cos(angle)])
    cap_z = CAPSULE_CAP * np.sin(angle)
    z = np.concatenate([-(1 - CAPSULE_CAP) - cap_z[::-1], straight, (1 - CAPSULE_CAP) + cap_z])
    normal_z = np.concatenate([-np.cos(angle), np.zeros_like(straight), np.sin(angle)]) / CAPSULE_CAP
    radius[[0, -1]] = 0.0
    return (_revolve(cells, radius, z, radius, normal_z),)


@dataclass(frozen=True)
class Kind:
    """A kind of primitive: how many faces (height fields) it has, and how its template is built.

    ``build`` takes the number of cells along a quarter turn or a cuboid's side.
    """

    faces: int
    build: Callable[[int], Template]


KINDS = {
    "ellipsoid": Kind(1, _ellipsoid),
    "cuboid": Kind(6, _cuboid),
    "cylinder": Kind(3, _cylinder),
    "cone": Kind(2, _cone),
    "torus": Kind(1, _torus),
    "capsule": Kind(1, _capsule),
}
