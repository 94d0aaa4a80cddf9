"""Mesh files, read by Blender's own importers, and put where the scene file says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from megasynth_attr.blender import compat
from megasynth_attr.blender.blender_scene import BlenderScene
from megasynth_attr.blender.meshes import UV_LAYER
from megasynth_attr.core.errors import DatasetError, SceneRejected
from megasynth_attr.scene.layouts.scan import file_rotation
from megasynth_attr.scene.scans import ScanRecord
from megasynth_attr.scene.spec import Geometry, ScanRef

SAME_SIZE = 1e-3  # largest deviation from the bounding box in the scene file, scene units
TILES_PER_UNIT = 0.5  # of a bank's texture: one tile along the longest side


def add_scan(stage: BlenderScene, geometry: Geometry, scan: ScanRef, tiles_per_unit: float | None) -> None:
    """Fill ``stage.primitives`` with the objects of the scan's file; all have the instance id 1.

    A bank's texture is projected along the nearest axis, ``tiles_per_unit`` tiles a scene unit. Raises SceneRejected
    for a file that has changed or that Blender reads differently, DatasetError for one that was not given.
    """
    path = stage.assets.scans.get(scan.name)
    if path is None:
        raise DatasetError(
            f"the mesh {scan.name} of scene {stage.scene.name} was not given; check geometry.scan_folder"
        )
    own_materials = geometry.primitives[0].surface == "own"
    if ScanRecord(scan.name, Path(path)).sha256(own_materials=own_materials) != scan.sha256:
        raise SceneRejected(
            f"the mesh {path} or a file it shows has changed since scene {stage.scene.name} was sampled (the SHA-256 "
            "differs); restore it, or render the scene anew"
        )
    # Blender turns glTF's y-up axes to z-up while it reads
    world_from_read = file_rotation(geometry)
    if path.lower().endswith(".glb"):
        world_from_read = world_from_read @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for body in _imported(stage, path):
        points = _place(body, world_from_read, geometry)
        low, high = np.minimum(low, points.min(axis=0)), np.maximum(high, points.max(axis=0))
        if not own_materials:
            _project_uv(body.data, points, tiles_per_unit or TILES_PER_UNIT)
        body.pass_index = 1
        stage.primitives.append(body)
    half = np.array(geometry.boxes[0].size) / 2 * geometry.scale
    if not stage.primitives or max(np.abs(high - half).max(), np.abs(low + half).max()) > SAME_SIZE:
        raise SceneRejected(
            f"Blender {stage.bpy.app.version_string} reads the mesh {path} with another size or place than the file "
            "says; apply its modifiers, armatures and animations and export it again"
        )


def _imported(stage: BlenderScene, path: str) -> list[Any]:
    """Return the mesh objects of a file that have faces, each with a mesh and a world matrix of its own."""
    bpy = stage.bpy
    before = set(bpy.data.objects)
    try:
        compat.import_mesh(bpy, path)
    except RuntimeError as error:
        lines = str(error).splitlines()  # of a traceback where the importer is written in Python
        said = next((line.strip() for line in reversed(lines) if "Error" in line), str(error))
        raise SceneRejected(f"Blender {bpy.app.version_string} cannot read the mesh {path} ({said})") from error
    bpy.context.view_layer.update()
    added = [body for body in bpy.data.objects if body not in before]
    bodies = [body for body in added if body.type == "MESH" and len(body.data.polygons)]
    for body in bodies:
        if body.modifiers or body.data.shape_keys:
            raise SceneRejected(
                f"the mesh {path} moves: it has an armature, modifiers or shape keys; apply them and export it again"
            )
        world = body.matrix_world.copy()
        body.data = body.data.copy()
        body.data.transform(world)
        if world.is_negative:
            body.data.flip_normals()
        body.parent = None
    for body in set(added) - set(bodies):  # empties, lamps, cameras
        bpy.data.objects.remove(body)
    for body in bodies:
        if body.name not in stage.collection.objects:
            stage.collection.objects.link(body)
    return bodies


def _place(body: Any, world_from_read: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Move a mesh to its place and return its faces' corners (N×3, scene units, world).

    The quarter turns go into the object's matrix, which is exact; centre and scale into the vertices.
    """
    from mathutils import Matrix

    points = np.empty(3 * len(body.data.vertices), np.float32)
    body.data.vertices.foreach_get("co", points)
    centre = np.array(geometry.centre) @ world_from_read
    placed = ((points.reshape(-1, 3).astype(np.float64) - centre) * geometry.scale).astype(np.float32)
    body.data.vertices.foreach_set("co", placed.ravel())
    body.data.update()
    body.matrix_world = Matrix(world_from_read.tolist()).to_4x4()
    corners = np.empty(len(body.data.loops), np.int32)
    body.data.loops.foreach_get("vertex_index", corners)
    return placed[corners] @ world_from_read.T


def _project_uv(mesh: Any, points: np.ndarray, tiles_per_unit: float) -> None:
    """Replace the uv of a mesh by the two coordinates across each face's largest normal component, never mirrored."""
    sizes = np.empty(len(mesh.polygons), np.int32)
    mesh.polygons.foreach_get("loop_total", sizes)
    starts = np.cumsum(sizes) - sizes
    last = np.repeat(starts + sizes - 1, sizes)
    index = np.arange(len(points))
    following = points[np.where(index == last, np.repeat(starts, sizes), index + 1)]
    normal = np.repeat(np.add.reduceat(np.cross(points, following), starts), sizes, axis=0)  # twice the area (Newell)
    axis = np.abs(normal).argmax(axis=1)
    right, up = np.array([1, 0, 0])[axis], np.array([2, 2, 1])[axis]
    side = np.sign(np.take_along_axis(normal, axis[:, None], 1)[:, 0]) * np.array([1, -1, 1])[axis]
    uv = np.stack([points[index, right] * side, points[index, up]], axis=-1) * tiles_per_unit
    while mesh.uv_layers:
        mesh.uv_layers.remove(mesh.uv_layers[0])
    layer = mesh.uv_layers.new(name=UV_LAYER)
    layer.data.foreach_set("uv", uv.astype(np.float32).ravel())
