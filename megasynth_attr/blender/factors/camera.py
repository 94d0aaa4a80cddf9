"""The camera: one object, moved from view to view."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from megasynth_attr.blender.blender_scene import FILTER_WIDTH_PX, BlenderScene
from megasynth_attr.scene.spec import Camera

CLIP_RANGE = (1e-3, 1e4)  # scene units; cameras stay at least 0.01 away from surfaces
SENSOR_MM = 36.0  # any value: only its ratio to the focal length counts
# The first sample of a pixel, whose depth we keep, should fall on its centre. Cycles reads its tabulated filter (1024
# entries) one entry too far there, to the right and upwards; the Blackman-Harris filter's entries at the centre are
# 0.35875 · width / 1024 wide. Shifting the lens by as much takes the relative error of depth from 1e-5 below 1e-6.
CENTRE_BIAS_PX = 0.35875 * FILTER_WIDTH_PX / 1024
BLENDER_FROM_OPENCV = Rotation.from_euler("x", 180, degrees=True)  # y down, z forward ↔ y up, z backward


def build(stage: BlenderScene, camera: Camera) -> None:
    """Set ``stage.camera``. The horizontal field of view is exact for any image shape; pixel centres are exact."""
    data = stage.bpy.data.cameras.new("camera")
    data.type = "PERSP"
    data.sensor_fit = "HORIZONTAL"
    data.sensor_width = SENSOR_MM
    data.lens_unit = "MILLIMETERS"
    data.lens = SENSOR_MM / 2 / np.tan(np.radians(camera.fov_x_deg) / 2)
    data.shift_x = data.shift_y = -CENTRE_BIAS_PX / stage.render.width_px
    data.clip_start, data.clip_end = CLIP_RANGE
    data.dof.use_dof = False
    stage.camera = stage.add_object("camera", data)
    stage.camera.rotation_mode = "QUATERNION"
    stage.blender_scene.camera = stage.camera
    move_camera(stage, 0)


def move_camera(stage: BlenderScene, frame_index: int) -> None:
    """Place the camera where the scene's trajectory has it in this frame."""
    position, quaternion_wxyz = blender_pose(stage.factor("camera"), frame_index)
    stage.camera.location = position
    stage.camera.rotation_quaternion = quaternion_wxyz


def blender_pose(camera: Camera, frame_index: int) -> tuple[list[float], list[float]]:
    """Return position and world-from-camera quaternion (scalar FIRST) for Blender's camera axes: y up, z backward."""
    world_from_opencv = Rotation.from_quat(camera.world_from_camera_xyzw[frame_index])
    x, y, z, w = (world_from_opencv * BLENDER_FROM_OPENCV).as_quat().tolist()
    return list(camera.positions[frame_index]), [w, x, y, z]
