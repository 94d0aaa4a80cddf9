"""What a page with point clouds embeds: a sample in 9 or 11 bytes per point, and where the page looks from.

Per point: the position as 3 × uint16 in the box of its cloud, the distance to another cloud as uint16 where there is
one (of its square root, so that small errors keep their precision), the colour as 3 × uint8. Base64 adds a third.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from megasynth_attr.core.pages.words import number_text

FOV_DEG = 50.0  # of the page's own camera, along the shorter side of the picture
FOCAL = float(0.5 / np.tan(np.radians(FOV_DEG / 2)))  # the same as a focal length, in lengths of the shorter side
STEPS = 65535  # of a quantised number
FAR = 2.0  # points farther outside than this many extents of their cloud would coarsen the steps of all others


@dataclass(frozen=True)
class Cloud:
    """Points [N, 3] in the world frame of the ground truth (z up, scene units), sRGB colours uint8 [N, 3].

    Points may be non-finite: the page leaves them out and counts them. Raises ValueError for other shapes.
    """

    points: np.ndarray
    colours: np.ndarray

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.points.shape[1] != 3 or self.points.dtype.kind not in "fiu":
            raise ValueError(f"points must be numbers [N, 3], got {self.points.dtype} {self.points.shape}")
        if self.colours.shape != self.points.shape or self.colours.dtype != np.uint8:
            raise ValueError(
                f"colours must be uint8 {self.points.shape}, got {self.colours.dtype} {self.colours.shape}"
            )


@dataclass(frozen=True)
class PackedCloud:
    """A cloud as it is embedded. A number q on an axis means ``low + q · step``, to within half a step."""

    low: np.ndarray
    step: np.ndarray
    positions: np.ndarray  # uint16 [n, 3], in random order: any leading part is an even sample of the whole
    distances: np.ndarray | None  # float64 [n], scene units, to the nearest point of the other cloud; None: no other
    colours: np.ndarray  # uint8 [n, 3]
    total: int  # points of the cloud that was given
    not_finite: int
    far_outside: int

    @property
    def count(self) -> int:
        return len(self.positions)

    @property
    def distance_step(self) -> float:
        """Return the step in √(scene units): a number q means the distance (q · distance_step)²."""
        return 0.0 if self.distances is None else float(np.sqrt(self.distances.max()) / STEPS)

    def points(self) -> np.ndarray:
        """Return the points as the page shows them, float64 [n, 3]."""
        return self.low + self.positions * self.step

    def base64(self) -> str:
        """Return positions, quantised distances if there are any, and colours, one after another, little-endian."""
        numbers = [self.positions.astype("<u2"), self.colours]
        if self.distances is not None:
            quantised = np.sqrt(self.distances) / (self.distance_step or 1)
            numbers.insert(1, np.round(quantised).astype("<u2"))
        return base64.b64encode(b"".join(part.tobytes() for part in numbers)).decode("ascii")

    def record(self) -> dict[str, Any]:
        """Return what the page's script needs to read ``base64``, as plain values."""
        return {
            "count": self.count,
            "low": self.low.tolist(),
            "step": self.step.tolist(),
            "distance_step": self.distance_step,
            "measured": self.distances is not None,
        }

    def count_text(self) -> str:
        """Return how many points are shown, of how many."""
        shown = f"{number_text(self.count)} of " if self.count < self.total else ""
        return f"{shown}{number_text(self.total)} points."

    def left_out_texts(self) -> list[str]:
        """Return one sentence per reason for which points were left out."""
        reasons = {"not finite": self.not_finite, "far outside": self.far_outside}
        return [f"Left out because {why}: {number_text(count)}." for why, count in reasons.items() if count]


def pack_cloud(cloud: Cloud, limit: int, other: Cloud | None = None) -> PackedCloud:
    """Return at most ``limit`` points of ``cloud``, quantised, with their distances to all finite points of ``other``.

    The choice is random but the same every time. Points that are not finite, or so far outside that they would coarsen
    the steps of all others, are left out and counted.
    """
    finite = np.flatnonzero(np.isfinite(cloud.points).all(axis=1))
    points = cloud.points[finite].astype(np.float64)
    near = _near_the_rest(points)
    order = np.random.default_rng(0).permutation(np.flatnonzero(near))[:limit]
    points = points[order]
    low = points.min(axis=0) if len(points) else np.zeros(3)
    step = (points.max(axis=0) - low) / STEPS if len(points) else np.zeros(3)
    target = other.points[np.isfinite(other.points).all(axis=1)] if other else points[:0]
    distances = None
    if len(target) and len(points):
        distances = np.asarray(cKDTree(target).query(points, workers=-1)[0], dtype=np.float64)
    return PackedCloud(
        low=low,
        step=step,
        positions=np.round((points - low) / np.where(step > 0, step, 1)).astype(np.uint16),
        distances=distances,
        colours=cloud.colours[finite[order]],
        total=len(cloud.points),
        not_finite=len(cloud.points) - len(finite),
        far_outside=int(len(finite) - np.count_nonzero(near)),
    )


def _near_the_rest(points: np.ndarray) -> np.ndarray:
    """Return which points lie within ``FAR`` extents of the box that holds the middle 98 % along every axis."""
    if not len(points):
        return np.zeros(0, dtype=bool)
    low, high = np.percentile(points, (1, 99), axis=0)
    margin = FAR * (high - low).max()
    return np.asarray(((points >= low - margin) & (points <= high + margin)).all(axis=1))


def camera_axes(camera_from_world: np.ndarray) -> np.ndarray:
    """Return [M, 4, 3]: centre, right, down and forward (unit vectors) in the world, of the usable cameras.

    Cameras that are not finite, or singular, are left out: M ≤ N.
    """
    poses = np.asarray(camera_from_world, dtype=np.float64)
    usable = np.isfinite(poses).all(axis=(1, 2))
    usable[usable] = np.abs(np.linalg.det(poses[usable])) > 1e-12
    world_from_camera = np.linalg.inv(poses[usable])
    axes = world_from_camera[:, :3, :3].transpose(0, 2, 1)
    axes = axes / np.linalg.norm(axes, axis=2, keepdims=True)
    return np.concatenate([world_from_camera[:, None, :3, 3], axes], axis=1)


def ball(points: np.ndarray, camera_centres: np.ndarray) -> tuple[np.ndarray, float]:
    """Return centre and radius of a ball around the cameras and the middle 96 % of the points along every axis."""
    middle = np.percentile(points, (2, 98), axis=0) if len(points) else np.zeros((0, 3))
    corners = np.concatenate([middle, camera_centres])
    if not len(corners):
        return np.zeros(3), 1.0
    low, high = corners.min(axis=0), corners.max(axis=0)
    centre = (low + high) / 2
    inner = np.clip(points, *middle) if len(points) else points
    distances = np.linalg.norm(np.concatenate([inner, camera_centres]) - centre, axis=1)
    return centre, max(float(distances.max()), 1e-6)


@dataclass(frozen=True)
class View:
    """The page's camera, at target + distance · (cos el · cos az, cos el · sin az, sin el). z is up.

    ``roll`` turns it clockwise about the direction in which it looks, as the viewer sees it.
    """

    target: list[float]
    distance: float
    azimuth: float  # radians
    elevation: float  # radians
    roll: float = 0.0  # radians
    focal: float = FOCAL  # focal length, in lengths of the picture's shorter side


def overview(centre: np.ndarray, radius: float) -> View:
    """Return a view from a corner that shows the whole ball."""
    return View(centre.tolist(), float(radius / np.sin(np.radians(FOV_DEG / 2))), azimuth=-0.8, elevation=0.5)


def view_of_camera(axes: np.ndarray, points: np.ndarray, fallback_distance: float, focal: float = FOCAL) -> View:
    """Return the view from one camera ([4, 3], see ``camera_axes``), which rotates about what it looks at.

    The target lies on the optical axis at the median depth of the points near the middle of the picture, or at
    ``fallback_distance`` if there are none.
    """
    centre, forward = axes[0], axes[3]
    x, y, depth = axes[1:] @ (points - centre).T
    middle = depth[(depth > 0) & (np.abs(x) < 0.4 * depth) & (np.abs(y) < 0.4 * depth)]
    distance = float(np.median(middle)) if len(middle) else fallback_distance
    level = np.hypot(forward[0], forward[1])
    # Looking straight up or down, only the camera's right axis tells how the picture is rotated
    azimuth = np.arctan2(-axes[1, 0], axes[1, 1]) if level < 1e-6 else np.arctan2(-forward[1], -forward[0])
    elevation = np.arctan2(-forward[2], level)
    cos, sin = np.cos(azimuth), np.sin(azimuth)
    right, down = (-sin, cos, 0), (np.sin(elevation) * cos, np.sin(elevation) * sin, -np.cos(elevation))
    roll = np.arctan2(axes[1] @ down, axes[1] @ right)
    target = (centre + distance * forward).tolist()
    return View(target, distance, float(azimuth), float(elevation), float(roll), focal)
