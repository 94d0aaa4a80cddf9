"""Meshes: one object per primitive, made from arrays."""

from __future__ import annotations

from megasynth_attr.blender.blender_scene import BlenderScene
from megasynth_attr.scene.mesh import build_meshes
from megasynth_attr.scene.spec import Geometry


def build(stage: BlenderScene, geometry: Geometry) -> None:
    """Fill ``stage.primitives``; the instance id of a primitive is its index + 1."""
    for index, arrays in enumerate(build_meshes(geometry, stage.factor("texture").tiles_per_unit)):
        stage.primitives.append(stage.add_mesh(f"primitive {index:03d}", arrays, index + 1))
