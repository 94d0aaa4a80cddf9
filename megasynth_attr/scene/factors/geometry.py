"""The geometry factor: layout, primitives and height fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy

from megasynth_attr.core.errors import SceneRejected
from megasynth_attr.core.fields import scope, setting, variants
from megasynth_attr.scene.factor import Draw, Factor, Records
from megasynth_attr.scene.factors.camera import camera_region
from megasynth_attr.scene.keepout import CameraRegion, InsideBox, OutsideBall
from megasynth_attr.scene.layout import Layout, keepout
from megasynth_attr.scene.layouts import objects, plane, room, scan
from megasynth_attr.scene.layouts.counts import Counts, counts_of
from megasynth_attr.scene.layouts.fill import FillSettings, fill
from megasynth_attr.scene.layouts.objects import ObjectsSettings
from megasynth_attr.scene.layouts.plane import PlaneSettings
from megasynth_attr.scene.layouts.room import RoomSettings
from megasynth_attr.scene.layouts.scan import ScanSettings
from megasynth_attr.scene.mesh import build_meshes
from megasynth_attr.scene.spec import Geometry

LAYOUTS: dict[str, Any] = {"room": room, "objects": objects, "plane": plane}  # of boxes
SCAN = "scan"  # the layout that shows a mesh instead
SURFACE_POINTS = 512  # of the description that the isolation matrix compares
SURFACE_TESSELLATION = 8  # enough for that description


@dataclass(frozen=True)
class LayoutSettings:
    """How often geometry is drawn, and which layout."""

    scope: str = scope()
    variants: int = variants()
    layout: str = setting("objects", "arrangement of the boxes; scan: a mesh file", options=[*LAYOUTS, SCAN])
    layout_trials: int = setting(20, "layouts tried until one keeps clear of the cameras", minimum=1, maximum=10000)


# each part of the geometry declares its own settings; their keys come in the order of the bases, last one first
@dataclass(frozen=True)
class GeometrySettings(ScanSettings, FillSettings, PlaneSettings, ObjectsSettings, RoomSettings, LayoutSettings):
    """Layout, primitives and height fields. Lengths are in layout units: a room is about 20 long."""

    def validate(self, name: str, factors: Mapping[str, Any]) -> None:
        """Raise ConfigError for values that do not fit each other."""
        self.check_counts(name)
        self.check_kinds(name)
        self.check_picture(name)
        self.check_scan(name, self.layout)


def sample(rng: np.random.Generator, settings: GeometrySettings, draw: Draw) -> Geometry:
    """Return a Geometry that keeps clear of where cameras may be; SceneRejected if none is found."""
    camera = draw.configs["camera"]
    if settings.layout == SCAN:
        return _sample_scan(settings, draw, camera_region(camera), camera.clearance)
    return sample_clear_of(rng, settings, camera_region(camera), camera.clearance, draw.dataset_index)


def _sample_scan(settings: GeometrySettings, draw: Draw, region: CameraRegion | None, clearance: float) -> Geometry:
    geometry, reach = scan.sample(settings, draw)
    if isinstance(region, OutsideBall) and region.radius - reach < clearance:
        assert geometry.scan is not None
        raise SceneRejected(
            f"the mesh {geometry.scan.name} reaches {reach:.3f} scene units from the centre, so cameras from "
            f"{region.radius:.3f} do not keep {clearance:g} away; raise camera.distance or lower camera.clearance"
        )
    return geometry


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
    kind = LAYOUTS[settings.layout]
    counts = counts_of(settings, kind.LARGE, kind.SMALL, dataset_index)
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
    kind = LAYOUTS[settings.layout]
    return kind.sample(rng, settings, counts, lambda low, high: keepout(region, clearance, low, high))


def is_clear(geometry: Geometry, region: CameraRegion | None, clearance: float) -> bool:
    """Return whether all geometry is at least ``clearance`` (scene units) away from the camera region."""
    if region is None:
        return True
    centres = (np.array([b.centre for b in geometry.boxes]) - geometry.centre) * geometry.scale
    sizes = np.array([b.size for b in geometry.boxes]) * geometry.scale
    if isinstance(region, InsideBox):  # boxes contain their meshes; vertices alone would miss a large face
        return bool((region.distance(centres, sizes) >= clearance).all())
    reach = np.abs(centres) + sizes / 2  # farthest corners; the ball is convex, so vertices decide for faces
    if (region.distance(reach) >= clearance).all():
        return True
    return all((region.distance(m.vertices) >= clearance).all() for m in build_meshes(geometry, None))


def describe(geometry: Geometry, records: Records) -> np.ndarray:
    """Return 512×3 points of the whole surface, area-weighted, scene units; deterministic (golden-ratio sequences)."""
    if geometry.scan is not None:
        corners = records.scans[geometry.scan.name].triangles()
        triangles = scan.to_scene(corners.reshape(-1, 3), geometry).reshape(-1, 3, 3)
    else:
        triangles = _primitive_triangles(geometry)
    cross = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    area = np.cumsum(np.linalg.norm(cross, axis=1))
    index = np.arange(SURFACE_POINTS)
    chosen = triangles[np.searchsorted(area, (index + 0.5) / SURFACE_POINTS * area[-1])]
    plastic = 1.324717957244746  # R2 sequence: powers of 1/plastic fill the square evenly
    u, v = (index / plastic) % 1, (index / plastic**2) % 1
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    return chosen[:, 0] + u[:, None] * (chosen[:, 1] - chosen[:, 0]) + v[:, None] * (chosen[:, 2] - chosen[:, 0])


def _primitive_triangles(geometry: Geometry) -> np.ndarray:
    """Return T×3×3 corners of all primitives, coarsely."""
    coarse = replace(geometry, tessellation=min(geometry.tessellation, SURFACE_TESSELLATION))
    parts = [_triangles(m.vertices, m.corner_vertices, m.face_sizes) for m in build_meshes(coarse, None)]
    return np.concatenate(parts).astype(np.float64)


def _triangles(vertices: np.ndarray, corner_vertices: np.ndarray, face_sizes: np.ndarray) -> np.ndarray:
    """Return T×3×3 triangle corners; quads are split along their first diagonal."""
    starts = np.cumsum(face_sizes) - face_sizes
    second = starts[face_sizes == 4]
    index = np.concatenate([starts[:, None] + [0, 1, 2], second[:, None] + [0, 2, 3]])
    return vertices[corner_vertices[index]]


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the symmetric mean Chamfer distance of two N×3 point samples (scene units)."""
    there, back = (np.mean(scipy.spatial.cKDTree(of).query(to)[0]) for of, to in ((a, b), (b, a)))
    return float((there + back) / 2)


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
