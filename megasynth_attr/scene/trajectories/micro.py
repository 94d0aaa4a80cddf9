"""A hand-held camera that hardly moves: a smooth path within a few hundredths of a unit and a degree."""

from __future__ import annotations

import numpy as np
import scipy

from megasynth_attr.scene.factor import Draw
from megasynth_attr.scene.spec import Geometry
from megasynth_attr.scene.trajectories.lookat import from_yaw_pitch_roll, look_along
from megasynth_attr.scene.trajectories.settings import CameraSettings

# Lebesgue constant of a not-a-knot cubic spline, rounded up: a path through points of a ball stays within twice its
# radius.
OVERSHOOT = 2.0


def in_ball(rng: np.random.Generator, count: int, radius: float) -> np.ndarray:
    """Return ``count`` × 3 points uniform in a ball."""
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    return direction * radius * rng.random((count, 1)) ** (1 / 3)


def sample_micro(rng: np.random.Generator, settings: CameraSettings, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """Return (positions N×3, quaternions N×4) of a micro-baseline path starting in the free centre of the room.

    Offsets are drawn in balls of half the allowed size, so that *every pair* of control poses keeps within
    ``max_translation`` (scene units) and ``max_rotation_deg`` (geodesic). Half of the paths look at a box chosen by
    angular size, when the geometry is known to the camera; all others in a random direction.
    """
    geometry, control_points = draw.visible.get("geometry"), settings.control_points
    start = rng.uniform(-1, 1, 3) * np.asarray(settings.zone)
    yaw, pitch, roll = rng.uniform(-180, 180), rng.uniform(-10, 10), rng.uniform(-10, 10)
    aims_at_box, pick = rng.random() < 0.5, rng.random()
    orientation = from_yaw_pitch_roll(np.array([yaw]), np.array([pitch]), np.array([roll]))[0]
    if aims_at_box and geometry is not None:
        orientation = _towards_a_box(geometry, start, pick, fallback=orientation)
    offsets = in_ball(rng, control_points, settings.max_translation / 2)
    turns = in_ball(rng, control_points, np.radians(settings.max_rotation_deg) / 2)
    times = np.linspace(0, 1, control_points)
    at = np.linspace(0, 1, draw.frames)
    positions = scipy.interpolate.CubicSpline(times, start + offsets)(at)
    transform = scipy.spatial.transform
    orientations = transform.Rotation.from_quat(orientation) * transform.Rotation.from_rotvec(turns)
    return positions, transform.RotationSpline(times, orientations)(at).as_quat()


def _towards_a_box(geometry: Geometry, eye: np.ndarray, pick: float, fallback: np.ndarray) -> np.ndarray:
    """Return the orientation looking at a box; boxes are chosen with probability proportional to solid angle."""
    boxes = [b for b in geometry.boxes if b.kind in ("large", "small", "roof", "wall", "frame")]
    if not boxes:
        return fallback
    centres = (np.array([b.centre for b in boxes]) - geometry.centre) * geometry.scale
    radii = np.linalg.norm([b.size for b in boxes], axis=-1) / 2 * geometry.scale
    to_box = centres - eye
    weight = (radii / np.linalg.norm(to_box, axis=-1)) ** 2
    weight *= np.linalg.norm(to_box[:, :2], axis=-1) > 0.3 * np.abs(to_box[:, 2])  # steeper views have no level camera
    if weight.sum() == 0:
        return fallback
    chosen = int(np.searchsorted(np.cumsum(weight) / weight.sum(), pick, side="right"))
    return look_along(to_box[min(chosen, len(boxes) - 1)][None])[0]
