"""Views of a picture on a wall, as in face anti-spoofing: nine start poses, each followed by a short walk."""

from __future__ import annotations

import numpy as np

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.scene.factor import Draw
from megasynth_attr.scene.spec import Geometry
from megasynth_attr.scene.trajectories.lookat import look_along
from megasynth_attr.scene.trajectories.micro import in_ball
from megasynth_attr.scene.trajectories.settings import CameraSettings

ANGLES_DEG = (-5.0, 0.0, 5.0)
DISTANCES = (0.25, 0.30)  # scene units from the picture


def sample_plane(rng: np.random.Generator, settings: CameraSettings, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """Return (positions N×3, quaternions N×4): frames are spread over the nine start poses as evenly as possible.

    A pose (θ, φ) stands at azimuth θ and elevation φ from the picture's normal, at one of two distances; the walk's
    steps are at most ``max_step`` long (scene units); every view looks at the picture's centre.
    """
    centre, _ = picture_front(draw.visible["geometry"])
    poses = [(theta, phi) for theta in ANGLES_DEG for phi in ANGLES_DEG]
    counts = [draw.frames // len(poses) + (i < draw.frames % len(poses)) for i in range(len(poses))]
    positions = []
    for (theta, phi), count in zip(poses, counts, strict=True):
        azimuth, elevation = np.radians(theta), np.radians(phi)
        outward = np.array(
            [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
        )
        start = centre + DISTANCES[int(rng.integers(len(DISTANCES)))] * outward
        steps = in_ball(rng, max(count, 1), settings.max_step)
        steps[0] = 0.0
        positions.append((start + np.cumsum(steps, axis=0))[:count])
    path = np.concatenate(positions)
    return path, look_along(centre - path)


def picture_front(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Return (centre (3,), size (3,)) of the picture's visible face, scene units; its normal is +x.

    ConfigError if the geometry holds no picture.
    """
    for primitive in geometry.primitives:
        if primitive.surface == "picture":
            box = geometry.boxes[primitive.box]
            size = np.asarray(box.size) * geometry.scale
            centre = (np.asarray(box.centre) - geometry.centre) * geometry.scale
            return centre + np.array([size[0] / 2, 0, 0]), size
    raise ConfigError("camera.family=plane needs geometry.layout=plane: the scene holds no picture to look at")
