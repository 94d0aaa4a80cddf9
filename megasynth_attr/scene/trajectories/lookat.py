"""Cameras from where they stand and where they look. OpenCV axes: x right, y down, z forward; world z up."""

from __future__ import annotations

import numpy as np
import scipy


def look_along(forward: np.ndarray) -> np.ndarray:
    """Return N×4 quaternions (x, y, z, w) ``world_from_camera`` of level cameras looking along N×3 directions.

    Level: the camera's x axis is horizontal. A vertical direction has no such camera; callers keep away from it.
    """
    forward = forward / np.linalg.norm(forward, axis=-1, keepdims=True)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    down = np.cross(forward, right)
    return scipy.spatial.transform.Rotation.from_matrix(np.stack([right, down, forward], axis=-1)).as_quat()


def from_yaw_pitch_roll(yaw_deg: np.ndarray, pitch_deg: np.ndarray, roll_deg: np.ndarray) -> np.ndarray:
    """Return N×4 quaternions ``world_from_camera``: yaw about z (0 = towards +x), pitch up, roll clockwise."""
    yaw, pitch = np.radians(yaw_deg), np.radians(pitch_deg)
    forward = np.stack([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)], axis=-1)
    roll = scipy.spatial.transform.Rotation.from_euler("z", np.asarray(roll_deg), degrees=True)
    return (scipy.spatial.transform.Rotation.from_quat(look_along(forward)) * roll).as_quat()
