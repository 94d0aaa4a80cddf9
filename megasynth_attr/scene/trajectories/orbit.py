"""A closed, smooth path around the object.

Directions are interpolated on the sphere and distances in log space, so the path can neither dive into the object nor
leave the range of distances.
"""

from __future__ import annotations

import numpy as np
import scipy

from megasynth_attr.core.errors import SceneRejected
from megasynth_attr.core.ranges import Range, Uniform
from megasynth_attr.scene.factor import Draw
from megasynth_attr.scene.trajectories.lookat import look_along
from megasynth_attr.scene.trajectories.settings import CameraSettings

ORBIT_UNIT = 1.5 * 3**0.5  # scene units per unit of camera.distance: 1.5 radii of the ball around the ±1 cube
MIN_RANGE_SHARE = 0.35  # a dataset's own range covers at least this share of the preset's
STEPS_PER_SEGMENT = 256  # resolution at which arc length is measured


def slerp(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return the points at fraction ``t`` (...,) of the great circle from ``a`` to ``b`` (..., 3), unit vectors."""
    cosine = np.clip(np.sum(a * b, axis=-1), -1.0, 1.0)
    angle = np.arccos(cosine)
    small = angle < 1e-6  # the quotient below loses its meaning there, and a straight line is exact enough
    sine = np.where(small, 1.0, np.sin(angle))
    weight_a = np.where(small, 1 - t, np.sin((1 - t) * angle) / sine)
    weight_b = np.where(small, t, np.sin(t * angle) / sine)
    point = weight_a[..., None] * a + weight_b[..., None] * b
    return point / np.linalg.norm(point, axis=-1, keepdims=True)


def _tangent_towards(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the logarithm map: the tangent at ``a`` whose length is the angle to ``b``; (..., 3)."""
    cosine = np.clip(np.sum(a * b, axis=-1, keepdims=True), -1.0, 1.0)
    across = b - cosine * a
    length = np.linalg.norm(across, axis=-1, keepdims=True)
    return np.arccos(cosine) * across / np.maximum(length, 1e-12)


def _walk(a: np.ndarray, tangent: np.ndarray) -> np.ndarray:
    """Return the exponential map: the point reached from ``a`` along ``tangent``; (..., 3)."""
    angle = np.linalg.norm(tangent, axis=-1, keepdims=True)
    return np.cos(angle) * a + np.sin(angle) * tangent / np.maximum(angle, 1e-12)


def closed_sphere_curve(knots: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return M×3 unit vectors of a closed C¹ curve through K×3 unit ``knots`` at parameters ``t`` in [0, K).

    Spherical cubic Bézier segments (de Casteljau with slerp) with Catmull-Rom tangents.
    """
    after, before = np.roll(knots, -1, axis=0), np.roll(knots, 1, axis=0)
    tangent = (_tangent_towards(knots, after) - _tangent_towards(knots, before)) / 2
    leave, arrive = _walk(knots, tangent / 3), np.roll(_walk(knots, -tangent / 3), -1, axis=0)
    segment = np.floor(t).astype(int) % len(knots)
    u = t - np.floor(t)
    p0, p1, p2, p3 = knots[segment], leave[segment], arrive[segment], after[segment]
    a, b, c = slerp(p0, p1, u), slerp(p1, p2, u), slerp(p2, p3, u)
    return slerp(slerp(a, b, u), slerp(b, c, u), u)


def closed_log_distance(knots: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return M distances of a closed C¹ curve through K ``knots``; never outside [min(knots), max(knots)]."""
    wrap = 3  # knots repeated on either side, so that the slope at the seam is that of the closed curve
    indices = np.arange(-wrap, len(knots) + wrap + 1)
    curve = scipy.interpolate.PchipInterpolator(indices, np.log(knots[indices % len(knots)]))
    return np.clip(np.exp(curve(t)), knots.min(), knots.max())  # the clip only removes rounding


def _of_dataset(settings: CameraSettings, draw: Draw) -> tuple[Range[float], Range[float], float]:
    """Return the ranges of distance (scene units) and elevation and the spread of the target in one dataset.

    They are those of the settings, or random parts of them with ``ranges_per_dataset``.
    """
    unit = draw.dataset_rng.random((3, 2))

    def part(whole: Range[float], draws: np.ndarray) -> Range[float]:
        width = (whole.high - whole.low) * (MIN_RANGE_SHARE + (1 - MIN_RANGE_SHARE) * draws[0])
        start = whole.low + (whole.high - whole.low - width) * draws[1]
        return Uniform(float(start), float(start + width))

    distance, elevation, sigma = settings.distance, settings.elevation_sin, settings.target_sigma
    if settings.ranges_per_dataset:
        distance, elevation, sigma = part(distance, unit[0]), part(elevation, unit[1]), sigma * float(unit[2, 0])
    return distance.times(ORBIT_UNIT), elevation, sigma


def sample_orbit(rng: np.random.Generator, settings: CameraSettings, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """Return (positions N×3, quaternions N×4), frames evenly spaced by arc length, the last not repeating the first.

    Control points are drawn until consecutive ones are at most ``max_knot_angle_deg`` apart and the path stays below
    ``max_elevation_deg`` on both sides: a level camera at elevation e turns at most 1/cos(e) times as fast as it moves
    around the object, so it never spins at the pole. SceneRejected after ``trials``.
    """
    distance, elevation_sin, target_sigma = _of_dataset(settings, draw)
    control_points, max_elevation = settings.control_points, np.radians(settings.max_elevation_deg)
    parameter = np.arange(control_points * STEPS_PER_SEGMENT) / STEPS_PER_SEGMENT
    for _ in range(settings.trials):
        azimuth = rng.uniform(0, 2 * np.pi, control_points)
        height = elevation_sin.draw(rng, control_points)
        flat = np.sqrt(1 - height**2)
        knots = np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), height], axis=-1)
        cosines = np.sum(knots * np.roll(knots, -1, axis=0), axis=-1)
        if cosines.min() < np.cos(np.radians(settings.max_knot_angle_deg)):
            continue
        directions = closed_sphere_curve(knots, parameter)
        if np.abs(directions[:, 2]).max() <= np.sin(max_elevation):
            break
    else:
        raise SceneRejected(
            f"camera: no orbit with elevation_sin {elevation_sin} below {settings.max_elevation_deg:g}° elevation was "
            f"found in {settings.trials} trials; narrow camera.elevation_sin or raise camera.max_elevation_deg"
        )
    distances = distance.draw(rng, control_points)
    path = directions * closed_log_distance(distances, parameter)[:, None]
    target = rng.normal(0.0, 1.0, 3) * target_sigma
    positions = _evenly_spaced(path, draw.frames)
    return positions, look_along(target - positions)


def _evenly_spaced(path: np.ndarray, frames: int) -> np.ndarray:
    """Return ``frames`` points of a closed polyline (M×3) at equal arc-length steps from its first point."""
    closed = np.concatenate([path, path[:1]])
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=-1))])
    wanted = np.arange(frames) / frames * lengths[-1]
    return np.stack([np.interp(wanted, lengths, closed[:, axis]) for axis in range(3)], axis=-1)
