"""A level ring around the object: views evenly spread at one elevation and one distance, all looking at the centre."""

from __future__ import annotations

import numpy as np

from megasynth_attr.scene.factor import Draw
from megasynth_attr.scene.trajectories.lookat import look_along
from megasynth_attr.scene.trajectories.orbit import ORBIT_UNIT
from megasynth_attr.scene.trajectories.settings import CameraSettings


def sample_ring(rng: np.random.Generator, settings: CameraSettings, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """Return (positions N×3, quaternions N×4); the first view stands towards -y, the others follow from x to y."""
    distance = settings.distance.draw(rng) * ORBIT_UNIT
    height = settings.elevation_sin.draw(rng)
    azimuth = np.arange(draw.frames) / draw.frames * 2 * np.pi - np.pi / 2
    flat = np.sqrt(1 - height**2)
    outward = np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.full(draw.frames, height)], axis=-1)
    return distance * outward, look_along(-outward)
