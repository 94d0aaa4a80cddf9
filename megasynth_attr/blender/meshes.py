"""Blender meshes made from arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from megasynth_attr.blender import compat
from megasynth_attr.scene.mesh import MeshArrays

UV_LAYER = "uv"


def mesh_from_arrays(bpy: Any, name: str, arrays: MeshArrays) -> Any:
    """Return a new Blender mesh: smooth shaded, with one UV layer.

    The arrays are handed over as they are (float32, int32), which is an order of magnitude faster than Python lists.
    """
    mesh = bpy.data.meshes.new(name)
    mesh.vertices.add(len(arrays.vertices))
    mesh.vertices.foreach_set("co", np.ascontiguousarray(arrays.vertices, np.float32).ravel())
    mesh.loops.add(len(arrays.corner_vertices))
    mesh.loops.foreach_set("vertex_index", np.ascontiguousarray(arrays.corner_vertices, np.int32))
    sizes = np.ascontiguousarray(arrays.face_sizes, np.int32)
    starts = (np.cumsum(sizes) - sizes).astype(np.int32)
    compat.add_polygons(mesh, sizes, starts)
    uv = mesh.uv_layers.new(name=UV_LAYER)
    uv.data.foreach_set("uv", np.ascontiguousarray(arrays.uv, np.float32).ravel())
    mesh.update(calc_edges=True)
    compat.shade_smooth(mesh, lambda: vertex_normals(arrays))
    return mesh


def vertex_normals(arrays: MeshArrays) -> np.ndarray:
    """Return V×3 unit normals: those of the faces around a vertex, weighted by their angle there, as Blender does."""
    corners, sizes = arrays.corner_vertices, arrays.face_sizes
    starts, index = np.cumsum(sizes) - sizes, np.arange(len(corners))
    first, last = np.repeat(starts, sizes), np.repeat(starts + sizes - 1, sizes)
    points = arrays.vertices.astype(np.float64)[corners]
    following = points[np.where(index == last, first, index + 1)]
    previous = points[np.where(index == first, last, index - 1)]
    face = np.add.reduceat(np.cross(points, following), starts)  # twice the area, along the normal (Newell)
    onwards, back = _unit(following - points), _unit(previous - points)
    angle = np.arccos(np.clip((onwards * back).sum(axis=1), -1, 1))
    weighted = np.repeat(_unit(face), sizes, axis=0) * angle[:, None]
    sums = [np.bincount(corners, weighted[:, axis], minlength=len(arrays.vertices)) for axis in range(3)]
    return _unit(np.stack(sums, axis=-1))


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Return N×3 vectors scaled to length 1; zero stays zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)
