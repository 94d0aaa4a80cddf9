"""Views of a picture on a wall, or of a scanned head, as in face anti-spoofing: nine start poses with a short walk.

A head is seen from its front, -y, as a picture is: at the same distances, in units of its own height.
"""

from __future__ import annotations

import numpy as np

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.scene.factor import Draw
from megasynth_attr.scene.spec import Geometry
from megasynth_attr.scene.trajectories.lookat import look_along
from megasynth_attr.scene.trajectories.micro import in_ball
from megasynth_attr.scene.trajectories.settings import CameraSettings

PICTURE_HEIGHT = 0.4  # scene units: what distances and steps are meant for
ANGLES_DEG = (-5.0, 0.0, 5.0)
DISTANCES = (0.25, 0.30)  # scene units from the picture


def sample_plane(rng: np.random.Generator, settings: CameraSettings, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """Return (positions N×3, quaternions N×4): frames are spread over the nine start poses as evenly as possible.

    A pose (θ, φ) stands at azimuth θ and elevation φ from the picture's normal, at one of two distances; the walk's
    steps are at most ``max_step`` long (scene units); every view looks at the picture's centre.
    """
    centre, normal, size = _front(draw.visible["geometry"])
    turn = np.array([[normal[0], -normal[1], 0], [normal[1], normal[0], 0], [0, 0, 1.0]])  # of +x to the normal
    poses = [(theta, phi) for theta in ANGLES_DEG for phi in ANGLES_DEG]
    counts = [draw.frames // len(poses) + (i < draw.frames % len(poses)) for i in range(len(poses))]
    positions = []
    for (theta, phi), count in zip(poses, counts, strict=True):
        azimuth, elevation = np.radians(theta), np.radians(phi)
        outward = np.array(
            [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
        )
        start = centre + size * DISTANCES[int(rng.integers(len(DISTANCES)))] * (turn @ outward)
        steps = size * in_ball(rng, max(count, 1), settings.max_step)
        steps[0] = 0.0
        positions.append((start + np.cumsum(steps, axis=0))[:count])
    path = np.concatenate(positions)
    return path, look_along(centre - path)


def _front(geometry: Geometry) -> tuple[np.ndarray, np.ndarray, float]:
    """Return what is looked at: centre (3,) of its front, normal (3,), and its height in heights of a picture."""
    if geometry.layout != "scan":
        return picture_front(geometry)[0], np.array([1.0, 0, 0]), 1.0
    _, depth, height = np.asarray(geometry.extent) * geometry.scale
    return np.array([0, -depth / 2, 0]), np.array([0, -1.0, 0]), float(height / PICTURE_HEIGHT)


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
