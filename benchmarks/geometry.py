"""Time to sample one scene and build its meshes, and how much a rendering changes when the tessellation doubles.

Prints two Markdown tables; docs/geometry.md holds measured ones and the conclusions.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from common import print_table

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import run_main
from megasynth_attr.core.fields import setting
from megasynth_attr.core.ranges import Uniform
from megasynth_attr.scene.factors.geometry import GeometrySettings, describe, sample_clear_of
from megasynth_attr.scene.keepout import CameraRegion, InsideBox, OutsideBall
from megasynth_attr.scene.mesh import MeshArrays, build_meshes, is_plain_box
from megasynth_attr.scene.spec import Geometry

SIZE_PX = 518
DEPTH_CHANGE = 0.01  # a pixel has changed if it shows another primitive, or its depth moved by more than this share


@dataclass(frozen=True)
class Case:
    """One kind of scene, and its viewpoints."""

    settings: GeometrySettings
    region: CameraRegion
    eye_distance: float  # of the views, scene units from the origin
    fov_x_deg: float


CASES = {
    "objects": Case(GeometrySettings(layout="objects"), OutsideBall(2.2), 2.2, 45.0),
    "objects, largest grid cell": Case(
        GeometrySettings(layout="objects", grid_box_max=(7,), grid_primitives=(7, 9), large_count=Uniform(7, 7)),
        OutsideBall(2.2),
        2.2,
        45.0,
    ),
    "room": Case(GeometrySettings(layout="room"), InsideBox((0.23, 0.23, 0.1)), 0.2, 60.0),
}
HELP = Help(
    usage="python benchmarks/geometry.py [key=value ...]",
    explanation="Times sampling a scene and building its meshes, and measures what doubling the tessellation changes.",
    examples=("python benchmarks/geometry.py scenes=4 views=1 tessellation=[24,36]",),
)


@dataclass(frozen=True)
class Options:
    """What is measured."""

    scenes: int = setting(3, "scenes of each case", minimum=1)
    tessellation: tuple[int, ...] = setting((24, 36), "values whose doubling is measured", minimum=1)
    views: int = setting(1, "views per scene for the tessellation table; 0: times only", minimum=0)


def main(words: list[str]) -> None:
    """Measure and print."""
    options = parse(Options, words, HELP)
    head = "primitives, mean (most) | vertices | dropped | sample, mean (slowest) | build meshes | describe"
    print_table("scenes", head, [(name, *times(case, options.scenes)) for name, case in CASES.items()])
    if options.views:
        head = " | ".join(f"{n} → {2 * n}" for n in options.tessellation)
        rows = [(name, *changes(case, options)) for name, case in CASES.items()]
        print_table(f"changed pixels of {SIZE_PX}², mean (largest view)", head, rows)


def geometry_of(case: Case, seed: int) -> Geometry:
    """Return the geometry of one scene of a case."""
    return sample_clear_of(np.random.default_rng(seed), case.settings, case.region, 0.1)


def times(case: Case, scenes: int) -> list[str]:
    """Return a row of the first table: sizes, and milliseconds of every step."""
    rows = []
    for seed in range(scenes):
        start = time.perf_counter()
        geometry = geometry_of(case, seed)
        sampled = time.perf_counter()
        meshes = build_meshes(geometry, 4.0)
        built = time.perf_counter()
        describe(geometry, None)  # type: ignore[arg-type]  # geometry needs no records
        seconds = np.diff([start, sampled, built, time.perf_counter()])
        rows.append((len(meshes), sum(len(m.vertices) for m in meshes) / 1e3, geometry.dropped_boxes, *seconds * 1e3))
    units = ("", " k", "", " ms", " ms", " ms")
    numbers = zip(np.mean(rows, axis=0), np.max(rows, axis=0), units, strict=True)
    return [f"{mean:.0f} ({most:.0f}){unit}" for mean, most, unit in numbers]


def changes(case: Case, options: Options) -> list[str]:
    """Return a row of the second table: the share of the pixels that change when each tessellation doubles."""
    changed: dict[int, list[float]] = {n: [] for n in options.tessellation}
    for seed in range(options.scenes):
        geometry = geometry_of(case, seed)
        for tessellation, shares in changed.items():
            pair = [curved(replace(geometry, tessellation=n)) for n in (tessellation, 2 * tessellation)]
            for pose in poses(case, options.views):
                (depth_a, id_a), (depth_b, id_b) = [rasterise(meshes, *pose, case.fov_x_deg) for meshes in pair]
                moved = np.abs(depth_a - depth_b) > DEPTH_CHANGE * depth_a
                shares.append(100 * float(((id_a != id_b) | moved).mean()))
    return [f"{np.mean(shares):.2f} ({np.max(shares):.2f}) %" for shares in changed.values()]


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
    hits = []
    for side in (2**k for k in range(11)):  # triangles of similar size together
        for chunk in np.array_split(np.flatnonzero((extent > side // 2) & (extent <= side)), 1 + len(extent) // 50_000):
            for y in range(side if len(chunk) else 0):
                hits.append(_row(points[chunk], pixels[chunk], first[chunk], y, side, number[chunk]))
    at, z, owner = map(np.concatenate, zip(*hits, strict=True))
    order = np.argsort(-z, kind="stable")  # the nearest is written last
    depth, shown = np.zeros(SIZE_PX**2), np.zeros(SIZE_PX**2, dtype=int)
    depth[at[order]], shown[at[order]] = z[order], owner[order]
    return depth.reshape(SIZE_PX, -1), shown.reshape(SIZE_PX, -1)


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
    sys.exit(run_main(main, sys.argv[1:]))
