"""Unordered views of a room: cameras near the walls looking inwards, and cameras in the middle."""

from __future__ import annotations

import numpy as np

from megasynth_attr.core.errors import SceneRejected
from megasynth_attr.scene.factor import Draw
from megasynth_attr.scene.spec import Geometry
from megasynth_attr.scene.trajectories.lookat import look_along
from megasynth_attr.scene.trajectories.settings import CameraSettings

CENTER_SHARE = 0.25  # 12 of the 48 views of MegaSynth


def sample_room(rng: np.random.Generator, settings: CameraSettings, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """Return (positions N×3, quaternions N×4); boundary cameras first, then centre cameras.

    Every camera keeps ``clearance`` (scene units) from every box and sees at least ``min_free_view`` ahead.
    SceneRejected if one is not found in ``trials``.
    """
    geometry: Geometry = draw.visible["geometry"]
    centres = (np.array([b.centre for b in geometry.boxes]) - geometry.centre) * geometry.scale
    halves = np.array([b.size for b in geometry.boxes]) * geometry.scale / 2
    low = -np.asarray(geometry.centre) * geometry.scale
    high = (np.asarray(geometry.extent) - geometry.centre) * geometry.scale
    n_center = round(draw.frames * CENTER_SHARE)
    positions, forwards = [], []
    for index in range(draw.frames):
        place = _boundary if index < draw.frames - n_center else _center
        for _ in range(settings.trials):
            position, forward = place(rng, low, high)
            if _distance_to_boxes(position, centres, halves) < settings.clearance:
                continue
            if _free_view(position, forward, centres, halves) >= settings.min_free_view:
                break
        else:
            raise SceneRejected(
                f"camera: no free place for view {index} in {settings.trials} trials; the room is too full: "
                "lower the counts of geometry or camera.clearance"
            )
        positions.append(position)
        forwards.append(forward)
    return np.array(positions), look_along(np.array(forwards))


def _boundary(rng: np.random.Generator, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a position within 20 % of a wall and a direction towards the middle of the room."""
    size, middle = high - low, (low + high) / 2
    axis, side = int(rng.integers(2)), rng.random() < 0.5
    depth = rng.uniform(0.03, 0.2) * size[axis]
    position = low + rng.uniform(0.1, 0.9, 3) * size
    position[axis] = low[axis] + depth if side else high[axis] - depth
    target = middle + rng.normal(0, 0.15, 3) * size
    return position, target - position


def _center(rng: np.random.Generator, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a position in the middle 40 % of the room and a direction with any yaw and at most 20° pitch."""
    size, middle = high - low, (low + high) / 2
    position = middle + rng.uniform(-0.2, 0.2, 3) * size
    yaw, pitch = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(-20, 20))
    return position, np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])


def _distance_to_boxes(point: np.ndarray, centres: np.ndarray, halves: np.ndarray) -> float:
    gap = np.maximum(np.abs(point - centres) - halves, 0)
    return float(np.linalg.norm(gap, axis=-1).min())


def _free_view(origin: np.ndarray, direction: np.ndarray, centres: np.ndarray, halves: np.ndarray) -> float:
    """Return the distance to the first box along ``direction`` (slab method), infinite if there is none."""
    direction = direction / np.linalg.norm(direction)
    safe = np.where(np.abs(direction) < 1e-12, 1e-12, direction)
    near, far = (centres - halves - origin) / safe, (centres + halves - origin) / safe
    enter, leave = np.minimum(near, far).max(axis=-1), np.maximum(near, far).min(axis=-1)
    hits = (enter <= leave) & (leave > 0)
    return float(np.where(hits, np.maximum(enter, 0), np.inf).min())
