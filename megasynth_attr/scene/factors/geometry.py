"""The geometry factor: layout, primitives and height fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from megasynth_attr.core.errors import ConfigError, SceneRejected
from megasynth_attr.core.fields import scope, setting, span, variants
from megasynth_attr.scene.cameras import camera_region
from megasynth_attr.scene.factor import Draw, Factor, Records
from megasynth_attr.scene.keepout import CameraRegion, InsideBox
from megasynth_attr.scene.layout import Layout, keepout
from megasynth_attr.scene.layouts import objects, plane, room
from megasynth_attr.scene.layouts.counts import Counts, counts_of, pairs
from megasynth_attr.scene.layouts.fill import fill
from megasynth_attr.scene.mesh import build_meshes
from megasynth_attr.scene.primitives import KINDS
from megasynth_attr.scene.spec import Geometry

LAYOUTS = {"room": room.sample, "objects": objects.sample, "plane": plane.sample}
SURFACE_POINTS = 512  # of the description that the isolation matrix compares
SURFACE_TESSELLATION = 8  # enough for it


def _p(default: float, help: str) -> Any:
    return setting(default, help, minimum=0, maximum=1)


def _size(low: float, high: float, help: str) -> Any:
    return span(low, high, help + " (layout units)", minimum=0.001, maximum=1000)


def _count(low: int, high: int, help: str) -> Any:
    return span(low, high, help, minimum=0, maximum=200)


def _weights(default: tuple[float, ...], what: str) -> Any:
    help = (
        f"weights of the numbers of primitives per {what} box, from fewest to most; spread over the range; empty: equal"
    )
    return setting(default, help, minimum=0)


@dataclass(frozen=True)
class GeometrySettings:
    """Layout, primitives and height fields. Lengths are in layout units: a room is about 20 long."""

    scope: str = scope()
    variants: int = variants()
    layout: str = setting("objects", "arrangement of the boxes", options=list(LAYOUTS))
    layout_trials: int = setting(20, "layouts drawn until one keeps clear of the cameras", minimum=1, maximum=10000)
    box_trials: int = setting(64, "places tried for a box before it is dropped", minimum=1, maximum=10000)
    tessellation: int = setting(
        36, "cells along a cuboid's side; a full turn has 4 times as many", minimum=1, maximum=256
    )

    room_size_xy: tuple[float, float] = _size(17, 30, "room: inner length and width")
    room_size_z: tuple[float, float] = _size(10, 15, "room: inner height")
    room_overlap: float = _p(0.0, "room: tolerated intersection of solid boxes, share of the smaller volume")
    wall_thickness: float = setting(0.2, "room, plane: thickness of floor, ceiling and walls", minimum=0.01, maximum=5)
    objects_size_xy: tuple[float, float] = _size(12, 15, "objects: length and width of the volume")
    objects_size_z: tuple[float, float] = _size(12, 18, "objects: height of the volume")
    objects_overlap: float = _p(0.25, "objects: tolerated intersection of boxes, share of the smaller volume")
    objects_spread: float = _p(0.4, "objects: share of the volume used first; it grows to 1 as places are tried")
    plane_size: tuple[float, float, float] = setting((20.0, 20.0, 12.0), "plane: the room", minimum=1, maximum=1000)
    picture_size: tuple[float, float, float] = setting(
        (0.3, 3.0, 4.0), "plane: depth, width and height of the picture", minimum=0.001, maximum=1000
    )

    large_count: tuple[int, ...] = setting(
        (), "large boxes [fewest, most]; empty: [2,5] in a room, [3,6] objects", minimum=0, maximum=200
    )
    large_size_xy: tuple[float, float] = _size(4, 8, "large: length and width")
    large_size_z: tuple[float, float] = _size(4, 8, "large: height")
    small_count: tuple[int, ...] = setting(
        (), "small boxes [fewest, most]; empty: [4,8] in a room, [3,6] objects", minimum=0, maximum=200
    )
    small_on_large: float = _p(0.5, "room: probability that a small box stands on a large one")
    small_size_xy: tuple[float, float] = _size(2, 4, "small: length and width")
    small_size_z: tuple[float, float] = _size(2, 6, "small: height")
    small_top_size_z: tuple[float, float] = _size(2, 4, "small: height on a large box")
    roof_count: tuple[int, int] = _count(2, 4, "room: boxes that hang from the ceiling")
    roof_size_xy: tuple[float, float] = _size(2, 5, "roof: length and width")
    roof_thin: float = _p(0.5, "roof: probability of a thin one")
    roof_thin_z: tuple[float, float] = _size(0.5, 3, "roof: height of a thin one")
    roof_thick_z: tuple[float, float] = _size(2, 4, "roof: height otherwise")
    wall_count: tuple[int, int] = _count(3, 6, "room: boxes that touch a wall")
    wall_thin: float = _p(0.5, "wall: probability of a thin one")
    wall_thin_depth: tuple[float, float] = _size(0.5, 2, "wall: depth of a thin one")
    wall_thick_depth: tuple[float, float] = _size(1, 6, "wall: depth otherwise")
    wall_size_along: tuple[float, float] = _size(2, 5, "wall: length along the wall")
    wall_size_z: tuple[float, float] = _size(2, 5, "wall: height")
    frame_probability: float = _p(0.8, "room: probability of wireframes")
    frame_count: tuple[int, int] = _count(1, 3, "frame: boxes, if any")
    frame_size: tuple[float, float] = _size(3, 6, "frame: each side")
    frame_strut_width: float = setting(0.1, "frame: section of a strut (layout units)", minimum=0.001, maximum=2)
    slab_probability: float = _p(0.7, "room: probability of slabs")
    slab_count: tuple[int, int] = _count(1, 2, "slab: number, if any")
    slab_size: tuple[float, float] = _size(2, 5, "slab: both long sides")
    slab_thin: float = _p(0.5, "slab: probability of a thin one")
    slab_thin_size: tuple[float, float] = _size(0.01, 0.2, "slab: thickness of a thin one")
    slab_thick_size: tuple[float, float] = _size(0.5, 1, "slab: thickness otherwise")
    slab_glass: float = _p(0.8, "slab: probability that a thin one is glass")
    wall_stick_count: tuple[int, int] = _count(5, 16, "room: sticks on the walls")
    wall_stick_section: tuple[float, float] = _size(0.1, 0.8, "wall stick: both sides of its section")
    stick_length: tuple[float, float] = span(
        0.25, 0.5, "stick: length, share of the room along it", minimum=0.001, maximum=1
    )
    stick_probability: float = _p(0.5, "room: probability of sticks in space")
    stick_count: tuple[int, int] = _count(2, 6, "stick in space: number, if any")
    stick_section: tuple[float, float] = _size(0.1, 0.6, "stick in space: both sides of its section")
    window_probability: float = _p(0.8, "room: probability of a window in one wall")
    window_width: tuple[float, float] = span(0.2, 0.6, "window: share of the wall's length", minimum=0.01, maximum=0.9)
    window_height: tuple[float, float] = span(0.2, 0.6, "window: share of the wall's height", minimum=0.01, maximum=0.9)
    window_glass: float = _p(0.5, "window: probability of a glass pane")
    window_fence: float = _p(0.5, "window: probability of bars")
    window_bar_count: tuple[int, int] = span(3, 8, "window: bars of a fence", minimum=1, maximum=100)
    window_bar_width: tuple[float, float] = _size(0.1, 0.3, "window: width of a bar")
    window_free_depth: float = setting(
        0.5, "window: space before it without boxes (layout units)", minimum=0, maximum=100
    )

    large_primitives: tuple[int, int] = span(4, 8, "primitives per large box", minimum=1, maximum=64)
    large_primitive_weights: tuple[float, ...] = _weights((5.0, 7.0, 10.0, 7.0, 5.0), "large")
    small_primitives: tuple[int, int] = span(2, 5, "primitives per small box", minimum=1, maximum=64)
    small_primitive_weights: tuple[float, ...] = _weights((2.0, 3.0, 2.0, 1.0), "small")
    roof_primitives: tuple[int, int] = span(2, 5, "primitives per roof box", minimum=1, maximum=64)
    roof_primitive_weights: tuple[float, ...] = _weights((2.0, 3.0, 2.0, 1.0), "roof")
    wall_primitives: tuple[int, int] = span(2, 5, "primitives per wall box", minimum=1, maximum=64)
    wall_primitive_weights: tuple[float, ...] = _weights((2.0, 3.0, 2.0, 1.0), "wall")
    frame_primitives: tuple[int, int] = span(1, 3, "primitives per frame box", minimum=1, maximum=64)
    frame_primitive_weights: tuple[float, ...] = _weights((2.0, 1.0, 1.0), "frame")
    grid_box_max: tuple[int, ...] = setting(
        (), "grid over datasets: most large and most small boxes, e.g. [3,5,7]; empty: no grid", minimum=1, maximum=200
    )
    grid_primitives: tuple[int, ...] = setting(
        (),
        "grid over datasets: primitives per large box, pairs in a flat list, e.g. [1,3,4,6,7,9]",
        minimum=1,
        maximum=64,
    )
    kind_weights: dict[str, float] = setting(  # noqa: RUF009  a field with a default_factory
        {"ellipsoid": 1.0, "cuboid": 1.0, "cylinder": 1.0, "cone": 0.0, "torus": 0.0, "capsule": 0.0},
        "weight of each kind of primitive, e.g. geometry.kind_weights.torus=1",
    )
    half_axis: tuple[float, float] = span(
        0.25, 2.0, "each half-axis of a primitive before its box stretches it", minimum=0.01, maximum=100
    )
    flat_probability: float = _p(0.1, "height field: probability that a face stays flat")
    relief: float = setting(
        0.6, "height field: largest control height, share of the smallest axis", minimum=0, maximum=2
    )

    def validate(self, name: str, factors: Mapping[str, Any]) -> None:
        """Raise ConfigError for values that do not fit each other."""
        for key in ("large_count", "small_count"):
            value = getattr(self, key)
            if value and (len(value) != 2 or value[0] > value[1]):
                raise ConfigError(f"{name}.{key}={list(value)}: write [fewest, most], or [] for the layout's default")
        for field in dataclasses.fields(self):
            if field.name.endswith("_primitive_weights") and not _some_weight(getattr(self, field.name) or (1.0,)):
                raise ConfigError(f"{name}.{field.name}: at least one weight must be positive")
        if unknown := sorted(set(self.kind_weights) - set(KINDS)):
            raise ConfigError(f"{name}.kind_weights.{unknown[0]}: unknown kind; known: {', '.join(KINDS)}")
        if not _some_weight(tuple(self.kind_weights.values())):
            raise ConfigError(f"{name}.kind_weights: weights must be finite and not negative, at least one positive")
        grid = self.grid_primitives
        if bool(self.grid_box_max) != bool(grid) or len(grid) % 2 or any(a > b for a, b in pairs(grid)):
            raise ConfigError(
                f"{name}.grid_box_max={list(self.grid_box_max)}, {name}.grid_primitives={list(grid)}: "
                "set both or neither, and the second as low, high, low, high, ..., e.g. [1,3,4,6,7,9]"
            )
        if any(p > r for p, r in zip(self.picture_size, self.plane_size, strict=True)):
            raise ConfigError(f"{name}.picture_size={list(self.picture_size)}: larger than {name}.plane_size")


def _some_weight(weights: tuple[float, ...]) -> bool:
    return all(0 <= w < np.inf for w in weights) and sum(weights) > 0


def sample(rng: np.random.Generator, settings: GeometrySettings, draw: Draw) -> Geometry:
    """Return a Geometry that keeps clear of where cameras may be; SceneRejected if none is found."""
    camera = draw.configs["camera"]
    return sample_clear_of(rng, settings, camera_region(camera), camera.clearance, draw.dataset_index)


def sample_clear_of(
    rng: np.random.Generator,
    settings: GeometrySettings,
    region: CameraRegion | None,
    clearance: float,
    dataset_index: int = 0,
) -> Geometry:
    """Return a Geometry no point of which is closer than ``clearance`` (scene units) to the camera region.

    Layouts are drawn, from the same generator, until one fulfils that; SceneRejected after ``layout_trials``.
    """
    counts = counts_of(settings, dataset_index)
    for attempt in range(1, settings.layout_trials + 1):
        layout = draw_layout(rng, settings, counts, region, clearance)
        if not layout.items:
            continue
        geometry = fill(rng, settings, layout, counts, attempt)
        if is_clear(geometry, region, clearance):
            return geometry
    raise SceneRejected(
        f"geometry: no layout left {clearance} scene units to the cameras ({region}) in "
        f"{settings.layout_trials} attempts; lower counts, sizes or camera.clearance, or raise layout_trials"
    )


def draw_layout(
    rng: np.random.Generator, settings: GeometrySettings, counts: Counts, region: CameraRegion | None, clearance: float
) -> Layout:
    """Return one layout; where its scale is known beforehand (room), its boxes already avoid the camera region."""
    return LAYOUTS[settings.layout](rng, settings, counts, lambda low, high: keepout(region, clearance, low, high))


def is_clear(geometry: Geometry, region: CameraRegion | None, clearance: float) -> bool:
    """Return whether all geometry is at least ``clearance`` (scene units) away from the camera region."""
    if region is None:
        return True
    centres = (np.array([b.centre for b in geometry.boxes]) - geometry.centre) * geometry.scale
    sizes = np.array([b.size for b in geometry.boxes]) * geometry.scale
    if isinstance(region, InsideBox):  # boxes contain their meshes; vertices alone would miss a large face
        return bool((region.box_distance(centres, sizes) >= clearance).all())
    reach = np.abs(centres) + sizes / 2  # farthest corners; the ball is convex, so vertices decide for faces
    if (region.distance(reach) >= clearance).all():
        return True
    return all((region.distance(m.vertices) >= clearance).all() for m in build_meshes(geometry, None))


def describe(geometry: Geometry, records: Records) -> np.ndarray:
    """Return 512×3 points of the whole surface, area-weighted, scene units; deterministic (golden-ratio sequences)."""
    coarse = replace(geometry, tessellation=min(geometry.tessellation, SURFACE_TESSELLATION))
    triangles = np.concatenate(
        [_triangles(m.vertices, m.corner_vertices, m.face_sizes) for m in build_meshes(coarse, None)]
    )
    triangles = triangles.astype(np.float64)  # (T, 3 corners, 3)
    cross = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    area = np.cumsum(np.linalg.norm(cross, axis=1))
    index = np.arange(SURFACE_POINTS)
    chosen = triangles[np.searchsorted(area, (index + 0.5) / SURFACE_POINTS * area[-1])]
    plastic = 1.324717957244746  # R2 sequence: powers of 1/plastic fill the square evenly
    u, v = (index / plastic) % 1, (index / plastic**2) % 1
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    return chosen[:, 0] + u[:, None] * (chosen[:, 1] - chosen[:, 0]) + v[:, None] * (chosen[:, 2] - chosen[:, 0])


def _triangles(vertices: np.ndarray, corner_vertices: np.ndarray, face_sizes: np.ndarray) -> np.ndarray:
    """Return T×3×3 triangle corners; quads are split along their first diagonal."""
    starts = np.cumsum(face_sizes) - face_sizes
    second = starts[face_sizes == 4]
    index = np.concatenate([starts[:, None] + [0, 1, 2], second[:, None] + [0, 2, 3]])
    return vertices[corner_vertices[index]]


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the symmetric mean Chamfer distance of two N×3 point samples (scene units)."""
    return float((np.mean(cKDTree(a).query(b)[0]) + np.mean(cKDTree(b).query(a)[0])) / 2)


FACTOR = Factor(
    name="geometry",
    order=10,
    settings=GeometrySettings,
    data=Geometry,
    sample=sample,
    describe=describe,
    distance=distance,
    changes_depth=True,
    optional=False,
)
