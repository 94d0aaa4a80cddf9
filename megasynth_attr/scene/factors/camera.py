"""The camera factor: field of view and trajectory."""

from __future__ import annotations

import numpy as np
import scipy

from megasynth_attr.core.codec import rounded
from megasynth_attr.scene.factor import Draw, Factor, Records
from megasynth_attr.scene.keepout import CameraRegion, InsideBox, OutsideBall
from megasynth_attr.scene.spec import Camera
from megasynth_attr.scene.trajectories.micro import OVERSHOOT, sample_micro
from megasynth_attr.scene.trajectories.orbit import ORBIT_UNIT, sample_orbit
from megasynth_attr.scene.trajectories.plane import sample_plane
from megasynth_attr.scene.trajectories.ring import sample_ring
from megasynth_attr.scene.trajectories.room import sample_room
from megasynth_attr.scene.trajectories.settings import CameraSettings

FAMILIES = {
    "orbit": sample_orbit,
    "ring": sample_ring,
    "micro": sample_micro,
    "room": sample_room,
    "plane": sample_plane,
}


def camera_region(settings: CameraSettings) -> CameraRegion | None:
    """Return where cameras with these settings may be, or None if they are placed after the geometry is known."""
    if settings.family in ("orbit", "ring"):
        return OutsideBall(settings.distance.low * ORBIT_UNIT)
    if settings.family == "micro":
        margin = OVERSHOOT * settings.max_translation / 2
        x, y, z = (half + margin for half in settings.zone)
        return InsideBox((x, y, z))
    return None


def sample(rng: np.random.Generator, settings: CameraSettings, draw: Draw) -> Camera:
    """Return a Camera with ``draw.frames`` poses; SceneRejected if no path fulfils the constraints."""
    fov_x_deg = settings.fov_x_deg.draw(rng)
    positions, quaternions = FAMILIES[settings.family](rng, settings, draw)
    return Camera(settings.family, rounded(fov_x_deg), rounded(positions), rounded(quaternions))


def describe(camera: Camera, records: Records) -> np.ndarray:
    """Return N×7: position (scene units) and quaternion (x, y, z, w) of every frame."""
    return np.concatenate([np.asarray(camera.positions), np.asarray(camera.world_from_camera_xyzw)], axis=1)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean over equal frame indices of geodesic angle (radians) plus distance (scene units)."""
    first, second = (scipy.spatial.transform.Rotation.from_quat(poses[:, 3:]) for poses in (a, b))
    turn = (first.inv() * second).magnitude()
    return float(np.mean(turn + np.linalg.norm(a[:, :3] - b[:, :3], axis=1)))


FACTOR = Factor(
    name="camera",
    order=30,
    settings=CameraSettings,
    data=Camera,
    sample=sample,
    describe=describe,
    distance=distance,
    changes_depth=True,
    optional=False,
)
