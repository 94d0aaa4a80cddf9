"""One rendered view, as arrays, and its pinhole camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from megasynth_attr.core.errors import DatasetError
from megasynth_attr.scene.spec import Camera


@dataclass(frozen=True)
class Frame:
    """What Blender returns for one view; H×W arrays, row 0 at the top.

    ``rgba`` uint8, sRGB, straight alpha. ``depth_z`` float32, planar z in scene units at the pixel centre, 0 where the
    ray hits nothing. ``normal`` float32 H×W×3, world space, unit, facing the camera, 0 where nothing is hit.
    ``instance`` uint16, 0 = background. ``position`` float32 H×W×3, world, 0 where nothing is hit. The last three are
    None unless asked for.
    """

    rgba: np.ndarray
    depth_z: np.ndarray
    normal: np.ndarray | None = None
    instance: np.ndarray | None = None
    position: np.ndarray | None = None


def intrinsics(fov_x_deg: float, width_px: int, height_px: int) -> np.ndarray:
    """Return the 3×3 pinhole matrix in pixels: fx = fy = (W/2)/tan(fov_x/2), principal point (W/2, H/2).

    The centre of pixel (u, v) is (u + 0.5, v + 0.5).
    """
    focal_px = (width_px / 2) / np.tan(np.radians(fov_x_deg) / 2)
    return np.array([[focal_px, 0, width_px / 2], [0, focal_px, height_px / 2], [0, 0, 1]], dtype=np.float64)


def camera_from_world(camera: Camera) -> np.ndarray:
    """Return N×4×4 OpenCV extrinsics (X_camera = M X_world) of a trajectory, float64."""
    quaternions, centres = np.asarray(camera.world_from_camera_xyzw), np.asarray(camera.positions)
    if not len(quaternions) == len(centres) > 0 or not (np.abs(quaternions).max(axis=1) > 0).all():
        raise DatasetError("the camera has no poses, or not as many orientations as positions, or an orientation of 0")
    rotation = scipy.spatial.transform.Rotation.from_quat(quaternions).as_matrix().transpose(0, 2, 1)
    matrices = np.tile(np.eye(4), (len(rotation), 1, 1))
    matrices[:, :3, :3] = rotation
    matrices[:, :3, 3] = -np.einsum("nij,nj->ni", rotation, centres)
    return matrices
