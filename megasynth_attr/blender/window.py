"""The part of the picture in which anything can be seen. Rendering only it saves most of an object-centred view."""

from __future__ import annotations

import numpy as np

from megasynth_attr.blender.blender_scene import VISIBLE_TYPES, BlenderScene
from megasynth_attr.scene.frame import camera_from_world, intrinsics
from megasynth_attr.scene.spec import Camera

Window = tuple[int, int, int, int]  # left, top, right, bottom: pixel edges, from the top left

MARGIN_PX = 4  # wider than the pixel filter
NEAREST = 1e-3  # scene units; what reaches closer to the camera plane may be anywhere in the picture


def set_window(stage: BlenderScene, frame_index: int) -> None:
    """Restrict rendering of this view to its window; Blender fills the rest with transparent black and depth 0."""
    width, height = stage.render.width_px, stage.render.height_px
    left, top, right, bottom = 0, 0, width, height
    if "visible points" not in stage.shared:
        stage.shared["visible points"] = _visible_points(stage)
    if (points := stage.shared["visible points"]) is not None:
        left, top, right, bottom = visible_window(points, stage.factor("camera"), frame_index, width, height)
    settings = stage.blender_scene.render
    settings.use_border = (left, top, right, bottom) != (0, 0, width, height)
    # A quarter pixel more: versions differ in whether they truncate or round.
    settings.border_min_x, settings.border_max_x = (left + 0.25) / width, (right + 0.25) / width
    settings.border_min_y, settings.border_max_y = (height - bottom + 0.25) / height, (height - top + 0.25) / height


def visible_window(points: np.ndarray, camera: Camera, frame_index: int, width: int, height: int) -> Window:
    """Return the smallest window, with a margin, that holds the projections of N×3 points.

    The whole picture if a point is not clearly in front of the camera, or if none falls into the picture.
    """
    extrinsics = camera_from_world(camera)[frame_index]
    in_camera = points @ extrinsics[:3, :3].T + extrinsics[:3, 3]
    whole = (0, 0, width, height)
    if in_camera[:, 2].min() < NEAREST:
        return whole
    projected = in_camera @ intrinsics(camera.fov_x_deg, width, height).T
    pixels = projected[:, :2] / projected[:, 2:]
    low = np.clip(np.floor(pixels.min(axis=0)) - MARGIN_PX, 0, (width, height)).astype(int)
    high = np.clip(np.ceil(pixels.max(axis=0)) + MARGIN_PX, 0, (width, height)).astype(int)
    if (high <= low).any():
        return whole
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _visible_points(stage: BlenderScene) -> np.ndarray | None:
    """Return the corners of all visible objects' bounding boxes, N×3 in the world; None if something is everywhere."""
    if world_has_volume(stage):
        return None
    corners = []
    for instance in stage.bpy.context.evaluated_depsgraph_get().object_instances:
        if instance.object.type in VISIBLE_TYPES:
            matrix = np.array(instance.matrix_world)
            corners.append(np.array(instance.object.bound_box) @ matrix[:3, :3].T + matrix[:3, 3])
    return np.concatenate(corners) if corners else None


def world_has_volume(stage: BlenderScene) -> bool:
    """Return whether the world itself has a volume."""
    world = stage.blender_scene.world
    nodes = world.node_tree.nodes if world is not None and world.node_tree is not None else ()
    return any(node.inputs["Volume"].is_linked for node in nodes if node.bl_idname == "ShaderNodeOutputWorld")
