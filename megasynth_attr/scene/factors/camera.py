"""The camera factor: field of view and trajectory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from megasynth_attr.core.codec import rounded
from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.fields import scope, setting, span, variants
from megasynth_attr.core.ranges import Range, Uniform
from megasynth_attr.core.streams import Scope
from megasynth_attr.scene.factor import Draw, Factor, Records
from megasynth_attr.scene.keepout import CameraRegion, InsideBox, OutsideBall
from megasynth_attr.scene.spec import Camera, Geometry
from megasynth_attr.scene.trajectories.micro import OVERSHOOT, sample_micro
from megasynth_attr.scene.trajectories.orbit import OrbitRanges, sample_orbit
from megasynth_attr.scene.trajectories.plane import sample_plane
from megasynth_attr.scene.trajectories.room import sample_room

ORBIT_UNIT = 1.5 * 3**0.5  # D of the paper: 1.5 times the radius of the ±1 cube's circumscribed ball
MIN_RANGE_SHARE = 0.35  # a dataset's own range covers at least this share of the preset's


@dataclass(frozen=True)
class CameraSettings:
    """Field of view and trajectory."""

    scope: str = scope()
    variants: int = variants()
    family: str = setting("orbit", "kind of trajectory", options=["orbit", "micro", "room", "plane"])
    fov_x_deg: Range[float] = span(45.0, 70.0, "horizontal field of view, once per draw", minimum=5, maximum=150)
    clearance: float = setting(0.1, "no camera comes closer to any surface (scene units)", minimum=0, maximum=0.5)
    distance: Range[float] = span(0.85, 1.5, "orbit: distance from the origin in units of D = 1.5·√3", minimum=0.6)
    elevation_sin: Range[float] = span(-0.3, 0.8, "orbit: sine of the elevation", minimum=-1, maximum=1)
    max_elevation_deg: float = setting(
        70.0, "orbit: the path stays below; a level camera spins at the pole", minimum=5, maximum=85
    )
    target_sigma: float = setting(0.0, "orbit: spread of the look-at target (scene units)", minimum=0, maximum=1)
    control_points: int = setting(6, "orbit, micro: control points of the path (micro: 7)", minimum=3, maximum=64)
    max_knot_angle_deg: float = setting(135.0, "orbit: between consecutive control points", minimum=10, maximum=179)
    ranges_per_dataset: bool = setting(False, "orbit: every dataset uses its own part of distance, elevation and sigma")
    zone: tuple[float, float, float] = setting(
        (0.2, 0.2, 0.08), "micro: half size of the free centre where paths start (scene units)", minimum=0, maximum=0.6
    )
    max_translation: float = setting(0.03, "micro: between any two control poses (scene units)", minimum=0, maximum=0.5)
    max_rotation_deg: float = setting(1.0, "micro: between any two control poses", minimum=0, maximum=30)
    min_free_view: float = setting(0.25, "room: free distance ahead of each camera (scene units)", minimum=0, maximum=2)
    max_step: float = setting(0.01, "plane: longest step of the walk (scene units)", minimum=0, maximum=0.05)
    trials: int = setting(2000, "bound on rejection", minimum=1)

    def validate(self, name: str, factors: Mapping[str, Any]) -> None:
        """Raise ConfigError where the family needs a geometry that this factor may not see."""
        geometry = factors["geometry"]
        if self.family in ("room", "plane") and not Scope(self.scope).sees(Scope(geometry.scope)):
            raise ConfigError(
                f"{name}.family={self.family} places cameras by the geometry, so geometry.scope={geometry.scope} must "
                f"not vary more often than {name}.scope={self.scope}; widen {name}.scope or narrow geometry.scope"
            )
        layouts = {"orbit": ("objects",), "plane": ("plane",)}.get(self.family, ("room", "plane"))
        if geometry.layout not in layouts:
            raise ConfigError(
                f"{name}.family={self.family} does not fit geometry.layout={geometry.layout}: "
                f"it needs {' or '.join(layouts)}"
            )
        for key in ("distance", "elevation_sin") if self.ranges_per_dataset else ():
            if not isinstance(getattr(self, key), Uniform):
                raise ConfigError(
                    f"{name}.{key}: {getattr(self, key)} has no parts for {name}.ranges_per_dataset=true; "
                    "write it as [low, high] or set that to false"
                )


def camera_region(settings: CameraSettings) -> CameraRegion | None:
    """Return where cameras of these settings may be, or None where they are placed by looking at the geometry."""
    if settings.family == "orbit":
        return OutsideBall(settings.distance.low * ORBIT_UNIT)
    if settings.family == "micro":
        margin = OVERSHOOT * settings.max_translation / 2
        x, y, z = (half + margin for half in settings.zone)
        return InsideBox((x, y, z))
    return None


def orbit_ranges(settings: CameraSettings, dataset_rng: np.random.Generator) -> OrbitRanges:
    """Return the ranges of one dataset: the preset's, or a random part of them when ``ranges_per_dataset``."""
    unit = dataset_rng.random((3, 2))

    def part(whole: Range[float], draws: np.ndarray) -> Range[float]:
        width = (whole.high - whole.low) * (MIN_RANGE_SHARE + (1 - MIN_RANGE_SHARE) * draws[0])
        start = whole.low + (whole.high - whole.low - width) * draws[1]
        return Uniform(float(start), float(start + width))

    distance, elevation, sigma = settings.distance, settings.elevation_sin, settings.target_sigma
    if settings.ranges_per_dataset:
        distance, elevation, sigma = part(distance, unit[0]), part(elevation, unit[1]), sigma * float(unit[2, 0])
    return OrbitRanges(distance.times(ORBIT_UNIT), elevation, sigma)


def sample(rng: np.random.Generator, settings: CameraSettings, draw: Draw) -> Camera:
    """Return a Camera with ``draw.frames`` poses; SceneRejected if no path fulfils the constraints."""
    fov_x_deg = settings.fov_x_deg.draw(rng)
    positions, quaternions = _trajectory(rng, settings, draw)
    return Camera(settings.family, rounded(fov_x_deg), rounded(positions), rounded(quaternions))


def _trajectory(rng: np.random.Generator, settings: CameraSettings, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    geometry: Geometry | None = draw.visible.get("geometry")
    if settings.family == "orbit":
        return sample_orbit(
            rng,
            orbit_ranges(settings, draw.dataset_rng),
            draw.frames,
            control_points=settings.control_points,
            max_knot_angle_deg=settings.max_knot_angle_deg,
            max_elevation_deg=settings.max_elevation_deg,
            trials=settings.trials,
        )
    if settings.family == "micro":
        return sample_micro(
            rng,
            draw.frames,
            geometry,
            zone=settings.zone,
            control_points=settings.control_points,
            max_translation=settings.max_translation,
            max_rotation_deg=settings.max_rotation_deg,
        )
    assert geometry is not None, "validate() demands a visible geometry for the room and plane families"
    if settings.family == "room":
        return sample_room(
            rng,
            draw.frames,
            geometry,
            clearance=settings.clearance,
            min_free_view=settings.min_free_view,
            trials=settings.trials,
        )
    return sample_plane(rng, draw.frames, geometry, max_step=settings.max_step)


def describe(camera: Camera, records: Records) -> np.ndarray:
    """Return N×7: position and quaternion of every frame."""
    return np.concatenate([np.asarray(camera.positions), np.asarray(camera.world_from_camera_xyzw)], axis=1)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean over equal frame indices of geodesic angle (radians) plus distance (scene units)."""
    turn = (Rotation.from_quat(a[:, 3:]).inv() * Rotation.from_quat(b[:, 3:])).magnitude()
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
