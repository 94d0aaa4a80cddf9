"""Lights: ambient world or HDRI, suns, area lights, bulbs. None is visible to the camera."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from megasynth_attr.blender import compat
from megasynth_attr.blender.blender_scene import BlenderScene
from megasynth_attr.blender.images import load_image
from megasynth_attr.core.errors import DatasetError
from megasynth_attr.scene.spec import AreaLight, Bulb, Hdri, Lighting, Sun, Window

SKY_MAP_COLUMNS = 2048  # of the map by which an HDRI is sampled: 0.2°; Cycles' own choice costs 2 s a scene, this 0.5


def build(stage: BlenderScene, lighting: Lighting) -> None:
    """Add every light; strengths have the units of scene/spec.py."""
    _build_world(stage, lighting)
    window = stage.factor("geometry").window
    for index, sun in enumerate(lighting.suns):
        to_light = sun_direction(sun, window)
        if to_light is not None:
            _add_sun(stage, f"sun {index}", sun, to_light)
    for index, area in enumerate(lighting.areas):
        _add_area(stage, f"area light {index}", area)
    for index, bulb in enumerate(lighting.bulbs):
        _add_bulb(stage, f"bulb {index}", bulb)


def sun_direction(sun: Sun, window: Window | None) -> np.ndarray | None:
    """Return the unit vector towards a sun in the world; None for a window sun where there is no window."""
    if sun.frame == "world":
        return np.asarray(sun.to_light)
    if sun.frame != "window":
        raise DatasetError(f"a sun's frame is {sun.frame!r}; it must be world or window")
    if window is None:
        return None
    outward, up = np.asarray(window.outward), np.array([0.0, 0.0, 1.0])
    return np.stack([outward, np.cross(up, outward), up], axis=-1) @ np.asarray(sun.to_light)


def _add_light(stage: BlenderScene, name: str, kind: str, rgb: Sequence[float], energy: float) -> tuple[Any, Any]:
    """Return (light data, object) of a light that the camera does not see."""
    data = stage.bpy.data.lights.new(name, kind)
    data.color = rgb
    data.energy = energy
    compat.set_if_present(data, use_soft_falloff=False, normalize=True, exposure=0.0, use_temperature=False)
    data.cycles.use_multiple_importance_sampling = True
    lamp = stage.add_object(name, data)
    lamp.visible_camera = False
    return data, lamp


def _shine_along(lamp: Any, direction: Sequence[float]) -> None:
    """Turn a light object so that its -z axis is ``direction``."""
    from mathutils import Vector

    lamp.rotation_mode = "QUATERNION"
    lamp.rotation_quaternion = Vector(direction).to_track_quat("-Z", "Y")


def _add_sun(stage: BlenderScene, name: str, sun: Sun, to_light: np.ndarray) -> None:
    data, lamp = _add_light(stage, name, "SUN", sun.rgb, sun.irradiance_w_m2)
    data.angle = np.radians(sun.angle_deg)
    _shine_along(lamp, (-to_light).tolist())


def _add_area(stage: BlenderScene, name: str, area: AreaLight) -> None:
    data, lamp = _add_light(stage, name, "AREA", area.rgb, compat.area_light_energy(area.power_w))
    data.shape, data.size = "SQUARE", area.edge
    compat.set_if_present(data, spread=np.pi)
    lamp.location = area.position
    _shine_along(lamp, area.direction)


def _add_bulb(stage: BlenderScene, name: str, bulb: Bulb) -> None:
    data, lamp = _add_light(stage, name, "POINT", bulb.rgb, bulb.power_w)
    data.shadow_soft_size = bulb.radius
    lamp.location = bulb.position


def _build_world(stage: BlenderScene, lighting: Lighting) -> None:
    """Add ambient radiance from everywhere, or the HDRI if the lighting has one."""
    world = stage.bpy.data.worlds.new("world")
    stage.blender_scene.world = world
    tree = compat.use_nodes(world)
    background = tree.nodes.new("ShaderNodeBackground")
    output = tree.nodes.new("ShaderNodeOutputWorld")
    tree.links.new(background.outputs[0], output.inputs["Surface"])
    background.inputs["Color"].default_value = (*lighting.ambient_rgb, 1.0)
    background.inputs["Strength"].default_value = lighting.ambient_strength
    # A constant world is found best by the surface's own directions: sampling it as a light costs a ray and adds noise.
    world.cycles.sampling_method = "NONE"
    if lighting.hdri is not None:
        texture = _hdri_texture(stage, tree, lighting.hdri)
        tree.links.new(texture.outputs["Color"], background.inputs["Color"])
        background.inputs["Strength"].default_value = lighting.hdri.strength
        world.cycles.sampling_method = "MANUAL"
        world.cycles.sample_map_resolution = SKY_MAP_COLUMNS


def _hdri_texture(stage: BlenderScene, tree: Any, hdri: Hdri) -> Any:
    """Return the texture node. Unrotated, the picture's centre lies towards +x and its left quarter towards +y, its top
    at +z; ``rotation_deg`` turns it about z from x to y."""
    path = stage.assets.hdris.get(hdri.name)
    if path is None:
        raise DatasetError(f"the HDRI {hdri.name} of scene {stage.scene.name} was not given; check lighting.hdris")
    image = load_image(stage, path, f"the HDRI {hdri.name}", is_colour=True, sha256=hdri.sha256)
    compat.set_linear_colour_space(image)
    coordinates = tree.nodes.new("ShaderNodeTexCoord")
    mapping = tree.nodes.new("ShaderNodeMapping")
    mapping.vector_type = "POINT"
    mapping.inputs["Rotation"].default_value = (0.0, 0.0, -np.radians(hdri.rotation_deg))
    texture = tree.nodes.new("ShaderNodeTexEnvironment")
    texture.image = image
    texture.projection, texture.interpolation = "EQUIRECTANGULAR", "Linear"
    tree.links.new(coordinates.outputs["Generated"], mapping.inputs["Vector"])
    tree.links.new(mapping.outputs["Vector"], texture.inputs["Vector"])
    return texture
