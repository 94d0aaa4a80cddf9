"""Time to sample one scene and build its meshes, and how much a rendering changes when the tessellation doubles.

Prints two Markdown tables; docs/geometry.md holds measured ones and the conclusions.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import bpy  # noqa: F401  mathutils comes with it
import numpy as np
from common import print_table
from mathutils.bvhtree import BVHTree

from megasynth_attr.core.command.program import Help, parse
from megasynth_attr.core.errors import run_main
from megasynth_attr.core.fields import setting
from megasynth_attr.core.ranges import Uniform
from megasynth_attr.scene.factors.geometry import GeometrySettings, describe, sample_clear_of
from megasynth_attr.scene.frame import intrinsics
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
            pair = [search_tree(curved(replace(geometry, tessellation=n))) for n in (tessellation, 2 * tessellation)]
            for pose in poses(case, options.views):
                (depth_a, id_a), (depth_b, id_b) = [seen(*tree, *pose, case.fov_x_deg) for tree in pair]
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


def search_tree(meshes: list[MeshArrays]) -> tuple[BVHTree, np.ndarray]:
    """Return the faces of all meshes to shoot rays at, and the number of each face's mesh, counted from 1."""
    faces, offset = [], 0
    for mesh in meshes:
        faces += [face.tolist() for face in np.split(mesh.corner_vertices + offset, np.cumsum(mesh.face_sizes)[:-1])]
        offset += len(mesh.vertices)
    vertices = np.concatenate([mesh.vertices for mesh in meshes]).tolist()
    numbers = np.repeat(np.arange(len(meshes)) + 1, [len(mesh.face_sizes) for mesh in meshes])
    return BVHTree.FromPolygons(vertices, faces), numbers


def seen(
    tree: BVHTree, numbers: np.ndarray, eye: np.ndarray, camera_from_world: np.ndarray, fov_x_deg: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the depth and the number of what the ray through each pixel's centre meets first; 0 where nothing is."""
    centres = np.stack([*np.mgrid[:SIZE_PX, :SIZE_PX][::-1] + 0.5, np.ones((SIZE_PX, SIZE_PX))], axis=-1)
    rays = centres.reshape(-1, 3) @ np.linalg.inv(intrinsics(fov_x_deg, SIZE_PX, SIZE_PX)).T @ camera_from_world
    depth, shown = np.zeros(SIZE_PX**2), np.zeros(SIZE_PX**2, dtype=int)
    for pixel, ray in enumerate(rays.tolist()):
        place, _, face, _ = tree.ray_cast(eye.tolist(), ray)
        if place is not None:
            depth[pixel], shown[pixel] = camera_from_world[2] @ np.subtract(place, eye), numbers[face]
    return depth, shown


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
