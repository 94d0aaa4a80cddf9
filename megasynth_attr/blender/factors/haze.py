"""Haze: a cube around everything, filled with a scattering volume."""

from __future__ import annotations

from megasynth_attr.blender import compat
from megasynth_attr.blender.blender_scene import BlenderScene
from megasynth_attr.scene.factors.haze import Haze

CORNERS = [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
FACES = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]


def build(stage: BlenderScene, haze: Haze) -> None:
    """Add the cube. A world filled with haze would be dark: its ambient light comes from infinitely far away."""
    # Haze hides the sky too. Left transparent, its alpha would be full of noise, which no denoiser touches.
    stage.blender_scene.render.film_transparent = False
    if haze.density == 0:
        return
    material = stage.bpy.data.materials.new("haze")
    tree = compat.use_nodes(material)
    scatter, absorb, both, output = (
        tree.nodes.new(f"ShaderNode{kind}")
        for kind in ("VolumeScatter", "VolumeAbsorption", "AddShader", "OutputMaterial")
    )
    for index, node in enumerate((scatter, absorb)):  # c · density is scattered, (1 - c) · density absorbed
        node.inputs["Color"].default_value = (*haze.rgb, 1.0)
        node.inputs["Density"].default_value = haze.density
        tree.links.new(node.outputs["Volume"], both.inputs[index])
    scatter.inputs["Anisotropy"].default_value = haze.anisotropy
    tree.links.new(both.outputs[0], output.inputs["Volume"])
    mesh = stage.bpy.data.meshes.new("haze")
    mesh.from_pydata([tuple(haze.reach * c for c in corner) for corner in CORNERS], [], FACES)
    mesh.materials.append(material)
    stage.add_object("haze", mesh)
    stage.blender_scene.cycles.volume_bounces = stage.render.max_bounces  # else only light scattered once is seen
