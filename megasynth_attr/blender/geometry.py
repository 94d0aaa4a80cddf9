"""Meshes: one object per primitive, made from arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from megasynth_attr.blender import compat
from megasynth_attr.scene.mesh import MeshArrays, build_meshes
from megasynth_attr.scene.spec import Geometry

if TYPE_CHECKING:
    from megasynth_attr.blender.build import Stage

UV_LAYER = "uv"


def build(stage: Stage, geometry: Geometry) -> None:
    """Fill ``stage.primitives``; the instance id of a primitive is its index + 1."""
    for index, arrays in enumerate(build_meshes(geometry, stage.factor("texture").tiles_per_unit)):
        stage.primitives.append(stage.add_mesh(f"primitive {index:03d}", arrays, index + 1))


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
    compat.shade_smooth(mesh)
    uv = mesh.uv_layers.new(name=UV_LAYER)
    uv.data.foreach_set("uv", np.ascontiguousarray(arrays.uv, np.float32).ravel())
    mesh.update(calc_edges=True)
    return mesh
