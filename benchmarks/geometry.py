"""Time of sampling one scene and building its meshes, and how much a rendering changes when tessellation doubles.

python benchmarks/geometry.py [--scenes 3] [--tessellation 24,36] [--views 1]

Measured on one core of a shared x86-64 server (NumPy 1.26), tessellation 36 (the default), 4 scenes of each:

                             primitives  vertices   sample     build meshes   describe
objects                       40 (≤ 55)      354k     9 ms   148 ms (≤ 176)      20 ms
objects, largest grid cell    63 (≤ 64)      555k    12 ms   185 ms (≤ 213)      24 ms
room                          87 (≤ 99)      569k    11 ms   189 ms (≤ 220)      39 ms

Pixels of a 518 px view that change when tessellation doubles, from the nearest default orbit with the narrowest field
of view (a pixel changes if it shows another primitive or its depth moves by more than 1 %), mean (largest view):

                                   24 → 48          30 → 60          36 → 72
objects                      0.80 (1.47) %    0.84 (2.16) %    0.37 (0.53) %
objects, largest grid cell   0.66 (0.92) %    0.47 (0.67) %    0.31 (0.41) %
room                         0.15 (0.26) %    0.10 (0.22) %    0.08 (0.14) %
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from megasynth_attr.core.ranges import Uniform
from megasynth_attr.scene.factors.geometry import GeometrySettings, describe, sample_clear_of
from megasynth_attr.scene.keepout import CameraRegion, InsideBox, OutsideBall
from megasynth_attr.scene.mesh import MeshArrays, build_meshes, is_plain_box
from megasynth_attr.scene.spec import Geometry

SIZE_PX = 518
DEPTH_CHANGE = 0.01  # a pixel has changed if it shows another primitive, or its depth moved by more than this share


@dataclass(frozen=True)
class Case:
    name: str
    settings: GeometrySettings
    region: CameraRegion
    eye_distance: float  # of the views, scene units from the origin
    fov_x_deg: float


CASES = (
    Case("objects", GeometrySettings(layout="objects"), OutsideBall(2.2), 2.2, 45.0),
    Case(
        "objects, largest grid cell",
        GeometrySettings(layout="objects", grid_box_max=(7,), grid_primitives=(7, 9), large_count=Uniform(7, 7)),
        OutsideBall(2.2),
        2.2,
        45.0,
    ),
    Case("room", GeometrySettings(layout="room"), InsideBox((0.23, 0.23, 0.1)), 0.2, 60.0),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=3)
    parser.add_argument("--tessellation", default="24,36", help="values whose doubling is measured")
    parser.add_argument("--views", type=int, default=1, help="views per scene for that; 0: times only")
    arguments = parser.parse_args()
    for case in CASES:
        print_times(case, arguments.scenes)
    if arguments.views:
        for case in CASES:
            print_changes(case, arguments.scenes, [int(n) for n in arguments.tessellation.split(",")], arguments.views)


def print_times(case: Case, scenes: int) -> None:
    rows = []
    for seed in range(scenes):
        start = time.perf_counter()
        geometry = sample_clear_of(np.random.default_rng(seed), case.settings, case.region, 0.1)
        sampled = time.perf_counter()
        meshes = build_meshes(geometry, 4.0)
        built = time.perf_counter()
        describe(geometry, None)  # type: ignore[arg-type]  # geometry needs no records
        described = time.perf_counter()
        vertices = sum(len(m.vertices) for m in meshes)
        times = (sampled - start, built - sampled, described - built)
        rows.append((len(meshes), vertices, geometry.dropped_boxes, *times))
    mean, most = np.mean(rows, axis=0), np.max(rows, axis=0)
    print(
        f"{case.name:27s} primitives {mean[0]:5.1f} (max {most[0]:.0f})  vertices {mean[1] / 1e3:5.0f}k  "
        f"dropped {mean[2]:.1f}  sample {mean[3] * 1e3:4.0f} ms (max {most[3] * 1e3:.0f})  "
        f"mesh {mean[4] * 1e3:4.0f} ms (max {most[4] * 1e3:.0f})  describe {mean[5] * 1e3:4.0f} ms"
    )


def print_changes(case: Case, scenes: int, tessellations: list[int], views: int) -> None:
    changed: dict[int, list[float]] = {n: [] for n in tessellations}
    for seed in range(scenes):
        geometry = sample_clear_of(np.random.default_rng(seed), case.settings, case.region, 0.1)
        for tessellation in tessellations:
            pair = [curved(replace(geometry, tessellation=n)) for n in (tessellation, 2 * tessellation)]
            for world_from_camera in poses(case, views):
                (depth_a, id_a), (depth_b, id_b) = [rasterise(m, *world_from_camera, case.fov_x_deg) for m in pair]
                moved = np.abs(depth_a - depth_b) > DEPTH_CHANGE * depth_a
                changed[tessellation].append(float(((id_a != id_b) | moved).mean()))
    shares = "  ".join(
        f"{n}→{2 * n}: {100 * np.mean(c):.2f} % (max {100 * np.max(c):.2f} %)" for n, c in changed.items()
    )
    print(f"{case.name:27s} changed pixels of {SIZE_PX}²: {shares}")


def curved(geometry: Geometry) -> list[MeshArrays]:
    """Return the meshes that depend on the tessellation (plain boxes and struts do not)."""
    meshes = build_meshes(geometry, None)
    return [m for m, p in zip(meshes, geometry.primitives, strict=True) if not (p.wireframe or is_plain_box(p))]


def poses(case: Case, views: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (camera centre, camera-from-world rotation): views around the scene, or outwards from within a room."""
    for azimuth in np.linspace(0, 2 * np.pi, views, endpoint=False) + 0.3:
        eye = case.eye_distance * np.array([np.cos(azimuth), np.sin(azimuth), 0.3])
        forward = -eye / np.linalg.norm(eye)
        right = np.cross(forward, [0, 0, 1])
        right = right / np.linalg.norm(right)
        yield eye, np.stack([right, np.cross(forward, right), forward])


def rasterise(
    meshes: list[MeshArrays], eye: np.ndarray, camera_from_world: np.ndarray, fov_x_deg: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return (depth, id) images: a z-buffer at pixel centres; triangles that cross the camera's plane are left out."""
    triangles, ids = [], []
    for index, mesh in enumerate(meshes):
        starts = np.cumsum(mesh.face_sizes) - mesh.face_sizes
        quads = starts[mesh.face_sizes == 4]
        corners = np.concatenate([starts[:, None] + [0, 1, 2], quads[:, None] + [0, 2, 3]])
        triangles.append(mesh.vertices[mesh.corner_vertices[corners]])
        ids.append(np.full(len(corners), index + 1))
    points = (np.concatenate(triangles).astype(np.float64) - eye) @ camera_from_world.T
    number = np.concatenate(ids)
    visible = (points[..., 2] > 1e-3).all(axis=1)
    points, number = points[visible], number[visible]
    focal_px = SIZE_PX / 2 / np.tan(np.radians(fov_x_deg) / 2)
    pixels = points[..., :2] / points[..., 2:] * focal_px + SIZE_PX / 2
    first = np.ceil(pixels.min(axis=1) - 0.5).clip(0, SIZE_PX).astype(int)
    last = np.floor(pixels.max(axis=1) - 0.5).clip(-1, SIZE_PX - 1).astype(int)
    extent = (last - first + 1).max(axis=1) * ((last >= first).all(axis=1))
    depth, shown = np.full(SIZE_PX**2, np.inf), np.zeros(SIZE_PX**2, dtype=int)
    hits = []
    for side in (2**k for k in range(11)):  # triangles of similar size together
        for chunk in np.array_split(np.flatnonzero((extent > side // 2) & (extent <= side)), 1 + len(extent) // 50_000):
            for y in range(side if len(chunk) else 0):
                hits.append(_row(points[chunk], pixels[chunk], first[chunk], y, side, number[chunk]))
    for at, z, _ in hits:
        np.minimum.at(depth, at, z)
    for at, z, owner in hits:
        shown[at[z == depth[at]]] = owner[z == depth[at]]
    return np.where(shown, depth, 0).reshape(SIZE_PX, -1), shown.reshape(SIZE_PX, -1)


def _row(
    points: np.ndarray, pixels: np.ndarray, first: np.ndarray, y: int, side: int, number: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (pixel index, depth, id) where row ``y`` of each triangle's bounding square is covered."""
    column, row = first[:, 0, None] + np.arange(side), np.broadcast_to(first[:, 1, None] + y, (len(first), side))
    at = np.stack([column + 0.5, row + 0.5], axis=-1)  # (T, side, 2)

    def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]

    a, b, c = (pixels[:, k, None] for k in range(3))
    area = cross(b - a, c - a)
    area = np.where(area == 0, np.nan, area)
    weights = np.stack([cross(c - b, at - b), cross(a - c, at - c), cross(b - a, at - a)]) / area  # (3, T, side)
    inverse = (weights / points[:, :, 2].T[:, :, None]).sum(axis=0)  # 1/z is linear in the image
    inside = (weights >= 0).all(axis=0) & (column < SIZE_PX) & (row < SIZE_PX)
    which = np.broadcast_to(number[:, None], inside.shape)
    return (row * SIZE_PX + column)[inside], 1 / inverse[inside], which[inside]


if __name__ == "__main__":
    main()
