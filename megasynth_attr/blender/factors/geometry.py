"""Meshes: one object per primitive, made from arrays, or what the file of a scan holds."""

from __future__ import annotations

from megasynth_attr.blender.blender_scene import BlenderScene
from megasynth_attr.blender.scans import add_scan
from megasynth_attr.scene.mesh import build_meshes
from megasynth_attr.scene.spec import Geometry


def build(stage: BlenderScene, geometry: Geometry) -> None:
    """Fill ``stage.primitives``; the instance id of a primitive is its index + 1."""
    tiles_per_unit = stage.factor("texture").tiles_per_unit
    if geometry.scan is not None:
        add_scan(stage, geometry, geometry.scan, tiles_per_unit)
        return
    for index, arrays in enumerate(build_meshes(geometry, tiles_per_unit)):
        stage.primitives.append(stage.add_mesh(f"primitive {index:03d}", arrays, index + 1))
